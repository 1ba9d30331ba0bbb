"""Feeds TensorFlow's random ops from a DrawSource, where they are made in Python.

Every public way to random numbers (`tf.random`, `tf.nn.dropout`, both Kerases' layers, `tf.random.Generator`, the
candidate samplers) ends in one of the functions of the modules `gen_*_ops`. While an Interceptor is `feeding`,
these functions are replaced: eagerly they return the DrawSource's array, and in a traced function they leave a stateful
`numpy_function` in the op's place, under the op's name, which asks the DrawSource each time the function runs. A
function that was traced while feeding stays fed; one that was traced before does not become fed.

What is out of reach: ops made through `tf.raw_ops` or imported as graphs, which `random_ops` finds in a traced graph,
and the distributions named in `_UNCONTROLLED`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfport.adapters import python_draws
from tfport.adapters.python_draws import Holders, is_users_call
from tfport.adapters.rewriting import unrewritten
from tfport.checking import candidates
from tfport.checking.draws import DrawSource
from tfport.program import Array, DrawInfo

KIND = "_tfport_kind"
"""Attribute of a fed op: the type of the op that it stands for."""

_OPS = "tensorflow.python.ops."


def categorical(draws: DrawSource, logits: Array, count: int) -> Array:
    """Classes drawn from rows of unnormalised log probabilities: the largest of logits and Gumbel noise.

    Args:
      draws: where the noise comes from.
      logits: [rows, classes].
      count: how many are drawn for each row.
    """
    sizes = (logits.shape[0], count, logits.shape[1])
    noise = draws.number("multinomial", sizes).gumbel(size=sizes)
    return np.asarray(np.argmax(logits[:, None, :] + noise, axis=-1))


@functools.cache
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


# --- What stands in for each op ---------------------------------------------------------------------------------------
Draw = Callable[..., Any]
"""(draws, *arrays) -> an array, or several."""


@dataclass(frozen=True)
class _Rule:
    """How one generated function is replaced."""

    op: str
    """The op's type."""
    kind: str
    """What is drawn, for `DrawInfo.kind`; of a candidate sampler the sampler's name."""
    inputs: Callable[[dict[str, Any]], list[Any]]
    """The function's arguments -> the tensors that the draw depends on."""
    draw: Callable[[dict[str, Any]], Draw]
    """The function's arguments -> the draw."""
    dtypes: Callable[[dict[str, Any]], list[Any]]
    shapes: Callable[[dict[str, Any]], list[Any]]
    """Static shapes of the outputs, as far as known."""
    wrap: Callable[..., Any] = lambda outputs: outputs[0]
    """Outputs -> what the function returns."""


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(each) for each in np.asarray(value).reshape(-1))


def _static(value: Any) -> Any:
    """A shape argument as a TensorShape, as far as it is known while tracing."""
    from tensorflow.python.framework import tensor_util

    return tensor_util.constant_value_as_shape(tf.convert_to_tensor(value))


def _int_shape(value: Any) -> Any:
    tensor = tf.convert_to_tensor(value)
    return tensor if tensor.dtype in (tf.int32, tf.int64) else tf.cast(tensor, tf.int32)


def _float_rule(op: str, kind: str) -> _Rule:
    def draw(given: dict[str, Any]) -> Draw:
        numpy_dtype = tf.as_dtype(given["dtype"]).as_numpy_dtype
        narrow = np.dtype(numpy_dtype).name not in ("float32", "float64")
        dtype = "float32" if narrow else np.dtype(numpy_dtype).name
        return lambda draws, shape: getattr(draws, kind)(_shape(shape), dtype).astype(numpy_dtype)

    return _Rule(
        op,
        kind,
        lambda given: [_int_shape(given["shape"])],
        draw,
        lambda given: [tf.as_dtype(given["dtype"])],
        lambda given: [_static(given["shape"])],
    )


def _integers(draws: DrawSource, shape: Array, low: Array, high: Array) -> Array:
    return draws.integers(_shape(shape), int(low), int(high), np.asarray(low).dtype.name)


def _integer_rule(op: str) -> _Rule:
    return _Rule(
        op,
        "integers",
        lambda given: [_int_shape(given["shape"]), *_same_dtype(given["minval"], given["maxval"])],
        lambda _: _integers,
        lambda given: [_same_dtype(given["minval"], given["maxval"])[0].dtype],
        lambda given: [_static(given["shape"])],
    )


def _same_dtype(low: Any, high: Any) -> tuple[Any, Any]:
    low = tf.convert_to_tensor(low)
    return low, tf.convert_to_tensor(high, dtype=low.dtype)


def _shuffle_rule(op: str) -> _Rule:
    return _Rule(
        op,
        "shuffle",
        lambda given: [tf.shape(given["value"])[:1]],
        lambda _: lambda draws, count: draws.shuffle(int(count[0])).astype(np.int64),
        lambda _: [tf.int64],
        lambda given: [tf.convert_to_tensor(given["value"]).shape[:1]],
    )


def _categorical_rule(op: str) -> _Rule:
    def draw(given: dict[str, Any]) -> Draw:
        numpy_dtype = tf.as_dtype(given["output_dtype"]).as_numpy_dtype
        return lambda draws, logits, count: categorical(draws, logits, int(count)).astype(numpy_dtype)

    return _Rule(
        op,
        "Multinomial",
        lambda given: [tf.convert_to_tensor(given["logits"]), tf.convert_to_tensor(given["num_samples"])],
        draw,
        lambda given: [tf.as_dtype(given["output_dtype"])],
        lambda given: [tf.TensorShape([tf.convert_to_tensor(given["logits"]).shape[0], None])],
    )


def _candidate_rule(op: str, name: str) -> _Rule:
    """A candidate sampler: three outputs, and true classes to count."""

    def draw(given: dict[str, Any]) -> Draw:
        count, unique, range_max = int(given["num_sampled"]), bool(given["unique"]), int(given["range_max"])

        def drawn(draws: DrawSource, true_classes: Array) -> Any:
            generator = draws.number(candidates.kind(name, range_max, unique), (count,))
            sampler = candidates.log_uniform if name == "log_uniform" else candidates.uniform
            return sampler(generator, true_classes, count, unique, range_max)

        return drawn

    def shapes(given: dict[str, Any]) -> list[Any]:
        count = int(given["num_sampled"])
        return [tf.TensorShape([count]), tf.convert_to_tensor(given["true_classes"]).shape, tf.TensorShape([count])]

    def wrap(outputs: Sequence[Any]) -> Any:
        from tensorflow.python.ops import gen_candidate_sampling_ops as ops

        maker = getattr(ops, f"_{op}Output")
        return maker(*outputs)

    return _Rule(
        op,
        name,
        lambda given: [tf.convert_to_tensor(given["true_classes"], tf.int64)],
        draw,
        lambda _: [tf.int64, tf.float32, tf.float32],
        shapes,
        wrap,
    )


_RULES: dict[tuple[str, str], _Rule] = {
    ("gen_random_ops", "random_uniform"): _float_rule("RandomUniform", "uniform"),
    ("gen_random_ops", "random_standard_normal"): _float_rule("RandomStandardNormal", "normal"),
    ("gen_random_ops", "truncated_normal"): _float_rule("TruncatedNormal", "truncated_normal"),
    ("gen_random_ops", "random_uniform_int"): _integer_rule("RandomUniformInt"),
    ("gen_random_ops", "random_shuffle"): _shuffle_rule("RandomShuffle"),
    ("gen_random_ops", "multinomial"): _categorical_rule("Multinomial"),
    ("gen_stateless_random_ops", "stateless_random_uniform"): _float_rule("StatelessRandomUniform", "uniform"),
    ("gen_stateless_random_ops", "stateless_random_normal"): _float_rule("StatelessRandomNormal", "normal"),
    ("gen_stateless_random_ops", "stateless_truncated_normal"): _float_rule(
        "StatelessTruncatedNormal", "truncated_normal"
    ),
    ("gen_stateless_random_ops", "stateless_random_uniform_int"): _integer_rule("StatelessRandomUniformInt"),
    ("gen_stateless_random_ops", "stateless_multinomial"): _categorical_rule("StatelessMultinomial"),
    ("gen_stateless_random_ops_v2", "stateless_random_uniform_v2"): _float_rule("StatelessRandomUniformV2", "uniform"),
    ("gen_stateless_random_ops_v2", "stateless_random_normal_v2"): _float_rule("StatelessRandomNormalV2", "normal"),
    ("gen_stateless_random_ops_v2", "stateless_truncated_normal_v2"): _float_rule(
        "StatelessTruncatedNormalV2", "truncated_normal"
    ),
    ("gen_stateless_random_ops_v2", "stateless_random_uniform_int_v2"): _integer_rule("StatelessRandomUniformIntV2"),
    ("gen_stateless_random_ops_v2", "stateless_shuffle"): _shuffle_rule("StatelessShuffle"),
    ("gen_candidate_sampling_ops", "log_uniform_candidate_sampler"): _candidate_rule(
        "LogUniformCandidateSampler", "log_uniform"
    ),
    ("gen_candidate_sampling_ops", "uniform_candidate_sampler"): _candidate_rule("UniformCandidateSampler", "uniform"),
}
"""(module, function) -> what replaces it."""

_UNCONTROLLED: dict[tuple[str, str], str] = {
    ("gen_random_ops", "parameterized_truncated_normal"): "ParameterizedTruncatedNormal",
    ("gen_random_ops", "random_gamma"): "RandomGamma",
    ("gen_random_ops", "random_poisson"): "RandomPoisson",
    ("gen_random_ops", "random_poisson_v2"): "RandomPoissonV2",
    ("gen_stateless_random_ops", "stateless_parameterized_truncated_normal"): "StatelessParameterizedTruncatedNormal",
    ("gen_stateless_random_ops", "stateless_random_binomial"): "StatelessRandomBinomial",
    ("gen_stateless_random_ops", "stateless_random_gamma_v2"): "StatelessRandomGammaV2",
    ("gen_stateless_random_ops", "stateless_random_poisson"): "StatelessRandomPoisson",
    ("gen_stateless_random_ops_v2", "stateless_random_gamma_v3"): "StatelessRandomGammaV3",
    ("gen_stateful_random_ops", "stateful_random_binomial"): "StatefulRandomBinomial",
    ("gen_stateful_random_ops", "stateful_standard_normal_v2"): "StatefulStandardNormalV2",
    ("gen_stateful_random_ops", "stateful_truncated_normal"): "StatefulTruncatedNormal",
    ("gen_stateful_random_ops", "stateful_uniform"): "StatefulUniform",
    ("gen_stateful_random_ops", "stateful_uniform_int"): "StatefulUniformInt",
    ("gen_candidate_sampling_ops", "all_candidate_sampler"): "AllCandidateSampler",
    ("gen_candidate_sampling_ops", "fixed_unigram_candidate_sampler"): "FixedUnigramCandidateSampler",
    ("gen_candidate_sampling_ops", "learned_unigram_candidate_sampler"): "LearnedUnigramCandidateSampler",
    ("gen_candidate_sampling_ops", "thread_unsafe_unigram_candidate_sampler"): "ThreadUnsafeUnigramCandidateSampler",
}
"""(module, function) -> the type of an op that draws and is not fed."""

_NO_RULE = "tfport feeds no draws of this distribution; each side draws its own"
_RAW = "the op was not made by a function that tfport replaces (tf.raw_ops, or an imported graph)"

_KINDS = {rule.op: rule.kind for rule in _RULES.values()} | {
    "StatefulStandardNormalV2": "normal",
    "StatefulTruncatedNormal": "truncated_normal",
    "StatefulUniform": "uniform",
    "StatefulUniformInt": "integers",
}
RANDOM_OPS = frozenset(_KINDS) | frozenset(_UNCONTROLLED.values()) | {"RandomPoisson", "StatelessRandomGammaV2"}
"""Types of ops whose values are random numbers."""

_NUMPY = tuple(
    name
    for name in dir(np.random)
    if not name.startswith(("_", "get_", "set_", "test", "seed", "default_rng")) and name.islower()
    if callable(getattr(np.random, name))
)
_PYTHON = tuple(
    name
    for name in random.__all__
    if name.islower() and name not in ("seed", "getstate", "setstate") and callable(getattr(random, name))
)


def digest(value: Any) -> str:
    """SHA-256 over dtype, shape and bytes of what was drawn."""
    array = np.ascontiguousarray(value)
    found = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
    found.update(array.tobytes() if array.dtype != object else repr(value).encode())
    return found.hexdigest()


def _kind(rule: _Rule, given: dict[str, Any]) -> str:
    if "range_max" in given:
        return candidates.kind(rule.kind, int(given["range_max"]), bool(given["unique"]))
    return rule.kind


class Interceptor:
    """Stands between a program and its random numbers; see the module's text."""

    def __init__(self, draws: DrawSource) -> None:
        self.draws = draws
        self.holders = Holders([])
        """Of the generators of Python's and numpy's that the code holds."""
        self._phase = ""
        self._recorded: dict[str, str] | None = None
        self._traced: dict[str, dict[str, str]] = {}
        self._infos: dict[str, DrawInfo] = {}

    # --- Contexts -----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def feeding(self, phase: str) -> Iterator[None]:
        """Begins the draws of one call and feeds all that is run or traced inside, graphs as they are written.

        What the code draws by Python's and numpy's generators is fed too (`python_draws`); the global ones are seeded
        for what that does not reach, and put back at the end.
        """
        self.draws.begin(phase)
        with self._replaced(phase, self._fed), _python_generators(self.draws), self._python(), unrewritten():
            yield

    def _python(self) -> contextlib.AbstractContextManager[None]:
        return python_draws.fed(self.draws, self.holders)

    @contextlib.contextmanager
    def passing(self, phase: str) -> Iterator[None]:
        """Like `feeding`, without starting the draws again: for a part of a call."""
        with self._replaced(phase, self._fed):
            yield

    @contextlib.contextmanager
    def recording(self, phase: str) -> Iterator[dict[str, str]]:
        """Lets everything draw as it does by itself; yields draw name -> digest, filled as things are drawn.

        It works eagerly, and for functions that were first traced in a `recording`. What Python draws during a trace is
        named "<name> (traced)" and told again by each later `recording` of the phase, since the traced function keeps
        it.
        """
        found: dict[str, str] = dict(self._traced.get(phase, {}))
        outer, self._recorded = self._recorded, found
        try:
            with self._replaced(phase, self._told), self._python_recorded(phase):
                yield found
        finally:
            self._recorded = outer
            found.update(self._traced.get(phase, {}))

    def infos(self) -> list[DrawInfo]:
        """Every place that has drawn so far, in the order found."""
        return list(self._infos.values())

    def note(self, name: str, kind: str, controlled: bool, reason: str = "") -> None:
        """Remembers one place that draws in the current phase."""
        before = self._infos.get(name)
        phases = dict.fromkeys([*(before.phases if before else ()), *([self._phase] if self._phase else [])])
        self._infos[name] = DrawInfo(name, kind, controlled, reason, tuple(phases))

    def note_left(self, graph: Any) -> None:
        """Remembers the random ops of a traced graph that were not replaced."""
        for info in random_ops(graph):
            if info.name not in self._infos:
                self.note(info.name, info.kind, info.controlled, info.reason)

    # --- Replacement --------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _replaced(self, phase: str, maker: Callable[..., Callable[..., Any]]) -> Iterator[None]:
        outer, self._phase = self._phase, phase
        originals: list[tuple[Any, str, Any]] = []
        try:
            for module_name, function in [*_RULES, *_UNCONTROLLED]:
                module = importlib.import_module(_OPS + module_name)
                original = getattr(module, function, None)
                if original is None:
                    continue
                original = getattr(original, "_tfport_original", original)
                replacement = maker(original, _RULES.get((module_name, function)), (module_name, function))
                replacement._tfport_original = original  # type: ignore[attr-defined]
                originals.append((module, function, getattr(module, function)))
                setattr(module, function, replacement)
            yield
        finally:
            for module, function, original in reversed(originals):
                setattr(module, function, original)
            self._phase = outer

    def _fed(self, original: Any, rule: _Rule | None, key: tuple[str, str]) -> Callable[..., Any]:
        """A stand-in that is fed from the DrawSource."""
        signature = _signature(original)

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            if rule is None or _in_v1_graph():
                outputs = original(*args, **kwargs)
                op = rule.op if rule is not None else _UNCONTROLLED[key]
                if not _in_v1_graph():
                    self.note(_op_name(outputs, op), _KINDS.get(op, op), False, _NO_RULE)
                return outputs
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            outputs = self._feed(rule, given)
            if rule.kind == "shuffle":
                return tf.gather(tf.convert_to_tensor(given["value"]), outputs)
            return outputs

        return replacement

    def _feed(self, rule: _Rule, given: dict[str, Any]) -> Any:
        draw, dtypes, shapes = rule.draw(given), rule.dtypes(given), rule.shapes(given)
        inputs = rule.inputs(given)
        several = len(dtypes) > 1
        name = given.get("name") or rule.op

        def fed(*arrays: Array) -> Any:
            return draw(self.draws, *(np.asarray(array) for array in arrays))

        if tf.executing_eagerly():
            found = fed(*(tensor.numpy() for tensor in inputs))
            outputs = [
                tf.constant(value, dtype) for value, dtype in zip(found if several else [found], dtypes, strict=True)
            ]
            self.note(_eager_name(name), _kind(rule, given), True)
            return rule.wrap(outputs)
        result = tf.numpy_function(fed, inputs, dtypes, stateful=True, name=name)
        outputs = list(result) if isinstance(result, list | tuple) else [result]
        op = outputs[0].op
        op._set_attr(KIND, _attribute(rule.op))
        for output, shape in zip(outputs, shapes, strict=True):
            output.set_shape(shape)
        self.note(op.name, _kind(rule, given), True)
        return rule.wrap(outputs)

    # --- Recording ----------------------------------------------------------------------------------------------------
    def _told(self, original: Any, rule: _Rule | None, key: tuple[str, str]) -> Callable[..., Any]:
        """A stand-in that draws as the original does and tells the digest of what came."""
        op = rule.op if rule is not None else _UNCONTROLLED[key]

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            outputs = original(*args, **kwargs)
            value = outputs[0] if isinstance(outputs, list | tuple) else outputs
            if tf.executing_eagerly():
                self._tell(_eager_name(kwargs.get("name") or op), value.numpy())
                return outputs
            name = value.op.name

            def tell(array: Array) -> None:
                self._tell(name, array)

            tf.numpy_function(tell, [value], [], stateful=True, name=f"{op}_told")
            return outputs

        return replacement

    def _tell(self, name: str, value: Any) -> None:
        if self._recorded is None:
            return
        unique, count = name, 1
        while unique in self._recorded:
            count += 1
            unique = f"{name}#{count}"
        self._recorded[unique] = digest(value)

    @contextlib.contextmanager
    def _python_recorded(self, phase: str) -> Iterator[None]:
        """Tells what the functions of `np.random` and `random` return."""
        originals: list[tuple[Any, str, Any]] = []
        fresh: dict[str, str] = {}

        def told(original: Any, name: str) -> Callable[..., Any]:
            @functools.wraps(original)
            def replacement(*args: Any, **kwargs: Any) -> Any:
                value = original(*args, **kwargs)
                shown = args[0] if value is None and args else value  # shuffle works in place
                if not is_users_call():
                    return value
                if tf.executing_eagerly():
                    self._tell(name, _shown(shown))
                else:
                    unique, count = f"{name} (traced)", 1
                    while unique in fresh:
                        count += 1
                        unique = f"{name}#{count} (traced)"
                    fresh[unique] = digest(_shown(shown))
                return value

            return replacement

        try:
            for module, label, names in ((np.random, "np.random", _NUMPY), (random, "random", _PYTHON)):
                for name in names:
                    original = getattr(module, name, None)
                    if original is not None:
                        originals.append((module, name, original))
                        setattr(module, name, told(original, f"{label}.{name}"))
            yield
        finally:
            for module, name, original in reversed(originals):
                setattr(module, name, original)
            self._traced.setdefault(phase, {}).update(fresh)


def _shown(value: Any) -> Array:
    array = np.asarray(value)
    return array if array.dtype != object else np.frombuffer(repr(value).encode(), np.uint8)


@contextlib.contextmanager
def _python_generators(draws: DrawSource) -> Iterator[None]:
    """Seeds numpy's global generator and Python's from the draws, and puts them back."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(draws.bits())  # noqa: NPY002
    random.seed(draws.bits())
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def _in_v1_graph() -> bool:
    """Whether ops go into a graph of TF1's that is no function: its feeds are another adapter's."""
    return not tf.compat.v1.executing_eagerly_outside_functions() and not tf.executing_eagerly()


def _attribute(value: str) -> Any:
    from tensorflow.core.framework import attr_value_pb2

    return attr_value_pb2.AttrValue(s=value.encode())


def _eager_name(name: str) -> str:
    """An eager op's name with the scopes that are entered."""
    from tensorflow.python.eager import context

    return f"{context.context().scope_name}{name}"


def _op_name(outputs: Any, op: str) -> str:
    first = outputs[0] if isinstance(outputs, list | tuple) else outputs
    return _eager_name(op) if tf.executing_eagerly() else str(first.op.name)


def nested_graphs(graph: Any) -> Iterator[Any]:
    """A traced graph and those of the functions that it calls, each once."""
    seen: set[str] = set()
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for function in getattr(current, "_functions", {}).values():
            inner = getattr(function, "graph", None)
            name = str(getattr(function, "name", id(function)))
            if inner is not None and name not in seen:
                seen.add(name)
                pending.append(inner)


def random_ops(graph: Any) -> list[DrawInfo]:
    """The random ops left in a traced graph, or in the functions that it calls; none of them is fed."""
    found: dict[str, DrawInfo] = {}
    for each in nested_graphs(graph):
        for op in each.get_operations():
            if op.type in RANDOM_OPS:
                reason = _NO_RULE if op.type in _UNCONTROLLED.values() else _RAW
                found[op.name] = DrawInfo(op.name, _KINDS.get(op.type, op.type), False, reason)
    return list(found.values())
