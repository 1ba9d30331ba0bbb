"""A Program of a script as it is: it runs up to its first training call, and what stands then is taken.

What is run is the script's own code, as `python script.py` in its folder would. The call at which it stops does not
run, nor does anything behind it: a later call, from an `except:` of the script's own, stops it again. A Session.run
before that is let through where it gives variables their first values: initialisers, assignments, and what Saver and
the managers of sessions run.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfport.adapters import constructor
from tfport.checking.quoting import said
from tfport.errors import UserError
from tfport.program import Array, Program
from tfport.user_code import calling, is_user_file, user_line

_MANAGERS = ("saver.py", "session_manager.py", "monitored_session.py", "supervisor.py", "basic_session_run_hooks.py")
"""Files of TensorFlow that run what prepares a Session."""
_ASSIGNING = ("Assign", "AssignVariableOp")
_NAMELESS = re.compile(r"(.*/)?(Placeholder|IteratorGetNext)(WithDefault)?(_\d+)?")
_STEPWISE = ("Equal", "ArgMax", "InTopK", "InTopKV2", "Greater", "GreaterEqual", "Less", "LessEqual", "Round")
"""Ops through which nothing is differentiated."""
_KEPT = re.compile(r"keep", re.IGNORECASE)
_DROPPED = re.compile(r"drop", re.IGNORECASE)
_METHODS = ("fit", "train_on_batch", "fit_generator")
_WEIGHTS = ("sample_weight", "class_weight")


@dataclass
class Reached:
    """The call at which a script was stopped, and what stood then."""

    call: str
    """"Session.run", "train_on_batch" or the like."""
    subject: Any
    """The Session, or the model."""
    arguments: dict[str, Any]
    where: str
    """File and line of the call."""
    names: dict[int, str] = field(default_factory=dict)
    """id of an object -> the name that the script has for it."""
    objects: list[Any] = field(default_factory=list)
    """What those names are of, so that they live."""
    tensors: dict[str, str] = field(default_factory=dict)
    """Tensor's name -> the name that the script has for it."""
    values: dict[str, Array] = field(default_factory=dict)
    """Of a Session: variable -> value, of those that have one."""

    def known(self, thing: Any, otherwise: str) -> str:
        """The script's name of an object."""
        return self.names.get(id(thing), otherwise)


class _Stopped(BaseException):
    """Ends the script; no `except Exception` of its own holds it."""


def from_script(path: str | Path, *, seed: int = 0, precision: str | None = None, **names: Any) -> Program:
    """A Program of a script: of the graph of its first Session.run, or of the model that it first trains.

    Args:
      path: the script.
      seed: of the random numbers that a model is fed.
      precision: "float64" has a graph that is in float32 rewritten.
      names: inputs, outputs, losses and train_ops of a graph, where the run cannot tell them.

    Raises:
      UserError: the script raises, exits or ends before it trains, or what it trains cannot be told.
    """
    path = Path(path)
    reached = _run(path, seed)
    if reached.call == "Session.run":
        return _of_graph(path, reached, precision, names)
    if names:
        raise UserError(f"--{next(iter(names))} names parts of a TF1 graph, and {path} trains a Keras model.")
    return _of_model(path, reached, seed)


# --- Running ----------------------------------------------------------------------------------------------------------
class _Watch:
    """Stops a script at its first training call."""

    def __init__(self) -> None:
        self.reached: Reached | None = None
        self._looking = False

    def stop(self, call: str, subject: Any, arguments: dict[str, Any]) -> None:
        """Takes down the call, the first one, and ends the script."""
        if self.reached is None:
            place = user_line(calling(sys._getframe(2)))
            self.reached = Reached(call, subject, arguments, place)
            _take_names(self.reached, sys._getframe(2))
            if call == "Session.run":
                self._looking = True
                self.reached.values = _values(subject)
                self._looking = False
        raise _Stopped

    def session_run(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Session.run, of a Session or of what TensorFlow wraps around one."""

        def run(session: Any, fetches: Any, feed_dict: Any = None, *more: Any, **options: Any) -> Any:
            inner = session._tf_sess() if hasattr(session, "_tf_sess") else session
            if self._looking or (self.reached is None and _prepares(inner, fetches, sys._getframe(1))):
                return real(session, fetches, feed_dict, *more, **options)
            return self.stop("Session.run", inner, {"fetches": fetches, "feed_dict": feed_dict or {}})

        return run

    def method(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """A method of a Keras model that trains it."""
        signature = inspect.signature(real)

        def train(model: Any, *args: Any, **options: Any) -> Any:
            given = signature.bind_partial(model, *args, **options).arguments
            return self.stop(name, model, {key: value for key, value in given.items() if value is not model})

        return train

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block, the calls are watched."""
        from tensorflow.python.client.session import BaseSession
        from tensorflow.python.training.monitored_session import _MonitoredSession

        kept: list[tuple[Any, str, Any]] = []
        try:
            for owner in (BaseSession, _MonitoredSession):
                kept.append((owner, "run", owner.run))
                owner.run = self.session_run(owner.run)
            for package in ("keras", "tf_keras"):
                model = importlib.import_module(package).Model
                for name in _METHODS:
                    if name in dir(model):
                        own = vars(model).get(name)
                        kept.append((model, name, own))
                        setattr(model, name, self.method(name, getattr(model, name)))
            yield
        finally:
            for owner, name, before in reversed(kept):
                if before is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, before)


def _run(path: Path, seed: int) -> Reached:
    """Runs the script up to its first training call."""
    import tensorflow as tf
    from absl import flags

    from tfport.checking.factories import seed_all

    watch, module = _Watch(), types.ModuleType("__main__")
    module.__file__ = str(path.resolve())
    kept = sys.argv, sys.path[:], Path.cwd(), sys.modules["__main__"], set(sys.modules), set(flags.FLAGS)
    os.environ.setdefault("MPLBACKEND", "Agg")
    tf.compat.v1.reset_default_graph()
    seed_all(seed)
    try:
        code = compile(path.read_bytes(), module.__file__, "exec")
        sys.argv, sys.modules["__main__"] = [str(path)], module
        sys.path.insert(0, str(path.resolve().parent))
        os.chdir(path.resolve().parent)
        with watch.watching():
            exec(code, module.__dict__)
    except _Stopped:
        pass
    except UserError:
        raise
    except SystemExit as error:
        if watch.reached is None:
            raise UserError(
                f"{path} exited ({error.code!r}) before it reached a Session.run of a train op, a train_on_batch or a "
                f"fit. {_REMEDY}"
            ) from None
    except Exception as error:
        if watch.reached is None:
            raise Raised(error) from error
    finally:
        sys.argv, sys.path[:] = kept[0], kept[1]
        os.chdir(kept[2])
        sys.modules["__main__"] = kept[3]
        for name in set(sys.modules) - kept[4]:
            if is_user_file(getattr(sys.modules[name], "__file__", None) or "built-in"):
                del sys.modules[name]  # so that a second run has its own
        for name in set(flags.FLAGS) - kept[5]:
            delattr(flags.FLAGS, name)
    if watch.reached is None:
        raise UserError(
            f"{path} ran to its end and reached no Session.run of a train op, no train_on_batch and no fit. {_REMEDY}"
        )
    return watch.reached


_REMEDY = "Give one that trains when it is run as `python script.py`, or name a function that builds the model."


class Raised(Exception):
    """What the script raised, as its cause."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"it raised {said(error)}")
        self.error = error


def _prepares(session: Any, fetches: Any, frame: types.FrameType | None) -> bool:
    """Whether a run gives variables their first values, and no more."""
    import tensorflow.compat.v1 as tf

    from tfport.adapters.tf1_apply_ops import updates_among
    from tfport.adapters.tf1_reading import Reading

    while frame is not None and Path(frame.f_code.co_filename).name in ("session.py", "script.py"):
        frame = frame.f_back
    if frame is not None and Path(frame.f_code.co_filename).name in _MANAGERS:
        return not is_user_file(frame.f_code.co_filename)
    graph = session.graph
    with graph.as_default():
        variables = tf.global_variables() + tf.local_variables()
        first = {getattr(each.initializer, "op", each.initializer) for each in variables}
        first |= set(tf.get_collection(tf.GraphKeys.TABLE_INITIALIZERS))
    pending = [graph.as_graph_element(each) for each in tf.nest.flatten(fetches)]
    pending = [getattr(each, "op", each) for each in pending]
    assigned = []
    while pending:
        op = pending.pop()
        if op in first or op.type in ("MakeIterator", "InitializeTableV2", "InitializeTableFromTextFileV2"):
            continue
        if op.type in _ASSIGNING:
            assigned.append(op)
        elif op.type == "NoOp" or (op.type == "ReadVariableOp" and op.control_inputs):  # a read behind an assignment
            pending += op.control_inputs
        else:
            return False
    if not assigned:
        return True
    reading = Reading(graph)
    return not updates_among(reading, reading.ancestors(assigned))


def _values(session: Any) -> dict[str, Array]:
    """Variable -> value of a Session, of those that have one."""
    import tensorflow.compat.v1 as tf

    from tfport.adapters.tf1_graph_state import Values
    from tfport.adapters.tf1_reading import Reading

    session.graph._unsafe_unfinalize()
    reading = Reading(session.graph)
    values, found = Values(reading, session), {}
    for name in reading.variables:
        with contextlib.suppress(tf.errors.FailedPreconditionError):
            found[name] = values.read(name)
    return found


def _take_names(reached: Reached, frame: types.FrameType | None) -> None:
    """Takes down what the script calls its objects: locals of the calls that lead here, their attributes, globals."""
    import tensorflow as tf

    while frame is not None:
        if is_user_file(frame.f_code.co_filename):
            for scope in (frame.f_locals, frame.f_globals):
                held = dict(scope)
                for value in scope.values():
                    if type(value).__module__ == "__main__" or is_user_file(
                        getattr(sys.modules.get(type(value).__module__), "__file__", None) or "built-in"
                    ):
                        held |= {key: each for key, each in getattr(value, "__dict__", {}).items() if key not in held}
                for key, value in held.items():
                    if not key.startswith("__") and id(value) not in reached.names:
                        reached.names[id(value)] = key
                        reached.objects.append(value)
                        if isinstance(value, tf.Tensor) and hasattr(value, "graph"):
                            reached.tensors.setdefault(value.name, key)
        frame = frame.f_back


# --- A graph ----------------------------------------------------------------------------------------------------------
def _of_graph(path: Path, reached: Reached, precision: str | None, names: Mapping[str, Any]) -> Program:
    """The graph of the Session, with what the run that was stopped says of its parts."""
    import tensorflow.compat.v1 as tf

    from tfport.adapters.tf1_reading import Reading
    from tfport.adapters.tf1_sides import script_graph

    graph = reached.subject.graph
    reading = Reading(graph)
    train = _train_ops(path, reached, reading, "train_ops" in names)
    found: dict[str, Any] = {"train_ops": {"train": train}} if train and "train_ops" not in names else {}
    notes = [f"{path.name} was run up to {reached.where}, its first Session.run beyond initialisers, and no further"]
    loss = _loss(reading, train, reached) if found and "losses" not in names else None
    if loss is not None:
        found["losses"] = {"train": loss}
        notes.append(f"loss of train: {loss.op.name}, which the script fetches beside the train op")
    training: dict[Any, Any] = {}
    inference: dict[Any, Any] = {}
    for key, value in reached.arguments["feed_dict"].items() if train else ():
        tensor = graph.as_graph_element(key)
        if np.ndim(value) == 0 and tensor.dtype != tf.string:
            own = reached.tensors.get(tensor.name, "")
            name = own if own and _NAMELESS.fullmatch(tensor.op.name) else tensor.op.name
            training[tensor] = value
            inference[tensor] = looked = _in_inference(f"{name} {own}", value)
            notes.append(f"{name} is fed {value!r} in training, as the script did, and {looked!r} in inference")
    found |= {"training": training or None, "inference": inference or None}
    nameless = [op for op in graph.get_operations() if _NAMELESS.fullmatch(op.name)]
    tensors = [tensor for op in nameless for tensor in op.outputs if tensor.name in reached.tensors]
    called = {reached.tensors[tensor.name]: tensor for tensor in tensors if tensor.op.type != "IteratorGetNext"}
    scalars = {tensor.name for tensor in training}
    if told := [name for name, tensor in called.items() if tensor.name not in scalars]:
        notes.append(f"inputs without a name of their own are called as in the script: {', '.join(told)}")
    run = reading.ancestors(train)
    if iterated := [tensor for tensor in tensors if tensor.op.type == "IteratorGetNext" and tensor.op in run]:
        found["inputs"] = {reached.tensors[tensor.name]: tensor for tensor in iterated}
        notes.append(f"what the script reads from an iterator is fed in its place: {', '.join(found['inputs'])}")

    def again(seed: int) -> Any:
        return _of_graph(path, _run(path, seed), None, names)

    return script_graph(graph, reached.values, {**found, **names}, notes, precision, again, called)


def _train_ops(path: Path, reached: Reached, reading: Any, named: bool) -> list[Any]:
    """What the run fetches to update; empty where it updates nothing.

    Raises:
      UserError: the graph has other train ops too, so that a step has more phases than this run, and none is named.
    """
    import tensorflow.compat.v1 as tf

    from tfport.adapters.tf1_apply_ops import updates_among

    fetched = [reading.graph.as_graph_element(each) for each in tf.nest.flatten(reached.arguments["fetches"])]
    train = [each for each in fetched if updates_among(reading, reading.ancestors([each]))]
    run = reading.ancestors(train)
    rest = [each.op for each in updates_among(reading, reading.ops) if each.op not in run]
    others = [each.name for each in reading.ends_of(rest)] if rest else []
    if train and others and not named:
        first = ",".join(getattr(each, "op", each).name for each in train)
        more = ",".join(f"phase{number}={name}" for number, name in enumerate(others, 2))
        raise UserError(
            f"{path} first runs the train op {first} ({reached.where}), and its graph has others too: "
            f"{', '.join(others)}. In what order they run stands behind that point: name those of a step, "
            f"--train_ops=phase1={first},{more}."
        )
    return train


def _loss(reading: Any, train: list[Any], reached: Reached) -> Any:
    """Where gradients do not tell what they are of: the only differentiable scalar that the run fetches."""
    import tensorflow.compat.v1 as tf

    from tfport.adapters.tf1_apply_ops import updates_among
    from tfport.adapters.tf1_reading import is_float_scalar

    run = reading.ancestors(train)
    known = reading.differentiated([update.gradient for update in updates_among(reading, run)])
    if len(known) == 1 and is_float_scalar(known[0]):
        return None
    smooth = reading.descendants([each.op for each in reading.variables.values()], lambda op: op.type in _STEPWISE)
    fetched = [reading.graph.as_graph_element(each) for each in tf.nest.flatten(reached.arguments["fetches"])]
    losses = [each for each in fetched if each not in train and is_float_scalar(each) and each.op in smooth]
    return losses[0] if len(losses) == 1 else None


def _in_inference(name: str, value: Any) -> Any:
    """What a scalar that is fed in training is fed in inference."""
    if isinstance(value, bool | np.bool_):
        return False
    if _KEPT.search(name):
        return 1.0
    return 0.0 if _DROPPED.search(name) else value


# --- A Keras model ----------------------------------------------------------------------------------------------------
def _of_model(path: Path, reached: Reached, seed: int) -> Program:
    """The model that the script first trains, alone or with those of a GAN."""
    import tensorflow as tf

    model, call = reached.subject, f"{reached.call} ({reached.where})"
    if not tf.executing_eagerly():
        raise UserError(
            f"{path} trains a Keras model by {call} with eager execution off; leave disable_eager_execution and "
            "disable_v2_behavior out, or name a function that builds the TF1 graph."
        )
    given = [name for name in _WEIGHTS if reached.arguments.get(name) is not None]
    if given:
        raise UserError(
            f"{path} calls {call} with {given[0]}, which a batch would have to hold: name a function that returns "
            '{"model": model, "step": function}, as module:function.'
        )

    note = f"{path.name} was run up to {call}, and no further"
    models = {
        reached.names[id(each)]: each
        for each in reached.objects
        if hasattr(each, "train_on_batch") and not isinstance(each, type) and each is not model
    }
    others = {name: each for name, each in models.items() if _compiled(each)}
    if not others:
        program: Program = constructor("keras_model")(model, seed=seed, rebuild=lambda again: _run(path, again).subject)
        program._remarks.append(note)  # type: ignore[attr-defined]
        return program
    if gan := _gan(reached, list(others.values())):
        return _of_gan(gan, reached, path, seed, note)
    name = reached.known(model, model.name)
    raise UserError(
        f"{path} first trains {name} by {call}, and has other compiled models: {', '.join(others)}. How these are "
        'trained is not known before they are: name a function that returns {"models": {...}, "phases": {name: '
        'function}}, or of a GAN in the common loop {"models": {"discriminator": ..., "generator": ..., "combined": '
        '...}, "latent": N}, as module:function.'
    )


def _gan(reached: Reached, others: list[Any]) -> dict[str, Any] | None:
    """The models of a GAN, where the script first trains the discriminator and one other joins it to a generator."""
    joined = [layer for layer in getattr(others[0], "layers", ()) if hasattr(layer, "train_on_batch")]
    if len(others) > 1 or len(joined) != 2 or joined[1] is not reached.subject:
        return None
    return {"discriminator": reached.subject, "generator": joined[0], "combined": others[0]}


def _of_gan(models: dict[str, Any], reached: Reached, path: Path, seed: int, note: str) -> Program:
    """A GAN in the common loop, of which the first call shows the beginning; the rest is told as taken."""
    labels = np.unique(np.asarray(reached.arguments.get("y"), np.float64))
    half_steps = labels.size == 1
    if not half_steps and labels.size != 2:
        raise UserError(
            f"{path} trains the discriminator by {reached.call} ({reached.where}) with labels from {labels.min()} to "
            f"{labels.max()}, which is no loop that is known: name a function that returns "
            '{"models": {...}, "phases": {name: function}}, as module:function.'
        )
    latent = tuple(models["generator"].input_shape[1:])

    def again(number: int) -> Any:
        found = _run(path, number)
        return _gan(found, [each for each in found.objects if each is not found.subject and _compiled(each)])

    program: Program = constructor("keras_gan")(
        **models,
        latent=latent,
        half_steps=half_steps,
        real_label=float(labels[-1]),
        fake_label=0.0 if half_steps else float(labels[0]),
        seed=seed,
        rebuild=again,
    )
    batches = "real and generated images in turn" if half_steps else "real and generated images in one batch"
    program._remarks += [  # type: ignore[attr-defined]
        note,
        f"what {path.name} does behind that call is not known, and was taken to be the common loop of a GAN: the "
        f"discriminator on {batches}, with labels {labels[-1]:g} and {0 if half_steps else labels[0]:g}, then the "
        "combined model on standard normal noise; where it is another, return the phases from a function",
    ]
    return program


def _compiled(model: Any) -> bool:
    return bool(getattr(model, "compiled", getattr(model, "_is_compiled", False)))
