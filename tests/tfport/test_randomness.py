"""randomness: every number a pure function of (seed, stream, step), the same bits wherever it is drawn."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfport import models, randomness
from tfport.models.spec import (
    Constant,
    Conv,
    Dense,
    GlorotUniform,
    Initialiser,
    Layer,
    ModelSpec,
    Network,
    Normal,
    Uniform,
)
from tfport.randomness import (
    MAX_SEED,
    MAX_STEP,
    initial_weights,
    normal,
    one_hot,
    permutation,
    stateless_seed,
    uniform,
    with_replacement,
)

Array = np.ndarray[Any, Any]
SPEC = models.get("vanilla_gan")
SHAPE = (5, 7)
DRAWS = pytest.mark.parametrize("draw", [normal, uniform, one_hot])
Draw = Callable[..., Array]
KEYS = list(itertools.product((0, 1, MAX_SEED), ("latent", "samples"), (0, 1, 2, 54_999, MAX_STEP)))


@DRAWS
def test_noise_does_not_depend_on_the_order_of_calls(draw: Draw) -> None:
    forwards = {key: draw(*key, SHAPE).tobytes() for key in KEYS}
    backwards = {key: draw(*key, SHAPE).tobytes() for key in reversed(KEYS)}
    assert forwards == backwards


@DRAWS
def test_every_seed_stream_and_step_differs(draw: Draw) -> None:
    assert len({draw(*key, (50, 7)).tobytes() for key in KEYS}) == len(KEYS)
    assert len({stateless_seed(*key) for key in KEYS}) == len(KEYS)


def test_numpys_and_tensorflows_own_generators_are_left_alone() -> None:
    import tensorflow as tf

    np.random.seed(1)  # noqa: NPY002
    tf.random.set_seed(1)
    expected = np.random.rand(), float(tf.random.normal([]))  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    tf.random.set_seed(1)
    normal(0, "latent", 3, SHAPE)
    uniform(0, "codes", 3, SHAPE)
    one_hot(0, "category", 3, SHAPE)
    permutation(0, 0, 10)
    with_replacement(0, 0, 10, 5)
    initial_weights(SPEC, 0)
    initial_weights(models.get("batchnorm_gan"), 0)
    assert (np.random.rand(), float(tf.random.normal([]))) == expected  # noqa: NPY002


@DRAWS
def test_float64_is_float32_widened(draw: Draw) -> None:
    narrow, wide = draw(3, "latent", 4, SHAPE), draw(3, "latent", 4, SHAPE, "float64")
    assert narrow.shape == wide.shape == SHAPE
    assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
    assert np.array_equal(narrow.astype(np.float64), wide)


@pytest.mark.parametrize(
    ("draw", "op", "options"),
    [(normal, "stateless_normal", {}), (uniform, "stateless_uniform", {"minval": -1.0, "maxval": 1.0})],
)
def test_the_same_bits_in_a_function_a_session_and_inside_a_foreign_graph(
    draw: Draw, op: str, options: dict[str, float]
) -> None:
    import tensorflow as tf

    expected = draw(11, "latent", 12, SHAPE).tobytes()

    def drawn(key: object) -> object:
        return getattr(tf.random, op)(SHAPE, key, dtype=tf.float32, alg="philox", **options)

    key = stateless_seed(11, "latent", 12)
    assert tf.function(drawn)(tf.constant(key, tf.int64)).numpy().tobytes() == expected
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fed = tf.compat.v1.placeholder(tf.int64, [2])
        assert session.run(drawn(fed), {fed: key}).tobytes() == expected
        assert draw(11, "latent", 12, SHAPE).tobytes() == expected, "called while a v1 graph is the default"
        assert not [op for op in tf.compat.v1.get_default_graph().get_operations() if "Eager" in op.type]


def test_noise_is_standard_normal() -> None:
    values = normal(0, "latent", 0, (100_000,))
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02


def test_uniform_noise_fills_its_range_evenly() -> None:
    values = uniform(0, "codes", 0, (100_000,))
    assert values.min() >= -1
    assert values.max() < 1
    counts, _ = np.histogram(values, 20, (-1, 1))
    assert abs(counts / 5_000 - 1).max() < 0.06
    assert values.tobytes() != uniform(0, "latent", 0, (100_000,)).tobytes()


def test_each_row_has_a_single_one_and_each_place_its_share() -> None:
    rows = one_hot(0, "category", 0, (20_000, 10))
    assert set(np.unique(rows)) == {0, 1}
    assert (rows.sum(1) == 1).all()
    assert abs(rows.mean(0) / 0.1 - 1).max() < 0.1
    assert one_hot(0, "category", 0, (3, 1)).tolist() == [[1], [1], [1]]


def test_categories_are_the_same_inside_a_foreign_graph() -> None:
    import tensorflow as tf

    expected = one_hot(5, "category", 6, SHAPE).tobytes()
    with tf.Graph().as_default():
        assert one_hot(5, "category", 6, SHAPE).tobytes() == expected


def test_noise_is_pinned() -> None:
    """Runs that were begun before must go on to the same bits: these numbers may not change with a release."""
    expected = [float.fromhex(each) for each in ("0x1.1a9cfcp+0", "0x1.8f6a5p-1", "0x1.1213bcp-3", "0x1.3c7adap-1")]
    np.testing.assert_allclose(normal(0, "latent", 0, (4,)), expected, rtol=1e-6)  # libm may round the last bit
    assert permutation(0, 0, 10).tolist() == [4, 8, 1, 3, 0, 6, 9, 5, 2, 7]
    assert with_replacement(0, 0, 1_000, 6).tolist() == [974, 222, 237, 307, 156, 918]
    assert one_hot(0, "category", 0, (8, 10)).argmax(1).tolist() == [3, 6, 1, 2, 4, 3, 1, 5]
    expected = [float.fromhex(each) for each in ("-0x1.3d57ap-3", "-0x1.53e82p-2", "-0x1.1156dp-1", "0x1.4858c8p-1")]
    np.testing.assert_allclose(uniform(0, "codes", 0, (4,)), expected, rtol=1e-6)
    kernel = initial_weights(SPEC, 0)["generator/hidden/kernel"]
    expected = [float.fromhex(each) for each in ("0x1.e5d606p-11", "-0x1.ed2ad2p-9")]
    np.testing.assert_allclose(kernel[0, :2], expected, rtol=1e-6)
    kernel = initial_weights(models.get("batchnorm_gan"), 0)["generator/hidden2/kernel"]
    expected = [float.fromhex(each) for each in ("0x1.258d38p-4", "-0x1.dcee9p-5")]
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


def test_a_draw_with_replacement_is_a_function_of_seed_and_step() -> None:
    keys = [(seed, step) for seed in (0, 1, MAX_SEED) for step in (0, 1, 2, 19_999, MAX_STEP)]
    forwards = {key: with_replacement(*key, 60_000, 64).tobytes() for key in keys}
    assert forwards == {key: with_replacement(*key, 60_000, 64).tobytes() for key in reversed(keys)}
    assert len(set(forwards.values())) == len(keys)


def test_a_draw_with_replacement_takes_every_index_alike_and_some_twice() -> None:
    drawn = with_replacement(0, 0, 50, 100_000)
    assert drawn.dtype == np.int64
    assert drawn.shape == (100_000,)
    counts = np.bincount(drawn, minlength=50)
    assert len(counts) == 50
    assert abs(counts / 2_000 - 1).max() < 0.1
    assert len(set(with_replacement(0, 1, 100, 100).tolist())) < 100
    assert with_replacement(0, 0, 1, 3).tolist() == [0, 0, 0]


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


def of(layer: Layer) -> ModelSpec:
    """A model of that layer alone."""
    return dataclasses.replace(SPEC, networks=(Network("network", (layer,)),))


def test_initial_weights_have_the_specs_shapes_and_deviations() -> None:
    for model in ("vanilla_gan", "batchnorm_gan", "torch_gan"):
        spec = models.get(model)
        found = initial_weights(spec, 0)
        assert list(found) == list(spec.variables())
        for name, each in spec.variables().items():
            assert found[name].shape == each.shape
            assert found[name].dtype == np.float32
            if isinstance(each.initialiser, Constant):
                assert set(found[name].ravel()) == {np.float32(each.initialiser.value)}
            elif isinstance(each.initialiser, Normal):
                assert found[name].std() == pytest.approx(each.initialiser.stddev, rel=0.1)
                assert abs(found[name]).max() > 2.5 * each.initialiser.stddev


CONV = Conv("conv", 32, 64, size=3, stride=2, side=7, activation="linear")


@pytest.mark.parametrize(
    ("layer", "limit"),
    [
        (Dense("dense", 300, 200, "relu"), math.sqrt(6 / 500)),
        (Dense("dense", 300, 200, "relu", Uniform(0.25)), 0.25),
        (CONV, math.sqrt(6 / (9 * 32 + 9 * 64))),
        (dataclasses.replace(CONV, transposed=True), math.sqrt(6 / (9 * 64 + 9 * 32))),
        (dataclasses.replace(CONV, inputs=1, size=5), math.sqrt(6 / (25 * 1 + 25 * 64))),
    ],
    ids=["glorot", "uniform", "conv", "transposed", "wide window"],
)
def test_uniform_weights_fill_their_limits_and_no_more(layer: Layer, limit: float) -> None:
    values = initial_weights(of(layer), 3)[f"network/{layer.name}/kernel"]
    assert values.shape == layer.variables()["kernel"].shape
    assert abs(values).max() <= np.float32(limit)
    assert values.max() > 0.99 * limit
    assert values.min() < -0.99 * limit
    counts, _ = np.histogram(values, 10, (-limit, limit))
    assert abs(counts / (values.size / 10) - 1).max() < 0.3


@pytest.mark.parametrize(
    "initialiser", [Normal(0.5), Uniform(0.5), GlorotUniform()], ids=lambda each: type(each).__name__
)
def test_every_variable_of_an_initialiser_has_numbers_of_its_own(initialiser: Initialiser) -> None:
    spec = of(Dense("dense", 20, 20, "relu", initialiser, Uniform(0.5)))
    found = initial_weights(spec, 0)
    assert found["network/dense/kernel"][0].tobytes() != found["network/dense/bias"].tobytes()
    other = initial_weights(spec, 1)
    assert all(found[name].tobytes() != other[name].tobytes() for name in found)


def test_initial_weights_in_float64_are_those_of_float32_widened() -> None:
    for spec in (SPEC, models.get("batchnorm_gan"), models.get("torch_gan")):
        narrow, wide = (initial_weights(spec, 0, precision) for precision in ("float32", "float64"))
        assert all(np.array_equal(narrow[name].astype(np.float64), wide[name]) for name in wide)
        assert {value.dtype for value in wide.values()} == {np.dtype("float64")}


def test_streams_fill_the_key_without_touching_each_other() -> None:
    for stream in ("latent", "samples", "", "x" * 99):
        low, high = (stateless_seed(0, stream, step)[1] for step in (0, MAX_STEP))
        assert high - low == MAX_STEP
        assert 0 <= low <= high < 2**63
    assert randomness.MAX_STEP == 2**31 - 1
