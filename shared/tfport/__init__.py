"""tfport proves that a port of TensorFlow code computes what its original computes."""

__version__ = "0.1.0"
