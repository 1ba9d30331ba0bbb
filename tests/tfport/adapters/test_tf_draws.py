"""TensorFlow's random ops, fed: the DrawSource's numbers come out, eagerly and each time a traced function runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfport.adapters.tf_draws import Interceptor, random_ops
from tfport.checking.draws import DrawSource

_GENERATOR = tf.random.Generator.from_seed(1)


def _expected(draw: Callable[[DrawSource], Any]) -> Any:
    """What the first draw of a phase is."""
    source = DrawSource(seed=3)
    source.begin("p")
    return draw(source)


def _interceptor() -> Interceptor:
    return Interceptor(DrawSource(seed=3))


_CASES: dict[str, tuple[Callable[[], Any], Callable[[DrawSource], Any]]] = {
    "tf.random.normal": (lambda: tf.random.normal((2, 3)), lambda draws: draws.normal((2, 3))),
    "tf.random.uniform": (lambda: tf.random.uniform((2, 3)), lambda draws: draws.uniform((2, 3))),
    "tf.random.truncated_normal": (
        lambda: tf.random.truncated_normal((2, 3)),
        lambda draws: draws.truncated_normal((2, 3)),
    ),
    "integers": (lambda: tf.random.uniform((4,), 2, 9, tf.int32), lambda draws: draws.integers((4,), 2, 9)),
    "shuffle": (lambda: tf.random.shuffle(tf.range(6)), lambda draws: draws.shuffle(6).astype(np.int32)),
    "float64": (lambda: tf.random.normal((3,), dtype=tf.float64), lambda draws: draws.normal((3,), "float64")),
    "stateless": (lambda: tf.random.stateless_normal((3,), [1, 2]), lambda draws: draws.normal((3,))),
    "generator": (lambda: _GENERATOR.normal((3,)), lambda draws: draws.normal((3,))),
    "generator integers": (
        lambda: _GENERATOR.uniform((4,), 0, 9, tf.int32),
        lambda draws: draws.integers((4,), 0, 9),
    ),
    "shape known only when run": (
        lambda: tf.random.normal(tf.shape(tf.random.shuffle(tf.range(5)))),
        lambda draws: draws.normal((5,)),
    ),
    "keras.random.normal": (lambda: keras.random.normal((2, 3)), lambda draws: draws.normal((2, 3))),
    "keras.random.uniform": (lambda: keras.random.uniform((2, 3)), lambda draws: draws.uniform((2, 3))),
    "keras.random.randint": (lambda: keras.random.randint((4,), 0, 9), lambda draws: draws.integers((4,), 0, 9)),
    "tf.nn.dropout": (
        lambda: tf.nn.dropout(tf.ones((4, 3)), 0.25),
        lambda draws: np.where(draws.uniform((4, 3)) >= 0.25, np.float32(1 / 0.75), np.float32(0)),
    ),
}


@pytest.mark.parametrize("name", _CASES)
def test_the_drawn_numbers_are_the_sources(name: str) -> None:
    function, draw = _CASES[name]
    interceptor = _interceptor()
    traced = tf.function(function, autograph=False)
    values = []
    for call in (function, traced, traced):  # eagerly, while tracing, and from the trace
        with interceptor.feeding("p"):
            values.append(np.array(call()))
    for value in values:
        np.testing.assert_array_equal(value, _expected(draw))
    assert all(info.controlled for info in interceptor.infos())
    assert not random_ops(traced.get_concrete_function().graph)


def test_each_step_and_phase_has_its_own_numbers_in_one_trace() -> None:
    interceptor = _interceptor()
    traced = tf.function(lambda: tf.random.normal((3,)))
    seen = []
    for step, phase in ((0, "a"), (1, "a"), (1, "b")):
        interceptor.draws.step = step
        with interceptor.feeding(phase):
            seen.append(tuple(np.array(traced())))
    assert len(set(seen)) == 3


@pytest.mark.parametrize("package", [tf_keras, keras], ids=["tf_keras", "keras"])
def test_layers_of_both_kerases(package: Any) -> None:
    ones = tf.ones((4, 3))
    dropout, noise = package.layers.Dropout(0.4), package.layers.GaussianNoise(0.5)
    interceptor = _interceptor()
    with interceptor.feeding("p"):
        dropped = np.array(dropout(ones, training=True))
    kept = _expected(lambda draws: draws.uniform((4, 3))) >= np.float32(0.4)
    np.testing.assert_allclose(dropped, kept / np.float32(0.6), rtol=1e-6)
    with interceptor.feeding("p"):
        noisy = np.array(noise(ones, training=True))
    np.testing.assert_allclose(noisy, 1 + 0.5 * _expected(lambda draws: draws.normal((4, 3))), rtol=1e-6)


def test_categorical_is_the_largest_of_logits_and_noise() -> None:
    logits = np.log(np.array([[0.1, 0.2, 0.7]], np.float32))
    interceptor = _interceptor()
    with interceptor.feeding("p"):
        drawn = np.array(tf.random.categorical(logits, 4000))
    noise = _expected(lambda draws: draws.number("multinomial", (1, 4000, 3)).gumbel(size=(1, 4000, 3)))
    np.testing.assert_array_equal(drawn, (logits[:, None] + noise).argmax(axis=-1))
    np.testing.assert_allclose(np.bincount(drawn[0]) / 4000, [0.1, 0.2, 0.7], atol=0.03)


def test_candidate_samplers_are_fed_with_their_expected_counts() -> None:
    interceptor = _interceptor()
    true = tf.constant([[1], [2]], tf.int64)
    with interceptor.feeding("p"):
        sampled, _, expected = tf.random.log_uniform_candidate_sampler(true, 1, 4, True, 20)
    with interceptor.feeding("p"):
        again = tf.random.log_uniform_candidate_sampler(true, 1, 4, True, 20)[0]
    np.testing.assert_array_equal(sampled, again)
    assert len(set(np.array(sampled).tolist())) == 4
    assert np.all(np.array(expected) > 0)
    with interceptor.feeding("p"):
        loss = tf.nn.sampled_softmax_loss(tf.ones((20, 3)), tf.zeros((20,)), true, tf.ones((2, 3)), 4, 20)
    assert np.all(np.isfinite(loss))


def test_ops_out_of_reach_are_told() -> None:
    interceptor = _interceptor()
    traced = tf.function(lambda: tf.raw_ops.RandomUniform(shape=[2], dtype=tf.float32) + tf.random.gamma([2], 2.0))
    with interceptor.feeding("p"):
        traced()
    left = {info.kind: info for info in random_ops(traced.get_concrete_function().graph)}
    assert set(left) == {"uniform", "RandomGamma"}
    assert not any(info.controlled or not info.reason for info in left.values())
    assert [info.kind for info in interceptor.infos() if not info.controlled] == ["RandomGamma"]


def test_what_tensorflow_had_comes_back() -> None:
    from tensorflow.python.ops import gen_random_ops

    before = gen_random_ops.random_uniform
    with pytest.raises(RuntimeError), _interceptor().feeding("p"):
        assert gen_random_ops.random_uniform is not before
        raise RuntimeError
    assert gen_random_ops.random_uniform is before
    assert not np.array_equal(tf.random.uniform((4,)), _expected(lambda draws: draws.uniform((4,))))


def test_pythons_generators_are_seeded_and_put_back() -> None:
    interceptor = _interceptor()
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    expected = (np.random.RandomState(7).rand(), random.Random(7).random())
    inside = []
    for _ in range(2):
        with interceptor.feeding("p"):
            inside.append((np.random.rand(), random.random()))  # noqa: NPY002
    assert inside[0] == inside[1] != expected
    assert (np.random.rand(), random.random()) == expected  # noqa: NPY002


def test_recording_tells_digests_and_what_was_drawn_only_while_tracing() -> None:
    interceptor = _interceptor()

    def noisy() -> Any:
        return tf.constant(np.random.normal(size=2)) + tf.random.normal((2,), dtype=tf.float64)  # noqa: NPY002

    traced = tf.function(noisy)
    runs = []
    for _ in range(2):
        with interceptor.recording("r") as found:
            traced()
            np.random.rand()  # noqa: NPY002
        runs.append(found)
    assert set(runs[0]) == {"random_normal/RandomStandardNormal", "np.random.normal (traced)", "np.random.rand"}
    assert set(runs[0]) == set(runs[1])
    same = {name for name, value in runs[0].items() if runs[1][name] == value}
    assert same == {"np.random.normal (traced)"}


def test_recording_feeds_nothing() -> None:
    interceptor = _interceptor()
    with interceptor.recording("p") as found:
        value = tf.random.uniform((4,))
    assert list(found) == ["RandomUniform"]
    assert not np.array_equal(value, _expected(lambda draws: draws.uniform((4,))))
