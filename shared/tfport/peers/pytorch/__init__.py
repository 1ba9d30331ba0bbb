"""PyTorch modules as Subjects; needs the extra `torch`."""
