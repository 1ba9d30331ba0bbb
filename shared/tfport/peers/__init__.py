"""Originals that are not TensorFlow's, run as Subjects: what the ports are proved against."""
