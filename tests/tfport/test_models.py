"""The models' facts, as their sources count them, and that the parts of every spec fit together."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest

from tfport import models
from tfport.errors import UserError
from tfport.models.infogan import CODE_WEIGHT
from tfport.models.spec import (
    ONES,
    ZEROS,
    Adam,
    BatchNorm,
    Constant,
    Conv,
    Dense,
    GlorotUniform,
    Initialiser,
    Layer,
    Logged,
    ModelSpec,
    Normal,
    RMSProp,
    Shape,
    Uniform,
    float32,
)

SPEC = models.get("vanilla_gan")
every_model = pytest.mark.parametrize("spec", [pytest.param(models.get(name), id=name) for name in models.MODELS])

# --- Counts -----------------------------------------------------------------------------------------------------------
COUNTS: dict[str, dict[str, tuple[int, int]]] = {
    "vanilla_gan": {"generator": (234_512, 0), "discriminator": (201_217, 0)},
    "batchnorm_gan": {"generator": (583_312, 1_792), "discriminator": (265_601, 0)},
    "leaky_gan": {"generator": (114_064, 0), "discriminator": (100_609, 0)},
    "leaky_gan_slope02": {"generator": (114_064, 0), "discriminator": (100_609, 0)},
    "leaky_gan_shallow": {"generator": (79_184, 0), "discriminator": (100_609, 0)},
    "torch_gan": {"generator": (171_720, 1_968), "discriminator": (157_205, 2)},
    "torch_gan_l2": {"generator": (171_720, 1_968), "discriminator": (157_205, 2)},
    "autoencoder": {"encoder": (541_472, 0), "decoder": (542_224, 0)},
    "vae": {"encoder": (201_988, 0), "decoder": (202_256, 0)},
    "dcgan": {"generator": (1_637_121, 384), "discriminator": (94_721, 0)},
    "conditional_gan": {"generator": (237_072, 0), "discriminator": (203_777, 0)},
    "infogan": {"generator": (220_688, 0), "discriminator": (201_217, 0), "recognition": (204_301 - 201_217, 0)},
}
"""Model -> network -> (elements, of which no optimizer moves)."""
TOTALS = {
    "vanilla_gan": 435_729,
    "batchnorm_gan": 848_913,
    "leaky_gan": 214_673,
    "leaky_gan_slope02": 214_673,
    "leaky_gan_shallow": 179_793,
    "torch_gan": 328_925,
    "torch_gan_l2": 328_925,
    "autoencoder": 1_083_696,
    "vae": 404_244,
    "dcgan": 1_731_842,
    "conditional_gan": 440_849,
    "infogan": 424_989,
}


def test_every_model_is_in_the_tables() -> None:
    assert set(COUNTS) == set(TOTALS) == set(models.MODELS)
    assert len(models.FAMILIES) == 9
    assert {models.get(name).family for name in models.MODELS} == set(models.FAMILIES)


@every_model
def test_networks_have_as_many_parameters_as_their_source(spec: ModelSpec) -> None:
    assert {each.name: (each.parameters, each.non_trainable) for each in spec.networks} == COUNTS[spec.name]
    assert spec.parameters == TOTALS[spec.name]


@every_model
def test_parameters_are_those_of_the_variables(spec: ModelSpec) -> None:
    assert models.get(spec.name) is spec
    assert sum(math.prod(shape) for shape in spec.variable_shapes().values()) == spec.parameters
    assert list(spec.variables()) == list(spec.variable_shapes())
    for name in spec.variables():
        network, layer, kind = name.split("/")
        assert kind in spec.network(network).layer(layer).variables()


def test_what_trains_with_the_discriminator_frozen() -> None:
    for name, count in (("batchnorm_gan", 581_520), ("leaky_gan", 114_064), ("dcgan", 1_636_737)):
        spec = models.get(name)
        assert sum(math.prod(spec.variable_shapes()[each]) for each in spec.held("generator")) == count


def test_pytorch_counts_no_buffers() -> None:
    spec = models.get("torch_gan")
    assert sum(math.prod(each.shape) for each in spec.variables().values() if each.trainable) == 326_955


def test_the_notes_layer_table_of_batchnorm_gan() -> None:
    generator = models.get("batchnorm_gan").network("generator")
    counts = [sum(math.prod(each.shape) for each in layer.variables().values()) for layer in generator.layers]
    assert counts == [12_928, 512, 33_024, 1_024, 131_584, 2_048, 402_192]


# --- Layers -----------------------------------------------------------------------------------------------------------
BRANCHES = {("vae", "encoder"), ("infogan", "recognition")}
"""Networks whose layers do not all follow one another: heads side by side."""


def taken(layer: Layer, before: Shape) -> bool:
    """Whether a layer can take what has the shape `before`, an image being flattened or laid out where it must be."""
    if isinstance(layer, BatchNorm):
        return layer.shape == before
    if isinstance(layer, Conv):
        side = layer.side // layer.stride if layer.transposed else None
        if len(before) == 1:
            return side is not None and before == (side * side * layer.inputs,)
        fits = before[0] == side if layer.transposed else -(-before[0] // layer.stride) == layer.side
        return before[0] == before[1] and before[2] == layer.inputs and fits
    return math.prod(before) == layer.inputs


def fed(spec: ModelSpec, network: str) -> Shape:
    """Shape of what a network is fed, from the widths of the spec's inputs."""
    labels = sum(each.width for each in spec.inputs if each.kind == "labels")
    if network in ("encoder", "discriminator"):
        if isinstance(spec.network(network).layers[0], Conv):
            return (spec.image_size, spec.image_size, 1)
        return (spec.pixels + labels,)
    if network == "generator":
        drawn = [each.width for each in spec.inputs if each.kind != "images" and each.name != "latent_generator"]
        return (sum(drawn),)
    if network == "decoder":
        return (spec.network("encoder").outputs,)
    return spec.network("discriminator").layers[0].output_shape


@every_model
def test_layers_fit_together(spec: ModelSpec) -> None:
    for network in spec.networks:
        first, shape = network.layers[0], fed(spec, network.name)
        assert taken(first, shape)
        assert network.inputs == (1 if isinstance(first, Conv) else shape[0])
        if (spec.name, network.name) not in BRANCHES:
            for before, after in itertools.pairwise(network.layers):
                assert taken(after, before.output_shape), after.name
    ends = {"generator": (spec.pixels,), "decoder": (spec.pixels,), "discriminator": (1,)}
    for network in spec.networks:
        if network.name in ends:
            assert math.prod(network.layers[-1].output_shape) == math.prod(ends[network.name])


def test_branches_start_where_they_should() -> None:
    hidden, *heads = models.get("vae").network("encoder").layers
    assert [(head.name, head.inputs, head.units) for head in heads] == [
        ("mean", hidden.units, 2),
        ("log_variance", hidden.units, 2),
    ]
    spec = models.get("infogan")
    shared = spec.network("discriminator").layer("hidden")
    assert [(head.name, head.inputs, head.units) for head in spec.network("recognition").layers] == [
        ("category", shared.units, spec.width("category")),
        ("codes", shared.units, spec.width("codes")),
    ]


def test_the_check_of_shapes_can_fail() -> None:
    assert not taken(Dense("d", 10, 5, "relu"), (11,))
    assert taken(Dense("d", 32, 5, "relu"), (4, 4, 2))
    down = Conv("c", 3, 8, size=3, stride=2, side=4, activation="linear")
    assert [taken(down, (side, side, 3)) for side in (6, 7, 8, 9)] == [False, True, True, False]
    assert not taken(down, (7, 7, 2))
    up = dataclasses.replace(down, transposed=True)
    assert [taken(up, shape) for shape in ((2, 2, 3), (12,), (4, 4, 3), (8,))] == [True, True, False, False]
    assert not taken(BatchNorm("n", (4, 4, 8), 0.9, 1e-3), (128,))


@every_model
def test_slopes_are_given_where_they_mean_something(spec: ModelSpec) -> None:
    for network in spec.networks:
        for layer in network.layers:
            slope = {"leaky_gan_slope02": 0.2}.get(spec.name, 0.01) if layer.activation == "leaky_relu" else 0.0
            assert getattr(layer, "slope", 0.0) == slope


@every_model
def test_the_last_activation_gives_images_in_the_range_of_the_data(spec: ModelSpec) -> None:
    """But for two that their sources have otherwise: a tanh against data in [0, 1], and a linear decoder."""
    made = next(each for each in spec.networks if each.name in ("generator", "decoder")).layers[-1]
    exceptions = {"torch_gan": "tanh", "torch_gan_l2": "tanh", "autoencoder": "linear"}
    ranges = {(0.0, 1.0): "sigmoid", (-1.0, 1.0): "tanh"}
    assert made.activation == exceptions.get(spec.name, ranges[spec.data_range])


# --- Initial values ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        ((100, 128), math.sqrt(6 / 228)),
        ((3, 3, 1, 32), math.sqrt(6 / (9 * 1 + 9 * 32))),
        ((3, 3, 64, 128), math.sqrt(6 / (9 * 64 + 9 * 128))),
        ((5, 3, 128, 256), math.sqrt(6 / (15 * 384))),
    ],
)
def test_glorots_limit_counts_the_window(shape: Shape, limit: float) -> None:
    assert GlorotUniform().limit(shape) == pytest.approx(limit, rel=1e-15)


def kinds(spec: ModelSpec, kind: str) -> dict[str, Initialiser]:
    return {name: each.initialiser for name, each in spec.variables().items() if name.endswith(f"/{kind}")}


@every_model
def test_kernels_start_as_the_source_has_them(spec: ModelSpec) -> None:
    for name, initialiser in kinds(spec, "kernel").items():
        expected: Initialiser = GlorotUniform()
        if spec.family == "vanilla_gan":
            expected = Normal(0.01)
        elif spec.family == "batchnorm_gan" and name.endswith("/hidden1/kernel"):
            expected = Normal(0.02)
        elif spec.family == "torch_gan":
            expected = Uniform(1 / math.sqrt(spec.variable_shapes()[name][0]))
        assert initialiser == expected, name


@every_model
def test_everything_else_starts_at_a_constant(spec: ModelSpec) -> None:
    for kind, expected in {"gamma": ONES, "beta": ZEROS, "moving_mean": ZEROS, "moving_variance": ONES}.items():
        assert set(kinds(spec, kind).values()) <= {expected}
    assert Constant(0.0) == ZEROS
    assert Constant(1.0) == ONES
    for name, initialiser in kinds(spec, "bias").items():
        kernel = kinds(spec, "kernel")[name.removesuffix("bias") + "kernel"]
        assert initialiser == (kernel if spec.family == "torch_gan" else ZEROS)


@every_model
def test_moving_statistics_are_all_that_is_not_trained(spec: ModelSpec) -> None:
    still = {name.split("/")[-1] for name, each in spec.variables().items() if not each.trainable}
    norms = any(isinstance(layer, BatchNorm) for network in spec.networks for layer in network.layers)
    assert still == ({"moving_mean", "moving_variance"} if norms else set())


@pytest.mark.parametrize(
    ("model", "momentum", "epsilon", "unbiased"),
    [("batchnorm_gan", 0.99, 1e-3, False), ("dcgan", 0.99, 1e-3, False), ("torch_gan", 0.9, 1e-5, True)],
)
def test_batch_normalisations_numbers(model: str, momentum: float, epsilon: float, unbiased: bool) -> None:
    norms = [each for network in models.get(model).networks for each in network.layers if isinstance(each, BatchNorm)]
    assert norms
    for norm in norms:
        assert (norm.momentum, norm.epsilon) == (float32(momentum), float32(epsilon))
        assert norm.unbiased is unbiased


def test_transposed_kernels_have_their_outputs_before_their_inputs() -> None:
    shapes = models.get("dcgan").variable_shapes()
    assert shapes["generator/up1/kernel"] == (3, 3, 128, 256)
    assert shapes["generator/up3/kernel"] == (3, 3, 1, 64)
    assert shapes["discriminator/down2/kernel"] == (3, 3, 32, 64)


# --- Optimizers -------------------------------------------------------------------------------------------------------
_NOTES_ADAM, _TF1_ADAM = Adam(1e-3, 0.9, 0.999, 1e-7), Adam(1e-3, 0.9, 0.999, 1e-8)
_TORCHS = Adam(2e-4, 0.5, 0.999, 1e-8, epsilon_after_correction=True)
OPTIMIZERS: dict[str, dict[str, Adam | RMSProp]] = {
    "vanilla_gan": dict.fromkeys(("discriminator", "generator"), Adam(2e-4, 0.9, 0.999, 1e-8)),
    "batchnorm_gan": dict.fromkeys(("discriminator", "generator"), Adam(2e-4, 0.9, 0.999, 1e-7)),
    "leaky_gan": dict.fromkeys(("discriminator", "generator"), _NOTES_ADAM),
    "torch_gan": dict.fromkeys(("discriminator", "generator"), _TORCHS),
    "autoencoder": {"autoencoder": _NOTES_ADAM},
    "vae": {"vae": RMSProp(1e-3, 0.9, 1e-7)},
    "dcgan": dict.fromkeys(("discriminator", "generator"), _NOTES_ADAM),
    "conditional_gan": dict.fromkeys(("discriminator", "generator"), _TF1_ADAM),
    "infogan": {
        "discriminator": Adam(2e-4, 0.5, 0.999, 1e-8),
        "generator": Adam(1e-3, 0.5, 0.999, 1e-8),
        "information": Adam(1e-3, 0.5, 0.999, 1e-8),
    },
}


@every_model
def test_optimizers_have_the_sources_numbers(spec: ModelSpec) -> None:
    assert dict(spec.optimizers) == OPTIMIZERS[spec.family]
    assert [name for name, _ in spec.optimizers] == list(OPTIMIZERS[spec.family])


@every_model
def test_every_hyperparameter_is_rounded_to_float32(spec: ModelSpec) -> None:
    numbered: list[Any] = [numbers for _, numbers in spec.optimizers]
    numbered += [layer for network in spec.networks for layer in network.layers if isinstance(layer, BatchNorm)]
    for each in numbered:
        for name in ("learning_rate", "beta_1", "beta_2", "rho", "momentum", "epsilon"):
            value = getattr(each, name, 0.0)
            assert value == float(np.float32(value)), (each, name)


def test_rounding_happens_wherever_an_optimizer_is_made() -> None:
    adam = Adam(2e-4, 0.9, 0.999, 1e-8)
    assert adam.learning_rate == float(np.float32(2e-4)) != 2e-4
    assert adam.beta_1 == float(np.float32(0.9)) != 0.9
    assert adam.epsilon_after_correction is False
    replaced = dataclasses.replace(adam, learning_rate=1e-4)
    assert replaced.learning_rate == float(np.float32(1e-4)) != 1e-4
    rmsprop = RMSProp(1e-3, 0.9, 1e-7)
    assert (rmsprop.learning_rate, rmsprop.rho) == (float(np.float32(1e-3)), float(np.float32(0.9)))
    norm = BatchNorm("n", (3,), momentum=0.99, epsilon=1e-3)
    assert (norm.momentum, norm.epsilon) == (float(np.float32(0.99)), float(np.float32(1e-3)))


def test_slots_by_algorithm() -> None:
    assert (Adam.algorithm, Adam.slots) == ("Adam", ("m", "v"))
    assert (RMSProp.algorithm, RMSProp.slots) == ("RMSProp", ("rms",))


# --- Phases -----------------------------------------------------------------------------------------------------------
@every_model
def test_phases_name_what_is_there(spec: ModelSpec) -> None:
    places = {network.name for network in spec.networks} | {
        f"{network.name}/{layer.name}" for network in spec.networks for layer in network.layers
    }
    for phase in spec.phases:
        assert phase.moves
        assert set(phase.moves) <= places
        assert spec.optimizer(phase.optimizer)
        assert all(spec.network(network).non_trainable for network in phase.statistics)
        assert spec.phase(phase.name) is phase
    assert {phase.optimizer for phase in spec.phases} == {name for name, _ in spec.optimizers}
    for names in ([phase.name for phase in spec.phases], spec.reports, [name for name, _ in spec.optimizers]):
        assert len(set(names)) == len(names)


@every_model
def test_phases_that_share_an_optimizer_move_the_same(spec: ModelSpec) -> None:
    for optimizer, _ in spec.optimizers:
        assert len({phase.moves for phase in spec.phases if phase.optimizer == optimizer}) == 1


@every_model
def test_every_trained_variable_is_held_and_no_other(spec: ModelSpec) -> None:
    held = {name for optimizer, _ in spec.optimizers for name in spec.held(optimizer)}
    assert held == {name for name, each in spec.variables().items() if each.trainable}
    for optimizer, _ in spec.optimizers:
        names = spec.held(optimizer)
        assert names == [name for name in spec.variables() if name in set(names)], "in the order of computation"


@every_model
def test_every_moving_statistic_is_moved_in_some_phase(spec: ModelSpec) -> None:
    moved = {network for phase in spec.phases for network in phase.statistics}
    assert moved == {network.name for network in spec.networks if network.non_trainable}


def test_what_each_optimizer_of_infogan_holds() -> None:
    spec = models.get("infogan")
    kinds = ("kernel", "bias")
    shared = [f"discriminator/hidden/{kind}" for kind in kinds]
    generator = [f"generator/{layer}/{kind}" for layer in ("hidden", "output") for kind in kinds]
    assert spec.held("discriminator") == shared + [f"discriminator/output/{kind}" for kind in kinds]
    assert spec.held("generator") == generator
    heads = [f"recognition/{layer}/{kind}" for layer in ("category", "codes") for kind in kinds]
    assert spec.held("information") == generator + shared + heads
    assert CODE_WEIGHT == 0.1


def test_half_steps_share_what_they_hold_and_statistics_are_held_by_none() -> None:
    spec = models.get("batchnorm_gan")
    assert spec.held("discriminator") == list(spec.network("discriminator").variable_shapes())
    assert "generator/norm1/gamma" in spec.held("generator")
    assert "generator/norm1/moving_mean" not in spec.held("generator")
    assert spec.held("nobody") == []


def test_a_layers_name_is_not_the_beginning_of_anothers() -> None:
    """`generator/hidden` moves, and `generator/hidden_norm` stays."""
    spec = models.get("torch_gan")
    phases = (spec.phases[0], dataclasses.replace(spec.phases[1], moves=("generator/hidden",)))
    found = dataclasses.replace(spec, phases=phases).held("generator")
    assert found == ["generator/hidden/kernel", "generator/hidden/bias"]


@every_model
def test_the_protocol_is_what_phases_and_inputs_say(spec: ModelSpec) -> None:
    names = [phase.name for phase in spec.phases]
    if spec.protocol is None:
        assert "discriminator" not in {network.name for network in spec.networks}
        return
    halves = names[:2] == ["discriminator_real", "discriminator_fake"]
    assert (spec.protocol.discriminator == "half_steps") is halves
    assert (spec.protocol.generator_noise == "fresh") is ("latent_generator" in {each.name for each in spec.inputs})
    training = [phase.name for phase in spec.phases if "generator" in phase.statistics]
    if spec.network("generator").non_trainable:
        in_both = spec.protocol.fakes == "training"
        assert training == (["discriminator", "generator"] if in_both else ["generator"])
    if spec.protocol.generator_noise == "fresh":
        assert spec.width("latent_generator") == spec.width("latent")


# --- Reports and the log ----------------------------------------------------------------------------------------------
@every_model
def test_the_log_is_made_of_reports(spec: ModelSpec) -> None:
    assert len({column.name for column in spec.logged}) == len(spec.logged)
    assert {name for column in spec.logged for _, name in column.terms} == set(spec.reports)
    accuracies = {phase.accuracy for phase in spec.phases}
    for column in spec.logged:
        assert column.percent is all(name in accuracies for _, name in column.terms)
        assert sum(weight for weight, _ in column.terms) == (100.0 if column.percent else 1.0)


def test_what_a_phase_reports_has_the_loss_first() -> None:
    real, fake, generator = models.get("batchnorm_gan").phases
    assert real.reports == ("loss_D_real", "accuracy_D_real")
    assert fake.reports == ("loss_D_fake", "accuracy_D_fake")
    assert generator.reports == ("loss_G",)
    assert models.get("batchnorm_gan").reports == (*real.reports, *fake.reports, "loss_G")


def test_a_column_is_the_weighted_sum_of_its_terms() -> None:
    reports = {
        "loss_D_real": 0.75,
        "accuracy_D_real": 0.5,
        "loss_D_fake": 1.25,
        "accuracy_D_fake": 0.875,
        "loss_G": 3.0,
    }
    columns = {column.name: column.value(reports) for column in models.get("dcgan").logged}
    assert columns == {"loss_D": 1.0, "accuracy_D": 68.75, "loss_G": 3.0}
    assert Logged("x", ((2.0, "a"), (-1.0, "b"))).value({"a": 1.5, "b": 0.5, "c": 9.0}) == 2.5
    with pytest.raises(KeyError, match="b"):
        Logged("x", ((2.0, "a"), (-1.0, "b"))).value({"a": 1.5})


def test_a_column_is_summed_in_the_order_of_its_terms() -> None:
    reports = {"a": 1e16, "b": 1.0, "c": -1e16}
    left, right = (
        Logged("x", tuple((1.0, name) for name in order)).value(reports) for order in (("a", "b", "c"), ("a", "c", "b"))
    )
    assert (left, right) == (0.0, 1.0)


# --- Batches, samples and length --------------------------------------------------------------------------------------
@every_model
def test_an_epoch_has_the_steps_of_60000_images(spec: ModelSpec) -> None:
    count = 60_000 - spec.batching.held_out
    keep = spec.batching.last_batch == "keep"
    assert spec.steps_per_epoch == (math.ceil if keep else math.floor)(count / spec.batching.batch_size)


LENGTHS = {
    "vanilla_gan": (100, 550, 100),
    "batchnorm_gan": (64, 937, 100),
    "torch_gan": (512, 118, 100),
    "autoencoder": (100, 600, 50),
    "vae": (100, 600, 50),
    "conditional_gan": (100, 550, 100),
    "infogan": (100, 550, 100),
}
"""Family -> batch size, steps of an epoch, epochs; the others count iterations."""


@every_model
def test_a_run_has_the_sources_length(spec: ModelSpec) -> None:
    batch, epoch, epochs = LENGTHS.get(spec.family, (128, 468, 0))
    assert (spec.batching.batch_size, spec.steps_per_epoch) == (batch, epoch)
    if epochs:
        assert (spec.steps, spec.log_every) == (epochs * epoch, epoch)
        assert spec.samples.every == (5 if spec.family == "batchnorm_gan" else 10) * epoch
    else:
        assert (spec.steps, spec.log_every, spec.samples.every) == (20_000, 1_000, 1_000)
    assert (spec.batching.draw == "replacement") is (spec.family in ("batchnorm_gan", "leaky_gan", "dcgan"))


@every_model
def test_samples_are_made_of_inputs_that_are_there(spec: ModelSpec) -> None:
    names = {each.name for each in spec.inputs}
    kinds = {
        "grid": ("latent",),
        "reconstructions": ("images",),
        "manifold": ("code",),
        "by_label": ("latent", "labels"),
        "by_code": ("latent", "category", "codes"),
    }
    assert spec.samples.inputs == kinds[spec.samples.kind]
    assert set(spec.samples.inputs) <= names | {"code"}
    assert spec.samples.rows > 0 and spec.samples.columns > 0
    if spec.samples.kind in ("by_label", "by_code"):
        assert (spec.samples.rows, spec.samples.columns) == (10, 10)


@every_model
def test_inputs_have_names_of_their_own_and_images_their_pixels(spec: ModelSpec) -> None:
    assert len({each.name for each in spec.inputs}) == len(spec.inputs)
    assert [(each.name, each.width) for each in spec.inputs if each.kind == "images"] == [("images", spec.pixels)]
    for each in spec.inputs:
        assert each.scale == (0.1 if spec.family == "torch_gan" and each.kind == "normal" else 1.0)
        assert spec.width(each.name) == each.width


@every_model
def test_losses_have_a_unit(spec: ModelSpec) -> None:
    squares = spec.name in ("torch_gan_l2", "autoencoder")
    assert spec.loss_unit == ("squared error" if squares else "nats")


def test_variants_differ_from_their_family_where_they_should() -> None:
    def changed(name: str, of: str) -> set[str]:
        left, right = models.get(name), models.get(of)
        fields = {field.name for field in dataclasses.fields(ModelSpec)}
        return {field for field in fields if getattr(left, field) != getattr(right, field)}

    assert changed("leaky_gan_slope02", "leaky_gan") == {"name", "source", "networks", "inputs", "protocol"}
    assert changed("leaky_gan_shallow", "leaky_gan") == {"name", "source", "networks"}
    assert changed("torch_gan_l2", "torch_gan") == {"name", "source", "phases", "loss_unit", "variant"}


# --- Finding things ---------------------------------------------------------------------------------------------------
def test_what_is_not_there_is_not_made_up() -> None:
    for find in (SPEC.network, SPEC.phase, SPEC.optimizer, SPEC.width, SPEC.network("generator").layer):
        with pytest.raises(KeyError):
            find("critic")


ALL = ", ".join(sorted(models.MODELS))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vanila_gan", rf"^unknown model 'vanila_gan'\. Did you mean vanilla_gan.*\? Valid: {ALL}\.$"),
        ("dcgn", r"^unknown model 'dcgn'\. Did you mean dcgan"),
        ("", rf"^unknown model ''\. Valid: {ALL}\.$"),
        ("spec", r"^unknown model 'spec'\."),
        ("../vanilla_gan", r"^unknown model"),
        ("gan_parts", r"^unknown model"),
    ],
)
def test_an_unknown_model_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        models.get(name)
