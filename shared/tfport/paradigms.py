"""The paradigms by name, found lazily: asking for one imports its framework and no other."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfport.errors import UserError, unknown

if TYPE_CHECKING:
    from tfport.models.spec import ModelSpec
    from tfport.subject import Subject


@dataclass(frozen=True)
class Paradigm:
    """Where a paradigm's code lives."""

    name: str
    package: str


PARADIGMS: dict[str, Paradigm] = {
    each.name: each
    for each in (
        Paradigm("tf1_graph", "tf1_graph"),
        Paradigm("gradient_tape", "tf2_eager.gradient_tape"),
        Paradigm("keras2", "tf2_eager.keras2"),
        Paradigm("keras3", "tf2_eager.keras3"),
    )
}


@dataclass(frozen=True)
class Extra:
    """A paradigm that needs more than the project's own dependencies, and has some models only."""

    paradigm: Paradigm
    needs: str
    """The module that must be there."""
    remedy: str
    families: tuple[str, ...]


EXTRAS: dict[str, Extra] = {
    each.paradigm.name: each
    for each in (
        Extra(
            Paradigm("torch", "tfport.peers.pytorch"),
            "torch",
            "pip install torch==2.13.0, or install tfport[torch]",
            ("torch_gan",),
        ),
    )
}
"""Originals that the ports can be held against; no default names them."""

PRECISIONS: tuple[str, ...] = ("float32", "float64")


def check_precision(precision: str) -> None:
    """Raises UserError unless `precision` is one that models are built in."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)


def check(name: str, spec: ModelSpec | None = None) -> None:
    """Checks a name before anything is built.

    Raises:
      UserError: it is neither a paradigm that can run, nor written like a factory, `module:function`; or it is an extra
        that has no such model.
    """
    if ":" in name:
        return
    get(name)
    if spec is not None and name in EXTRAS and spec.family not in EXTRAS[name].families:
        has = ", ".join(EXTRAS[name].families)
        raise UserError(f"{spec.name} has no implementation in {name}, which has these models: {has}.")


def get(name: str) -> Paradigm:
    """The paradigm of that name.

    Raises:
      UserError: no such paradigm; the message lists the valid names, nearest first. Or an extra whose package is not
        installed; the message says how to get it.
    """
    if name in PARADIGMS:
        return PARADIGMS[name]
    if name not in EXTRAS:
        raise unknown("paradigm", name, [*PARADIGMS, *EXTRAS])
    extra = EXTRAS[name]
    if importlib.util.find_spec(extra.needs) is None:
        raise UserError(f"the paradigm {name} needs the package {extra.needs}, which is not installed: {extra.remedy}.")
    return extra.paradigm


def build(paradigm: str, spec: ModelSpec, precision: str = "float32", seed: int = 0) -> Subject:
    """Builds `spec` in a paradigm, in this process, with the paradigm's own initialisers.

    Args:
      paradigm: a name from PARADIGMS or EXTRAS, or `module:function` for a factory (spec, precision, seed) -> Subject.
      spec: the model's facts.
      precision: "float32" or "float64"; a process builds Keras models in one of them only.
      seed: seeds the paradigm's own initialisers.

    Raises:
      UserError: unknown names, or a precision that this process can no longer serve.
    """
    check_precision(precision)
    if ":" in paradigm:
        return _from_factory(paradigm, spec, precision, seed)
    check(paradigm, spec)
    package = get(paradigm).package
    try:
        module = importlib.import_module(f"{package}.{spec.family}")
    except ModuleNotFoundError as error:
        if error.name != f"{package}.{spec.family}":
            raise
        raise UserError(f"{spec.name} has no implementation in {paradigm} (no module {error.name}).") from None
    subject: Subject = module.build(spec, precision, seed)
    return subject


def _from_factory(name: str, spec: ModelSpec, precision: str, seed: int) -> Subject:
    """Calls the function that `module:function` names; the folder one stands in is searched too."""
    from tfport.subject import Subject

    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # a module of the user's may raise anything while it is imported
        raise UserError(
            f"{name!r} names no factory ({type(error).__name__}: {error}). "
            "Expected module:function, importable from where you stand."
        ) from None
    try:
        subject = factory(spec, precision, seed)
    except UserError:
        raise
    except Exception as error:  # whatever a user's factory raises is the user's to mend
        raise UserError(f"the factory {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(subject, Subject):
        raise UserError(f"the factory {name} returned {type(subject).__name__}, expected a tfport.subject.Subject.")
    return subject
