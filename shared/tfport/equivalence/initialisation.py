"""Rung 2: do the implementations' own initialisers draw from one distribution?"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from tfport.equivalence.measurement import RungMeasurement
from tfport.subject import Subject

Array = np.ndarray[Any, Any]

BUILDS = 2
"""Fresh builds a side; their draws are pooled."""
LEVEL = 1e-6
"""Probability at which equal distributions would be called different, for all variables of a pair together."""


def draws(subject: Subject) -> dict[str, Array]:
    """What the subject's own initialisers make on fresh builds, pooled by name; its state is put back afterwards."""
    kept = subject.state()
    pooled: dict[str, list[Array]] = {}
    for build in range(BUILDS):
        subject.initialise(1_000 + build)
        for name, array in subject.state().arrays.items():
            pooled.setdefault(name, []).append(array.ravel())
    subject.load(kept)
    return {name: np.concatenate(arrays) for name, arrays in pooled.items()}


def compare_initialisation(rung: RungMeasurement, legacy: dict[str, Array], modern: dict[str, Array]) -> None:
    """Compares constants exactly, and draws by two-sample Kolmogorov-Smirnov tests.

    One test is of the values, for mean and family; one is of their distances from the common median, because the
    first is weak for another deviation, which shows on both flanks and in neither much.

    What is the same on every build of a side, by a fixed seed or a table of constants, is one draw: it is a note where
    the other side's distribution may well have given it.
    """
    from scipy import stats

    for name in sorted(legacy.keys() ^ modern.keys()):
        rung.lack(f"{name} is initialised on one side only")
    drawn = [name for name in legacy if name in modern and legacy[name].size and np.ptp(legacy[name]) > 0]
    fixed = 0
    seeded: dict[str, list[str]] = defaultdict(list)
    for name in legacy:
        if name not in modern:
            continue
        a, b = legacy[name], modern[name]
        rung.compared += 1
        if not (a.size and b.size):
            rung.lack(f"{name} is empty")
        elif not (np.isfinite(a).all() and np.isfinite(b).all()):
            rung.fault(f"{name} is initialised with NaN or infinity")
        elif np.ptp(a) == 0 or np.ptp(b) == 0:
            if np.ptp(a) != np.ptp(b) or a[0] != b[0]:
                rung.fault(f"{name} starts as {_described(a)} against {_described(b)}")
        elif _fixed(a) and _fixed(b) and np.array_equal(a, b):
            fixed += 1  # a table, such as a bias whose forget gates start at 1
        else:
            fixed_on = [side for side, pooled in (("legacy", a), ("modern", b)) if _fixed(pooled)]
            a, b = (np.split(pooled, BUILDS)[0] if _fixed(pooled) else pooled for pooled in (a, b))
            middle = np.median(np.concatenate([a, b]))
            p = min(float(stats.ks_2samp(*pair).pvalue) for pair in ((a, b), (np.abs(a - middle), np.abs(b - middle))))
            if not p >= LEVEL / (2 * len(drawn)):
                rung.fault(f"{name} starts as {_described(a)} against {_described(b)} (p = {p:.1e})")
            elif fixed_on:
                seeded[" and the ".join(fixed_on)].append(name)
    if not rung.faults and not rung.missing:
        count = len(drawn) - fixed
        rung.notes.append(f"{count} drawn and {rung.compared - count} constant arrays agree")
    for side, names in seeded.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        rung.notes.append(
            f"{', '.join(names[:3])}{more}: the same on every build of the {side} side, by a fixed seed or a constant; "
            "one such draw fits the other side's distribution"
        )


def _fixed(pooled: Array) -> bool:
    """Whether every build gave the same array."""
    return pooled.size % BUILDS == 0 and len({build.tobytes() for build in np.split(pooled, BUILDS)}) == 1


def _described(array: Array) -> str:
    if np.ptp(array) == 0:
        return f"the constant {array[0]:g}"
    return f"mean {array.mean():.2g}, deviation {array.std():.3g}, in [{array.min():.3g}, {array.max():.3g}]"
