"""PyTorch modules with their own training step as a Program.

The step runs as its user wrote it, always: what looks at it (`loss`, `gradients`, `nodes`) runs the whole of it, update
and all, and puts everything back. So the gradients of a second optimizer in one phase are those that it really sees.

* Gradients are what an optimizer goes by at its first update in the phase: what it holds at its start, turned round
  where it maximises, and with the weight decay that it adds to it. Derivatives are what `backward` left.
* The loss is the sum of the tensors on which `backward` is called in the phase, each weighted by what it is called
  with; without any, the sum of the last targets of `torch.autograd.grad`. What is maximised counts negative.
* Random numbers are taken from the draws below autograd, where every function of torch ends: a dropout is a uniform of
  its mask's shape, kept where uniform >= rate. Numpy's and Python's generators are seeded.

Names of variables are the modules' own with "/" for ".": `discriminator/net/0/weight`; values are laid out as PyTorch
lays them out. PyTorch counts steps for every parameter by itself: here an optimizer has one count, of its updates.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tfport.adapters import python_draws, steps
from tfport.checking.draws import DrawSource
from tfport.errors import UserError
from tfport.program import (
    Array,
    Batch,
    DrawInfo,
    InputInfo,
    Node,
    OptimizerInfo,
    Program,
    State,
    VariableInfo,
    precision_of,
    shown,
)
from tfport.state import iterations_name, slot_name
from tfport.subject import CORRECTED
from tfport.user_code import calling, user_line

WITHIN = ", epsilon within the norm"
"""Of PyTorch's Adamax: epsilon is added to the gradient's size, and not to the divisor."""

_ALGORITHMS: dict[type, tuple[str, dict[str, str], dict[str, str]]] = {
    torch.optim.SGD: ("SGD", {"momentum_buffer": "accumulator"}, {}),
    torch.optim.Adam: ("Adam" + CORRECTED, {"exp_avg": "m", "exp_avg_sq": "v"}, {"eps": "epsilon"}),
    torch.optim.AdamW: ("AdamW" + CORRECTED, {"exp_avg": "m", "exp_avg_sq": "v"}, {"eps": "epsilon"}),
    torch.optim.Adamax: ("Adamax" + WITHIN, {"exp_avg": "m", "exp_inf": "v"}, {"eps": "epsilon"}),
    torch.optim.Adagrad: ("Adagrad" + CORRECTED, {"sum": "accumulator"}, {"eps": "epsilon"}),
    torch.optim.RMSprop: ("RMSProp" + CORRECTED, {"square_avg": "rms", "grad_avg": "mean"}, {"alpha": "rho"}),
    torch.optim.Adadelta: ("Adadelta", {"square_avg": "accumulator", "acc_delta": "accumulator_update"}, {}),
}
"""Class -> algorithm, PyTorch's slot -> canonical slot, PyTorch's number -> canonical number.

CORRECTED says that epsilon is not where TF1 has it: PyTorch's RMSprop and Adagrad add it to the root, as Keras's legacy
optimizers do. RMSprop's `momentum_buffer` keeps its name: TF1's momentum has the rate in it, and PyTorch's has not.
"""
_SWITCHES = ("foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay")
"""Numbers of a parameter group that say how it is computed and not what."""
_ROUNDED = ("lr", "initial_lr", "momentum", "dampening", "eps", "rho", "alpha", "weight_decay", "lr_decay", "betas")
"""Numbers that TF1 keeps in float32."""

_THROUGH = {
    "detach",
    "data",
    "contiguous",
    "requires_grad_",
    "to",
    "cpu",
    "float",
    "double",
    "type",
    "type_as",
    "alias",
}
"""Functions that hand a tensor on: their results are not nodes where they stay what they were."""
_NO_NODES = {"grad", "grad_fn", "_grad", "_base", "backward", "register_hook", "retain_grad", "__repr__", "__format__"}
"""Functions that are not looked at."""
_REPLAYED = 10_000
"""How many steps of a scheduler are made again at once: it is set to a count by stepping it so often."""


# --- Variables --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Place:
    """Where a parameter or a buffer is kept; the tensor in it may be replaced by the code."""

    name: str
    holder: nn.Module
    key: str
    parameter: bool

    @property
    def tensor(self) -> Any:
        return (self.holder._parameters if self.parameter else self.holder._buffers)[self.key]


@dataclass
class _Rule:
    """One optimizer of the Program: an optimizer of PyTorch's, or those of its groups that have the same numbers."""

    name: str
    owner: Optimizer
    groups: list[dict[str, Any]]
    held: dict[str, Any]
    """Variable -> parameter."""
    templates: dict[str, dict[str, Any]]
    """Variable -> what the first update makes for it: PyTorch's key -> value."""

    def canonical(self, key: str) -> str:
        known = _ALGORITHMS.get(type(self.owner))
        if key == "max_exp_avg_sq":
            return "vhat"
        return known[1].get(key, key) if known else key

    def slots(self, variable: str) -> dict[str, Any]:
        """PyTorch's key -> an example of the slot."""
        found = {key: value for key, value in self.templates[variable].items() if key != "step"}
        return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}

    @property
    def plain(self) -> bool:
        """Whether it goes by the gradient as it is."""
        group = self.groups[0]
        return type(self.owner) not in _ALGORITHMS or not (group.get("maximize") or self._added_decay)

    @property
    def _added_decay(self) -> float:
        group = self.groups[0]
        apart = isinstance(self.owner, torch.optim.AdamW) or group.get("decoupled_weight_decay")
        return 0.0 if apart else float(group.get("weight_decay") or 0.0)

    @torch.no_grad()
    def goes_by(self, parameter: Any) -> Any:
        """A parameter's gradient as the update takes it: turned round, with the weight decay that is added to it."""
        gradient = parameter.grad
        if self.plain:
            return gradient
        gradient = -gradient if self.groups[0].get("maximize") else gradient
        return gradient.add(parameter, alpha=self._added_decay) if self._added_decay else gradient

    def info(self, count: int) -> OptimizerInfo:
        """Algorithm and numbers, read off the first group; that of the others are the same."""
        group = self.groups[0]
        algorithm, _, names = _ALGORITHMS.get(type(self.owner), (type(self.owner).__name__, {}, {}))
        numbers: dict[str, float] = {"learning_rate": float(group["lr"])} if "lr" in group else {}
        for key, value in group.items():
            if key in ("params", "lr", "initial_lr", *_SWITCHES) or value is None or isinstance(value, str):
                continue
            if key == "betas" and len(value) == 2:
                numbers |= {"beta_1": float(value[0]), "beta_2": float(value[1])}
            elif isinstance(value, (bool, int, float)) or (isinstance(value, torch.Tensor) and value.numel() == 1):
                numbers[names.get(key, {"eps": "epsilon"}.get(key, key))] = float(value)
        return OptimizerInfo(self.name, *_algorithm(type(self.owner), group, algorithm, numbers, count))


def _algorithm(
    kind: type, group: Mapping[str, Any], algorithm: str, numbers: dict[str, float], count: int
) -> tuple[str, dict[str, float]]:
    """The algorithm's name where numbers change it, without the numbers that then say nothing."""
    if kind is torch.optim.SGD:
        nesterov, dampening = numbers.pop("nesterov", 0), numbers.pop("dampening", 0)
        if numbers["momentum"]:
            algorithm = "Nesterov" if nesterov else "Momentum"
            if dampening:
                algorithm, numbers["dampening"] = algorithm + ", dampened", dampening
        else:
            del numbers["momentum"]
    if kind is torch.optim.RMSprop and numbers.pop("centered", 0):
        algorithm = "Centered" + algorithm
    if numbers.pop("amsgrad", 0):
        algorithm += ", amsgrad"
    if kind is torch.optim.Adagrad:
        numbers["initial_accumulator"] = numbers.pop("initial_accumulator_value", 0)
        if not numbers["initial_accumulator"]:
            del numbers["initial_accumulator"]
        numbers["learning_rate"] /= 1 + count * numbers.pop("lr_decay", 0)
    decoupled = kind is torch.optim.AdamW or group.get("decoupled_weight_decay")
    if decoupled and algorithm.startswith("Adam,"):
        algorithm = "AdamW" + algorithm.removeprefix("Adam")
    if kind in _ALGORITHMS and not decoupled and "weight_decay" in numbers:
        decay = numbers.pop("weight_decay")
        if decay:
            numbers["l2"] = decay
    return algorithm, numbers


def _templates(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """Parameter's id -> what the optimizer's first update makes for it, found by an update of a copy."""
    memo: dict[int, Any] = {}
    stand_ins: dict[int, Any] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            stand_in = torch.zeros_like(parameter, requires_grad=True)
            stand_in.grad = torch.zeros_like(parameter)
            memo[id(parameter)] = stand_ins[id(parameter)] = stand_in
    try:
        twin = copy.deepcopy(optimizer, memo)
        twin.step()
    except Exception as error:
        raise UserError(
            f"the optimizer {type(optimizer).__name__} makes no update for a gradient of zero "
            f"({type(error).__name__}: {error}), so its slots cannot be read; use an optimizer of torch.optim whose "
            "step needs no closure."
        ) from None
    return {key: dict(twin.state.get(stand_in, {})) for key, stand_in in stand_ins.items()}


# --- Random numbers ---------------------------------------------------------------------------------------------------
class _Draws(TorchDispatchMode):  # type: ignore[misc]
    """Feeds every function that draws random numbers, or writes down what it drew."""

    def __init__(self, watch: _Watch, source: DrawSource | None) -> None:
        super().__init__()
        self.watch = watch
        self.source = source

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Handles one function of ATen's."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            if self.watch.left and func._schema.name.endswith("_"):
                self.watch.wrote(args[0])
            return func(*args, **kwargs)
        given = {each.name: each.default_value for each in func._schema.arguments if each.has_default_value()}
        given |= dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | kwargs
        name = func._schema.name.split("::")[-1]
        kind, found = _fed(name, given, self.source) if self.source else (_KINDS.get(name, name), None)
        controlled = name in _KINDS
        result = func(*args, **kwargs) if found is None else _hand_over(name, given, found)
        self.watch.drew(name, kind, controlled, result)
        return result


_KINDS = {
    "rand": "uniform",
    "rand_like": "uniform",
    "uniform": "uniform",
    "uniform_": "uniform",
    "bernoulli": "uniform",
    "bernoulli_": "uniform",
    "native_dropout": "uniform",
    "randn": "normal",
    "randn_like": "normal",
    "normal": "normal",
    "normal_": "normal",
    "normal_functional": "normal",
    "randint": "integers",
    "randint_like": "integers",
    "random": "integers",
    "random_": "integers",
    "randperm": "shuffle",
}
"""ATen's functions that are fed, and what they draw."""


def _fed(name: str, given: Mapping[str, Any], source: DrawSource) -> tuple[str, Any]:
    """What a function draws and what it is given in its place, a tensor; None where it is left to a seed."""
    kind = _KINDS.get(name, name)
    own = given.get("self", given.get("input"))
    shape = tuple(own.shape) if isinstance(own, torch.Tensor) else tuple(given.get("size") or ())
    default = own.dtype if isinstance(own, torch.Tensor) else torch.get_default_dtype()
    dtype = given.get("dtype")
    dtype = torch.int64 if isinstance(dtype, int) else dtype or default  # a schema's default is int64's number
    device = given.get("device") or (own.device if isinstance(own, torch.Tensor) else None)
    if kind == "uniform":
        if name == "native_dropout":
            rate = float(given["p"]) if given.get("train") is not False else 0.0
            keep = _tensor(source.uniform(shape), torch.float32, device) >= rate
            scale = 1 / (1 - rate) if rate < 1 else 0.0
            return kind, (own * keep * scale, keep)
        values = source.uniform(shape, _width(dtype))
        if name.startswith("bernoulli"):
            chance = given.get("p")
            chance = own if chance is None else chance
            if isinstance(chance, torch.Tensor):
                return kind, (_tensor(values, chance.dtype, device) >= 1 - chance).to(dtype)
            return kind, _tensor(values >= np.float32(1 - chance), dtype, device)
        low, high = given.get("from", 0.0), given.get("to", 1.0)
        return kind, _tensor(values, dtype, device) * (high - low) + low if name.startswith("uniform") else _tensor(
            values, dtype, device
        )
    if kind == "normal":
        if name.startswith("randn"):
            return kind, _tensor(source.normal(shape, _width(dtype)), dtype, device)
        mean, std = given.get("mean", 0.0), given.get("std", 1.0)
        tensors = [each for each in (mean, std) if isinstance(each, torch.Tensor)]
        if tensors and name == "normal":
            shape = tuple(torch.broadcast_shapes(*(each.shape for each in tensors)))
            dtype, device = tensors[0].dtype, tensors[0].device
        return kind, _tensor(source.normal(shape, _width(dtype)), dtype, device) * std + mean
    if kind == "integers":
        low, high = given.get("low", given.get("from")) or 0, given.get("high", given.get("to"))
        if high is None:
            high = 1 << 24 if dtype == torch.float32 else 1 << 53 if dtype == torch.float64 else torch.iinfo(dtype).max
        return kind, _tensor(source.integers(shape, int(low), int(high), "int64"), dtype, device)
    if kind == "shuffle":
        return kind, _tensor(source.shuffle(int(given["n"])), dtype if given.get("dtype") else torch.int64, device)
    return kind, None


def _hand_over(name: str, given: Mapping[str, Any], found: Any) -> Any:
    """Puts values where the function would have put them."""
    target = given["self"] if name.endswith("_") else given.get("out")
    if isinstance(target, torch.Tensor):
        target.copy_(found)
        return target
    return found


def _tensor(values: Array, dtype: Any, device: Any) -> Any:
    return torch.as_tensor(np.ascontiguousarray(values).reshape(values.shape)).to(device=device, dtype=dtype)


def _width(dtype: Any) -> str:
    return "float64" if dtype == torch.float64 else "float32"


# --- Nodes ------------------------------------------------------------------------------------------------------------
@dataclass
class _Known:
    """Where a tensor comes from; the tensor is kept, so that no other gets its id."""

    tensor: Any
    names: tuple[str, ...]
    variables: tuple[str, ...] = ()


class _Recorder(TorchFunctionMode):  # type: ignore[misc]
    """Writes down every function of torch that the code calls outside of torch's own layers, and those layers."""

    def __init__(self, watch: _Watch, variables: Mapping[int, str]) -> None:
        super().__init__()
        self.watch = watch
        self.variables = variables
        self.nodes: list[Node] = []
        self.known: dict[int, _Known] = {}
        self.functions: dict[int, tuple[Any, tuple[str, ...]]] = {}
        self.used: set[str] = set()
        self.paused = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one function and writes it down."""
        kwargs = kwargs or {}
        own = getattr(func, "__self__", None)
        name = own.__name__ if func.__name__ == "__get__" and own is not None else func.__name__
        if self.paused or name in _NO_NODES or func.__name__ in ("__set__", "__delete__"):
            return func(*args, **kwargs)
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        sources = self.sources(given)
        drawn = self.watch.count
        result = func(*args, **kwargs)
        made = args[0] if name == "__setitem__" else result
        kind = name.removeprefix("__").removesuffix("__")
        place = self.watch.place()
        title = f"{place}/{kind}" if place else kind
        live = self.watch.count > drawn or any(each is not None for each in sources)
        with torch._C.DisableTorchFunction():
            attributes = _attributes(args, kwargs, lambda each: self.source(each) is None)
            self.write(title, kind, sources, made, live, attributes, through=name in _THROUGH)
        return result

    def sources(self, tensors: Iterable[Any]) -> list[_Known | None]:
        """Where tensors come from, None for constants; looked up before a function changes them in place."""
        with torch._C.DisableTorchFunction():
            return [self.source(each) for each in tensors]

    def source(self, tensor: Any) -> _Known | None:
        if id(tensor) in self.variables:
            return _Known(tensor, (), (self.variables[id(tensor)],))
        if id(tensor) in self.known:
            return self.known[id(tensor)]
        if tensor.grad_fn is None:
            return None
        names: dict[str, None] = {}
        variables: dict[str, None] = {}
        queue, seen = [tensor.grad_fn], set()
        while queue:
            function = queue.pop()
            if function is None or function in seen:
                continue
            seen.add(function)
            if id(function) in self.functions:
                names |= dict.fromkeys(self.functions[id(function)][1])
                continue
            variable = getattr(function, "variable", None)
            if variable is not None and id(variable) in self.variables:
                variables[self.variables[id(variable)]] = None
            queue.extend(each for each, _ in function.next_functions)
        return _Known(tensor, tuple(names), tuple(variables))

    def write(
        self,
        title: str,
        kind: str,
        sources: Sequence[_Known | None],
        made: Any,
        live: bool,
        attributes: Mapping[str, str],
        through: bool = False,
    ) -> None:
        """Writes down what a function or a layer made."""
        if not live:
            return
        names = tuple(dict.fromkeys(name for each in sources if each for name in each.names))
        variables = tuple(dict.fromkeys(name for each in sources if each for name in each.variables))
        first = ""
        where = user_line(calling(sys._getframe(1)))
        for index, tensor in enumerate(each for each in tree_leaves(made) if isinstance(each, torch.Tensor)):
            through = through and len([each for each in sources if each]) == 1
            if tensor.is_complex() or through:
                self.know(tensor, _Known(tensor, names, variables))
                continue
            first = first or self.unique(title)
            name = first if index == 0 else self.unique(f"{first}:{index}")
            self.nodes.append(Node(name, kind, names, variables, _array(tensor), attributes, where))
            self.know(tensor, _Known(tensor, (name,)))

    def know(self, tensor: Any, known: _Known) -> None:
        if id(tensor) in self.variables:
            return
        self.known[id(tensor)] = known
        if tensor.grad_fn is not None:
            self.functions[id(tensor.grad_fn)] = (tensor.grad_fn, known.names)

    def unique(self, title: str) -> str:
        name, number = title, 0
        while name in self.used:
            number += 1
            name = f"{title}_{number}"
        self.used.add(name)
        return name

    def behind(self, ends: Sequence[Any]) -> list[Node]:
        """The nodes that some tensors are computed from, the last one's own last."""
        found = [each for each in self.sources(ends) if each is not None]
        needed = {name for each in found for name in each.names}
        last = found[-1].names[-1] if found and found[-1].names else ""
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if node.name in needed:
                needed |= set(node.inputs)
                kept.append(node)
        kept.reverse()
        return [node for node in kept if node.name != last] + [node for node in kept if node.name == last]


# --- One call ---------------------------------------------------------------------------------------------------------
@dataclass
class _Watch:
    """What is seen while a function of the user's runs."""

    program: TorchProgram
    phase: str
    count: int = 0
    """Draws so far."""
    digests: dict[str, str] = field(default_factory=dict)
    targets: list[Any] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    """Targets of the last torch.autograd.grad."""
    gradients: dict[str, Array | None] = field(default_factory=dict)
    derivatives: dict[str, Array] = field(default_factory=dict)
    """What the last `backward` before the first update left."""
    untouched: bool = True
    """Whether every optimizer goes by just that."""
    maximised: list[bool] = field(default_factory=list)
    """Of each optimizer that made an update, whether it maximises."""
    stepped: list[str] = field(default_factory=list)
    recorder: _Recorder | None = None
    keep: bool = False
    """Whether gradients and losses are read off; a plain run of a phase needs them not."""
    left: dict[int, Any] = field(default_factory=dict)
    """What the last `backward` left and nobody has written to since, by its id."""
    _path: list[str] = field(default_factory=list)
    _rates: list[tuple[dict[str, Any], Any]] = field(default_factory=list)

    def place(self) -> str:
        """The module that is being computed."""
        return self._path[-1] if self._path else ""

    # --- Draws --------------------------------------------------------------------------------------------------------
    def drew(self, function: str, kind: str, controlled: bool, result: Any) -> None:
        """A function drew random numbers."""
        self.count += 1
        title = self.place() or f"{self.phase}/{function.strip('_')}"
        name, number = title, 0
        while name in self.digests:
            number += 1
            name = f"{title}_{number}"
        digest = hashlib.sha256()
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor):
                digest.update(_array(each).tobytes())
        self.digests[name] = digest.hexdigest()[:16]
        reason = "" if controlled else "drawn by PyTorch itself, from a seed that is a function of the step"
        self.program.note_draw(name, kind, controlled, reason, self.phase)

    # --- Modules ------------------------------------------------------------------------------------------------------
    def enter(self, module: nn.Module, _: Any) -> None:
        """A module begins."""
        self._path.append(self.program.module_names.get(id(module), type(module).__name__))
        if self.recorder is not None and _atomic(module):
            self.recorder.paused += 1

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A module is done."""
        name = self._path.pop()
        if self.recorder is None or not _atomic(module):
            return
        self.recorder.paused -= 1
        if self.recorder.paused:
            return
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        sources = self.recorder.sources(given)
        training = isinstance(module, nn.modules.batchnorm._NormBase) and module.training
        own = [*module._parameters.values(), *(() if training else module._buffers.values())]
        sources += self.recorder.sources(each for each in own if each is not None and id(each) in self.program.names)
        with torch._C.DisableTorchFunction():
            live = any(each is not None for each in sources)
            kind = type(module).__name__
            self.recorder.write(name or kind, kind, sources, output, live, _settings(module))

    # --- Gradients ----------------------------------------------------------------------------------------------------
    def backward(self, tensors: Any, weights: Any = None, *args: Any, **kwargs: Any) -> None:
        """Stands in for torch.autograd.backward."""
        targets = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        by = [weights] * len(targets) if weights is None or isinstance(weights, torch.Tensor) else list(weights)
        if self.keep:
            self.targets += targets
            self.losses += [_weighted(target, weight) for target, weight in zip(targets, by, strict=True)]
        with self.silence():
            _BACKWARD(tensors, weights, *args, **kwargs)
            if self.keep and not self.stepped:
                held = ((name, place.tensor.grad) for name, place in self.program.places.items() if place.parameter)
                given = {name: grad for name, grad in held if grad is not None}
                self.derivatives = {name: _dense(grad) for name, grad in given.items()}
                self.gradients = dict(self.derivatives)
                self.left = {id(grad): grad for grad in given.values()}

    def grad(self, outputs: Any, inputs: Any, grad_outputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Stands in for torch.autograd.grad."""
        if self.keep:
            self.asked = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        with self.silence():
            return _GRAD(outputs, inputs, grad_outputs, *args, **kwargs)

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Nothing is written down."""
        if self.recorder is None:
            yield
            return
        self.recorder.paused += 1
        try:
            yield
        finally:
            self.recorder.paused -= 1

    def wrote(self, tensors: Any) -> None:
        """A function wrote into a tensor, or into a list of them."""
        for each in tensors if isinstance(tensors, list | tuple) else [tensors]:
            self.left.pop(id(each), None)

    def loss(self) -> float | None:
        """The objective, where it was found."""
        found = self.losses or [_weighted(each, None) for each in self.asked]
        return self.sign * sum(found[1:], found[0]) if found else None

    @property
    def sign(self) -> float:
        """-1 where what is differentiated is maximised by every optimizer."""
        return -1.0 if self.maximised and all(self.maximised) else 1.0

    def before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """An optimizer begins an update."""
        rules = [rule for rule in self.program.rules if rule.owner is optimizer]
        if not rules:
            raise UserError(
                f"the phase {self.phase!r} makes an update with {_a(type(optimizer).__name__)} that torch_module was "
                "not given; give every optimizer that the step uses, as optimizer= or optimizers={name: optimizer}."
            )
        if self.recorder is not None:
            self.recorder.paused += 1
        if self.program.precision == "float64":
            for group in optimizer.param_groups:
                if isinstance(group.get("lr"), float):
                    self._rates.append((group, group["lr"]))
                    group["lr"] = _float32(group["lr"])
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self.hand_over(rules)
            return None

        def watched() -> Any:
            if self.recorder is not None:
                self.recorder.paused -= 1
            result = closure()
            if self.recorder is not None:
                self.recorder.paused += 1
            self.hand_over(rules)
            return result

        return (args[0], watched), {}

    def hand_over(self, rules: Sequence[_Rule]) -> None:
        """Reads what an optimizer is given, the first time that it is."""
        if rules[0].name in self.stepped:
            return
        if not self.stepped:
            self.gradients = {}
        self.stepped += [rule.name for rule in rules]
        self.maximised += [bool(rule.groups[0].get("maximize")) for rule in rules]
        if self.keep:
            for rule in rules:
                for name, parameter in rule.held.items():
                    grad = parameter.grad
                    self.gradients.setdefault(name, None if grad is None else _dense(rule.goes_by(parameter)))
                    plain = rule.plain and (grad is None or id(grad) in self.left)
                    self.untouched = self.untouched and plain

    def after_step(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        """An optimizer has made an update."""
        if self.recorder is not None:
            self.recorder.paused -= 1
        for group, rate in self._rates:
            group["lr"] = rate
        self._rates.clear()
        self.program.counts[id(optimizer)] += 1


_BACKWARD = torch.autograd.backward
_GRAD = torch.autograd.grad


def _weighted(target: Any, weight: Any) -> float:
    with torch.no_grad(), torch._C.DisableTorchFunction():
        return float((target if weight is None else target * weight).sum())


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOU' else 'a'} {noun}"


def _dense(gradient: Any) -> Array:
    return _array(gradient.to_dense() if gradient.layout != torch.strided else gradient)


def _atomic(module: nn.Module) -> bool:
    """Whether a module is one node: a layer of torch's without layers of its own."""
    return type(module).__module__.startswith("torch.nn.") and not module._modules


def _attributes(args: Any, kwargs: Mapping[str, Any], constant: Callable[[Any], bool]) -> dict[str, str]:
    """A call's arguments that are no intermediates, as text; those without a name by their place."""
    named = {**{f"argument {index}": each for index, each in enumerate(args)}, **kwargs}
    found: dict[str, str] = {}
    for name, value in named.items():
        if isinstance(value, torch.Tensor):
            text = shown(_array(value)) if constant(value) and not value.is_complex() else ""
        elif isinstance(value, (bool, int, float, str)):
            text = shown(value)
        else:
            leaves = tree_leaves(value)
            plain = leaves and all(isinstance(each, (bool, int, float, slice)) or each is None for each in leaves)
            text = str(value) if plain and value is not None else ""
        if text:
            found[name] = text
    return found


def _settings(module: nn.Module) -> dict[str, str]:
    """What a layer was made with, as text."""
    return {
        key: shown(value) if isinstance(value, (bool, int, float, str)) else str(value)
        for key, value in vars(module).items()
        if not key.startswith("_")
        and key != "training"
        and (isinstance(value, (bool, int, float, str)) or (isinstance(value, tuple) and value))
    }


def _array(tensor: Any) -> Array:
    """A copy as an array; numpy has no bfloat16."""
    tensor = tensor.detach().cpu().resolve_conj()
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(), order="C")


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _float32(value: float) -> float:
    return float(np.float32(value))


# --- The Program ------------------------------------------------------------------------------------------------------
class TorchProgram(Program):
    """Modules, optimizers and a step of PyTorch's, driven from outside."""

    kind = "PyTorch module"

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        functions: Mapping[str, steps.Function],
        outputs: Any,
        inputs: steps.Inputs,
        seed: int,
        precision: str | None,
        rebuild: Callable[..., Any] | None,
        found: Sequence[str] = (),
    ) -> None:
        self.modules = {name: getattr(module, "_orig_mod", module) for name, module in modules.items()}
        self._functions = dict(functions)
        self._python = steps.PythonCounts([*functions.values(), *modules.values()], ("torch", "numpy", "tfport"))
        self.phases = tuple(functions)
        self._outputs = outputs
        self._rebuild = rebuild
        self._given_inputs = inputs
        self._notes = list(found)
        self._draw_infos: dict[str, DrawInfo] = {}
        self._seen: dict[str, tuple[str, ...]] = {}
        self.draws = DrawSource(seed)
        self._unfed: Any = None
        self._apart: dict[str, Any] = {}
        self._seed = seed

        self.module_names: dict[int, str] = {}
        self.places: dict[str, _Place] = {}
        self._find_places()
        self.precision = precision or precision_of([_dtype(place.tensor) for place in self._floating()])
        if self.precision not in ("float32", "float64"):
            raise UserError(
                f"the modules compute in {self.precision}; a check computes in float32 or float64: "
                'give precision="float32", or build the modules in it.'
            )
        self._convert(optimizers)
        self.rules = self._rules(optimizers)
        self._optimizers = dict(optimizers)
        self.counts = {id(each): _steps(each) for each in optimizers.values()}
        reached = steps.reachable([*functions.values()], _sought, ("torch", "numpy"))
        self._generators = {name: each for name, each in reached.items() if steps.is_generator(each)}
        self._holders = python_draws.Holders(list(self._generators.values()))
        schedulers = [each for each in reached.values() if isinstance(each, (LRScheduler, ReduceLROnPlateau))]
        self._schedulers = [
            each for each in schedulers if any(each.optimizer is owner for owner in optimizers.values())
        ]
        self._first = {
            id(each): (self.counts[id(each.optimizer)], copy.deepcopy(each.state_dict()), _rates(each.optimizer))
            for each in self._schedulers
        }
        self._notes += [
            f"found by itself: {type(each).__name__} of {self._optimizer_name(each.optimizer)}, taken to be stepped "
            "once an update"
            for each in self._schedulers
        ]
        if self._schedulers:
            self.furthest = _REPLAYED
        self._shape_of = {name: array.shape for name, array in self._read().items()}

    # --- Building -----------------------------------------------------------------------------------------------------
    def _find_places(self) -> None:
        seen: set[int] = set()
        left_out = 0
        for prefix, root in self.modules.items():
            for path, module in root.named_modules(remove_duplicate=True):
                title = "/".join(each for each in (prefix, path.replace(".", "/")) if each)
                self.module_names.setdefault(id(module), title)
                for parameter, tensors in ((True, module._parameters), (False, module._buffers)):
                    for key, tensor in tensors.items():
                        if tensor is None or id(tensor) in seen:
                            continue
                        seen.add(id(tensor))
                        if parameter or key not in module._non_persistent_buffers_set:
                            name = f"{title}/{key}" if title else key
                            self.places[name] = _Place(name, module, key, parameter)
                        else:
                            left_out += 1
        if left_out:
            self._notes.append(f"left out: {left_out} buffers that are not persistent")

    def _floating(self) -> list[_Place]:
        return [place for place in self.places.values() if place.tensor.is_floating_point()]

    def _convert(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Modules and what optimizers hold in the wanted precision, and TF1's numbers in float32."""
        dtype = getattr(torch, self.precision)
        if {_dtype(place.tensor) for place in self._floating()} - {self.precision}:
            for root in self.modules.values():
                root.to(dtype)
                for module in root.modules():
                    for key, value in list(vars(module).items()):
                        if isinstance(value, torch.Tensor) and value.is_floating_point():
                            setattr(module, key, value.to(dtype))
        for optimizer in optimizers.values():
            for parameter, kept in optimizer.state.items():
                for key, value in list(kept.items()):
                    if isinstance(value, torch.Tensor) and value.is_floating_point() and key != "step":
                        kept[key] = value.to(parameter.dtype)
            if self.precision == "float64":
                for group in optimizer.param_groups:
                    for key in _ROUNDED:
                        value = group.get(key)
                        if isinstance(value, tuple):
                            group[key] = tuple(_float32(each) for each in value)
                        elif isinstance(value, float):
                            group[key] = _float32(value)

    def _rules(self, optimizers: Mapping[str, Optimizer]) -> list[_Rule]:
        names = self.names
        found: list[_Rule] = []
        for name, optimizer in optimizers.items():
            templates = _templates(optimizer)
            alike: dict[str, list[dict[str, Any]]] = {}
            for group in optimizer.param_groups:
                numbers = {key: str(value) for key, value in group.items() if key not in ("params", "name")}
                alike.setdefault(str(sorted(numbers.items())), []).append(group)
            for index, groups in enumerate(alike.values()):
                held: dict[str, Any] = {}
                for group in groups:
                    for parameter in group["params"]:
                        if id(parameter) not in names:
                            raise UserError(
                                f"the optimizer {name!r} ({type(optimizer).__name__}) holds a parameter of shape "
                                f"{tuple(parameter.shape)} that is in none of the modules given; give torch_module "
                                "every module that it trains: {name: module, ...}."
                            )
                        held[names[id(parameter)]] = parameter
                title = name if len(alike) == 1 else f"{name}_group{index}"
                made = {variable: templates[id(parameter)] for variable, parameter in held.items()}
                found.append(_Rule(title, optimizer, groups, held, made))
            if len(alike) > 1:
                self._notes.append(
                    f"the optimizer {name} has {len(alike)} kinds of parameter groups, each read as one of its own"
                )
        return found

    @property
    def names(self) -> dict[int, str]:
        """Tensor's id -> variable."""
        return {id(place.tensor): name for name, place in self.places.items()}

    def _optimizer_name(self, optimizer: Optimizer) -> str:
        return next((name for name, each in self._optimizers.items() if each is optimizer), type(optimizer).__name__)

    # --- What it is ---------------------------------------------------------------------------------------------------
    def inputs(self) -> tuple[InputInfo, ...]:
        """As given, else as the step's parameters and the keys that it asks for name them."""
        return steps.input_infos(self._given_inputs, list(self._functions.values()))

    def may_take(self, name: str) -> bool:
        """Whether a function that it was given may use it."""
        looking = self._outputs if callable(self._outputs) else None
        return any(steps.takes(each, name) for each in [*self._functions.values(), *([looking] if looking else [])])

    def variables(self) -> tuple[VariableInfo, ...]:
        """Parameters and buffers, module by module."""
        return tuple(
            VariableInfo(
                name,
                name,
                tuple(place.tensor.shape),
                _dtype(place.tensor),
                place.parameter and bool(place.tensor.requires_grad),
                tuple(rule.name for rule in self.rules if name in rule.held),
            )
            for name, place in self.places.items()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Numbers as the parameter groups hold them now."""
        infos = [rule.info(self.counts[id(rule.owner)]) for rule in self.rules]
        if self.precision == "float64":
            for info in infos:
                numbers = dict(info.hyperparameters)
                if "learning_rate" in numbers:
                    numbers["learning_rate"] = _float32(numbers["learning_rate"])
                infos[infos.index(info)] = OptimizerInfo(info.name, info.algorithm, numbers)
        return tuple(infos)

    def phase_optimizers(self) -> Mapping[str, tuple[str, ...]]:
        """Known where there is one of each, and of a phase that has run."""
        if len(self.phases) == 1 and len(self._optimizers) == 1:
            return {self.phases[0]: tuple(rule.name for rule in self.rules)}
        return dict(self._seen)

    def random_draws(self) -> tuple[DrawInfo, ...]:
        """Those of the calls so far."""
        return tuple(self._draw_infos.values())

    def note_draw(self, name: str, kind: str, controlled: bool, reason: str, phase: str) -> None:
        """A call drew random numbers."""
        known = self._draw_infos.get(name)
        phases = (*(known.phases if known else ()), *((phase,) if phase in self.phases else ()))
        self._draw_infos[name] = DrawInfo(name, kind, controlled, reason, tuple(dict.fromkeys(phases)))

    def notes(self) -> tuple[str, ...]:
        """What was found by itself and what was left out."""
        return tuple(self._notes)

    def counted_in_python(self) -> tuple[str, ...]:
        """Whole numbers that the user's code counts up."""
        return tuple(self._python.found)

    # --- State --------------------------------------------------------------------------------------------------------
    def _read(self) -> dict[str, Array]:
        arrays = {name: _array(place.tensor) for name, place in self.places.items()}
        for rule in self.rules:
            for variable, parameter in rule.held.items():
                kept = rule.owner.state.get(parameter, {})
                for key, example in rule.slots(variable).items():
                    value = kept.get(key)
                    arrays[slot_name(rule.name, rule.canonical(key), variable)] = (
                        np.zeros(tuple(example.shape), _array(example).dtype) if value is None else _array(value)
                    )
            arrays[iterations_name(rule.name)] = np.array(self.counts[id(rule.owner)], np.int64)
        return arrays

    def state(self) -> State:
        """A copy of the whole state; slots that no update has made yet are zero."""
        return State(self._title(), self._read())

    def _title(self) -> str:
        return "+".join(name or type(module).__name__ for name, module in self.modules.items())

    @torch.no_grad()
    def load(self, state: State) -> None:
        """Takes over every parameter, buffer, slot and count; no gradient is left on a parameter.

        A scheduler that was found is set back and stepped as often as its optimizer.
        """
        expected = {name: np.broadcast_to(np.zeros(()), shape) for name, shape in self._shape_of.items()}
        State(self._title(), expected).check_fits(state)
        for name, place in self.places.items():
            _copy(place.tensor, state.arrays[name])
            if place.parameter:
                place.tensor.grad = None
        for rule in self.rules:
            count = int(state.arrays[iterations_name(rule.name)])
            self.counts[id(rule.owner)] = count
            for variable, parameter in rule.held.items():
                self._load_slots(rule, variable, parameter, count, state)
        for scheduler in self._schedulers:
            self._replay(scheduler)

    def _load_slots(self, rule: _Rule, variable: str, parameter: Any, count: int, state: State) -> None:
        slots = rule.slots(variable)
        values = {key: state.arrays[slot_name(rule.name, rule.canonical(key), variable)] for key in slots}
        made = isinstance(rule.owner, torch.optim.Adagrad)
        if not count and not made and not any(np.any(value) for value in values.values()):
            rule.owner.state.pop(parameter, None)
            return
        kept: dict[str, Any] = {}
        for key, example in rule.templates[variable].items():
            if key == "step":
                kept[key] = torch.full_like(example, count) if isinstance(example, torch.Tensor) else count
            elif key in slots:
                kept[key] = torch.empty_like(example)
                _copy(kept[key], values[key])
            else:
                kept[key] = copy.deepcopy(example)
        rule.owner.state[parameter] = kept

    def _replay(self, scheduler: Any) -> None:
        """Sets a scheduler to where it is after its optimizer's count of updates."""
        first, initial, rates = self._first[id(scheduler)]
        scheduler.load_state_dict(copy.deepcopy(initial))
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if isinstance(scheduler, ReduceLROnPlateau):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(self.counts[id(scheduler.optimizer)] - first):
                scheduler.step()

    def initialise(self, seed: int) -> None:
        """Builds the modules again with `rebuild`, with torch, numpy and random seeded, and takes over the weights."""
        if self._rebuild is None:
            raise NotImplementedError(
                f"{self._title()} was given as an object and cannot be drawn again; give torch_module rebuild=, a "
                "function that builds the modules."
            )
        with torch.random.fork_rng(devices=[]), steps.seeded_with(seed), _default_dtype(torch.float32):
            torch.manual_seed(seed)
            built = self._rebuild(seed) if inspect.signature(self._rebuild).parameters else self._rebuild()
        if isinstance(built, Program):
            fresh = dict(built.state().arrays)
        else:
            modules = {"": built} if isinstance(built, nn.Module) else dict(built)
            program = TorchProgram(modules, {}, self._functions, None, None, seed, self.precision, None)
            fresh = dict(program.state().arrays)
        own = self._read()
        missing = [name for name in self.places if name not in fresh or fresh[name].shape != own[name].shape]
        if missing:
            raise UserError(
                f"rebuild= gives modules without {missing[0]!r} of shape {own[missing[0]].shape}; it must build the "
                "same modules, under the same names, as torch_module was given."
            )
        clean = {name: fresh.get(name, np.zeros_like(value)) for name, value in own.items()}
        for rule in self.rules:
            if isinstance(rule.owner, torch.optim.Adagrad):
                start = float(rule.groups[0]["initial_accumulator_value"])
                for variable in rule.held:
                    name = slot_name(rule.name, rule.canonical("sum"), variable)
                    clean[name] = np.full_like(clean[name], start)
        self.load(State(self._title(), clean))

    # --- Running ------------------------------------------------------------------------------------------------------
    def _tensors(self, batch: Batch) -> dict[str, Any]:
        """The batch as tensors: floats in the Program's precision, whole numbers as int64, for embeddings and labels.

        An input that was given a dtype has that one.
        """
        infos = {info.name: info for info in self.inputs()}
        declared = () if self._given_inputs is None else tuple(infos.values())
        first = next((place.tensor.device for place in self.places.values()), None)
        found = {}
        for name, value in steps.batch_checked(batch, declared).items():
            info = infos.get(name)
            dtype = info.dtype if info is not None and info.dtype is not None else str(value.dtype)
            kind = np.dtype(dtype).kind
            wanted = "int64" if dtype in ("int32", "uint8", "uint32") else dtype
            wanted = self.precision if np.dtype(dtype).char in "fd" else wanted
            if info is not None and info.dtype is not None and kind != "f":
                wanted = dtype
            found[name] = torch.tensor(value.astype(wanted), device=first)
        return found

    @contextlib.contextmanager
    def _watching(self, phase: str, fed: bool = True, keep: bool = False, record: bool = False) -> Iterator[_Watch]:
        """Everything that is around one call of the user's code."""
        self.draws.begin(phase)
        watch = _Watch(self, phase, keep=keep)
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=devices))
            if fed:
                torch.manual_seed(int(self.draws.number("torch", ()).integers(0, 2**32)))
            used = stack.enter_context(steps.seeded(self.draws if fed else None, self._generators))
            if fed:
                stack.enter_context(python_draws.fed(self.draws, self._holders))
            stack.enter_context(_default_dtype(getattr(torch, self.precision)))
            stack.enter_context(_plain_attention())
            for register, hook in (
                (register_optimizer_step_pre_hook, watch.before_step),
                (register_optimizer_step_post_hook, watch.after_step),
                (nn.modules.module.register_module_forward_pre_hook, watch.enter),
            ):
                stack.callback(register(hook).remove)
            leave = nn.modules.module.register_module_forward_hook(watch.leave, with_kwargs=True)
            stack.callback(leave.remove)
            stack.callback(setattr, torch.autograd, "backward", torch.autograd.backward)
            stack.callback(setattr, torch.autograd, "grad", torch.autograd.grad)
            torch.autograd.backward, torch.autograd.grad = watch.backward, watch.grad
            stack.enter_context(_Draws(watch, self.draws if fed else None))
            if record:
                watch.recorder = _Recorder(watch, self.names)
                stack.enter_context(watch.recorder)
            yield watch
        for name, digest in used.items():
            watch.digests[name] = digest
            self.note_draw(name, name, True, "", phase)  # seeded from the draws

    @contextlib.contextmanager
    def _put_back(self) -> Iterator[None]:
        """Puts back whatever a step changes: tensors, gradients, optimizers, schedulers, plain attributes of modules.

        Tensors are written in place and not replaced, so that whoever holds them still does.
        """
        modules = [module for root in self.modules.values() for module in root.modules()]
        kept = [_Kept(module) for module in modules]
        optimizers = [_KeptOptimizer(each) for each in self._optimizers.values()]
        schedulers = [(each, copy.deepcopy(each.state_dict())) for each in self._schedulers]
        counts = dict(self.counts)
        try:
            yield
        finally:
            with torch.no_grad():
                for each in kept:
                    each.write()
                for scheduler, state in schedulers:
                    scheduler.load_state_dict(state)
                for optimizer in optimizers:
                    optimizer.write()
            self.counts = counts

    def _function(self, phase: str) -> steps.Function:
        if phase not in self._functions:
            raise UserError(f"there is no phase {phase!r}; the phases are {', '.join(self.phases)}.")
        return self._functions[phase]

    def _run(self, watch: _Watch, tensors: Mapping[str, Any]) -> Any:
        function = self._function(watch.phase)
        result = steps.call(function, f"the phase {watch.phase!r} ({steps.called(function)})", tensors)
        self._seen[watch.phase] = tuple(watch.stepped)
        return result

    def _forward(self, tensors: Mapping[str, Any], training: bool) -> dict[str, Any]:
        """The outputs, as tensors."""
        outputs = self._outputs
        if callable(outputs):
            value = steps.call(outputs, f"outputs= ({steps.called(outputs)})", tensors, training=training)
            return steps.named_outputs(value, f"outputs= ({steps.called(outputs)})")
        (module,) = self.modules.values()
        forward = inspect.signature(module.forward).parameters
        needed = [name for name, each in forward.items() if each.default is each.empty and each.kind < 2]
        if len(needed) == 1 and needed[0] not in tensors and tensors:
            value = module(next(iter(tensors.values())))
        elif all(name in tensors for name in needed):
            value = module(**{name: tensors[name] for name in forward if name in tensors})
        else:
            raise UserError(
                f"{type(module).__name__}.forward takes {', '.join(needed)}, and the batch has "
                f"{', '.join(tensors)}; give torch_module outputs=, a function of the batch that returns the outputs."
            )
        found = steps.named_outputs(value, f"{type(module).__name__}.forward")
        if outputs is None:
            return found
        names = [outputs] if isinstance(outputs, str) else list(outputs)
        if len(names) == len(found) and not set(names) <= found.keys():
            return dict(zip(names, found.values(), strict=True))
        missing = [name for name in names if name not in found]
        if missing:
            raise UserError(
                f"outputs= names {missing[0]!r}, and {type(module).__name__} returns {', '.join(found)}; "
                "name those, or give a function of the batch."
            )
        return {name: found[name] for name in names}

    @contextlib.contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """One mode for all modules, without gradients."""
        if self._outputs is None and len(self.modules) > 1:
            raise UserError(
                f"torch_module was given {len(self.modules)} modules ({', '.join(self.modules)}) and no outputs=; "
                "give outputs=, a function of the batch that returns the outputs to compare, by name."
            )
        for module in self.modules.values():
            module.train(training)
        with torch.no_grad():
            yield

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """The outputs: what `outputs` returns, else what the one module returns."""
        tensors = self._tensors(batch)
        with self._put_back(), self._mode(training), self._watching("forward"):
            found = self._forward(tensors, training)
            return {name: _array(value) for name, value in found.items() if isinstance(value, torch.Tensor)}

    def nodes(self, batch: Batch, training: bool, phase: str | None = None) -> Sequence[Node]:
        """Torch's own layers and the functions that other code calls, by module."""
        tensors = self._tensors(batch)
        if phase is None:
            with (
                self._put_back(),
                self._mode(training),
                self._watching("forward", record=True) as watch,
                self._known(watch, tensors) as recorder,
            ):
                found = self._forward(tensors, training)
                return recorder.behind([each for each in found.values() if isinstance(each, torch.Tensor)])
        with (
            self._put_back(),
            self._watching(phase, keep=True, record=True) as watch,
            self._known(watch, tensors) as recorder,
        ):
            self._run(watch, tensors)
            ends = watch.targets or watch.asked
            if not ends:
                raise NotImplementedError(_no_loss(phase))
            return recorder.behind(ends)

    @contextlib.contextmanager
    def _known(self, watch: _Watch, tensors: Mapping[str, Any]) -> Iterator[_Recorder]:
        """The batch's tensors by name."""
        assert watch.recorder is not None
        for name, tensor in tensors.items():
            watch.recorder.known[id(tensor)] = _Known(tensor, (name,))
            watch.recorder.used.add(name)
        yield watch.recorder

    def loss(self, phase: str, batch: Batch) -> float:
        """The sum of what `backward` is called on in the phase."""
        tensors = self._tensors(batch)
        with self._put_back(), self._watching(phase, keep=True) as watch:
            self._run(watch, tensors)
        found = watch.loss()
        if found is None:
            raise NotImplementedError(_no_loss(phase))
        return found

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array | None]:
        """What each optimizer holds at its first update in the phase; without one, what `backward` leaves."""
        tensors = self._tensors(batch)
        with self._put_back(), self._watching(phase, keep=True) as watch:
            self._run(watch, tensors)
        if not watch.gradients:
            raise NotImplementedError(
                f"the phase {phase!r} makes no update with an optimizer and calls no backward(): its gradients cannot "
                "be told."
            )
        return {name: watch.gradients[name] for name in self.places if name in watch.gradients}

    def derivatives(self, phase: str, batch: Batch) -> dict[str, Array | None] | None:
        """What `backward` leaves before the first update in the phase."""
        tensors = self._tensors(batch)
        with self._put_back(), self._watching(phase, keep=True) as watch:
            self._run(watch, tensors)
        if watch.stepped and watch.untouched and watch.derivatives:
            return None
        if not watch.derivatives:
            raise NotImplementedError(_no_loss(phase))
        sign = np.float32(watch.sign)
        return {name: sign * watch.derivatives[name] for name in self.places if name in watch.derivatives}

    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """One call of the user's function."""
        function = self._function(phase)
        tensors = self._tensors(batch)
        with self._watching(phase, keep=True) as watch, self._python.watching(phase):
            result = self._run(watch, tensors)
        what = f"the phase {phase!r} ({steps.called(function)})"
        return steps.reports(result, what, _number, watch.loss(), only=len(self.phases) == 1)

    def drawn(self, phase: str, batch: Batch) -> Mapping[str, str]:
        """Runs the phase on torch's own generator, which goes on from one call to the next."""
        tensors = self._tensors(batch)
        with torch.random.fork_rng(devices=[]), steps.apart(self._apart, self._generators):
            if self._unfed is None:
                torch.manual_seed(self._seed)
            else:
                torch.set_rng_state(self._unfed)
            with self._put_back(), self._watching(phase, fed=False) as watch:
                self._run(watch, tensors)
                self._unfed = torch.get_rng_state()
        return dict(watch.digests)


def _no_loss(phase: str) -> str:
    return f"the phase {phase!r} calls neither backward() nor torch.autograd.grad: its loss cannot be told."


def _number(value: Any) -> float:
    if isinstance(value, torch.Tensor):
        return float(value.detach().item())
    return float(value)


def _sought(value: Any) -> bool:
    return isinstance(value, (Optimizer, LRScheduler, ReduceLROnPlateau)) or steps.is_generator(value)


def _rates(optimizer: Optimizer) -> list[Any]:
    return [copy.deepcopy(group["lr"]) for group in optimizer.param_groups if "lr" in group]


def _steps(optimizer: Optimizer) -> int:
    """How many updates an optimizer has made, as far as it counts them."""
    counts = [int(kept["step"]) for kept in optimizer.state.values() if "step" in kept]
    return max(counts, default=0)


def _copy(tensor: Any, array: Array) -> None:
    tensor.copy_(torch.as_tensor(np.array(array, order="C")).to(tensor.dtype))


class _Kept:
    """One module's tensors and plain attributes."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.tensors = [
            (tensors, key, tensor, tensor.detach().clone(), tensor.grad, _clone(tensor.grad))
            for tensors in (module._parameters, module._buffers)
            for key, tensor in tensors.items()
            if tensor is not None
        ]
        own = vars(module)
        self.plain = {key: value for key, value in own.items() if isinstance(value, (bool, int, float, str))}
        self.loose = {key: (value, value.detach().clone()) for key, value in own.items() if torch.is_tensor(value)}

    def write(self) -> None:
        for tensors, key, tensor, value, grad, grad_value in self.tensors:
            tensor.data.copy_(value)
            if grad is not None:
                grad.copy_(grad_value)
            tensor.grad = grad
            tensors[key] = tensor
        for key, value in self.plain.items():
            vars(self.module)[key] = value
        for key, (tensor, value) in self.loose.items():
            tensor.data.copy_(value)
            vars(self.module)[key] = tensor


class _KeptOptimizer:
    """One optimizer's slots and numbers."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.state = {
            parameter: {key: (value, _clone(value)) for key, value in kept.items()}
            for parameter, kept in optimizer.state.items()
        }
        self.groups = [
            (group, {key: list(value) if key == "params" else _clone(value) for key, value in group.items()})
            for group in optimizer.param_groups
        ]

    def write(self) -> None:
        self.optimizer.state.clear()
        for parameter, kept in self.state.items():
            for value, before in kept.values():
                if isinstance(value, torch.Tensor):
                    value.copy_(before)
            self.optimizer.state[parameter] = {
                key: value if isinstance(value, torch.Tensor) else before for key, (value, before) in kept.items()
            }
        for group, numbers in self.groups:
            group.clear()
            group.update(numbers)


def _clone(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else copy.copy(value)


@contextlib.contextmanager
def _default_dtype(dtype: Any) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Layers compute the same way whether they are looked at or not, compiled functions too."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with contextlib.ExitStack() as stack:
            if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# --- The constructor --------------------------------------------------------------------------------------------------
def torch_module(
    module: nn.Module | Mapping[str, nn.Module],
    optimizer: Optimizer | None = None,
    *,
    optimizers: Mapping[str, Optimizer] | None = None,
    step: steps.Function | None = None,
    phases: Mapping[str, steps.Function] | None = None,
    outputs: Callable[..., Any] | Sequence[str] | None = None,
    inputs: steps.Inputs = None,
    seed: int = 0,
    precision: str | None = None,
    rebuild: Callable[..., Any] | None = None,
) -> Program:
    """A Program of PyTorch modules and the function that trains them.

    Args:
      module: an nn.Module, or name -> nn.Module; names stand before those of the variables.
      optimizer: the one optimizer.
      optimizers: name -> optimizer, where there are several. With neither they are looked for in what the step
        reaches: its closure, its globals, its object's attributes.
      step: the training step: takes a batch (`step(batch)`, a mapping of tensors, or `step(x, y)` by the inputs'
        names), updates, and returns the loss or a mapping with "loss".
      phases: name -> such a function, for a step that has parts, in the order they run.
      outputs: a function of the batch (with `training`, if it has such a parameter) that returns the outputs to
        compare; or names for what the one module returns; by default what it returns.
      inputs: what a batch holds, where the step's parameters do not say it: names, or name -> (shape, dtype).
      seed: of the draws.
      precision: "float32" or "float64": the modules are converted, in place. By default they stay as they are.
      rebuild: builds the module or modules again, for new weights; may take the seed.

    Raises:
      UserError: something given does not fit the rest.
    """
    modules = {"": module} if isinstance(module, nn.Module) else module
    if not isinstance(modules, Mapping) or not modules:
        raise UserError(
            f"torch_module got a {type(module).__name__}; give a torch.nn.Module, or a mapping of names to modules."
        )
    for name, each in modules.items():
        if not isinstance(each, nn.Module):
            raise UserError(f"torch_module: {name!r} is a {type(each).__name__}; give a torch.nn.Module.")
    functions = steps.check_functions("torch_module", step, phases)
    if optimizer is not None and optimizers is not None:
        raise UserError("torch_module got both optimizer= and optimizers=; give all of them as optimizers=.")
    if precision not in (None, "float32", "float64"):
        raise UserError(f'precision={precision!r} is unknown; give "float32" or "float64".')
    notes: list[str] = []
    if optimizer is not None:
        given: dict[str, Any] = {"optimizer": optimizer}
    elif optimizers is not None:
        given = dict(optimizers)
    else:
        reached = steps.reachable(list(functions.values()), lambda each: isinstance(each, Optimizer), ("torch",))
        given = reached if len(reached) != 1 else {"optimizer": next(iter(reached.values()))}
        notes = [f"found by itself: the optimizer {name} ({type(each).__name__})" for name, each in given.items()]
    for name, each in given.items():
        if not isinstance(each, Optimizer):
            raise UserError(
                f"torch_module: the optimizer {name!r} is a {type(each).__name__}; give an object of torch.optim, "
                "built on the modules' parameters."
            )
    return TorchProgram(modules, given, functions, outputs, inputs, seed, precision, rebuild, notes)
