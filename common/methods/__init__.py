"""Training steps, one file per paper: modules that decide what is forwarded, on which modalities."""
