"""Laying out a checkpoint by its format's own conventions, where no template of the target's program is given.

What a format has no convention for stays behind with its reason (`tfport.checkpoints.plan`): Keras 2's weights files
and PyTorch's state_dicts hold no optimizer by themselves, and Keras 3's files cannot be laid out without the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tfport.checkpoints import tree_graph
from tfport.checkpoints.contents import STRING, Contents, Entry, OptimizerEntry, Role, Source, Stored
from tfport.checkpoints.plan import Target
from tfport.errors import UserError
from tfport.state import iterations_name

TEMPLATE_ONLY = {
    "keras3": "A .keras file holds the model's own configuration",
    "keras3-weights": "Keras 3 names weights by their place in the model",
    "saved-model": "A SavedModel holds the program itself",
    "tfport-run": "A run's checkpoint is of a reference model",
}
"""Formats that need a template, and why."""

_TF1_SCOPES = {
    "Momentum": ("Momentum", ("accumulator",)),
    "Nesterov": ("Momentum", ("accumulator",)),
    "Adagrad": ("Adagrad", ("accumulator",)),
    "Adadelta": ("Adadelta", ("accumulator", "accumulator_update")),
    "RMSProp": ("RMSProp", ("rms", "momentum")),
    "CenteredRMSProp": ("RMSProp", ("rms", "mean", "momentum")),
    "Adam": ("Adam", ("m", "v")),
    "Ftrl": ("Ftrl", ("accumulator", "linear")),
}
"""Algorithm -> the name that TF1's optimizer gives its slots, and the slots in the order in which it makes them."""

_ADAM = "Adam"


def lay_out(source: Source, contents: Contents, format: str) -> Target:  # noqa: A002 - it is the format
    """The target that holds the source's canonical state in another format.

    Raises:
      UserError: the format needs a template.
    """
    if format in TEMPLATE_ONLY:
        raise UserError(
            f"--to={format} needs a checkpoint to take its layout from: {TEMPLATE_ONLY[format]}. Build the new "
            "program, save it once before training, and give that file: --like=FILE."
        )
    layout = {
        "npz": _canonical,
        "safetensors": _canonical,
        "tf1-v1": _tf1,
        "tf1-v2": _tf1,
        "tf2": _tf2,
        "keras-h5": _keras_h5,
        "torch": _torch,
    }[format]
    found = layout(source.tensors, contents)
    tensors = {stored.key: stored for stored, _ in found}
    entries = tuple(entry for _, entry in found)
    held = {entry.optimizer for entry in entries if entry.role is Role.SLOT}
    counted = {entry.optimizer for entry in entries if entry.role in (Role.COUNT, Role.POWER)}
    optimizers = tuple(
        OptimizerEntry(each.name, each.algorithm, "tf1", each.hyperparameters, each.variables, each.varying)
        for each in contents.optimizers
        if each.name in held | counted
    )
    texts: dict[str, bytes] = {}
    if format == "tf2":
        from tfport.checkpoints.bundle import encoded_lengths

        graph = tree_graph.object_graph([entry.name for entry in entries])
        texts[tree_graph.KEY] = encoded_lengths([len(graph)]) + graph
        tensors[tree_graph.KEY] = Stored(tree_graph.KEY, (), STRING)
        entries = (*entries, Entry(tree_graph.KEY, Role.OTHER, tree_graph.KEY))
    return Target(format, tensors, Contents(entries, optimizers), None, texts=texts)


Laid = list[tuple[Stored, Entry]]


def _variables(tensors: Mapping[str, Stored], contents: Contents, key: Callable[[Entry], str]) -> Laid:
    found: dict[str, tuple[Stored, Entry]] = {}
    for entry in contents.entries:
        if entry.role in (Role.WEIGHT, Role.STATISTIC, Role.AVERAGE) and entry.name not in found:
            origin, name = tensors[entry.key], key(entry)
            found[entry.name] = (
                Stored(name, origin.shape, origin.dtype),
                Entry(name, entry.role, entry.name, entry.variable),
            )
    return list(found.values())


def _slots(tensors: Mapping[str, Stored], contents: Contents, key: Callable[[Entry], str]) -> Laid:
    found: dict[str, tuple[Stored, Entry]] = {}
    for entry in contents.entries:
        if entry.role is Role.SLOT and entry.name not in found:
            origin, name = tensors[entry.key], key(entry)
            found[entry.name] = (
                Stored(name, origin.shape, origin.dtype),
                Entry(name, Role.SLOT, entry.name, entry.variable, entry.optimizer, entry.slot),
            )
    return list(found.values())


def _shared_counts(tensors: Mapping[str, Stored], contents: Contents) -> Laid:
    found: dict[str, tuple[Stored, Entry]] = {}
    for entry in contents.entries:
        if entry.role is Role.COUNT and not entry.optimizer:
            origin = tensors[entry.key]
            found.setdefault(
                entry.name, (Stored(entry.name, origin.shape, origin.dtype), Entry(entry.name, Role.COUNT, entry.name))
            )
    return list(found.values())


def _counted(contents: Contents) -> list[str]:
    """The optimizers whose count the source has, by itself or in beta powers, or must have, as Adam must."""
    found = [
        entry.optimizer for entry in contents.entries if entry.role in (Role.COUNT, Role.POWER) and entry.optimizer
    ]
    needed = [each.name for each in contents.optimizers if _is_adam(each, contents)]
    return list(dict.fromkeys([*found, *needed]))


def _is_adam(optimizer: OptimizerEntry, contents: Contents) -> bool:
    """Whether it is an Adam, by its name or, where that is not recorded, by its slots."""
    if optimizer.algorithm is not None:
        return optimizer.algorithm.startswith(_ADAM)
    slots = {entry.slot for entry in contents.entries if entry.role is Role.SLOT and entry.optimizer == optimizer.name}
    return slots == {"m", "v"}


def _canonical(tensors: Mapping[str, Stored], contents: Contents) -> Laid:
    counts: Laid = []
    for optimizer in _counted(contents):
        name = iterations_name(optimizer)
        counts.append((Stored(name, (), "int64"), Entry(name, Role.COUNT, name, optimizer=optimizer)))
    return [
        *_variables(tensors, contents, lambda entry: entry.name),
        *_slots(tensors, contents, lambda entry: entry.name),
        *counts,
        *_shared_counts(tensors, contents),
    ]


def _tf1(tensors: Mapping[str, Stored], contents: Contents) -> Laid:
    """As tf.compat.v1's optimizers name their slots: by the optimizer's name, which is its algorithm's unless given."""
    scopes: dict[str, str] = {}
    orders: dict[str, tuple[str, ...]] = {}
    for each in contents.optimizers:
        algorithm = _ADAM if _is_adam(each, contents) else each.algorithm or ""
        usual, order = _TF1_SCOPES.get(algorithm, (each.name, ()))
        own = each.name.replace("/", "_")
        alone = len(contents.optimizers) == 1 and each.convention != "tf1"
        scopes[each.name] = usual if alone else own
        present = {entry.slot for entry in contents.entries if entry.role is Role.SLOT and entry.optimizer == each.name}
        orders[each.name] = tuple(slot for slot in order if slot in present) or tuple(sorted(present))

    def key(entry: Entry) -> str:
        place = orders[entry.optimizer].index(entry.slot) if entry.slot in orders[entry.optimizer] else 0
        return f"{entry.variable}/{scopes[entry.optimizer]}" + (f"_{place}" if place else "")

    powers: Laid = []
    counted = _counted(contents)
    adams = [each for each in contents.optimizers if _is_adam(each, contents) and each.name in counted]
    for place, each in enumerate(adams):
        floating = [
            tensors[entry.key].dtype
            for entry in contents.entries
            if entry.role is Role.SLOT and entry.optimizer == each.name
        ]
        for number in ("beta_1", "beta_2"):
            name = f"{number.replace('_', '')}_power" + (f"_{place}" if place else "")
            powers.append(
                (
                    Stored(name, (), floating[0] if floating else "float32"),
                    Entry(name, Role.POWER, f"optimizer/{each.name}/{number}_power", optimizer=each.name),
                )
            )

    def variable(entry: Entry) -> str:
        return f"{entry.variable}/ExponentialMovingAverage" if entry.role is Role.AVERAGE else entry.name

    return [
        *_variables(tensors, contents, variable),
        *_slots(tensors, contents, key),
        *powers,
        *_shared_counts(tensors, contents),
    ]


def _tf2(tensors: Mapping[str, Stored], contents: Contents) -> Laid:
    """Every part of a canonical name a child; what `tf.train.Checkpoint(**tree)` with such a tree would read."""
    laid = []
    for stored, entry in _canonical(tensors, contents):
        key = f"{stored.key}{tree_graph.SUFFIX}"
        laid.append(
            (
                Stored(key, stored.shape, stored.dtype),
                Entry(key, entry.role, entry.name, entry.variable, entry.optimizer, entry.slot),
            )
        )
    return laid


def _keras_h5(tensors: Mapping[str, Stored], contents: Contents) -> Laid:
    """Weights alone, grouped by layer."""

    def key(entry: Entry) -> str:
        layer = entry.name.rpartition("/")[0] or entry.name
        return f"{layer}/{entry.name}:0"

    return _variables(tensors, contents, key)


def _torch(tensors: Mapping[str, Stored], contents: Contents) -> Laid:
    """A flat state_dict with dots in names and every array as the source has it."""
    return _variables(tensors, contents, lambda entry: entry.name.replace("/", "."))
