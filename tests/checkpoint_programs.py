"""One small model in every framework, with every optimizer: what a user's own program saves, and goes on from.

Two dense layers (3 -> 4, relu -> 2) and the mean squared error, driven with numpy. `Bench.carried` trains the first
steps in one framework, converts the files, trains the rest in another and compares with the first framework's whole
run. The numbers of the optimizers are float32's own in every framework, so float64 shrinks what is rounding and leaves
what is another update.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfport.checkpoints import convert
from tfport.checkpoints import plan as planning
from tfport.checkpoints.contents import Role, Source, pieces
from tfport.checkpoints.plan import Move, Options, Plan
from tfport.errors import CheckpointError
from tfport.models.spec import float32

Array = np.ndarray[Any, Any]

STEPS, CUT = 12, 5
"""All steps, and those before the checkpoint."""
SHAPES = {"hidden/kernel": (3, 4), "hidden/bias": (4,), "output/kernel": (4, 2), "output/bias": (2,)}
LAYERS = ("hidden", "output")
ROUNDING = 300
"""How many roundings of the largest weight two correct runs may come to differ by."""


# --- Optimizers -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Settings:
    """One optimizer, by its canonical algorithm and numbers."""

    algorithm: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    rate: float = 0.0625

    def get(self, name: str, otherwise: float = 0.0) -> float:
        """A number as float32 holds it."""
        return float32(self.numbers.get(name, otherwise))


_RMS = {"rho": 0.9, "epsilon": 1e-3}
_ADAM = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3}
OPTIMIZERS: Mapping[str, Settings] = {
    "SGD": Settings("SGD"),
    "Momentum": Settings("Momentum", {"momentum": 0.9}, 0.03),
    "Nesterov": Settings("Nesterov", {"momentum": 0.9}, 0.03),
    "Adagrad": Settings("Adagrad", {"epsilon": 0.0}),
    "Adagrad, epsilon .001": Settings("Adagrad", {"epsilon": 1e-3}),
    "Adadelta": Settings("Adadelta", {"rho": 0.95, "epsilon": 1e-3}, 0.5),
    "RMSProp": Settings("RMSProp", _RMS, 0.01),
    "RMSProp, momentum": Settings("RMSProp", {**_RMS, "momentum": 0.5}, 0.01),
    "CenteredRMSProp": Settings("CenteredRMSProp", _RMS, 0.01),
    "CenteredRMSProp, momentum": Settings("CenteredRMSProp", {**_RMS, "momentum": 0.5}, 0.01),
    "Adam": Settings("Adam", _ADAM, 0.01),
    "Adam, beta_1 .5": Settings("Adam", {**_ADAM, "beta_1": 0.5}, 0.01),
    "Ftrl": Settings("Ftrl", {"l1": 0.001, "l2": 0.002}, 0.1),
    "Ftrl, beta .125": Settings("Ftrl", {"l1": 2**-10, "l2": 2**-9, "beta": 0.125}, 0.125),
}
"""What is proven: a name for people -> settings."""
INITIAL_ACCUMULATOR = float32(0.1)


def has(framework: str, name: str) -> str:
    """Why a framework has no such optimizer; "" where it has."""
    if framework == "tf1" and name == "Adagrad, epsilon .001":
        return "TF1's Adagrad has no epsilon"
    if framework == "torch" and OPTIMIZERS[name].algorithm == "Ftrl":
        return "PyTorch has no Ftrl"
    return ""


def batch(step: int, dtype: str) -> tuple[Array, Array]:
    """What a step is fed: x [8, 3] and y [8, 2]."""
    generator = np.random.Generator(np.random.Philox(key=[71, step]))
    x, y = (generator.standard_normal((8, width), np.float32).astype(dtype) for width in (3, 2))
    return x, y


def beginning(dtype: str) -> dict[str, Array]:
    """The weights before the first step."""
    generator = np.random.Generator(np.random.Philox(key=71))
    return {name: (generator.standard_normal(shape, np.float32) / 2).astype(dtype) for name, shape in SHAPES.items()}


# --- Programs ---------------------------------------------------------------------------------------------------------
class Program(abc.ABC):
    """One framework's program, at the beginning."""

    def __init__(self, settings: Settings, dtype: str) -> None:
        self.settings, self.dtype = settings, dtype

    def train(self, first: int, end: int) -> None:
        """Trains the steps from `first` to below `end`."""
        for step in range(first, end):
            self.step(*batch(step, self.dtype))

    @abc.abstractmethod
    def step(self, x: Array, y: Array) -> None:
        """One update."""

    @abc.abstractmethod
    def weights(self) -> dict[str, Array]:
        """The weights, as SHAPES names and lays them out."""

    @abc.abstractmethod
    def save(self, folder: Path, form: str) -> Path:
        """Saves by the framework's own writer; returns the file or the prefix."""

    @abc.abstractmethod
    def restore(self, path: Path, form: str) -> None:
        """Restores by the framework's own reader."""

    def close(self) -> None:
        """Gives back what it holds."""
        return


class Tf1(Program):
    """A graph with a session, Saver and tf.compat.v1's optimizer."""

    def __init__(self, settings: Settings, dtype: str) -> None:
        super().__init__(settings, dtype)
        import tensorflow.compat.v1 as tf

        self.graph = tf.Graph()
        with self.graph.as_default():
            self.x = tf.placeholder(dtype, [None, 3])
            self.y = tf.placeholder(dtype, [None, 2])
            hidden, self.variables = self.x, {}
            for layer in LAYERS:
                for kind in ("kernel", "bias"):
                    name = f"{layer}/{kind}"
                    value = tf.constant_initializer(beginning(dtype)[name])
                    self.variables[name] = tf.get_variable(name, SHAPES[name], dtype, value, use_resource=True)
                hidden = tf.matmul(hidden, self.variables[f"{layer}/kernel"]) + self.variables[f"{layer}/bias"]
                hidden = tf.nn.relu(hidden) if layer == "hidden" else hidden
            loss = tf.reduce_mean(tf.square(hidden - self.y))
            step = tf.train.get_or_create_global_step()
            self.update = self._optimizer().minimize(loss, step)
            self.savers = {
                "tf1-v1": tf.train.Saver(write_version=tf.train.SaverDef.V1),
                "tf1-v2": tf.train.Saver(write_version=tf.train.SaverDef.V2),
            }
            start = tf.global_variables_initializer()
        config = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
        self.session = tf.Session(graph=self.graph, config=config)
        self.session.run(start)

    def _optimizer(self) -> Any:
        import tensorflow.compat.v1 as tf
        from tensorflow.compat.v1 import train

        it, rate = self.settings, float32(self.settings.rate)
        if self.dtype == "float64" and it.algorithm == "Adam":
            # From numbers the beta powers would be float32 in any graph.
            betas = [tf.constant(it.get(name), tf.float64) for name in ("beta_1", "beta_2")]
            return train.AdamOptimizer(rate, *betas, it.get("epsilon"))
        match it.algorithm:
            case "SGD":
                return train.GradientDescentOptimizer(rate)
            case "Momentum" | "Nesterov":
                return train.MomentumOptimizer(rate, it.get("momentum"), use_nesterov=it.algorithm == "Nesterov")
            case "Adagrad":
                return train.AdagradOptimizer(rate, INITIAL_ACCUMULATOR)
            case "Adadelta":
                return train.AdadeltaOptimizer(rate, it.get("rho"), it.get("epsilon"))
            case "RMSProp" | "CenteredRMSProp":
                centred = it.algorithm == "CenteredRMSProp"
                return train.RMSPropOptimizer(
                    rate, it.get("rho"), it.get("momentum"), it.get("epsilon"), centered=centred
                )
            case "Adam":
                return train.AdamOptimizer(rate, it.get("beta_1"), it.get("beta_2"), it.get("epsilon"))
        return train.FtrlOptimizer(
            rate,
            initial_accumulator_value=INITIAL_ACCUMULATOR,
            l1_regularization_strength=it.get("l1"),
            l2_regularization_strength=it.get("l2"),
            beta=it.get("beta"),
        )

    def step(self, x: Array, y: Array) -> None:
        self.session.run(self.update, {self.x: x, self.y: y})

    def weights(self) -> dict[str, Array]:
        return dict(self.session.run(self.variables))

    def save(self, folder: Path, form: str) -> Path:
        import tensorflow.compat.v1 as tf

        saver = self.savers["tf1-v1" if form == "tf1-v1" else "tf1-v2"]
        tf.logging.set_verbosity(tf.logging.ERROR)  # V1 says that it is deprecated
        with self.graph.as_default():
            path = Path(saver.save(self.session, str(folder / "model.ckpt"), write_state=False))
        if form == "tf1-v2, no .meta":
            path.with_name(f"{path.name}.meta").unlink()
        return path

    def restore(self, path: Path, form: str) -> None:
        with self.graph.as_default():
            self.savers["tf1-v1" if form == "tf1-v1" else "tf1-v2"].restore(self.session, str(path))

    def close(self) -> None:
        self.session.close()


class _Keras(Program):
    """What Keras 2 and 3 share: a compiled model, updated eagerly."""

    keras: Any

    def __init__(self, settings: Settings, dtype: str) -> None:
        super().__init__(settings, dtype)
        layers = self.keras.layers
        self.model = self.keras.Sequential(
            [
                layers.Input((3,), dtype=dtype),
                layers.Dense(4, "relu", name="hidden", dtype=dtype),
                layers.Dense(2, name="output", dtype=dtype),
            ],
            name="net",
        )
        for layer in LAYERS:
            values = [beginning(dtype)[f"{layer}/{kind}"] for kind in ("kernel", "bias")]
            self.model.get_layer(layer).set_weights(values)
        self.model.compile(optimizer=self._optimizer(), loss="mse", run_eagerly=True)
        self.begun = False

    def _optimizer(self) -> Any:
        it, rate = self.settings, float32(self.settings.rate)
        made = self.keras.optimizers
        match it.algorithm:
            case "SGD":
                return made.SGD(rate)
            case "Momentum" | "Nesterov":
                return made.SGD(rate, it.get("momentum"), nesterov=it.algorithm == "Nesterov")
            case "Adagrad":
                return made.Adagrad(rate, INITIAL_ACCUMULATOR, it.get("epsilon"))
            case "Adadelta":
                return made.Adadelta(rate, it.get("rho"), it.get("epsilon"))
            case "RMSProp" | "CenteredRMSProp":
                centred = it.algorithm == "CenteredRMSProp"
                return made.RMSprop(rate, it.get("rho"), it.get("momentum"), it.get("epsilon"), centred)
            case "Adam":
                return made.Adam(rate, it.get("beta_1"), it.get("beta_2"), it.get("epsilon"))
        return made.Ftrl(
            rate,
            initial_accumulator_value=INITIAL_ACCUMULATOR,
            l1_regularization_strength=it.get("l1"),
            l2_regularization_strength=it.get("l2"),
            beta=it.get("beta"),
        )

    def step(self, x: Array, y: Array) -> None:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(x, training=True) - y))
        variables = self.model.trainable_variables
        values = [getattr(each, "value", each) for each in variables] if self.is_three else variables
        gradients = tape.gradient(loss, values)
        self.begun = True
        self.model.optimizer.apply_gradients(zip(gradients, variables, strict=True))

    is_three = False

    def build(self) -> None:
        """Makes the optimizer's slots before the first step, which would make them otherwise."""
        if not self.begun:
            self.model.optimizer.build(self.model.trainable_variables)

    def weights(self) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for layer in LAYERS:
            values = self.model.get_layer(layer).get_weights()
            found |= {f"{layer}/{kind}": each for kind, each in zip(("kernel", "bias"), values, strict=True)}
        return found


class Keras2(_Keras):
    """tf_keras: the whole model in HDF5, or tf.train.Checkpoint."""

    @property
    def keras(self) -> Any:  # type: ignore[override]
        import tf_keras

        return tf_keras

    def save(self, folder: Path, form: str) -> Path:
        import tensorflow as tf

        self.build()
        if form == "keras-h5":
            self.model.save(folder / "model.h5", save_format="h5")
            return folder / "model.h5"
        checkpoint = tf.train.Checkpoint(model=self.model, optimizer=self.model.optimizer)
        return Path(checkpoint.save(str(folder / "model")))

    def restore(self, path: Path, form: str) -> None:
        import tensorflow as tf

        if form == "keras-h5":
            self.model = self.keras.models.load_model(path)
            return
        self.build()
        checkpoint = tf.train.Checkpoint(model=self.model, optimizer=self.model.optimizer)
        checkpoint.restore(str(path)).assert_existing_objects_matched().assert_consumed()


class Keras3(_Keras):
    """Keras 3 on TensorFlow: weights with the optimizer's, or the whole model."""

    is_three = True

    @property
    def keras(self) -> Any:  # type: ignore[override]
        import keras

        return keras

    def save(self, folder: Path, form: str) -> Path:
        self.build()
        if form == "keras3-weights":
            self.model.save_weights(folder / "model.weights.h5")
            return folder / "model.weights.h5"
        self.model.save(folder / "model.keras")
        return folder / "model.keras"

    def restore(self, path: Path, form: str) -> None:
        self.build()
        if form == "keras3-weights":
            self.model.load_weights(path)
        else:
            self.model = self.keras.models.load_model(path)


class Torch(Program):
    """PyTorch: a module and an optimizer, both state_dicts in one file."""

    def __init__(self, settings: Settings, dtype: str) -> None:
        super().__init__(settings, dtype)
        import torch

        torch.set_num_threads(1)
        modules = {"hidden": torch.nn.Linear(3, 4), "relu": torch.nn.ReLU(), "output": torch.nn.Linear(4, 2)}
        self.model = torch.nn.Sequential()
        for name, module in modules.items():
            self.model.add_module(name, module)
        self.model.to(getattr(torch, dtype))
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                layer, _, kind = name.partition(".")
                own = beginning(dtype)[f"{layer}/{'kernel' if kind == 'weight' else kind}"]
                value.copy_(torch.from_numpy(np.ascontiguousarray(own.T)))
        self.optimizer = self._optimizer()

    def _optimizer(self) -> Any:
        from torch import optim

        it, rate, held = self.settings, float32(self.settings.rate), self.model.parameters()
        match it.algorithm:
            case "SGD":
                return optim.SGD(held, rate)
            case "Momentum" | "Nesterov":
                return optim.SGD(held, rate, it.get("momentum"), nesterov=it.algorithm == "Nesterov")
            case "Adagrad":
                return optim.Adagrad(held, rate, initial_accumulator_value=INITIAL_ACCUMULATOR, eps=it.get("epsilon"))
            case "Adadelta":
                return optim.Adadelta(held, rate, it.get("rho"), it.get("epsilon"))
            case "RMSProp" | "CenteredRMSProp":
                return optim.RMSprop(
                    held,
                    rate,
                    it.get("rho"),
                    it.get("epsilon"),
                    momentum=it.get("momentum"),
                    centered=it.algorithm == "CenteredRMSProp",
                )
        return optim.Adam(held, rate, (it.get("beta_1"), it.get("beta_2")), it.get("epsilon"))

    def step(self, x: Array, y: Array) -> None:
        import torch

        self.optimizer.zero_grad()
        torch.mean(torch.square(self.model(torch.from_numpy(x)) - torch.from_numpy(y))).backward()
        self.optimizer.step()

    def weights(self) -> dict[str, Array]:
        return {
            name.replace(".weight", "/kernel").replace(".", "/"): np.ascontiguousarray(value.detach().numpy().T)
            for name, value in self.model.named_parameters()
        }

    def save(self, folder: Path, form: str) -> Path:
        import torch

        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, folder / "model.pt")
        return folder / "model.pt"

    def restore(self, path: Path, form: str) -> None:
        import torch

        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


FORMS: Mapping[str, type[Program]] = {
    "tf1-v2": Tf1,
    "tf1-v2, no .meta": Tf1,
    "tf1-v1": Tf1,
    "keras-h5": Keras2,
    "tf2": Keras2,
    "keras3-weights": Keras3,
    "keras3": Keras3,
    "torch": Torch,
}
"""A kind of file -> the program that writes it."""
FRAMEWORKS = {Tf1: "tf1", Keras2: "keras2", Keras3: "keras3", Torch: "torch"}


def framework(form: str) -> str:
    """Whose a kind of file is."""
    return FRAMEWORKS[FORMS[form]]


def _first(form: str) -> int:
    """Steps before the template is saved: PyTorch's optimizers keep nothing before the first one."""
    return 1 if form == "torch" else 0


def said(source: str, target: str, name: str) -> tuple[Options, str]:
    """What a person must say of a conversion since no file tells it, and the flag with which it is said."""
    settings = OPTIMIZERS[name]
    if framework(source) == "torch" and settings.algorithm in ("SGD", "Momentum", "Nesterov") and target != "torch":
        return Options(iterations=CUT), "--iterations"
    if source == "tf2" and settings.algorithm == "SGD" and target != "tf2":
        return Options(leave_out=("optimizer/*/accumulator/*",)), "--leave_out='optimizer/*/accumulator/*'"
    idle = settings.algorithm.endswith("RMSProp") and not settings.numbers.get("momentum")
    if idle and source == "tf1-v2, no .meta" and framework(target) != "tf1":
        return Options(leave_out=("optimizer/*/momentum/*",)), "--leave_out='optimizer/*/momentum/*'"
    return Options(), ""


# --- The proof --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Outcome:
    """What came of one conversion."""

    kind: str
    """"same bits", "rounding", "differs", "refused", "no equal optimizer"."""
    difference: float = 0.0
    """Largest difference of a weight after all steps, as a share of the largest weight."""
    message: str = ""
    """The refusal, or the converter's notes."""

    @property
    def carried(self) -> bool:
        """Whether training went on as it would have."""
        return self.kind in ("same bits", "rounding")

    @property
    def told(self) -> bool:
        """Whether the converter said that training may go on otherwise."""
        return any(words in self.message for words in ("training goes on", "will not go on", "differ a little"))


def judged(found: Mapping[str, Array], wanted: Mapping[str, Array], message: str = "") -> Outcome:
    """Compares the weights of two runs of one precision."""
    if all(found[name].tobytes() == wanted[name].tobytes() for name in wanted):
        return Outcome("same bits", 0.0, message)
    largest = max(float(np.abs(value).max()) for value in wanted.values())
    difference = max(float(np.abs(found[name] - value).max()) for name, value in wanted.items()) / largest
    if not np.isfinite(difference):
        return Outcome("differs", float("inf"), message)
    within = ROUNDING * float(np.finfo(next(iter(wanted.values())).dtype).eps) / 2
    return Outcome("rounding" if difference <= within else "differs", difference, message)


class Bench:
    """Runs and files that several conversions share, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wholes: dict[tuple[str, str, str], dict[str, Array]] = {}
        self.files: dict[tuple[str, str, str, int], Path] = {}
        self.made = 0

    def program(self, form: str, name: str, dtype: str) -> Program:
        """A program at its beginning."""
        return FORMS[form](OPTIMIZERS[name], dtype)

    def whole(self, form: str, name: str, dtype: str) -> dict[str, Array]:
        """The weights after all steps in one framework."""
        key = framework(form), name, dtype
        if key not in self.wholes:
            self._run(form, name, dtype)
        return self.wholes[key]

    def file(self, form: str, name: str, dtype: str, step: int) -> Path:
        """A checkpoint of one framework: at the CUT, or 0 for the one that serves as the template."""
        key = form, name, dtype, step
        if key not in self.files:
            self._run(form, name, dtype)
        return self.files[key]

    def _run(self, form: str, name: str, dtype: str) -> None:
        forms = [each for each in FORMS if FORMS[each] is FORMS[form]]
        # The template's program is another: saving it early names what an optimizer keeps otherwise in Keras 2.
        template, program = (self.program(form, name, dtype) for _ in range(2))
        template.train(0, _first(form))
        program.train(0, CUT)
        for each in forms:
            self.files[each, name, dtype, 0] = template.save(self.place(), each)
            self.files[each, name, dtype, CUT] = program.save(self.place(), each)
        template.close()
        program.train(CUT, STEPS)
        self.wholes[framework(form), name, dtype] = program.weights()
        program.close()

    def place(self) -> Path:
        """A new folder."""
        self.made += 1
        folder = self.folder / str(self.made)
        folder.mkdir(parents=True)
        return folder

    def converted(self, source: Path, like: Path, options: Options | None = None) -> tuple[Path, Plan]:
        """Converts a checkpoint to the form of `like`."""
        target = self.place() / like.name
        with convert.planned(convert.Order(source, target, like=like, options=options or Options())) as (_, made):
            convert.write(made, target)
        return target, made

    def carried(
        self, source: str, target: str, name: str, dtype: str = "float32", options: Options | None = None
    ) -> Outcome:
        """Half a run in one form, the rest in another, against the first one's whole; `options` are `said`'s."""
        reasons = [why for side in (source, target) if (why := has(framework(side), name))]
        # TF1's Adagrad has the name that another with an epsilon has, so there the converter itself must refuse.
        if reasons and ("tf1" not in (framework(source), framework(target)) or len(reasons) > 1):
            return Outcome("no equal optimizer", 0.0, reasons[0])
        if any("PyTorch has no" in each for each in reasons):
            return Outcome("no equal optimizer", 0.0, reasons[0])
        options = said(source, target, name)[0] if options is None else options
        try:
            path, made = self.converted(self.file(source, name, dtype, CUT), self.file(target, name, dtype, 0), options)
        except CheckpointError as error:
            return Outcome("refused", 0.0, str(error))
        found = self.went_on(target, name, dtype, path)
        return judged(found, self.whole(source, name, dtype), "; ".join(made.notes))

    def went_on(self, form: str, name: str, dtype: str, path: Path) -> dict[str, Array]:
        """The weights after the steps from CUT on, from a checkpoint."""
        program = self.program(form, name, dtype)
        program.restore(path, form)
        program.train(CUT, STEPS)
        weights = program.weights()
        program.close()
        return weights


# --- Converters that are broken ---------------------------------------------------------------------------------------
def _dropped_count(source: Source, made: Plan, move: Move) -> Move:
    if move.entry.role is not Role.COUNT or not move.entry.optimizer:
        return move
    return replace(move, produce=lambda: pieces(np.zeros(move.stored.shape, move.stored.dtype)))


def _unscaled_velocity(source: Source, made: Plan, move: Move) -> Move:
    if move.entry.slot != "accumulator":
        return move
    return replace(move, produce=lambda: source.chunks(move.origins[0]))


def _swapped(source: Source, made: Plan, move: Move) -> Move:
    other = {"m": "v", "v": "m"}.get(move.entry.slot)
    partners = [each for each in made.moves if each.entry.slot == other and each.entry.variable == move.entry.variable]
    return replace(move, produce=partners[0].produce) if other else move


BROKEN: Mapping[str, tuple[str, Callable[[Source, Plan, Move], Move]]] = {
    "iterations dropped": ("Adam", _dropped_count),
    "velocity not scaled": ("Momentum", _unscaled_velocity),
    "m and v swapped": ("Adam", _swapped),
}
"""A mistake -> an optimizer that must show it, and what is done to each move of a plan."""


@contextlib.contextmanager
def broken(mistake: str) -> Iterator[None]:
    """Makes every plan with the mistake in it."""
    make, change = planning.make, BROKEN[mistake][1]

    def changed(source: Source, *more: Any, **named: Any) -> Plan:
        made = make(source, *more, **named)
        return replace(made, moves=tuple(change(source, made, move) for move in made.moves))

    planning.make = changed
    try:
        yield
    finally:
        planning.make = make
