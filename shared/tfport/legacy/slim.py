"""tf.contrib.slim beside its layers: losses, a train op, and variables by scope.

Source: TensorFlow 1.15, tensorflow/contrib/losses/python/losses/loss_ops.py, tensorflow/contrib/slim/python/slim/
learning.py, tensorflow/contrib/training/python/training/training.py and
tensorflow/contrib/framework/python/ops/variables.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow.compat.v1 as tf

_GLOBAL_STEP: Any = object()


# --- Losses: predictions first, where tf.losses has labels first ------------------------------------------------------
def softmax_cross_entropy(
    logits: Any, onehot_labels: Any, weights: Any = 1.0, label_smoothing: float = 0, scope: str | None = None
) -> Any:
    """The mean over examples whose weight is not 0, added to the collection LOSSES."""
    return tf.losses.softmax_cross_entropy(onehot_labels, logits, weights, label_smoothing, scope)


def sparse_softmax_cross_entropy(logits: Any, labels: Any, weights: Any = 1.0, scope: str | None = None) -> Any:
    """The mean over examples whose weight is not 0, added to the collection LOSSES."""
    return tf.losses.sparse_softmax_cross_entropy(labels, logits, weights, scope)


def sigmoid_cross_entropy(
    logits: Any, multi_class_labels: Any, weights: Any = 1.0, label_smoothing: float = 0, scope: str | None = None
) -> Any:
    """The mean over elements whose weight is not 0, added to the collection LOSSES."""
    return tf.losses.sigmoid_cross_entropy(multi_class_labels, logits, weights, label_smoothing, scope)


def log_loss(predictions: Any, labels: Any, weights: Any = 1.0, epsilon: float = 1e-7, scope: str | None = None) -> Any:
    """The mean over elements whose weight is not 0, added to the collection LOSSES."""
    return tf.losses.log_loss(labels, predictions, weights, epsilon, scope)


def mean_squared_error(predictions: Any, labels: Any, weights: Any = 1.0, scope: str | None = None) -> Any:
    """The mean over elements whose weight is not 0, added to the collection LOSSES."""
    return tf.losses.mean_squared_error(labels, predictions, weights, scope)


def absolute_difference(predictions: Any, labels: Any, weights: Any = 1.0, scope: str | None = None) -> Any:
    """The mean over elements whose weight is not 0, added to the collection LOSSES."""
    return tf.losses.absolute_difference(labels, predictions, weights, scope)


def hinge_loss(logits: Any, labels: Any, scope: str | None = None) -> Any:
    """max(0, 1 - (2 labels - 1) logits), element by element; no mean and no collection."""
    with tf.name_scope(scope, "hinge_loss", [logits, labels]):
        signs = 2 * tf.cast(labels, tf.float32) - 1
        return tf.nn.relu(1 - signs * tf.cast(logits, tf.float32))


def get_total_loss(add_regularization_losses: bool = True, name: str = "total_loss") -> Any:
    """The sum of the collection LOSSES, with the regularization losses."""
    return tf.losses.get_total_loss(add_regularization_losses, name)


# --- Training ---------------------------------------------------------------------------------------------------------
def create_train_op(
    total_loss: Any,
    optimizer: Any,
    global_step: Any = _GLOBAL_STEP,
    update_ops: Sequence[Any] | None = None,
    variables_to_train: Sequence[Any] | None = None,
    clip_gradient_norm: float = 0,
    summarize_gradients: bool = False,
    gate_gradients: int = tf.train.Optimizer.GATE_OP,
    aggregation_method: Any = None,
    colocate_gradients_with_ops: bool = False,
    gradient_multipliers: Mapping[Any, Any] | None = None,
    check_numerics: bool = True,
) -> Any:
    """The loss as a tensor that, when it is run, first runs the updates and then makes one step of the optimizer.

    `clip_gradient_norm` is of each gradient by itself. By default the updates are those of UPDATE_OPS, and the step
    counts up the global step.
    """
    del summarize_gradients
    if global_step is _GLOBAL_STEP:
        global_step = tf.train.get_or_create_global_step()
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS) if update_ops is None else list(update_ops)
    with tf.control_dependencies(updates):
        total_loss = tf.identity(total_loss)
    pairs = optimizer.compute_gradients(
        total_loss,
        variables_to_train,
        gate_gradients=gate_gradients,
        aggregation_method=aggregation_method,
        colocate_gradients_with_ops=colocate_gradients_with_ops,
    )
    factors = {getattr(key, "op", key): factor for key, factor in (gradient_multipliers or {}).items()}

    def changed(gradient: Any, variable: Any) -> Any:
        factor = factors.get(variable.op, factors.get(variable.op.name))
        if factor is not None:
            gradient = _each(gradient, lambda values: values * tf.cast(factor, values.dtype))
        if gradient is not None and clip_gradient_norm > 0:
            gradient = _each(gradient, lambda values: tf.clip_by_norm(values, clip_gradient_norm))
        return gradient

    applied = optimizer.apply_gradients([(changed(*pair), pair[1]) for pair in pairs], global_step=global_step)
    with tf.name_scope("train_op"):
        if check_numerics:
            total_loss = tf.check_numerics(total_loss, "LossTensor is inf or nan")
        with tf.control_dependencies([applied]):
            train_op = tf.identity(total_loss)
    tf.add_to_collection(tf.GraphKeys.TRAIN_OP, train_op)
    return train_op


def _each(gradient: Any, change: Callable[[Any], Any]) -> Any:
    """A changed gradient; of a sparse one its values."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(change(gradient.values), gradient.indices, gradient.dense_shape)
    return change(gradient)


# --- Variables --------------------------------------------------------------------------------------------------------
def get_variables(
    scope: Any = None, suffix: str | None = None, collection: str = tf.GraphKeys.GLOBAL_VARIABLES
) -> list[Any]:
    """The variables of a collection whose names begin with a scope and end with a suffix."""
    found = tf.get_collection(collection, getattr(scope, "name", scope))
    return [each for each in found if suffix is None or each.op.name.endswith(suffix)]


def get_model_variables(scope: Any = None, suffix: str | None = None) -> list[Any]:
    """The variables of layers."""
    return get_variables(scope, suffix, tf.GraphKeys.MODEL_VARIABLES)


def get_trainable_variables(scope: Any = None, suffix: str | None = None) -> list[Any]:
    """The variables that train."""
    return get_variables(scope, suffix, tf.GraphKeys.TRAINABLE_VARIABLES)


def get_variables_to_restore(include: Sequence[str] | None = None, exclude: Sequence[str] | None = None) -> list[Any]:
    """The variables of some scopes but not of others."""
    chosen = [each for scope in include for each in get_variables(scope)] if include else get_variables()
    left = {each.op.name for scope in exclude or () for each in get_variables(scope)}
    return [each for each in chosen if each.op.name not in left]


def convert_collection_to_dict(collection: str, clear_collection: bool = False) -> dict[str, Any]:
    """Scope -> what a layer of that scope put into a collection (`outputs_collections`)."""
    found = {alias: each for each in tf.get_collection(collection) for alias in getattr(each, "aliases", ())}
    if clear_collection:
        tf.get_default_graph().clear_collection(collection)
    return found
