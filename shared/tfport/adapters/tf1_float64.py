"""TF1's optimizers in float64: their hyperparameters, and Adam's beta powers, in the precision of the variables.

TF1 keeps a rate, a beta or an epsilon that is given as a Python number in float32, whatever the variables are. In
float64 that alone moves a model by 1e-8 a step. Here the same numbers, rounded to float32, are float64 tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf


@contextmanager
def float64_optimizers(active: bool) -> Iterator[None]:
    """Has every TF1 optimizer that is applied to float64 variables inside keep its numbers in float64."""
    if not active:
        yield
        return
    own = tf.train.Optimizer.apply_gradients

    def apply_gradients(self: Any, grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
        pairs = list(grads_and_vars)
        if not any(variable.dtype.base_dtype == tf.float64 for _, variable in pairs):
            return own(self, pairs, *args, **kwargs)
        prepare, create = self._prepare, self._create_non_slot_variable

        def prepared() -> None:
            prepare()
            for name, value in list(vars(self).items()):
                if isinstance(value, tf.Tensor) and value.dtype == tf.float32 and value.shape.rank == 0:
                    setattr(self, name, _widened(value))

        def created(initial_value: Any, name: str, colocate_with: Any) -> Any:
            if isinstance(initial_value, float):
                with tf.control_dependencies(None):
                    initial_value = tf.constant(float(np.float32(initial_value)), tf.float64, name=f"{name}/initial")
            return create(initial_value=initial_value, name=name, colocate_with=colocate_with)

        self._prepare, self._create_non_slot_variable = prepared, created
        try:
            return own(self, pairs, *args, **kwargs)
        finally:
            del self._prepare, self._create_non_slot_variable

    tf.train.Optimizer.apply_gradients = apply_gradients
    try:
        yield
    finally:
        tf.train.Optimizer.apply_gradients = own


def _widened(tensor: Any) -> Any:
    with tf.control_dependencies(None):
        known = tf.get_static_value(tensor)
        if known is not None:
            return tf.constant(float(known), tf.float64, name="float64")
        return tf.cast(tensor, tf.float64)
