"""From modalities to region probabilities: a bundle, an nnU-Net folder; their calibration and evaluation."""
