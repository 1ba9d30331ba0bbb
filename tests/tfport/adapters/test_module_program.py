"""tf.Modules as Programs, with every optimizer that a GradientTape's gradients are handed to."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfport.adapters.module_program import tf_module
from tfport.errors import CheckpointError, UserError
from tfport.program import Program, State

v1 = tf.compat.v1.train
NUMBERS = np.random.default_rng(3)
BATCH = {
    "x": NUMBERS.normal(size=(6, 5)).astype("float32"),
    "y": NUMBERS.integers(0, 3, 6).astype("int32"),
}


class Dense(tf.Module):  # type: ignore[misc]
    def __init__(self, inputs: int, outputs: int, dtype: str = "float32", name: str | None = None) -> None:
        super().__init__(name=name)
        start = np.random.default_rng(inputs * 10 + outputs).normal(size=(inputs, outputs))
        with self.name_scope:
            self.kernel = tf.Variable(start.astype(dtype), name="kernel")
            self.bias = tf.Variable(tf.zeros(outputs, dtype), name="bias")

    def __call__(self, x: Any) -> Any:
        return x @ self.kernel + self.bias


class Classifier(tf.Module):  # type: ignore[misc]
    """Statistics, a count of steps, a dropout, noise of a generator's, and the step as a method."""

    def __init__(self, make: Any = None, dtype: str = "float32") -> None:
        super().__init__(name="classifier")
        self.layers = [Dense(5, 8, dtype, "hidden"), Dense(8, 3, dtype, "logits")]
        self.mean = tf.Variable(tf.zeros(8, dtype), trainable=False, name="mean")
        self.count = tf.Variable(0, trainable=False, name="count")
        self.generator = tf.random.Generator.from_seed(4)
        self.rule = (make or (lambda: keras.optimizers.Adam(0.01)))()

    def __call__(self, x: Any, training: bool = False) -> Any:
        hidden = tf.nn.relu(self.layers[0](x))
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * tf.reduce_mean(hidden, 0))
            hidden = tf.nn.dropout(hidden, 0.25)
        return {"logits": self.layers[1](hidden - self.mean)}

    @tf.function
    def step(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            noise = self.generator.normal(tf.shape(x), dtype=x.dtype) + tf.random.normal(tf.shape(x), dtype=x.dtype)
            logits = self(x + 0.1 * noise, training=True)["logits"]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        variables = self.trainable_variables
        self.rule.apply_gradients(list(zip(tape.gradient(loss, variables), variables, strict=True)))
        self.count.assign_add(1)
        return {"accuracy": tf.constant(0.5), "loss": loss}


def classifier(make: Any = None, dtype: str = "float32", **more: Any) -> Program:
    model = Classifier(make, dtype)
    return tf_module(model, step=model.step, **more)


def gan(library: Any = keras, **more: Any) -> Program:
    """Two Keras models, two tapes in two phases, numbers from numpy and Python; nothing is a tf.function but one."""

    def build(inputs: int, outputs: int) -> Any:
        layers = library.layers
        model = library.Sequential([layers.Dense(4), layers.Dropout(0.5), layers.BatchNormalization()])
        model.add(layers.Dense(outputs))
        model.build((None, inputs))
        for index, weight in enumerate(model.weights):
            if "seed" not in weight.name:
                weight.assign(np.random.default_rng(index).normal(size=weight.shape) ** 2)
        return model

    generator, discriminator = build(3, 5), build(5, 1)
    d_rule, g_rule = library.optimizers.Adam(0.01), library.optimizers.RMSprop(0.01)

    def bce(logits: Any, label: float) -> Any:
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.ones_like(logits) * label, logits))

    def d_step(batch: Mapping[str, Any]) -> Any:
        noise = tf.constant(np.random.normal(size=(4, 3)) + random.random(), tf.float32)  # noqa: NPY002
        with tf.GradientTape() as tape:
            real = bce(discriminator(batch["x"], training=True), 1.0)
            loss = real + bce(discriminator(generator(noise, training=True), training=True), 0.0)
        variables = discriminator.trainable_variables
        d_rule.apply_gradients(list(zip(tape.gradient(loss, variables), variables, strict=True)))
        return loss

    @tf.function
    def g_step(batch: Mapping[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            noise = tf.random.normal((tf.shape(batch["x"])[0], 3))
            loss = bce(discriminator(generator(noise, training=True), training=True), 1.0)
        variables = generator.trainable_variables
        g_rule.apply_gradients(list(zip(tape.gradient(loss, variables), variables, strict=True)))
        return loss

    return tf_module(
        {"G": generator, "D": discriminator},
        phases={"d": d_step, "g": g_step},
        optimizers={"D": d_rule, "G": g_rule},
        forward=lambda x, training: {"logits": discriminator(x, training=training)},
        **more,
    )


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "keras3 Adam": lambda: keras.optimizers.Adam(0.01),
    "keras3 schedule": lambda: keras.optimizers.RMSprop(keras.optimizers.schedules.ExponentialDecay(0.01, 1, 0.5)),
    "tf_keras Adam": lambda: tf_keras.optimizers.Adam(0.01),
    "legacy Adagrad": lambda: tf_keras.optimizers.legacy.Adagrad(0.01),
    "v1 SGD": lambda: v1.GradientDescentOptimizer(0.1),
    "v1 Nesterov": lambda: v1.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
    "v1 Adam": lambda: v1.AdamOptimizer(0.01),
    "v1 CenteredRMSProp": lambda: v1.RMSPropOptimizer(0.01, momentum=0.5, centered=True),
    "v1 Adagrad": lambda: v1.AdagradOptimizer(0.01),
    "v1 Adadelta": lambda: v1.AdadeltaOptimizer(0.01),
    "v1 Ftrl": lambda: v1.FtrlOptimizer(0.01),
}


def copied(state: State) -> State:
    return State(state.model, {name: np.array(value) for name, value in state.arrays.items()})


def run(program: Program, count: int, start: int = 0) -> None:
    for index in range(start, start + count):
        program.draws.step = index
        program.step(BATCH)


@pytest.mark.parametrize("make", [classifier, gan, lambda: gan(tf_keras)], ids=["module", "keras3", "keras2"])
def test_the_contract(make: Any) -> None:
    program = make()
    run(program, 1)
    before = copied(program.state())
    others = {key: each.numpy() for key, each in program._others.items()}
    for phase in program.phases:
        first = program.forward(BATCH, True), program.loss(phase, BATCH), program.gradients(phase, BATCH)
        program.nodes(BATCH, True)
        nodes = program.nodes(BATCH, False, phase)
        assert float(nodes[-1].value) == pytest.approx(program.loss(phase, BATCH), rel=1e-6)
        program.drawn(phase, BATCH)
        again = program.forward(BATCH, True), program.loss(phase, BATCH), program.gradients(phase, BATCH)
        assert str(first) == str(again)
    assert program.state().digest() == before.digest()
    assert all(np.array_equal(value, program._others[key].numpy()) for key, value in others.items())
    whole = program.step(BATCH)
    after = copied(program.state())
    assert after.digest() != before.digest()
    program.load(before)
    parts = {f"{p}/{n}": v for p in program.phases for n, v in program.run_phase(p, BATCH).items()}
    assert parts == whole
    assert program.state().digest() == after.digest()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_fresh_program_goes_on_where_another_was(name: str) -> None:
    straight = classifier(OPTIMIZERS[name])
    (info,) = straight.optimizers()
    if name.startswith("v1"):
        assert info.algorithm == name.split()[1]
    run(straight, 2)
    middle = copied(straight.state())
    assert middle.arrays["optimizer/optimizer/iterations"] == 2
    run(straight, 2, 2)
    other = classifier(OPTIMIZERS[name])
    other.load(middle)
    assert other.state().digest() == middle.digest()
    run(other, 2, 2)
    assert other.state().digest() == straight.state().digest()


def test_gradients_are_those_of_the_update() -> None:
    program = classifier(lambda: keras.optimizers.SGD(0.5))
    before = copied(program.state())
    gradients = program.gradients("step", BATCH)
    loss = program.loss("step", BATCH)
    reported = program.run_phase("step", BATCH)
    assert list(reported) == ["loss", "accuracy"]
    assert reported["loss"] == loss
    after = program.state()
    assert list(gradients) == ["hidden/kernel", "hidden/bias", "logits/kernel", "logits/bias"]
    for name, gradient in gradients.items():
        assert gradient is not None
        np.testing.assert_array_equal(after.arrays[name], before.arrays[name] - np.float32(0.5) * gradient)


def test_what_it_is() -> None:
    program = classifier()
    assert [(each.name, each.trainable, each.optimizers) for each in program.variables()] == [
        ("hidden/kernel", True, ("optimizer",)),
        ("hidden/bias", True, ("optimizer",)),
        ("logits/kernel", True, ("optimizer",)),
        ("logits/bias", True, ("optimizer",)),
        ("mean", False, ()),
        ("count", False, ()),
    ]
    assert [each.name for each in program.inputs()] == ["x", "y"]
    assert program.phase_optimizers() == {"step": ("optimizer",)}
    assert any("found by itself" in note for note in program.notes())
    assert list(program.forward(BATCH, False)) == ["logits"]


def test_a_method_of_a_trainer_s_and_control_flow() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.net = Dense(5, 1, name="net")
            self.rule = tf_keras.optimizers.legacy.Adam(0.01)
            self.mean = tf_keras.metrics.Mean()

        @tf.function
        def train(self, batch: Mapping[str, Any]) -> Any:
            with tf.GradientTape() as tape:
                out, loss = self.net(batch["x"]), tf.constant(0.0)
                for index in tf.range(2):
                    if tf.reduce_sum(out) > 0:
                        loss += tf.reduce_mean(out**2)
                    else:
                        loss += tf.reduce_mean(out) * tf.cast(index, tf.float32)
            variables = self.net.trainable_variables
            self.rule.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            self.mean.update_state(loss)
            return {"mean": self.mean.result(), "loss": loss}

    trainer = Trainer()
    program = tf_module(trainer.net, step=trainer.train)
    assert [each.name for each in program.inputs()] == ["x"]
    assert [each.name for each in program.variables()] == ["net/kernel", "net/bias"]
    assert [each.algorithm for each in program.optimizers()] == ["Adam"]
    loss = program.loss("step", BATCH)
    nodes = program.nodes(BATCH, True, "step")
    assert float(nodes[-1].value) == pytest.approx(loss)
    assert program.run_phase("step", BATCH) == {"loss": loss, "mean": loss}


def test_names_that_clash_are_paths() -> None:
    class Twin(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.second = {"w": tf.Variable([1.0])}
            self.first = [tf.Variable([2.0]), tf.Variable([3.0], name="own")]

        def __call__(self, x: Any) -> Any:
            return x

    program = tf_module({"net": Twin()}, step=lambda x: x)
    assert [each.name for each in program.variables()] == ["net/second/w", "net/first/0", "own"]


def test_draws_are_fed() -> None:
    program = classifier()
    run(program, 1)
    infos = program.random_draws()
    assert [each.kind for each in infos if each.controlled].count("normal") == 2
    assert [each.kind for each in infos].count("uniform") == 1
    first = program.gradients("step", BATCH)
    program.draws.step = 1
    assert str(program.gradients("step", BATCH)) != str(first)
    once, twice = program.drawn("step", BATCH), program.drawn("step", BATCH)
    assert len(once) == 3
    assert all(once[name] != twice[name] for name in once)


def test_a_trace_of_the_user_s_stays_the_user_s() -> None:
    model = Classifier()
    model.step(**{name: tf.constant(value) for name, value in BATCH.items()})
    program = tf_module(model, step=model.step)
    run(program, 1)
    state = program.state().digest()
    program.draws.step = 0
    program.load(program.state())
    assert program.state().digest() == state
    model.step(**{name: tf.constant(value) for name, value in BATCH.items()})
    assert int(model.rule.iterations) == 3


def test_the_two_phases_of_a_gan() -> None:
    program = gan()
    run(program, 1)
    assert program.phase_optimizers() == {"d": ("D",), "g": ("G",)}
    names = {each.name for each in program.variables() if "D" in each.optimizers}
    assert set(program.gradients("d", BATCH)) == names
    assert not any(name in names for name in program.gradients("g", BATCH))
    before = copied(program.state())
    program.run_phase("g", BATCH)
    after = program.state()
    trained = {each.name for each in program.variables() if each.trainable}
    assert all(np.array_equal(before.arrays[name], after.arrays[name]) for name in names & trained)


def test_which_variables_an_optimizer_gets_is_tried() -> None:
    first, second = Dense(5, 2, name="first"), Dense(5, 2, name="second")
    rules = {"a": keras.optimizers.Adam(0.01), "b": keras.optimizers.Adam(0.01)}

    def step(x: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            one, two = tf.reduce_sum(first(x)), tf.reduce_sum(second(x))
        for rule, loss, layer in ((rules["a"], one, first), (rules["b"], two, second)):
            variables = layer.trainable_variables
            rule.apply_gradients(list(zip(tape.gradient(loss, variables), variables, strict=True)))
        return one

    with pytest.raises(UserError, match=r"call its build\(variables\)"):
        tf_module({"one": first, "two": second}, step=step, optimizers=rules).variables()
    program = tf_module({"one": first, "two": second}, step=step, optimizers=rules, inputs={"x": (None, 5)})
    assert [each.optimizers for each in program.variables()] == [("a",), ("a",), ("b",), ("b",)]
    total = program.loss("step", BATCH)
    assert total == pytest.approx(float(tf.reduce_sum(first(BATCH["x"]) + second(BATCH["x"]))), rel=1e-5)
    with pytest.raises(UserError, match="no forward="):
        program.forward(BATCH, False)


def test_a_step_without_an_optimizer() -> None:
    layer = Dense(5, 1)

    @tf.function
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(x) ** 2)
        for variable, gradient in zip(
            layer.trainable_variables, tape.gradient(loss, layer.trainable_variables), strict=True
        ):
            variable.assign_sub(0.25 * gradient)

    program = tf_module(layer, step=step)
    (rule,) = program.optimizers()
    assert rule.algorithm == "none"
    before = copied(program.state())
    gradients = program.gradients("step", BATCH)
    loss = program.loss("step", BATCH)
    assert program.state().digest() == before.digest()
    assert program.run_phase("step", BATCH) == {"loss": loss}
    for name, gradient in gradients.items():
        assert gradient is not None
        np.testing.assert_array_equal(program.state().arrays[name], before.arrays[name] - np.float32(0.25) * gradient)
    assert program.nodes(BATCH, False)[-1].name
    assert {name for node in program.nodes(BATCH, True, "step") for name in node.variables} == set(gradients)


def test_float64() -> None:
    program = classifier(dtype="float64", precision="float64")
    assert program.precision == "float64"
    run(program, 1)
    assert program.forward(BATCH, False)["logits"].dtype == np.float64
    assert program.optimizers()[0].hyperparameters["beta_1"] == float(np.float32(0.9))
    with pytest.raises(UserError, match="build the modules in float64"):
        classifier(precision="float64")


def test_a_signature_names_the_inputs_and_xla_is_set_aside() -> None:
    layer = Dense(5, 1)

    @tf.function(input_signature=[tf.TensorSpec([None, 5])], jit_compile=True)
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(x) * tf.raw_ops.RandomUniform(shape=[1], dtype=tf.float32))
        for variable, gradient in zip([layer.kernel], tape.gradient(loss, [layer.kernel]), strict=True):
            variable.assign_sub(gradient)
        return loss

    program = tf_module(layer, step=step)
    (info,) = program.inputs()
    assert (info.name, info.shape, info.dtype) == ("x", (None, 5), "float32")
    program.run_phase("step", BATCH)
    assert any("jit_compile" in note for note in program.notes())
    assert [(each.kind, each.controlled) for each in program.random_draws()] == [("uniform", False)]
    program.close()


def test_new_weights() -> None:
    def build(seed: int) -> Any:
        layer = Dense(5, 1, name="layer")
        layer.kernel.assign(tf.random.normal((5, 1)))
        return layer

    layer = build(0)
    rule = keras.optimizers.Adagrad(0.1)

    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(x))
        rule.apply_gradients(
            list(zip(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables, strict=True))
        )
        return loss

    program = tf_module(layer, step=step, rebuild=build)
    program.initialise(1)
    first = program.state().digest()
    run(program, 1)
    program.initialise(2)
    assert program.state().digest() != first
    program.initialise(1)
    assert program.state().digest() == first
    with pytest.raises(NotImplementedError, match="rebuild="):
        classifier().initialise(1)


def test_mistakes_are_named() -> None:
    layer = Dense(5, 1)
    program = classifier()
    before = copied(program.state())
    arrays = dict(before.arrays)
    arrays["mean"] = np.ones(4, np.float32)
    with pytest.raises(CheckpointError, match="mean has shape"):
        program.load(State("x", arrays))
    assert program.state().digest() == before.digest()
    mistakes: dict[str, Any] = {
        "neither step= nor phases=": lambda: tf_module(layer),
        "tf_module got a int": lambda: tf_module(3, step=print),
        "no floating variable": lambda: tf_module(tf.Module(), step=print).variables(),
        "there is no phase 'other'": lambda: program.loss("other", BATCH),
        "takes p, q, and the batch has x, y": lambda: tf_module(layer, step=lambda p, q: p).loss("step", BATCH),
        "scalars": lambda: tf_module(layer, step=lambda x: layer(x)).run_phase("step", BATCH),
        "no loss": lambda: tf_module(layer, step=lambda x: None).run_phase("step", BATCH),
        "the batch lacks z": lambda: tf_module(layer, step=lambda z: z, inputs=["z"]).loss("step", BATCH),
        "as forward=": lambda: tf_module(layer, step=print, outputs=print),  # type: ignore[arg-type]
        "give one of keras": lambda: tf_module(layer, step=print, optimizers={"a": 3}),
        "outputs= names 'a'": lambda: tf_module(layer, step=print, outputs=["a", "b"]).forward(BATCH, False),
    }
    for message, ask in mistakes.items():
        with pytest.raises(UserError, match=message):
            ask()
    with pytest.raises(NotImplementedError, match="cannot be told"):
        program_without_tape().loss("step", BATCH)
    with pytest.raises(NotImplementedError, match="cannot be told"):
        program_without_tape().gradients("step", BATCH)


def program_without_tape() -> Program:
    layer = Dense(5, 1)
    return tf_module(layer, step=lambda x: tf.reduce_sum(layer(x)))
