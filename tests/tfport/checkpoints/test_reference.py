"""Layouts that are learned by planting, and checkpoints that are carried by them; numpy alone, then TensorFlow."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import subjects
from fakes import FakeSubject, small_spec
from tfport import adam, paradigms
from tfport.checkpoints import reference
from tfport.checkpoints.contents import STRING, Array, Role
from tfport.checkpoints.convert import same_bytes
from tfport.checkpoints.parts import PartsSource
from tfport.errors import CheckpointError, UserError
from tfport.models.spec import Adam
from tfport.state import State
from tfport.subject import Subject

SPEC = small_spec()
KERNEL = "generator/hidden/kernel"


# --- Programs in numpy, each with its own way of laying things out ----------------------------------------------------
class Native(FakeSubject):
    """One that keeps its state under names of its own, in one file or several."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.paradigm = type(self).__name__

    def parts(self, arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
        """File -> key -> array."""
        return {"model.npz": {f"my.{name.replace('/', '.')}": array for name, array in arrays.items()}}

    def names(self, parts: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
        """The inverse of `parts`."""
        (part,) = parts.values()
        return {name: part[f"my.{name.replace('/', '.')}"] for name in self.arrays}

    def save(self, folder: Path) -> None:
        for name, arrays in self.parts(self.state().arrays).items():
            np.savez(folder / name, **arrays)  # type: ignore[arg-type]

    def restore(self, folder: Path) -> None:
        parts = {path.name: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}
        self.load(State(self.spec.name, self.names(parts)))


class Turned(Native):
    """Kernels lie transposed, weights and slots alike, as PyTorch has them."""

    def parts(self, arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
        return super().parts({name: array.T if array.ndim == 2 else array for name, array in arrays.items()})

    def names(self, parts: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
        return {name: array.T if array.ndim == 2 else array for name, array in super().names(parts).items()}


class InParts(Native):
    """A file a network, the other one's optimizer, and one kernel twice."""

    def parts(self, arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
        found: dict[str, dict[str, Array]] = {}
        for name, array in arrays.items():
            key = name.replace("/", ".")
            found.setdefault("generator.npz" if "generator" in name else "discriminator.npz", {})[key] = array
        found["discriminator.npz"]["shared"] = arrays[KERNEL]
        return found

    def names(self, parts: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
        both = {**parts["generator.npz"], **parts["discriminator.npz"]}
        assert both.pop("shared").tobytes() == both[KERNEL.replace("/", ".")].tobytes()
        return {name: both[name.replace("/", ".")] for name in self.arrays}


class Powers(Native):
    """Beta powers and no counts, as TF1 has it, and a number that is no part of the state."""

    def parts(self, arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
        kept = {name: array for name, array in arrays.items() if not name.endswith("/iterations")}
        for name in self._optimizers():
            numbers, count = self._adam(name), int(arrays[f"optimizer/{name}/iterations"])
            for beta in ("beta_1", "beta_2"):
                power = adam.beta_power(getattr(numbers, beta), count, self.precision)
                kept[f"{name}/{beta}"] = np.asarray(power)
        found = super().parts(kept)
        found["model.npz"]["version"] = np.array(0.25, "float32")
        return found

    def names(self, parts: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
        (part,) = parts.values()
        found = {name: part[f"my.{name.replace('/', '.')}"] for name in self.arrays if not name.endswith("/iterations")}
        for name in self._optimizers():
            counts = [
                adam.iterations(getattr(self._adam(name), beta), part[f"my.{name}.{beta}"])
                for beta in ("beta_1", "beta_2")
            ]
            assert counts[0] == counts[1]
            found[f"optimizer/{name}/iterations"] = np.array(counts[0], np.int64)
        return found


class Forgetful(Native):
    """Saves all but one of its moments."""

    def parts(self, arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
        return super().parts(
            {name: array for name, array in arrays.items() if name != f"optimizer/generator/m/{KERNEL}"}
        )


class Squaring(Native):
    """Saves its second moments as their roots: bytes that are in no state."""

    def parts(self, arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
        return super().parts({name: np.sqrt(array) if "/v/" in name else array for name, array in arrays.items()})


KINDS = {each.__name__: each for each in (Native, Turned, InParts, Powers)}


@pytest.fixture(autouse=True)
def factories(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs above are built by their names, in the place of paradigms."""
    build = paradigms.build

    def built(name: str, spec: Any, precision: str = "float32", seed: int = 0) -> Subject:
        found = {**KINDS, "Forgetful": Forgetful, "Squaring": Squaring}.get(name)
        return found(spec, precision, seed) if found else build(name, spec, precision, seed)

    monkeypatch.setattr(paradigms, "build", built)


def trained(name: str, precision: str = "float32") -> tuple[Subject, State]:
    """A program with a state in which everything has moved."""
    subject = paradigms.build(name, SPEC, precision)
    rng = np.random.default_rng(5)
    arrays = {
        each: np.full((), 7, array.dtype)
        if array.dtype.kind == "i"
        else np.asarray(rng.uniform(-1, 1, array.shape), precision)
        for each, array in subject.state().arrays.items()
    }
    subject.load(State(SPEC.name, arrays))
    return subject, subject.state()


def saved(subject: Subject, folder: Path) -> Path:
    folder.mkdir()
    subject.save(folder)
    return folder


def tensors(folder: Path) -> dict[str, bytes]:
    """Key -> bytes, texts left out."""
    with PartsSource(folder) as source:
        return {key: source.read(key).tobytes() for key, each in source.tensors.items() if each.dtype != STRING}


# --- Learning ---------------------------------------------------------------------------------------------------------
def test_what_each_tensor_is() -> None:
    found = reference.layout("Native", SPEC)
    by_name = found.contents.by_name()
    assert by_name.keys() == FakeSubject(SPEC).state().arrays.keys()
    assert not found.turned
    (kernel,) = by_name[KERNEL]
    assert (kernel.key, kernel.role) == ("my.generator.hidden.kernel", Role.WEIGHT)
    (moment,) = by_name[f"optimizer/generator/v/{KERNEL}"]
    assert (moment.role, moment.variable, moment.optimizer, moment.slot) == (Role.SLOT, KERNEL, "generator", "v")
    (count,) = by_name["optimizer/discriminator/iterations"]
    assert (count.role, count.optimizer) == (Role.COUNT, "discriminator")
    assert [each.name for each in found.contents.optimizers] == [name for name, _ in SPEC.optimizers]
    numbers = SPEC.optimizer("generator")
    assert isinstance(numbers, Adam)
    assert found.contents.optimizer("generator").hyperparameters["beta_1"] == numbers.beta_1
    assert KERNEL in found.contents.optimizer("generator").variables


def test_a_variable_that_is_not_trained_is_a_statistic() -> None:
    class Still(Native):
        def variables(self) -> Any:
            return tuple(dataclasses.replace(each, trainable=each.name != KERNEL) for each in super().variables())

    roles = {entry.name: entry.role for entry in reference.learn(Still(SPEC)).contents.entries}
    assert roles[KERNEL] == Role.STATISTIC
    assert roles["generator/output/kernel"] == Role.WEIGHT


def test_beta_powers_and_what_is_no_state() -> None:
    found = {entry.key: entry for entry in reference.layout("Powers", SPEC).contents.entries}
    power = found["my.generator.beta_2"]
    assert (power.role, power.name, power.optimizer) == (
        Role.POWER,
        "optimizer/generator/beta_2_power",
        "generator",
    )
    assert found["version"].role == Role.OTHER
    assert not any(each.role is Role.COUNT for each in found.values())


def test_beta_powers_are_found_in_a_state_of_many_tensors() -> None:
    """Counts are planted small: .5 to the 130th has underflowed in float32, and would tell no count."""
    arrays = {f"w{each}": np.zeros(2, "float32") for each in range(200)}
    planted = reference._planted(State("any", {**arrays, "optimizer/a/iterations": np.array(0, np.int64)}))
    assert int(planted.arrays["optimizer/a/iterations"]) < 10
    assert len({array.tobytes() for array in planted.arrays.values()}) == 201


def test_transposed_kernels_and_copies_are_found() -> None:
    assert reference.layout("Turned", SPEC).turned
    entries = reference.layout("InParts", SPEC).contents.by_name()[KERNEL]
    assert {entry.key for entry in entries} == {
        "generator.npz:generator.hidden.kernel",
        "discriminator.npz:shared",
    }


def test_a_layout_is_learned_once() -> None:
    assert reference.layout("Native", SPEC) is reference.layout("Native", SPEC)
    assert reference.layout("Native", SPEC) is not reference.layout("Native", SPEC, "float64")


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        (Forgetful, f"1 tensor(s) of its state are not in it, first optimizer/generator/m/{KERNEL}"),
        (Squaring, "8 tensor(s)"),
    ],
)
def test_what_is_not_in_the_files_is_an_error(kind: type[Native], lost: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        reference.learn(kind(SPEC))
    assert lost in str(raised.value)
    assert kind.__name__ in str(raised.value)


# --- Carrying, in numpy -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(KINDS, 2)))
def test_there_and_back(source: str, target: str, precision: str, tmp_path: Path) -> None:
    one, state = trained(source, precision)
    before = saved(one, tmp_path / "before")
    reference.convert_folder(before, source, tmp_path / "there", target, SPEC, precision)
    other = paradigms.build(target, SPEC, precision)
    other.restore(tmp_path / "there")
    assert other.state().digest() == state.digest()
    made = reference.convert_folder(tmp_path / "there", target, tmp_path / "back", source, SPEC, precision)
    assert tensors(tmp_path / "back") == tensors(before)
    if source == "Powers":
        assert sum("multiplied up 8 times" in move.how for move in made.moves) == 4


def test_a_changed_value_is_carried_and_seen(tmp_path: Path) -> None:
    """What the round trips above compare would show one bit."""
    one, state = trained("Native")
    arrays = dict(state.arrays)
    arrays[KERNEL] = np.nextafter(arrays[KERNEL], np.float32(2))
    before = saved(one, tmp_path / "before")
    one.load(State(SPEC.name, arrays))
    other = saved(one, tmp_path / "other")
    assert {key for key, data in tensors(other).items() if data != tensors(before)[key]} == {
        "my.generator.hidden.kernel"
    }


def test_progress_is_told(tmp_path: Path) -> None:
    before = saved(trained("Native")[0], tmp_path / "before")
    told: list[int] = []
    made = reference.convert_folder(before, "Native", tmp_path / "there", "Turned", SPEC, tick=told.append)
    assert sum(told) == made.nbytes == sum(map(len, tensors(before).values()))


# --- What is refused --------------------------------------------------------------------------------------------------
def test_copies_that_differ(tmp_path: Path) -> None:
    before = saved(trained("InParts")[0], tmp_path / "before")
    arrays = dict(np.load(before / "discriminator.npz"))
    np.savez(before / "discriminator.npz", **{**arrays, "shared": arrays["shared"] + 1})
    with pytest.raises(CheckpointError, match="holds one variable 2 times, and the copies differ"):
        reference.convert_folder(before, "InParts", tmp_path / "there", "Native", SPEC)
    assert [each.name for each in tmp_path.iterdir()] == ["before"]


def test_another_paradigm_s_checkpoint(tmp_path: Path) -> None:
    before = saved(trained("Powers")[0], tmp_path / "before")
    with pytest.raises(CheckpointError, match=r"is no checkpoint of vanilla_gan in Native: it lacks my.optimizer"):
        reference.convert_folder(before, "Native", tmp_path / "there", "Turned", SPEC)
    before = saved(trained("Native")[0], tmp_path / "again")
    arrays = dict(np.load(before / "model.npz"))
    np.savez(before / "model.npz", **arrays, more=np.zeros(1))
    with pytest.raises(CheckpointError, match=r"it also holds more\. Which paradigm wrote it\?"):
        reference.convert_folder(before, "Native", tmp_path / "there", "Turned", SPEC)


def test_a_part_that_is_missing(tmp_path: Path) -> None:
    before = saved(trained("InParts")[0], tmp_path / "before")
    (before / "generator.npz").unlink()
    with pytest.raises(CheckpointError, match="is no checkpoint of vanilla_gan in InParts: it lacks"):
        reference.convert_folder(before, "InParts", tmp_path / "there", "Native", SPEC)


def test_another_shape_and_another_precision(tmp_path: Path) -> None:
    before = saved(trained("Native")[0], tmp_path / "before")
    arrays = dict(np.load(before / "model.npz"))
    key = "my.generator.hidden.kernel"
    np.savez(before / "model.npz", **{**arrays, key: arrays[key][:2]})
    with pytest.raises(CheckpointError, match=r"hidden\.kernel is float32 \(2, 6\), expected float32 \(4, 6\)\."):
        reference.convert_folder(before, "Native", tmp_path / "there", "InParts", SPEC)
    double = saved(trained("Native", "float64")[0], tmp_path / "double")
    with pytest.raises(CheckpointError, match=r"is float64 .*, expected float32"):
        reference.convert_folder(double, "Native", tmp_path / "there", "InParts", SPEC)


def test_a_flipped_bit(tmp_path: Path) -> None:
    before = saved(trained("Native")[0], tmp_path / "before")
    file = before / "model.npz"
    data = bytearray(file.read_bytes())
    place = data.find(trained("Native")[1].arrays[KERNEL].tobytes())
    assert place > 0
    data[place + 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.npz"):
        reference.convert_folder(before, "Native", tmp_path / "there", "Turned", SPEC)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["before"]


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "holds no checkpoint"), ("nowhere", "cannot be read")):
        with pytest.raises(CheckpointError, match=said):
            reference.convert_folder(tmp_path / name, "Native", tmp_path / "there", "Turned", SPEC)


def test_what_lies_at_the_target_stays(tmp_path: Path) -> None:
    before = saved(trained("Native")[0], tmp_path / "before")
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for target in (there, tmp_path / "file"):
        with pytest.raises(UserError, match="is there already"):
            reference.convert_folder(before, "Native", target, "Turned", SPEC)
    assert (there / "mine").read_text() == (tmp_path / "file").read_text() == "mine"
    (there / "mine").unlink()
    reference.convert_folder(before, "Native", there, "Turned", SPEC)
    assert [each.name for each in there.iterdir()] == ["model.npz"]


# --- The paradigms themselves -----------------------------------------------------------------------------------------
PAIRS = [
    ("batchnorm_gan", "tf1_graph", "gradient_tape"),
    ("batchnorm_gan", "gradient_tape", "keras3"),
    ("batchnorm_gan", "tf1_graph", "keras2"),
    ("vae", "tf1_graph", "keras3"),
    ("vae", "keras2", "keras3"),
]


@pytest.mark.parametrize(("model", "source", "target"), PAIRS)
def test_paradigms_there_and_back(model: str, source: str, target: str, tmp_path: Path) -> None:
    """The files of a warm state; all pairs, with the steps that follow, are in docs/carried.md."""
    spec, state = subjects.spec(model), subjects.warm(model)
    one, other = subjects.subject(model, source), subjects.subject(model, target)
    one.load(state)
    before = saved(one, tmp_path / "before")
    reference.convert_folder(before, source, tmp_path / "there", target, spec)
    other.load(subjects.initial(model))
    other.restore(tmp_path / "there")
    assert other.state().digest() == state.digest()
    reference.convert_folder(tmp_path / "there", target, tmp_path / "back", source, spec)
    with PartsSource(before) as left, PartsSource(tmp_path / "back") as right:
        assert left.tensors == right.tensors
        for key, stored in left.tensors.items():
            assert stored.dtype == STRING or same_bytes(left.chunks(key), right.chunks(key)), key
