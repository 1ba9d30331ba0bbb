"""docs/sizes.md: time and memory of a check at 1 to 500 MB of weights.

A TF1 graph of dense layers with Adam against a port to Keras 3, both given as `module:factory`, so that each side runs
in a process of its own: `proof.sizes:legacy_100` is the graph with 100 MB of weights.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from proof.stages import FOLDER, Result, digest, stage, table
from tfport.checking.check import SMALL
from tfport.remote import child_environment

MEGABYTES = (1, 10, 100, 500)
LAYERS = 4
SIDES = ("legacy-float32", "modern-float32", "legacy-float64", "modern-float64")
STEPS = 2
BATCH = 8
RATE, BETA_1, BETA_2, EPSILON = 0.001, 0.9, 0.999, 1e-8
PLACES = (
    "tests/proof/sizes.py",
    "shared/tfport/checking",
    "shared/tfport/adapters",
    "shared/tfport/equivalence",
    "shared/tfport/program.py",
)
COMMAND = "python tests/prove.py sizes"
TOLD = "TFPORT_SIZES_TOLD"
"""The environment's name for the folder in which each side's process leaves its peak when it ends."""


# --- The programs -----------------------------------------------------------------------------------------------------
def width(megabytes: int) -> int:
    """How wide LAYERS square layers are that hold so many megabytes of float32."""
    return round(math.sqrt(megabytes * 1e6 / 4 / LAYERS))


def legacy(megabytes: int, dtype: str) -> dict[str, Any]:
    """The TF1 graph."""
    import tensorflow.compat.v1 as tf

    units = width(megabytes)
    x = tf.placeholder(dtype, [None, units], name="x")
    y = tf.placeholder(dtype, [None, units], name="y")
    hidden = x
    for index in range(LAYERS):
        with tf.variable_scope(f"dense{index}"):
            kernel = tf.get_variable("kernel", [units, units], dtype, tf.glorot_uniform_initializer())
            bias = tf.get_variable("bias", [units], dtype, tf.zeros_initializer())
            hidden = tf.nn.bias_add(tf.matmul(hidden, kernel), bias)
            hidden = hidden if index == LAYERS - 1 else tf.tanh(hidden)
    loss = tf.reduce_mean(tf.square(hidden - y))
    train = tf.train.AdamOptimizer(RATE, BETA_1, BETA_2, EPSILON).minimize(loss)
    return {"inputs": {"x": x, "y": y}, "outputs": {"output": hidden}, "loss": loss, "train_op": train}


def modern(megabytes: int, dtype: str) -> Any:
    """The Keras 3 model."""
    import keras

    units = width(megabytes)
    x = inputs = keras.Input((units,), dtype=dtype, name="x")
    for index in range(LAYERS):
        activation = "linear" if index == LAYERS - 1 else "tanh"
        x = keras.layers.Dense(units, activation=activation, dtype=dtype, name=f"dense{index}")(x)
    model = keras.Model(inputs, x)
    adam = keras.optimizers.Adam(RATE, beta_1=BETA_1, beta_2=BETA_2, epsilon=EPSILON)
    model.compile(optimizer=adam, loss=keras.losses.MeanSquaredError(dtype=dtype), jit_compile=False)
    return model


def batches(megabytes: int, step: int) -> dict[str, Any]:
    """What a step is fed."""
    generator = np.random.Generator(np.random.Philox(key=[megabytes, step]))
    shape = BATCH, width(megabytes)
    return {name: generator.standard_normal(shape, np.float32) for name in ("x", "y")}


def __getattr__(name: str) -> Callable[..., Any]:
    """`legacy_100`, `modern_100` and `batches_100`: what a command line can name."""
    part, _, size = name.rpartition("_")
    if part not in ("legacy", "modern", "batches") or not size.isdigit():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if part == "batches":
        return functools.partial(batches, int(size))
    side = {"legacy": legacy, "modern": modern}[part]

    def factory(dtype: str = "float32") -> Any:
        if TOLD in os.environ:
            atexit.register(_tell, os.environ[TOLD], f"{part}-{dtype}")
        return side(int(size), dtype)

    return factory


# --- Measuring --------------------------------------------------------------------------------------------------------
def peak() -> float:
    """The most memory that this process had resident so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _tell(folder: str, side: str) -> None:
    Path(folder, f"{side}-{os.getpid()}").write_text(str(peak()))


ASKED = {
    "building": ("build", "afresh", "back", "initialise", "prepare"),
    "reading states": ("state",),
    "setting states": ("load",),
    "training steps": ("step", "run_phase", "drawn"),
    "outputs, losses, gradients": ("forward", "nodes", "loss", "gradients", "derivatives"),
}
"""Part of the work -> what a side is asked for; the side computes, hashes and writes its arrays meanwhile."""
OWN = {"keeping arrays": "tfport.checking.store:Store.keep", "comparing": "tfport.checking.measure:Meter.add_all"}
"""Part of the work -> what of the tool's own does it."""


@contextlib.contextmanager
def clocked() -> Iterator[dict[str, float]]:
    """Seconds by part of the work within the block; what runs side by side counts twice."""
    from tfport.checking.remote import RemoteProgram

    spent: dict[str, float] = dict.fromkeys((*ASKED, *OWN), 0.0)
    parts = {method: part for part, methods in ASKED.items() for method in methods}
    with contextlib.ExitStack() as stack:

        def watch(holder: Any, name: str, part_of: Callable[..., str | None]) -> None:
            original = getattr(holder, name)

            def clock(*words: Any, **named: Any) -> Any:
                began = time.perf_counter()
                try:
                    return original(*words, **named)
                finally:
                    if part := part_of(*words):
                        spent[part] += time.perf_counter() - began

            setattr(holder, name, clock)
            stack.callback(setattr, holder, name, original)

        watch(RemoteProgram, "_ask", lambda _, method, *__: parts.get(method))
        for part, place in OWN.items():
            module, _, path = place.partition(":")
            kind, _, name = path.partition(".")
            watch(getattr(importlib.import_module(module), kind), name, lambda *_, part=part: part)
        yield spent


def measured(megabytes: int) -> Result:
    """One check in this process: seconds and megabytes."""
    import tfport
    from tfport.checking.store import Store

    disk: list[int] = []
    close = Store.close

    def closing(self: Store) -> None:
        disk.append(self.size)
        close(self)

    Store.close = closing  # type: ignore[method-assign]
    folder = tempfile.TemporaryDirectory()
    os.environ[TOLD] = folder.name
    began = time.monotonic()
    with clocked() as spent:
        report = tfport.check(
            f"proof.sizes:legacy_{megabytes}",
            f"proof.sizes:modern_{megabytes}",
            f"proof.sizes:batches_{megabytes}",
            steps=STEPS,
        )
    seconds = time.monotonic() - began
    sides: dict[str, float] = {}
    for file in Path(folder.name).iterdir():
        side = file.name.rpartition("-")[0]
        sides[side] = max(sides.get(side, 0.0), float(file.read_text()))
    return {
        "megabytes": megabytes,
        "width": width(megabytes),
        "equal": report.equal,
        "verdict": str(report.pair.verdict) if report.pair else "",
        "seconds": round(seconds, 1),
        "parts": {name: round(value, 1) for name, value in report.seconds.items()},
        "spent": {part: round(value, 1) for part, value in spent.items()},
        "disk": round(max(disk) / 1e6),
        "own": peak(),
        "sides": sides,
        "left_out": list(report.left_out),
    }


def one(megabytes: int) -> Result:
    """One check in a process of its own, so that its peak is nobody else's."""
    path = FOLDER / f"sizes-{megabytes}-measured.json"
    FOLDER.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    words = [sys.executable, "-m", "proof.sizes", str(megabytes), str(path)]
    if code := subprocess.run(words, env=child_environment(), check=False).returncode:
        raise RuntimeError(f"the check at {megabytes} MB ended with exit code {code}; what it said stands above")
    found: Result = json.loads(path.read_text())
    return found


def result() -> list[Result]:
    """Every size, each a stage of its own."""
    return [stage(f"sizes-{each}", digest(PLACES), lambda each=each: one(each)) for each in MEGABYTES]  # type: ignore[misc]


# --- Text -------------------------------------------------------------------------------------------------------------
def text(found: list[Result]) -> str:
    """docs/sizes.md."""
    rows, growth = [], []
    before: Result = {}
    for row in found:
        numbers = {
            "seconds": row["seconds"],
            "tool": row["own"],
            "disk": row["disk"],
            **{side: row["sides"].get(side) for side in SIDES},
        }
        shown = ["–" if value is None else f"{value:,.0f}" for value in numbers.values()]
        size = [f"{row['megabytes']}", f"{LAYERS} of {row['width']} × {row['width']}", row["verdict"]]
        rows.append([*size, *shown, "; ".join(row["left_out"]) or "–"])
        if before:
            both = [(value, before.get(name)) for name, value in numbers.items()]
            ratios = [f"{value / old:.2f}" if value and old else "–" for value, old in both]
            growth.append([f"{before['size']} → {size[0]}", *ratios])
        before = {**numbers, "size": size[0]}
    measured_things = ["seconds", "tool", "disk", *(side.replace("-", ", ") for side in SIDES)]
    missing = [str(each) for each in MEGABYTES if each not in {row["megabytes"] for row in found}]
    stopped = f"Not measured in this run: {' and '.join(missing)} MB.\n\n" if missing else ""
    return f"""# Time and memory by size

Written by `make prove`; this page alone: `{COMMAND}`. Nothing here is typed in.

`tfport check --legacy=proof.sizes:legacy_N --modern=proof.sizes:modern_N --batches=proof.sizes:batches_N
--steps={STEPS}`: a TF1 graph of dense layers with Adam against a port to Keras 3, {BATCH} examples a batch, each side
in a process of its own. Seconds are wall clock for the whole check. Memory is the most that a process had resident: the
tool's own, with what it has mapped of its files, and each side's in either precision, in MB. Disk is what the check had
kept in its temporary folder by its end, in MB. Adam's slots make the state three times the weights, and float64 doubles
it. Up to {SMALL >> 20} MB of state both sides run side by side.

{table(["MB of weights", "layers", "verdict", *measured_things, "left out"], rows)}
{stopped}Growth from row to row, as a factor:

{table(["MB of weights", *measured_things], growth)}
Where the time goes, in seconds that the tool waited for a side or worked itself. A state is read, hashed and written by
its side; what both sides show is compared by hashes first.

{table(["MB of weights", *ASKED, *OWN, "most"], _spent(found))}"""


def _spent(found: list[Result]) -> list[list[str]]:
    """The rows of what takes the time."""
    return [
        [
            f"{row['megabytes']}",
            *(f"{value:,.1f}" for value in row["spent"].values()),
            max(row["spent"], key=lambda part: row["spent"][part]),
        ]
        for row in found
    ]


def failures(found: list[Result]) -> list[str]:
    """Sizes at which the port, which is correct, did not pass."""
    return [f"the port of {row['megabytes']} MB is {row['verdict']}" for row in found if not row["equal"]]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(measured(int(sys.argv[1]))))
