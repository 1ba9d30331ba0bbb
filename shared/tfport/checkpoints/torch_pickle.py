"""The pickle in a file of torch.save, read without running anything, and written.

`load` goes through the opcodes that `pickletools` names. Dicts, lists, tuples, numbers and texts are built; the globals
that a state_dict needs stand for themselves as `Global` and are never looked up; every other one is refused by name.
What is built takes memory in proportion to the pickle, whatever it says.
"""

from __future__ import annotations

import pickletools
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tfport.checkpoints.contents import damaged
from tfport.checkpoints.zips import shown
from tfport.errors import CheckpointError

DEPTH = 64
"""Containers within containers."""
_MEMORY = 8 << 20
_MEMORY_PER_BYTE = 24
"""Bytes that the objects of a pickle may take: _MEMORY, and this times the pickle's own."""
_RANK = 64

Path_ = tuple[str, ...]
"""Where a value is: the keys that lead to it."""


# --- What is built ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle imports; it is never looked up."""

    module: str
    name: str

    @property
    def full(self) -> str:
        """Module and name with Python 3's builtins."""
        return f"{'builtins' if self.module == '__builtin__' else self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Storage:
    """A member with elements."""

    dtype: str | None
    """Of its elements; None where the tensors say it."""
    key: str
    numel: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; offset and strides in elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool = False
    parameter: bool = False


class Ordered(dict[Any, Any]):
    """An OrderedDict, with the attributes that were set on it: a state_dict's `_metadata`."""

    attributes: dict[Any, Any] | None = None


class Counted(dict[Any, Any]):
    """A collections.Counter."""


@dataclass(frozen=True, slots=True)
class Inert:
    """A value that holds no tensor, by how it would be called: torch.Size, torch.device, set, bytes."""

    function: Global
    arguments: tuple[Any, ...]


STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
"""PyTorch's storage class -> dtype."""
DTYPES = {
    **{
        name: name for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8")
    },
    **{name: name for name in ("bool", "complex64", "complex128", "uint16", "uint32", "uint64")},
    **{name: name for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")},
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "long": "int64",
    "int": "int32",
    "short": "int16",
}
"""PyTorch's dtype -> dtype."""
_OTHER_STORAGES = ("QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage")

_REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_PARAMETER = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_INERT = {
    "torch.Size",
    "torch.device",
    "builtins.set",
    "builtins.frozenset",
    "builtins.complex",
    "builtins.bytearray",
    "builtins.bytes",
    "_codecs.encode",
}
_KNOWN = {
    *(f"torch._utils.{name}" for name in (*_REBUILD, *_PARAMETER)),
    "torch._tensor._rebuild_from_type_v2",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.storage.UntypedStorage",
    "torch.UntypedStorage",
    "collections.OrderedDict",
    "collections.Counter",
    *_INERT,
    *(f"torch.{name}" for name in (*STORAGES, *DTYPES)),
    *(f"torch.cuda.{name}" for name in STORAGES),
}

_VALUES = {
    "INT",
    "LONG",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
}
_CALLS = {
    "INST": "makes an object of the class",
    "OBJ": "makes an object of a class",
    "NEWOBJ": "makes an object of a class",
    "NEWOBJ_EX": "makes an object of a class",
    "EXT1": "calls the extension",
    "EXT2": "calls the extension",
    "EXT4": "calls the extension",
    "PERSID": "names an outside object",
    "NEXT_BUFFER": "takes a buffer from outside",
    "READONLY_BUFFER": "takes a buffer from outside",
}


# --- Reading ----------------------------------------------------------------------------------------------------------
def load(path: Path, data: bytes) -> Any:
    """What a `data.pkl` holds: dicts (`Ordered`, `Counted`), lists, tuples, numbers, texts, bytes, None, `Tensor`,
    `Global` (a dtype) and `Inert`.

    Raises:
      CheckpointError: it is damaged, names what no state_dict needs, nests deeper than DEPTH, or would take too much
        memory. Nothing was run.
    """
    machine = _Machine(path, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python, about backslashes in texts of protocol 0
        root = machine.run()
    machine.check(root)
    return root


class _Machine:
    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: list[Any] = []
        self.left = _MEMORY + _MEMORY_PER_BYTE * len(data)
        self.count = 0
        self.handlers: dict[str, Callable[[Any], None]] = {}

    # --- Refusing -----------------------------------------------------------------------------------------------------
    def damaged(self, what: str) -> NoReturn:
        raise damaged(self.path, f"its data.pkl {what}")

    def refused(self, what: str) -> NoReturn:
        raise CheckpointError(
            f"{self.path}: its data.pkl {what}: refused; nothing was run. Expected nothing but dicts, lists, numbers, "
            "texts and tensors. Load the file where you trust it and save model.state_dict() alone with torch.save."
        )

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise CheckpointError(
                f"{self.path}: its data.pkl of {len(self.data):,} bytes builds objects that take more than "
                f"{_MEMORY + _MEMORY_PER_BYTE * len(self.data):,} bytes: refused. The file is damaged or made to do "
                "harm."
            )

    # --- The stack ----------------------------------------------------------------------------------------------------
    def push(self, value: Any) -> None:
        self.spend(sys.getsizeof(value) + 8)
        self.stack.append(value)

    def again(self, value: Any) -> None:
        """Pushes a value that is there already."""
        self.spend(8)
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            self.damaged("takes more values than it has")
        return self.stack.pop()

    def marked(self) -> list[Any]:
        """The values since the last mark."""
        if not self.below:
            self.damaged("goes back to a mark that it has not set")
        found, self.stack = self.stack, self.below.pop()
        return found

    def top(self, kind: type, what: str) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            self.damaged(f"adds {what} to something else")
        return self.stack[-1]

    def run(self) -> Any:
        operations = pickletools.genops(self.data)
        while True:
            try:
                opcode, argument, _ = next(operations)
            except StopIteration:
                self.damaged("ends too soon")
            except Exception as error:  # pickletools raises whatever the damaged bytes lead it to
                self.damaged(f"is no whole pickle ({type(error).__name__}: {shown(str(error))})")
            self.count += 1
            if opcode.name == "STOP":
                break
            self.step(opcode.name, argument)
        if len(self.stack) != 1 or self.below:
            self.damaged("leaves other than one value")
        return self.stack[0]

    def step(self, name: str, argument: Any) -> None:
        handler = self.handlers.get(name)
        if handler is None:
            if name in _CALLS:
                self.refused(f"{_CALLS[name]} {self._named(name, argument)}")
            handler = self.push if name in _VALUES else getattr(self, f"on_{name.lower()}", None)
            if handler is None:
                self.refused(f"has the opcode {name}")
            self.handlers[name] = handler
        handler(argument)

    def _named(self, name: str, argument: Any) -> str:
        if isinstance(argument, (str, int)):
            return shown(str(argument).replace(" ", "."))
        found = next((each for each in self.stack if isinstance(each, Global)), None)
        return shown(found.full) if found else f"(opcode {name})"

    # --- Opcodes without a value of their own -------------------------------------------------------------------------
    def on_none(self, _: Any) -> None:
        self.again(None)

    def on_newtrue(self, _: Any) -> None:
        self.again(True)

    def on_newfalse(self, _: Any) -> None:
        self.again(False)

    def on_proto(self, _: Any) -> None:
        pass

    def on_frame(self, _: Any) -> None:
        pass

    def on_mark(self, _: Any) -> None:
        self.spend(72)
        self.below.append(self.stack)
        self.stack = []

    def on_pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def on_pop_mark(self, _: Any) -> None:
        self.marked()

    def on_dup(self, _: Any) -> None:
        self.again(self.top(object, "a copy"))

    # --- The memo -----------------------------------------------------------------------------------------------------
    def on_memoize(self, _: Any) -> None:
        self.on_put(len(self.memo))

    def on_put(self, index: int) -> None:
        if not 0 <= index <= len(self.memo):
            self.damaged(f"keeps its value number {index:,} after {len(self.memo):,}")
        self.spend(9)
        self.memo[index : index + 1] = [self.top(object, "a number")]

    on_binput = on_long_binput = on_put

    def on_get(self, index: int) -> None:
        if not 0 <= index < len(self.memo):
            self.damaged(f"asks for its value number {index:,}, which it has not kept")
        self.again(self.memo[index])

    on_binget = on_long_binget = on_get

    # --- Containers ---------------------------------------------------------------------------------------------------
    def on_empty_list(self, _: Any) -> None:
        self.push([])

    def on_list(self, _: Any) -> None:
        self.push(self.marked())

    def on_append(self, _: Any) -> None:
        value = self.pop()
        self.spend(16)
        self.top(list, "a value").append(value)

    def on_appends(self, _: Any) -> None:
        values = self.marked()
        self.spend(16 * len(values))
        self.top(list, "values").extend(values)

    def on_empty_tuple(self, _: Any) -> None:
        self.push(())

    def on_tuple(self, _: Any) -> None:
        self.push(tuple(self.marked()))

    def on_tuple1(self, _: Any) -> None:
        self.push((self.pop(),))

    def on_tuple2(self, _: Any) -> None:
        second, first = self.pop(), self.pop()
        self.push((first, second))

    def on_tuple3(self, _: Any) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self.push((first, second, third))

    def on_empty_dict(self, _: Any) -> None:
        self.push({})

    def on_dict(self, _: Any) -> None:
        self.push(self.fill({}, self.marked()))

    def on_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.fill(self.top(dict, "a value"), [key, value])

    def on_setitems(self, _: Any) -> None:
        values = self.marked()
        self.fill(self.top(dict, "values"), values)

    def fill(self, into: dict[Any, Any], values: list[Any]) -> dict[Any, Any]:
        if len(values) % 2:
            self.damaged("has a key without a value")
        self.spend(50 * len(values))
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not _is_key(key) and not (isinstance(key, tuple) and len(key) < 100 and all(map(_is_key, key))):
                self.damaged(f"has a key of type {type(key).__name__}, expected a text or a number")
            into[key] = value
        return into

    def on_empty_set(self, _: Any) -> None:
        self.push(Inert(Global("builtins", "set"), ([],)))

    def on_additems(self, _: Any) -> None:
        values = self.marked()
        self.spend(16 * len(values))
        found = self.top(Inert, "values")
        if found.function.full != "builtins.set" or not found.arguments or not isinstance(found.arguments[0], list):
            self.damaged("adds values to something that is no set")
        found.arguments[0].extend(values)

    def on_frozenset(self, _: Any) -> None:
        self.push(Inert(Global("builtins", "frozenset"), (self.marked(),)))

    def on_bytearray8(self, argument: Any) -> None:
        self.push(Inert(Global("builtins", "bytearray"), (bytes(argument),)))

    # --- Names and what stands for a call -----------------------------------------------------------------------------
    def on_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.name(module, name)

    def on_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self.damaged("imports something that is no name")
        self.name(module, name)

    def name(self, module: str, name: str) -> None:
        found = Global(module, name)
        if found.full not in _KNOWN:
            if (module == "torch" and name in _OTHER_STORAGES) or "qtensor" in name:
                self.refused(f"holds quantised tensors ({shown(found.full)}), which are not read")
            self.refused(f"names {shown(found.full)}")
        self.push(found)

    def on_reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            self.damaged("calls something that is no function")
        self.push(self.called(function, arguments))

    def called(self, function: Global, arguments: tuple[Any, ...]) -> Any:
        """What a call of a known function stands for."""
        full = function.full
        if full == "torch._tensor._rebuild_from_type_v2":
            return self._of_type(arguments)
        if function.module == "torch._utils":
            return self._tensor(function.name, arguments)
        if full == "collections.OrderedDict":
            pairs = arguments[0] if len(arguments) == 1 else []
            if len(arguments) > 1 or not isinstance(pairs, list):
                self.damaged("makes an OrderedDict of something else than pairs")
            found = Ordered()
            for pair in pairs:
                if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                    self.damaged("makes an OrderedDict of something else than pairs")
                self.fill(found, list(pair))
            return found
        if full == "collections.Counter":
            if len(arguments) > 1 or not all(isinstance(each, dict) for each in arguments):
                self.damaged("makes a Counter of something else than a dict")
            self.spend(100 * sum(map(len, arguments)))
            return Counted(*arguments)
        if full in _INERT:
            return Inert(function, arguments)
        return self.refused(f"calls {shown(full)}")

    def _of_type(self, arguments: tuple[Any, ...]) -> Any:
        if len(arguments) != 4 or not isinstance(arguments[0], Global) or not isinstance(arguments[2], tuple):
            self.damaged("rebuilds a tensor in no known way")
        function, kind, inner, _ = arguments
        if not isinstance(kind, Global) or kind.full not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
            self.refused("holds a tensor of a class of its own")
        if function.module != "torch._utils":
            self.refused(f"rebuilds a tensor with {shown(function.full)}")
        return self._tensor(function.name, inner)

    def _tensor(self, how: str, arguments: tuple[Any, ...]) -> Tensor:
        if how in _PARAMETER:
            if len(arguments) < 3 or not isinstance(arguments[0], Tensor):
                self.damaged("makes a parameter of no tensor")
            inner = arguments[0]
            return Tensor(
                inner.storage, inner.dtype, inner.offset, inner.shape, inner.strides, bool(arguments[1]), True
            )
        wanted = {"_rebuild_tensor": (4,), "_rebuild_tensor_v2": (6, 7), "_rebuild_tensor_v3": (7, 8)}[how]
        if len(arguments) not in wanted or not isinstance(arguments[0], Storage):
            self.damaged("makes a tensor without a storage, or of another number of facts")
        storage, offset, shape, strides = arguments[:4]
        if how == "_rebuild_tensor_v3":
            token = arguments[6]
            name = token.name if isinstance(token, Global) and token.module == "torch" else ""
            if name not in DTYPES:
                self.damaged("makes a tensor without a dtype")
            dtype = DTYPES[name]
        elif storage.dtype is None:
            self.damaged("makes a tensor without a dtype")
        else:
            dtype = storage.dtype
        bits = arguments[max(wanted) - 1] if how != "_rebuild_tensor" and len(arguments) == max(wanted) else None
        if bits:
            self.refused("holds a conjugated or negated view; save it with .resolve_conj() or .resolve_neg()")
        sizes, steps = self._sizes(shape), self._sizes(strides)
        if not _is_size(offset) or len(sizes) != len(steps):
            self.damaged("makes a tensor whose shape, strides and offset do not fit each other")
        return Tensor(storage, dtype, offset, sizes, steps, len(arguments) > 4 and bool(arguments[4]))

    def _sizes(self, value: Any) -> tuple[int, ...]:
        if isinstance(value, Inert) and value.function.full == "torch.Size" and len(value.arguments) == 1:
            value = value.arguments[0]
        if not isinstance(value, (tuple, list)) or len(value) > _RANK or not all(map(_is_size, value)):
            self.damaged("has a tensor whose shape or strides are no sizes")
        return tuple(value)

    def on_binpersid(self, _: Any) -> None:
        found = self.pop()
        if not isinstance(found, tuple) or len(found) != 5 or found[0] != "storage":
            self.damaged("names a storage in no known way")
        _, kind, key, location, numel = found
        if not isinstance(kind, Global) or not isinstance(key, str) or not isinstance(location, str):
            self.damaged("names a storage in no known way")
        if not _is_size(numel):
            self.damaged(f"has a storage {shown(key)} of no size")
        if kind.name == "UntypedStorage":
            self.push(Storage(None, key, numel))
        elif kind.name in STORAGES:
            self.push(Storage(STORAGES[kind.name], key, numel))
        else:
            self.damaged(f"has a storage {shown(key)} of no known class")

    def on_build(self, _: Any) -> None:
        state = self.pop()
        found = self.top(object, "attributes")
        if not isinstance(found, Ordered) or not isinstance(state, dict):
            self.refused(f"sets the state of an object of type {type(found).__name__}")
        found.attributes = state

    # --- The whole ----------------------------------------------------------------------------------------------------
    def check(self, root: Any) -> None:
        """Refuses what nests too deep or holds itself, and what few bytes make endless by naming one thing often."""
        left = 4 * self.count + 1_000
        pending: list[tuple[int, Any]] = [(0, root)]
        while pending:
            depth, value = pending.pop()
            inner = list(_inside(value))
            left -= 1 + len(inner)
            if depth > DEPTH:
                raise CheckpointError(
                    f"{self.path}: its data.pkl nests deeper than {DEPTH} containers, or one holds itself: refused. "
                    "The file is damaged or made to do harm."
                )
            if left < 0:
                raise CheckpointError(
                    f"{self.path}: its data.pkl of {len(self.data):,} bytes names more values than it can hold: "
                    "refused. The file is damaged or made to do harm."
                )
            pending += [(depth + 1, each) for each in inner]


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
        attributes = getattr(value, "attributes", None)
        if attributes is not None:
            yield attributes
    elif isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, Inert):
        yield value.arguments


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _is_key(value: Any) -> bool:
    return value is None or isinstance(value, (str, float)) or (isinstance(value, int) and abs(value) < 1 << 63)


def leaves(value: Any, at: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Everything that is no container, with the keys that lead to it; an empty container is nowhere."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*at, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from leaves(each, (*at, str(index)))
    else:
        yield at, value


# --- Writing ----------------------------------------------------------------------------------------------------------
_STORAGE_OF = {dtype: name for name, dtype in STORAGES.items()}


def written_dtypes() -> set[str]:
    """Dtypes that a tensor of PyTorch's can have."""
    return set(DTYPES.values())


class Writer:
    """Writes a pickle of protocol 2, opcode by opcode.

    `tensor` gives the new tensor, or the new whole number, for the place of a tensor or number of the old; None to
    leave a number as it is.
    """

    def __init__(self, tensor: Callable[[Path_], Tensor | int | None]) -> None:
        self._tensor = tensor
        self._parts: list[bytes] = [b"\x80\x02"]

    def done(self, value: Any) -> bytes:
        """The whole pickle of a value that `load` gave."""
        self._value(value, ())
        return b"".join(self._parts) + b"."

    def _value(self, value: Any, at: Path_) -> None:
        if isinstance(value, dict):
            self._dict(value, at)
        elif isinstance(value, list):
            self._add(b"](")
            self._each(value, at)
            self._add(b"e")
        elif isinstance(value, tuple):
            self._add(b"(")
            self._each(value, at)
            self._add(b"t")
        elif isinstance(value, Tensor):
            found = self._tensor(at)
            if not isinstance(found, Tensor):
                raise ValueError(f"there is no tensor for {at}")
            self._rebuilt(found)
        elif isinstance(value, int) and not isinstance(value, bool):
            new = self._tensor(at)
            if isinstance(new, Tensor):
                self._rebuilt(new)
            else:
                self._number(value if new is None else new)
        else:
            self._plain(value)

    def _plain(self, value: Any) -> None:
        """A value without tensors."""
        if value is None or isinstance(value, bool):
            self._add(b"N" if value is None else b"\x88" if value else b"\x89")
        elif isinstance(value, int):
            self._number(value)
        elif isinstance(value, float):
            self._add(b"G" + struct.pack(">d", value))
        elif isinstance(value, str):
            data = value.encode("utf-8", "surrogatepass")
            self._add(b"X" + struct.pack("<I", len(data)) + data)
        elif isinstance(value, bytes):
            self._plain(Inert(Global("_codecs", "encode"), (value.decode("latin-1"), "latin1")))
        elif isinstance(value, Global):
            self._add(
                b"c" + f"{'__builtin__' if value.module == 'builtins' else value.module}\n{value.name}\n".encode()
            )
        elif isinstance(value, Inert):
            self._plain(value.function)
            self._fixed(value.arguments)
            self._add(b"R")
        else:
            self._fixed(value)

    def _fixed(self, value: Any) -> None:
        """A container in which nothing is replaced."""
        keep, self._tensor = self._tensor, lambda _: None
        try:
            self._value(value, ())
        finally:
            self._tensor = keep

    def _each(self, values: list[Any] | tuple[Any, ...], at: Path_) -> None:
        for index, each in enumerate(values):
            self._value(each, (*at, str(index)))

    def _dict(self, value: dict[Any, Any], at: Path_) -> None:
        if isinstance(value, Counted):
            self._plain(Inert(Global("collections", "Counter"), (dict(value),)))
            return
        self._add(b"ccollections\nOrderedDict\n)R(" if isinstance(value, Ordered) else b"}(")
        for key, each in value.items():
            self._fixed(key) if isinstance(key, tuple) else self._plain(key)
            self._value(each, (*at, str(key)))
        self._add(b"u")
        attributes = getattr(value, "attributes", None)
        if attributes is not None:
            self._fixed(attributes)
            self._add(b"b")

    def _number(self, value: int) -> None:
        if -(1 << 31) <= value < 1 << 31:
            self._add(b"J" + struct.pack("<i", value))
            return
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        head = b"\x8a" + bytes([len(data)]) if len(data) < 256 else b"\x8b" + struct.pack("<i", len(data))
        self._add(head + data)

    def _rebuilt(self, tensor: Tensor) -> None:
        legacy = _STORAGE_OF.get(tensor.dtype)
        inner = f"_rebuild_tensor_v{2 if legacy else 3}"
        if tensor.parameter:
            self._add(b"ctorch._utils\n_rebuild_parameter\n(")
        self._add(f"ctorch._utils\n{inner}\n(".encode())
        self._add(b"(")
        self._plain("storage")
        self._add(b"c" + (f"torch\n{legacy}\n" if legacy else "torch.storage\nUntypedStorage\n").encode())
        self._plain(tensor.storage.key)
        self._plain("cpu")
        self._number(tensor.storage.numel)
        self._add(b"tQ")
        self._number(tensor.offset)
        for sizes in (tensor.shape, tensor.strides):
            self._add(b"(")
            for size in sizes:
                self._number(size)
            self._add(b"t")
        self._plain(tensor.requires_grad and not tensor.parameter)
        self._add(b"ccollections\nOrderedDict\n)R")
        if not legacy:
            self._add(f"ctorch\n{tensor.dtype}\n".encode())
        self._add(b"tR")
        if tensor.parameter:
            self._plain(tensor.requires_grad)
            self._add(b"ccollections\nOrderedDict\n)RtR")

    def _add(self, data: bytes) -> None:
        self._parts.append(data)
