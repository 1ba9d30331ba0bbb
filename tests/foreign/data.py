"""Batches for originals that build their graph, or need an old framework, as soon as they are imported."""

import numpy as np


def text(step):
    rng = np.random.RandomState(step)
    text = rng.randint(7, size=[4, 6]).astype("uint8")
    state = rng.uniform(-0.5, 0.5, size=[4, 6]).astype("float32")
    return {"X": text[:, :-1], "Y_": text[:, 1:], "Hin": state}


def series(step):
    rng = np.random.RandomState(step)
    x = rng.normal(size=[6, 4, 2]).astype("float32")
    return {"X": x, "Y": x.sum(axis=(1, 2))[:, None]}


def images(step):
    rng = np.random.RandomState(step)
    return {
        "images": rng.normal(size=[4, 8, 8, 2]).astype("float32"),
        "labels": np.eye(4, dtype="float32")[rng.randint(4, size=4)],
    }


def rows(step):
    rng = np.random.RandomState(step)
    return {
        "continuous": rng.normal(size=[8, 3]).astype("float32"),
        "category": rng.randint(4, size=[8]).astype("int32"),
        "labels": rng.randint(3, size=[8]).astype("int32"),
    }
