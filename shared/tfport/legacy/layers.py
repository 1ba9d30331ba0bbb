"""tf.contrib.layers: what was used most, with the defaults, variable names and collections of TensorFlow 1.15.

Written on tf.compat.v1's ops alone, so Keras takes no part. Layers are computed in NHWC. Source of each function:
TensorFlow 1.15, tensorflow/contrib/layers/python/layers/{layers,initializers,regularizers}.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow.compat.v1 as tf

from tfport.legacy.scopes import add_arg_scope

Size = int | Sequence[int]
_UPDATE_OPS = tf.GraphKeys.UPDATE_OPS


# --- Initializers -----------------------------------------------------------------------------------------------------
def variance_scaling_initializer(
    factor: float = 2.0, mode: str = "FAN_IN", uniform: bool = False, seed: int | None = None, dtype: Any = tf.float32
) -> Callable[..., Any]:
    """Draws with variance factor / n, where n counts inputs, outputs or the mean of both.

    A normal distribution is cut at two deviations, and contrib widens it by 1.3 (tf.variance_scaling_initializer by
    1 / .8796²), so the two differ in their last digits.

    Raises:
      TypeError: the mode is none of FAN_IN, FAN_OUT and FAN_AVG.
    """
    if mode not in ("FAN_IN", "FAN_OUT", "FAN_AVG"):
        raise TypeError(f"Unknown mode {mode} [FAN_IN, FAN_OUT, FAN_AVG]")

    def initializer(shape: Any, dtype: Any = dtype, partition_info: Any = None) -> Any:
        del partition_info
        sizes = [float(size) for size in tf.TensorShape(shape).as_list()]
        field = math.prod(sizes[:-2])
        inputs = field * sizes[-2] if len(sizes) > 1 else (sizes or [1.0])[-1]
        outputs = field * (sizes or [1.0])[-1]
        n = {"FAN_IN": inputs, "FAN_OUT": outputs, "FAN_AVG": (inputs + outputs) / 2}[mode]
        if uniform:
            limit = math.sqrt(3 * factor / n)
            return tf.random_uniform(shape, -limit, limit, dtype, seed=seed)
        return tf.truncated_normal(shape, 0.0, math.sqrt(1.3 * factor / n), dtype, seed=seed)

    return initializer


def xavier_initializer(uniform: bool = True, seed: int | None = None, dtype: Any = tf.float32) -> Callable[..., Any]:
    """Draws with variance 2 / (inputs + outputs)."""
    return variance_scaling_initializer(1.0, "FAN_AVG", uniform, seed, dtype)


xavier_initializer_conv2d = xavier_initializer


# --- Regularizers -----------------------------------------------------------------------------------------------------
def _regularizer(scale: float, norm: Callable[[Any], Any], scope: str) -> Callable[[Any], Any]:
    if isinstance(scale, int):
        raise ValueError(f"scale cannot be an integer: {scale}")
    if isinstance(scale, float) and scale < 0:
        raise ValueError(f"Setting a scale less than 0 on a regularizer: {scale}")
    if isinstance(scale, float) and scale == 0:
        return lambda _: None

    def regularize(weights: Any) -> Any:
        with tf.name_scope(scope, values=[weights]):
            return tf.multiply(tf.cast(scale, weights.dtype.base_dtype), norm(weights))

    return regularize


def l1_regularizer(scale: float, scope: str | None = None) -> Callable[[Any], Any]:
    """The function that gives scale * sum(|weights|)."""
    return _regularizer(scale, lambda weights: tf.reduce_sum(tf.abs(weights)), scope or "l1_regularizer")


def l2_regularizer(scale: float, scope: str | None = None) -> Callable[[Any], Any]:
    """The function that gives scale * sum(weights²) / 2: half of what Keras's L2(scale) gives."""
    return _regularizer(scale, tf.nn.l2_loss, scope or "l2_regularizer")


def sum_regularizer(
    regularizer_list: Sequence[Callable[[Any], Any] | None], scope: str | None = None
) -> Callable[[Any], Any] | None:
    """The function that gives the sum of some regularizers; None where there is none."""
    regularizers = [each for each in regularizer_list if each is not None]
    if not regularizers:
        return None

    def regularize(weights: Any) -> Any:
        with tf.name_scope(scope or "sum_regularizer", values=[weights]):
            terms = [term for each in regularizers if (term := each(weights)) is not None]
            return tf.add_n(terms) if terms else None

    return regularize


def l1_l2_regularizer(
    scale_l1: float = 1.0, scale_l2: float = 1.0, scope: str | None = None
) -> Callable[[Any], Any] | None:
    """The sum of `l1_regularizer` and `l2_regularizer`."""
    return sum_regularizer([l1_regularizer(scale_l1), l2_regularizer(scale_l2)], scope or "l1_l2_regularizer")


def apply_regularization(regularizer: Callable[[Any], Any], weights_list: Sequence[Any] | None = None) -> Any:
    """The regularizer's sum over weights (by default the collection WEIGHTS), added to REGULARIZATION_LOSSES.

    Raises:
      ValueError: there are no weights.
    """
    weights = list(weights_list or tf.get_collection(tf.GraphKeys.WEIGHTS))
    if not weights:
        raise ValueError("No weights to regularize.")
    terms = [tf.constant(0.0) if (term := regularizer(each)) is None else term for each in weights]
    total = tf.add_n(terms, name="get_regularization_penalty")
    tf.add_to_collection(tf.GraphKeys.REGULARIZATION_LOSSES, total)
    return total


# --- What layers share ------------------------------------------------------------------------------------------------
@add_arg_scope
def model_variable(
    name: str,
    shape: Any = None,
    dtype: Any = tf.float32,
    initializer: Any = None,
    regularizer: Any = None,
    trainable: bool = True,
    collections: Any = None,
) -> Any:
    """A variable of tf.get_variable, also in the collection MODEL_VARIABLES."""
    named = [collections] if isinstance(collections, str) else list(collections or ())
    known = [tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.MODEL_VARIABLES]
    return tf.get_variable(name, shape, dtype, initializer, regularizer, trainable, list(dict.fromkeys(named + known)))


def _collections(given: Any, name: str) -> Any:
    return given.get(name) if isinstance(given, dict) else given


def _collected(collections: Any, scope: Any, outputs: Any) -> Any:
    """The outputs, put into collections under the scope's name."""
    if collections:
        outputs.aliases = [*getattr(outputs, "aliases", ()), getattr(scope, "name", scope).rstrip("/")]
        tf.add_to_collections([collections] if isinstance(collections, str) else collections, outputs)
    return outputs


def _pair(size: Size) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size) * (2 if len(size) == 1 else 1)


def _nhwc(data_format: str | None) -> None:
    if data_format not in (None, "NHWC"):
        raise ValueError(f"data_format={data_format!r}: tfport.legacy computes in NHWC alone, as a CPU does")


def _activated(outputs: Any, bias: Any, normalizer_fn: Any, normalizer_params: Any, activation_fn: Any) -> Any:
    """Bias or normalizer, then the activation."""
    if normalizer_fn is not None:
        outputs = normalizer_fn(outputs, **(normalizer_params or {}))
    elif bias is not None:
        outputs = tf.nn.bias_add(outputs, bias)
    return outputs if activation_fn is None else activation_fn(outputs)


def _bias(size: int, dtype: Any, normalizer_fn: Any, initializer: Any, regularizer: Any, more: dict[str, Any]) -> Any:
    """The variable "biases"; None where a normalizer takes its place or there is no initializer."""
    if normalizer_fn is not None or initializer is None:
        return None
    found = {**more, "collections": _collections(more["collections"], "biases")}
    return model_variable("biases", [size], dtype, initializer, regularizer, **found)


def _weights(name: str, shape: list[int], dtype: Any, initializer: Any, regularizer: Any, more: dict[str, Any]) -> Any:
    found = {**more, "collections": _collections(more["collections"], "weights")}
    return model_variable(name, shape, dtype, initializer, regularizer, **found)


# --- Layers -----------------------------------------------------------------------------------------------------------
@add_arg_scope
def fully_connected(
    inputs: Any,
    num_outputs: int,
    activation_fn: Any = tf.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: Any = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008  contrib's own default
    weights_regularizer: Any = None,
    biases_initializer: Any = tf.zeros_initializer(),  # noqa: B008
    biases_regularizer: Any = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool = True,
    scope: Any = None,
) -> Any:
    """inputs @ weights, then biases or a normalizer, then relu; on the last axis of inputs of any rank."""
    with tf.variable_scope(scope, "fully_connected", [inputs], reuse=reuse) as sc:
        inputs = tf.convert_to_tensor(inputs)
        size, dtype, more = inputs.shape[-1], inputs.dtype.base_dtype, _more(trainable, variables_collections)
        weights = _weights("weights", [size, num_outputs], dtype, weights_initializer, weights_regularizer, more)
        bias = _bias(num_outputs, dtype, normalizer_fn, biases_initializer, biases_regularizer, more)
        if inputs.shape.rank == 2:
            outputs = tf.matmul(inputs, weights)
        else:
            outputs = tf.tensordot(inputs, weights, [[inputs.shape.rank - 1], [0]])
            outputs.set_shape([*inputs.shape[:-1], num_outputs])
        outputs = _activated(outputs, bias, normalizer_fn, normalizer_params, activation_fn)
        return _collected(outputs_collections, sc, outputs)


def _more(trainable: bool, collections: Any) -> dict[str, Any]:
    return {"trainable": trainable, "collections": collections}


@add_arg_scope
def convolution2d(
    inputs: Any,
    num_outputs: int,
    kernel_size: Size,
    stride: Size = 1,
    padding: str = "SAME",
    data_format: str | None = None,
    rate: Size = 1,
    activation_fn: Any = tf.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: Any = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008
    weights_regularizer: Any = None,
    biases_initializer: Any = tf.zeros_initializer(),  # noqa: B008
    biases_regularizer: Any = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool = True,
    scope: Any = None,
) -> Any:
    """A convolution with weights [height, width, inputs, outputs], then biases or a normalizer, then relu."""
    _nhwc(data_format)
    with tf.variable_scope(scope, "Conv", [inputs], reuse=reuse) as sc:
        inputs = tf.convert_to_tensor(inputs)
        dtype, more = inputs.dtype.base_dtype, _more(trainable, variables_collections)
        shape = [*_pair(kernel_size), inputs.shape[-1], num_outputs]
        weights = _weights("weights", shape, dtype, weights_initializer, weights_regularizer, more)
        bias = _bias(num_outputs, dtype, normalizer_fn, biases_initializer, biases_regularizer, more)
        outputs = tf.nn.conv2d(inputs, weights, _pair(stride), padding.upper(), dilations=_pair(rate))
        outputs = _activated(outputs, bias, normalizer_fn, normalizer_params, activation_fn)
        return _collected(outputs_collections, sc, outputs)


@add_arg_scope
def convolution2d_transpose(
    inputs: Any,
    num_outputs: int,
    kernel_size: Size,
    stride: Size = 1,
    padding: str = "SAME",
    data_format: str = "NHWC",
    activation_fn: Any = tf.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: Any = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008
    weights_regularizer: Any = None,
    biases_initializer: Any = tf.zeros_initializer(),  # noqa: B008
    biases_regularizer: Any = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool = True,
    scope: Any = None,
) -> Any:
    """A transposed convolution, weights [height, width, outputs, inputs], then biases or a normalizer, then relu."""
    _nhwc(data_format)
    with tf.variable_scope(scope, "Conv2d_transpose", [inputs], reuse=reuse) as sc:
        inputs = tf.convert_to_tensor(inputs)
        dtype, more = inputs.dtype.base_dtype, _more(trainable, variables_collections)
        kernel, strides = _pair(kernel_size), _pair(stride)
        shape = [*kernel, num_outputs, inputs.shape[-1]]
        weights = _weights("weights", shape, dtype, weights_initializer, weights_regularizer, more)
        bias = _bias(num_outputs, dtype, normalizer_fn, biases_initializer, biases_regularizer, more)
        beyond = [max(k - s, 0) if padding.upper() == "VALID" else 0 for k, s in zip(kernel, strides, strict=True)]
        sizes, dynamic = inputs.shape.as_list(), tf.shape(inputs)
        spatial = [
            (dynamic[axis + 1] if sizes[axis + 1] is None else sizes[axis + 1]) * strides[axis] + beyond[axis]
            for axis in (0, 1)
        ]
        outputs = tf.nn.conv2d_transpose(
            inputs, weights, tf.stack([dynamic[0], *spatial, num_outputs]), strides, padding.upper()
        )
        known = [None if tf.is_tensor(size) else size for size in spatial]
        outputs.set_shape([sizes[0], *known, num_outputs])
        outputs = _activated(outputs, bias, normalizer_fn, normalizer_params, activation_fn)
        return _collected(outputs_collections, sc, outputs)


@add_arg_scope
def separable_convolution2d(
    inputs: Any,
    num_outputs: int | None,
    kernel_size: Size,
    depth_multiplier: int = 1,
    stride: Size = 1,
    padding: str = "SAME",
    data_format: str = "NHWC",
    rate: Size = 1,
    activation_fn: Any = tf.nn.relu,
    normalizer_fn: Any = None,
    normalizer_params: Any = None,
    weights_initializer: Any = xavier_initializer(),  # noqa: B008
    pointwise_initializer: Any = None,
    weights_regularizer: Any = None,
    biases_initializer: Any = tf.zeros_initializer(),  # noqa: B008
    biases_regularizer: Any = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool = True,
    scope: Any = None,
) -> Any:
    """A depthwise convolution, and where `num_outputs` is not None a pointwise one, then biases or a normalizer."""
    _nhwc(data_format)
    with tf.variable_scope(scope, "SeparableConv2d", [inputs], reuse=reuse) as sc:
        inputs = tf.convert_to_tensor(inputs)
        dtype, more = inputs.dtype.base_dtype, _more(trainable, variables_collections)
        channels, strides, rates = inputs.shape[-1], [1, *_pair(stride), 1], _pair(rate)
        shape = [*_pair(kernel_size), channels, depth_multiplier]
        depthwise = _weights("depthwise_weights", shape, dtype, weights_initializer, weights_regularizer, more)
        if num_outputs is None:
            outputs = tf.nn.depthwise_conv2d(inputs, depthwise, strides, padding.upper(), rates)
        else:
            shape = [1, 1, channels * depth_multiplier, num_outputs]
            initializer = pointwise_initializer or weights_initializer
            pointwise = _weights("pointwise_weights", shape, dtype, initializer, weights_regularizer, more)
            outputs = tf.nn.separable_conv2d(inputs, depthwise, pointwise, strides, padding.upper(), rates)
        bias = _bias(outputs.shape[-1], dtype, normalizer_fn, biases_initializer, biases_regularizer, more)
        outputs = _activated(outputs, bias, normalizer_fn, normalizer_params, activation_fn)
        return _collected(outputs_collections, sc, outputs)


@add_arg_scope
def batch_norm(
    inputs: Any,
    decay: float = 0.999,
    center: bool = True,
    scale: bool = False,
    epsilon: float = 0.001,
    activation_fn: Any = None,
    param_initializers: Any = None,
    param_regularizers: Any = None,
    updates_collections: Any = _UPDATE_OPS,
    is_training: Any = True,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool = True,
    batch_weights: Any = None,
    fused: bool | None = None,
    data_format: str = "NHWC",
    zero_debias_moving_mean: bool = False,
    scope: Any = None,
    renorm: bool = False,
    renorm_clipping: Any = None,
    renorm_decay: float = 0.99,
    adjustment: Any = None,
) -> Any:
    """Batch normalization over all axes but the last.

    Inputs of rank 2 and 4 go through the fused op, unless `fused` is False: then the moving variance gets
    n / (n - 1) times the batch's. The averages are moved by ops in `updates_collections`, or before the output is
    computed where that is None. `is_training` may be a tensor.

    Raises:
      ValueError: batch_weights, renorm, adjustment or zero_debias_moving_mean is asked for, which this has not.
    """
    del renorm_clipping, renorm_decay
    _nhwc(data_format)
    lacking = {
        "batch_weights": batch_weights is not None,
        "renorm": renorm,
        "adjustment": adjustment is not None,
        "zero_debias_moving_mean": zero_debias_moving_mean,
    }
    if any(lacking.values()):
        name = next(name for name, asked in lacking.items() if asked)
        raise ValueError(
            f"batch_norm({name}=...) has no stand-in in tfport.legacy; leave it out, or record the original"
        )
    with tf.variable_scope(scope, "BatchNorm", [inputs], reuse=reuse) as sc:
        inputs = tf.convert_to_tensor(inputs)
        through = fused is not False and inputs.shape.rank in (2, 4)
        dtype = tf.float32 if through else inputs.dtype.base_dtype

        def variable(name: str, initializer: Any, learned: bool) -> Any:
            return model_variable(
                name,
                [inputs.shape[-1]],
                dtype,
                (param_initializers or {}).get(name, initializer),
                (param_regularizers or {}).get(name),
                learned,
                _collections(variables_collections, name),
            )

        zeros, ones = tf.zeros_initializer(), tf.ones_initializer()
        beta = variable("beta", zeros, trainable) if center else None
        gamma = variable("gamma", ones, trainable) if scale else None
        moving = variable("moving_mean", zeros, False), variable("moving_variance", ones, False)
        normalize = _fused if through else _moments
        outputs, *moments = _if(
            is_training,
            lambda: normalize(inputs, beta, gamma, None, epsilon),
            lambda: normalize(inputs, beta, gamma, moving, epsilon),
        )
        if tf.get_static_value(is_training) is not False and is_training is not False:
            outputs = _moved(outputs, moving, moments, decay, is_training, updates_collections)
        outputs.set_shape(inputs.shape)
        return _collected(outputs_collections, sc, outputs if activation_fn is None else activation_fn(outputs))


def _if(condition: Any, true: Callable[[], Any], false: Callable[[], Any]) -> Any:
    """One of two results: chosen now where the condition is known, else in the graph."""
    known = condition if isinstance(condition, bool | int) else tf.get_static_value(condition)
    if known is None:
        return tf.cond(tf.cast(condition, tf.bool), true, false)
    return true() if known else false()


def _fused(inputs: Any, beta: Any, gamma: Any, moving: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """Normalized inputs of rank 2 or 4, and the batch's mean and n / (n - 1) times its variance."""
    size = [inputs.shape[-1]]
    images = inputs if inputs.shape.rank == 4 else tf.reshape(inputs, [-1, 1, 1, *size])
    beta = tf.zeros(size) if beta is None else beta
    gamma = tf.ones(size) if gamma is None else gamma
    mean, variance = moving or (None, None)
    outputs, *moments = tf.nn.fused_batch_norm(images, gamma, beta, mean, variance, epsilon, is_training=moving is None)
    return outputs if inputs.shape.rank == 4 else tf.reshape(outputs, tf.shape(inputs)), *moments


def _moments(inputs: Any, beta: Any, gamma: Any, moving: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """Normalized inputs, and the batch's mean and variance."""
    mean, variance = moving or tf.nn.moments(inputs, list(range(inputs.shape.rank - 1)))
    outputs = tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, epsilon)
    return outputs, tf.identity(mean), tf.identity(variance)


def _moved(outputs: Any, moving: Any, moments: Any, decay: float, is_training: Any, collections: Any) -> Any:
    """The outputs; the averages are moved by ops of a collection, or before the outputs are there."""

    def move() -> list[Any]:
        return [
            tf.assign_sub(average, (average - moment) * (1.0 - decay))
            for average, moment in zip(moving, moments, strict=True)
        ]

    def moved_before() -> Any:
        with tf.control_dependencies(move()):
            return tf.identity(outputs)

    if collections is None:
        return _if(is_training, moved_before, lambda: tf.identity(outputs))
    for update in _if(is_training, move, lambda: [tf.identity(average) for average in moving]):
        tf.add_to_collections([collections] if isinstance(collections, str) else collections, update)
    return outputs


@add_arg_scope
def layer_norm(
    inputs: Any,
    center: bool = True,
    scale: bool = True,
    activation_fn: Any = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool = True,
    begin_norm_axis: int = 1,
    begin_params_axis: int = -1,
    scope: Any = None,
) -> Any:
    """Normalization of each example over its axes from `begin_norm_axis` on, with epsilon 1e-12."""
    with tf.variable_scope(scope, "LayerNorm", [inputs], reuse=reuse) as sc:
        inputs = tf.convert_to_tensor(inputs)
        shape, dtype = inputs.shape[begin_params_axis:], inputs.dtype.base_dtype

        def variable(name: str, initializer: Any) -> Any:
            found = _collections(variables_collections, name)
            return model_variable(name, shape, dtype, initializer, trainable=trainable, collections=found)

        beta = variable("beta", tf.zeros_initializer()) if center else None
        gamma = variable("gamma", tf.ones_initializer()) if scale else None
        axes = list(range(begin_norm_axis % inputs.shape.rank, inputs.shape.rank))
        mean, variance = tf.nn.moments(inputs, axes, keep_dims=True)
        epsilon = 1e-3 if dtype == tf.float16 else 1e-12
        outputs = tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, epsilon)
        return _collected(outputs_collections, sc, outputs if activation_fn is None else activation_fn(outputs))


@add_arg_scope
def dropout(
    inputs: Any,
    keep_prob: Any = 0.5,
    noise_shape: Any = None,
    is_training: Any = True,
    outputs_collections: Any = None,
    scope: str | None = None,
    seed: int | None = None,
) -> Any:
    """Keeps each element with probability `keep_prob` and divides it by that; the inputs where it does not train."""
    with tf.variable_scope(scope, "Dropout", [inputs]) as sc:
        inputs = tf.convert_to_tensor(inputs)
        outputs = _if(
            is_training,
            lambda: tf.nn.dropout(inputs, rate=1 - keep_prob, noise_shape=noise_shape, seed=seed),
            lambda: tf.identity(inputs),
        )
        return _collected(outputs_collections, sc, outputs)


@add_arg_scope
def flatten(inputs: Any, outputs_collections: Any = None, scope: str | None = None) -> Any:
    """[batch, ...] as [batch, k]."""
    with tf.name_scope(scope, "Flatten", [inputs]) as sc:
        inputs = tf.convert_to_tensor(inputs)
        sizes = inputs.shape.as_list()
        known = None not in sizes[1:]
        outputs = tf.reshape(inputs, [-1, math.prod(sizes[1:])] if known else [tf.shape(inputs)[0], -1])
        outputs.set_shape([sizes[0], math.prod(sizes[1:]) if known else None])
        return _collected(outputs_collections, sc, outputs)


def _pooling(pool: Any, name: str) -> Any:
    def pooled(
        inputs: Any,
        kernel_size: Size,
        stride: Size = 2,
        padding: str = "VALID",
        data_format: str = "NHWC",
        outputs_collections: Any = None,
        scope: str | None = None,
    ) -> Any:
        _nhwc(data_format)
        with tf.name_scope(scope, name, [inputs]) as sc:
            outputs = pool(inputs, _pair(kernel_size), _pair(stride), padding.upper())
            return _collected(outputs_collections, sc, outputs)

    return pooled


def _named(function: Any, name: str, text: str) -> Any:
    function.__name__, function.__doc__ = name, text
    return add_arg_scope(function)


max_pool2d = _named(_pooling(tf.nn.max_pool, "MaxPool2D"), "max_pool2d", "The largest of each window; stride 2, VALID.")
avg_pool2d = _named(_pooling(tf.nn.avg_pool, "AvgPool2D"), "avg_pool2d", "The mean of each window; stride 2, VALID.")


@add_arg_scope
def bias_add(
    inputs: Any,
    activation_fn: Any = None,
    initializer: Any = tf.zeros_initializer(),  # noqa: B008
    regularizer: Any = None,
    reuse: Any = None,
    variables_collections: Any = None,
    outputs_collections: Any = None,
    trainable: bool = True,
    data_format: str = "NHWC",
    scope: Any = None,
) -> Any:
    """Adds the variable "biases"."""
    _nhwc(data_format)
    with tf.variable_scope(scope, "BiasAdd", [inputs], reuse=reuse) as sc:
        inputs = tf.convert_to_tensor(inputs)
        more = _more(trainable, variables_collections)
        bias = _bias(inputs.shape[-1], inputs.dtype.base_dtype, None, initializer, regularizer, more)
        return _collected(outputs_collections, sc, _activated(inputs, bias, None, None, activation_fn))


@add_arg_scope
def one_hot_encoding(
    labels: Any,
    num_classes: int,
    on_value: float = 1.0,
    off_value: float = 0.0,
    outputs_collections: Any = None,
    scope: str | None = None,
) -> Any:
    """Labels [batch] as [batch, num_classes]."""
    with tf.name_scope(scope, "OneHotEncoding", [labels]) as sc:
        labels = tf.cast(tf.convert_to_tensor(labels), tf.int64)
        return _collected(outputs_collections, sc, tf.one_hot(labels, num_classes, on_value, off_value))


# --- Layers of layers -------------------------------------------------------------------------------------------------
def repeat(inputs: Any, repetitions: int, layer: Any, *args: Any, **kwargs: Any) -> Any:
    """Applies a layer several times, in scopes "conv1/conv1_1", "conv1/conv1_2" where scope="conv1" is given."""
    return _stacked(inputs, "Repeat", layer, [args] * repetitions, "repeat", kwargs)


def stack(inputs: Any, layer: Any, stack_args: Sequence[Any], **kwargs: Any) -> Any:
    """Applies a layer with one entry of `stack_args` after the other, in scopes "fc/fc_1", "fc/fc_2"."""
    listed = [each if isinstance(each, list | tuple) else [each] for each in stack_args]
    return _stacked(inputs, "Stack", layer, listed, "stack", kwargs)


def _stacked(outputs: Any, default: str, layer: Any, calls: Sequence[Any], nameless: str, kwargs: Any) -> Any:
    scope = kwargs.pop("scope", None)
    with tf.variable_scope(scope, default, [outputs]):
        if scope is None:
            scope = getattr(layer, "__name__", None) or getattr(getattr(layer, "func", None), "__name__", nameless)
        for number, args in enumerate(calls, 1):
            outputs = layer(outputs, *args, **{**kwargs, "scope": f"{scope}_{number}"})
        return outputs


conv2d = convolution2d
conv2d_transpose = convolution2d_transpose
separable_conv2d = separable_convolution2d


linear = functools.partial(fully_connected, activation_fn=None)
relu = functools.partial(fully_connected, activation_fn=tf.nn.relu)
relu6 = functools.partial(fully_connected, activation_fn=tf.nn.relu6)
elu = functools.partial(fully_connected, activation_fn=tf.nn.elu)
