"""Old code is imported as it stands; what has no stand-in is named with its place and what to use."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tfport.checking.check import check
from tfport.errors import UserError
from tfport.remote import child_environment

_SCRIPT = """
import builtins, json, sys
import tfport.legacy
from tfport.errors import UserError

def told(call):
    try:
        call()
    except (UserError, AttributeError, ImportError) as error:
        return [isinstance(error, kind) for kind in (UserError, AttributeError, ImportError)] + [str(error)]

before = builtins.__import__
with tfport.legacy.installed():
    from old_code import digits_slim
    import tensorflow.compat.v1 as v1, tensorflow, tensorflow.python.framework.ops as ops
    from tensorflow.python.framework import dtypes
    import tensorflow.contrib as contrib
    from tensorflow import contrib as same
    import tensorflow.keras
    found = {
        "one": digits_slim.tf is v1 is tensorflow,
        "compat": tensorflow.compat.v1 is v1 and tensorflow.compat.v2.__name__.endswith("v2"),
        "submodules": [ops.__name__, dtypes.__name__],
        "contrib": contrib is same is digits_slim.tf.contrib,
        "version": tensorflow.__version__,
        "gone": told(digits_slim.gone),
        "gone module": told(digits_slim.gone_module),
        "cell": told(lambda: contrib.rnn.BasicLSTMCell),
        "typo": told(lambda: tensorflow.placeholdr),
    }
    import keras
    found["libraries"] = len(keras.ops.convert_to_tensor([1.0]).shape)
found["restored"] = builtins.__import__ is before
import tensorflow
found["after"] = tensorflow.__version__.startswith("2.")
found["graph"] = sorted(digits_slim.build())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=child_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_user_code_gets_tensorflow_1_and_libraries_get_their_own(told: dict[str, Any]) -> None:
    assert told["one"] and told["compat"] and told["contrib"] and told["version"] == "1.15.0"
    assert told["submodules"] == ["tensorflow.python.framework.ops", "tensorflow.python.framework.dtypes"]
    assert told["libraries"] == 1


def test_the_block_ends_and_what_it_imported_stays_of_use(told: dict[str, Any]) -> None:
    assert told["restored"] and told["after"]
    assert told["graph"] == ["inference", "loss", "outputs", "train_op", "training"]


def test_what_is_gone_is_named_with_its_place_and_what_to_use(told: dict[str, Any]) -> None:
    assert told["gone"][:3] == [True, True, False]
    assert re.match(
        r"tf.contrib.layers.optimize_loss \(digits_slim.py:\d+\) is gone since TensorFlow 2", told["gone"][3]
    )
    assert told["gone"][3].endswith("use instead: an optimizer's minimize(loss, global_step).")
    assert told["gone module"][:3] == [True, False, True]
    assert re.match(r"tf.contrib.seq2seq \(digits_slim.py:\d+\) is gone", told["gone module"][3])


def test_what_tensorflow_says_of_other_names_is_left(told: dict[str, Any]) -> None:
    assert not told["cell"][0] and "not available with Keras 3" in told["cell"][3]
    assert not told["typo"][0] and "has no attribute 'placeholdr'" in told["typo"][3]


def test_a_port_of_slim_is_proven_and_another_decay_found() -> None:
    report = check("old_code.digits_slim:build", "old_code.digits_keras:model", "old_code.data:images", steps=4)
    assert report.equal
    assert any("imported with tfport.legacy" in note and "tf.contrib.slim" in note for note in report.notes)
    wrong = "old_code.digits_keras:default_momentum"
    report = check("old_code.digits_slim:build", wrong, "old_code.data:images", steps=4, rungs=("update",))
    assert not report.equal and report.location is not None and "moving_mean" in str(report.location)


def test_a_port_of_a_model_fn_is_proven() -> None:
    report = check("old_code.estimated:build", "old_code.estimated_keras:model", "old_code.data:rows", steps=4)
    assert report.equal
    assert "the legacy side needs Keras 2 (tf.layers) and was started with TF_USE_LEGACY_KERAS=1" in report.notes


def test_a_modern_side_gets_what_its_error_asks_for() -> None:
    report = check(None, "old_code.digits_slim:build", "old_code.data:images", steps=2)
    assert "the modern side is code of TensorFlow 1: its tensorflow is tf.compat.v1" in report.notes
    with pytest.raises(UserError, match=r"tf.contrib.layers.optimize_loss \(digits_slim.py:\d+\) is gone"):
        check(None, "old_code.digits_slim:gone", "old_code.data:images", steps=2)
