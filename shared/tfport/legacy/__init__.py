"""Stand-ins for what TensorFlow 2.16 no longer has: contrib.layers, slim, estimator and the MNIST tutorials' data.

`with tfport.legacy.installed(): import old_script` imports a script that says `import tensorflow as tf` and means
TensorFlow 1. The command does so by itself for a side whose source needs it; docs/old-frameworks.md has the list.
"""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator

__all__ = ["installed"]


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Within the block, `import tensorflow` in user code gives tf.compat.v1 with contrib, estimator and examples.

    Libraries get TensorFlow as it is. TensorFlow 2's behaviour is turned off for good where it can be, as old code
    expects: name such a side as text, "old_script:build", so that it has a process of its own.

    Raises:
      tfport.errors.UserError: inside the block, from code that uses something without a stand-in; it names the call,
        the file and line, and what to use.
    """
    real = builtins.__import__
    install()
    try:
        yield
    finally:
        builtins.__import__ = real


def install() -> None:
    """`installed` for the rest of the process."""
    import tensorflow.compat.v1 as tf

    from tfport.legacy.modules import importing

    tf.disable_v2_behavior()
    if not hasattr(builtins.__import__, "tfport_legacy"):
        builtins.__import__ = importing(builtins.__import__)
