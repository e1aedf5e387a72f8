"""Key maps from the authors' published checkpoints to our networks."""
