"""tfport proves that a port of TensorFlow code computes what its original computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfport.checking.check import check, record
    from tfport.checking.report import CheckReport

__version__ = "0.1.0"
__all__ = ["CheckReport", "__version__", "check", "record"]


def __getattr__(name: str) -> Any:
    """`check`, `record` and the report, found when they are asked for: the command's help loads none of them."""
    if name in ("check", "record"):
        from tfport.checking import check

        return getattr(check, name)
    if name == "CheckReport":
        from tfport.checking.report import CheckReport

        return CheckReport
    raise AttributeError(f"module 'tfport' has no attribute {name!r}")
