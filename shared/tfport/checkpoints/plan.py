"""What a conversion will do, tensor by tensor, before anything is written.

Every tensor of the target has a `Move` that fills it, and every tensor of the source is used by one or listed with the
reason why it stays behind; what cannot be filled, and a weight that would be lost, are errors.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfport import adam
from tfport.checkpoints import algebra
from tfport.checkpoints.contents import (
    STRING,
    Array,
    Bytes,
    Contents,
    Entry,
    OptimizerEntry,
    Role,
    Source,
    Stored,
    numpy_dtype,
    pieces,
)
from tfport.checkpoints.pairing import MappingFile, pair_optimizers, pair_variables, variables_of
from tfport.errors import CheckpointError
from tfport.layouts import MappedVariable, by_variables, further_terms, in_words, to_modern
from tfport.state import slot_name
from tfport.subject import CORRECTED

_SHOWN = 8
_OPTIMIZER = re.compile(r"(^|/)[^/]*opt[^/]*/")
"""In the keys of Keras's files: an optimizer's group."""
_TF1_FORMATS = ("tf1-v1", "tf1-v2", "tf2", "saved-model")
_OF_MOMENTUM = ("momentum", "sgd")
"""How the names begin that frameworks give to optimizers whose accumulator is momentum's, and not Adagrad's."""
_OPTIONAL = ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "l2_shrinkage", "gradient_accumulation_steps")
"""Numbers that an optimizer has only where they are set, and which a program without them may do by itself."""


@dataclass(frozen=True)
class Options:
    """What a person decides where the files do not tell."""

    leave_out: tuple[str, ...] = ()
    """Globs of the source's canonical names that may stay behind."""
    keep: tuple[str, ...] = ()
    """Globs of the target's canonical names that keep the template's values."""
    iterations: int | None = None
    """The optimizers' count of updates."""
    learning_rate: float | None = None
    """The rate on both sides, where a file does not record it."""
    betas: Mapping[str, float] = field(default_factory=dict)
    """"beta_1", "beta_2": Adam's, where no file records them."""
    cast: bool = False
    """Whether numbers may be rounded to a narrower dtype."""
    other_update: bool = False
    """Whether slots may go to an optimizer of the same slots whose update differs in where epsilon is added."""


@dataclass(frozen=True)
class Target:
    """What is to be written."""

    format: str
    tensors: Mapping[str, Stored]
    contents: Contents
    template: Source | None
    """An open checkpoint of the target's program."""
    layout: str = "tf"
    """Whose kernels: "tf" or "torch"."""
    texts: Mapping[str, bytes] = field(default_factory=dict)
    """Key -> a tensor of texts that the format wants and no template gives, in the format's own form."""


@dataclass(frozen=True)
class Move:
    """How one tensor of the target is filled."""

    stored: Stored
    entry: Entry
    how: str
    """For a person: "copied", "transposed (1, 0)", "times -0.1", "from the beta powers", "kept from the template"."""
    origins: tuple[str, ...]
    """Keys of the source that it is made of."""
    produce: Callable[[], Iterator[Bytes]]


@dataclass(frozen=True)
class LeftOut:
    """A tensor of the source that stays behind."""

    key: str
    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """A whole conversion."""

    target: Target
    moves: tuple[Move, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that will be written, texts not counted."""
        return sum(move.stored.nbytes for move in self.moves)


def make(
    source: Source,
    contents: Contents,
    target: Target,
    mapping: MappingFile | None = None,
    options: Options | None = None,
    layout: str = "tf",
) -> Plan:
    """Plans a conversion; small tensors (counts, rates, beta powers) are read for it.

    Args:
      source: the checkpoint to convert, and `contents` what its tensors are.
      contents: see `source`.
      target: what is to be filled.
      mapping: which variable is which, where names do not tell.
      options: what a person decides.
      layout: whose kernels the source has: "tf" or "torch".

    Raises:
      CheckpointError: a tensor of the target would stay empty, a weight would be lost, optimizers do not fit.
      UserError: the mapping does not fit the files.
    """
    return _Planner(source, contents, target, mapping, options or Options(), layout).plan()


class _Planner:
    def __init__(
        self,
        source: Source,
        contents: Contents,
        target: Target,
        mapping: MappingFile | None,
        options: Options,
        layout: str,
    ) -> None:
        self.source, self.contents, self.target, self.options = source, contents, target, options
        self.mapping = mapping
        self.problems: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self.used: set[str] = set()
        own = variables_of(contents, source.tensors)
        wanted = variables_of(target.contents, target.tensors)
        behind = [name for name in own if _matches(name, options.leave_out)]
        self.pairs = pair_variables(own, wanted, mapping, behind, (layout, target.layout))
        partners = [pair for blocks in self.pairs.values() for pair in blocks]
        self.empty = further_terms(partners)
        self.optimizers: dict[str, str] = {}  # target's -> source's
        if contents.optimizers and target.contents.optimizers:
            self.optimizers = {
                other: one for one, other in pair_optimizers(contents, target.contents, partners, mapping).items()
            }
        self.by_name = contents.by_name()
        self.counts: dict[str, tuple[int, str] | None] = {}
        self.plain: set[str] = set()
        """Optimizers of the target that are plain SGD on one side at least: they use no slots."""
        self._check_algorithms()
        self._check_unresolved()

    # --- The whole ----------------------------------------------------------------------------------------------------
    def plan(self) -> Plan:
        moves = tuple(move for entry in self.target.contents.entries if (move := self._move(entry)) is not None)
        left = tuple(self._left_out())
        if self.problems:
            raise CheckpointError(self._complaint())
        notes = dict.fromkeys([*self.contents.notes, *self.target.contents.notes, *self.notes])
        return Plan(self.target, moves, left, tuple(notes))

    def _complaint(self) -> str:
        lines = []
        for reason, names in self.problems.items():
            shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
            lines.append(reason.replace("{}", shown))
        return f"{self.source.path} cannot be converted:\n" + "\n".join(f"  - {line}" for line in lines)

    def _problem(self, reason: str, name: str) -> None:
        self.problems.setdefault(reason, []).append(name)

    # --- One tensor ---------------------------------------------------------------------------------------------------
    def _move(self, entry: Entry) -> Move | None:
        stored = self.target.tensors[entry.key]
        if _matches(entry.name, self.options.keep):
            return self._kept(stored, entry, "as --keep asks")
        match entry.role:
            case Role.WEIGHT | Role.STATISTIC | Role.AVERAGE:
                return self._variable(stored, entry)
            case Role.SLOT:
                return self._slot(stored, entry)
            case Role.COUNT:
                return self._count(stored, entry)
            case Role.POWER:
                return self._power(stored, entry)
            case Role.HYPERPARAMETER:
                return self._hyperparameter(stored, entry)
        return self._kept(stored, entry, "the target's own")

    def _kept(self, stored: Stored, entry: Entry, why: str) -> Move | None:
        if entry.key in self.target.texts:
            return Move(stored, entry, "made for the format", (), lambda: iter([self.target.texts[entry.key]]))
        template = self.target.template
        if template is None or entry.key not in template.tensors:
            self._problem("nothing fills {}, and there is no template to keep its value from", entry.name)
            return None
        return Move(stored, entry, f"kept from the template ({why})", (), lambda: template.chunks(entry.key))

    def _variable(self, stored: Stored, entry: Entry) -> Move | None:
        blocks = self.pairs.get(entry.name)
        if blocks is None:
            if self.mapping is not None and entry.name in self.mapping.modern_only:
                return self._kept(stored, entry, "modern_only in the mapping")
            shape = "x".join(map(str, stored.shape)) or "scalar"
            self._problem(
                "nothing is known to fill {}: give a --mapping (--write_mapping=FILE drafts one), or --keep what is to "
                "keep the template's value",
                f"{entry.name} ({shape})",
            )
            return None
        return self._filled(stored, entry, {pair.legacy: pair.legacy for pair in blocks}, blocks, None)

    def _filled(
        self,
        stored: Stored,
        entry: Entry,
        names: Mapping[str, str],
        blocks: Sequence[MappedVariable],
        factor: tuple[float, float] | None,
    ) -> Move | None:
        """A tensor from the source's `names`: legacy variable -> itself, or its slot."""
        keys = {legacy: [each.key for each in self.by_name[name]] for legacy, name in names.items()}
        if len(blocks) == 1 and not blocks[0].in_part:
            return self._carried(stored, entry, keys[blocks[0].legacy], blocks[0], factor)
        return self._assembled(stored, entry, keys, blocks, factor)

    def _assembled(
        self,
        stored: Stored,
        entry: Entry,
        keys: Mapping[str, Sequence[str]],
        blocks: Sequence[MappedVariable],
        factor: tuple[float, float] | None,
    ) -> Move | None:
        """A tensor that is made of blocks."""
        origins = {legacy: self.source.tensors[each[0]] for legacy, each in keys.items()}
        self.used.update(key for each in keys.values() for key in each)
        for pair in blocks:
            if origins[pair.legacy].shape != pair.legacy_shape or stored.shape != pair.modern_shape:
                self._problem(
                    "{} has not its variable's shape, so that the mapping's blocks say nothing of it", entry.name
                )
                return None
        dtype = str(np.result_type(*(numpy_dtype(each.dtype) for each in origins.values())))
        if not self._castable(stored, entry, dtype):
            return None
        weights = entry.role is not Role.SLOT
        if weights and any(pair.summed for pair in blocks):
            legacy = " and ".join(dict.fromkeys(pair.legacy for pair in blocks))
            self.notes.append(
                f"{stored.key} and {legacy} are sums, or parts of one, of different numbers of variables: each summand "
                "moves as far as a single variable would, so that training goes on at another pace."
            )
        source, empty = self.source, self.empty

        def produce() -> Iterator[Bytes]:
            arrays = {legacy: _gathered(source, each).astype(dtype) for legacy, each in keys.items()}
            parts = [(pair, arrays[pair.legacy] * (not weights or pair not in empty)) for pair in blocks]
            chunks: Iterator[Bytes] = pieces(to_modern(parts, weights))
            if factor is not None:
                chunks = algebra.scaled(chunks, dtype, *factor)
            return algebra.cast(chunks, dtype, stored.dtype) if dtype != stored.dtype else chunks

        words = [
            f"{pairs[0].legacy} ({in_words(pairs)})" if in_words(pairs) else pairs[0].legacy
            for pairs in by_variables(blocks)
        ]
        how = f"made of {' and '.join(words)}"
        return Move(stored, entry, how, tuple(key for each in keys.values() for key in each), produce)

    def _castable(self, stored: Stored, entry: Entry, dtype: str) -> bool:
        """Whether numbers of a dtype may go to the target's; takes the problem down where they may not."""
        if STRING in (dtype, stored.dtype):
            self._problem("{} holds texts, which are not carried", entry.name)
            return False
        if dtype != stored.dtype and not np.can_cast(numpy_dtype(dtype), numpy_dtype(stored.dtype), "safe"):
            if not self.options.cast:
                self._problem("{} would be rounded; --cast allows it", f"{entry.name} ({dtype} to {stored.dtype})")
            return self.options.cast
        return True

    def _carried(
        self,
        stored: Stored,
        entry: Entry,
        keys: Sequence[str],
        pair: MappedVariable,
        factor: tuple[float, float] | None,
    ) -> Move | None:
        """A tensor that is the source's, turned, scaled or in another dtype."""
        origin = self.source.tensors[keys[0]]
        self.used.update(keys)
        order = pair.transpose
        if order and len(order) != len(origin.shape):
            order = ()
        shape = tuple(origin.shape[axis] for axis in order) if order else origin.shape
        if shape != stored.shape and not (pair.reshape and origin.parameters == stored.parameters):
            self._problem(
                "{} cannot be filled: the shapes differ; say in the mapping how with transpose or reshape",
                f"{entry.name} {stored.shape} by {pair.legacy} {origin.shape}",
            )
            return None
        if not self._castable(stored, entry, origin.dtype):
            return None
        words = []
        if order:
            words.append(f"transposed {order}")
        if pair.reshape:
            words.append(f"reshaped to {stored.shape}")
        if factor is not None:
            times, over = factor
            words.append(f"times {times:g}" + (f" over {over:g}" if over != 1 else ""))
        if origin.dtype != stored.dtype:
            words.append(f"{origin.dtype} to {stored.dtype}")
        source = self.source

        def produce() -> Iterator[Bytes]:
            chunks = agreeing(source, keys)
            if order:
                chunks = algebra.transposed(_gathered(source, keys), order)
            if factor is not None:
                chunks = algebra.scaled(chunks, origin.dtype, *factor)
            if origin.dtype != stored.dtype:
                chunks = algebra.cast(chunks, origin.dtype, stored.dtype)
            return chunks

        return Move(stored, entry, ", ".join(words) or "copied", tuple(keys), produce)

    def _slot(self, stored: Stored, entry: Entry) -> Move | None:
        blocks = self.pairs.get(entry.variable)
        one = self.optimizers.get(entry.optimizer)
        if one is None:
            if self.contents.optimizers:
                self._problem(
                    "no optimizer of the source is known to be the target's {}; say it in the mapping, or --keep its "
                    "slots as they are in the template",
                    entry.optimizer,
                )
            else:
                self._problem(
                    "the source holds no optimizer's slots, and the target wants {}; --keep='optimizer/*' begins with "
                    "those of the template",
                    entry.name,
                )
            return None
        if blocks is None:
            if self.mapping is not None and entry.variable in self.mapping.modern_only:
                return self._kept(stored, entry, "its variable is modern_only in the mapping")
            self._problem("nothing is known to fill {}, whose variable has no partner", entry.name)
            return None
        names = {pair.legacy: slot_name(one, entry.slot, pair.legacy) for pair in blocks}
        if entry.optimizer in self.plain:
            return self._kept(stored, entry, "plain SGD uses no slots")
        missing = any(name not in self.by_name for name in names.values())
        if missing and self._idle(one, entry.optimizer, entry.slot):
            return self._kept(stored, entry, "the momentum is 0, so the slot is never used")
        if missing:
            self._problem(
                f"the source's optimizer {one} has no slot for {{}}; --keep it to begin with the template's", entry.name
            )
            return None
        try:
            factor = self._factor(one, entry)
        except CheckpointError as error:
            self.used.update(each.key for name in names.values() for each in self.by_name[name])
            self._problem(f"{{}}: {error}", entry.name)
            return None
        return self._filled(stored, entry, names, blocks, factor)

    # --- Optimizers ---------------------------------------------------------------------------------------------------
    def _check_algorithms(self) -> None:
        for other, one in self.optimizers.items():
            left, right = self._told(one, self.contents, self.source.format), self._told_target(other)
            if self._kept_whole(other):
                continue
            slots = [
                sorted({each.slot for each in side.entries if each.role is Role.SLOT and each.optimizer == name})
                for side, name in ((self.contents, one), (self.target.contents, other))
            ]
            if left.algorithm is None or right.algorithm is None:
                if "SGD" in (left.algorithm, right.algorithm) and ["accumulator"] in slots:
                    self._check_plain(one, other, left.algorithm == "SGD")
                elif self._corrected_alone(left, right):
                    self._problem(
                        "{}: epsilon is added in another place than TF1 and Keras do, so the next steps would differ; "
                        "--other_update carries the slots all the same",
                        f"{_called(left)} and {_called(right)}",
                    )
                elif slots[0] != slots[1] and slots[1]:
                    self._problem(
                        f"optimizer {one} keeps {', '.join(slots[0]) or 'no slots'} and {other} wants "
                        f"{', '.join(slots[1])}: they are not of one kind ({{}})",
                        f"{_called(left)} and {_called(right)}",
                    )
                else:
                    self.notes.append(
                        f"Which algorithm {one if left.algorithm is None else other} is, its file does not tell; "
                        "its slots fit."
                    )
                continue
            base = [each.algorithm.removesuffix(CORRECTED) for each in (left, right) if each.algorithm]
            nothing = left.hyperparameters.get("epsilon") == right.hyperparameters.get("epsilon") == 0
            if left.algorithm == right.algorithm or (base[0] == base[1] and nothing):
                self._tell_numbers(left, right)
                continue
            if base[0] == base[1] and self.options.other_update:
                self.notes.append(
                    f"{one} is {left.algorithm} and {other} is {right.algorithm}: the slots carry over, and the next "
                    "steps differ a little."
                )
            elif base[0] == base[1]:
                self._problem(
                    "{}: they add epsilon in different places, so the next steps would differ; --other_update carries "
                    "the slots all the same",
                    f"{one} is {left.algorithm} and {other} is {right.algorithm}",
                )
            else:
                self._problem(
                    "{}: slots of one mean nothing to the other; build the target with the same algorithm, or "
                    f"--keep='optimizer/{other}/*' to begin with the template's",
                    f"{one} is {left.algorithm} and {other} is {right.algorithm}",
                )

    def _told(self, name: str, side: Contents, format: str) -> OptimizerEntry:  # noqa: A002 - it is the format
        """An optimizer with the numbers that its framework leaves no choice of: TF1's Adagrad adds no epsilon, and its
        Ftrl's l2 holds beta.
        """
        each = side.optimizer(name)
        numbers = dict(each.hyperparameters)
        if each.algorithm == "Adagrad" and each.convention == "tf1" and format in _TF1_FORMATS:
            numbers.setdefault("epsilon", 0.0)
        beta, rate = numbers.pop("beta", 0.0), numbers.get("learning_rate")
        if beta and each.algorithm == "Ftrl":
            if rate and "l2" in numbers:
                numbers["l2"] += beta / (2 * rate)
            else:
                numbers.pop("l2", None)
        return OptimizerEntry(each.name, each.algorithm, each.convention, numbers, each.variables, each.varying)

    def _told_target(self, name: str) -> OptimizerEntry:
        """As `_told`, of the target; one that is laid out after the source has the source's numbers."""
        if self.target.template is None:
            return self.target.contents.optimizer(name)
        return self._told(name, self.target.contents, self.target.format)

    def _corrected_alone(self, left: OptimizerEntry, right: OptimizerEntry) -> bool:
        """Whether one adds epsilon elsewhere, and the other, whose file does not tell its algorithm, is of a framework
        that does not.
        """
        sides = (left, right), (right, left)
        return not self.options.other_update and any(
            (one.algorithm or "").endswith(CORRECTED) and other.algorithm is None and one.convention != other.convention
            for one, other in sides
        )

    def _check_unresolved(self) -> None:
        """Refuses a template of Keras with slots of which it cannot be told whose they are: none would be filled."""
        algorithms = {self.target.contents.optimizer(other).algorithm for other in self.optimizers}
        if not self.optimizers or "SGD" in algorithms or not self.target.format.startswith("keras"):
            return
        for entry in self.target.contents.entries:
            stored = self.target.tensors[entry.key]
            slot = (
                entry.role is Role.OTHER and stored.shape and "float" in stored.dtype and _OPTIMIZER.search(entry.key)
            )
            if slot and not _matches(entry.name, self.options.keep):
                self._problem(
                    "{}: the template's optimizer has slots here, and whose they are its file does not tell; take a "
                    "template that does (a .keras file, or a whole model's .h5), or --keep them as they are",
                    entry.name,
                )

    def _kept_whole(self, other: str) -> bool:
        """Whether all slots of the target's optimizer are to keep the template's values."""
        slots = [each for each in self.target.contents.entries if each.role is Role.SLOT and each.optimizer == other]
        return bool(slots) and all(_matches(each.name, self.options.keep) for each in slots)

    def _check_plain(self, one: str, other: str, source_is: bool) -> None:
        """Plain SGD on one side, and on the other what keeps momentum's slots and may be plain all the same."""
        keys = [
            each.key
            for each in self.contents.entries
            if each.role is Role.SLOT and each.optimizer == one and not _matches(each.name, self.options.leave_out)
        ]
        if any(np.frombuffer(chunk, np.uint8).any() for key in keys for chunk in self.source.chunks(key)):
            self._problem(
                "optimizer {} keeps what momentum keeps, and plain SGD has no place for it; whether it has momentum or "
                "is plain SGD, which in Keras 2 keeps its last update there, its file does not tell: build the target "
                f"with the same momentum, or --leave_out='optimizer/{one}/accumulator/*' where it is plain",
                one,
            )
            return
        self.plain.add(other)
        self.notes.append(
            f"{other if source_is else one} may be plain SGD or have momentum, which its file does not tell; "
            + ("the slots of the template are kept." if source_is else "its slots stay behind.")
        )

    def _idle(self, one: str, other: str, slot: str) -> bool:
        """Whether a slot is never read: RMSProp's momentum where that is 0, which TF1 keeps and Keras does not."""
        sides = self.contents.optimizer(one), self.target.contents.optimizer(other)
        momenta = [each.hyperparameters.get("momentum") for each in sides]
        kinds = [each.algorithm for each in sides if each.algorithm]
        known = bool(kinds) and all(each.removesuffix(CORRECTED).endswith("RMSProp") for each in kinds)
        return known and slot == "momentum" and 0 in momenta and not any(momenta)

    def _tell_numbers(self, left: OptimizerEntry, right: OptimizerEntry) -> None:
        numbers = left.hyperparameters, right.hyperparameters
        if left.algorithm == "Adagrad" and numbers[0].keys() | numbers[1].keys() >= {"epsilon"}:
            self._check_adagrad(left, right)
        for number in sorted(numbers[0].keys() & numbers[1].keys() - {"learning_rate"}):
            values = numbers[0][number], numbers[1][number]
            if np.float32(values[0]) != np.float32(values[1]):
                self.notes.append(
                    f"{number} of {left.name} is {values[0]:g} in the source and {values[1]:g} in the target: training "
                    "will not go on as it would have."
                )
        if not numbers[0] or not numbers[1]:
            return
        optional = (*_OPTIONAL, "l2") if left.algorithm != "Ftrl" else _OPTIONAL
        for number in sorted((numbers[0].keys() ^ numbers[1].keys()) & set(optional)):
            having, lacking = ("source", "target") if number in numbers[0] else ("target", "source")
            value = {**numbers[0], **numbers[1]}[number]
            if value:
                self.notes.append(
                    f"{number} is {value:g} in the {having}'s optimizer, and the {lacking}'s has none: training goes "
                    f"on as it would have only if the {lacking}'s program does that by itself."
                )

    def _check_adagrad(self, left: OptimizerEntry, right: OptimizerEntry) -> None:
        """TF1's Adagrad has no epsilon at all, so another's must be 0."""
        epsilons = [each.hyperparameters.get("epsilon") for each in (left, right)]
        if 0 not in epsilons or epsilons == [0, 0]:
            return
        given = next((each for each in epsilons if each), None)
        if given is None:
            self.notes.append(
                "One Adagrad adds no epsilon, as TF1's never does, and the other's is not recorded: training goes on "
                "as it would have only if that is 0."
            )
        elif not self.options.other_update:
            self._problem(
                f"{{}}: one of them adds no epsilon, as TF1's never does, and the other {given:g}, so the next steps "
                "would differ; build the target with the same (Keras takes epsilon=0), or --other_update carries the "
                "slots all the same",
                f"{left.name} and {right.name} are Adagrad",
            )

    def _rate(self, side: Contents, name: str) -> float | None:
        """A side's learning rate, as far as it is known; NaN where it is known to vary."""
        optimizer = side.optimizer(name)
        if "learning_rate" in optimizer.hyperparameters:
            return optimizer.hyperparameters["learning_rate"]
        if self.options.learning_rate is not None:
            return self.options.learning_rate
        return float("nan") if "learning_rate" in optimizer.varying else None

    def _factor(self, one: str, entry: Entry) -> tuple[float, float] | None:
        """By what a slot is multiplied and divided on its way; None for the same bits."""
        left, right = self.contents.optimizer(one), self.target.contents.optimizer(entry.optimizer)
        algorithm = left.algorithm or right.algorithm
        algorithm = algorithm and algorithm.removesuffix(CORRECTED)
        if algorithm is None and any(each.name.lower().startswith(_OF_MOMENTUM) for each in (left, right)):
            algorithm = "Momentum"  # or Nesterov, whose slot is the same
        scaled = [
            side.convention == "keras" and entry.slot == "accumulator" and algorithm in ("Momentum", "Nesterov", None)
            for side in (left, right)
        ]
        if algorithm is None and entry.slot == "accumulator" and scaled[0] != scaled[1]:
            raise CheckpointError("an accumulator may be momentum's or Adagrad's, and neither file tells which")
        if not any(scaled):
            return None
        rates = [self._rate(self.contents, one), self._rate(self.target.contents, entry.optimizer)]
        if self._filled_rate(entry.optimizer) and rates[0] is not None and rates[0] == rates[0]:
            rates[1] = rates[0]
        known = [rate for rate in rates if rate is not None]
        if any(rate != rate for rate in known):
            raise CheckpointError(
                "Keras keeps momentum multiplied by the learning rate, and the rate here is fed or follows a "
                "schedule; give the rate of the next update: --learning_rate=RATE"
            )
        if len(known) == 2 and np.float32(known[0]) != np.float32(known[1]):
            raise CheckpointError(
                f"Keras keeps momentum multiplied by the learning rate, and the rate has changed since: "
                f"{known[0]:g} in the source, {known[1]:g} in the target; build the target with the source's rate"
            )
        if scaled[0] == scaled[1]:
            if len(known) < 2:
                self.notes.append("A learning rate is not recorded: momentum is carried as it is.")
            return None
        rate = known[0] if known else None
        factor = algebra.velocity_factor("keras", algorithm, entry.slot, rate)
        assert factor is not None
        if len(known) == 1:
            self.notes.append(
                f"Only one side records the learning rate, {known[0]:g}; momentum is carried as if the other had the "
                "same."
            )
        return (factor, 1.0) if scaled[1] else (1.0, factor)

    def _filled_rate(self, optimizer: str) -> bool:
        """Whether the target keeps the rate as a tensor that this conversion fills."""
        return any(
            entry.role is Role.HYPERPARAMETER and entry.name == f"optimizer/{optimizer}/learning_rate"
            for entry in self.target.contents.entries
        )

    def _hyperparameter(self, stored: Stored, entry: Entry) -> Move | None:
        number = entry.name.rpartition("/")[2]
        one = self.optimizers.get(entry.optimizer)
        if one is None:
            return self._kept(stored, entry, "a number of the target's code")
        entries = [each for each in self.by_name.get(f"optimizer/{one}/{number}", ()) if each.role is entry.role]
        self.used.update(each.key for each in entries)
        value = self.contents.optimizer(one).hyperparameters.get(number)
        if value is None and entries:
            value = float(self._same_numbers([each.key for each in entries])[()])
        if value is None:
            return self._kept(stored, entry, "the source does not record it")
        kept = self.target.contents.optimizer(entry.optimizer).hyperparameters.get(number)
        if kept is not None and np.float32(kept) != np.float32(value):
            self.notes.append(f"{entry.name} is {value:g} in the source, and was {kept:g} in the template.")
        return self._made(stored, entry, np.asarray(value), "the source's number", [each.key for each in entries])

    # --- Counts -------------------------------------------------------------------------------------------------------
    def _count(self, stored: Stored, entry: Entry) -> Move | None:
        if not entry.optimizer:
            found = self.by_name.get(entry.name) or [
                each for each in self.contents.entries if each.role is Role.COUNT and not each.optimizer
            ]
            if len({each.name for each in found}) == 1:
                keys = [each.key for each in found]
                return self._made(stored, entry, self._same_numbers(keys), "copied", keys)
            counts = {counted for other in self.optimizers if (counted := self._count_of(other)) is not None}
            if len(counts) == 1:
                steps, how = counts.pop()
                return self._made(stored, entry, np.asarray(steps), how, ())
            return self._kept(stored, entry, "the source has no count of that name")
        counted = self._count_of(entry.optimizer)
        if counted is None:
            return None
        return self._made(stored, entry, np.asarray(counted[0]), counted[1], ())

    def _count_of(self, other: str) -> tuple[int, str] | None:
        """The count of the target's optimizer and how it was found; None, with the problem taken down."""
        if other not in self.counts:
            try:
                self.counts[other] = self._find_count(other)
            except CheckpointError as error:
                self.counts[other] = None
                self._problem(f"the count of updates of {{}} is not known: {error}", f"optimizer {other}")
        return self.counts[other]

    def _find_count(self, other: str) -> tuple[int, str]:
        one = self.optimizers.get(other)
        if one is not None:
            mine = [each for each in self.contents.entries if each.optimizer == one]
            counted = [each.key for each in mine if each.role is Role.COUNT]
            powers = {
                each.name.rpartition("/")[2].removesuffix("_power"): each for each in mine if each.role is Role.POWER
            }
            if counted:
                self.used.update(counted)
                value = self._same_numbers(counted)
                return _whole(value), "copied"
            if powers:
                self.used.update(each.key for each in powers.values())
                return self._counted_by({name: each.key for name, each in powers.items()}, one, other)
            loose = _loose_powers(self.contents)
            if loose and self.options.iterations is None:
                return self._shared_count(loose, one, other)
        if self.options.iterations is not None:
            return self.options.iterations, "as --iterations says"
        if one is None and self.contents.optimizers:
            raise CheckpointError("no optimizer of the source is known to be its partner")
        shared = [each for each in self.contents.entries if each.role is Role.COUNT and not each.optimizer]
        if len({each.name for each in shared}) == 1:
            self.used.update(each.key for each in shared)
            return _whole(self._same_numbers([each.key for each in shared])), f"the source's {shared[0].name}"
        raise CheckpointError("the source records none; give it: --iterations=N")

    def _counted_by(self, keys: Mapping[str, str], one: str, other: str) -> tuple[int, str]:
        """The count that beta powers under these keys tell."""
        if self.options.iterations is not None:
            return self.options.iterations, "as --iterations says"
        left, right = self.contents.optimizer(one), self.target.contents.optimizer(other)
        recorded = {**right.hyperparameters, **self.options.betas, **left.hyperparameters}
        betas = {name: recorded[name] for name in keys if name in recorded}
        read = {name: self.source.read(key) for name, key in keys.items()}
        count, _, how = algebra.count_of_powers(read, betas)
        if "underflowed" in how:
            self.notes.append(f"Optimizer {one}: {how}.")
        return count, how

    def _shared_count(self, loose: Mapping[str, Mapping[str, str]], one: str, other: str) -> tuple[int, str]:
        """The count of beta powers of which it cannot be told whose they are, when all of them tell the same."""
        counts = {self._counted_by(keys, one, other)[0] for keys in loose.values()}
        if len(counts) > 1:
            raise CheckpointError(
                f"the source holds {len(loose)} sets of beta powers, of {' and '.join(map(str, sorted(counts)))} "
                "steps, and whose they are cannot be told by names; lay its .meta beside it, or give --iterations=N "
                "if one count is right for all"
            )
        self.used.update(key for keys in loose.values() for key in keys.values())
        return counts.pop(), "from the beta powers, which tell the same count for every optimizer"

    def _power(self, stored: Stored, entry: Entry) -> Move | None:
        one = self.optimizers.get(entry.optimizer)
        number = entry.name.rpartition("/")[2]
        found = [each for each in self.by_name.get(f"optimizer/{one}/{number}", ()) if each.role is Role.POWER]
        if found and self.options.iterations is None:
            keys = [each.key for each in found]
            if self.source.tensors[keys[0]].dtype == stored.dtype:
                return self._made(stored, entry, self._same_numbers(keys), "copied", keys)
        counted = self._count_of(entry.optimizer)
        if counted is None:
            return None
        beta_name = number.removesuffix("_power")
        recorded = dict(self.options.betas)
        if one is not None:
            recorded = {**self.contents.optimizer(one).hyperparameters, **recorded}
        recorded = {**recorded, **self.target.contents.optimizer(entry.optimizer).hyperparameters}
        if beta_name not in recorded:
            self._problem(
                "{} cannot be made: no file records the beta; give it: --beta_1=NUMBER --beta_2=NUMBER", entry.name
            )
            return None
        power = adam.beta_power(recorded[beta_name], counted[0], stored.dtype)
        return self._made(stored, entry, np.asarray(power), f"{beta_name} multiplied up {counted[0] + 1:,} times", ())

    def _same_numbers(self, keys: Sequence[str]) -> Array:
        """A small tensor that several keys hold."""
        values = [self.source.read(key) for key in keys]
        if any(value.tobytes() != values[0].tobytes() for value in values[1:]):
            raise CheckpointError(
                f"{self.source.path} holds {keys[0]} several times with different values ({values[0]!s:.40} and others)"
            )
        return values[0]

    def _made(self, stored: Stored, entry: Entry, value: Array, how: str, keys: Sequence[str]) -> Move | None:
        """A small tensor whose value is known by now."""
        self.used.update(keys)
        made = np.asarray(value).astype(numpy_dtype(stored.dtype)).reshape(stored.shape)
        if np.asarray(value).dtype.kind in "iu" and int(made) != int(value):
            self._problem("{} cannot hold the count", f"{entry.name} ({stored.dtype})")
            return None
        return Move(stored, entry, how, tuple(keys), lambda: pieces(made))

    # --- What stays behind --------------------------------------------------------------------------------------------
    def _left_out(self) -> Iterator[LeftOut]:
        partners = {one: other for other, one in self.optimizers.items()}
        holding = {each.optimizer for each in self.target.contents.entries if each.role is Role.SLOT}
        slots = any(each.role is Role.SLOT for each in self.target.contents.entries)
        paired = {pair.legacy for blocks in self.pairs.values() for pair in blocks}
        behind = self.mapping.legacy_only if self.mapping else frozenset()
        for entry in self.contents.entries:
            if entry.key in self.used:
                continue
            if _matches(entry.name, self.options.leave_out) or _matches(entry.variable, self.options.leave_out):
                reason = "as --leave_out asks"
            elif entry.name in behind or entry.variable in behind:
                reason = "legacy_only in the mapping"
            elif entry.role in (Role.WEIGHT, Role.STATISTIC):
                self._problem(
                    "{} would be lost: the target has no place for it; name it in a --mapping, or --leave_out what may "
                    "stay behind",
                    entry.name,
                )
                continue
            elif entry.role is Role.AVERAGE:
                reason = "the target keeps no moving averages"
            elif entry.role is Role.SLOT and partners.get(entry.optimizer) in self.plain:
                reason = "plain SGD never uses it"
            elif entry.role is Role.SLOT:
                other = partners.get(entry.optimizer)
                if other is not None and entry.variable in paired and not self._kept_slots(entry):
                    number = self.contents.optimizer(entry.optimizer).hyperparameters.get("momentum")
                    if number == 0 and self._idle(entry.optimizer, other, entry.slot):
                        yield LeftOut(entry.key, entry.name, "the momentum is 0, so the slot is never used")
                        continue
                    self._problem(
                        "the slot {} would be lost: the target's optimizer has no place for it; --leave_out what may "
                        "stay behind"
                        if other in holding
                        else "the slot {} would be lost: the target's optimizer has no slots yet, or none that are "
                        "known; save the template once its optimizer has them (Keras: optimizer.build(variables); "
                        "PyTorch: after one step), or --leave_out what may stay behind",
                        entry.name,
                    )
                    continue
                reason = (
                    "the target's slots are kept as they are"
                    if slots
                    else "the target has no optimizer; training cannot go on from it as it would have"
                )
            elif entry.role in (Role.COUNT, Role.POWER):
                reason = "the target keeps no such count"
            elif entry.role is Role.HYPERPARAMETER:
                reason = "a number of the program's code, which the target does not store"
            else:
                reason = "no part of the state: bookkeeping of its format, or a slot that its optimizer does not use"
            yield LeftOut(entry.key, entry.name, reason)

    def _kept_slots(self, entry: Entry) -> bool:
        other = next((other for other, one in self.optimizers.items() if one == entry.optimizer), "")
        moderns = {pair.modern for blocks in self.pairs.values() for pair in blocks if pair.legacy == entry.variable}
        return any(_matches(slot_name(other, entry.slot, modern), self.options.keep) for modern in moderns)


def _loose_powers(contents: Contents) -> dict[str, dict[str, str]]:
    """Beta powers of no known optimizer: what tells one set from another -> "beta_1" or "beta_2" -> key."""
    found: dict[str, dict[str, str]] = {}
    for entry in contents.entries:
        if entry.role is Role.POWER and not entry.optimizer:
            number = "beta_1" if "beta1" in entry.key or "beta_1" in entry.key else "beta_2"
            found.setdefault(entry.key.replace("beta_", "beta").replace(number.replace("_", ""), "", 1), {})[number] = (
                entry.key
            )
    return found


def agreeing(source: Source, keys: Sequence[str]) -> Iterator[Bytes]:
    """The bytes of a tensor that a file may hold several times, under each of these keys.

    Raises:
      CheckpointError: the copies differ.
    """
    if len(keys) == 1:
        yield from source.chunks(keys[0])
        return
    for parts in itertools.zip_longest(*(source.chunks(key) for key in keys)):
        if any(part is None or bytes(part) != bytes(parts[0]) for part in parts):
            raise CheckpointError(
                f"{source.path} holds one variable {len(keys)} times, and the copies differ: {', '.join(keys)}. Which "
                "one is right cannot be told; --leave_out or a mapping must say."
            )
        yield parts[0]


def _gathered(source: Source, keys: Sequence[str]) -> Array:
    """A whole tensor, in memory once."""
    stored = source.tensors[keys[0]]
    if len(keys) == 1:
        return source.read(keys[0])
    flat: Any = np.empty(stored.nbytes, np.uint8)
    place = 0
    for chunk in agreeing(source, keys):
        flat[place : place + len(chunk)] = np.frombuffer(chunk, np.uint8)
        place += len(chunk)
    whole: Array = flat.view(numpy_dtype(stored.dtype)).reshape(stored.shape)
    return whole


def _whole(value: Array) -> int:
    number = float(np.asarray(value).reshape(-1)[0]) if np.asarray(value).size == 1 else float("nan")
    if number != int(number) if number == number else True:
        raise CheckpointError(f"the count is {value!s:.40}, no whole number")
    return int(np.asarray(value).reshape(-1)[0])


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def _called(optimizer: OptimizerEntry) -> str:
    return f"{optimizer.name}, {optimizer.algorithm or 'algorithm not recorded'}"
