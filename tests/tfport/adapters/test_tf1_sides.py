"""Programs of TF1 graphs: what is found in a graph, its state, its draws and its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tfport.adapters.tf1_sides import tf1_graph
from tfport.checking import candidates
from tfport.checking.slots import SLOTS
from tfport.errors import CheckpointError, UserError
from tfport.state import State, slot_name

BATCH = {"x": np.random.default_rng(0).normal(size=(4, 3)), "word": np.array([1, 1, 2, 0])}


def copied(state: State) -> State:
    """A state whose arrays no longer change."""
    return State(state.model, dict(state.arrays))


def regression(optimizer: Callable[[], Any], resource: bool, sparse: bool = True, counted: bool = True) -> Any:
    """A build function: a dense layer and, if `sparse`, an embedding of which rows are gathered, one twice."""

    def build() -> None:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        word = tf.placeholder(tf.int32, [None], name="word")
        with tf.variable_scope("net", use_resource=resource):
            w = tf.get_variable("w", [3, 2])
            b = tf.get_variable("b", [2], initializer=tf.zeros_initializer())
            table = tf.get_variable("table", [5, 2])
        rows = tf.gather(table, word) if sparse else table[:4] * tf.cast(word, tf.float32)[:, None]
        y = tf.add(tf.matmul(x, w) + b, rows, name="predictions")
        loss = tf.reduce_mean(tf.square(y), name="loss") + 0.01 * tf.nn.l2_loss(w)
        optimizer().minimize(loss, tf.train.get_or_create_global_step() if counted else None)

    return build


ALGORITHMS: Mapping[str, tuple[Callable[[], Any], str, Mapping[str, float]]] = {
    "sgd": (lambda: tf.train.GradientDescentOptimizer(0.1), "SGD", {"learning_rate": 0.1}),
    "momentum": (
        lambda: tf.train.MomentumOptimizer(0.1, 0.9),
        "Momentum",
        {"learning_rate": 0.1, "momentum": 0.9},
    ),
    "nesterov": (
        lambda: tf.train.MomentumOptimizer(0.1, 0.9, use_nesterov=True),
        "Nesterov",
        {"learning_rate": 0.1, "momentum": 0.9},
    ),
    "adagrad": (lambda: tf.train.AdagradOptimizer(0.1), "Adagrad", {"learning_rate": 0.1, "epsilon": 0.0}),
    "adadelta": (
        lambda: tf.train.AdadeltaOptimizer(0.1, 0.9, 1e-6),
        "Adadelta",
        {"learning_rate": 0.1, "rho": 0.9, "epsilon": 1e-6},
    ),
    "rmsprop": (
        lambda: tf.train.RMSPropOptimizer(0.1, 0.8),
        "RMSProp",
        {"learning_rate": 0.1, "rho": 0.8, "momentum": 0.0, "epsilon": 1e-10},
    ),
    "rmsprop with momentum": (
        lambda: tf.train.RMSPropOptimizer(0.1, 0.8, 0.5),
        "RMSProp",
        {"learning_rate": 0.1, "rho": 0.8, "momentum": 0.5, "epsilon": 1e-10},
    ),
    "centered rmsprop": (
        lambda: tf.train.RMSPropOptimizer(0.1, 0.8, 0.5, centered=True),
        "CenteredRMSProp",
        {"learning_rate": 0.1, "rho": 0.8, "momentum": 0.5, "epsilon": 1e-10},
    ),
    "adam": (
        lambda: tf.train.AdamOptimizer(0.1, 0.5, 0.9, 1e-7),
        "Adam",
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-7},
    ),
    "ftrl": (
        lambda: tf.train.FtrlOptimizer(0.1, l1_regularization_strength=0.01),
        "Ftrl",
        {"learning_rate": 0.1, "learning_rate_power": -0.5, "l1": 0.01, "l2": 0.0},
    ),
}
CASES = [(name, resource, sparse) for name in ALGORITHMS for resource, sparse in ((True, True), (False, True))]
CASES += [("adam", False, False), ("sgd", True, False)]


@pytest.mark.parametrize(("name", "resource", "sparse"), CASES)
def test_an_optimizer_is_read_and_its_state_resumes_bit_for_bit(name: str, resource: bool, sparse: bool) -> None:
    make, algorithm, numbers = ALGORITHMS[name]
    program = tf1_graph(regression(make, resource, sparse))
    (info,) = program.optimizers()
    assert info.algorithm == algorithm
    assert info.hyperparameters == pytest.approx(numbers, rel=1e-6)
    assert program.phases == ("train",)
    assert program.phase_optimizers() == {"train": (info.name,)}
    assert [each.name for each in program.variables()] == ["net/w", "net/b", "net/table"]
    assert all(each.optimizers == (info.name,) and each.trainable for each in program.variables())
    slots = [slot for slot in SLOTS[algorithm] if slot != "momentum" or numbers["momentum"]]
    names = {slot_name(info.name, slot, each.name) for slot in slots for each in program.variables()}
    assert set(program.state().arrays) == {"net/w", "net/b", "net/table", *names, f"optimizer/{info.name}/iterations"}

    for _ in range(3):
        program.run_phase("train", BATCH)
    middle = copied(program.state())
    assert middle.arrays[f"optimizer/{info.name}/iterations"] == 3
    program.step(BATCH)
    end = program.state().digest()
    program.load(middle)
    assert program.state().digest() == middle.digest()
    program.run_phase("train", BATCH)
    assert program.state().digest() == end

    other = tf1_graph(regression(make, resource, sparse), seed=1)
    assert other.state().digest() != middle.digest()
    other.load(middle)
    assert other.step(BATCH).keys() == {"train/loss"}
    assert other.state().digest() == end
    program.close()
    other.close()


def test_adamax_is_read_from_its_op() -> None:
    def build() -> dict[str, Any]:
        x = tf.placeholder(tf.float32, [None], name="x")
        w, m, v = (tf.Variable(tf.ones([1]), name=name, use_resource=True) for name in "wmv")
        power = tf.Variable(0.9, name="power", trainable=False, use_resource=True)
        loss = tf.reduce_mean(tf.square(x * w))
        op = tf.raw_ops.ResourceApplyAdaMax(
            var=w.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=power,
            lr=0.1,
            beta1=0.9,
            beta2=0.99,
            epsilon=1e-8,
            grad=tf.gradients(loss, w)[0],
        )
        with tf.control_dependencies([op]):
            return {"train_op": power.assign(power * 0.9).op}

    program = tf1_graph(build)
    assert program.optimizers()[0].algorithm == "Adamax"
    program.run_phase("train", {"x": np.array([1.0, 2.0])})
    program.run_phase("train", {"x": np.array([1.0, 2.0])})
    middle = copied(program.state())
    assert list(middle.arrays) == [
        "w",
        "optimizer/train/m/w",
        "optimizer/train/v/w",
        "optimizer/train/iterations",
    ]
    assert middle.arrays["optimizer/train/iterations"] == 2
    program.run_phase("train", {"x": np.array([1.0, 2.0])})
    end = program.state().digest()
    program.load(middle)
    program.run_phase("train", {"x": np.array([1.0, 2.0])})
    assert program.state().digest() == end


@pytest.mark.parametrize("resource", [True, False])
def test_gradients_are_those_that_the_update_takes(resource: bool) -> None:
    program = tf1_graph(regression(lambda: tf.train.GradientDescentOptimizer(0.5), resource))
    before = copied(program.state())
    gradients = program.gradients("train", BATCH)
    assert program.state().digest() == before.digest()
    loss = program.loss("train", BATCH)
    assert program.run_phase("train", BATCH) == {"loss": loss}
    after = program.state().arrays
    for name, gradient in gradients.items():
        assert gradient is not None
        np.testing.assert_allclose(before.arrays[name] - 0.5 * gradient, after[name], rtol=1e-5, atol=1e-7)
    table = gradients["net/table"]
    assert table is not None and not table[3:].any()
    y = program.forward(BATCH, training=False)
    program.load(before)
    y = program.forward(BATCH, training=False)
    np.testing.assert_allclose(table[1], (y["predictions"][:2] / 4).sum(0), rtol=1e-5)


def test_initialise_draws_anew_and_resets() -> None:
    program = tf1_graph(regression(ALGORITHMS["adam"][0], True), seed=3)
    first = copied(program.state())
    program.run_phase("train", BATCH)
    program.initialise(4)
    assert not np.array_equal(program.state().arrays["net/w"], first.arrays["net/w"])
    program.initialise(3)
    assert program.state().digest() == first.digest()


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    program = tf1_graph(regression(ALGORITHMS["adam"][0], True))
    before = copied(program.state())
    for change in ({"net/b": np.zeros(3)}, {"strange": np.zeros(1)}):
        with pytest.raises(CheckpointError):
            program.load(State("x", {**before.arrays, "net/w": before.arrays["net/w"] + 1, **change}))
        assert program.state().digest() == before.digest()


def test_without_a_global_step_the_program_counts() -> None:
    program = tf1_graph(regression(ALGORITHMS["sgd"][0], True, counted=False))
    program.run_phase("train", BATCH)
    program.drawn("train", BATCH)
    held = copied(program.state())
    assert held.arrays["optimizer/GradientDescent/iterations"] == 1
    program.initialise(0)
    assert program.state().arrays["optimizer/GradientDescent/iterations"] == 0
    program.load(held)
    assert program.state().digest() == held.digest()


def test_a_schedule_is_evaluated_at_the_current_step() -> None:
    def optimizer() -> Any:
        return tf.train.AdamOptimizer(tf.train.exponential_decay(0.1, tf.train.get_or_create_global_step(), 1, 0.5))

    program = tf1_graph(regression(optimizer, True))
    rates = []
    for _ in range(3):
        rates.append(program.optimizers()[0].hyperparameters["learning_rate"])
        program.run_phase("train", BATCH)
    assert rates == pytest.approx([0.1, 0.05, 0.025])
    middle = copied(program.state())
    program.run_phase("train", BATCH)
    end = program.state().digest()
    program.load(middle)
    program.run_phase("train", BATCH)
    assert program.state().digest() == end


def test_a_rate_that_is_fed_is_left_out() -> None:
    def build() -> dict[str, Any]:
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        rate = tf.placeholder(tf.float32, [], name="rate")
        w = tf.get_variable("w", [2, 1])
        loss = tf.reduce_mean(tf.matmul(x, w))
        return {"train_op": tf.train.MomentumOptimizer(rate, 0.9).minimize(loss)}

    program = tf1_graph(build)
    assert program.optimizers()[0].hyperparameters == pytest.approx({"momentum": 0.9})
    assert [each.name for each in program.inputs()] == ["x", "rate"]
    program.run_phase("train", {"x": np.ones((2, 2)), "rate": np.array(0.1)})
    given = tf1_graph(build, training={"rate": 0.25})
    assert given.optimizers()[0].hyperparameters["learning_rate"] == 0.25
    assert [each.name for each in given.inputs()] == ["x"]


# --- Finding ----------------------------------------------------------------------------------------------------------
def gan(named: bool = True, counted: bool = False) -> Callable[[], Any]:
    def build() -> Any:
        z = tf.placeholder(tf.float32, [None, 2], name="z")
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        g = tf.get_variable("g", [2, 3])
        d = tf.get_variable("d", [3, 1])
        fake = tf.matmul(z, g, name="fake")
        real_score, fake_score = tf.matmul(x, d), tf.matmul(fake, d)
        ones = tf.ones_like(real_score)
        d_loss = tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(labels=ones, logits=real_score)
            + tf.nn.sigmoid_cross_entropy_with_logits(labels=ones * 0, logits=fake_score),
            name="d_loss",
        )
        g_loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=ones, logits=fake_score), name="g_loss")
        step = tf.train.get_or_create_global_step() if counted else None
        d_op = tf.train.AdamOptimizer(0.1, name="MoveD").minimize(d_loss, step, [d])
        g_op = tf.train.RMSPropOptimizer(0.1, name="MoveG").minimize(g_loss, step, [g])
        return {"train_ops": {"d": d_op, "g": g_op}, "outputs": {"fake": fake}} if named else None

    return build


GAN_BATCH = {"z": np.ones((2, 2)), "x": np.ones((2, 3))}


def test_several_train_ops_are_refused_with_their_names() -> None:
    with pytest.raises(UserError, match=r"2 train ops.*: MoveD, MoveG\. Name"):
        tf1_graph(gan(named=False))
    program = tf1_graph(gan(named=False), train_ops={"d": "MoveD", "g": "MoveG"})
    assert program.phases == ("d", "g")
    assert any("loss of d: d_loss" in note for note in program.notes())
    assert any("loss of g: g_loss" in note for note in program.notes())


def test_phases_in_order_are_the_step() -> None:
    program = tf1_graph(gan())
    start = copied(program.state())
    reports = program.step(GAN_BATCH)
    end = program.state().digest()
    program.load(start)
    for phase in ("d", "g"):
        assert reports[f"{phase}/loss"] == program.loss(phase, GAN_BATCH)
        assert program.gradients(phase, GAN_BATCH).keys() == {phase}
        program.run_phase(phase, GAN_BATCH)
    assert program.state().digest() == end
    assert program.phase_optimizers() == {"d": ("MoveD",), "g": ("MoveG",)}


def test_a_step_counter_that_two_phases_share_is_state_of_its_own() -> None:
    program = tf1_graph(gan(counted=True))
    for _ in range(2):
        program.step(GAN_BATCH)
    held = copied(program.state())
    assert held.arrays["global_step"] == 4
    assert held.arrays["optimizer/MoveD/iterations"] == held.arrays["optimizer/MoveG/iterations"] == 2
    other = tf1_graph(gan(counted=True))
    other.load(held)
    assert other.state().digest() == held.digest()
    assert other.session.run("global_step/Read/ReadVariableOp:0") == 4


def test_one_optimizer_that_two_phases_apply_is_one() -> None:
    def build() -> dict[str, Any]:
        x = tf.placeholder(tf.float32, [None], name="x")
        one, two = tf.Variable([1.0], name="one"), tf.Variable([2.0], name="two")
        optimizer = tf.train.AdamOptimizer(0.1)
        first = tf.reduce_mean(tf.square(x * one))
        return {
            "train_ops": {
                "first": optimizer.minimize(first, var_list=[one]),
                "second": optimizer.minimize(tf.reduce_mean(tf.square(x * two)), var_list=[two]),
            }
        }

    program = tf1_graph(build)
    assert program.phase_optimizers() == {"first": ("Adam",), "second": ("Adam",)}
    program.step({"x": np.ones(1)})
    assert program.state().arrays["optimizer/Adam/iterations"] == 2


@pytest.mark.parametrize("gated", [True, False])
def test_a_loss_that_is_a_sum_is_found(gated: bool) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        w = tf.get_variable("w", [2, 1])
        loss = tf.add_n([tf.reduce_mean(tf.square(tf.matmul(x, w))), tf.nn.l2_loss(w)], name="total")
        optimizer = tf.train.GradientDescentOptimizer(0.1)
        if gated:
            optimizer.minimize(loss)
        else:
            (gradient,) = tf.gradients(loss, [w])
            optimizer.apply_gradients([(tf.clip_by_norm(gradient, 1.0), w)])

    program = tf1_graph(build)
    assert any("loss of train: total" in note for note in program.notes())
    assert program.loss("train", {"x": np.ones((1, 2))}) == program.run_phase("train", {"x": np.ones((1, 2))})["loss"]


def test_a_loss_with_a_gradient_penalty_is_found() -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        w = tf.get_variable("w", [2, 2])
        score = tf.reduce_sum(tf.square(tf.tanh(tf.matmul(x, w))), name="score")
        (slope,) = tf.gradients(score, x)
        loss = tf.add(score, tf.reduce_mean(tf.square(slope)), name="penalised")
        tf.train.AdamOptimizer().minimize(loss)

    program = tf1_graph(build)
    assert any("loss of train: penalised" in note for note in program.notes())
    assert program.nodes({"x": np.ones((1, 2))}, True, "train")[-1].name == "penalised"


@pytest.mark.parametrize(
    ("differentiated", "weights", "factor"),
    [
        (lambda errors: tf.reduce_mean(errors), None, 1.0),
        (lambda errors: -tf.reduce_mean(errors), None, -1.0),
        (lambda errors: 3.0 * tf.reduce_mean(errors), None, 3.0),
        (lambda errors: errors, None, 4.0),
        (lambda errors: tf.reduce_mean(errors), 128.0, 128.0),
    ],
    ids=["the loss", "its negative", "a multiple", "each example's", "weighted"],
)
def test_the_objective_is_what_is_differentiated(differentiated: Any, weights: Any, factor: float) -> None:
    def build() -> Any:
        x = tf.placeholder(tf.float32, [4, 2], "x")
        kernel = tf.get_variable("kernel", [2, 1], initializer=tf.ones_initializer())
        errors = tf.reduce_sum(tf.square(x @ kernel - 1.0), axis=1)
        (gradient,) = tf.gradients(differentiated(errors), [kernel], weights if weights is None else [weights])
        train = tf.train.GradientDescentOptimizer(0.1).apply_gradients([(tf.clip_by_norm(gradient, 1.0), kernel)])
        return {"loss": tf.reduce_mean(errors), "train_op": train}

    program = tf1_graph(build)
    batch = {"x": np.arange(8, dtype=np.float32).reshape(4, 2)}
    objective = program.loss("train", batch)
    reported = program.run_phase("train", batch)["loss"]
    assert objective == pytest.approx(factor * reported)


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (lambda gradients, _: gradients, None),
        (lambda gradients, _: tf.clip_by_global_norm(gradients, 0.1)[0], True),
        (lambda gradients, _: [tf.clip_by_norm(each, 0.1) for each in gradients], True),
        (lambda gradients, _: [tf.clip_by_value(each / 3.0, -0.1, 0.1) for each in gradients], True),
        (lambda gradients, own: [each + 0.1 * var for each, var in zip(gradients, own, strict=True)], True),
        (lambda gradients, _: [tf.where(tf.is_nan(each), tf.zeros_like(each), each) for each in gradients], True),
        (lambda gradients, _: [gradients[0] + gradients[1], gradients[0] - gradients[1]], False),
    ],
    ids=["nothing", "global norm", "norm", "value", "decay", "finite", "sums"],
)
def test_derivatives_are_behind_what_is_applied(change: Any, known: bool | None) -> None:
    def build() -> Any:
        x = tf.placeholder(tf.float32, [None, 2], "x")
        own = [tf.get_variable(name, [2, 3], initializer=tf.ones_initializer()) for name in ("a", "b")]
        loss = tf.reduce_mean(tf.square(x @ own[0] - 1.0)) + tf.reduce_mean(tf.square(x @ own[1] + 1.0))
        gradients = tf.gradients(loss, own)
        for name, each in zip(("da", "db"), gradients, strict=True):
            tf.identity(each, name=name)
        train = tf.train.GradientDescentOptimizer(0.1).apply_gradients(
            list(zip(change(gradients, own), own, strict=True))
        )
        return {"loss": loss, "train_op": train, "outputs": ["da", "db"]}

    program = tf1_graph(build)
    batch = {"x": np.arange(8, dtype=np.float32).reshape(4, 2)}
    found = program.derivatives("train", batch)
    if not known:
        assert found == (None if known is None else {})
        return
    real = program.forward(batch, True)
    assert found is not None and list(found) == ["a", "b"]
    for name, value in zip(("da", "db"), found.values(), strict=True):
        np.testing.assert_array_equal(value, real[name])
    applied = program.gradients("train", batch)
    assert not np.array_equal(np.asarray(applied["a"]), real["da"]) or "IsNan" in str(program.graph.get_operations())


def test_a_loss_that_cannot_be_told_is_asked_for() -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        w = tf.get_variable("w", [2, 1])
        first = tf.reduce_mean(tf.matmul(x, w), name="first_loss")
        second = tf.nn.l2_loss(w, name="second_loss")
        tf.train.AdamOptimizer().apply_gradients([(tf.gradients([first, second], [w])[0], w)])

    with pytest.raises(UserError, match="first_loss, second_loss"):
        tf1_graph(build)
    program = tf1_graph(build, losses="second_loss")
    assert program.run_phase("train", {"x": np.ones((1, 2))}).keys() == {"loss"}
    with pytest.raises(UserError, match="expected a floating scalar"):
        tf1_graph(build, losses="MatMul")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"losses": "los"}, "no 'los'.*loss"),
        ({"outputs": ["nothing"]}, "outputs: the graph has no 'nothing'"),
        ({"outputs": {"training": ["x", "word"], "inference": "x"}}, "outputs has 2 for training and 1 for inference"),
        ({"train_ops": {}}, "train_ops is empty"),
        ({"training": {"word": "text"}}, "'word' cannot be fed as int32"),
        ({"losses": {"other": "net/loss"}, "train_ops": "Adam"}, "unknown phase in losses 'other'"),
        ({"lose": "loss"}, "unknown key .*'lose'"),
    ],
)
def test_names_that_mean_nothing_are_refused(names: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tf1_graph(regression(ALGORITHMS["adam"][0], True), **names)


def test_what_cannot_be_a_program_is_refused() -> None:
    with pytest.raises(UserError, match="no train op"):
        tf1_graph(lambda: {"inputs": tf.placeholder(tf.float32, [None], name="x")})
    with pytest.raises(UserError, match=r"unknown key.*'lose'"):
        tf1_graph(lambda: {"lose": 1})
    with pytest.raises(UserError, match="one of the two"):
        tf1_graph()
    with pytest.raises(ZeroDivisionError):
        tf1_graph(lambda: 1 // 0)


def test_a_batch_that_does_not_fit_is_refused() -> None:
    program = tf1_graph(regression(ALGORITHMS["adam"][0], True))
    with pytest.raises(UserError, match="no 'word'"):
        program.run_phase("train", {"x": BATCH["x"]})
    with pytest.raises(UserError, match="unknown input 'words'"):
        program.run_phase("train", {**BATCH, "words": np.array(1)})
    with pytest.raises(UserError, match=r"'x' has shape \(4, 2\)"):
        program.forward({**BATCH, "x": np.ones((4, 2))}, False)
    with pytest.raises(UserError, match="failed on this batch"):
        program.loss("train", {**BATCH, "word": np.array([99, 0, 0, 0])})
    with pytest.raises(UserError, match="unknown phase"):
        program.loss("trian", BATCH)


def test_a_finished_graph_with_its_session_is_taken_as_it_is() -> None:
    graph = tf.Graph()
    with graph.as_default():
        regression(ALGORITHMS["adam"][0], True)()
        session = tf.Session()
        session.run(tf.global_variables_initializer())
    value = session.run("net/w/Read/ReadVariableOp:0")
    program = tf1_graph(graph=graph, session=session, outputs=["predictions"], inputs=["x", "word"])
    np.testing.assert_array_equal(program.state().arrays["net/w"], value)
    program.close()
    session.run("net/b/Read/ReadVariableOp:0")
    session.close()


def test_a_hand_written_update_is_gradient_descent() -> None:
    def build() -> dict[str, Any]:
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        w = tf.get_variable("w", [2, 1])
        loss = tf.reduce_mean(tf.matmul(x, w))
        ema = tf.train.ExponentialMovingAverage(0.5)
        with tf.control_dependencies([tf.assign(w, w - 0.5 * tf.gradients(loss, w)[0])]):
            return {"train_op": ema.apply([w]), "loss": loss}

    program = tf1_graph(build)
    assert program.optimizers()[0].algorithm == "SGD"
    assert [each.name for each in program.variables()] == ["w", "w/ExponentialMovingAverage"]
    before = program.state().arrays["w"]
    gradient = program.gradients("train", {"x": np.ones((2, 2))})["w"]
    assert gradient is not None
    program.run_phase("train", {"x": np.ones((2, 2))})
    np.testing.assert_array_equal(program.state().arrays["w"], before - np.float32(0.5) * gradient)
    assert not np.array_equal(program.state().arrays["w/ExponentialMovingAverage"], before)


# --- Nodes, modes, updates --------------------------------------------------------------------------------------------
def normalised(resource: bool) -> Callable[[], None]:
    """A network with a batch normalisation whose moving mean is one of the graph's UPDATE_OPS."""

    def build() -> None:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        training = tf.placeholder(tf.bool, [], name="is_training")
        with tf.variable_scope("net", use_resource=resource):
            w = tf.get_variable("w", [3, 2])
            moving = tf.get_variable("moving_mean", [2], trainable=False, initializer=tf.zeros_initializer())
        h = tf.matmul(x, w, name="h")
        mean = tf.reduce_mean(h, 0)
        tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_sub(moving, (moving - mean) * 0.5))
        y = tf.subtract(h, tf.where(training, mean, moving), name="output")
        loss = tf.reduce_mean(tf.square(y - 1.0))
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            tf.train.AdamOptimizer().minimize(loss)

    return build


@pytest.mark.parametrize("resource", [True, False])
def test_only_a_step_moves_moving_statistics(resource: bool) -> None:
    batch = {"x": BATCH["x"]}
    program = tf1_graph(normalised(resource))
    info = {each.name: each for each in program.variables()}
    assert not info["net/moving_mean"].trainable
    assert [each.name for each in program.inputs()] == ["x"]
    before = program.state().digest()
    program.gradients("train", batch)
    program.loss("train", batch)
    program.nodes(batch, True, "train")
    assert not np.array_equal(program.forward(batch, True)["output"], program.forward(batch, False)["output"])
    assert program.state().digest() == before
    program.run_phase("train", batch)
    assert program.state().arrays["net/moving_mean"].any()


def test_nodes_are_named_wired_and_in_order() -> None:
    program = tf1_graph(normalised(True))
    batch = {"x": BATCH["x"]}
    nodes = {node.name: node for node in program.nodes(batch, False)}
    assert nodes["h"].kind == "MatMul" and nodes["h"].inputs == ("x",) and nodes["h"].variables == ("net/w",)
    assert list(nodes)[-1] == "output" and nodes["output"].inputs[0] == "h"
    assert "net/moving_mean" in {name for node in nodes.values() for name in node.variables}
    np.testing.assert_array_equal(nodes["output"].value, program.forward(batch, False)["output"])
    with_loss = program.nodes(batch, False, "train")
    assert float(with_loss[-1].value) == program.loss("train", batch)
    seen: set[str] = {"x", "is_training"}
    for node in with_loss:
        assert set(node.inputs) <= seen
        seen.add(node.name)


def test_a_while_loop_is_entered_iteration_by_iteration() -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        w = tf.get_variable("w", [2, 2])
        first = tf.matmul(x, w, name="first")
        _, state = tf.while_loop(lambda i, _: i < 3, lambda i, h: (i + 1, tf.tanh(tf.matmul(h, w))), [0, first])
        loss = tf.reduce_mean(tf.square(state), name="loss")
        tf.train.AdamOptimizer().minimize(loss)

    was_v2 = tf.control_flow_v2_enabled()
    for v2 in (False, True):
        (tf.enable_control_flow_v2 if v2 else tf.disable_control_flow_v2)()
        try:
            program = tf1_graph(build)
        finally:
            (tf.enable_control_flow_v2 if was_v2 else tf.disable_control_flow_v2)()
        assert any("loss of train: loss" in note for note in program.notes())
        nodes = program.nodes({"x": np.ones((1, 2))}, True, "train")
        names = {node.name: node for node in nodes}
        h = names["first"].value
        for number in range(3):
            product, state = names[f"while/MatMul [iteration {number}]"], names[f"while/Tanh [iteration {number}]"]
            assert product.inputs == ("first" if number == 0 else f"while/Tanh [iteration {number - 1}]",)
            assert product.variables == ("w",) and state.inputs == (product.name,)
            h = np.tanh(h @ program.state().arrays["w"])
            np.testing.assert_allclose(state.value, h, rtol=1e-5)
            assert f"while/Tanh [iteration {number + 1}]" in names or number == 2
        (square,) = (node for node in nodes if node.kind == "Square")
        (leaving,) = (names[name] for name in square.inputs)
        assert leaving.inputs == ("while/Tanh [iteration 2]",) or leaving.name == "while/Tanh [iteration 2]"
        before = program.run_phase("train", {"x": np.ones((1, 2))})["loss"]
        assert program.loss("train", {"x": np.ones((1, 2))}) != before


# --- Draws ------------------------------------------------------------------------------------------------------------
def noisy() -> None:
    x = tf.random.shuffle(tf.placeholder(tf.float32, [None, 3], name="x"))
    keep = tf.placeholder(tf.float32, [], name="keep_prob")
    w = tf.get_variable("w", [3, 2])
    h = tf.nn.dropout(tf.matmul(x, w), keep_prob=keep) + tf.random.normal([2])
    h = h * tf.cast(tf.random.uniform([2], 1, 4, tf.int32), tf.float32)
    loss = tf.reduce_mean(tf.square(h + tf.random.truncated_normal(tf.shape(h))), name="loss")
    tf.train.GradientDescentOptimizer(0.1).minimize(loss)


def test_draws_are_those_that_are_fed() -> None:
    program = tf1_graph(noisy, training={"keep_prob": 0.5}, inference={"keep_prob": 1.0})
    batch = {"x": BATCH["x"]}
    infos = program.random_draws()
    kinds = ["shuffle", "uniform", "normal", "integers", "truncated_normal"]
    assert [each.kind for each in infos] == kinds
    assert all(each.controlled and each.phases == ("train",) for each in infos)
    start = copied(program.state())
    program.draws.step = 5
    first = program.loss("train", batch)
    assert program.loss("train", batch) == first
    gradients = program.gradients("train", batch)["w"]
    assert gradients is not None
    assert program.run_phase("train", batch)["loss"] == first
    np.testing.assert_allclose(program.state().arrays["w"], start.arrays["w"] - 0.1 * gradients, rtol=1e-5)
    program.load(start)
    program.draws.step = 6
    assert program.loss("train", batch) != first
    assert program.loss("train", {"x": BATCH["x"][:2]}) != first

    one, two = program.drawn("train", batch), program.drawn("train", batch)
    assert list(one) == [each.name for each in infos]
    assert all(one[name] != two[name] for name in one if "shuffle" not in name.lower())
    assert program.state().digest() == start.digest()


def test_dropout_keeps_where_the_draw_is_at_least_the_rate() -> None:
    def build() -> dict[str, Any]:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        w = tf.get_variable("w", [3, 3], initializer=tf.initializers.identity())
        out = tf.nn.dropout(tf.matmul(x, w), rate=0.25, name="dropped")
        tf.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(out))
        return {"outputs": {"dropped": out}}

    program = tf1_graph(build)
    value = program.forward({"x": np.ones((5, 3))}, True)["dropped"]
    program.draws.begin("forward")
    mask = program.draws.uniform((5, 3)) >= 0.25
    np.testing.assert_allclose(value, mask / 0.75, rtol=1e-6)


def test_dropout_in_a_branch_of_a_cond_is_controlled() -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        training = tf.placeholder(tf.bool, [], name="is_training")
        h = tf.matmul(x, tf.get_variable("w", [3, 2]))
        y = tf.identity(tf.cond(training, lambda: tf.nn.dropout(h, rate=0.5), lambda: h), name="output")
        tf.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(y))

    was_v2 = tf.control_flow_v2_enabled()
    for choose in (tf.disable_control_flow_v2, tf.enable_control_flow_v2):
        choose()
        try:
            program = tf1_graph(build)
        finally:
            (tf.enable_control_flow_v2 if was_v2 else tf.disable_control_flow_v2)()
        batch = {"x": BATCH["x"]}
        (info,) = program.random_draws()
        assert info.controlled, info.reason
        np.testing.assert_array_equal(program.forward(batch, True)["output"], program.forward(batch, True)["output"])
        assert (program.forward(batch, True)["output"] == 0).any()
        assert not (program.forward(batch, False)["output"] == 0).any()
        wide = program.in_float64()
        np.testing.assert_allclose(wide.forward(batch, True)["output"], program.forward(batch, True)["output"], 1e-6)


@pytest.mark.parametrize("sampled_softmax", [True, False])
def test_candidate_sampling_is_controlled(sampled_softmax: bool) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        label = tf.placeholder(tf.int64, [None, 1], name="label")
        w, b = tf.get_variable("w", [20, 3]), tf.get_variable("b", [20])
        function = tf.nn.sampled_softmax_loss if sampled_softmax else tf.nn.nce_loss
        loss = tf.reduce_mean(function(w, b, label, x, 5, 20))
        tf.train.GradientDescentOptimizer(0.1).minimize(loss)

    program = tf1_graph(build)
    batch = {"x": BATCH["x"], "label": np.array([[0], [1], [2], [3]])}
    (info,) = program.random_draws()
    assert info.controlled and info.kind == candidates.kind("log_uniform", 20, True)
    first = program.loss("train", batch)
    assert program.run_phase("train", batch)["loss"] == first
    program.initialise(0)
    assert program.loss("train", batch) == first
    program.draws.step = 1
    assert program.loss("train", batch) != first
    moved = program.gradients("train", batch)["w"]
    assert moved is not None and 0 < (moved != 0).any(1).sum() < 20


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("name", ["log_uniform", "uniform"])
def test_expected_counts_are_the_kernels(name: str, unique: bool) -> None:
    """The op's own counts tell how many tries it made; ours agree with them for as many."""
    ops = {"log_uniform": tf.raw_ops.LogUniformCandidateSampler, "uniform": tf.raw_ops.UniformCandidateSampler}
    true = np.array([[3], [9]])
    with tf.Graph().as_default(), tf.Session() as session:
        out = ops[name](true_classes=true, num_true=1, num_sampled=6, unique=unique, range_max=10, seed=1)
        pairs = [session.run(out) for _ in range(200)]
    kernel = {float(each[1][1, 0]): float(each[1][0, 0]) for each in pairs}
    function = getattr(candidates, name)
    for seed in range(60):
        sampled, expected_true, expected = function(np.random.default_rng(seed), true, 6, unique, 10)
        assert sampled.dtype == np.int64 and expected.shape == (6,) and expected_true.shape == (2, 1)
        assert expected.dtype == expected_true.dtype == np.float32
        assert not unique or len(set(sampled)) == 6
        near = min(kernel, key=lambda value: abs(value - expected_true[1, 0]))
        if abs(near - expected_true[1, 0]) < 1e-6:
            assert expected_true[0, 0] == pytest.approx(kernel[near], rel=1e-6)
        else:
            assert unique
    if not unique:  # the classes themselves are as frequent as the kernel's
        ours = np.concatenate([function(np.random.default_rng(seed), true, 6, False, 10)[0] for seed in range(500)])
        theirs = np.concatenate([each[0] for each in pairs])
        np.testing.assert_allclose(np.bincount(ours) / 500, np.bincount(theirs) / 200, atol=0.25)


# --- float64 ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("resource", [True, False])
def test_float64_adam_is_numpys(resource: bool) -> None:
    def build() -> None:
        x = tf.placeholder(tf.float64, [None, 2], name="x")
        with tf.variable_scope("net", use_resource=resource):
            w = tf.get_variable("w", [2, 1], tf.float64)
        tf.train.AdamOptimizer(1e-3).minimize(tf.reduce_mean(tf.square(tf.matmul(x, w) - 1)))

    program = tf1_graph(build, precision="float64")
    assert program.precision == "float64"
    rate, beta_1, beta_2, epsilon = (float(np.float32(each)) for each in (1e-3, 0.9, 0.999, 1e-8))
    w = program.state().arrays["net/w"]
    m, v = np.zeros((2, 1)), np.zeros((2, 1))
    x = np.random.default_rng(1).normal(size=(5, 2))
    for step in range(1, 21):
        gradient = 2 * x.T @ (x @ w - 1) / 5
        m, v = beta_1 * m + (1 - beta_1) * gradient, beta_2 * v + (1 - beta_2) * gradient**2
        w = w - rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step) * m / (np.sqrt(v) + epsilon)
        program.run_phase("train", {"x": x})
    np.testing.assert_allclose(program.state().arrays["net/w"], w, rtol=1e-14)
    assert program.state().arrays["optimizer/Adam/iterations"] == 20
    assert tf.train.Optimizer.apply_gradients.__module__.startswith("tensorflow")


def test_every_optimizer_can_be_float64() -> None:
    def build(make: Callable[[], Any]) -> Callable[[], None]:
        def inner() -> None:
            x = tf.placeholder(tf.float64, [None, 2], name="x")
            w = tf.get_variable("w", [2, 1], tf.float64)
            make().minimize(tf.reduce_mean(tf.square(tf.matmul(x, w) - 1)))

        return inner

    for make, algorithm, numbers in ALGORITHMS.values():
        program = tf1_graph(build(make), precision="float64")
        (info,) = program.optimizers()
        assert info.algorithm == algorithm
        assert dict(info.hyperparameters) == {name: float(np.float32(value)) for name, value in numbers.items()}
        program.run_phase("train", {"x": np.ones((1, 2))})
        assert {value.dtype.name for value in program.state().arrays.values()} == {"float64", "int64"}
        program.close()


def test_updates_run_with_the_train_op_and_initial_once() -> None:
    def build() -> dict[str, Any]:
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        w = tf.get_variable("w", [2, 1])
        seen = tf.get_variable("seen", [2], trainable=False, initializer=tf.zeros_initializer())
        loss = tf.reduce_mean(tf.matmul(x, w), name="loss")
        return {
            "train_op": tf.train.GradientDescentOptimizer(0.5).minimize(loss),
            "updates": [tf.assign_add(seen, tf.reduce_sum(x, 0)).op],
            "initial": {w: np.full((2, 1), 3.0)},
        }

    program = tf1_graph(build)
    np.testing.assert_array_equal(program.state().arrays["w"], np.full((2, 1), 3.0, np.float32))
    program.run_phase("train", {"x": np.ones((4, 2))})
    np.testing.assert_array_equal(program.state().arrays["seen"], [4.0, 4.0])
    np.testing.assert_array_equal(program.state().arrays["w"], np.full((2, 1), 2.5, np.float32))
