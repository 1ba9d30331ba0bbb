"""How fast and how large: `tfport convert` against copying the same files, and `tfport inspect`, on a large checkpoint.

  python tests/benchmark.py --gigabytes=5 --rounds=3

A checkpoint of random tensors is made once in --folder (twice its size must be free beside it). Each round copies its
files with `cp`, then converts it to every format, all of them synced to the disk and removed again; whole commands are
timed, start-up with them, and medians are told. Memory is the peak of the resident set of the command's process. The
table goes to docs/speed.md; --page= (empty) prints it only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from proof.stages import table
from tfport.checkpoints.bundle import BundleSink
from tfport.checkpoints.contents import CHUNK, Contents, Entry, Role, Stored
from tfport.files import write_atomically
from tfport.versions import versions

FORMATS = {"tf1-v2": "to", "safetensors": "to.safetensors", "npz": "to.npz", "torch": "to.pt", "keras-h5": "to.h5"}
LARGEST = 512 << 20
"""Bytes of the largest tensor."""
SMALL = 96 << 20
"""Bytes of the others."""


def tensors(total: int) -> list[Stored]:
    """Float32 matrices of so many bytes together."""
    found = [Stored("layer0/kernel", (LARGEST // (4 * 8192), 8192), "float32")] if total > 2 * LARGEST else []
    while sum(each.nbytes for each in found) < total:
        found.append(Stored(f"layer{len(found)}/kernel", (SMALL // (4 * 4096), 4096), "float32"))
    return found


def random_bytes(rng: np.random.Generator, size: int) -> Iterator[bytes]:
    """So many random bytes, piece by piece, none of them a NaN."""
    while size:
        piece = min(CHUNK, size)
        yield rng.random(piece // 4, np.float32).tobytes()
        size -= piece


def make(prefix: Path, total: int) -> int:
    """Writes the checkpoint unless it is there; returns its size."""
    stored = tensors(total)
    files = [prefix.with_name(f"{prefix.name}.{each}") for each in ("data-00000-of-00001", "index")]
    if not all(each.exists() for each in files) or files[0].stat().st_size != sum(each.nbytes for each in stored):
        contents = Contents(tuple(Entry(each.key, Role.WEIGHT, each.key) for each in stored))
        sink = BundleSink(prefix, stored, contents, None)
        rng = np.random.default_rng(0)
        for each in stored:
            sink.write(each.key, random_bytes(rng, each.nbytes))
        sink.finish()
        os.sync()
    return sum(each.stat().st_size for each in files)


def timed(command: Sequence[str], written: Path | None = None) -> tuple[float, int]:
    """Seconds until a command has ended and its files are on the disk, and its peak of resident bytes."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    if written is not None:
        for file in written.parent.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default="runs/benchmark")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--page", default="docs/speed.md")
    given = parser.parse_args()
    folder = Path(given.folder)
    folder.mkdir(parents=True, exist_ok=True)
    prefix, out = folder / "source", folder / "out"
    size = make(prefix, int(given.gigabytes * 1e9))
    tfport = str(Path(sys.executable).with_name("tfport"))
    sources = sorted(map(str, folder.glob("source.*")))
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}

    def measure(name: str, command: Sequence[str], written: Path | None) -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        os.sync()
        taken, peak = timed(command, written)
        seconds.setdefault(name, []).append(taken)
        peaks[name] = max(peaks.get(name, 0), peak)
        print(f"{name}: {taken:.2f} s, peak {peak / 1e6:,.0f} MB", file=sys.stderr)

    for _ in range(given.rounds):
        measure("start-up", [tfport, "--version"], None)
        measure("inspect", [tfport, "inspect", str(prefix)], None)
        for name in given.formats.split(","):
            target = out / FORMATS[name]
            measure("cp", ["cp", *sources, str(out)], out / "any")
            measure(name, [tfport, "convert", str(prefix), str(target), f"--to={name}"], target)
    shutil.rmtree(out, ignore_errors=True)
    copying = statistics.median(seconds["cp"])
    rows = []
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        ratio = f"{copying / middle:.2f}" if name in FORMATS else ""
        rows.append([name, f"{middle:.2f}", ratio, f"{peaks[name] / 1e6:,.0f}"])
    largest = max(each.nbytes for each in tensors(int(given.gigabytes * 1e9)))
    command = f"python tests/benchmark.py --gigabytes={given.gigabytes:g} --rounds={given.rounds}"
    text = (
        "# Speed and memory of a conversion\n\n"
        f"Written by `{command}`, with {', '.join(f'{name} {each}' for name, each in versions().items())}.\n\n"
        f"A TensorFlow checkpoint of {size / 1e9:.2f} GB in {len(tensors(int(given.gigabytes * 1e9)))} random float32 "
        f"tensors, the largest of {largest / 1e6:,.0f} MB. Medians of whole commands, start-up with them, files synced "
        "to the disk; conversions without reading back. Speed is that of `cp` being 1.\n\n"
        + table(["command", "seconds", "speed", "peak memory, MB"], rows)
    )
    print(text)
    if given.page:
        write_atomically(Path(given.page), text)


if __name__ == "__main__":
    main()
