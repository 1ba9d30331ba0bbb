"""PyTorch modules as Programs. `make test-torch` has PyTorch."""

# ruff: noqa: E402  what needs PyTorch is imported where PyTorch is there
from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed; `make test-torch` runs this where it is")
nn: Any = torch.nn
F: Any = torch.nn.functional

from tfport.adapters.torch_program import torch_module
from tfport.errors import CheckpointError, UserError
from tfport.program import Program, State
from tfport.subject import CORRECTED

NUMBERS = np.random.default_rng(3)
BATCH = {
    "x": NUMBERS.normal(size=(6, 5)).astype("float32"),
    "y": NUMBERS.integers(0, 3, 6).astype("int32"),
}


def classifier(make: Any = None, precision: str | None = None, schedule: Any = None, **more: Any) -> Program:
    """A small network with batch normalisation, a dropout, noise of its own, and a step by its inputs' names."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.25), nn.Linear(8, 3))
    optimizer = (make or (lambda p: torch.optim.Adam(p, 0.01)))(model.parameters())
    scheduler = schedule(optimizer) if schedule else None

    def step(x: Any, y: Any) -> Any:
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x + 0.1 * torch.randn_like(x)), y)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        return {"accuracy": torch.tensor(0.5), "loss": loss.detach() + 0}

    return torch_module(model, optimizer, step=step, precision=precision, **more)


class Pair(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(inputs))
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: Any) -> Any:
        return self.layer(torch.tanh(x * self.scale)) + 1


def gan(**more: Any) -> Program:
    """Two modules, two phases, numbers from numpy and Python."""
    torch.manual_seed(2)
    generator, discriminator = Pair(3, 5), Pair(5, 1)
    d_rule = torch.optim.SGD(discriminator.parameters(), 0.1, momentum=0.5)
    g_rule = torch.optim.RMSprop(generator.parameters(), 0.01, momentum=0.9, centered=True)

    def noise() -> Any:
        return torch.tensor(np.random.normal(size=(4, 3)), dtype=torch.get_default_dtype()) + random.random()  # noqa: NPY002

    def d_step(batch: Mapping[str, Any]) -> Any:
        d_rule.zero_grad()
        real = F.binary_cross_entropy_with_logits(discriminator(batch["x"]), torch.ones(6, 1))
        real.backward()
        fake = F.binary_cross_entropy_with_logits(discriminator(generator(noise()).detach()), torch.zeros(4, 1))
        fake.backward()
        d_rule.step()
        return real.item() + fake.item()

    def g_step(batch: Mapping[str, Any]) -> Any:
        g_rule.zero_grad()
        loss = nn.BCEWithLogitsLoss()(discriminator(generator(noise())), torch.ones(4, 1))
        loss.backward()
        g_rule.step()
        return loss

    return torch_module(
        {"G": generator, "D": discriminator},
        optimizers={"d": d_rule, "g": g_rule},
        phases={"d": d_step, "g": g_step},
        outputs=lambda x: {"logits": discriminator(x)},
        **more,
    )


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "Momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "Nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Momentum, dampened": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.5),
    "Adam" + CORRECTED: lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1),
    "Adam" + CORRECTED + ", amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "AdamW" + CORRECTED: lambda p: torch.optim.AdamW(p, 0.01),
    "Adamax, epsilon within the norm": lambda p: torch.optim.Adamax(p, 0.01),
    "Adagrad" + CORRECTED: lambda p: torch.optim.Adagrad(p, 0.1, lr_decay=0.1, initial_accumulator_value=0.2),
    "RMSProp" + CORRECTED: lambda p: torch.optim.RMSprop(p, 0.01),
    "CenteredRMSProp" + CORRECTED: lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    "Adadelta": lambda p: torch.optim.Adadelta(p, 0.5),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.01),
}

SLOTS = {
    "Momentum": {"accumulator"},
    "Adam" + CORRECTED: {"m", "v"},
    "Adam" + CORRECTED + ", amsgrad": {"m", "v", "vhat"},
    "Adamax, epsilon within the norm": {"m", "v"},
    "Adagrad" + CORRECTED: {"accumulator"},
    "CenteredRMSProp" + CORRECTED: {"rms", "mean", "momentum_buffer"},
    "Adadelta": {"accumulator", "accumulator_update"},
}


def copied(state: State) -> State:
    return State(state.model, {name: np.array(value) for name, value in state.arrays.items()})


def run(program: Program, count: int, start: int = 0) -> None:
    for index in range(start, start + count):
        program.draws.step = index
        program.step(BATCH)


@pytest.mark.parametrize("make", [classifier, gan])
def test_the_contract(make: Any) -> None:
    program = make()
    run(program, 2)
    before = copied(program.state())
    torch_state, numpy_state, python_state = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    for phase in program.phases:
        first = program.forward(BATCH, True), program.loss(phase, BATCH), program.gradients(phase, BATCH)
        program.nodes(BATCH, True)
        program.nodes(BATCH, False)
        program.nodes(BATCH, False, phase)
        program.drawn(phase, BATCH)
        again = program.forward(BATCH, True), program.loss(phase, BATCH), program.gradients(phase, BATCH)
        assert str(first) == str(again)
    assert program.state().digest() == before.digest()
    whole = program.step(BATCH)
    after = copied(program.state())
    assert after.digest() != before.digest()
    program.load(before)
    parts = {f"{p}/{n}": v for p in program.phases for n, v in program.run_phase(p, BATCH).items()}
    assert parts == whole
    assert program.state().digest() == after.digest()
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == str(np.random.get_state())  # noqa: NPY002
    assert python_state == random.getstate()
    assert all(name in after.arrays for name in (each.name for each in program.variables()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_read_and_go_on_where_they_were(name: str) -> None:
    straight = classifier(OPTIMIZERS[name])
    (info,) = straight.optimizers()
    assert info.algorithm == name
    fresh = copied(straight.state())
    slots = {key.split("/")[2] for key in fresh.arrays if key.startswith("optimizer/") and "iterations" not in key}
    assert slots == SLOTS.get(name, slots)
    run(straight, 3)
    middle = copied(straight.state())
    assert middle.arrays["optimizer/optimizer/iterations"] == 3
    run(straight, 2, 3)
    other = classifier(OPTIMIZERS[name])
    other.load(middle)
    assert other.state().digest() == middle.digest()
    assert str(other.optimizers()) == str(classifier_at(name, middle).optimizers())
    run(other, 2, 3)
    assert other.state().digest() == straight.state().digest()
    other.load(fresh)
    run(other, 5)
    assert other.state().digest() == straight.state().digest()


def classifier_at(name: str, state: State) -> Program:
    program = classifier(OPTIMIZERS[name])
    program.load(state)
    return program


def test_numbers_of_optimizers() -> None:
    (adam,) = classifier(OPTIMIZERS["Adam" + CORRECTED]).optimizers()
    assert adam.hyperparameters == {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "l2": 0.1}
    (sgd,) = classifier(OPTIMIZERS["SGD"]).optimizers()
    assert sgd.hyperparameters == {"learning_rate": 0.1}
    (rounded,) = classifier(precision="float64").optimizers()
    assert rounded.hyperparameters["beta_1"] == float(np.float32(0.9))
    program = classifier(OPTIMIZERS["Adagrad" + CORRECTED])
    run(program, 1)
    assert program.optimizers()[0].hyperparameters["learning_rate"] == pytest.approx(0.1 / 1.1)


def test_a_schedule_goes_on_where_it_was() -> None:
    def make() -> Program:
        return classifier(schedule=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5))

    program = make()
    run(program, 2)
    assert program.optimizers()[0].hyperparameters["learning_rate"] == 0.0025
    program.gradients("step", BATCH)
    assert program.optimizers()[0].hyperparameters["learning_rate"] == 0.0025
    state = copied(program.state())
    run(program, 2, 2)
    other = make()
    other.load(state)
    assert other.optimizers()[0].hyperparameters["learning_rate"] == 0.0025
    run(other, 2, 2)
    assert other.state().digest() == program.state().digest()
    assert any("ExponentialLR" in note for note in program.notes())


def test_gradients_are_those_of_the_update() -> None:
    program = classifier(OPTIMIZERS["SGD"], precision="float64")
    before = copied(program.state())
    gradients = program.gradients("step", BATCH)
    reported = program.run_phase("step", BATCH)
    after = program.state()
    assert list(reported) == ["loss", "accuracy"]
    rate = float(np.float32(0.1))
    for name, gradient in gradients.items():
        assert gradient is not None
        np.testing.assert_allclose(after.arrays[name], before.arrays[name] - rate * gradient, rtol=1e-12, atol=1e-15)
    program.load(before)
    assert program.loss("step", BATCH) == reported["loss"]
    assert program.precision == "float64"
    assert program.forward(BATCH, False)["output"].dtype == np.float64


def changed(change: Any = None, **numbers: Any) -> Program:
    """A step that changes its gradients before an optimizer takes them."""
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, **numbers)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        (-loss if numbers.get("maximize") else loss).backward()
        if change is not None:
            change(list(model.parameters()))
        optimizer.step()
        return loss

    return torch_module(model, optimizer, step=step)


@pytest.mark.parametrize("bound", [0.01, 1e6])
def test_derivatives_are_what_backward_left(bound: float) -> None:
    assert changed().derivatives("step", BATCH) is None
    program = changed(lambda parameters: nn.utils.clip_grad_norm_(parameters, bound))
    derivatives, gradients = program.derivatives("step", BATCH), program.gradients("step", BATCH)
    assert derivatives is not None
    sizes = [
        float(np.sqrt(sum(np.square(each).sum() for each in found.values() if each is not None)))
        for found in (derivatives, gradients)
    ]
    assert sizes[1] == pytest.approx(min(bound, sizes[0]), rel=1e-4)


def test_what_an_optimizer_adds_and_turns_round_is_applied() -> None:
    program = changed(weight_decay=0.5)
    derivatives, gradients = program.derivatives("step", BATCH), program.gradients("step", BATCH)
    weights = program.state().arrays
    assert derivatives is not None
    for name, value in derivatives.items():
        assert value is not None and gradients[name] is not None
        np.testing.assert_allclose(np.asarray(gradients[name]), value + 0.5 * weights[name], rtol=1e-6)
    program = changed(maximize=True)
    assert program.loss("step", BATCH) == program.run_phase("step", BATCH)["loss"] > 0
    assert program.optimizers()[0].algorithm == "SGD"
    before = copied(program.state()).arrays
    gradients = program.gradients("step", BATCH)
    program.run_phase("step", BATCH)
    for name, value in gradients.items():
        expected = before[name] - np.float32(0.1) * np.asarray(value)
        np.testing.assert_allclose(program.state().arrays[name], expected, rtol=1e-5, atol=1e-7)


def test_two_backwards_are_one_objective() -> None:
    program = gan()
    reported = program.run_phase("d", BATCH)["loss"]
    program = gan()
    assert program.loss("d", BATCH) == pytest.approx(reported, rel=1e-6)
    assert set(program.gradients("d", BATCH)) == {"D/scale", "D/layer/weight", "D/layer/bias"}
    assert set(program.gradients("g", BATCH)) == {"G/scale", "G/layer/weight", "G/layer/bias"}
    run(program, 1)
    assert program.phase_optimizers() == {"d": ("d",), "g": ("g",)}
    assert [each.name for each in program.inputs()] == []
    assert [(each.name, each.controlled) for each in program.random_draws()] == [
        ("np.random", True),
        ("random", True),
    ]


def test_variables_are_named_as_the_modules_name_them() -> None:
    program = classifier()
    assert [(each.name, each.trainable, each.optimizers) for each in program.variables()] == [
        ("0/weight", True, ("optimizer",)),
        ("0/bias", True, ("optimizer",)),
        ("1/weight", True, ("optimizer",)),
        ("1/bias", True, ("optimizer",)),
        ("1/running_mean", False, ()),
        ("1/running_var", False, ()),
        ("1/num_batches_tracked", False, ()),
        ("4/weight", True, ("optimizer",)),
        ("4/bias", True, ("optimizer",)),
    ]
    assert [each.name for each in program.inputs()] == ["x", "y"]
    assert program.phase_optimizers() == {"step": ("optimizer",)}


def test_draws_are_fed() -> None:
    program = classifier()
    run(program, 1)
    kinds = {each.name: (each.kind, each.controlled) for each in program.random_draws()}
    assert kinds == {"step/randn_like": ("normal", True), "3": ("uniform", True)}
    nodes = {node.name: node for node in program.nodes(BATCH, False, "step")}
    program.draws.begin("step")
    np.testing.assert_array_equal(nodes["randn_like"].value, program.draws.normal((6, 5)))
    kept = program.draws.uniform((6, 8)) >= 0.25
    np.testing.assert_array_equal(nodes["3"].value, np.where(kept, nodes["2"].value * np.float32(1 / 0.75), 0))
    once, twice = program.drawn("step", BATCH), program.drawn("step", BATCH)
    assert once.keys() == kinds.keys()
    assert all(once[name] != twice[name] for name in once)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(3, 4),
        lambda: torch.empty(3, 4).uniform_(-1, 2),
        lambda: torch.normal(1.0, torch.full((3, 4), 2.0)),
        lambda: torch.normal(1.0, 2.0, (3, 4)),
        lambda: torch.empty(3, 4).normal_(1, 2),
        lambda: torch.bernoulli(torch.full((3, 4), 0.3)),
        lambda: torch.randint(2, 9, (3, 4)),
        lambda: torch.empty(3, 4).random_(),
        lambda: torch.randint_like(torch.zeros(3, 4), 5),
        lambda: torch.randperm(12),
        lambda: F.alpha_dropout(torch.ones(3, 4), 0.5, True),
        lambda: F.dropout2d(torch.ones(3, 4, 2, 2), 0.5, True),
        lambda: torch.multinomial(torch.ones(12), 5),
        lambda: torch.empty(3, 4).exponential_(),
        lambda: torch.distributions.Normal(torch.zeros(3), torch.ones(3)).rsample(),
        lambda: torch.rand(3, generator=torch.Generator()),
        lambda: torch.rand(2, 2, out=torch.empty(2, 2)),
        lambda: torch.rand(3, dtype=torch.bfloat16),
    ],
)
def test_every_way_to_draw(draw: Any) -> None:
    layer = nn.Linear(1, 1)
    seen: list[Any] = []

    def step(batch: Mapping[str, Any]) -> Any:
        value = draw()
        seen.append((str(value), value.float().mean().item()))
        loss = layer(torch.ones(1, 1)).sum()
        loss.backward()
        return loss

    program = torch_module(layer, optimizers={}, step=step)
    for at in (0, 0, 1):
        program.draws.step = at
        torch.manual_seed(len(seen))
        program.run_phase("step", {})
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]
    program.gradients("step", {})
    assert seen[-1] == seen[2]
    assert program.random_draws()


def test_nodes_know_their_arguments_settings_and_lines() -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        loss = nn.functional.leaky_relu(layer(x) + 1.0, negative_slope=0.3)[:, 0].mean()
        loss.backward()
        optimizer.step()
        return loss

    program = torch_module(layer, optimizer, step=step)
    nodes = {node.kind: node for node in program.nodes({"x": np.ones((1, 2, 4, 4), np.float32)}, True, "step")}
    assert nodes["Conv2d"].attributes["padding"] == "(1, 1)" and nodes["add"].attributes == {"argument 1": "1"}
    assert nodes["leaky_relu"].attributes["negative_slope"] == "0.3"
    assert nodes["getitem"].attributes["argument 1"] == "(slice(None, None, None), 0)"
    line = step.__code__.co_firstlineno + 1
    assert all(node.where == f"test_torch_program.py:{line}" for node in nodes.values())


def test_nodes_are_the_computation_of_the_loss() -> None:
    program = gan()
    nodes = program.nodes(BATCH, True, "g")
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    assert nodes[-1].kind == "BCEWithLogitsLoss"
    assert float(nodes[-1].value) == program.loss("g", BATCH)
    by_name = {node.name: node for node in nodes}
    assert by_name["G/mul"].variables == ("G/scale",)
    assert by_name["G/tanh"].inputs == ("G/mul",)
    assert by_name["G/layer"].kind == "Linear"
    assert set(by_name["G/layer"].variables) == {"G/layer/weight", "G/layer/bias"}
    assert by_name["D/mul"].inputs == ("G/add",)
    assert not any(name.startswith("D/") for name in names[: names.index("G/add")])
    forward = program.nodes(BATCH, False)
    assert [node.name for node in forward] == ["D/mul", "D/tanh", "D/layer", "D/add"]
    assert forward[0].inputs == ("x",)
    np.testing.assert_array_equal(forward[-1].value, program.forward(BATCH, False)["logits"])


def test_modes_and_buffers_stay() -> None:
    program = classifier()
    model: Any = program.modules[""]  # type: ignore[attr-defined]
    model[3].eval()
    program.forward(BATCH, True)
    program.nodes(BATCH, True)
    assert not model[3].training
    assert int(model[1].num_batches_tracked) == 0
    run(program, 1)
    assert int(model[1].num_batches_tracked) == 1
    program.gradients("step", BATCH)
    assert int(model[1].num_batches_tracked) == 1


def test_a_stale_gradient_is_the_code_s_own() -> None:
    """Who never sets gradients to zero sees them add up, here too."""
    layer = nn.Linear(5, 1)
    rule = torch.optim.SGD(layer.parameters(), 0.1)

    def step(x: Any) -> Any:
        loss = layer(x).mean()
        loss.backward()
        rule.step()
        return loss

    program = torch_module(layer, rule, step=step)
    once = program.gradients("step", BATCH)["weight"]
    program.run_phase("step", BATCH)
    twice = program.gradients("step", BATCH)["weight"]
    assert once is not None
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)  # type: ignore[arg-type]


def test_updates_without_an_optimizer() -> None:
    layer = nn.Linear(5, 1)

    def step(x: Any) -> Any:
        loss = (layer(x) ** 2).mean()
        found = torch.autograd.grad(loss, list(layer.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(layer.parameters(), found, strict=True):
                parameter -= 0.1 * gradient
        return None

    program = torch_module(layer, step=step)
    loss = program.loss("step", BATCH)
    assert program.run_phase("step", BATCH) == {"loss": loss}
    assert program.loss("step", BATCH) < loss
    with pytest.raises(NotImplementedError, match="no update with an optimizer"):
        program.gradients("step", BATCH)


def test_a_closure_is_watched() -> None:
    layer = nn.Linear(5, 1)
    rule = torch.optim.SGD(layer.parameters(), 0.1)

    def step(x: Any) -> Any:
        def closure() -> Any:
            rule.zero_grad()
            loss = layer(x).mean()
            loss.backward()
            return loss

        return rule.step(closure)

    program = torch_module(layer, step=step)
    assert program.gradients("step", BATCH)["bias"] == 1
    assert program.nodes(BATCH, True, "step")[-1].kind == "mean"
    assert any("found by itself" in note for note in program.notes())


def test_new_weights() -> None:
    def build() -> Any:
        return nn.Sequential(nn.Linear(5, 2), nn.Dropout(0.5))

    model = build()
    rule = torch.optim.Adagrad(model.parameters(), 0.1, initial_accumulator_value=0.5)

    def step(x: Any) -> Any:
        rule.zero_grad()
        loss = model(x).mean()
        loss.backward()
        rule.step()
        return loss

    program = torch_module(model, rule, step=step, rebuild=build)
    program.initialise(7)
    first = program.state().digest()
    run(program, 1)
    program.initialise(8)
    assert program.state().digest() != first
    program.initialise(7)
    assert program.state().digest() == first
    assert float(program.state().arrays["optimizer/optimizer/accumulator/0/bias"][0]) == 0.5
    with pytest.raises(NotImplementedError, match="rebuild="):
        classifier().initialise(1)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    program = classifier()
    before = copied(program.state())
    arrays = dict(before.arrays)
    arrays["4/bias"] = np.ones(4, np.float32)
    with pytest.raises(CheckpointError, match="4/bias has shape"):
        program.load(State("x", arrays))
    del arrays["4/bias"]
    with pytest.raises(CheckpointError, match="missing"):
        program.load(State("x", arrays))
    assert program.state().digest() == before.digest()


def test_mistakes_are_named() -> None:
    layer = nn.Linear(5, 1)
    stranger = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)
    own = torch.optim.SGD(layer.parameters(), 0.1)

    def step(batch: Mapping[str, Any]) -> Any:
        stranger.step()
        return layer(batch["x"])

    mistakes: dict[str, Any] = {
        "holds a parameter of shape": lambda: torch_module(layer, stranger, step=step),
        "neither step= nor phases=": lambda: torch_module(layer),
        "torch_module got a int": lambda: torch_module(3, step=step),
        "both optimizer= and": lambda: torch_module(layer, own, optimizers={"a": own}, step=step),
        "was not given": lambda: torch_module(layer, own, step=step).run_phase("step", BATCH),
        "no outputs=": lambda: torch_module({"a": layer, "b": layer}, own, step=step).forward(BATCH, False),
        "there is no phase 'other'": lambda: classifier().loss("other", BATCH),
        "takes p, q, and the batch has x, y": lambda: torch_module(layer, own, step=lambda p, q: p).loss("step", BATCH),
        "scalars": lambda: torch_module(layer, own, step=lambda x: layer(x)).run_phase("step", BATCH),
        "no loss": lambda: torch_module(layer, own, step=lambda x: None).run_phase("step", BATCH),
        "the batch lacks z": lambda: torch_module(layer, own, step=lambda z: z, inputs=["z"]).loss("step", BATCH),
        "'float16' is unknown": lambda: torch_module(layer, own, step=step, precision="float16"),
        "a function that takes a batch": lambda: torch_module(layer, own, step=3),  # type: ignore[arg-type]
        "an object of torch.optim": lambda: torch_module(layer, 3, step=step),
    }
    for message, ask in mistakes.items():
        with pytest.raises(UserError, match=message):
            ask()
    with pytest.raises(NotImplementedError, match="cannot be told"):
        torch_module(layer, own, step=lambda x: layer(x).sum()).loss("step", BATCH)


def test_tensorflow_is_fed_the_same_dropout() -> None:
    import tensorflow as tf

    from tfport.adapters.module_program import tf_module

    class Model(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable(tf.ones((5, 2)), name="weight")

    ours, theirs = Model(), nn.Linear(5, 2, bias=False, dtype=torch.float64)
    ours.weight = tf.Variable(tf.ones((5, 2), tf.float64), name="weight")
    nn.init.ones_(theirs.weight)

    @tf.function
    def tf_step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            noise = tf.random.normal(tf.shape(x), dtype=x.dtype)
            loss = tf.reduce_mean(tf.nn.dropout((x + noise) @ ours.weight, 0.1) ** 2)
        ours.weight.assign_sub(0.5 * tape.gradient(loss, ours.weight))
        return loss

    rule = torch.optim.SGD(theirs.parameters(), 0.5)

    def torch_step(x: Any) -> Any:
        rule.zero_grad()
        loss = (F.dropout(theirs(x + torch.randn(x.shape)), 0.1) ** 2).mean()
        loss.backward()
        rule.step()
        return loss

    legacy, modern = tf_module(ours, step=tf_step), torch_module(theirs, rule, step=torch_step)
    for index in range(3):
        legacy.draws.step = modern.draws.step = index
        assert legacy.step(BATCH)["step/loss"] == pytest.approx(modern.step(BATCH)["step/loss"], rel=1e-12)
    np.testing.assert_allclose(legacy.state().arrays["weight"], modern.state().arrays["weight"].T, rtol=1e-12)


# --- Plain mappings ---------------------------------------------------------------------------------------------------
def test_a_plain_mapping_is_a_program() -> None:
    from tfport.adapters.plain import program_of

    model = Pair(5, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    given = {"step": step, "optimizer": optimizer, "outputs": lambda x: {"out": model(x)}}
    for mapping in ({"model": model, **given}, {"modules": {"pair": model}, **given}):
        program = program_of(mapping)
        batch = {"x": BATCH["x"]}
        program.prepare(batch)
        assert list(program.forward(batch, training=False)) == ["out"]
        assert program.step(batch)["step/loss"] > program.step(batch)["step/loss"]
