"""The versions that a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata

import tfport

OPTIONAL = ("torch",)
"""Frameworks that are named only where they are installed."""


def versions() -> dict[str, str]:
    """Name -> version of Python, tfport and the frameworks that are installed; nothing is imported for it."""
    found = {"python": platform.python_version(), "tfport": tfport.__version__}
    for package in ("tensorflow", "keras", "tf-keras", "numpy", *OPTIONAL):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package not in OPTIONAL:
                found[package] = "not installed"
    return found
