"""The models' specs by name."""

from __future__ import annotations

import importlib

from tfport.errors import unknown
from tfport.models.spec import ModelSpec

MODELS: dict[str, tuple[str, str]] = {
    "vanilla_gan": ("vanilla_gan", "SPEC"),
    "batchnorm_gan": ("batchnorm_gan", "SPEC"),
    "leaky_gan": ("leaky_gan", "SPEC"),
    "leaky_gan_slope02": ("leaky_gan", "SLOPE_02"),
    "leaky_gan_shallow": ("leaky_gan", "SHALLOW"),
    "torch_gan": ("torch_gan", "SPEC"),
    "torch_gan_l2": ("torch_gan", "LEAST_SQUARES"),
    "autoencoder": ("autoencoder", "SPEC"),
    "vae": ("vae", "SPEC"),
    "dcgan": ("dcgan", "SPEC"),
    "conditional_gan": ("conditional_gan", "SPEC"),
    "infogan": ("infogan", "SPEC"),
}
"""Name -> where its spec stands: module, and name in it."""

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(module for module, _ in MODELS.values()))
"""The nine models; the others are named variants of one of them."""


def get(name: str) -> ModelSpec:
    """The spec of the model of that name.

    Raises:
      UserError: no such model; the message lists the valid names, nearest first.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    module, attribute = MODELS[name]
    spec: ModelSpec = getattr(importlib.import_module(f"tfport.models.{module}"), attribute)
    return spec
