"""Errors are quoted whole and without what repeats: what went wrong, at which op, in which line of the user's code."""

from __future__ import annotations

import pytest

from tfport.checking.quoting import said

NODE = """Graph execution error:

Detected at node 'prod' defined at (most recent call last):
    File "/usr/lib/python3/site-packages/tensorflow/ops.py", line 9, in matmul
    File "/home/user/train.py", line 6, in <module>
    File "/usr/lib/python3/site-packages/tensorflow/ops.py", line 12, in wrapper
Node: 'prod'
Matrix size-incompatible: In[0]: [2,3], In[1]: [2,3]
\t [[{{node prod}}]]"""
TWICE = """Graph execution error:

2 root error(s) found.
  (0) INVALID_ARGUMENT:  Incompatible shapes: [2] vs. [3]
\t [[{{node scope/add}}]]
\t [[loss/_3]]
  (1) INVALID_ARGUMENT:  Incompatible shapes: [2] vs. [3]
\t [[{{node scope/add}}]]
0 successful operations.
0 derived errors ignored.

Original stack trace for 'scope/add':
  File "/home/user/model.py", line 31, in build"""
UNAVAILABLE = """Graph execution error:

Detected at node PartitionedCall/MatMul defined at (most recent call last):
<stack traces unavailable>
Matrix size-incompatible: In[0]: [2,3], In[1]: [2,3]
\t [[{{node PartitionedCall/MatMul}}]] [Op:__inference_step_35]"""
TRACED = """in user code:

    File "/home/user/train.py", line 16, in step  *
        loss = f(a, b)
    File "/usr/lib/python3/site-packages/keras/src/ops.py", line 2, in f  *
        return matmul(a, b)

    ValueError: Dimensions must be equal, but are 3 and 2.
"""
EAGER = "{{function_node __wrapped__MatMul_device_/job:localhost}} Matrix size-incompatible [Op:MatMul] name: "


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        (NODE, "at prod: Matrix size-incompatible: In[0]: [2,3], In[1]: [2,3] (train.py, line 6)"),
        (TWICE, "at scope/add: Incompatible shapes: [2] vs. [3] (model.py, line 31)"),
        (UNAVAILABLE, "at PartitionedCall/MatMul: Matrix size-incompatible: In[0]: [2,3], In[1]: [2,3]"),
        (TRACED, "Dimensions must be equal, but are 3 and 2. (train.py, line 16)"),
        (EAGER, "Matrix size-incompatible"),
        ("Graph execution error:\n", "no message"),
        ("first\n  second", "first second"),
        ("x" * 2_000, "x" * 500 + " …"),
    ],
)
def test_an_error_is_reduced_to_what_went_wrong_and_where(text: str, quoted: str) -> None:
    assert said(ValueError(text)) == f"ValueError: {quoted}"


def test_the_place_is_that_of_the_users_code() -> None:
    def step() -> None:
        raise ValueError("no such shape")

    with pytest.raises(ValueError, match="no such shape") as caught:
        step()
    assert said(caught.value).startswith("ValueError: no such shape (test_quoting.py, line ")
