"""What results say: tests, intervals, worth of each modality, reliability, published tables beside."""
