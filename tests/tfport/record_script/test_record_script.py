"""record_original.py: what it records is what the check records, and it asks for no more than TensorFlow 1.4 had."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import record_sides
from pairs import convnet_batchnorm, mlp_dropout, word2vec
from tfport.checking import records
from tfport.checking.check import check
from tfport.checking.check import record as recorded_by_check
from tfport.record_script import record_original
from tfport.remote import child_environment

SCRIPT = Path(str(resources.files("tfport.record_script") / "record_original.py"))
STEPS = 5
TF_1_4 = {
    "tf": {
        *("ConfigProto", "Graph", "GraphOptions", "OptimizerOptions", "Session", "VERSION", "assign"),
        *("convert_to_tensor", "get_default_graph", "global_variables", "global_variables_initializer", "gradients"),
        *("local_variables", "local_variables_initializer", "placeholder", "placeholder_with_default"),
        *("set_random_seed", "tables_initializer", "trainable_variables", "variables_initializer"),
    },
    "graph": {
        *("as_default", "as_graph_def", "as_graph_element", "control_dependencies", "finalize", "get_collection"),
        *("get_operation_by_name", "get_operations", "get_tensor_by_name", "is_feedable", "is_fetchable", "seed"),
    },
    "op": {
        *("control_inputs", "device", "get_attr", "graph", "inputs", "name", "node_def", "op_def", "outputs"),
        *("run", "traceback", "type", "values"),
    },
    "session": {"as_default", "close", "graph", "list_devices", "make_callable", "partial_run", "run"},
}
"""Names of TensorFlow's API around release 1.4, of the module and of three classes.

Taken from tensorflow/tools/api/golden of tensorflow/tensorflow: tensorflow.pbtxt at commit 0068086b9a28,
tensorflow.-graph.pbtxt at 8694d67b4ef3, tensorflow.-operation.pbtxt at d4abf84c7c85, tensorflow.-session.pbtxt at
34b0da92c2e8.
"""


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own, copied to another folder as it would be to another machine."""
    copy = cwd / "record_original.py"
    copy.write_text(SCRIPT.read_text())
    return subprocess.run(
        [sys.executable, str(copy), *words],
        cwd=cwd,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@functools.cache
def recorded(legacy: str, batches: str, folder: Path) -> Path:
    done = run(f"--legacy={legacy}", f"--batches={batches}", f"--steps={STEPS}", "--record=record", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in folder.iterdir() if each.name != "__pycache__") == [
        "record",
        "record_original.py",
    ]
    return folder / "record"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    @functools.cache
    def made(legacy: str, batches: str) -> Path:
        return recorded(legacy, batches, tmp_path_factory.mktemp("record"))

    return made


# --- What it records --------------------------------------------------------------------------------------------------
GAN = "record_sides:gan", "record_sides:gan_batch"
EMBEDDING = "record_sides:embedding", "record_sides:embedding_batches"
MLP = "pairs.mlp_dropout:legacy", "pairs.mlp_dropout:batches"
CONVNET = "pairs.convnet_batchnorm:legacy", "pairs.convnet_batchnorm:batches"
WORD2VEC = "pairs.word2vec:legacy", "pairs.word2vec:batches"


@pytest.mark.parametrize(
    ("original", "port", "rung", "says"),
    [
        pytest.param(GAN, record_sides.gan_port(), None, "", id="gan"),
        pytest.param(GAN, record_sides.gan_port(0.6), "update", "learning_rate is 0.025 in the", id="gan decay"),
        pytest.param(EMBEDDING, record_sides.embedding_port(), None, "", id="embedding"),
        pytest.param(EMBEDDING, record_sides.embedding_port(0.06), "update", "rate is 0.05 in", id="embedding rate"),
        pytest.param(MLP, mlp_dropout.modern, None, "", id="mlp"),
        pytest.param(MLP, mlp_dropout.keep_prob_as_rate, "forward", "only in the original", id="mlp rate"),
        pytest.param(MLP, mlp_dropout.default_epsilon, "update", "epsilon is 1e-08 in the", id="mlp epsilon"),
        pytest.param(CONVNET, convnet_batchnorm.modern, None, "", id="convnet"),
        pytest.param(
            CONVNET,
            convnet_batchnorm.unbiased,
            "update",
            "moving_variance",
            id="convnet unbiased",
            marks=pytest.mark.slow,
        ),
        pytest.param(WORD2VEC, word2vec.modern, None, "", id="word2vec", marks=pytest.mark.slow),
        pytest.param(WORD2VEC, word2vec.summed_loss, "loss", "Mean", id="word2vec sum", marks=pytest.mark.slow),
    ],
)
def test_ports_are_held_against_what_the_script_recorded(
    original: tuple[str, str], port: Any, rung: str | None, says: str, record: Callable[[str, str], Path]
) -> None:
    report = check(record(*original), port)
    assert report.equal is (rung is None)
    assert report.pair is not None and report.pair.located == rung
    assert report.rounding_by == "envelope" and "record_original.py" in report.no_float64
    assert says in (report.location.text if report.location else "")
    assert not [each for each in report.draws if not each.controlled]
    assert "Nothing beyond step 5 was looked at." in report.covers


def test_it_records_what_the_check_records(record: Callable[[str, str], Path], tmp_path: Path) -> None:
    """Names, kinds, what reads what, attributes, lines, slots, numbers and findings; values are of other draws."""
    recorded_by_check(tmp_path / "record", mlp_dropout.legacy, mlp_dropout.batches, steps=STEPS)
    one, other = records.read(tmp_path / "record").single, records.read(record(*MLP)).single
    for name in ("kind", "variables", "optimizers", "phases", "phase_optimizers", "forced", "draws"):
        assert getattr(one, name) == getattr(other, name), name
    assert list(one.initial) == list(other.initial)
    for left, right in zip(one.stills, other.stills, strict=True):
        assert left.optimizers == right.optimizers and left.untouched == right.untouched
        assert list(left.gradients["train"]) == list(right.gradients["train"])
        for key, nodes in left.nodes.items():
            told, shown = ([_told(node) for node in each] for each in (nodes, right.nodes[key]))
            assert told == shown


def _told(node: Any) -> tuple[Any, ...]:
    return node.name, node.kind, node.inputs, node.variables, dict(node.attributes), node.where, node.value.shape


def test_attributes_that_later_versions_added_are_those_of_the_op(
    record: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """A Conv2D of TensorFlow 1.4 has no dilations: nothing is said of them where the port's are 1."""
    folder = tmp_path / "record"
    shutil.copytree(record(*CONVNET), folder)
    tree = json.loads((folder / "record.json").read_text())
    tree["versions"]["tensorflow"] = "1.4.1"

    def strip(value: Any) -> None:
        if isinstance(value, dict) and value.get("kind") == "Conv2D":
            del value["attributes"]["dilations"], value["attributes"]["data_format"]
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            strip(each)

    strip(tree)
    (folder / "record.json").write_text(json.dumps(tree))
    told = json.loads((folder / "manifest.json").read_text())
    told["record.json"] = hashlib.sha256((folder / "record.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(told))
    report = check(folder, convnet_batchnorm.symmetric_padding)
    assert report.location is not None and "padding is SAME in the original and VALID" in report.location.text
    assert "dilations" not in report.location.text and "data_format" not in report.location.text


def test_the_port_is_fed_what_was_drawn(record: Callable[[str, str], Path]) -> None:
    original = records.read(record(*EMBEDDING))
    kinds = {kind for _, _, kind, *_ in original.draws}
    assert kinds == {"shuffle", "integers 0 3"}
    assert original.unfed is not None and len({json.dumps(each) for each in original.unfed["train"]}) == 2
    shuffles = [np.array(place.read()) for _, phase, kind, _, _, place in original.draws if kind == "shuffle"]
    assert all(sorted(each.tolist()) == [0, 1, 2, 3] for each in shuffles)


@pytest.mark.parametrize("most", [None, 1e6])
def test_what_is_done_to_derivatives_is_seen_though_nothing_comes_of_it(most: float | None) -> None:
    original = record_original.Original(lambda: record_sides.clipped(most), 0)
    found, slopes, plain = original.derivatives("train", record_sides.gan_batch(0), 0)
    assert plain is (most is None)
    assert list(found) == list(slopes) == ["w"] and np.array_equal(found["w"], slopes["w"])
    original.session.close()


# --- What it says to those who make a mistake -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--legacy=record_sides:nothing", f"--batches={GAN[1]}"), "record_sides has no nothing."),
        (("--legacy=record_sides", f"--batches={GAN[1]}"), "--legacy=record_sides: expected module:function."),
        (("--legacy=no_such:thing", f"--batches={GAN[1]}"), "--legacy=no_such:thing cannot be imported"),
        (("--legacy=record_sides:not_a_mapping", f"--batches={GAN[1]}"), "expected a mapping with loss and train_op"),
        (("--legacy=record_sides:no_train_op", f"--batches={GAN[1]}"), "has no train_op; name the op that trains"),
        (("--legacy=record_sides:unknown_key", f"--batches={GAN[1]}"), "mapping has 'train'; expected some of inputs,"),
        ((f"--legacy={GAN[0]}", "--batches=record_sides:other_batch"), "the batch has nothing for real; it has images"),
        ((f"--legacy={GAN[0]}", f"--batches={GAN[1]}", "--steps=0"), "--steps=0: expected 1 or more."),
        ((f"--legacy={GAN[0]}", f"--batches={GAN[1]}", "--record=."), "--record=. exists; name a new folder."),
    ],
)
def test_a_mistake_is_named_and_nothing_is_left_behind(
    words: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    record = () if any(word.startswith("--record") for word in words) else ("--record=record",)
    assert record_original.main([*words, *record]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("record_original.py: ") and says in last
    assert list(tmp_path.iterdir()) == []


# --- Where it runs ----------------------------------------------------------------------------------------------------
def vermin(path: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", "from vermin import main; main()", "--no-tips", "-t=3.5-", str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_its_syntax_and_modules_are_those_of_python_3_5(tmp_path: Path) -> None:
    done = vermin(SCRIPT)
    assert done.returncode == 0 and "Minimum required versions: 3.5" in done.stdout, done.stdout
    ast.parse(SCRIPT.read_text(), feature_version=(3, 5))
    newer = tmp_path / "newer.py"
    newer.write_text(SCRIPT.read_text() + "\nprint(f'{VERSION}')\n")
    assert vermin(newer).returncode != 0


def called(tree: ast.AST) -> dict[str, set[str]]:
    """What the script asks of TensorFlow: names of `tf`, and of whatever is called graph, op or session."""
    found: dict[str, set[str]] = {name: set() for name in TF_1_4}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in found:
                found[owner].add(node.attr)
    return found


def test_it_asks_for_no_more_than_tensorflow_1_4_had() -> None:
    found = called(ast.parse(SCRIPT.read_text()))
    assert len(found["tf"]) > 10 and {"run", "close"} <= found["session"] and "node_def" in found["op"]
    assert {name: asked - TF_1_4[name] for name, asked in found.items() if asked - TF_1_4[name]} == {}
    imported = {
        name.name if isinstance(node, ast.Import) else f"{node.module}.{name.name}"
        for node in ast.walk(ast.parse(SCRIPT.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
        if "tensorflow" in (node.module or name.name if isinstance(node, ast.ImportFrom) else name.name)
    }
    assert imported == {
        "tensorflow",
        "tensorflow.compat.v1",  # 1.13 and later; the script goes on without it
        "tensorflow.python.framework.tensor_util",  # tf.contrib.util.constant_value of 1.4 is this module's
    }


def test_a_name_that_1_4_lacked_is_seen() -> None:
    assert called(ast.parse("tf.function(print)\nop.experimental"))["tf"] - TF_1_4["tf"] == {"function"}


def test_nothing_of_tfport_is_imported() -> None:
    assert "import tfport" not in SCRIPT.read_text() and "from tfport" not in SCRIPT.read_text()
