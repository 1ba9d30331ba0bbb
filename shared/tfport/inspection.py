"""A built model's layer table: what a Keras summary says, read off any paradigm's Subject and not off the spec.

Parameters and flags are those of the variables that the framework holds, and output shapes those of a forward pass; so
the same table from two paradigms is evidence that they are one model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.console import Console

    from tfport.subject import Subject, VariableInfo

Shape = tuple[int, ...]

DISCRIMINATOR = "discriminator"
_EXAMPLES = 2
"""Images in the forward pass that tells the output shapes; one could hide a batch axis that was squeezed away."""


@dataclass(frozen=True)
class Counts:
    """Numbers of elements."""

    trainable: int
    non_trainable: int

    @property
    def parameters(self) -> int:
        """All elements."""
        return self.trainable + self.non_trainable

    def as_json(self) -> dict[str, int]:
        """The numbers and their sum as JSON values."""
        return {
            "parameters": self.parameters,
            "trainable": self.trainable,
            "non_trainable": self.non_trainable,
        }


@dataclass(frozen=True)
class LayerRow:
    """One layer."""

    name: str
    kind: str
    """Told from its variables: Dense, Conv, ConvTranspose, BatchNorm, Activation if it has none, else their names."""
    output_shape: Shape | None
    """Shape of one example's output; None where the model names no such output."""
    counts: Counts


@dataclass(frozen=True)
class NetworkTable:
    """The layers of one network, in the order of computation."""

    name: str
    layers: tuple[LayerRow, ...]

    @property
    def counts(self) -> Counts:
        """Sums over the layers."""
        return _sum(layer.counts for layer in self.layers)


@dataclass(frozen=True)
class Trained:
    """What one optimizer holds."""

    optimizer: str
    parameters: int
    places: tuple[str, ...]
    """The networks that it holds all trainable variables of, or `<network>/<layer>`."""
    frozen_discriminator: bool
    """Whether the model has a discriminator and this optimizer holds nothing of it."""


@dataclass(frozen=True)
class LayerTable:
    """A model in one paradigm, layer by layer."""

    model: str
    paradigm: str
    networks: tuple[NetworkTable, ...]
    trained: tuple[Trained, ...]
    """One for each optimizer, in the spec's order."""

    @property
    def counts(self) -> Counts:
        """Sums over the networks."""
        return _sum(network.counts for network in self.networks)

    def network(self, name: str) -> NetworkTable:
        """The network of that name; KeyError when there is none."""
        return {network.name: network for network in self.networks}[name]

    def as_json(self) -> dict[str, Any]:
        """The table as JSON values."""
        return {
            "schema": 1,
            "model": self.model,
            "paradigm": self.paradigm,
            "networks": [
                {
                    "name": network.name,
                    "layers": [
                        {
                            "name": layer.name,
                            "kind": layer.kind,
                            "output_shape": None if layer.output_shape is None else list(layer.output_shape),
                            **layer.counts.as_json(),
                        }
                        for layer in network.layers
                    ],
                    **network.counts.as_json(),
                }
                for network in self.networks
            ],
            **self.counts.as_json(),
            "trained": [
                {
                    "optimizer": each.optimizer,
                    "parameters": each.parameters,
                    "places": list(each.places),
                    "frozen_discriminator": each.frozen_discriminator,
                }
                for each in self.trained
            ],
        }


# --- Reading ----------------------------------------------------------------------------------------------------------
def layer_table(subject: Subject) -> LayerTable:
    """The layer table of a built Subject; its state stays as it was.

    Layers stand in the order in which the forward pass names their outputs, so one without variables has its row too.
    """
    spec = subject.spec
    batch = {each.name: np.zeros((_EXAMPLES, each.width), subject.precision) for each in spec.inputs}
    shapes: dict[tuple[str, str], Shape] = {}
    for name, array in subject.forward(batch, training=False).items():
        network, layer, *_ = name.split("/")  # then /real or /fake, where a network is run twice
        shapes.setdefault((network, layer), array.shape[1:])
    variables: dict[tuple[str, str], dict[str, VariableInfo]] = {place: {} for place in shapes}
    for variable in subject.variables():
        network, layer, kind = variable.name.split("/")
        variables.setdefault((network, layer), {})[kind] = variable
    networks = tuple(
        NetworkTable(
            name,
            tuple(
                LayerRow(layer, _kind(held, shapes.get((network, layer))), shapes.get((network, layer)), _count(held))
                for (network, layer), held in variables.items()
                if network == name
            ),
        )
        for name in dict.fromkeys(network for network, _ in variables)
    )
    trained = tuple(_trained(optimizer.name, subject.variables()) for optimizer in subject.optimizers())
    return LayerTable(spec.name, subject.paradigm, networks, trained)


def _kind(variables: Mapping[str, VariableInfo], output: Shape | None) -> str:
    """What sort of layer has these variables; a convolution's direction is told by where its kernel has the outputs."""
    if not variables:
        return "Activation"
    if "gamma" in variables or "moving_mean" in variables:
        return "BatchNorm"
    if "kernel" not in variables:
        return ", ".join(variables)
    kernel = variables["kernel"].shape
    if len(kernel) != 4:
        return "Dense"
    return "ConvTranspose" if output and kernel[-1] != output[-1] == kernel[-2] else "Conv"


def _count(variables: Mapping[str, VariableInfo]) -> Counts:
    return _sum(
        Counts(each.parameters, 0) if each.trainable else Counts(0, each.parameters) for each in variables.values()
    )


def _sum(counts: Iterable[Counts]) -> Counts:
    found = list(counts)
    return Counts(sum(each.trainable for each in found), sum(each.non_trainable for each in found))


def _trained(optimizer: str, variables: Iterable[VariableInfo]) -> Trained:
    """What the optimizer of that name holds of the variables."""
    found = list(variables)
    held = [each for each in found if optimizer in each.optimizers]
    partly = {_network(each) for each in found if each.trainable and each not in held}
    places = (_network(each) if _network(each) not in partly else each.name.rpartition("/")[0] for each in held)
    frozen = any(_network(each) == DISCRIMINATOR for each in found) and DISCRIMINATOR not in map(_network, held)
    return Trained(optimizer, sum(each.parameters for each in held), tuple(dict.fromkeys(places)), frozen)


def _network(variable: VariableInfo) -> str:
    return variable.name.split("/")[0]


# --- Printing ---------------------------------------------------------------------------------------------------------
def print_table(table: LayerTable, console: Console | None = None) -> None:
    """Prints the table, readable at 80 columns and without colour; on standard output when `console` is None."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def numbers(counts: Counts) -> list[str]:
        return [f"{number:,}" for number in (counts.parameters, counts.trainable, counts.non_trainable)]

    def framed(words: tuple[str, ...], figures: tuple[str, ...]) -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
        for column in words:
            made.add_column(column, no_wrap=column == "output shape", overflow="fold")
        for column in figures:
            made.add_column(column, justify="right", no_wrap=True)
        return made

    layers = framed(("layer", "kind", "output shape"), ("parameters", "trainable", "non-trainable"))
    for network in table.networks:
        layers.add_row(Text(network.name, "bold"))
        for layer in network.layers:
            layers.add_row(
                Text(f"  {layer.name}"), Text(layer.kind), Text(shape_text(layer.output_shape)), *numbers(layer.counts)
            )
        layers.add_row(Text("  total", "bold"), "", "", *numbers(network.counts))
        layers.add_section()
    layers.add_row(Text("all networks", "bold"), "", "", *numbers(table.counts))

    optimizers = framed(("optimizer",), ("trained",))
    optimizers.add_column("networks or layers it moves", overflow="fold")
    for each in table.trained:
        note = ", with the discriminator frozen" if each.frozen_discriminator else ""
        optimizers.add_row(
            Text(each.optimizer), f"{each.parameters:,}", Text((", ".join(each.places) or "nothing") + note)
        )

    console = console or Console()
    console.print(Text(f"{table.model} in {table.paradigm}", "bold"))
    console.print()
    console.print(layers)
    console.print()
    console.print(optimizers)


def shape_text(shape: Shape | None) -> str:
    """ "[B, 784]" with the batch axis B; "not named" where there is none."""
    return "not named" if shape is None else f"[{', '.join(['B', *map(str, shape)])}]"
