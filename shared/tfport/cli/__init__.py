"""The command `tfport`: one absl app a verb. Only this package reads flags."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

VERBS: dict[str, str] = {
    "train": "train a model in one paradigm: flags, progress, pictures, TensorBoard, resumable to the bit",
    "compare": "prove two or more paradigms equal, rung by rung, or find the first divergence",
    "check": "prove a port of your own equal to its original, or find where in the code it first differs",
    "record-script": "write the script that records an original where TensorFlow 1.4 to 1.15 still runs",
    "samples": "make samples of a trained run and measure them: Parzen, Frechet, classes, nearest neighbours",
    "inspect": "show what a checkpoint of any format holds, or a model's layers as a paradigm has built it",
    "convert": "carry a checkpoint to another format, framework or program, optimizer and all",
    "diff": "compare two checkpoints of any formats, name by name, down to the bit",
}

_USAGE = """tfport proves that a port of TensorFlow code computes what its original computes.

Usage: tfport VERB [--flags]

Verbs:
{verbs}

tfport VERB --help lists the verb's flags; --flagfile=FILE reads flags from a file.
Exit codes: 0 done, or equal; 1 different, or training diverged; 2 bad input.
"""


def usage() -> str:
    """The text of `tfport --help`."""
    width = max(map(len, VERBS))
    return _USAGE.format(verbs="\n".join(f"  {verb:{width}}  {text}" for verb, text in VERBS.items()))


def say(text: str) -> None:
    """Writes to standard output; a reader that has gone, as in `| head`, is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the verb that the arguments name; ends the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "-help", "help"):
        say(usage())
        sys.exit(0 if words else 2)
    if words[0] in ("--version", "-version"):
        import tfport

        say(f"tfport {tfport.__version__}\n")
        sys.exit(0)
    run(words[0], words[1:])


def run(verb: str, arguments: Sequence[str], **defaults: str) -> None:
    """Runs one verb as an absl app; ends the process.

    Args:
      verb: one of VERBS.
      arguments: the words after it.
      **defaults: flag name -> another default, for `python -m tf1_graph` and its siblings.
    """
    from tfport.cli import app
    from tfport.errors import unknown

    if verb not in VERBS:
        print(f"tfport: {unknown('verb', verb, VERBS)}", file=sys.stderr)
        sys.exit(2)
    # The frameworks write banners to standard error as they load; a message of ours would drown in them.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(importlib.import_module(f"tfport.cli.{verb.replace('-', '_')}"), verb, arguments, defaults)
