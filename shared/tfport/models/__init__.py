"""The models' specs by name."""

from __future__ import annotations

import importlib

from tfport.errors import unknown
from tfport.models.spec import ModelSpec

MODELS: tuple[str, ...] = ("vanilla_gan",)


def get(name: str) -> ModelSpec:
    """The spec of the model of that name.

    Raises:
      UserError: no such model; the message lists the valid names, nearest first.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    spec: ModelSpec = importlib.import_module(f"tfport.models.{name}").SPEC
    return spec
