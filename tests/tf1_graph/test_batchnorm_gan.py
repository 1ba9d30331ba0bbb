"""What is TF1's own of half steps and batch normalisation: who feeds what, whose ops run when, one Adam for two ops."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

import subjects
from tf1_graph.subject import GraphSubject

MODEL = "batchnorm_gan"
HALVES = ("discriminator_real", "discriminator_fake")


def graph() -> GraphSubject:
    return cast(GraphSubject, subjects.subject(MODEL, "tf1_graph"))


def behind(op: Any) -> set[Any]:
    """Every op that runs when `op` is run."""
    seen: set[Any] = set()
    pending = [op]
    while pending:
        each = pending.pop()
        if each not in seen:
            seen.add(each)
            pending += [*each.control_inputs, *(tensor.op for tensor in each.inputs)]
    return seen


def test_global_variables() -> None:
    """28 weights and statistics, two slots for each of the 22 that are trained, and two pairs of beta powers."""
    spec, shapes = subjects.spec(MODEL), graph().global_variables()
    held = sum(
        math.prod(spec.variable_shapes()[name]) for each in ("discriminator", "generator") for name in spec.held(each)
    )
    assert len(shapes) == 28 + 2 * 22 + 4
    assert sum(math.prod(shape) for shape in shapes.values()) == spec.parameters + 2 * held + 4


def test_both_half_steps_are_one_optimizers() -> None:
    ops = graph().train_ops
    assert list(ops) == [*HALVES, "generator"]
    assert ops[HALVES[0]].optimizer is ops[HALVES[1]].optimizer is not ops["generator"].optimizer
    slots = {
        (name, op.inputs[1].op.name) for name in HALVES for op in behind(ops[name].train) if op.type == "ApplyAdam"
    }
    assert len({slot for _, slot in slots}) == 8
    assert len(slots) == 16


def test_only_the_generators_step_moves_statistics() -> None:
    moving = [name for name, each in subjects.spec(MODEL).variables().items() if not each.trainable]
    for phase, op in graph().train_ops.items():
        ops = behind(op.train)
        assigned = {each.inputs[0].op.name for each in ops if each.type == "AssignSub"}
        assert assigned == (set(moving) if phase == "generator" else set())


def test_looking_moves_nothing_even_in_training_mode() -> None:
    side = graph()
    for training, outputs in side.outputs.items():
        for name, tensor in outputs.items():
            kinds = {op.type for op in behind(tensor.op)}
            assert not kinds & {"AssignSub", "Assign", "ApplyAdam"}, (training, name)


def test_each_phase_is_fed_what_it_reads() -> None:
    side, batch = graph(), dict(subjects.batches(MODEL)[0])
    needed = {HALVES[0]: "images", HALVES[1]: "latent", "generator": "latent"}
    for phase, name in needed.items():
        side.load(subjects.warm(MODEL))
        whole = side.run_phase(phase, batch)
        side.load(subjects.warm(MODEL))
        assert side.run_phase(phase, {name: batch[name]}) == whole


def test_a_step_counts_twice_for_the_discriminator() -> None:
    side = graph()
    side.load(subjects.initial(MODEL))
    for step in range(2):
        side.step(subjects.batches(MODEL)[step])
    arrays = side.state().arrays
    assert int(arrays["optimizer/discriminator/iterations"]) == 4
    assert int(arrays["optimizer/generator/iterations"]) == 2
    assert np.isfinite(arrays["generator/norm1/moving_variance"]).all()
