"""What a user names becomes a Program, or one message that says what to do."""

from __future__ import annotations

import functools
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import check_sides
from fake_program import FakeProgram
from tfport.checking import factories
from tfport.checking.check import check
from tfport.checking.factories import NoSuchPrecision, build, find, is_built, is_file, named, takes_precision
from tfport.checking.quoting import said
from tfport.errors import UserError

BATCH = {"x": np.eye(3, dtype=np.float32), "y": np.zeros((3, 1), np.float32)}


# --- Names ------------------------------------------------------------------------------------------------------------
def test_a_side_is_called_what_its_user_calls_it() -> None:
    assert named("data:batch") == "data:batch"
    assert named(check_sides.whole) == "check_sides:whole"
    assert named(FakeProgram()) == "FakeProgram"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("train:build", False),
        ("train.tf1:build", False),
        ("model.meta", True),
        ("train.py", True),
        ("train.py:build", False),
        ("saved_model.pb", True),
        ("models/run:1", True),
        (".", True),
        (Path("anything"), True),
        (check_sides.whole, False),
    ],
)
def test_files_are_told_from_functions(given: Any, expected: bool) -> None:
    assert is_file(given) is expected


def test_a_precision_is_asked_for_under_its_name() -> None:
    assert takes_precision(lambda dtype: None) == "dtype"
    assert takes_precision(lambda seed, precision="float32": None) == "precision"
    assert takes_precision(lambda **options: None) is None


def test_a_module_beside_the_command_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "just_here.py").write_text("def build():\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert find("just_here:build", "modern")() == 1
    with pytest.raises(UserError, match=r"just_here has no 'bild'; it has build\.$"):
        find("just_here:bild", "modern")


def test_an_error_is_told_in_one_line_with_the_place_in_the_users_code() -> None:
    def told(error: Callable[[], Any]) -> str:
        try:
            error()
        except BaseException as raised:
            return said(raised)
        raise AssertionError

    assert told(check_sides.raising).startswith("ValueError: no such thing as a model (check_sides.py, line ")

    def wrong() -> None:
        np.zeros(3).reshape(2)

    line = wrong.__code__.co_firstlineno + 1
    assert told(wrong).endswith(f"({Path(__file__).name}, line {line})")
    assert told(lambda: find("nowhere:build", "modern")).startswith("UserError: --modern=nowhere:build")
    assert said(MemoryError()) == "MemoryError"
    assert len(said(ValueError("x" * 9_000))) < 600


# --- Factories --------------------------------------------------------------------------------------------------------
def test_a_factory_is_given_what_it_takes_and_generators_are_seeded() -> None:
    taken: list[Any] = []

    def factory(precision: str, seed: int, width: int = 3) -> FakeProgram:
        taken.append((precision, seed, width, np.random.rand()))  # noqa: NPY002
        return FakeProgram(precision=precision, seed=seed)

    assert build(factory, "legacy", "float64", 7).precision == "float64"
    build(factory, "legacy", "float64", 7)
    assert taken[0] == taken[1] and taken[0][:3] == ("float64", 7, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (check_sides.raising, "^the legacy factory check_sides:raising raised ValueError: no such thing as a model"),
        (check_sides.refusing, "^the data is not there$"),
        (check_sides.leaving, "^the legacy factory check_sides:leaving raised SystemExit: enough"),
        (check_sides.needing, "^the legacy factory check_sides:needing needs path, width: expected a function without"),
        (check_sides.number, "returned int: expected a compiled Keras model"),
        (check_sides.nothing, "returned NoneType: expected a compiled Keras model"),
        (dict, "returned dict: expected a compiled Keras model"),
        (lambda: {"loss": 3.0}, "returned dict: expected a compiled Keras model"),
        (lambda: [FakeProgram()], "returned list: expected a compiled Keras model"),
        (lambda: FakeProgram, "returned ABCMeta: expected a compiled Keras model"),
        ({"loss": "loss"}, "returned dict: expected a compiled Keras model"),
        (3, "the legacy factory int returned int"),
    ],
)
def test_what_makes_no_program_is_one_message(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(given, "legacy")
    assert "\n" not in str(caught.value)


def test_a_precision_that_cannot_be_had_is_no_error_of_the_users() -> None:
    with pytest.raises(NoSuchPrecision, match="check_sides:double, which takes no dtype, is built in float64"):
        build(check_sides.double, "modern")
    with pytest.raises(NoSuchPrecision, match="is built in float32"):
        build(FakeProgram(), "modern", "float64")


def test_names_of_a_graph_are_refused_for_what_has_none() -> None:
    with pytest.raises(
        UserError, match="--losses names parts of a TF1 graph, and the legacy factory check_sides:legacy"
    ):
        build(check_sides.legacy, "legacy", names={"losses": "loss"})


# --- What is no plain function ----------------------------------------------------------------------------------------
class _Maker:
    def __call__(self, seed: int = 0) -> FakeProgram:
        return FakeProgram(seed=seed)


class _Graph:
    """Builds a TF1 graph when it is called."""

    def __call__(self, dtype: str = "float32") -> Any:
        return _graph(dtype=dtype)


def _scaled_graph(scale: float, dtype: str = "float32") -> Any:
    assert scale
    return _graph(dtype=dtype)


def test_anything_that_can_be_called_without_arguments_is_a_factory() -> None:
    for given in (_Maker(), lambda: FakeProgram(), functools.partial(check_sides.whole, seed=3), check_sides.whole):
        assert build(given, "modern").kind == FakeProgram().kind
    for given in (_Graph(), functools.partial(_scaled_graph, 1.0)):
        program = build(given, "legacy", "float64")
        assert (program.kind, program.precision) == ("TF1 graph", "float64")
    assert named(functools.partial(_scaled_graph, 1.0)).endswith(":_scaled_graph")
    with pytest.raises(UserError, match=r"needs scale: .* def build\(\): return _scaled_graph\(scale=...\)"):
        build(_scaled_graph, "legacy")


def _compiled() -> Any:
    model = keras.Sequential([keras.Input([3], name="x"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class _Trained(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(tf.ones([3, 1]), name="weight")

    def __call__(self, x: Any) -> Any:
        return x @ self.weight

    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x) - y))
        self.weight.assign_sub(0.1 * tape.gradient(loss, self.weight))
        return loss


@pytest.mark.parametrize("make", [_compiled, _Trained, FakeProgram])
def test_a_built_model_is_a_side(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_sides, "built", make(), raising=False)
    assert is_built(check_sides.built)  # type: ignore[attr-defined]
    assert not is_built(make)
    assert build("check_sides:built", "modern").kind == build(make, "modern").kind


@pytest.mark.parametrize("make", [_compiled, _Trained])
def test_a_built_model_is_checked_and_put_back(make: Callable[[], Any]) -> None:
    model = make()
    before = [np.array(each) for each in model.trainable_variables]
    batches = {"x": np.eye(3, dtype=np.float32), "y": np.ones((3, 1), np.float32)}
    report = check(make, model, batches, steps=2)
    assert report.equal, report
    assert "rung 2 was not run: a side's initialisers cannot be run again" in report.notes
    assert all(np.array_equal(a, b) for a, b in zip(before, model.trainable_variables, strict=True))


# --- Containing the user's code ---------------------------------------------------------------------------------------
def test_what_contained_code_prints_and_sets_is_gone(capfd: pytest.CaptureFixture[str]) -> None:
    with factories.contained():
        print("NOISE")
        os.write(1, b"NOISE")
        os.write(2, b"NOISE")
        os.environ["TFPORT_TEST_NOISE"] = "1"
        stream = sys.stderr
    print("after", file=stream)
    print("words")
    assert "TFPORT_TEST_NOISE" not in os.environ
    assert tuple(capfd.readouterr()) == ("words\n", "")


def test_what_contained_code_raises_comes_out() -> None:
    before = sys.stdout
    with pytest.raises(ZeroDivisionError), factories.contained():
        raise ZeroDivisionError
    assert sys.stdout is before


# --- Files ------------------------------------------------------------------------------------------------------------
class _Trap:
    def __reduce__(self) -> Any:
        return os._exit, (9,)


@pytest.mark.parametrize("name", ["model.pkl", "model.h5", "model.keras", "model.pt", "model.npz"])
def test_no_file_is_run(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(
        UserError, match=r"is a file whose code or pickle is not run. Name a factory as module:function"
    ):
        build(path, "modern")
    with pytest.raises(UserError, match="names a function of a file: name it by its module, as train:build"):
        build(f"{tmp_path}/train.py:build", "modern")


@pytest.mark.parametrize("name", ["model.meta", "saved_model.pb"])
def test_a_pickle_that_poses_as_a_graph_is_not_run(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(_Trap()))
    with pytest.raises(UserError, match=r"is not a (MetaGraphDef|SavedModel).*, or is damaged"):
        build(tmp_path / name, "legacy")


def test_a_graph_that_runs_python_or_reads_a_file_is_refused_with_the_op(tmp_path: Path) -> None:
    harms: dict[str, Callable[[], Any]] = {
        "py": lambda: tf1.py_func(lambda: 1.0, [], tf.float32),
        "read": lambda: tf1.read_file("/etc"),
    }
    for name, harm in harms.items():
        graph = tf1.Graph()
        with graph.as_default():
            harm()
            tf1.train.export_meta_graph(str(tmp_path / f"{name}.meta"))
        with pytest.raises(UserError, match=r"is of type (PyFunc|ReadFile): such an op may touch files") as caught:
            build(tmp_path / f"{name}.meta", "legacy")
        assert f"{name}.meta" in str(caught.value) and "module:function" in str(caught.value)


# --- TF1 graphs -------------------------------------------------------------------------------------------------------
def _graph(losses: int = 1, dtype: str = "float32") -> dict[str, Any]:
    x = tf1.placeholder(dtype, [None, 3], name="x")
    y = tf1.placeholder(dtype, [None, 1], name="y")
    kernel = tf1.get_variable("kernel", [3, 1], dtype)
    prediction = tf1.matmul(x, kernel, name="prediction")
    found = {}
    for number in range(losses):
        loss = tf1.reduce_mean(tf1.square(prediction - y), name=f"loss{number}")
        found = {
            "loss": loss,
            "train_op": tf1.train.GradientDescentOptimizer(0.1).minimize(loss, name=f"train{number}"),
        }
    return found


def _unnamed(dtype: str = "float32") -> None:
    _graph(dtype=dtype)


def _own_graph() -> dict[str, Any]:
    with tf1.Graph().as_default():
        return _graph()


def _whole_graph() -> Any:
    graph = tf1.Graph()
    with graph.as_default():
        _graph()
    return graph


@pytest.mark.parametrize("factory", [_graph, _unnamed, _own_graph, _whole_graph, lambda: _graph()])
def test_a_graph_is_taken_however_it_is_given(factory: Any) -> None:
    program = build(factory, "legacy")
    try:
        assert (program.kind, program.phases, [each.name for each in program.variables()]) == (
            "TF1 graph",
            ("train",),
            ["kernel"],
        )
        before = program.loss("train", BATCH)
        program.step(BATCH)
        assert program.loss("train", BATCH) < before
    finally:
        program.close()


def _loading(*_: Any) -> Any:
    """Mentions TF1, and builds no graph."""
    tf1.logging.set_verbosity(tf1.logging.ERROR)
    return _keras()


def _untrained() -> None:
    tf1.placeholder("float32", [1])


def _raising_graph() -> None:
    tf1.placeholder("float32", [1])
    raise LookupError("no vocabulary")


@pytest.mark.parametrize(
    ("factory", "names", "message"),
    [
        (_untrained, {}, "the graph has no train op: none of its"),
        (
            lambda: _graph(2) and None,
            {},
            "the graph has 2 train ops and their order is not known: train0, train1. Name",
        ),
        (_unnamed, {"losses": "los"}, "the loss of phase 'train': the graph has no 'los'"),
        (_unnamed, {"train_ops": {"a": "train"}}, "the train op of phase 'a': the graph has no 'train'"),
        (_raising_graph, {}, "raised LookupError: no vocabulary"),
        (lambda: {**_graph(), "los": 1}, {}, "unknown key in what the build function returned 'los'. Did you mean"),
        (lambda: {**_graph(), "loss": 1.5}, {}, "the loss of phase 'train' is 1.5; expected a tensor of this graph"),
        (lambda: {**_graph(), "loss": _graph}, {}, "the loss of phase 'train'"),
    ],
)
def test_a_graph_that_cannot_be_read_is_one_message(factory: Any, names: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(factory, "legacy", names=names)
    assert "legacy" in str(caught.value) and "\n" not in str(caught.value)


def test_a_graph_of_float64_is_not_float32() -> None:
    with pytest.raises(NoSuchPrecision, match="is built in float64"):
        build(lambda: _graph(dtype="float64"), "legacy")
    for factory in (lambda: _graph(), _unnamed):
        program = build(factory, "legacy", "float64")
        assert program.precision == "float64"
        program.close()


# --- Objects of other frameworks --------------------------------------------------------------------------------------
def _keras(compiled: bool = True) -> Any:
    model = keras.Sequential([keras.Input([3], name="x"), keras.layers.Dense(1, name="out")])
    if compiled:
        model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


class _Module(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.zeros([3, 1]))


def test_a_compiled_model_is_taken_even_where_tf1_is_mentioned() -> None:
    for factory in (_keras, _loading):
        program = build(factory, "modern")
        assert (program.kind, program.phases) == ("Keras 3 model", ("train",))
        program.prepare(BATCH)
        assert program.step(BATCH)["train/loss"] >= 0


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: _keras(False), "is not compiled, so it has no loss and no optimizer; expected a compiled model: call"),
        (lambda: keras.layers.Dense(3), 'gives Dense, which has no train_step and no step: return ."module": '),
        (_Module, 'gives _Module, which has no train_step and no step: return ."module": module'),
        (lambda: tf.zeros([3]), "returned EagerTensor: expected a compiled Keras model"),
        (lambda: keras.Sequential, "returned type: expected a compiled Keras model"),
    ],
)
def test_what_cannot_be_trained_is_one_message(factory: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(factory, "modern")
    assert "the modern " in str(caught.value)
