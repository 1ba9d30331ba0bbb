"""Loads TensorFlow without the banner that it writes to standard error before its log levels apply."""

from __future__ import annotations

import os
import sys
import tempfile


def load_tensorflow() -> None:
    """Imports TensorFlow and starts its runtime, standard error set aside; what was said is shown if that fails."""
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            import tensorflow as tf

            tf.constant(0)
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
