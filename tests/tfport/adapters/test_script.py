"""A script is run up to its first training call and no further, and what that call tells is taken."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfport.checking.check import check
from tfport.checking.factories import build
from tfport.errors import UserError

BATCH = {"x": np.eye(3, dtype=np.float32), "y": np.ones((3, 1), np.float32)}
HEADER = """
    import numpy as np
    import tensorflow.compat.v1 as tf
    from pathlib import Path
"""
GRAPH = """
    x, y = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.float32, [None, 1])
    weight = tf.get_variable("weight", [3, 1])
    loss = tf.reduce_mean(tf.square(tf.matmul(x, weight, name="output") - y))
    train = tf.train.GradientDescentOptimizer(0.1).minimize(loss, name="train")
    feed = {x: np.eye(3), y: np.ones([3, 1])}
"""
KERAS = """
    import keras
    import numpy as np

    model = keras.Sequential([keras.Input([3], name="x"), keras.layers.Dense(1, name="out")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = np.eye(3), np.ones([3, 1])
"""
Write = Callable[..., str]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(*parts: str, name: str = "train.py") -> str:
        text = "\n".join(textwrap.dedent(part) for part in parts)
        if "tf.get_variable" in parts[0]:
            text = f"{textwrap.dedent(HEADER)}\nwith tf.Graph().as_default():\n{textwrap.indent(text, '    ')}"
        Path(name).write_text(text)
        return name

    return write


# --- Graphs -----------------------------------------------------------------------------------------------------------
LOOPS = {
    "with": """
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            sess.run(weight.assign(tf.fill([3, 1], 2.0)))
            for step in range(1000):
                sess.run([train, loss], feed_dict=feed)
                Path("trained").touch()
    """,
    "interactive": """
        tf.InteractiveSession()
        tf.global_variables_initializer().run()
        weight.assign(tf.fill([3, 1], 2.0)).eval()
        train.run(feed)
        Path("trained").touch()
    """,
    "caught": """
        sess = tf.Session()
        sess.run([v.initializer for v in tf.global_variables()])
        weight.load(np.full([3, 1], 2.0), sess)
        for step in range(3):
            try:
                sess.run(train, feed)
                Path("trained").touch()
            except:
                pass
    """,
    "monitored": """
        hook = tf.train.StopAtStepHook(last_step=10)
        tf.train.get_or_create_global_step()
        tf.add_to_collection("twos", weight.assign(tf.fill([3, 1], 2.0)))
        scaffold = tf.train.Scaffold(init_fn=lambda scaffold, sess: sess.run(tf.get_collection("twos")))
        with tf.train.MonitoredTrainingSession(scaffold=scaffold, hooks=[hook]) as sess:
            while not sess.should_stop():
                sess.run(train, feed)
                Path("trained").touch()
    """,
    "restored": """
        with tf.Session() as sess:
            sess.run(weight.assign(tf.fill([3, 1], 2.0)))
            saver = tf.train.Saver()
            saver.save(sess, "./model.ckpt")
        with tf.Session() as sess:
            saver.restore(sess, "./model.ckpt")
            sess.run((train, {"loss": loss}), feed)
            Path("trained").touch()
    """,
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_graph_is_taken_as_it_stands_at_its_first_training_run(loop: str, script: Write) -> None:
    before = sys.argv, sys.path[:], Path.cwd(), sys.modules["__main__"]
    program = build(script(GRAPH, LOOPS[loop]), "legacy")
    assert (sys.argv, sys.path, Path.cwd(), sys.modules["__main__"]) == before
    assert not Path("trained").exists()
    assert program.phases == ("train",) and [each.name for each in program.inputs()] == ["x", "y"]
    np.testing.assert_array_equal(program.state().arrays["weight"], np.full((3, 1), 2.0))
    assert program.step(BATCH)["train/loss"] == pytest.approx(1.0)
    assert any(note.startswith("train.py was run up to train.py:") for note in program.notes())
    program.close()


def test_a_second_run_of_a_script_begins_anew(script: Write) -> None:
    """Its flags, its modules and its graph are its own."""
    script(GRAPH, name="net.py")
    run = """
        from absl import app, flags
        import net

        flags.DEFINE_string("folder", "here", "A folder.")

        def main(argv):
            assert argv == ["train.py"] and flags.FLAGS.folder == "here"
            sess = net.tf.Session(graph=net.x.graph)
            sess.run(net.weight.initializer)
            sess.run(net.train, net.feed)

        if __name__ == "__main__":
            app.run(main)
    """
    name = script(run)
    first, second = build(name, "legacy", seed=1), build(name, "legacy", seed=2)
    one, other = (np.array(each.state().arrays["weight"]) for each in (first, second))
    assert np.abs(one - other).max() > 0
    first.initialise(2)
    assert np.abs(first.state().arrays["weight"] - one).max() > 0
    assert "net" not in sys.modules


def test_scalars_that_are_fed_belong_to_the_mode(script: Write) -> None:
    more = """
        keep, rate = tf.placeholder(tf.float32, name="keep"), tf.placeholder(tf.float32, [], name="rate")
        mode = tf.placeholder(tf.bool, [], name="phase")
        kept = tf.cond(mode, lambda: x * keep, lambda: x)
        out = tf.matmul(kept, weight, name="logits")
        other = tf.train.GradientDescentOptimizer(rate).minimize(tf.reduce_mean(tf.square(out - y)))
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            sess.run(other, {**feed, keep: 0.5, rate: 0.2, mode: True})
    """
    graph = GRAPH.replace('    train = tf.train.GradientDescentOptimizer(0.1).minimize(loss, name="train")\n', "")
    program = build(script(graph, more), "legacy")
    notes = " | ".join(program.notes())
    for told in ("keep is fed 0.5 in training, as the script did, and 1.0 in", "phase is fed True in training, as the"):
        assert told in notes
    assert "rate is fed 0.2 in training, as the script did, and 0.2 in inference" in notes
    training, inference = (program.forward(BATCH, mode)["logits"] for mode in (True, False))
    np.testing.assert_allclose(training * 2, inference)
    program.close()


def test_a_loss_that_gradients_do_not_tell_is_the_one_that_is_fetched(script: Write) -> None:
    more = """
        penalty = 0.1 * tf.reduce_sum(tf.square(weight))
        both = tf.reduce_sum(tf.stack([loss, penalty]))
        hits = tf.reduce_mean(tf.cast(tf.equal(tf.round(tf.matmul(x, weight)), y), tf.float32))
        optimizer = tf.train.GradientDescentOptimizer(0.1)
        apply = optimizer.apply_gradients(zip(tf.gradients([loss, penalty], [weight]), [weight]))
        with tf.Session() as sess:
            sess.run(tf.global_variables_initializer())
            sess.run({fetches}, feed)
    """
    graph = GRAPH.replace('    train = tf.train.GradientDescentOptimizer(0.1).minimize(loss, name="train")\n', "")
    program = build(script(graph, more.replace("{fetches}", "[apply, both, hits]")), "legacy")
    before = np.array(program.state().arrays["weight"])
    expected = np.mean(np.square(before - 1)) + 0.1 * np.square(before).sum()
    assert program.step(BATCH)["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert "loss of train: Sum_1, which the script fetches beside the train op" in program.notes()
    program.close()
    with pytest.raises(UserError, match="the loss of phase 'train' is not known"):
        build(script(graph, more.replace("{fetches}", "[apply, hits]")), "legacy")


TWO = """
    second = tf.train.AdamOptimizer(0.1).minimize(tf.reduce_sum(weight), name="second")
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        sess.run(train, feed)
        sess.run(second)
"""


def test_what_runs_behind_that_point_is_asked_for_by_name(script: Write) -> None:
    name = script(GRAPH, TWO)
    with pytest.raises(UserError, match=r"others too: second\..*--train_ops=phase1=train,phase2=second\."):
        build(name, "legacy")
    program = build(name, "legacy", names={"train_ops": {"phase1": "train", "phase2": "second"}})
    assert program.phases == ("phase1", "phase2")
    program.close()


def test_a_run_that_updates_nothing_leaves_the_only_train_op(script: Write) -> None:
    program = build(script(GRAPH, "tf.Session().run(loss, feed)"), "legacy")
    assert program.phases == ("train",) and "train op: train, the only one of the graph" in program.notes()
    program.close()


def test_a_graph_that_reads_its_data_is_fed_in_their_place(script: Write) -> None:
    text = GRAPH.replace(
        "x, y = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.float32, [None, 1])",
        "data = tf.data.Dataset.from_tensors((np.eye(3, dtype='float32'), np.ones([3, 1], 'float32'))).repeat()\n"
        "    iterator = tf.data.make_initializable_iterator(data)\n    x, y = iterator.get_next()\n"
        "    tested = tf.data.make_one_shot_iterator(data).get_next()[0]",
    ).replace("    feed = {x: np.eye(3), y: np.ones([3, 1])}\n", "")
    loop = """
        with tf.Session() as sess:
            sess.run([tf.global_variables_initializer(), iterator.initializer])
            sess.run(train)
    """
    program = build(script(text, loop), "legacy")
    assert [each.name for each in program.inputs()] == ["x", "y"]
    assert program.step(BATCH)["train/loss"] > 0
    program.close()


# --- Keras ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("call", ["model.train_on_batch(x, y)", "model.fit(x, y, epochs=3)", "model.fit(x=x, y=y)"])
def test_a_model_is_taken_at_its_first_training_call(call: str, script: Write) -> None:
    name = script(KERAS, call, "open('trained', 'w')")
    program = build(name, "modern")
    assert not Path("trained").exists()
    assert program.kind == "Keras 3 model"
    program.prepare(BATCH)
    assert program.step(BATCH)["train/loss"] > 0
    assert any("train.py was run up to" in note for note in program.notes())
    program.initialise(5)


def test_keras_2_is_stopped_too(script: Write) -> None:
    text = KERAS.replace("keras.Input([3], name=", "keras.layers.InputLayer([3], name=").replace(
        "import keras", "import tf_keras as keras"
    )
    assert build(script(text, "model.fit(x, y)"), "modern").kind == "tf_keras model"


GAN = """
    import keras
    import numpy as np

    class GAN:
        def __init__(self):
            self.generator = keras.Sequential([keras.Input([2]), keras.layers.Dense(3, name="made")], name="g")
            self.discriminator = keras.Sequential([keras.Input([3]), keras.layers.Dense(1, "sigmoid")], name="d")
            self.discriminator.compile("sgd", "binary_crossentropy")
            z = keras.Input([2])
            self.combined = keras.Model(z, self.discriminator(self.generator(z)), name="c")
            self.combined.compile("sgd", "binary_crossentropy")

        def train(self):
            fake = self.generator.predict(np.zeros([4, 2]), verbose=0)
            for step in range(10):
"""
TURNS = """
                self.discriminator.train_on_batch(fake, np.full([4, 1], 0.9))
                open("trained", "w")

    GAN().train()
"""
JOINED = """
                labels = np.repeat([1.0, 0.1], 4)
                self.discriminator.train_on_batch(np.concatenate([fake, fake]), labels)

    GAN().train()
"""


@pytest.mark.parametrize(
    ("loop", "told"),
    [
        (TURNS, "the discriminator on real and generated images in turn, with labels 0.9 and 0, then"),
        (JOINED, "the discriminator on real and generated images in one batch, with labels 1 and 0.1, then"),
    ],
)
def test_the_models_of_a_gan_are_taken_and_its_loop_is_told_as_a_guess(loop: str, told: str, script: Write) -> None:
    Path("train.py").write_text(textwrap.dedent(GAN + loop))
    program = build("train.py", "modern")
    assert not Path("trained").exists()
    assert program.phases == ("discriminator", "generator")
    note = next(note for note in program.notes() if "is not known, and was taken to be the common loop" in note)
    assert told in note
    batch = {"x": np.eye(4, 3, dtype=np.float32)}
    program.prepare(batch)
    assert set(program.step(batch)) >= {"discriminator/loss", "generator/loss"}
    program.initialise(3)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((GRAPH,), "train.py ran to its end and reached no Session.run of a train op, no train_on_batch and no fit"),
        ((GRAPH, "raise SystemExit(3)"), r"train.py exited \(3\) before it reached a Session.run"),
        ((GRAPH, "1 / 0"), "the legacy script train.py raised ZeroDivisionError: .*train.py, line 1[0-9].* before it"),
        (("def broken(:",), "the legacy script train.py raised SyntaxError"),
        (("import nowhere",), "raised ModuleNotFoundError: No module named 'nowhere'"),
        ((KERAS, "model.fit(x, y, class_weight={0: 2.0})"), "with class_weight, which a batch would have to hold"),
        ((KERAS, "model.train_on_batch(x, y, sample_weight=y)"), "with sample_weight"),
        (
            (KERAS, "both = keras.Sequential([model])", "both.compile('sgd', 'mse')", "model.train_on_batch(x, y)"),
            r"first trains model by train_on_batch \(train.py:\d+\), and has other compiled models: both",
        ),
    ],
)
def test_what_cannot_be_told_is_one_message(parts: tuple[str, ...], message: str, script: Write) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(script(*parts), "legacy")
    assert "\n" not in str(caught.value)


def test_names_of_a_graph_are_of_no_use_to_a_model(script: Write) -> None:
    with pytest.raises(UserError, match=r"--losses names parts of a TF1 graph, and train.py trains a Keras model"):
        build(script(KERAS, "model.fit(x, y)"), "legacy", names={"losses": "loss"})


# --- Whole checks -----------------------------------------------------------------------------------------------------
def port(rate: float) -> Callable[[], Any]:
    def build() -> Any:
        import keras

        layer = keras.layers.Dense(10, kernel_initializer="ones", name="logits")
        net = keras.Sequential([keras.Input([64], name="images"), keras.layers.Dropout(0.25), layer])
        net.compile(keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return net

    return build


def rows(step: int) -> dict[str, Any]:
    draw = np.random.default_rng(step)
    return {"images": draw.normal(size=(16, 64)).astype("float32"), "labels": draw.integers(0, 10, 16)}


def test_a_port_of_a_script_of_tensorflow_1_is_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(__file__).parents[2] / "old_code/scripts/softmax.py"
    (tmp_path / "softmax.py").write_text(source.read_text())
    np.save(tmp_path / "rows.npy", np.ones((4, 64), "float32"))
    monkeypatch.chdir(tmp_path)
    report = check("softmax.py", port(0.5), rows, steps=4)
    assert report.equal, report.findings
    assert not Path("trained.txt").exists()
    wrong = check("softmax.py", port(0.4), rows, steps=4, rungs=("update",))
    assert not wrong.equal
