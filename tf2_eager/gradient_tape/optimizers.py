"""Adam and RMSProp on the raw ops that TF1's optimizers run, so that a port to GradientTape gives the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfport import adam
from tfport.models.spec import Adam as AdamNumbers
from tfport.models.spec import Optimizer as Numbers
from tfport.models.spec import RMSProp as RMSPropNumbers
from tfport.subject import CORRECTED


def _zeros(variables: Sequence[Any]) -> list[Any]:
    return [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in variables]


class Adam(tf.Module):  # type: ignore[misc]
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) on `tf.raw_ops.ResourceApplyAdam`.

    The beta powers are variables multiplied up once a step, as TF1 keeps them; Keras computes pow(beta, step), which
    differs in the last bits. Epsilon is added to sqrt(v) before the bias correction; where the numbers ask for
    PyTorch's, which comes after it, epsilon is made to shrink with that correction.
    """

    def __init__(self, numbers: Numbers, variables: Sequence[Any], name: str | None = None) -> None:
        super().__init__(name=name)
        assert isinstance(numbers, AdamNumbers)
        dtype = variables[0].dtype
        self.numbers = numbers
        self.algorithm = numbers.algorithm + (CORRECTED if numbers.epsilon_after_correction else "")
        self.learning_rate = tf.constant(numbers.learning_rate, dtype)
        self.beta_1 = tf.constant(numbers.beta_1, dtype)
        self.beta_2 = tf.constant(numbers.beta_2, dtype)
        self.epsilon = tf.constant(numbers.epsilon, dtype)
        self.held = list(variables)
        self.m = _zeros(variables)
        self.v = _zeros(variables)
        self.beta_1_power = tf.Variable(self.beta_1, trainable=False)
        self.beta_2_power = tf.Variable(self.beta_2, trainable=False)

    def apply(self, gradients: Sequence[Any]) -> None:
        """Moves the variables by one step against `gradients`, given in the variables' order."""
        epsilon = self.epsilon
        if self.numbers.epsilon_after_correction:
            epsilon = epsilon * tf.sqrt(1 - self.beta_2_power)
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
                epsilon=epsilon,
                grad=gradient,
            )
        self.beta_1_power.assign(self.beta_1_power * self.beta_1)
        self.beta_2_power.assign(self.beta_2_power * self.beta_2)

    def count(self) -> int:
        """Steps done, read back from beta_2's power."""
        return adam.iterations(float(self.beta_2), self.beta_2_power.numpy())

    def set_count(self, count: int) -> None:
        """Multiplies the beta powers up again."""
        for beta, power in ((self.beta_1, self.beta_1_power), (self.beta_2, self.beta_2_power)):
            power.assign(adam.beta_power(float(beta), count, power.dtype.name))


class RMSProp(tf.Module):  # type: ignore[misc]
    """RMSProp (Tieleman and Hinton 2012) on `tf.raw_ops.ResourceApplyRMSProp`, its mean square starting at zero.

    The op keeps a momentum slot too; with a momentum of 0 it holds the last step and nothing depends on it.
    """

    def __init__(self, numbers: Numbers, variables: Sequence[Any], name: str | None = None) -> None:
        super().__init__(name=name)
        assert isinstance(numbers, RMSPropNumbers)
        dtype = variables[0].dtype
        self.numbers = numbers
        self.algorithm = numbers.algorithm
        self.learning_rate = tf.constant(numbers.learning_rate, dtype)
        self.rho = tf.constant(numbers.rho, dtype)
        self.epsilon = tf.constant(numbers.epsilon, dtype)
        self.held = list(variables)
        self.rms = _zeros(variables)
        self.last_step = _zeros(variables)
        self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False)

    def apply(self, gradients: Sequence[Any]) -> None:
        """Moves the variables by one step against `gradients`, given in the variables' order."""
        for variable, rms, last, gradient in zip(self.held, self.rms, self.last_step, gradients, strict=True):
            tf.raw_ops.ResourceApplyRMSProp(
                var=variable.handle,
                ms=rms.handle,
                mom=last.handle,
                lr=self.learning_rate,
                rho=self.rho,
                momentum=tf.zeros_like(self.rho),
                epsilon=self.epsilon,
                grad=gradient,
            )
        self.iterations.assign_add(1)

    def count(self) -> int:
        """Steps done."""
        return int(self.iterations.numpy())

    def set_count(self, count: int) -> None:
        """Sets the steps done."""
        self.iterations.assign(count)
