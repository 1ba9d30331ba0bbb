"""From what a user names to a Program: `module:factory`, a graph's file, or an object.

A factory is a function that builds one side. It may take `dtype` or `precision` ("float32", "float64") and `seed`; it
returns a compiled Keras model, the names of a TF1 graph's parts (or nothing, where they can be found), a tf.compat.v1
Graph, a mapping of models or modules and what trains them (`tfport.adapters.plain`), or a Program. No
file's code runs unless its module is named.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tfport.adapters import plain
from tfport.adapters.keras_lines import lines_noted
from tfport.checking.old_names import STAND_INS
from tfport.checking.quoting import said
from tfport.errors import LegacyKerasNeeded, StandInsNeeded, UserError, unknown
from tfport.program import Program

PRECISION_NAMES = ("dtype", "precision", "floatx")
"""What a factory may call the parameter that takes "float32" or "float64"."""
SUFFIXES = (".meta", ".pb", ".py")
_LISTED = 15
_WITHOUT_KERAS2 = re.compile(
    r"is not available with Keras 3|TF_USE_LEGACY_KERAS|module 'keras\._tf_keras\.\S+ has no attr"
)
"""What TensorFlow says of a name that only Keras 2 has."""
_WITHOUT_TF1 = re.compile(
    r"module 'tensorflow(?:\.compat\.v1)?' has no attribute '(\w+)'|"
    r"No module named 'tensorflow\.(contrib|estimator|examples)"
)
"""What Python says of a name that only TensorFlow 1 has."""


class NoSuchPrecision(Exception):
    """The side cannot be built in the precision that was asked for."""


class _Elsewhere(Exception):
    """A function that was called to build a graph made something that is not in it."""


def named(given: Any) -> str:
    """What a report calls a side."""
    if isinstance(given, str):
        return given
    if isinstance(given, functools.partial):
        return named(given.func)
    if callable(given) and hasattr(given, "__qualname__"):
        return f"{given.__module__}:{given.__qualname__}".replace("<locals>.", "")
    return type(given).__name__


def is_file(given: Any) -> bool:
    """Whether a side is given as a script, a graph's file or a SavedModel's folder."""
    if isinstance(given, Path):
        return True
    return isinstance(given, str) and (given.endswith(SUFFIXES) or Path(given).exists() or "/" in given.split(":")[0])


def find(name: str, side: str) -> Any:
    """The function, or the built model, that `module:function` names; the folder one stands in is searched too.

    Raises:
      UserError: it is not written like that, cannot be imported, or is neither.
    """
    module_name, colon, function_name = name.partition(":")
    if module_name.endswith(".py"):
        raise UserError(
            f"--{side}={name} names a function of a file: name it by its module, as "
            f"{Path(module_name).stem}:{function_name or 'function'}, in the folder of {Path(module_name).name}; or "
            "give the file alone, which is then run up to its first training call."
        )
    if not (colon and module_name and function_name) or module_name.startswith("."):
        if side == "batches":
            raise UserError(
                f"--batches={name} is no function to import; expected module:function, which gives batches."
            )
        raise UserError(
            f"--{side}={name} is neither module:function nor a file that exists; expected a function to import, a "
            ".meta file, or the folder of a SavedModel or a record."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if _WITHOUT_TF1.search(str(error)):
            raise _refusal(f"--{side}={name}: importing {module_name} raised {said(error)}", error) from error
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(
                f"--{side}={name}: importing {module_name} raised {said(error)}. Install that, or add its folder to "
                "PYTHONPATH."
            ) from error
        raise UserError(
            f"--{side}={name}: there is no module {error.name!r} to import from here; run where it stands, or add its "
            "folder to PYTHONPATH."
        ) from None
    except UserError as error:
        raise type(error)(f"--{side}={name}: {error}") from error
    except (Exception, SystemExit) as error:  # a module of the user's may raise anything while it is imported
        raise _refusal(f"--{side}={name}: importing {module_name} raised {said(error)}", error) from error
    if not hasattr(module, function_name):
        functions = sorted(
            each
            for each, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module_name
        )
        listed = ", ".join(functions[:_LISTED]) or "no functions"
        more = f" and {len(functions) - _LISTED} more" if len(functions) > _LISTED else ""
        raise UserError(f"--{side}={name}: {module_name} has no {function_name!r}; it has {listed}{more}.")
    function: Any = getattr(module, function_name)
    if side != "batches" and is_built(function):
        return function
    if not callable(function):
        does = "gives batches" if side == "batches" else "builds the model"
        raise UserError(f"--{side}={name} is {type(function).__name__}, expected a function that {does}.")
    return function


def old_code_welcome() -> None:
    """Installs the stand-ins of `tfport.legacy` for the life of the process, where it was started for old code."""
    if STAND_INS.items() <= os.environ.items():
        from tfport import legacy

        legacy.install()


def is_built(given: Any) -> bool:
    """Whether it is a Program, a model, a module, a graph or a mapping of such, and no function that builds one."""
    if isinstance(given, type):
        return False
    family = {base.__module__.split(".")[0] for base in type(given).__mro__}
    weights = {"keras": "weights", "tf_keras": "weights", "torch": "parameters", "tensorflow": "trainable_variables"}
    return (
        isinstance(given, Program)
        or _is_graph(given)
        or plain.is_plain(given)
        or any(hasattr(given, attribute) for package, attribute in weights.items() if package in family)
    )


def build(
    given: Any, side: str, precision: str = "float32", seed: int = 0, names: Mapping[str, Any] | None = None
) -> Program:
    """One side, built in this process; a Keras side needs `Floatx` around its whole life.

    Args:
      given: `module:function`, a `.meta` file, a SavedModel's folder, a function, or what a function would return.
      side: "legacy" or "modern", for messages.
      precision: "float32" or "float64".
      seed: seeds the frameworks' and numpy's global generators, and the factory's `seed` where it takes one.
      names: inputs, outputs, losses and train_ops of a TF1 graph, where they must be named.

    Raises:
      UserError: it cannot be built, or is nothing that an adapter knows.
      NoSuchPrecision: it can be built, but not in this precision.
    """
    names = dict(names or {})
    if isinstance(given, Program):
        return _in_precision(given, precision, side)
    if is_file(given):
        seed_all(seed)
        with lines_noted():
            program = _guarded(lambda: _from_file(str(given), side, precision, seed, names), str(given), side)
        return _in_precision(program, precision, str(given))
    function = find(given, side) if isinstance(given, str) else given
    if is_built(function) or not callable(function):
        return _adapted(function, named(given), side, precision, seed, names, None)
    with lines_noted():
        return _from_function(function, named(given), side, precision, seed, names)


def takes_precision(function: Callable[..., Any]) -> str | None:
    """The name of the factory's parameter for a precision; None where it has none."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in PRECISION_NAMES if name in parameters), None)


def _from_function(
    function: Callable[..., Any], name: str, side: str, precision: str, seed: int, names: dict[str, Any]
) -> Program:
    arguments: dict[str, Any] = {}
    parameter = takes_precision(function)
    if parameter:
        arguments[parameter] = precision
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    if "seed" in parameters:
        arguments["seed"] = seed
    needed = [
        each.name
        for each in parameters.values()
        if each.default is each.empty
        and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        and each.name not in arguments
    ]
    if needed:
        raise UserError(
            f"the {side} factory {name} needs {', '.join(needed)}: expected a function without arguments; it may take "
            f"dtype and seed. Name one that calls it: def build(): return "
            f"{name.rpartition(':')[2]}({', '.join(f'{each}=...' for each in needed)})."
        )
    seed_all(seed)
    if _is_tf1(function):
        return _graph(function, arguments, name, side, precision, seed, names, parameter)
    try:
        made = function(**arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's factory raises is the user's to mend
        if not _needs_graph(error):
            if precision == "float64" and not parameter:
                raise NoSuchPrecision(f"{name} takes no dtype and raised {said(error)} under floatx float64") from None
            raise _raised(name, side, error) from error
    else:
        return _adapted(made, name, side, precision, seed, names, parameter)
    # A TF1 builder that was not known as one: placeholders need a graph.
    return _graph(function, arguments, name, side, precision, seed, names, parameter)


def _needs_graph(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and "eager execution" in str(error)


def _graph(
    function: Callable[..., Any],
    arguments: dict[str, Any],
    name: str,
    side: str,
    precision: str,
    seed: int,
    names: dict[str, Any],
    parameter: str | None,
) -> Program:
    """A factory of a TF1 graph, called in a graph of its own."""
    from tfport.adapters import constructor

    tf1_graph = constructor("tf1_graph")

    def builder() -> Any:
        try:
            made = function(**arguments)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise _raised(name, side, error) from error
        if isinstance(made, Mapping) and "model_fn" in made:
            made = _of_estimator(made, name, side)
        if made is None or (_of_graph(made) and _graph_of(made) in (None, _default_graph())):
            return made
        raise _Elsewhere(made)

    try:
        program: Program = _guarded(lambda: tf1_graph(builder, seed=seed, precision=precision, **names), name, side)
    except _Elsewhere as found:
        made = found.args[0]
    except UserError:
        if precision == "float32" or not parameter or arguments[parameter] == "float32":
            raise
        # What it does with "float64" fails; its graph in float32 can be rewritten.
        arguments = {**arguments, parameter: "float32"}
        return _graph(function, arguments, name, side, precision, seed, names, parameter)
    else:
        return _in_precision(program, precision, name)
    if not (_of_graph(made) or _is_graph(made)) and sys.modules["tensorflow"].executing_eagerly():
        # It names tensorflow.compat.v1 and builds no graph: what it made is to be made outside one.
        if isinstance(made, Program):
            made.close()
        try:
            made = function(**arguments)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise _raised(name, side, error) from error
    return _adapted(made, name, side, precision, seed, names, parameter)


def _of_estimator(made: Mapping[str, Any], name: str, side: str) -> Mapping[str, Any]:
    """The parts of the graph that a model_fn builds."""
    from tfport.legacy import estimator

    keys = list(inspect.signature(estimator.mapping).parameters)
    for key in made:
        if key not in keys:
            raise unknown(f"key beside model_fn in what {name} returned", str(key), keys)
    try:
        return estimator.mapping(**made)
    except UserError:
        raise
    except Exception as error:
        raise _raised(name, side, error) from error


def _default_graph() -> Any:
    return sys.modules["tensorflow"].compat.v1.get_default_graph()


def _of_graph(made: Any) -> bool:
    """Whether it is a mapping that names the parts of a TF1 graph."""
    return isinstance(made, Mapping) and not plain.is_plain(made)


def _graph_of(made: Mapping[Any, Any]) -> Any:
    """The graph that the tensors of a mapping are in; None where it holds names alone."""
    return next((value.graph for value in _leaves(made) if _is_graph(getattr(value, "graph", None))), None)


def _is_graph(made: Any) -> bool:
    return hasattr(made, "as_graph_def") and hasattr(made, "get_operations")


def _adapted(
    made: Any, name: str, side: str, precision: str, seed: int, names: dict[str, Any], parameter: str | None
) -> Program:
    """The Program of what a factory returned."""
    program: Program
    if names and not (_of_graph(made) or _is_graph(made)):
        raise UserError(
            f"--{next(iter(names))} names parts of a TF1 graph, and the {side} factory {name} returned "
            f"{type(made).__name__}: leave it out, or name them where that is made."
        )
    if isinstance(made, Program):
        program = _in_precision(made, precision, name if parameter else f"{name}, which takes no dtype,")
        if program is not made:
            made.close()
        return program
    if _of_graph(made):
        graph = _graph_of(made)
        if graph is None:
            raise _wrong(name, side, made)
        from tfport.adapters import constructor

        tf1_graph = constructor("tf1_graph")

        program = _guarded(
            lambda: tf1_graph(graph=graph, seed=seed, precision=precision, **{**made, **names}), name, side
        )
        return _in_precision(program, precision, name)
    family = {base.__module__.split(".")[0] for base in type(made).__mro__}
    if plain.is_plain(made):
        program = _guarded(lambda: plain.program_of(made, seed), name, side)
    elif family & {"keras", "tf_keras"} and hasattr(made, "train_on_batch"):
        from tfport.adapters import constructor

        keras_model = constructor("keras_model")

        program = _guarded(lambda: keras_model(made, seed=seed), name, side)
    elif "tensorflow" in family and _is_graph(made):
        from tfport.adapters import constructor

        tf1_graph = constructor("tf1_graph")

        program = _guarded(lambda: tf1_graph(graph=made, seed=seed, precision=precision, **names), name, side)
    elif "torch" in family:
        from tfport.adapters import constructor

        torch_module = constructor("torch_module")

        step = _step_of(made, name, side)
        program = _guarded(lambda: torch_module(made, step=step, seed=seed), name, side)
    elif "tensorflow" in family and hasattr(made, "trainable_variables"):
        from tfport.adapters import constructor

        tf_module = constructor("tf_module")

        step = _step_of(made, name, side)
        program = _guarded(lambda: tf_module(made, step=step, seed=seed), name, side)
    else:
        raise _wrong(name, side, made)
    if precision == "float64" and (layer := _unfused(made)):
        program.close()
        raise NoSuchPrecision(
            f"{name} has {layer}, which Keras 2 computes by TensorFlow's fused op in float32 alone: that op corrects "
            "the moving variance by n / (n - 1)"
        )
    if precision == "float64" and not parameter and program.precision == "float32":
        program.close()
        raise NoSuchPrecision(f"{name} takes no dtype, and what it builds under floatx float64 is float32")
    return _in_precision(program, precision, name)


def _unfused(made: Any) -> str:
    """A batch normalisation of Keras 2 that is another algorithm in float32; empty where there is none."""
    things = made if isinstance(made, Mapping) else {"": made}
    held = [each for value in things.values() for each in (value.values() if isinstance(value, Mapping) else [value])]
    for each in held:
        for layer in (each, *(getattr(each, "submodules", None) or ())):
            kinds = {(kind.__module__.split(".")[0], kind.__name__) for kind in type(layer).__mro__}
            if ("tf_keras", "BatchNormalizationBase") in kinds and layer.built and not layer.fused:
                ranks = {spec.ndim for spec in [layer.input_spec] if spec is not None}
                if ranks & {4, 5}:
                    return str(layer.name)
    return ""


def _step_of(made: Any, name: str, side: str) -> Callable[..., Any]:
    """The method that trains a module."""
    step: Callable[..., Any] | None = next(
        (getattr(made, each) for each in ("train_step", "step") if hasattr(made, each)), None
    )
    if step is None:
        raise UserError(
            f"the {side} side {name} gives {type(made).__name__}, which has no train_step and no step: return "
            '{"module": module, "step": function} from a function, with the function that trains it.'
        )
    return step


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, Mapping):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    return [leaf for value in tree for leaf in _leaves(value)] if isinstance(tree, list | tuple) else [tree]


def _from_file(given: str, side: str, precision: str, seed: int, names: dict[str, Any]) -> Program:
    path = Path(given)
    if path.suffix == ".py" and path.is_file():
        from tfport.adapters import script

        try:
            return script.from_script(path, precision=precision, seed=seed, **names)
        except script.Raised as raised:
            text = f"the {side} script {given} raised {said(raised.error)} before it trained"
            raise _refusal(text, raised.error) from raised
    if path.suffix != ".py" and ".py:" in given:
        find(given, side)
    if not path.exists():
        raise UserError(
            f"--{side}={given}: there is no such file; expected module:function, a script, a .meta file, or the folder "
            "of a SavedModel or a record."
        )
    saved_model = path.is_dir() or path.name == "saved_model.pb"
    if not saved_model and path.suffix != ".meta":
        raise UserError(
            f"--{side}={given} is a file whose code or pickle is not run. Name a factory as module:function, or give a "
            "script, a .meta file with its checkpoint, or a SavedModel's folder."
        )
    from tfport.adapters import constructor

    if not saved_model:
        return constructor("from_meta")(path, precision=precision, **names)  # type: ignore[no-any-return]
    folder = path if path.is_dir() else path.parent
    return constructor("from_saved_model")(folder, precision=precision, **names)  # type: ignore[no-any-return]


def _guarded(make: Callable[[], Program], name: str, side: str) -> Program:
    """What an adapter makes; what it refuses names the side."""
    try:
        return make()
    except (NoSuchPrecision, _Elsewhere):
        raise
    except UserError as error:
        told = str(error)
        raise error if name in told else type(error)(f"the {side} side {name}: {told}") from error
    except Exception as error:  # an adapter that meets what it does not know
        raise UserError(f"the {side} side {name} was built, and cannot be read: {said(error)}") from error


def _in_precision(program: Program, precision: str, name: str) -> Program:
    """The program, or what it is in float64 where that is asked for."""
    if program.precision == precision:
        return program
    if precision == "float64":
        try:
            return program.in_float64()
        except NotImplementedError:
            pass
        except Exception as error:  # TensorFlow's importer raises whatever a graph leads it to
            raise NoSuchPrecision(f"rewriting the graph of {name} to float64 raised {said(error)}") from error
    raise NoSuchPrecision(f"{name} is built in {program.precision}")


def _wrong(name: str, side: str, made: Any) -> UserError:
    return UserError(
        f"the {side} factory {name} returned {type(made).__name__}: expected a compiled Keras model, a mapping that "
        'names the parts of a TF1 graph, or one such as {"module": module, "step": function} of a tf.Module, of Keras '
        "models or of a PyTorch module."
    )


def _raised(name: str, side: str, error: BaseException) -> UserError:
    return _refusal(f"the {side} factory {name} raised {said(error)}", error)


def _refusal(text: str, error: BaseException) -> UserError:
    """The error for what a user's code raised; one of its own where tf.layers and its like need Keras 2."""
    if os.environ.get("TF_USE_LEGACY_KERAS") is None and _WITHOUT_KERAS2.search(str(error)):
        return LegacyKerasNeeded(
            f"{text}. Set TF_USE_LEGACY_KERAS=1 before Python starts, with the package tf_keras installed: tf.layers, "
            "tf.nn.rnn_cell and TF1's tf.keras are Keras 2."
        )
    found = _WITHOUT_TF1.search(str(error))
    name = (found[1] or found[2]) if found else ""
    if name and not STAND_INS.keys() & os.environ.keys():
        tf1 = sys.modules.get("tensorflow.compat.v1")
        if name in ("contrib", "estimator", "examples") or hasattr(tf1, name):
            return StandInsNeeded(
                f"{text}. That is TensorFlow 1's: import the module within `with tfport.legacy.installed():`, or name "
                "the side as text, which does so by itself."
            )
    return UserError(text)


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Code of the user's that runs in the process of the command: what it prints goes nowhere.

    What it sets in os.environ is taken back, since it is meant for one side and would reach the other's process.
    """
    before = dict(os.environ)
    kept = {}
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    for number in (1, 2):
        with contextlib.suppress(OSError):  # it was closed before
            kept[number] = os.dup(number)
            os.dup2(_nowhere().fileno(), number)
    try:
        with contextlib.redirect_stdout(_nowhere()), contextlib.redirect_stderr(_nowhere()):
            yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
        if dict(os.environ) != before:
            os.environ.clear()
            os.environ.update(before)


@functools.cache
def _nowhere() -> Any:
    """Stays open: a logger that is made within the block keeps the stream that it found."""
    return open(os.devnull, "w")  # noqa: PTH123


def _is_tf1(function: Callable[..., Any]) -> bool:
    """Whether the function uses tensorflow.compat.v1 under a name of its own, as TF1 code that still runs does."""
    while isinstance(function, functools.partial):
        function = function.func
    function = function if inspect.isroutine(function) or isinstance(function, type) else type(function).__call__
    wrapped = inspect.unwrap(function)
    names = set(getattr(getattr(wrapped, "__code__", None), "co_names", ()))
    module_globals = getattr(wrapped, "__globals__", {})
    for name in names:
        value = module_globals.get(name)
        if isinstance(value, ModuleType) and value.__name__.startswith(
            ("tensorflow._api.v2.compat.v1", "tensorflow.compat.v1")
        ):
            return True
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and hasattr(tensorflow, "executing_eagerly") and not tensorflow.executing_eagerly()


def seed_all(seed: int) -> None:
    """Seeds the global generators of Python, numpy and whichever framework is loaded."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  user code draws from it
    for name in ("keras", "tf_keras"):
        module = sys.modules.get(name)
        if module is not None and hasattr(module, "utils"):
            module.utils.set_random_seed(seed)
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and hasattr(tensorflow, "random"):
        tensorflow.random.set_seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(seed)


class Floatx:
    """Both Kerases' floatx, and Keras 3's default policy, set to a precision within the block.

    Losses and metrics are made when a model is first trained, so the block is to last as long as the model is used.
    """

    def __init__(self, precision: str) -> None:
        self._precision = precision
        self._before: list[tuple[Any, str]] = []
        self._policy: Any = None

    def __enter__(self) -> None:
        if self._precision == "float64":
            for name in ("keras", "tf_keras"):
                importlib.import_module(name)
        for name in ("keras", "tf_keras"):
            module = sys.modules.get(name)
            if module is not None and hasattr(module, "backend"):
                self._before.append((module, module.backend.floatx()))
                module.backend.set_floatx(self._precision)
        keras = sys.modules.get("keras")
        if keras is not None and hasattr(keras, "config"):
            self._policy = keras.config.dtype_policy()  # kept from its first use on, whatever floatx becomes
            keras.config.set_dtype_policy(self._precision)

    def __exit__(self, *_: object) -> None:
        for module, before in self._before:
            module.backend.set_floatx(before)
        if self._policy is not None:
            sys.modules["keras"].config.set_dtype_policy(self._policy)
