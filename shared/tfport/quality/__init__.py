"""How good generated images are: by likelihood, by a classifier's features, by classes, by nearest neighbours.

Images are float arrays [N, 784] with values from 0 (background) to 1 (ink); callers rescale. `measure.measure` does it
all, and puts beside every figure its floor: what real images give in the place of the generated ones.
"""
