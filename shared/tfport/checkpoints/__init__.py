"""Checkpoints of every framework as one canonical state: reading, showing, comparing, converting."""
