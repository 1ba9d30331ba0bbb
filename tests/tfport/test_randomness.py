"""randomness: every number a pure function of (seed, stream, step), the same bits wherever it is drawn."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from tfport import models, randomness
from tfport.randomness import MAX_SEED, MAX_STEP, initial_weights, normal, permutation, stateless_seed

SPEC = models.get("vanilla_gan")
SHAPE = (5, 7)
KEYS = list(itertools.product((0, 1, MAX_SEED), ("latent", "samples"), (0, 1, 2, 54_999, MAX_STEP)))


def test_noise_does_not_depend_on_the_order_of_calls() -> None:
    forwards = {key: normal(*key, SHAPE).tobytes() for key in KEYS}
    backwards = {key: normal(*key, SHAPE).tobytes() for key in reversed(KEYS)}
    assert forwards == backwards


def test_every_seed_stream_and_step_differs() -> None:
    assert len({normal(*key, SHAPE).tobytes() for key in KEYS}) == len(KEYS)
    assert len({stateless_seed(*key) for key in KEYS}) == len(KEYS)


def test_numpys_and_tensorflows_own_generators_are_left_alone() -> None:
    import tensorflow as tf

    np.random.seed(1)  # noqa: NPY002
    tf.random.set_seed(1)
    expected = np.random.rand(), float(tf.random.normal([]))  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    tf.random.set_seed(1)
    normal(0, "latent", 3, SHAPE)
    permutation(0, 0, 10)
    initial_weights(SPEC, 0)
    assert (np.random.rand(), float(tf.random.normal([]))) == expected  # noqa: NPY002


def test_float64_is_float32_widened() -> None:
    narrow, wide = normal(3, "latent", 4, SHAPE), normal(3, "latent", 4, SHAPE, "float64")
    assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
    assert np.array_equal(narrow.astype(np.float64), wide)


def test_the_same_bits_in_a_function_a_session_and_inside_a_foreign_graph() -> None:
    import tensorflow as tf

    expected = normal(11, "latent", 12, SHAPE).tobytes()

    def drawn(key: object) -> object:
        return tf.random.stateless_normal(SHAPE, key, dtype=tf.float32, alg="philox")

    key = stateless_seed(11, "latent", 12)
    assert tf.function(drawn)(tf.constant(key, tf.int64)).numpy().tobytes() == expected
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fed = tf.compat.v1.placeholder(tf.int64, [2])
        assert session.run(drawn(fed), {fed: key}).tobytes() == expected
        assert normal(11, "latent", 12, SHAPE).tobytes() == expected, "called while a v1 graph is the default"
        assert not [op for op in tf.compat.v1.get_default_graph().get_operations() if "Eager" in op.type]


def test_noise_is_standard_normal() -> None:
    values = normal(0, "latent", 0, (100_000,))
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02


def test_noise_is_pinned() -> None:
    """Runs that were begun before must go on to the same bits: these numbers may not change with a release."""
    expected = [float.fromhex(each) for each in ("0x1.1a9cfcp+0", "0x1.8f6a5p-1", "0x1.1213bcp-3", "0x1.3c7adap-1")]
    np.testing.assert_allclose(normal(0, "latent", 0, (4,)), expected, rtol=1e-6)  # libm may round the last bit
    assert permutation(0, 0, 10).tolist() == [4, 8, 1, 3, 0, 6, 9, 5, 2, 7]
    kernel = initial_weights(SPEC, 0)["generator/hidden/kernel"]
    expected = [float.fromhex(each) for each in ("0x1.e5d606p-11", "-0x1.ed2ad2p-9")]
    np.testing.assert_allclose(kernel[0, :2], expected, rtol=1e-6)


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (0, -1), (MAX_SEED + 1, 0), (0, MAX_STEP + 1)])
def test_seed_and_step_out_of_range_are_refused(seed: int, step: int) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        stateless_seed(seed, "latent", step)


@pytest.mark.parametrize("count", [1, 2, 1_500, 55_000])
def test_a_permutation_has_each_index_once(count: int) -> None:
    order = permutation(5, 3, count)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(count))


def test_permutations_differ_by_epoch_and_seed_and_by_nothing_else() -> None:
    orders = {(seed, epoch): permutation(seed, epoch, 100).tobytes() for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(set(orders.values())) == len(orders)
    assert permutation(0, 1, 100).tobytes() == orders[0, 1]


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    whole = initial_weights(SPEC, 7)
    assert list(whole) == list(SPEC.variable_shapes())
    turned = dataclasses.replace(SPEC, networks=SPEC.networks[::-1])
    for name, value in initial_weights(turned, 7).items():
        assert value.tobytes() == whole[name].tobytes()
    kernels = [name for name in whole if name.endswith("/kernel")]
    other = initial_weights(SPEC, 8)
    assert all(whole[name].tobytes() != other[name].tobytes() for name in kernels)
    assert len({whole[name].ravel()[:8].tobytes() for name in kernels}) == len(kernels)


def test_initial_weights_have_the_specs_shapes_and_deviations() -> None:
    for name, value in initial_weights(SPEC, 0).items():
        assert value.shape == SPEC.variable_shapes()[name]
        assert value.dtype == np.float32
        if name.endswith("/bias"):
            assert not value.any()
        else:
            assert value.std() == pytest.approx(SPEC.kernel_stddev(name), rel=0.1)


def test_initial_weights_in_float64_are_those_of_float32_widened() -> None:
    narrow, wide = (initial_weights(SPEC, 0, precision) for precision in ("float32", "float64"))
    assert all(np.array_equal(narrow[name].astype(np.float64), wide[name]) for name in wide)
    assert {value.dtype for value in wide.values()} == {np.dtype("float64")}


def test_streams_fill_the_key_without_touching_each_other() -> None:
    for stream in ("latent", "samples", "", "x" * 99):
        low, high = (stateless_seed(0, stream, step)[1] for step in (0, MAX_STEP))
        assert high - low == MAX_STEP
        assert 0 <= low <= high < 2**63
    assert randomness.MAX_STEP == 2**31 - 1
