"""Predictors: a bundle, or the folder of a trained nnU-Net."""
