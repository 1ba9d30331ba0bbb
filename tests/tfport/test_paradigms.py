"""Paradigms by name: found lazily, refused clearly."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from fakes import FakeSubject
from tfport import models, paradigms
from tfport.errors import UserError
from tfport.paradigms import PARADIGMS, Paradigm
from tfport.remote import child_environment

SPEC = models.get("vanilla_gan")


def in_a_fresh_process(program: str) -> str:
    """What the program prints."""
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=child_environment(), check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_the_list_of_paradigms_imports_no_framework() -> None:
    program = """
import sys
from tfport import models, paradigms
[models.get(name) for name in models.MODELS], [paradigms.check(name) for name in paradigms.PARADIGMS]
print(sorted({"tensorflow", "keras", "tf_keras", "scipy"} & set(sys.modules)))
"""
    assert in_a_fresh_process(program) == "[]"


def test_asking_for_tf1_graph_imports_no_keras() -> None:
    """None beyond what `import tensorflow` may bring of itself, as it does where Keras 3 is installed."""
    program = """
import sys
import tensorflow
def keras(): return {name for name in sys.modules if name.split(".")[0] in ("keras", "tf_keras", "tf2_eager")}
before = keras()
from tfport import models, paradigms
subject = paradigms.build("tf1_graph", models.get("vanilla_gan"))
assert len(subject.variables()) == 8
print(sorted(keras() - before))
"""
    assert in_a_fresh_process(program) == "[]"


def test_every_paradigm_is_filed_under_its_name() -> None:
    assert {name: each.name for name, each in PARADIGMS.items()} == {name: name for name in PARADIGMS}
    assert len({each.package for each in PARADIGMS.values()}) == len(PARADIGMS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "keras_3",
            r"^unknown paradigm 'keras_3'\. Did you mean .*keras3.*\? Valid: gradient_tape, keras2, keras3, "
            r"tf1_graph, torch\.$",
        ),
        ("", r"^unknown paradigm ''\."),
        ("os", r"^unknown paradigm 'os'\."),
        ("tf2_eager.keras3", r"^unknown paradigm"),
    ],
)
def test_an_unknown_paradigm_is_refused_by_name(name: str, message: str) -> None:
    for refuse in (paradigms.check, paradigms.get, lambda name: paradigms.build(name, SPEC)):
        with pytest.raises(UserError, match=message):
            refuse(name)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "double", ""])
def test_an_unknown_precision_is_refused_before_anything_is_built(precision: str) -> None:
    with pytest.raises(UserError, match=f"^unknown precision '{precision}'"):
        paradigms.build("fakes:plain", SPEC, precision)


def test_a_factory_builds_what_it_likes() -> None:
    found = paradigms.build("fakes:plain", SPEC, "float64", 3)
    assert isinstance(found, FakeSubject)
    assert (found.precision, found.salt) == ("float64", 3)


@pytest.mark.parametrize(
    "name", ["nowhere_at_all:make", "fakes:nothing", ":plain", "fakes:", ":", "fakes:plain:more", "fakes :plain"]
)
def test_a_factory_that_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"^'{name}' names no factory .*Expected module:function"):
        paradigms.build(name, SPEC)


def test_a_model_without_implementation_is_refused_by_name() -> None:
    with pytest.raises(
        UserError, match=r"^wasserstein has no implementation in tf1_graph \(no module tf1_graph\.wasserstein\)"
    ):
        paradigms.build("tf1_graph", dataclasses.replace(SPEC, name="wasserstein", family="wasserstein"))


def test_variants_are_built_by_the_module_of_their_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "paradigm_of_families"
    package.mkdir()
    (package / "leaky_gan.py").write_text(
        "from fakes import halved\n\n\ndef build(spec, precision, seed):\n"
        "    made = halved(spec, precision, seed)\n    made.asked = spec.name\n    return made\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(PARADIGMS, "families", Paradigm("families", package.name))
    for name in ("leaky_gan", "leaky_gan_slope02", "leaky_gan_shallow"):
        assert vars(paradigms.build("families", models.get(name)))["asked"] == name
    with pytest.raises(UserError, match=r"^torch_gan_l2 has no implementation in families \(no module .*\.torch_gan\)"):
        paradigms.build("families", models.get("torch_gan_l2"))


def test_an_implementation_that_misses_a_dependency_says_so_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not be taken for an implementation that is not there."""
    package = tmp_path / "paradigm_that_needs_more"
    package.mkdir()
    (package / "vanilla_gan.py").write_text("import a_module_that_is_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(PARADIGMS, "needy", Paradigm("needy", package.name))
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_installed"):
        paradigms.build("needy", SPEC)
