"""Canonical names of algorithms, hyperparameters and slots, in which every framework's optimizers are read.

State names: `optimizer/<optimizer>/<slot>/<variable>` for a slot and `optimizer/<optimizer>/iterations` (int64 scalar)
for the count of updates. Slots are in the terms of TF1's kernels, whatever the framework keeps:

| algorithm | slots | hyperparameters beside learning_rate |
| --- | --- | --- |
| SGD | | |
| Momentum, Nesterov | accumulator: `a = momentum * a + g; var -= rate * a` | momentum |
| Adagrad | accumulator: sum of g**2, from its initial value on | epsilon |
| Adadelta | accumulator, accumulator_update | rho, epsilon |
| RMSProp | rms; momentum, where momentum > 0 | rho, momentum, epsilon |
| CenteredRMSProp | rms, mean; momentum, where momentum > 0 | rho, momentum, epsilon |
| Adam | m, v | beta_1, beta_2, epsilon |
| AdamW | m, v | beta_1, beta_2, epsilon, weight_decay |
| Adamax | m, v (the infinity norm) | beta_1, beta_2, epsilon |
| Ftrl | accumulator, linear | learning_rate_power, l1, l2 |

TF1's Adam keeps beta powers: they are the count (`tfport.adam`). Keras's velocity is `-rate * accumulator`, so reading
it divides by the current rate. Where epsilon is added matters: an algorithm whose epsilon is not TF1's has
`tfport.subject.CORRECTED` behind its name (PyTorch's Adam). A framework's algorithm that has no row here goes by its
class's name, its slots by the framework's names: it compares with itself only.

`learning_rate` is the rate of the next update, as a float: a schedule is evaluated at the current count. A rate that is
fed with the batch is left out.

In float64 the numbers that TF1 keeps in float32 (rate, betas, momentum, rho, epsilon and so on) are rounded to float32
on every side, TF1's by building its optimizers with float64 tensors of the rounded numbers; else two correct programs
would differ by 1e-8 for no reason of theirs.
"""

from __future__ import annotations

SLOTS: dict[str, tuple[str, ...]] = {
    "SGD": (),
    "Momentum": ("accumulator",),
    "Nesterov": ("accumulator",),
    "Adagrad": ("accumulator",),
    "Adadelta": ("accumulator", "accumulator_update"),
    "RMSProp": ("rms", "momentum"),
    "CenteredRMSProp": ("rms", "mean", "momentum"),
    "Adam": ("m", "v"),
    "AdamW": ("m", "v"),
    "Adamax": ("m", "v"),
    "Ftrl": ("accumulator", "linear"),
}
"""Algorithm -> its slots; `momentum` of the RMSProps only where their momentum is not zero."""

KERAS_NUMBERS: dict[str, dict[str, str]] = {
    "SGD": {"momentum": "momentum"},
    "RMSprop": {"rho": "rho", "momentum": "momentum", "epsilon": "epsilon"},
    "Adam": {"beta_1": "beta_1", "beta_2": "beta_2", "epsilon": "epsilon"},
    "AdamW": {"beta_1": "beta_1", "beta_2": "beta_2", "epsilon": "epsilon"},
    "Adamax": {"beta_1": "beta_1", "beta_2": "beta_2", "epsilon": "epsilon"},
    "Adagrad": {"epsilon": "epsilon"},
    "Adadelta": {"rho": "rho", "epsilon": "epsilon"},
    "Ftrl": {
        "learning_rate_power": "learning_rate_power",
        "l1_regularization_strength": "l1",
        "l2_regularization_strength": "l2",
    },
}
"""Keras's class -> an attribute, or a number of its config -> the canonical hyperparameter."""

KERAS_ANY = {
    "weight_decay": "weight_decay",
    "clipnorm": "clipnorm",
    "clipvalue": "clipvalue",
    "global_clipnorm": "global_clipnorm",
    "l2_shrinkage_regularization_strength": "l2_shrinkage",
    "beta": "beta",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
}
"""Numbers that change what any optimizer does, told where they are set."""
