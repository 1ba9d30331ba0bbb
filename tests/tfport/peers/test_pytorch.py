"""The PyTorch original as a Subject, and the four ports held against it. `make test-torch` has PyTorch."""

# ruff: noqa: E402  what needs PyTorch is imported where PyTorch is there
from __future__ import annotations

import dataclasses
import importlib
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; `make test-torch` runs this where it is")

import broken_torch_ports
from subjects import differing
from tfport import data, models, paradigms
from tfport.data.batches import Batches
from tfport.equivalence.compare import Request, compare
from tfport.equivalence.result import PairResult, Verdict
from tfport.errors import CheckpointError, UserError
from tfport.initial import initial_state
from tfport.models.spec import Adam, Dense, ModelSpec
from tfport.paradigms import PARADIGMS
from tfport.peers.pytorch.subject import ModuleSubject
from tfport.state import State
from tfport.subject import Batch

NAMES = ("torch_gan", "torch_gan_l2")
every_spec = pytest.mark.parametrize("name", NAMES)


@cache
def spec_of(name: str) -> ModelSpec:
    spec = models.get(name)
    return dataclasses.replace(spec, batching=dataclasses.replace(spec.batching, batch_size=32))


@cache
def batches(precision: str = "float32") -> Batches:
    return Batches(spec_of("torch_gan"), data.load("digits"), seed=0, precision=precision)


def batch(precision: str = "float32", step: int = 3) -> Batch:
    return batches(precision)[step]


def built(name: str, precision: str = "float32") -> ModuleSubject:
    side = paradigms.build("torch", spec_of(name), precision, seed=0)
    assert isinstance(side, ModuleSubject)
    return side


@cache
def warm(name: str, precision: str = "float32") -> State:
    side = built(name, precision)
    side.load(initial_state(spec_of(name), 0, precision))
    for step in range(3):
        side.step(batches(precision)[step])
    return side.state()


def loaded(name: str, precision: str = "float32") -> ModuleSubject:
    side = built(name, precision)
    side.load(warm(name, precision))
    return side


def everything(side: ModuleSubject) -> dict[str, bytes]:
    """All buffers, with those that the canonical state does not name, and all gradients left on parameters."""
    return {
        f"{network}.{name}": tensor.detach().numpy().tobytes()
        for network, module in side.modules.items()
        for name, tensor in [
            *module.named_buffers(),
            *((f"{each}.grad", held.grad) for each, held in module.named_parameters() if held.grad is not None),
        ]
    }


# --- The contract -----------------------------------------------------------------------------------------------------
@every_spec
def test_the_phases_in_order_are_a_step(name: str) -> None:
    side = loaded(name)
    reports: dict[str, float] = {}
    for phase in side.phases:
        reports |= side.run_phase(phase, batch())
    after = side.state()
    side.load(warm(name))
    assert side.step(batch()) == reports
    assert list(reports) == ["loss_D", "loss_G"]
    assert differing(side.state(), after) == []
    assert differing(after, warm(name)) != []


@every_spec
def test_looking_changes_nothing(name: str) -> None:
    side = loaded(name)
    side.step(batch())
    before, kept = side.state(), everything(side)
    for training in (True, False):
        side.forward(batch(), training)
    for phase in side.phases:
        side.gradients(phase, batch())
    side.generate({"latent": batch()["latent"]})
    assert differing(side.state(), before) == []
    assert everything(side) == kept
    assert all(part.training for module in side.modules.values() for part in module.modules())


def test_the_random_numbers_of_others_stay_theirs() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    built("torch_gan").initialise(1)
    assert torch.equal(torch.rand(3), expected)


@every_spec
def test_gradients_are_what_the_update_takes(name: str) -> None:
    spec = spec_of(name)
    weights = warm(name, "float64").arrays
    empty = initial_state(spec, 0, "float64").arrays
    state = State(name, {**empty, **{each: weights[each] for each in spec.variable_shapes()}})
    side = built(name, "float64")
    for phase in side.phases:
        side.load(state)
        gradients = side.gradients(phase, batch("float64"))
        assert list(gradients) == spec.held(phase)
        side.run_phase(phase, batch("float64"))
        after = side.state().arrays
        adam = spec.optimizer(phase)
        assert isinstance(adam, Adam)
        for variable, gradient in gradients.items():
            m, v = (after[f"optimizer/{phase}/{slot}/{variable}"] for slot in ("m", "v"))
            np.testing.assert_allclose(m, (1 - adam.beta_1) * gradient, rtol=1e-12, atol=1e-30)
            np.testing.assert_allclose(v, (1 - adam.beta_2) * gradient**2, rtol=1e-12, atol=1e-60)
        assert after[f"optimizer/{phase}/iterations"] == 1


def test_who_moves_in_which_phase() -> None:
    side, spec = loaded("torch_gan"), spec_of("torch_gan")
    statistics = {name for name, variable in spec.variables().items() if not variable.trainable}
    for phase in side.phases:
        side.load(warm("torch_gan"))
        side.run_phase(phase, batch())
        moved = {name for name in differing(side.state(), warm("torch_gan")) if not name.startswith("optimizer/")}
        assert moved - spec.cancelled().keys() == {*spec.held(phase), *statistics} - spec.cancelled().keys()


def test_structure_is_read_back() -> None:
    side, spec = loaded("torch_gan"), spec_of("torch_gan")
    assert {each.name: (each.shape, each.trainable) for each in side.variables()} == {
        name: (variable.shape, variable.trainable) for name, variable in spec.variables().items()
    }
    assert sum(each.parameters for each in side.variables()) == 328_925
    owners = {each.name: each.optimizers for each in side.variables()}
    assert {name: (name.split("/")[0],) if spec.variables()[name].trainable else () for name in owners} == owners
    native = {each.name: each.native_name for each in side.variables()}
    assert native["generator/hidden/kernel"] == "generator.hidden.weight"
    assert native["discriminator/output_norm/moving_variance"] == "discriminator.output_norm.running_var"
    for optimizer in side.optimizers():
        numbers = spec.optimizer(optimizer.name)
        assert isinstance(numbers, Adam)
        assert optimizer.algorithm == "Adam, epsilon after the bias correction"
        assert dict(optimizer.hyperparameters) == {
            name: getattr(numbers, name) for name in ("learning_rate", "beta_1", "beta_2", "epsilon")
        }


def test_a_state_is_a_copy_and_one_that_does_not_fit_is_refused() -> None:
    side = loaded("torch_gan")
    state = side.state()
    assert state.digest() == warm("torch_gan").digest()
    side.step(batch())
    assert state.digest() == warm("torch_gan").digest()
    side.load(state)
    arrays = {name: array for name, array in state.arrays.items() if name != "generator/hidden/bias"}
    with pytest.raises(CheckpointError, match="1 missing name"):
        side.load(State("torch_gan", arrays))
    turned = {**state.arrays, "generator/hidden/kernel": state.arrays["generator/hidden/kernel"].T}
    with pytest.raises(CheckpointError, match=r"shape \(200, 50\), expected \(50, 200\)"):
        side.load(State("torch_gan", turned))
    assert differing(side.state(), state) == []


# --- Layouts ----------------------------------------------------------------------------------------------------------
def test_a_square_kernel_is_turned_too() -> None:
    """In a square kernel no shape shows whether [in, out] was taken for [out, in]."""
    spec = spec_of("torch_gan")
    generator, *others = spec.networks
    hidden = generator.layers[0]
    assert isinstance(hidden, Dense)
    square = dataclasses.replace(hidden, units=hidden.inputs)
    norm = dataclasses.replace(generator.layers[1], shape=(hidden.inputs,))  # type: ignore[arg-type]
    after = dataclasses.replace(generator.layers[2], inputs=hidden.inputs)  # type: ignore[arg-type]
    network = dataclasses.replace(generator, layers=(square, norm, after, generator.layers[3]))
    spec = dataclasses.replace(spec, networks=(network, *others))
    side = paradigms.build("torch", spec, "float64", seed=0)
    state = initial_state(spec, 0, "float64")
    side.load(state)
    kernel, bias = (state.arrays[f"generator/hidden/{kind}"] for kind in ("kernel", "bias"))
    assert kernel.shape == (50, 50)
    assert not np.allclose(kernel, kernel.T)
    latent = batch("float64")["latent"]
    made = side.forward(batch("float64"), training=False)["generator/hidden"]
    np.testing.assert_allclose(made, latent @ kernel + bias, rtol=1e-12, atol=1e-14)
    assert not np.allclose(made, latent @ kernel.T + bias)
    side.step(batch("float64"))
    slot = side.state().arrays["optimizer/generator/m/generator/hidden/kernel"]
    side.load(state)
    side.run_phase("discriminator", batch("float64"))
    gradient = side.gradients("generator", batch("float64"))["generator/hidden/kernel"]
    np.testing.assert_allclose(slot, gradient * (1 - float(np.float32(0.5))), rtol=1e-9, atol=1e-14)


def test_momentum_is_the_specs_to_the_last_bit() -> None:
    norm = loaded("torch_gan").modules["generator"].hidden_norm
    momentum = spec_of("torch_gan").network("generator").layers[1].momentum  # type: ignore[union-attr]
    assert 1 - norm.momentum == momentum == float(np.float32(0.9))


# --- Checkpoint -------------------------------------------------------------------------------------------------------
@every_spec
def test_native_checkpoint_brings_everything_back(name: str, tmp_path: Path) -> None:
    side = loaded(name)
    side.save(tmp_path)
    onward = side.step(batch())
    after = side.state()
    other = built(name)
    other.restore(tmp_path)
    assert differing(other.state(), warm(name)) == []
    assert other.step(batch()) == onward
    assert differing(other.state(), after) == []


class _Code:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("a folder that a checkpoint must not make",)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "code", "other shapes", "no optimizers"])
def test_what_is_no_checkpoint_is_refused(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    side = loaded("torch_gan")
    side.save(folder)
    (path,) = folder.iterdir()
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "code":
        torch.save({"modules": _Code()}, path)
    else:
        found = torch.load(path, weights_only=True)
        if damage == "no optimizers":
            del found["optimizers"]
        else:
            weight = found["modules"]["generator"]["hidden.weight"]
            found["modules"]["generator"]["hidden.weight"] = weight.T
        torch.save(found, path)
    with pytest.raises(CheckpointError, match=r"cannot be restored into torch_gan \(torch\)"):
        side.restore(folder)
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint"]


# --- The ports against the original -----------------------------------------------------------------------------------
def pairs(name: str, moderns: tuple[str, ...], steps: int) -> dict[str, PairResult]:
    report, _ = compare(Request(name, ("torch", *moderns), steps=steps, batch_size=32))
    return {pair.modern: pair for pair in report.pairs}


@every_spec
def test_every_port_is_the_original_up_to_rounding(name: str) -> None:
    found = pairs(name, tuple(PARADIGMS), 4)
    assert {modern: pair.verdict for modern, pair in found.items()} == dict.fromkeys(PARADIGMS, Verdict.ROUNDING)
    for pair in found.values():
        assert pair.rung("repeat").verdict is Verdict.IDENTICAL
        assert pair.rung("initialisation").verdict is Verdict.SAME_DISTRIBUTION


WRONG = {
    "biased_variance": ("update", "moving_variance"),
    "epsilon_before_correction": ("update", ""),
    "frozen_discriminator": ("loss", "loss_G"),
    "real_first": ("update", "discriminator/output_norm/moving_"),
}
"""What was forgotten -> the first numerical rung that fails, and what the tensor's name there has in it."""


def test_what_a_port_forgets_of_pytorch_is_found() -> None:
    found = pairs("torch_gan", tuple(f"{broken_torch_ports.__name__}:{name}" for name in WRONG), 2)
    for name, (rung, tensor) in WRONG.items():
        pair = found[f"{broken_torch_ports.__name__}:{name}"]
        assert (name, pair.verdict, pair.located) == (name, Verdict.DIFFERENT, rung)
        first = pair.rung(rung).first_divergence
        assert first is not None
        assert tensor in first.tensor


# --- Properties -------------------------------------------------------------------------------------------------------
def test_the_loss_of_d_is_at_least_2_ln_2_in_training_mode() -> None:
    """Its last layer gives both batches the same mean logit."""
    side, spec = built("torch_gan"), spec_of("torch_gan")
    losses = []
    for number in range(50):
        draws = np.random.default_rng(number)
        arrays = dict(warm("torch_gan").arrays)
        for name in spec.variable_shapes():
            drawn = draws.normal(0, 10.0 ** draws.uniform(-2, 0.5), arrays[name].shape).astype(np.float32)
            arrays[name] = np.abs(drawn) if name.endswith("variance") else drawn
        side.load(State("torch_gan", arrays))
        losses.append(side.run_phase("discriminator", batch(step=number % 40))["loss_D"])
    assert min(losses) >= 2 * math.log(2) - 1e-6
    assert max(losses) > 2 * math.log(2) + 0.1


@pytest.mark.parametrize("paradigm", PARADIGMS)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_the_loss_of_every_probability_is_bcelosss(paradigm: str, label: float) -> None:
    """BCELoss holds logarithms above -100 and, in its gradient, p(1 - p) above 1e-12: to be seen near 0 and 1."""
    import tensorflow as tf

    near = 10.0 ** -np.arange(1, 16)
    probabilities = np.array([0.0, 1e-300, 1e-50, *near, 0.5, *(1 - near), 1.0])[:, None]
    theirs = torch.tensor(probabilities, requires_grad=True)
    loss = torch.nn.BCELoss()(theirs, torch.full_like(theirs, label))
    loss.backward()
    assert theirs.grad is not None
    cross_entropy = importlib.import_module(f"{PARADIGMS[paradigm].package}.torch_gan").cross_entropy
    with tf.compat.v1.Graph().as_default(), tf.compat.v1.Session() as session:
        ours = tf.constant(probabilities)
        value = cross_entropy(ours, label)
        found, gradient = session.run([value, tf.compat.v1.gradients(value, ours)[0]])
    np.testing.assert_allclose(found, loss.item(), rtol=1e-13)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-13)


@pytest.mark.parametrize("size", [1.0, 1e-7, 1e-10])
def test_adams_with_epsilon_after_the_correction_are_pytorchs(size: float) -> None:
    """In float64, with gradients around epsilon, where its place matters most."""
    import tensorflow as tf

    from tf1_graph import layers as tf1
    from tf2_eager.gradient_tape.optimizers import Adam as TapeAdam
    from tf2_eager.keras2 import layers as keras2
    from tf2_eager.keras3 import layers as keras3

    numbers = spec_of("torch_gan").optimizer("generator")
    assert isinstance(numbers, Adam)
    draws = np.random.default_rng(0)
    start, gradients = draws.normal(0, 1e-3, 5), draws.normal(0, size, (30, 5))

    theirs = torch.tensor(start, requires_grad=True)
    adam = torch.optim.Adam([theirs], numbers.learning_rate, (numbers.beta_1, numbers.beta_2), numbers.epsilon)
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        adam.step()
    expected = theirs.detach().numpy() - start

    found = {}
    tape = tf.Variable(start)
    own = TapeAdam(numbers, [tape])
    for gradient in gradients:
        own.apply([tf.constant(gradient)])
    found["gradient_tape"] = tape.numpy()
    for name, layers in (("keras2", keras2), ("keras3", keras3)):
        held = tf.Variable(start) if name == "keras2" else layers.keras.Variable(start, dtype="float64")
        optimizer = layers.adam(numbers)
        optimizer.build([held])
        for gradient in gradients:
            optimizer.apply_gradients([(tf.constant(gradient), held)])
        found[name] = np.asarray(held.numpy())
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        variable = v1.Variable(start, use_resource=False)
        given = v1.placeholder("float64", [5])
        train = tf1.adam(numbers, "float64", "adam").apply_gradients([(given, variable)])
        session.run(v1.global_variables_initializer())
        for gradient in gradients:
            session.run(train, {given: gradient})
        found["tf1_graph"] = session.run(variable)
    for name, value in found.items():
        # Keras holds its rate in floatx, which is float32 here; that is rounded already.
        np.testing.assert_allclose(value - start, expected, rtol=1e-9, atol=1e-16, err_msg=name)


# --- Among the paradigms ----------------------------------------------------------------------------------------------
def test_other_models_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^vanilla_gan has no implementation in torch, .* these models: torch_gan"):
        paradigms.build("torch", models.get("vanilla_gan"))
