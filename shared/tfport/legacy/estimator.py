"""tf.estimator: what a model_fn returns, and the mapping of a TF1 graph that a model_fn comes to.

A side's function returns {"model_fn": ..., "features": ..., "labels": ..., "params": ...}, the arguments of `mapping`.
An Estimator calls `model_fn(features, labels, mode, params)` once for each mode, in a graph of its own, and the modes
share variables through the checkpoint. `mapping` calls it twice in one graph, the second time with the variables
reused. Source: TensorFlow Estimator 1.15, tensorflow_estimator/python/estimator/{model_fn,estimator,mode_keys}.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow.compat.v1 as tf

from tfport.errors import UserError


class ModeKeys:
    """The modes of a model_fn."""

    TRAIN = "train"
    EVAL = "eval"
    PREDICT = "infer"


@dataclass(frozen=True)
class EstimatorSpec:
    """What a model_fn returns for one mode; `train_op` and `loss` are of training, `predictions` of inference."""

    mode: str
    predictions: Any = None
    loss: Any = None
    train_op: Any = None
    eval_metric_ops: Any = None
    export_outputs: Any = None
    training_chief_hooks: Any = None
    training_hooks: Any = None
    scaffold: Any = None
    evaluation_hooks: Any = None
    prediction_hooks: Any = None


def mapping(
    model_fn: Callable[..., Any],
    features: Any,
    labels: Any = None,
    params: Any = None,
    config: Any = None,
) -> dict[str, Any]:
    """The parts of a model_fn's graph, as a side's function returns them.

    The graph has the training tower and, on the same variables, the inference tower; "outputs" holds the predictions of
    each mode, of training as far as its EstimatorSpec has them.

    Args:
      model_fn: takes features, labels and, where it has such parameters, mode, params and config.
      features: a placeholder, or name -> placeholder.
      labels: the same; None where there are none.
      params: hyperparameters.
      config: a run configuration.

    Returns:
      "inputs", "outputs", "loss" and "train_op".

    Raises:
      UserError: the model_fn gives no EstimatorSpec, a mode lacks what it must give, or the modes share no variables.
    """
    parameters = inspect.signature(model_fn).parameters
    more = {name: each for name, each in (("params", params), ("config", config)) if name in parameters}

    def called(mode: str, labels: Any, reuse: bool) -> EstimatorSpec:
        given: dict[str, Any] = {"labels": labels} if "labels" in parameters else {}
        given |= {"mode": mode} if "mode" in parameters else {}
        with tf.variable_scope(tf.get_variable_scope(), reuse=reuse or None):  # counts default names from the start
            spec = model_fn(features, **given, **more)
        if not isinstance(spec, EstimatorSpec):
            raise UserError(f"the model_fn returned {type(spec).__name__} in mode {mode}; expected an EstimatorSpec.")
        return spec

    tf.train.get_or_create_global_step()
    training = called(ModeKeys.TRAIN, labels, reuse=False)
    if training.train_op is None or training.loss is None:
        missing = "train_op" if training.train_op is None else "loss"
        raise UserError(f"the model_fn's EstimatorSpec of mode train has no {missing}; give it in that mode.")
    graph = tf.get_default_graph()
    kept = {name: list(graph.get_collection(name)) for name in graph.get_all_collection_keys()}
    inference = called(ModeKeys.PREDICT, None, reuse=True)
    if inference.predictions is None:
        raise UserError("the model_fn's EstimatorSpec of mode infer has no predictions; give them in that mode.")
    known = set(kept[tf.GraphKeys.GLOBAL_VARIABLES])
    fresh = [each.op.name for each in tf.global_variables() if each not in known]
    if fresh:
        raise UserError(
            f"the model_fn makes {', '.join(fresh[:3])} anew in mode infer, so its two modes share no weights in one "
            "graph: make variables by tf.get_variable or by layers, not by tf.Variable."
        )
    for name in graph.get_all_collection_keys():  # what the inference tower adds would be in a graph of its own
        graph.get_collection_ref(name)[:] = kept.get(name, [])
    outputs = {
        "training": {} if training.predictions is None else _named(training.predictions, "predictions"),
        "inference": _named(inference.predictions, "predictions"),
    }
    return {
        "inputs": {**_named(features, "features"), **({} if labels is None else _named(labels, "labels"))},
        "outputs": outputs,
        "loss": training.loss,
        "train_op": training.train_op,
    }


def _named(things: Any, name: str) -> dict[str, Any]:
    return dict(things) if isinstance(things, Mapping) else {name: things}
