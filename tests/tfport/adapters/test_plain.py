"""A mapping of models and what trains them is a program in every framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow.compat.v1 as tf1
import tf_keras

from tfport.adapters.plain import KEYS, is_plain, program_of
from tfport.checking.check import check
from tfport.checking.factories import build
from tfport.errors import UserError

BATCH = {"x": np.eye(3, dtype=np.float32), "y": np.ones((3, 1), np.float32)}


def _model(package: Any = keras, compiled: bool = True, name: str = "net") -> Any:
    first = package.Input([3], name="x") if package is keras else package.layers.InputLayer([3], name="x")
    model = package.Sequential([first, package.layers.Dense(1, name="out")], name=name)
    if compiled:
        model.compile(package.optimizers.SGD(0.1), "mse")
    return model


def compiled_keras3() -> Any:
    return {"model": _model()}


def compiled_keras2() -> Any:
    return {"model": _model(tf_keras)}


def phases_of_one() -> Any:
    model = _model()
    return {
        "model": model,
        "phases": {"train": lambda x, y: model.train_on_batch(x, y)},
        "outputs": lambda x, training: {"out": model(x, training=training)},
    }


class Trainer:
    """Calls train_on_batch in a method of its own."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def step(self, batch: Any) -> Any:
        return self.trained(batch["x"], batch["y"])

    def trained(self, x: Any, y: Any) -> Any:
        return self.model.train_on_batch(x, y)


def step_of_one() -> Any:
    model = _model(tf_keras)
    step = Trainer(model).step
    return {"module": model, "step": step, "inputs": ["x", "y"], "outputs": lambda batch: model(batch["x"])}


def _by_tape(trained: Any, optimizer: Any, variables: Callable[[], Any]) -> Callable[..., Any]:
    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(trained(x) - y))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables()), variables(), strict=True))
        return loss

    stepped: Callable[..., Any] = step
    return stepped


def uncompiled() -> Any:
    model, optimizer = _model(compiled=False), keras.optimizers.SGD(0.1)
    return {"model": model, "optimizer": optimizer, "step": _by_tape(model, optimizer, lambda: model.trainable_weights)}


def compiled_with_a_tape() -> Any:
    """Compiled, and trained by a step of its own that does not use what was compiled."""
    model, optimizer = _model(), keras.optimizers.SGD(0.1)
    step = _by_tape(model, optimizer, lambda: model.trainable_weights)
    return {"model": model, "optimizers": {"sgd": optimizer}, "step": step, "outputs": model}


class Linear(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(keras.initializers.GlorotUniform()([3, 1]), name="kernel")
        self.bias = tf.Variable(tf.zeros([1]), name="bias")
        self.optimizer = keras.optimizers.SGD(0.1)
        self.train_step = _by_tape(self, self.optimizer, lambda: [self.kernel, self.bias])

    def __call__(self, x: Any) -> Any:
        return x @ self.kernel + self.bias


def module() -> Any:
    return {"module": Linear()}


def module_beside_tf1() -> Any:
    """Mentions tf.compat.v1, and builds no graph."""
    tf1.logging.set_verbosity(tf1.logging.ERROR)
    net = Linear()
    return {"modules": {"net": net}, "phases": {"train": net.train_step}, "outputs": net}


SIDES = [
    compiled_keras3,
    compiled_keras2,
    phases_of_one,
    step_of_one,
    uncompiled,
    compiled_with_a_tape,
    module,
    module_beside_tf1,
]


def original() -> Any:
    """A TF1 graph in the form that its mapping has."""
    x, y = tf1.placeholder(tf1.float32, [None, 3], name="x"), tf1.placeholder(tf1.float32, [None, 1], name="y")
    kernel = tf1.get_variable("kernel", [3, 1], initializer=tf1.glorot_uniform_initializer())
    out = tf1.matmul(x, kernel) + tf1.get_variable("bias", [1], initializer=tf1.zeros_initializer())
    loss = tf1.reduce_mean(tf1.square(out - y))
    train = tf1.train.GradientDescentOptimizer(0.1).minimize(loss)
    return {"outputs": {"out": out}, "loss": loss, "train_op": train}


@pytest.mark.parametrize("side", SIDES)
def test_a_mapping_is_a_program_in_every_framework(side: Callable[[], Any]) -> None:
    program = build(side, "modern")
    program.prepare(BATCH)
    assert len(program.variables()) == 2
    before = program.forward(BATCH, training=False)
    assert len(before) == 1
    losses = [sum(program.step(BATCH).values()) for _ in range(3)]
    assert losses[2] < losses[0]
    program.close()


@pytest.mark.parametrize("side", [phases_of_one, compiled_with_a_tape, module_beside_tf1])
def test_a_mapping_is_held_against_an_original(side: Callable[[], Any]) -> None:
    rungs = ("structure", "forward", "loss", "gradient", "update")
    report = check(original, side, BATCH, steps=4, rungs=rungs)
    assert report.equal


def test_a_mapping_that_is_given_built_is_one_program_for_the_whole_check() -> None:
    report = check(original, module(), BATCH, steps=4, rungs=("forward", "update"))
    assert report.equal


def test_the_loop_of_a_gan_needs_the_length_of_its_noise() -> None:
    def networks() -> dict[str, Any]:
        generator, discriminator = _model(compiled=False, name="g"), _model(name="d")
        generator.add(keras.layers.Dense(3))
        both = keras.Sequential([keras.Input([3]), generator, discriminator])
        both.compile("sgd", "mse")
        return {"discriminator": discriminator, "generator": generator, "combined": both}

    program = program_of({"models": networks(), "latent": 3, "half_steps": False})
    assert program.phases == ("discriminator", "generator")
    with pytest.raises(UserError, match='"latent" is missing'):
        program_of({"models": networks()})


@pytest.mark.parametrize("compiled", [True, False])
def test_outputs_may_differ_by_mode(compiled: bool) -> None:
    model = _model() if compiled else Linear()
    step = Trainer(model).step if compiled else model.train_step
    outputs = {"training": lambda x: {"out": x + 1}, "inference": lambda batch: {"out": batch["x"] - 1}}
    program = program_of({"model": model, "step": step, "outputs": outputs, "inputs": ["x", "y"]})
    for training, offset in ((True, 1), (False, -1)):
        np.testing.assert_array_equal(program.forward(BATCH, training)["out"], BATCH["x"] + offset)


def _nothing(batch: Any) -> Any:
    return batch


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"phase": _nothing}, r"unknown key .* 'phase'.* Did you mean phases.*Valid: .*module, .*outputs"),
        ({"models": {}}, '"models" is dict; expected a mapping of names'),
        ({"models": _model()}, '"models" is Sequential; expected a mapping of names, or one thing as "model"'),
        ({"module": Linear()}, 'both "model" and "module"'),
        ({"step": _nothing, "phases": {"a": _nothing}}, 'both "step" and "phases"'),
        ({"step": Trainer(1).step, "optimizer": "sgd"}, '"optimizer" is of models that are not compiled: leave it out'),
        ({"latent": 3}, '"latent" is of the models "discriminator"'),
        ({"inputs": ["x"]}, '"inputs" is of models with a step of their own'),
        ({"phases": {"a": 3, "b": Trainer(1).step}}, "the phase 'a' is a int"),
        ({"step": Trainer(1).step, "outputs": ["out"]}, r"outputs= is \['out'\]; give a function"),
        ({"step": Trainer(1).step, "outputs": {"out": _nothing}}, '"outputs" is a mapping of out; expected a function'),
        ({"models": {"a": _model(), "b": _model()}}, 'the 2 models a, b have no "phases"'),
        ({"model": _model(compiled=False)}, "is no compiled Keras model, so what trains it must be named"),
        ({"step": Trainer(1).step, "outputs": _model()}, "outputs= is <Sequential .*; give a function"),
        ({"modules": {"a": Linear(), "b": 1}, "step": 1, "outputs": _model()}, '"outputs" is a Keras model'),
        ({"models": {"a": Linear()}}, 'one of "models" is no compiled Keras model'),
        ({"module": Linear(), "latent": 3}, '"latent" is of the compiled models'),
    ],
)
def test_what_is_wrong_with_a_mapping_is_one_message(mapping: dict[str, Any], message: str) -> None:
    several = {"models", "module", "modules"} & mapping.keys()
    whole = mapping if several and 'both "model"' not in message else {"model": _model(), **mapping}
    with pytest.raises(UserError, match=message):
        program_of(whole)


def test_every_key_is_of_use_and_of_plain_mappings() -> None:
    assert is_plain({"model": 1}) and not is_plain({"loss": 1}) and not is_plain([("model", 1)])
    assert not is_plain({key: 1 for key in KEYS if not key.startswith("mod")})
