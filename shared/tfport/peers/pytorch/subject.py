"""What every PyTorch model needs once: modules from a spec's numbers, state by canonical name, gradients, checkpoint.

How PyTorch's names stand for the canonical ones:

* `<layer>.weight` of a Linear is [out, in]: the kernel [in, out] transposed; `bias` is the bias;
* `weight`, `bias`, `running_mean`, `running_var` of a BatchNorm are gamma, beta, moving_mean, moving_variance;
* `exp_avg`, `exp_avg_sq` and `step` of an Adam are m, v and iterations; PyTorch counts steps for every parameter.
"""

from __future__ import annotations

import abc
import contextlib
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tfport.errors import CheckpointError
from tfport.models.spec import Adam, BatchNorm, Dense, Layer, ModelSpec, Optimizer, float32
from tfport.state import State, iterations_name, slot_name
from tfport.subject import CORRECTED, Array, Batch, OptimizerInfo, Subject, VariableInfo

Tensors = Mapping[str, Any]
"""A batch as tensors of the run's dtype."""

_CHECKPOINT = "checkpoint.pt"
_DENSE = {"kernel": "weight", "bias": "bias"}
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_SLOTS = {"m": "exp_avg", "v": "exp_avg_sq"}


# --- Modules ----------------------------------------------------------------------------------------------------------
def linear(layer: Layer) -> nn.Linear:
    """A Linear with PyTorch's own initialisers."""
    assert isinstance(layer, Dense)
    return nn.Linear(layer.inputs, layer.units)


def batch_norm(layer: Layer) -> nn.BatchNorm1d:
    """A BatchNorm1d; PyTorch's momentum is the batch's share, and what it forms from it is the spec's once more."""
    assert isinstance(layer, BatchNorm)
    return nn.BatchNorm1d(layer.units, eps=layer.epsilon, momentum=1 - layer.momentum)


def leaky_relu(layer: Layer) -> nn.LeakyReLU:
    """A LeakyReLU; TensorFlow holds the slope in float32 whatever the precision, so all sides get that number."""
    assert isinstance(layer, Dense)
    return nn.LeakyReLU(float32(layer.slope))


def adam(numbers: Optimizer, parameters: Iterable[Any]) -> torch.optim.Adam:
    """PyTorch's Adam with every number given."""
    assert isinstance(numbers, Adam)
    return torch.optim.Adam(
        parameters, lr=numbers.learning_rate, betas=(numbers.beta_1, numbers.beta_2), eps=numbers.epsilon
    )


# --- The Subject ------------------------------------------------------------------------------------------------------
class ModuleSubject(Subject):
    """A Subject made of nn.Modules, on the CPU.

    A model has a method `<phase>_loss(batch)` for every phase, which gives what the phase reports, the loss first.
    """

    paradigm = "torch"
    modules: dict[str, nn.Module]
    """Network -> its module, with an attribute of each layer's name."""
    optimizer_by_name: dict[str, torch.optim.Adam]

    def __init__(self, spec: ModelSpec, precision: str, seed: int) -> None:
        self.spec = spec
        self.precision = precision
        self.dtype = getattr(torch, precision)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.build_modules()
        for module in self.modules.values():
            module.to(self.dtype).train()
        self.build_optimizers()
        self._by_name = {name: self._find(name) for name in spec.variable_shapes()}
        self._names = {id(tensor): name for name, (tensor, _) in self._by_name.items()}
        for optimizer in self.optimizer_by_name.values():
            _fill(optimizer)

    @abc.abstractmethod
    def build_modules(self) -> None:
        """Builds `modules`."""

    @abc.abstractmethod
    def build_optimizers(self) -> None:
        """Builds `optimizer_by_name` on the modules' parameters."""

    @abc.abstractmethod
    def outputs(self, batch: Tensors) -> dict[str, Any]:
        """Every named output, in the order of computation, in the mode that the modules are in."""

    @abc.abstractmethod
    def images(self, inputs: Tensors) -> Any:
        """What `generate` gives."""

    def _find(self, name: str) -> tuple[Any, str]:
        """The parameter or buffer of a canonical name, and what PyTorch calls it."""
        network, layer, kind = name.split("/")
        module = getattr(self.modules[network], layer)
        attribute = (_NORM if isinstance(module, nn.BatchNorm1d) else _DENSE)[kind]
        return getattr(module, attribute), f"{network}.{layer}.{attribute}"

    def tensors(self, batch: Batch) -> dict[str, Any]:
        """The batch as tensors of the run's dtype."""
        return {name: torch.tensor(value, dtype=self.dtype) for name, value in batch.items()}

    def parameters(self, optimizer: str) -> dict[str, Any]:
        """Canonical name -> parameter, for what the optimizer holds."""
        groups = self.optimizer_by_name[optimizer].param_groups
        return {self._names[id(parameter)]: parameter for group in groups for parameter in group["params"]}

    # --- Structure ----------------------------------------------------------------------------------------------------
    def variables(self) -> tuple[VariableInfo, ...]:
        """Every variable of the model, owners read off the optimizers' parameter groups."""
        held = {name: self.parameters(name).keys() for name in self.optimizer_by_name}
        return tuple(
            VariableInfo(
                name,
                native,
                _to_canonical(name, tensor).shape,
                str(tensor.dtype).removeprefix("torch."),
                bool(tensor.requires_grad),
                tuple(each for each, names in held.items() if name in names),
            )
            for name, (tensor, native) in self._by_name.items()
        )

    def optimizers(self) -> tuple[OptimizerInfo, ...]:
        """Hyperparameters as the optimizers hold them."""
        found = []
        for name, optimizer in self.optimizer_by_name.items():
            (group,) = optimizer.param_groups
            beta_1, beta_2 = group["betas"]
            numbers = {"learning_rate": group["lr"], "beta_1": beta_1, "beta_2": beta_2, "epsilon": group["eps"]}
            found.append(OptimizerInfo(name, type(optimizer).__name__ + CORRECTED, numbers))
        return tuple(found)

    # --- State --------------------------------------------------------------------------------------------------------
    def initialise(self, seed: int) -> None:
        """Builds the modules again with PyTorch's own initialisers and takes over the new values."""
        self.load(type(self)(self.spec, self.precision, seed).state())

    def state(self) -> State:
        """A copy of the whole state."""
        arrays = {name: _to_canonical(name, tensor) for name, (tensor, _) in self._by_name.items()}
        for name, optimizer in self.optimizer_by_name.items():
            held = self.parameters(name)
            for slot, native in _SLOTS.items():
                for variable, parameter in held.items():
                    arrays[slot_name(name, slot, variable)] = _to_canonical(
                        variable, optimizer.state[parameter][native]
                    )
            (count,) = {int(optimizer.state[parameter]["step"]) for parameter in held.values()}
            arrays[iterations_name(name)] = np.array(count, np.int64)
        return State(self.spec.name, arrays)

    @torch.no_grad()
    def load(self, state: State) -> None:
        """Takes over every parameter, buffer, slot and count."""
        self.check_fits(state)
        for name, (tensor, _) in self._by_name.items():
            _assign(name, tensor, state.arrays[name])
        for name, optimizer in self.optimizer_by_name.items():
            for variable, parameter in self.parameters(name).items():
                kept = optimizer.state[parameter]
                for slot, native in _SLOTS.items():
                    _assign(variable, kept[native], state.arrays[slot_name(name, slot, variable)])
                kept["step"].fill_(int(state.arrays[iterations_name(name)]))

    # --- Computation --------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _looking(self, training: bool) -> Iterator[None]:
        """One mode for all modules; buffers are put back afterwards, since in training mode every pass moves them."""
        kept = [(buffer, buffer.clone()) for module in self.modules.values() for buffer in module.buffers()]
        for module in self.modules.values():
            module.train(training)
        try:
            yield
        finally:
            for module in self.modules.values():
                module.train()
            for buffer, value in kept:
                buffer.copy_(value)

    def forward(self, batch: Batch, training: bool) -> dict[str, Array]:
        """Every named output, in the order of computation."""
        with self._looking(training), torch.no_grad():
            return {name: value.numpy() for name, value in self.outputs(self.tensors(batch)).items()}

    def generate(self, inputs: Batch) -> Array:
        """Images [B, pixels]."""
        with self._looking(False), torch.no_grad():
            images: Array = self.images(self.tensors(inputs)).numpy()
        return images

    def reports(self, phase: str, batch: Tensors) -> dict[str, Any]:
        """What a phase reports, the loss first, with the way back to its gradient."""
        found: dict[str, Any] = getattr(self, f"{phase}_loss")(batch)
        return found

    def gradients(self, phase: str, batch: Batch) -> dict[str, Array]:
        """Gradients of the phase's loss for what its optimizer holds; none is left on the parameters."""
        about = self.spec.phase(phase)
        held = self.parameters(about.optimizer)
        with self._looking(True):
            loss = self.reports(phase, self.tensors(batch))[about.loss]
            values = torch.autograd.grad(loss, list(held.values()))
        return {name: _to_canonical(name, value) for name, value in zip(held, values, strict=True)}

    # --- Training step ------------------------------------------------------------------------------------------------
    def run_phase(self, phase: str, batch: Batch) -> dict[str, float]:
        """zero_grad, the loss, backward, and a step of the phase's optimizer."""
        about = self.spec.phase(phase)
        optimizer = self.optimizer_by_name[about.optimizer]
        optimizer.zero_grad()
        reports = self.reports(phase, self.tensors(batch))
        reports[about.loss].backward()
        optimizer.step()
        return {name: value.item() for name, value in reports.items()}

    def step(self, batch: Batch) -> dict[str, float]:
        """The phases in order, each seeing what the one before has moved."""
        reports: dict[str, float] = {}
        for phase in self.phases:
            reports |= self.run_phase(phase, batch)
        return reports

    # --- Checkpoint ---------------------------------------------------------------------------------------------------
    def save(self, folder: Path) -> None:
        """Writes the state_dicts of modules and optimizers with torch.save."""
        torch.save(
            {
                "modules": {name: module.state_dict() for name, module in self.modules.items()},
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizer_by_name.items()},
            },
            folder / _CHECKPOINT,
        )

    def restore(self, folder: Path) -> None:
        """Reads state_dicts; with weights_only, since a pickle may hold any code."""
        try:
            found = torch.load(folder / _CHECKPOINT, weights_only=True)
            for name, module in self.modules.items():
                module.load_state_dict(found["modules"][name])
            for name, optimizer in self.optimizer_by_name.items():
                optimizer.load_state_dict(found["optimizers"][name])
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{folder} cannot be restored into {self.spec.name} (torch): {error}") from None


def _to_canonical(name: str, tensor: Any) -> Array:
    """A copy in the canonical layout: a Linear's weight [out, in] is a kernel [in, out]."""
    array = tensor.detach().numpy()
    return np.array(array.T if name.endswith("/kernel") else array, order="C")


def _assign(name: str, tensor: Any, array: Array) -> None:
    """The inverse of `_to_canonical`, in place."""
    value = torch.tensor(array, dtype=tensor.dtype)
    tensor.copy_(value.T if name.endswith("/kernel") else value)


def _fill(optimizer: torch.optim.Adam) -> None:
    """Makes the slots that PyTorch would make in the first step, as it would."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
