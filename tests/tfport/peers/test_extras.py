"""Extras: there by name, in no default, and clear about what they need."""

from __future__ import annotations

import importlib.util

import pytest

from tfport import models, paradigms
from tfport.equivalence.compare import Request
from tfport.errors import UserError
from tfport.paradigms import EXTRAS, PARADIGMS


def test_no_extra_is_a_default() -> None:
    assert EXTRAS
    assert not EXTRAS.keys() & PARADIGMS.keys()
    assert all(name == extra.paradigm.name for name, extra in EXTRAS.items())
    assert all(family in {models.get(name).family for name in models.MODELS} for family in EXTRAS["torch"].families)


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    message = (
        r"^the paradigm torch needs the package torch, which is not installed: pip install torch==.*tfport\[torch\]"
    )
    for ask in (
        lambda: paradigms.get("torch"),
        lambda: paradigms.check("torch"),
        lambda: paradigms.build("torch", models.get("torch_gan")),
        lambda: Request("torch_gan", ("torch", "tf1_graph")).check(),
    ):
        with pytest.raises(UserError, match=message):
            ask()


def test_a_model_that_an_extra_lacks_is_refused_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(
        UserError, match=r"^vanilla_gan has no implementation in torch, which has these models: torch_gan"
    ):
        paradigms.build("torch", models.get("vanilla_gan"))
