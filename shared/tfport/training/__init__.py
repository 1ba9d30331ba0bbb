"""Training runs: the loop, the run directory, checkpoints, metrics, events and sample pictures."""
