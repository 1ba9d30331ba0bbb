"""What the source of a side needs that TensorFlow no longer gives by itself, read without running it."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tfport.user_code import is_user_file

LEGACY_KERAS = {"TF_USE_LEGACY_KERAS": "1"}
"""Puts Keras 2 behind tf.layers, tf.nn.rnn_cell and tf.keras."""
STAND_INS = {"TFPORT_STAND_INS": "1"}
"""Has a side's process import old code with `tfport.legacy`."""
TF1 = frozenset(
    (
        "ConfigProto",
        "GraphKeys",
        "InteractiveSession",
        "Session",
        "app",
        "assign",
        "flags",
        "get_collection",
        "get_default_graph",
        "get_variable",
        "global_variables",
        "global_variables_initializer",
        "initialize_all_variables",
        "log",
        "placeholder",
        "placeholder_with_default",
        "random_normal",
        "random_uniform",
        "set_random_seed",
        "to_float",
        "to_int32",
        "trainable_variables",
        "truncated_normal",
        "truncated_normal_initializer",
        "variable_scope",
    )
)
"""What tf.compat.v1 has and TensorFlow 2 has not."""
_GONE = re.compile(r"(contrib|estimator|examples)(\.|$)")
_KERAS2 = re.compile(r"(layers|nn\.rnn_cell|contrib\.rnn|keras\.(optimizers\.legacy|experimental|estimator))(\.|$)")
_KERAS = re.compile(r"keras(\.|$)")


@dataclass
class Needs:
    """What a side's process is to be started with."""

    environment: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, environment: dict[str, str], note: str) -> None:
        """Adds variables, and the note that tells why."""
        self.environment |= environment
        self.notes.append(note)


def needs(given: str, side: str) -> Needs:
    """What the file of `module:function`, or a script, and the files beside it that it imports, ask for.

    Keras 2 is asked for by tf.layers, tf.nn.rnn_cell and what tf.keras has lost, and by all of tf.keras beside names of
    TensorFlow 1.
    """
    plain: set[str] = set()
    old: set[str] = set()
    for tree in _trees(given):
        _collect(tree, plain, old)
    found = Needs()
    bare = {name for name in plain if name.split(".")[0] in TF1}
    gone = {name for name in plain | old if _GONE.match(name)}
    if gone or bare:
        found.add(STAND_INS, stand_ins_note(side, gone))
    keras2 = {name for name in plain | old if _KERAS2.match(name)}
    if gone or bare or old:
        keras2 |= {name for name in plain | old if _KERAS.match(name)}
    if keras2 and "TF_USE_LEGACY_KERAS" not in os.environ:
        found.add(LEGACY_KERAS, legacy_keras_note(side, keras2))
    return found


def legacy_keras_note(side: str, names: Collection[str] = ()) -> str:
    """What a report says where a process was started with Keras 2."""
    return f"the {side} side needs Keras 2{_listed(names)} and was started with TF_USE_LEGACY_KERAS=1"


def stand_ins_note(side: str, names: Collection[str] = ()) -> str:
    """What a report says where a process imports old code with stand-ins."""
    if not names:
        return f"the {side} side is code of TensorFlow 1: its tensorflow is tf.compat.v1"
    return (
        f"the {side} side was imported with tfport.legacy, which stands in for what TensorFlow has lost{_listed(names)}"
    )


def _listed(names: Collection[str]) -> str:
    short = {".".join(name.split(".")[: 2 if name.startswith(("contrib", "nn")) else 1]) for name in names}
    whole = sorted(name for name in short if not any(each.startswith(f"{name}.") for each in short))
    return f" ({', '.join(f'tf.{name}' for name in whole)})" if whole else ""


def _trees(given: str) -> Iterator[ast.Module]:
    """The syntax of the file that a side is in, and of those of the user's own that it imports."""
    folders = [Path.cwd(), *(Path(each) for each in sys.path if each)]
    script = Path(given)
    first = script if script.suffix == ".py" else _file(given.partition(":")[0], folders)
    queue = [first] if first is not None else []
    seen: set[Path] = set()
    while queue:
        file = queue.pop().resolve()
        if file in seen or not is_user_file(str(file)):
            continue
        seen.add(file)
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):  # told when it is imported
            continue
        yield tree
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module or ''}.{name}".lstrip(".") for name in names)]
            queue += [each for name in names if (each := _file(name, [file.parent, *folders])) is not None]


def _file(module: str, folders: list[Path]) -> Path | None:
    """The file of a module, in the first folder that has it."""
    if not module:
        return None
    for folder in folders:
        path = folder.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _collect(tree: ast.Module, plain: set[str], old: set[str]) -> None:
    """Takes down the names of TensorFlow that a file uses: of `tensorflow` itself, and of tensorflow.compat.v1."""
    known: dict[str, str] = {}

    def take(dotted: str) -> None:
        if dotted.startswith("tensorflow.compat.v1"):
            old.add(dotted.removeprefix("tensorflow.compat.v1").lstrip("."))
        elif dotted.startswith("tensorflow."):
            plain.add(dotted.removeprefix("tensorflow."))

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "tensorflow":
                    known[alias.asname or "tensorflow"] = alias.name if alias.asname else "tensorflow"
                    take(alias.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tensorflow":
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                take(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id in known:
            take(".".join([known[node.id], *parts]))
