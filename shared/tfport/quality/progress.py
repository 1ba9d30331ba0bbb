"""The progress bar of everything here that takes seconds."""

from __future__ import annotations

import sys

from tqdm import tqdm


def bar(total: int, description: str, unit: str, shown: bool) -> tqdm[None]:
    """A bar on standard error, which leaves it clean when done; none unless `shown`."""
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        disable=not shown,
        leave=False,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        file=sys.stderr,
    )
