"""The papers, one file each: the training step, the losses, and what is updated once per epoch."""
