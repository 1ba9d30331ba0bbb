"""TF1 graphs from files: what is read back, and what is refused."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tfport.adapters import graph_ops
from tfport.adapters.tf1_sides import GraphProgram, from_meta, from_saved_model, tf1_graph
from tfport.errors import UserError

BATCH = {"x": np.random.default_rng(0).normal(size=(4, 3)), "word": np.array([1, 1, 2, 0])}


def build(resource: bool = True, extra: Any = None) -> Any:
    """A build function with summaries, an Assert and a partitioned variable; `extra` may add to the graph."""

    def inner() -> Any:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        word = tf.placeholder(tf.int32, [None], name="word")
        with tf.variable_scope("net", use_resource=resource):
            w = tf.get_variable("w", [3, 2])
            table = tf.get_variable("table", [5, 2], partitioner=tf.fixed_size_partitioner(2))
        y = tf.matmul(tf.nn.dropout(x, rate=0.5), w) + tf.nn.embedding_lookup(table, word, "div")
        with tf.control_dependencies([tf.debugging.assert_all_finite(y, "finite").op]):
            y = tf.identity(y, name="logits")
        loss = tf.reduce_mean(tf.square(y), name="loss")
        tf.summary.scalar("loss", loss)
        tf.train.AdamOptimizer(0.1).minimize(loss, tf.train.get_or_create_global_step())
        return extra() if extra is not None else None

    return inner


def saved(folder: Path, program: GraphProgram) -> Path:
    """Writes a program's graph and values with a Saver; returns the `.meta` file."""
    with program.graph.as_default():
        tf.train.Saver().save(program.session, str(folder / "model"))
    return folder / "model.meta"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[GraphProgram, Path]:
    """A program that has made two steps, and the folder of its checkpoint."""
    program = tf1_graph(build())
    for _ in range(2):
        program.run_phase("train", BATCH)
    folder = tmp_path_factory.mktemp("checkpoint")
    saved(folder, program)
    return program, folder


@pytest.mark.parametrize("resource", [True, False])
def test_a_meta_file_continues_bit_for_bit(tmp_path: Path, resource: bool) -> None:
    program = tf1_graph(build(resource))
    program.run_phase("train", BATCH)
    read = from_meta(saved(tmp_path, program))
    assert read.state().digest() == program.state().digest()
    assert [each.name for each in read.variables()] == ["net/w", "net/table/part_0", "net/table/part_1"]
    assert [each.name for each in read.random_draws()] == [each.name for each in program.random_draws()]
    read.draws.step = program.draws.step = 1
    assert read.run_phase("train", BATCH) == program.run_phase("train", BATCH)
    assert read.state().digest() == program.state().digest()
    assert read.state().arrays["optimizer/Adam/iterations"] == 2
    read.initialise(0)
    assert read.state().arrays["optimizer/Adam/iterations"] == 0


def test_a_meta_file_alone_has_initial_values(original: tuple[GraphProgram, Path], tmp_path: Path) -> None:
    shutil.copy(original[1] / "model.meta", tmp_path)
    program = from_meta(tmp_path / "model.meta")
    assert program.state().arrays["optimizer/Adam/iterations"] == 0
    assert any("not in the checkpoint" in note for note in program.notes())
    program.run_phase("train", BATCH)


def test_a_saved_model_names_inputs_and_outputs(original: tuple[GraphProgram, Path], tmp_path: Path) -> None:
    program, _ = original
    graph = program.graph
    with graph.as_default():
        tf.saved_model.simple_save(
            program.session,
            str(tmp_path / "export"),
            {"features": graph.get_tensor_by_name("x:0")},
            {"scores": graph.get_tensor_by_name("logits:0")},
        )
    read = from_saved_model(tmp_path / "export")
    assert [each.name for each in read.inputs()] == ["features", "word"]
    assert read.state().digest() == program.state().digest()
    batch = {"features": BATCH["x"], "word": BATCH["word"]}
    np.testing.assert_array_equal(read.forward(batch, True)["scores"], program.forward(BATCH, True)["logits"])
    (tmp_path / "export" / "variables" / "variables.index").unlink()
    with pytest.raises(UserError, match=r"variables\.index is not"):
        from_saved_model(tmp_path / "export")
    with pytest.raises(UserError, match="expected the folder of a SavedModel"):
        from_saved_model(tmp_path / "export" / "saved_model.pb")
    with pytest.raises(UserError, match=r"saved_model\.pb does not exist"):
        from_saved_model(tmp_path)


def test_a_saved_model_of_tf2_is_refused(tmp_path: Path) -> None:
    meta = tf.MetaGraphDef()
    meta.object_graph_def.nodes.add()
    from tensorflow.core.protobuf import saved_model_pb2

    (tmp_path / "saved_model.pb").write_bytes(
        saved_model_pb2.SavedModel(saved_model_schema_version=1, meta_graphs=[meta]).SerializeToString()
    )
    with pytest.raises(UserError, match="SavedModel of TF2's"):
        from_saved_model(tmp_path)


# --- Harmful graphs ---------------------------------------------------------------------------------------------------
def harmful(name: str) -> None:
    """Adds an op to the default graph that a graph from a file may not have."""
    if name == "EagerPyFunc":
        tf.py_function(lambda: 1.0, [], tf.float32)
    elif name == "PyFunc":
        tf.py_func(lambda: np.float32(1.0), [], tf.float32)
    elif name == "ReadFile":
        tf.io.read_file("/etc/hostname")
    elif name == "WriteFile":
        tf.io.write_file("somewhere", "text")
    elif name == "FixedUnigramCandidateSampler":
        true = tf.zeros([1, 1], tf.int64)
        tf.random.fixed_unigram_candidate_sampler(true, 1, 2, False, 9, vocab_file="somewhere")
    elif name == "MatchingFiles":
        tf.io.matching_files("*")
    elif name == "ImmutableConst":
        tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[1], memory_region_name="region")
    elif name == "TextLineReaderV2":
        tf.TextLineReader()
    elif name == "PrintV2":
        tf.print("text", output_stream="file://somewhere")
    else:
        tf.raw_ops.DebugIdentity(input=1.0, debug_urls=["file://somewhere"])


@pytest.mark.parametrize(
    "name",
    [
        "EagerPyFunc",
        "PyFunc",
        "ReadFile",
        "WriteFile",
        "MatchingFiles",
        "FixedUnigramCandidateSampler",
        "ImmutableConst",
        "TextLineReaderV2",
        "PrintV2",
        "DebugIdentity",
    ],
)
def test_an_op_that_may_do_harm_is_refused(tmp_path: Path, name: str) -> None:
    graph = tf.Graph()
    with graph.as_default():
        harmful(name)
        tf.train.export_meta_graph(str(tmp_path / "model.meta"))
    with pytest.raises(UserError, match=f"is of type {name}: .*module:function"):
        from_meta(tmp_path / "model.meta")


def test_an_op_inside_a_function_is_refused_too(tmp_path: Path) -> None:
    @tf.function
    def reads() -> Any:
        return tf.io.read_file("/etc/hostname")

    graph = tf.Graph()
    with graph.as_default():
        reads()
        tf.train.export_meta_graph(str(tmp_path / "model.meta"))
    with pytest.raises(UserError, match=r"of function '.*reads.*' is of type ReadFile"):
        from_meta(tmp_path / "model.meta")


def test_a_custom_op_is_refused(original: tuple[GraphProgram, Path], tmp_path: Path) -> None:
    meta = tf.MetaGraphDef.FromString((original[1] / "model.meta").read_bytes())
    meta.graph_def.node.add(name="mine", op="ZeroOutOfMine")
    (tmp_path / "model.meta").write_bytes(meta.SerializeToString())
    with pytest.raises(UserError, match=r"'mine' is of type ZeroOutOfMine: TensorFlow has no such op"):
        from_meta(tmp_path / "model.meta")


@pytest.mark.parametrize("named", [True, False])
def test_ops_of_a_saver_may_be_there_and_not_be_run(original: tuple[GraphProgram, Path], named: bool) -> None:
    program, folder = original
    save = next(op.name for op in program.graph.get_operations() if op.type == "SaveV2")
    names: dict[str, Any] = {"train_ops": save, "losses": "loss"} if named else {"outputs": ["save/RestoreV2"]}
    with pytest.raises(UserError, match="which reads or writes files"):
        from_meta(folder / "model.meta", **names)


def test_common_ops_are_harmless_and_harmful_ones_are_not() -> None:
    fine = "MatMul Conv2D FusedBatchNormV3 VariableV2 ResourceApplyAdam While TensorListStack Assert Placeholder NoOp"
    fine += " ScalarSummary TensorArrayReadV3 LogUniformCandidateSampler RandomUniform Multinomial Save RestoreV2"
    harm = "PyFuncStateless RemoteCall Abort XlaLaunch IteratorGetNext TFRecordDataset LMDBReader CustomAggregator"
    harm += " _Send InitializeTableFromTextFileV2 RpcCall WriteSummary CopyHost DebugIdentityV3 GeneratorDataset"
    harm += " FileSystemSetConfiguration SaveDatasetV2 AudioMicrofrontendX LoadAndRemapMatrix"
    assert [name for name in fine.split() if not graph_ops.is_harmless(name)] == []
    assert [name for name in harm.split() if graph_ops.is_harmless(name)] == []


# --- Damaged files ----------------------------------------------------------------------------------------------------
def test_files_that_are_no_graph_are_refused(original: tuple[GraphProgram, Path], tmp_path: Path) -> None:
    whole = (original[1] / "model.meta").read_bytes()
    contents = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "pickle": pickle.dumps({"a": 1}),
        "python": b"import os\nprint('ran')\n",
        "zeros": bytes(100),
        "graph only": tf.MetaGraphDef().SerializeToString() + b"\x08",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(range(64)),
    }
    for name, data in contents.items():
        path = tmp_path / f"{name}.meta"
        path.write_bytes(data)
        with pytest.raises(UserError, match=name):
            from_meta(path)
    with pytest.raises(UserError, match=r"missing\.meta does not exist"):
        from_meta(tmp_path / "missing.meta")
    with pytest.raises(UserError, match="cannot be read"):
        from_meta(tmp_path)


def test_damage_anywhere_is_an_error_of_the_users(original: tuple[GraphProgram, Path], tmp_path: Path) -> None:
    """Whatever a flipped byte does, it ends in a Program or in a UserError."""
    whole = bytearray((original[1] / "model.meta").read_bytes())
    for at in np.random.default_rng(0).integers(0, len(whole), 12):
        damaged = bytearray(whole)
        damaged[at] ^= 0x5A
        path = tmp_path / f"at{at}.meta"
        path.write_bytes(bytes(damaged))
        try:
            from_meta(path).close()
        except UserError as error:
            assert str(error)


def test_a_damaged_checkpoint_is_refused(original: tuple[GraphProgram, Path], tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(original[1], tmp_path / name))

    folder = copy("no shard")
    next(folder.glob("model.data-*")).unlink()
    with pytest.raises(UserError, match="no whole checkpoint"):
        from_meta(folder / "model.meta")
    folder = copy("no index")
    (folder / "model.index").unlink()
    with pytest.raises(UserError, match=r"model\.index is not"):
        from_meta(folder / "model.meta")
    folder = copy("short shard")
    shard = next(folder.glob("model.data-*"))
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(UserError, match="no whole checkpoint"):
        from_meta(folder / "model.meta")
    folder = copy("bad index")
    (folder / "model.index").write_bytes(b"text" * 30)
    with pytest.raises(UserError, match="no whole checkpoint"):
        from_meta(folder / "model.meta")


def test_the_checkpoint_of_another_graph_is_refused(original: tuple[GraphProgram, Path], tmp_path: Path) -> None:
    def other() -> None:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        loss = tf.reduce_mean(tf.matmul(x, tf.get_variable("other", [3, 2])))
        tf.train.GradientDescentOptimizer(0.1).minimize(loss)

    saved(tmp_path, tf1_graph(other))
    shutil.copy(original[1] / "model.meta", tmp_path / "model.meta")
    with pytest.raises(UserError, match="holds none of the graph's"):
        from_meta(tmp_path / "model.meta")
