"""Adam on the raw op that TF1's AdamOptimizer runs, so that a port to GradientTape gives the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfport.models.spec import Adam as AdamNumbers


class Adam(tf.Module):  # type: ignore[misc]
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) with epsilon added to sqrt(v) before the bias correction.

    The beta powers are variables multiplied up once a step, as TF1 keeps them; Keras computes pow(beta, step), which
    differs in the last bits. The kernel is `tf.raw_ops.ResourceApplyAdam`.
    """

    def __init__(self, numbers: AdamNumbers, variables: Sequence[Any], name: str | None = None) -> None:
        super().__init__(name=name)
        dtype = variables[0].dtype
        self.learning_rate = tf.constant(numbers.learning_rate, dtype)
        self.beta_1 = tf.constant(numbers.beta_1, dtype)
        self.beta_2 = tf.constant(numbers.beta_2, dtype)
        self.epsilon = tf.constant(numbers.epsilon, dtype)
        self.held = list(variables)
        self.m = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in variables]
        self.v = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in variables]
        self.beta_1_power = tf.Variable(self.beta_1, trainable=False)
        self.beta_2_power = tf.Variable(self.beta_2, trainable=False)

    def apply(self, gradients: Sequence[Any]) -> None:
        """Moves the variables by one step against `gradients`, given in the variables' order."""
        for variable, m, v, gradient in zip(self.held, self.m, self.v, gradients, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=self.beta_1_power,
                beta2_power=self.beta_2_power,
                lr=self.learning_rate,
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=gradient,
            )
        self.beta_1_power.assign(self.beta_1_power * self.beta_1)
        self.beta_2_power.assign(self.beta_2_power * self.beta_2)
