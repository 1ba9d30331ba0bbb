"""Turning TensorFlow's graph rewriting off.

It fuses ops whose values a check fetches, and crashes on some (`tf.maximum(h, 0.2 * h)` behind a bias). It is off
for training steps too, on every side, so that what is looked at and what trains are one computation and fusing makes
no difference between the sides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


def unrewritten_config() -> Any:
    """A ConfigProto under which graphs run as they are written."""
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


@contextlib.contextmanager
def unrewritten() -> Iterator[None]:
    """Inside, functions that are called for the first time run as they are written, then and later."""
    from tensorflow.python.eager import context

    before = context.context().function_call_options
    options = context.FunctionCallOptions(before.executor_type, unrewritten_config())
    context.context().function_call_options = options
    try:
        yield
    finally:
        context.context().function_call_options = before
