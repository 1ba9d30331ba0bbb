"""The layer table: the notes' counts to the digit, from every paradigm, and different wherever a model is."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import subjects
from fakes import FakeSubject, Faults, small_spec
from tfport import models
from tfport.inspection import Counts, LayerRow, LayerTable, layer_table, print_table, shape_text
from tfport.paradigms import PARADIGMS
from tfport.subject import Array, Batch, VariableInfo

TOTALS: dict[str, dict[str, tuple[int, int]]] = {
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
    "infogan": {"generator": (220_688, 0), "discriminator": (201_217, 0), "recognition": (3_084, 0)},
}
"""Model -> network -> parameters, and how many of them are not trained."""

FROZEN = {
    "vanilla_gan": 234_512,
    "batchnorm_gan": 581_520,
    "leaky_gan": 114_064,
    "leaky_gan_slope02": 114_064,
    "leaky_gan_shallow": 79_184,
    "torch_gan": 169_752,
    "torch_gan_l2": 169_752,
    "dcgan": 1_636_737,
    "conditional_gan": 237_072,
    "infogan": 220_688,
}
"""Model -> what is trained with the discriminator frozen."""

CELLS = [(model, paradigm) for model in models.MODELS for paradigm in PARADIGMS]


def table(model: str, paradigm: str) -> LayerTable:
    return layer_table(subjects.subject(model, paradigm))


def unnamed(found: LayerTable) -> LayerTable:
    """The table without the paradigm, for comparing."""
    return dataclasses.replace(found, paradigm="")


def printed(found: LayerTable) -> str:
    file = io.StringIO()
    print_table(found, Console(file=file, width=80))
    return file.getvalue()


# --- The models -------------------------------------------------------------------------------------------------------
def test_every_model_has_its_totals_here() -> None:
    assert TOTALS.keys() == models.MODELS.keys()
    assert FROZEN.keys() == {name for name in models.MODELS if models.get(name).protocol is not None}


@pytest.mark.parametrize(("model", "paradigm"), CELLS)
def test_totals_are_those_of_the_notes(model: str, paradigm: str) -> None:
    found = table(model, paradigm)
    counted = {each.name: (each.counts.parameters, each.counts.non_trainable) for each in found.networks}
    assert counted == TOTALS[model]
    assert found.counts.parameters == sum(parameters for parameters, _ in TOTALS[model].values())
    assert (found.model, found.paradigm) == (model, paradigm)


@pytest.mark.parametrize(("model", "paradigm"), CELLS)
def test_what_is_trained_with_the_discriminator_frozen(model: str, paradigm: str) -> None:
    found = [each.parameters for each in table(model, paradigm).trained if each.frozen_discriminator]
    assert found == ([FROZEN[model]] if model in FROZEN else [])


@pytest.mark.parametrize("model", models.MODELS)
def test_every_paradigm_gives_the_same_table(model: str) -> None:
    first, *others = (unnamed(table(model, paradigm)) for paradigm in PARADIGMS)
    for other in others:
        assert other == first


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_batchnorm_gan_comes_out_to_the_digit(paradigm: str) -> None:
    layers = table("batchnorm_gan", paradigm).network("generator").layers
    assert [(layer.name, layer.kind, layer.output_shape, layer.counts.parameters) for layer in layers] == [
        ("hidden1", "Dense", (128,), 12_928),
        ("norm1", "BatchNorm", (128,), 512),
        ("hidden2", "Dense", (256,), 33_024),
        ("norm2", "BatchNorm", (256,), 1_024),
        ("hidden3", "Dense", (512,), 131_584),
        ("norm3", "BatchNorm", (512,), 2_048),
        ("output", "Dense", (784,), 402_192),
    ]
    assert layers[1].counts == Counts(trainable=256, non_trainable=256)


@pytest.mark.parametrize("paradigm", ["keras2", "keras3"])
@pytest.mark.parametrize("model", ["batchnorm_gan", "dcgan", "vae"])
def test_keras_counts_the_same(model: str, paradigm: str) -> None:
    subject: Any = subjects.subject(model, paradigm)
    for network in layer_table(subject).networks:
        for layer in network.layers:
            assert subject.networks[network.name].get_layer(layer.name).count_params() == layer.counts.parameters


@pytest.mark.parametrize("model", ["torch_gan", "torch_gan_l2"])
def test_pytorch_counts_what_is_trained(model: str) -> None:
    assert table(model, "gradient_tape").counts.trainable == 326_955


def test_convolutions_have_a_direction() -> None:
    found = table("dcgan", "gradient_tape")
    kinds = {network.name: [layer.kind for layer in network.layers] for network in found.networks}
    assert kinds["generator"] == ["Dense", "ConvTranspose", "BatchNorm", "ConvTranspose", "BatchNorm", "ConvTranspose"]
    assert kinds["discriminator"] == ["Conv", "Conv", "Conv", "Dense"]


def test_a_layer_without_variables_has_a_row() -> None:
    first = table("leaky_gan_shallow", "gradient_tape").network("generator").layers[0]
    assert first == LayerRow("hidden", "Activation", (100,), Counts(0, 0))


def test_an_optimizer_may_hold_a_part_of_a_network() -> None:
    found = {each.optimizer: each for each in table("infogan", "gradient_tape").trained}
    assert found["information"].places == ("generator", "discriminator/hidden", "recognition")
    assert found["information"].parameters == 220_688 + 200_960 + 3_084
    assert not found["information"].frozen_discriminator
    assert found["generator"].places == ("generator",)


def test_looking_changes_nothing() -> None:
    subject = subjects.subject("batchnorm_gan", "keras3")
    before = subject.state().digest()
    layer_table(subject)
    assert subject.state().digest() == before


# --- A table differs where a model does -------------------------------------------------------------------------------
def fake(**faults: Any) -> LayerTable:
    return layer_table(FakeSubject(small_spec(), faults=Faults(**faults)))


BIAS = "generator/hidden/bias"


def renamed(kind: str) -> dict[str, Any]:
    """The fault of a kernel that is called something else."""
    return {"variables": {"generator/hidden/kernel": {"name": f"generator/hidden/{kind}"}}}


def test_a_model_that_is_right_has_the_table_of_its_spec() -> None:
    assert fake() == fake(reordered=True)
    assert [layer.counts.parameters for layer in fake().network("generator").layers] == [4 * 6 + 6, 6 * 9 + 9]


@pytest.mark.parametrize(
    ("faults", "found"),
    [
        ({"lacks": (BIAS,)}, LayerRow("hidden", "Dense", (6,), Counts(24, 0))),
        ({"variables": {BIAS: {"shape": (7,)}}}, LayerRow("hidden", "Dense", (6,), Counts(31, 0))),
        ({"variables": {BIAS: {"trainable": False}}}, LayerRow("hidden", "Dense", (6,), Counts(24, 6))),
        (renamed("gamma"), LayerRow("hidden", "BatchNorm", (6,), Counts(30, 0))),
        (renamed("scale"), LayerRow("hidden", "scale, bias", (6,), Counts(30, 0))),
    ],
    ids=["lacking", "shape", "flag", "kind", "unknown kind"],
)
def test_a_row_differs_where_a_variable_does(faults: dict[str, Any], found: LayerRow) -> None:
    broken = fake(**faults)
    assert broken != fake()
    assert broken.network("generator").layers[0] == found
    assert broken.network("discriminator") == fake().network("discriminator")


def test_a_variable_that_no_optimizer_holds_is_not_counted_as_trained() -> None:
    broken = fake(variables={BIAS: {"optimizers": ()}})
    assert broken.networks == fake().networks
    generator = broken.trained[1]
    assert generator == dataclasses.replace(
        fake().trained[1], parameters=fake().trained[1].parameters - 6, places=("generator/hidden", "generator/output")
    )


def test_a_discriminator_that_moves_with_the_generator_is_not_frozen() -> None:
    right, broken = (
        fake(),
        fake(variables={"discriminator/output/bias": {"optimizers": ("discriminator", "generator")}}),
    )
    assert [each.frozen_discriminator for each in right.trained] == [False, True]
    assert [each.frozen_discriminator for each in broken.trained] == [False, False]
    assert broken.trained[1].places == ("generator", "discriminator/output")


def test_a_layer_left_out_shows() -> None:
    deep, shallow = (unnamed(table(model, "gradient_tape")) for model in ("leaky_gan", "leaky_gan_shallow"))
    assert deep.network("generator") != shallow.network("generator")
    assert deep.network("discriminator") == shallow.network("discriminator")


class Named(FakeSubject):
    """Its forward pass tells what it is given to tell."""

    told: dict[str, Array]
    held: tuple[VariableInfo, ...] | None = None

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        return self.told

    def variables(self) -> tuple[VariableInfo, ...]:
        return super().variables() if self.held is None else self.held


def named(told: dict[str, tuple[int, ...]], held: tuple[VariableInfo, ...] | None = None) -> LayerTable:
    subject = Named(small_spec())
    subject.told = {name: np.zeros(shape) for name, shape in told.items()}
    subject.held = held
    return layer_table(subject)


def test_shapes_are_those_of_the_forward_pass_and_not_of_the_kernel() -> None:
    found = named({"generator/hidden": (2, 3, 3), "generator/output": (2, 9)})
    assert [layer.output_shape for layer in found.network("generator").layers] == [(3, 3), (9,)]
    assert [layer.output_shape for layer in found.network("discriminator").layers] == [None, None]
    assert "not named" in printed(found)


@pytest.mark.parametrize(
    ("kernel", "output", "kind"),
    [
        ((3, 3, 8, 4), (7, 7, 4), "Conv"),
        ((3, 3, 8, 4), (7, 7, 8), "ConvTranspose"),
        ((3, 3, 4, 4), (7, 7, 4), "Conv"),
        ((8, 4), (4,), "Dense"),
    ],
)
def test_a_kind_is_told_from_kernel_and_output(kernel: tuple[int, ...], output: tuple[int, ...], kind: str) -> None:
    held = (VariableInfo("generator/up/kernel", "kernel:0", kernel, "float32", True),)
    assert named({"generator/up": (2, *output)}, held).networks[0].layers[0].kind == kind


# --- What is printed --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", models.MODELS)
def test_eighty_columns_are_enough(model: str) -> None:
    found = table(model, "gradient_tape")
    lines = printed(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == f"{model} in gradient_tape"
    rows = [
        [layer.name, layer.kind, *shape_text(layer.output_shape).split(), f"{layer.counts.parameters:,}"]
        for network in found.networks
        for layer in network.layers
    ]
    told = [line.split() for line in lines if line.startswith("  ") and not line.isspace()]
    assert [words[:-2] for words in told if words[0] != "total"] == rows
    assert any(line.startswith("all networks") and f" {found.counts.parameters:,} " in line for line in lines)


def test_the_frozen_discriminator_is_told() -> None:
    assert "generator     581,520 generator, with the discriminator frozen" in printed(table("batchnorm_gan", "keras2"))
    assert "frozen" not in printed(table("vae", "keras2"))


def test_names_are_no_markup() -> None:
    found = dataclasses.replace(fake(), networks=(dataclasses.replace(fake().networks[0], name="[red]g[/red]"),))
    assert "[red]g[/red]" in printed(found)
    assert shape_text((7, 7, 128)) == "[B, 7, 7, 128]"
