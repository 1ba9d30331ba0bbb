"""Compares two checkpoints of any formats, name by name: names, shapes, dtypes, and how far apart the values are.

Both are paired by canonical names and read side by side, one tensor at a time. The worst differences come first.

Examples:
  tfport diff model.ckpt-1000 model.keras
  tfport diff model.ckpt-1000 port.weights.h5 --pair
  tfport diff before.h5 after.h5 --only='generator/*' --tolerance_ulp=1 --json=-

Bookkeeping that one side has alone (object graphs, save counters) does not count, nor does a beta power that agrees
with the other side's count of updates.

Exit codes: 0 the same; 1 different; 2 bad input.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from tfport.cli import app, say
from tfport.cli.outputs import output_file
from tfport.errors import whole

if TYPE_CHECKING:
    from tfport.checkpoints.contents import Source

FLAGS = flags.FLAGS
POSITIONAL = ("A", "B")

flags.DEFINE_string("json", None, "File to write what is found to as JSON; - for standard output, and nothing else.")
flags.DEFINE_multi_string("only", [], "Canonical names to look at, with * and ?; may be given several times.")
flags.DEFINE_integer(
    "tolerance_ulp", 0, "Units in the last place by which floats may differ: listed, and no difference."
)
flags.DEFINE_boolean("pair", False, "Pair variables and optimizers of other names as `tfport convert` does.")
flags.DEFINE_string("mapping", None, "File that says which variable of A is which of B; --pair goes with it.")
flags.DEFINE_boolean("ignore_optimizers", False, "Whether to leave out optimizers: slots, counts, powers, rates.")


def _paired(one: Source, other: Source) -> Source:
    """The left side under the right side's names, where that is asked for."""
    if not FLAGS.pair and FLAGS.mapping is None:
        return one
    from tfport.checkpoints.paired_view import PairedSource
    from tfport.checkpoints.pairing import read_mapping

    return PairedSource(one, other, read_mapping(Path(FLAGS.mapping)) if FLAGS.mapping is not None else None)


def main() -> int:
    """Compares the two checkpoints that the arguments name; returns the exit code."""
    json_path = None if FLAGS.json == "-" else output_file("json")
    tolerance = whole("tolerance_ulp", FLAGS.tolerance_ulp, 0, 2**31)
    left, right = map(Path, app.positionals)

    from tfport.checkpoints.differing import Options, diff
    from tfport.checkpoints.inspecting import progress
    from tfport.checkpoints.opening import open_source

    options = Options(tuple(FLAGS.only), tolerance, FLAGS.ignore_optimizers)
    with open_source(left) as one, open_source(right) as other, progress("comparing") as start:
        found = diff(_paired(one, other), other, options, start)
    if FLAGS.json == "-":
        import json

        say(json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n")
        return 0 if found.same else 1
    from rich.console import Console

    from tfport.files import write_json
    from tfport.report.checkpoint_tables import print_difference

    console = Console()
    with console.capture() as captured:
        print_difference(found, console)
    say(captured.get())
    if json_path is not None:
        write_json(json_path, found.as_json())
        say(f"JSON: {json_path}\n")
    return 0 if found.same else 1
