"""Adapters: Programs made of what people have, for `tfport.check`.

Each constructor imports its framework only when it is called.
"""

from __future__ import annotations

import importlib
from typing import Any

_CONSTRUCTORS: dict[str, str] = {
    "tf1_graph": "tfport.adapters.tf1_sides",
    "from_meta": "tfport.adapters.tf1_sides",
    "from_saved_model": "tfport.adapters.tf1_sides",
    "from_script": "tfport.adapters.script",
    "keras_model": "tfport.adapters.keras_models",
    "keras_phases": "tfport.adapters.keras_models",
    "keras_gan": "tfport.adapters.keras_models",
    "tf_module": "tfport.adapters.module_program",
    "torch_module": "tfport.adapters.torch_program",
}
"""Public name -> the module that has it."""

__all__ = sorted(_CONSTRUCTORS)


def constructor(name: str) -> Any:
    """A constructor by its public name; its module is imported now."""
    return getattr(importlib.import_module(_CONSTRUCTORS[name]), name)


def __getattr__(name: str) -> Any:
    """Finds a constructor and imports its module."""
    if name not in _CONSTRUCTORS:
        raise AttributeError(f"tfport.adapters has no {name!r}; it has {', '.join(sorted(_CONSTRUCTORS))}.")
    return constructor(name)
