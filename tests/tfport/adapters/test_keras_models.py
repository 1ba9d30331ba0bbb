"""Keras models as Programs: the invariants of `tfport.program`, and what each Keras does that a check must see."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfport.adapters.keras_models import KerasProgram, keras_gan, keras_model, keras_phases
from tfport.checking.draws import DrawSource
from tfport.errors import CheckpointError, UserError
from tfport.program import Batch, InputInfo
from tfport.state import State

PACKAGES = {"tf_keras": tf_keras, "keras": keras}
BOTH = pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)

_RANDOM = np.random.default_rng(0)
BATCH: Batch = {
    "x": _RANDOM.random((6, 4)).astype("f"),
    "y": (_RANDOM.random((6, 1)) > 0.5).astype("f"),
}


@pytest.fixture(autouse=True)
def _names_from_the_start() -> Iterator[None]:
    for package in PACKAGES.values():
        package.backend.clear_session()
        package.utils.set_random_seed(1)
    yield


def _optimizer(package: Any) -> Any:
    return package.optimizers.Adam(0.01)


def _classifier(package: Any, optimizer: Any = None, **compiled: Any) -> Any:
    layers = package.layers
    model = package.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(3, kernel_regularizer="l2", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(1, activation="sigmoid", name="last"),
        ],
        name="classifier",
    )
    model.compile(optimizer or _optimizer(package), "binary_crossentropy", **compiled)
    return model


def _copy(program: KerasProgram) -> State:
    state = program.state()
    return State(state.model, {name: np.array(value) for name, value in state.arrays.items()})


def _moved(before: State, after: State) -> set[str]:
    return {name for name, value in after.arrays.items() if not np.array_equal(value, before.arrays[name])}


def _short(names: Mapping[str, Any]) -> dict[str, Any]:
    """Names without what the two Kerases put in front of a layer's."""
    return {"/".join(name.split("/")[-2:]): value for name, value in names.items()}


def _every_variable(program: KerasProgram) -> dict[int, Any]:
    return {key: np.array(each.numpy()) for key, each in program._everything().items()}


def _python_state() -> Any:
    return str(np.random.get_state()), random.getstate()  # noqa: NPY002


def _same(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    return list(some) == list(others) and all(np.array_equal(value, others[name]) for name, value in some.items())


def _holds_invariants(program: KerasProgram, batch: Batch, several: Sequence[str] = ()) -> None:
    """What `tfport.program` asks of every adapter; `several` are phases that train more than once."""
    program.prepare(batch)
    for phase in program.phases:
        program.drawn(phase, batch)  # traces what makes metrics, and moves only generators
    start = _copy(program)
    before = _every_variable(program)
    python = _python_state()
    forward = program.forward(batch, True)
    nodes = program.nodes(batch, True)
    for phase in program.phases:
        assert _same(program.gradients(phase, batch), program.gradients(phase, batch))
        inside = program.nodes(batch, False, phase)
        if phase in several:
            with pytest.raises(NotImplementedError, match="trains more than once"):
                program.loss(phase, batch)
        else:
            loss = program.loss(phase, batch)
            assert program.loss(phase, batch) == loss
            assert float(inside[-1].value) == pytest.approx(loss, rel=1e-5)
        names = [node.name for node in inside]
        assert len(set(names)) == len(names)
        known = {each.name for each in program.variables()}
        assert all(set(node.variables) <= known for node in inside)
    assert all(np.array_equal(value, before[key]) for key, value in _every_variable(program).items())
    assert python == _python_state()
    assert program.state().digest() == start.digest()
    assert _same(forward, program.forward(batch, True))
    np.testing.assert_allclose(nodes[-1].value, list(forward.values())[-1], rtol=1e-5)
    whole = program.step(batch)
    end = _copy(program)
    assert end.digest() != start.digest()
    program.load(start)
    assert program.state().digest() == start.digest()
    parts = {
        f"{phase}/{name}": value for phase in program.phases for name, value in program.run_phase(phase, batch).items()
    }
    assert parts == whole
    assert program.state().digest() == end.digest()


# --- One model --------------------------------------------------------------------------------------------------------
@BOTH
def test_the_invariants_hold(package: Any) -> None:
    program = keras_model(_classifier(package, metrics=["accuracy"]))
    _holds_invariants(program, BATCH)


@BOTH
@pytest.mark.parametrize("which", ["SGD", "RMSprop", "Adagrad"])
def test_the_invariants_hold_for_other_optimizers(package: Any, which: str) -> None:
    _holds_invariants(keras_model(_classifier(package, getattr(package.optimizers, which)(0.25))), BATCH)


def test_the_invariants_hold_for_a_legacy_optimizer() -> None:
    program = keras_model(_classifier(tf_keras, tf_keras.optimizers.legacy.Adam(0.01)))
    assert "optimizer/optimizer/m/first/kernel" in program.state().arrays
    _holds_invariants(program, BATCH)


@BOTH
def test_what_it_is(package: Any) -> None:
    program = keras_model(_classifier(package))
    assert program.kind == ("Keras 3 model" if package is keras else "tf_keras model")
    assert (program.precision, program.phases) == ("float32", ("train",))
    assert program.inputs() == (InputInfo("x", (None, 4), "float32"), InputInfo("y", None, None))
    found = _short({each.name: each for each in program.variables()})
    assert list(found) == [
        *("first/kernel", "first/bias", "norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance"),
        *("last/kernel", "last/bias"),
    ]
    assert {name for name, each in found.items() if not each.trainable} == {"norm/moving_mean", "norm/moving_variance"}
    assert found["first/kernel"].optimizers == ("optimizer",)
    assert found["norm/moving_mean"].optimizers == ()
    (optimizer,) = program.optimizers()
    assert (optimizer.name, optimizer.algorithm) == ("optimizer", "Adam")
    program.run_phase("train", BATCH)
    assert program.phase_optimizers() == {"train": ("optimizer",)}
    assert int(program.state().arrays["optimizer/optimizer/iterations"]) == 1


@BOTH
def test_dropout_is_the_sources_uniform(package: Any) -> None:
    layers = package.layers
    model = package.Sequential([layers.Input((4,)), layers.Dropout(0.25)])
    model.compile("sgd", "mse")
    program = keras_model(model, seed=5)
    found = next(iter(program.forward({"x": np.ones((3, 4), "f")}, True).values()))
    source = DrawSource(5)
    source.begin("forward")
    np.testing.assert_allclose(found, (source.uniform((3, 4)) >= 0.25) / np.float32(0.75), rtol=1e-6)
    np.testing.assert_array_equal(next(iter(program.forward({"x": np.ones((3, 4), "f")}, False).values())), 1)


@BOTH
def test_a_training_step_is_numpys(package: Any) -> None:
    """Dropout as fed, the regularised loss, its gradient and plain gradient descent, computed by hand."""
    layers = package.layers
    model = package.Sequential(
        [
            layers.Input((4,)),
            layers.Dropout(0.5),
            layers.Dense(1, use_bias=False, kernel_regularizer=package.regularizers.L2(0.1)),
        ]
    )
    model.compile(package.optimizers.SGD(0.5), "mse")
    program = keras_model(model, seed=2)
    (name,) = (each.name for each in program.variables())
    kernel = np.array(program.state().arrays[name], np.float64)
    source = DrawSource(2)
    source.begin("train")
    source.bits(), source.bits()
    dropped = BATCH["x"] * (source.uniform((6, 4)) >= 0.5) * 2.0
    error = dropped @ kernel - BATCH["y"]
    loss = float(np.mean(error**2) + 0.1 * np.sum(kernel**2))
    gradient = 2 * dropped.T @ error / 6 + 0.2 * kernel
    assert program.loss("train", BATCH) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(np.asarray(program.gradients("train", BATCH)[name]), gradient, rtol=1e-4, atol=1e-6)
    assert program.run_phase("train", BATCH) == pytest.approx({"loss": loss}, rel=1e-5)
    np.testing.assert_allclose(program.state().arrays[name], kernel - 0.5 * gradient, rtol=1e-4, atol=1e-6)


@BOTH
def test_gradients_are_those_of_the_update(package: Any) -> None:
    program = keras_model(_classifier(package))
    gradients = program.gradients("train", BATCH)
    program.run_phase("train", BATCH)
    for name, gradient in gradients.items():
        first = program.state().arrays[f"optimizer/optimizer/m/{name}"]
        np.testing.assert_allclose(first, np.float32(0.1) * np.asarray(gradient), rtol=1e-5)


@BOTH
def test_each_step_draws_anew_and_moves_the_statistics(package: Any) -> None:
    program = keras_model(_classifier(package))
    start = _copy(program)
    losses = []
    for step in range(2):
        program.draws.step = step
        losses.append(program.loss("train", BATCH))
    assert losses[0] != losses[1]
    program.run_phase("train", BATCH)
    moved = set(_short(dict.fromkeys(_moved(start, program.state()))))
    assert {"norm/moving_mean", "norm/moving_variance", "last/kernel"} <= moved
    drawn = program.random_draws()
    assert [(each.kind, each.controlled, each.phases) for each in drawn] == [("uniform", True, ("train",))]


@BOTH
def test_what_was_traced_before_is_fed_too(package: Any) -> None:
    model = _classifier(package)
    model.train_on_batch(BATCH["x"], BATCH["y"])
    program = keras_model(model)
    start = _copy(program)
    assert int(start.arrays["optimizer/optimizer/iterations"]) == 1
    first = program.run_phase("train", BATCH)
    program.load(start)
    assert program.run_phase("train", BATCH) == first
    program.close()
    program.load(start)
    assert float(np.atleast_1d(model.train_on_batch(BATCH["x"], BATCH["y"]))[0]) != first["loss"]


@BOTH
def test_running_eagerly_as_the_user_asked(package: Any) -> None:
    program = keras_model(_classifier(package, run_eagerly=True))
    _holds_invariants(program, BATCH)
    assert program.models["model"].run_eagerly


@BOTH
def test_jit_compile_is_turned_off_and_told(package: Any) -> None:
    program = keras_model(_classifier(package, jit_compile=True))
    assert any("jit_compile" in note for note in program.notes())
    first = program.loss("train", BATCH)
    assert first == program.loss("train", BATCH)


@BOTH
def test_an_lstm_over_an_embedding(package: Any) -> None:
    layers = package.layers
    model = package.Sequential(
        [layers.Input((3,), dtype="int32"), layers.Embedding(5, 2, name="table"), layers.LSTM(2), layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    program = keras_model(model)
    batch = {"x": np.array([[1, 2, 3], [1, 1, 4]], np.int32), "y": np.ones((2, 1), "f")}
    _holds_invariants(program, batch)
    gradient = _short(program.gradients("train", batch))["table/embeddings"]
    assert gradient.shape == (5, 2)
    assert not gradient[0].any()
    assert gradient[1].any()


@BOTH
def test_several_inputs_and_outputs_and_sample_weights(package: Any) -> None:
    layers = package.layers
    left, right = package.Input((2,), name="left"), package.Input((3,), name="right")
    joint = layers.Concatenate()([left, right])
    model = package.Model([left, right], [layers.Dense(1, name="a")(joint), layers.Dense(2, name="b")(joint)])
    model.compile(package.optimizers.SGD(0.1), ["mse", "mse"])
    program = keras_model(model)
    assert [each.name for each in program.inputs()] == ["left", "right", "y_a", "y_b"]
    ones = {"left": np.ones((2, 2), "f"), "right": np.ones((2, 3), "f"), "y_a": np.ones((2, 1), "f")}
    batch = {**ones, "y_b": np.zeros((2, 2), "f")}
    assert list(program.forward(batch, False)) == ["a", "b"]
    _holds_invariants(program, batch)
    with pytest.raises(UserError, match="no 'right'"):
        program.forward({"left": ones["left"]}, False)
    with pytest.raises(UserError, match="no 'y_b'"):
        program.run_phase("train", ones)


@BOTH
def test_inputs_and_outputs_by_key(package: Any) -> None:
    layers = package.layers
    right, left = package.Input((2,), name="in_r"), package.Input((3,), name="in_l")
    joint = layers.Concatenate()([right, left])
    made = {"b": layers.Dense(1, name="out_b")(joint), "a": layers.Dense(2, name="out_a")(joint)}
    model = package.Model({"right": right, "left": left}, made)
    model.compile("sgd", {"a": "mse", "b": "mse"})
    program = keras_model(model)
    shapes = {each.name: each.shape for each in program.inputs()}
    assert (shapes["right"], shapes["left"]) == ((None, 2), (None, 3))
    batch = {"right": np.ones((2, 2), "f"), "left": np.ones((2, 3), "f")}
    batch |= {"y_a": np.ones((2, 2), "f"), "y_b": np.zeros((2, 1), "f")}
    assert set(shapes) == set(batch)
    assert {name: value.shape[1] for name, value in program.forward(batch, False).items()} == {"a": 2, "b": 1}
    _holds_invariants(program, batch)


@BOTH
def test_momentum_under_a_schedule_comes_back(package: Any) -> None:
    schedule = package.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    program = keras_model(_classifier(package, package.optimizers.SGD(schedule, momentum=0.9)))
    assert program.optimizers()[0].hyperparameters["learning_rate"] == pytest.approx(0.1)
    program.run_phase("train", BATCH)
    middle = _copy(program)
    program.run_phase("train", BATCH)
    end = _copy(program)
    assert program.optimizers()[0].hyperparameters["learning_rate"] == pytest.approx(0.025)
    program.load(middle)
    program.run_phase("train", BATCH)
    for name, value in program.state().arrays.items():
        np.testing.assert_allclose(value, end.arrays[name], rtol=1e-4, atol=1e-6)


@BOTH
def test_sample_weights_weigh(package: Any) -> None:
    program = keras_model(_classifier(package))
    weighted = {**BATCH, "sample_weight": np.array([1, 0, 0, 0, 0, 0], "f")}
    assert program.loss("train", weighted) != program.loss("train", BATCH)
    assert {node.inputs for node in program.nodes(weighted, True, "train") if "sample_weight" in node.inputs}


@BOTH
def test_a_model_that_the_first_batch_builds(package: Any) -> None:
    model = package.Sequential([package.layers.Dense(2), package.layers.Dropout(0.5), package.layers.Dense(1)])
    model.compile(_optimizer(package), "mse")
    program = keras_model(model)
    with pytest.raises(UserError, match="not built"):
        program.variables()
    _holds_invariants(program, BATCH)
    assert len(program.variables()) == 4


@BOTH
def test_layers_by_name_and_outputs_of_ones_own(package: Any) -> None:
    model = _classifier(package)
    found = keras_model(model, outputs=["first", "last"]).forward(BATCH, False)
    assert [(name, value.shape) for name, value in found.items()] == [("first", (6, 3)), ("last", (6, 1))]
    own = keras_model(model, outputs=lambda batch, training: {"twice": 2 * model(batch["x"], training=training)})
    np.testing.assert_allclose(own.forward(BATCH, False)["twice"], 2 * found["last"], rtol=1e-6)
    with pytest.raises(UserError, match="no layer 'nothing'"):
        keras_model(model, outputs=["nothing"])


@BOTH
def test_float64_rounds_the_numbers(package: Any) -> None:
    package.backend.set_floatx("float64")
    try:
        program = keras_model(_classifier(package, package.optimizers.Adam(0.1)), precision="float64")
        batch = {name: value.astype("float64") for name, value in BATCH.items()}
        assert program.precision == "float64"
        assert program.optimizers()[0].hyperparameters["learning_rate"] == float(np.float32(0.1))
        assert program.gradients("train", batch)[program.variables()[0].name].dtype == np.float64  # type: ignore[union-attr]
        _holds_invariants(program, batch)
    finally:
        package.backend.set_floatx("float32")


@BOTH
def test_mistakes_are_told(package: Any) -> None:
    bare = package.Sequential([package.layers.Input((4,)), package.layers.Dense(1)])
    with pytest.raises(UserError, match="not compiled"):
        keras_model(bare)
    with pytest.raises(UserError, match="float64"):
        keras_model(_classifier(package), precision="float64")
    with pytest.raises(UserError, match="no 'y'"):
        keras_model(_classifier(package)).run_phase("train", {"x": BATCH["x"]})
    with pytest.raises(UserError, match="no phase"):
        keras_model(_classifier(package)).run_phase("test", BATCH)
    with pytest.raises(UserError, match="neither Keras"):
        keras_model(tf.Module())


@BOTH
def test_load_refuses_what_does_not_fit_and_changes_nothing(package: Any) -> None:
    program = keras_model(_classifier(package))
    start = _copy(program)
    first, *rest = start.arrays
    with pytest.raises(CheckpointError, match="missing"):
        program.load(State("s", {name: start.arrays[name] for name in rest}))
    with pytest.raises(CheckpointError, match="shape"):
        program.load(State("s", {**{name: value + 1 for name, value in start.arrays.items()}, first: np.zeros((9,))}))
    assert program.state().digest() == start.digest()


@BOTH
def test_initialise_builds_anew(package: Any) -> None:
    program = keras_model(_classifier(package), rebuild=lambda seed: _classifier(package))
    program.initialise(3)
    start = _copy(program)
    program.run_phase("train", BATCH)
    program.initialise(4)
    other = _copy(program)
    program.initialise(3)
    assert program.state().digest() == start.digest()
    assert "first/kernel" in _short(dict.fromkeys(_moved(start, other)))
    with pytest.raises(NotImplementedError, match="rebuild"):
        keras_model(_classifier(package)).initialise(0)


@BOTH
def test_what_is_drawn_unfed(package: Any) -> None:
    program = keras_model(_classifier(package))
    start = _copy(program)
    first, second = program.drawn("train", BATCH), program.drawn("train", BATCH)
    assert program.state().digest() == start.digest()
    assert len(first) == 1
    assert set(first) == set(second)
    assert all(second[name] != value for name, value in first.items())


# --- Steps of the user's own ------------------------------------------------------------------------------------------
def _autoencoder(package: Any, frozen_noise: bool = False) -> Any:
    class Variational(package.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = package.Sequential([package.layers.Input((4,)), package.layers.Dense(2)], name="encoder")
            self.decoder = package.Sequential([package.layers.Input((2,)), package.layers.Dense(4)], name="decoder")
            self.tracker = package.metrics.Mean(name="loss")

        @property
        def metrics(self) -> list[Any]:
            return [self.tracker]

        def call(self, inputs: Any, training: bool = False) -> Any:
            return self.decoder(self.encoder(inputs))

        def train_step(self, data: Any) -> Any:
            data = data[0] if isinstance(data, tuple) else data
            with tf.GradientTape() as tape:
                mean = self.encoder(data)
                noise = np.random.normal(size=(6, 2)).astype("f") if frozen_noise else tf.random.normal((6, 2))  # noqa: NPY002
                loss = tf.reduce_mean(tf.square(self.decoder(mean + noise) - data))
            weights = self.trainable_weights
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            self.tracker.update_state(loss)
            return {"loss": self.tracker.result()}

    model = Variational()
    model(np.zeros((1, 4), "f"))
    model.compile(_optimizer(package))
    return model


@BOTH
def test_a_step_of_ones_own_without_targets(package: Any) -> None:
    program = keras_model(_autoencoder(package))
    batch = {"x": BATCH["x"]}
    _holds_invariants(program, batch)
    assert {each.kind for each in program.random_draws()} == {"normal"}
    assert len(program.variables()) == 4


@BOTH
def test_noise_of_numpy_that_the_trace_froze_is_told(package: Any) -> None:
    program = keras_model(_autoencoder(package, frozen_noise=True))
    batch = {"x": BATCH["x"]}
    first, second = program.drawn("train", batch), program.drawn("train", batch)
    assert list(first) == ["np.random.normal (traced)"]
    assert first == second


def _two_optimizers(package: Any) -> Any:
    class Gan(package.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.judge = package.Sequential([package.layers.Input((4,)), package.layers.Dense(1)], name="judge")
            self.maker = package.Sequential([package.layers.Input((2,)), package.layers.Dense(4)], name="maker")

        def compile(self, first: Any, second: Any) -> None:
            super().compile()
            self.judge_optimizer, self.maker_optimizer = first, second

        def call(self, inputs: Any, training: bool = False) -> Any:
            return self.judge(inputs)

        def train_step(self, data: Any) -> Any:
            data = data[0] if isinstance(data, tuple) else data
            with tf.GradientTape() as tape:
                judged = tf.reduce_mean(self.judge(self.maker(tf.random.normal((6, 2)))) - self.judge(data))
            weights = self.judge.trainable_weights
            self.judge_optimizer.apply_gradients(zip(tape.gradient(judged, weights), weights, strict=True))
            with tf.GradientTape() as tape:
                made = -tf.reduce_mean(self.judge(self.maker(tf.random.normal((6, 2)))))
            weights = self.maker.trainable_weights
            self.maker_optimizer.apply_gradients(zip(tape.gradient(made, weights), weights, strict=True))
            return {"judged": judged, "made": made}

    model = Gan()
    model(np.zeros((1, 4), "f"))
    model.compile(_optimizer(package), package.optimizers.SGD(0.5))
    return model


@BOTH
def test_a_step_with_two_optimizers_of_which_kerass_is_neither(package: Any) -> None:
    program = keras_model(_two_optimizers(package))
    batch = {"x": BATCH["x"]}
    program.prepare(batch)
    assert [(each.name, each.algorithm) for each in program.optimizers()] == [
        ("judge_optimizer", "Adam"),
        ("maker_optimizer", "SGD"),
    ]
    held = {each.name: each.optimizers for each in program.variables()}
    assert sorted(held.values()) == [("judge_optimizer",)] * 2 + [("maker_optimizer",)] * 2
    assert len(program.gradients("train", batch)) == 4
    reported = program.run_phase("train", batch)
    assert list(reported) == ["loss", "judged", "made"]
    assert program.phase_optimizers() == {"train": ("judge_optimizer", "maker_optimizer")}
    program.draws.step = 1
    _holds_invariants(program, batch, ["train"])


# --- Several models ---------------------------------------------------------------------------------------------------
def _gan_models(package: Any, flag_set_first: bool = True) -> dict[str, Any]:
    layers = package.layers
    discriminator = package.Sequential(
        [layers.Input((4,)), layers.Dense(3), layers.Dropout(0.3), layers.Dense(1, activation="sigmoid")],
        name="discriminator",
    )
    discriminator.compile(package.optimizers.SGD(0.5), "binary_crossentropy", metrics=["accuracy"])
    generator = package.Sequential(
        [layers.Input((2,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(4, activation="tanh")],
        name="generator",
    )
    if flag_set_first:
        discriminator.trainable = False
    noise = package.Input((2,))
    combined = package.Model(noise, discriminator(generator(noise)), name="combined")
    combined.compile(package.optimizers.SGD(0.5), "binary_crossentropy")
    return {"discriminator": discriminator, "generator": generator, "combined": combined}


def _of(names: Any, variables: set[str]) -> set[str]:
    return {name for name in names if name in variables}


@BOTH
@pytest.mark.parametrize(("half_steps", "fakes"), [(True, "call"), (False, "predict")])
def test_a_gan_holds_the_invariants(package: Any, half_steps: bool, fakes: str) -> None:
    program = keras_gan(**_gan_models(package), latent=2, half_steps=half_steps, fakes=fakes)
    assert program.phases == ("discriminator", "generator")
    batch = {"x": BATCH["x"]}
    _holds_invariants(program, batch, ["discriminator"] if half_steps else [])
    reported = program.step(batch)
    assert list(reported) == ["discriminator/loss", "discriminator/metric_1", "generator/loss"]
    assert "np.random.normal" in program.drawn("generator", batch)


@BOTH
def test_the_discriminator_whose_flag_was_set_first(package: Any) -> None:
    """tf_keras keeps the flag of compile time; Keras 3 reads it when it traces, and so never trains it."""
    models = _gan_models(package)
    program = keras_gan(**models, latent=2)
    batch = {"x": BATCH["x"]}
    program.prepare(batch)
    judging = {each.name for each in program.variables() if "optimizer" not in each.name}
    ours = {each.path if package is keras else each.name[:-2] for each in models["discriminator"].weights}
    start = _copy(program)
    gradients = program.gradients("discriminator", batch)
    program.run_phase("discriminator", batch)
    moved = _moved(start, program.state()) & judging
    notes = [note for note in program.notes() if "trains nothing" in note]
    if package is keras:
        assert gradients == {}
        assert moved == set()
        assert len(notes) == 1
        assert program.phase_optimizers()["discriminator"] == ()
    else:
        assert set(gradients) == ours == moved
        assert notes == []
        assert program.phase_optimizers()["discriminator"] == ("discriminator",)
    held = {each.name: (each.trainable, each.optimizers) for each in program.variables()}
    expected = (False, ()) if package is keras else (True, ("discriminator",))
    assert {held[name] for name in ours} == {expected}
    before = _copy(program)
    program.run_phase("generator", batch)
    assert not _moved(before, program.state()) & ours
    assert program.loss("generator", batch) > 0


@BOTH
def test_flags_that_phases_toggle_are_the_phases_own(package: Any) -> None:
    """Discriminator trainable only while it trains: Keras 3 then trains it, and holds its variables."""
    models = _gan_models(package)

    def judge(batch: Batch) -> Any:
        models["discriminator"].trainable = True
        return models["discriminator"].train_on_batch(batch["x"], np.ones((6, 1), "f"))

    def make(batch: Batch) -> Any:
        models["discriminator"].trainable = False
        return models["combined"].train_on_batch(np.random.normal(size=(6, 2)).astype("f"), np.ones((6, 1), "f"))  # noqa: NPY002

    program = keras_phases(models, {"judge": judge, "make": make}, inputs=["x"])
    batch = {"x": BATCH["x"]}
    program.prepare(batch)
    ours = {each.path if package is keras else each.name[:-2] for each in models["discriminator"].weights}
    assert set(program.gradients("judge", batch)) == ours
    assert models["discriminator"].trainable is False  # as it was built: what looks puts flags back
    assert not set(program.gradients("make", batch)) & ours
    start = _copy(program)
    program.run_phase("make", batch)
    assert not _moved(start, program.state()) & ours
    program.run_phase("judge", batch)
    assert models["discriminator"].trainable is True
    assert ours <= _moved(start, program.state())
    with pytest.raises(NotImplementedError, match="outputs="):
        program.forward(batch, False)


@BOTH
def test_noise_may_come_with_the_batch(package: Any) -> None:
    program = keras_gan(**_gan_models(package), latent=2)
    batch = {"x": BATCH["x"], "z": np.ones((6, 2), "f")}
    nodes = program.nodes(batch, True, "generator")
    assert nodes[0].inputs == ("z",)
    drawn = program.drawn("generator", batch)
    assert "np.random.normal" not in drawn


@BOTH
def test_variables_are_unique_and_shared_ones_told_once(package: Any) -> None:
    def model() -> Any:
        layers = [package.layers.Input((4,)), package.layers.Dense(1, name="same")]
        made = package.Sequential(layers, name="twin")
        made.compile("sgd", "mse")
        return made

    first, second = model(), model()
    phases = {"train": lambda batch: first.train_on_batch(batch["x"], batch["y"])}
    program = keras_phases({"one": first, "two": second, "again": first}, phases)
    names = [each.name for each in program.variables()]
    assert len(names) == len(set(names)) == 4
    assert names[0].startswith("one/")
    assert names[2].startswith("two/")


@BOTH
def test_mistakes_with_several_models(package: Any) -> None:
    models = _gan_models(package)
    with pytest.raises(UserError, match="at least one model"):
        keras_phases({}, {})
    with pytest.raises(UserError, match="none of the models"):
        keras_phases({"generator": models["generator"]}, {"p": lambda batch: 0.0})
    with pytest.raises(UserError, match="not compiled"):
        keras_gan(models["generator"], models["generator"], models["combined"], latent=2)
    with pytest.raises(UserError, match="fakes="):
        keras_gan(**models, latent=2, fakes="magic")
    with pytest.raises(UserError, match="not built"):
        keras_phases({"model": package.Sequential([package.layers.Dense(1)])}, {"p": lambda batch: 0.0})
    with pytest.raises(UserError, match="no 'x'"):
        keras_gan(**models, latent=2).run_phase("generator", {"images": BATCH["x"]})


def test_models_of_both_kerases_do_not_mix() -> None:
    models = {"a": _classifier(keras), "b": _classifier(tf_keras)}
    with pytest.raises(UserError, match="all of one"):
        keras_phases(models, {"p": lambda batch: 0.0})
