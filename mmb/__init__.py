"""The application on the bundles' package `common`: patients' studies, experiments, authors' checkpoints."""
