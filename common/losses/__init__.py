"""One file per paper or named loss; plain modules on tensors."""
