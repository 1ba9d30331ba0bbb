"""tfport proves that a port of TensorFlow code computes what its original computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfport.checking.check import check
    from tfport.checking.report import CheckReport

__version__ = "0.1.0"
__all__ = ["CheckReport", "__version__", "check"]


def __getattr__(name: str) -> Any:
    """`check` and its report, found when they are asked for: the command's help loads neither."""
    if name == "check":
        from tfport.checking.check import check

        return check
    if name == "CheckReport":
        from tfport.checking.report import CheckReport

        return CheckReport
    raise AttributeError(f"module 'tfport' has no attribute {name!r}")
