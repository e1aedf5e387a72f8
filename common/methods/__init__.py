"""One file per paper: the module that runs in training, i.e. what is forwarded, on which modalities."""
