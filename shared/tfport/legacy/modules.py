"""The modules that old code imports: tensorflow with contrib, estimator and examples, made of the stand-ins.

`tensorflow` itself is tf.compat.v1 there. User code gets these modules, and libraries get TensorFlow's own, by the file
that imports.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from tfport.errors import UserError
from tfport.user_code import calling, is_user_file, user_line

_MODEL_FN = 'a function that returns {"model_fn": model_fn, "features": placeholder, "labels": placeholder}'
INSTEAD = {
    "contrib.layers.optimize_loss": "an optimizer's minimize(loss, global_step)",
    "contrib.layers.embed_sequence": "tf.get_variable and tf.nn.embedding_lookup",
    "contrib.layers.summarize_layer": "nothing: leave it out",
    "contrib.learn": "a function that builds the graph and returns its parts",
    "contrib.data": "tf.data",
    "contrib.seq2seq": "tf.nn.raw_rnn, tf.while_loop or a loop over steps",
    "contrib.crf": "the package tensorflow_addons' source, copied beside the script",
    "contrib.cudnn_rnn": "tf.nn.dynamic_rnn with LSTMBlockCell's equation, or a record of the original",
    "contrib.opt": "the optimizer written on tf.compat.v1.train.Optimizer",
    "contrib.summary": "tf.summary",
    "contrib.metrics": "tf.metrics",
    "contrib.image": "tf.image",
    "contrib.distributions": "the package tensorflow_probability",
    "contrib.bayesflow": "the package tensorflow_probability",
    "contrib.eager": "tf.GradientTape of TensorFlow 2",
    "contrib.tpu": "the same code without the TPU's wrapper",
    "contrib.keras": "tf.keras",
    "contrib.lookup": "tf.lookup",
    "contrib.staging": "nothing: leave it out",
    "contrib.slim.nets": "the network's file from the models repository, beside the script",
    "contrib.slim.learning.train": "create_train_op, in a function that builds the graph",
    "contrib.training.HParams": "a SimpleNamespace or a dict",
    "estimator.Estimator": _MODEL_FN,
    "estimator.RunConfig": "nothing: leave it out",
    "estimator.train_and_evaluate": _MODEL_FN,
    "estimator.inputs": "placeholders, and --batches",
    "examples": "tfport.legacy has input_data of the MNIST tutorials alone",
}
"""Beginning of a name without a stand-in -> what to use; the longest that fits is told."""
_ELSE = "record the original where it runs, and check against the record"


class Missing(AttributeError, UserError):
    """Something of old TensorFlow that has no stand-in."""


class MissingModule(ImportError, UserError):
    """A module, or a name that is imported from one, that has no stand-in."""


def _told(name: str) -> str:
    place = user_line(calling(sys._getframe(2)))
    fitting = [each for each in INSTEAD if f"{name}.".startswith(f"{each}.")]
    use = INSTEAD[max(fitting, key=len)] if fitting else _ELSE
    return (
        f"tf.{name}{f' ({place})' if place else ''} is gone since TensorFlow 2, and tfport.legacy has no stand-in for "
        f"it; use instead: {use}."
    )


class StandIn(types.ModuleType):
    """A module of stand-ins."""

    def __init__(self, name: str, held: Mapping[str, Any]) -> None:
        super().__init__(f"tensorflow.{name}")
        self.__dict__.update(held)
        self.__dict__["__path__"] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Missing(_told(f"{self.__name__.removeprefix('tensorflow.')}.{name}"))


class Old(types.ModuleType):
    """tensorflow as TensorFlow 1 had it: tf.compat.v1, with what was beside it."""

    def __init__(self, held: Mapping[str, Any]) -> None:
        super().__init__("tensorflow.compat.v1")
        self.__dict__.update(held)
        self.__dict__["__version__"] = "1.15.0"
        self.__dict__["VERSION"] = "1.15.0"

    def __getattr__(self, name: str) -> Any:
        import tensorflow

        try:
            return getattr(tensorflow.compat.v1, name)
        except AttributeError as error:
            if name.startswith("__") or (part := sys.modules.get(f"tensorflow.{name}")) is None:
                raise error from None
            return part

    def __dir__(self) -> list[str]:
        import tensorflow

        return sorted({*self.__dict__, *dir(tensorflow.compat.v1)})


def _public(module: types.ModuleType) -> dict[str, Any]:
    """What a module of stand-ins defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (getattr(value, "__module__", "") or "").startswith(("tfport.legacy", "functools"))
    }


@cache
def stand_ins() -> dict[str, types.ModuleType]:
    """Name -> module, as user code imports it."""
    import tensorflow.compat.v1 as tf

    from tfport.legacy import estimator, input_data, layers, scopes, slim

    contrib_layers = _public(layers)
    losses = {name: getattr(slim, name) for name in _LOSSES} | {
        name: getattr(tf.losses, name) for name in _OF_TF_LOSSES
    }
    losses["compute_weighted_loss"] = tf.losses.compute_weighted_loss
    step = {
        "get_global_step": tf.train.get_global_step,
        "get_or_create_global_step": tf.train.get_or_create_global_step,
        "create_global_step": tf.train.create_global_step,
        "assert_global_step": tf.train.assert_global_step,
    }
    variables = {name: getattr(slim, name) for name in vars(slim) if name.startswith("get_") and "loss" not in name}
    framework = {**_public(scopes), **variables, **step, "model_variable": layers.model_variable}
    found: dict[str, types.ModuleType] = {}

    def module(name: str, held: Mapping[str, Any]) -> types.ModuleType:
        found[f"tensorflow.{name}"] = made = StandIn(name, held)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(found[f"tensorflow.{parent}"], last, made)
        return made

    module("contrib", {})
    module("contrib.layers", contrib_layers)
    module("contrib.layers.python", {})
    module("contrib.layers.python.layers", contrib_layers)
    module("contrib.layers.python.layers.layers", contrib_layers)
    module("contrib.framework", framework)
    module("contrib.framework.python", {})
    module("contrib.framework.python.ops", framework)
    module("contrib.framework.python.ops.arg_scope", _public(scopes))
    module("contrib.losses", losses)
    module("contrib.slim", {**contrib_layers, **framework})
    module("contrib.slim.losses", losses)
    module("contrib.slim.learning", {"create_train_op": slim.create_train_op})
    module("contrib.slim.utils", {"convert_collection_to_dict": slim.convert_collection_to_dict})
    module("contrib.training", {"create_train_op": slim.create_train_op})
    module("contrib.rnn", {})
    found["tensorflow.contrib.rnn"].__class__ = _Rnn
    module("estimator", {"EstimatorSpec": estimator.EstimatorSpec, "ModeKeys": estimator.ModeKeys})
    module("examples", {})
    module("examples.tutorials", {})
    module("examples.tutorials.mnist", {})
    module("examples.tutorials.mnist.input_data", _public(input_data))
    tops = {name: found[f"tensorflow.{name}"] for name in ("contrib", "estimator", "examples")}
    compat = types.ModuleType("tensorflow.compat")
    old = Old({**tops, "compat": compat})
    compat.__dict__.update(v1=old, **{name: getattr(tf.compat, name) for name in dir(tf.compat) if name != "v1"})
    return found | {"tensorflow": old, "tensorflow.compat": compat, "tensorflow.compat.v1": old}


_LOSSES = (
    "softmax_cross_entropy",
    "sparse_softmax_cross_entropy",
    "sigmoid_cross_entropy",
    "log_loss",
    "mean_squared_error",
    "absolute_difference",
    "hinge_loss",
    "get_total_loss",
)
_OF_TF_LOSSES = ("add_loss", "get_losses", "get_regularization_losses")
_CELLS = (
    "BasicLSTMCell",
    "BasicRNNCell",
    "DeviceWrapper",
    "DropoutWrapper",
    "GRUCell",
    "LSTMCell",
    "LSTMStateTuple",
    "MultiRNNCell",
    "RNNCell",
    "ResidualWrapper",
)
_NETWORKS = {
    "static_rnn": "static_rnn",
    "static_bidirectional_rnn": "static_bidirectional_rnn",
    "static_state_saving_rnn": "static_state_saving_rnn",
}


class _Rnn(StandIn):
    """tf.contrib.rnn: the cells of tf.nn.rnn_cell, which TensorFlow has under Keras 2 alone."""

    def __getattr__(self, name: str) -> Any:
        import tensorflow.compat.v1 as tf

        if name in _CELLS:
            return getattr(tf.nn.rnn_cell, name)
        if name in _NETWORKS:
            return getattr(tf.nn, name)
        return super().__getattr__(name)


def importing(real: Callable[..., Any]) -> Callable[..., Any]:
    """`__import__` that gives user code the stand-ins and everybody else what `real` gives."""

    def imported(name: str, given: Any = None, local: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level or name.split(".")[0] != "tensorflow" or not is_user_file((given or {}).get("__file__", "")):
            return real(name, given, local, fromlist, level)
        modules = stand_ins()
        if name in modules:
            module = modules[name]
            for each in fromlist or ():
                if each != "*" and isinstance(module, StandIn):
                    try:
                        getattr(module, each)
                    except Missing as missing:
                        raise MissingModule(str(missing)) from None
            return module if fromlist else modules["tensorflow"]
        gone = name.removeprefix("tensorflow.")
        if gone.split(".")[0] in ("contrib", "estimator", "examples"):
            raise MissingModule(_told(gone))
        found = real(name, given, local, fromlist, level)
        return found if fromlist else modules["tensorflow"]

    imported.__dict__["tfport_legacy"] = True
    return imported
