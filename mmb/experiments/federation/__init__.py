"""Federated training: hospitals train one network without sharing images, on NVIDIA FLARE with MONAI's client."""
