"""Training steps, one file per paper: modules that decide what goes through the network, and with which modalities."""
