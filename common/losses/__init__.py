"""Losses, one file per paper or named loss: plain modules on tensors."""
