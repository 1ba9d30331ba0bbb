"""Files with a flipped bit, a cut, a repeat or a hole, and what every reader owes them."""

from __future__ import annotations

import random
import shutil
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from tfport.checkpoints.opening import open_source
from tfport.errors import CheckpointError

FEW = 60
"""Mutations of a test that runs by default."""
MANY = 2_000
"""Mutations of a slow test."""

ALLOWANCE = 24 << 20
"""Bytes that reading may take beside twice the file: the streaming buffer, and what Python and its libraries hold."""
SECONDS = 20.0
"""No mutated file may keep a reader longer; whole small files take milliseconds, a reader in a child some tenths."""


def mutated(data: bytes, seed: int) -> bytes:
    """One mutation, the same for the same seed: a cut, bits flipped, a run overwritten, removed, repeated, or a number
    made huge.
    """
    rng = random.Random(seed)
    place = rng.randrange(len(data))
    kind = seed % 7
    if kind == 0:
        return data[:place]
    if kind == 1:
        return _changed(data, place, bytes([data[place] ^ (1 << rng.randrange(8))]))
    if kind == 2:
        return _changed(data, place, rng.randbytes(rng.randrange(1, 64)))
    if kind == 3:
        return data[:place] + data[place + rng.randrange(1, 64) :]
    if kind == 4:
        return data[:place] + data[place : place + rng.randrange(1, 256)] + data[place:]
    if kind == 5:
        return _changed(
            data, place, rng.choice([b"\xff" * 8, b"\x00" * 8, b"\x7f\xff\xff\xff", b"\x80\x80\x80\x80\x10"])
        )
    for _ in range(rng.randrange(2, 40)):
        place = rng.randrange(len(data))
        data = _changed(data, place, bytes([rng.randrange(256)]))
    return data


def _changed(data: bytes, place: int, new: bytes) -> bytes:
    return (data[:place] + new + data[place + len(new) :])[: len(data)]


def check_reader(folder: Path, target: str, opened: Path, seeds: Iterator[int] | range) -> dict[str, int]:
    """Mutates one file of a checkpoint again and again and reads all of it; returns how many were read and refused.

    Args:
      folder: holds a whole checkpoint; it is put back after each mutation.
      target: the file in it that is mutated, by name relative to the folder.
      opened: what is opened.
      seeds: one mutation each.

    Raises:
      AssertionError: another error than CheckpointError, too much time or memory, or a file that was written.
    """
    path = folder / target
    whole = path.read_bytes()
    before = _listed(folder)
    outcome = {"read": 0, "refused": 0}
    for seed in seeds:
        path.write_bytes(mutated(whole, seed))
        limit = 2 * sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) + ALLOWANCE
        started = time.perf_counter()
        tracemalloc.start()
        try:
            with open_source(opened) as source:
                source.contents()
                for key in source.tensors:
                    for _ in source.chunks(key):
                        pass
            outcome["read"] += 1
        except CheckpointError as error:
            assert str(path.parent) in str(error) or path.name in str(error), f"seed {seed} names no file: {error}"
            outcome["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"mutation {seed} of {target}: {type(error).__name__}: {error}") from error
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < limit, f"mutation {seed} of {target} took {peak:,} bytes; {limit:,} are allowed"
        taken = time.perf_counter() - started
        assert taken < SECONDS, f"mutation {seed} of {target} took {taken:.1f} s"
        assert _listed(folder) == before, f"mutation {seed} of {target} left files behind"
    path.write_bytes(whole)
    assert outcome["read"] + outcome["refused"] > 0
    return outcome


def _listed(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def copied(source: Path, folder: Path) -> Path:
    """A folder copied to a place where it may be damaged."""
    return Path(shutil.copytree(source, folder))
