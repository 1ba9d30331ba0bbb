"""Programs of plain mappings: what a side's function returns where it imports nothing of tfport.

One of four keys says what is trained, the others how. This is the whole list; a TF1 graph's mapping has keys of its own
(`tfport.adapters.tf1_graph`).

| key | value |
| --- | --- |
| model, models, module, modules | a Keras model, a tf.Module, an nn.Module or an object that holds variables; or a mapping of names to such. |
| step, phases | the function that makes one training step, or name -> function in the order they run. It takes inputs by name (`step(x, y)`) or the batch as a mapping, and returns the loss or a mapping with "loss". One compiled Keras model needs none; where a function calls train_on_batch or fit, compiled models are trained by that. |
| optimizer, optimizers | the optimizer, or name -> optimizer, where they are not found by themselves. Compiled models have theirs. |
| outputs | what is compared in the forward pass: a function of the batch (with `training`, if it has such a parameter), or names; or {"training": function, "inference": function}. |
| inputs | what a batch holds, where the step does not say it: names, or name -> (shape, dtype). |
| latent, half_steps, fakes, latent_scale, real_label, fake_label | of the models "discriminator", "generator" and "combined" without phases: the common loop of Keras GANs, see `keras_gan`. |
"""  # noqa: E501

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any

from tfport.adapters import constructor, steps
from tfport.errors import UserError, unknown
from tfport.program import Program

_TRAINED = ("model", "models", "module", "modules")
_LIBRARIES = ("tensorflow", "keras", "tf_keras", "torch", "numpy", "tfport", "builtins")
_GAN = ("latent", "half_steps", "fakes", "latent_scale", "real_label", "fake_label")
KEYS = (*_TRAINED, "step", "phases", "optimizer", "optimizers", "outputs", "inputs", *_GAN)


def is_plain(made: Any) -> bool:
    """Whether it is a mapping that names what is trained."""
    return isinstance(made, Mapping) and any(key in made for key in _TRAINED)


def program_of(made: Mapping[str, Any], seed: int = 0) -> Program:
    """The Program that a plain mapping describes; the module's text lists its keys.

    Args:
      made: the mapping; `is_plain` holds.
      seed: of the random numbers that the program is fed.

    Raises:
      UserError: a key is unknown, missing or of no use beside the others, or an adapter refuses a value.
    """
    for key in made:
        if key not in KEYS:
            raise unknown("key in what the function returned", str(key), KEYS)
    _alternatives(made, *_TRAINED)
    _alternatives(made, "step", "phases")
    _alternatives(made, "optimizer", "optimizers")
    key = next(key for key in _TRAINED if key in made)
    several = key in ("models", "modules")
    if several and not (isinstance(made[key], Mapping) and made[key]):
        raise UserError(f'"{key}" is {_kind(made[key])}; expected a mapping of names, or one thing as "{key[:-1]}".')
    trained = dict(made[key]) if several else {"": made[key]}
    families = {base.__module__.split(".")[0] for each in trained.values() for base in type(each).__mro__}
    options = {name: made[name] for name in ("step", "phases", "optimizers", "outputs", "inputs") if name in made}
    if isinstance(options.get("outputs"), Mapping):
        options["outputs"] = _by_mode(options["outputs"])
    if "optimizer" in made:
        options["optimizers"] = {"optimizer": made["optimizer"]}
    if any(map(_compiled, trained.values())) and _trains_on_batch(made):
        return _compiled_program(made, key, trained, options, seed)
    _useless(made, _GAN, 'the compiled models "discriminator", "generator" and "combined"')
    if not {"step", "phases"} & made.keys():
        step = next((getattr(made[key], name) for name in ("train_step", "step") if hasattr(made[key], name)), None)
        if several or step is None or families & {"keras", "tf_keras"}:
            raise UserError(
                f'{"one of" if several else "the value of"} "{key}" is no compiled Keras model, so what trains it '
                'must be named: give "step": function, or "phases": {name: function}.'
            )
        options["step"] = step
    if "torch" in families:
        return _made("torch_module", trained if several else made[key], seed, options)
    if len(trained) == 1 and options.get("outputs") in trained.values():
        del options["outputs"]  # which is what it does by itself
    if hasattr(options.get("outputs"), "train_on_batch"):
        raise UserError('"outputs" is a Keras model; give a function of the batch that calls it.')
    if callable(options.get("outputs")):
        options["forward"] = options.pop("outputs")
    return _made("tf_module", trained if several else made[key], seed, options)


def _by_mode(outputs: Mapping[str, Any]) -> Callable[..., Any]:
    """One function of the batch and the mode, of one for each mode."""
    if set(outputs) != {"training", "inference"} or not all(map(callable, outputs.values())):
        raise UserError(
            f'"outputs" is a mapping of {", ".join(map(str, outputs)) or "nothing"}; expected a function of the batch, '
            'or {"training": function, "inference": function}.'
        )

    def by_mode(batch: Any, training: bool) -> Any:
        mode = "training" if training else "inference"
        return steps.call(outputs[mode], f'"outputs", "{mode}"', batch, training=training)

    return by_mode


def _made(maker: str, trained: Any, seed: int, options: Mapping[str, Any]) -> Program:
    program: Program = constructor(maker)(trained, seed=seed, **options)
    return program


def _compiled_program(
    made: Mapping[str, Any], key: str, trained: dict[str, Any], options: dict[str, Any], seed: int
) -> Program:
    """Compiled Keras models: by Keras's own step, by phases, or by the loop of a GAN."""
    _useless(made, ("optimizer", "optimizers"), "models that are not compiled")
    phased = {"step", "phases"} & made.keys()
    one = key in ("model", "module")
    if phased or one:
        _useless(made, _GAN, 'the models "discriminator", "generator" and "combined" without "step" and "phases"')
    if phased:
        if one:
            trained = {getattr(made[key], "name", "model"): made[key]}
        step = options.pop("step", None)
        phases = options.pop("phases", None) or {"step": step}
        return _made("keras_phases", trained, seed, {"phases": phases, **options})
    if one:
        _useless(made, ("inputs",), "models with a step of their own: a compiled model has its inputs' names")
        return _made("keras_model", made[key], seed, options)
    if set(trained) == {"discriminator", "generator", "combined"}:
        _useless(made, ("inputs", "outputs"), 'models with "phases"')
        if "latent" not in made:
            raise UserError('"latent" is missing: the length of one example\'s noise, or its shape; or give "phases".')
        options = {**trained, **{name: made[name] for name in _GAN if name in made}}
        return _made("keras_gan", options.pop("discriminator"), seed, options)
    raise UserError(
        f'the {len(trained)} models {", ".join(map(str, trained))} have no "phases": give name -> function that '
        'calls train_on_batch, in the order they run. Without them only "discriminator", "generator" and '
        '"combined", with "latent", are known.'
    )


def _alternatives(made: Mapping[str, Any], *keys: str) -> None:
    """Raises UserError where more than one of some keys is given."""
    given = [key for key in keys if key in made]
    if len(given) > 1:
        raise UserError(f'the mapping has both "{given[0]}" and "{given[1]}"; give one of the two.')


def _useless(made: Mapping[str, Any], keys: tuple[str, ...], what: str) -> None:
    """Raises UserError where a key is given that says something of another kind of side."""
    key = next((key for key in keys if key in made), None)
    if key is not None:
        raise UserError(f'"{key}" is of {what}: leave it out here.')


def _trains_on_batch(made: Mapping[str, Any]) -> bool:
    """Whether Keras's own step trains: there is no other, or the functions call train_on_batch or fit."""
    phases = made.get("phases")
    functions = list(phases.values()) if isinstance(phases, Mapping) else [made.get("step")]

    def calls(thing: Any) -> bool:
        thing = steps.plain(thing)
        held = [thing, *(vars(type(thing)).values() if type(thing).__module__.split(".")[0] not in _LIBRARIES else ())]
        codes = [each.__code__ for each in held if isinstance(each, FunctionType)]
        codes += [inner for code in codes for inner in code.co_consts if isinstance(inner, CodeType)]
        named = {name for code in codes for name in (code.co_name, *code.co_names)}
        return not named.isdisjoint(("train_on_batch", "fit"))

    return functions == [None] or bool(steps.reachable(functions, calls, _LIBRARIES))


def _compiled(model: Any) -> bool:
    family = {base.__module__.split(".")[0] for base in type(model).__mro__}
    return bool(family & {"keras", "tf_keras"}) and bool(getattr(model, "compiled", getattr(model, "_is_compiled", 0)))


def _kind(value: Any) -> str:
    return value.__name__ if inspect.isroutine(value) else type(value).__name__
