"""Files of torch.save without PyTorch: pickles come from Python's own pickler, with stand-ins for PyTorch's classes.

test_torch_with_torch.py holds the same code against PyTorch itself.
"""

from __future__ import annotations

import collections
import io
import pickle
import sys
import tracemalloc
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import checkpoint_mutations
from checkpoint_mutations import FEW, MANY, check_reader, mutated
from tfport.checkpoints.contents import STRING, Array, Contents, Entry, OptimizerEntry, Role, Source, Stored, pieces
from tfport.checkpoints.opening import open_source
from tfport.checkpoints.torch_file import TorchSink, TorchSource
from tfport.checkpoints.torch_pickle import load
from tfport.errors import CheckpointError
from tfport.subject import CORRECTED


# --- Stand-ins --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Name:
    """A global by its name."""

    module: str
    name: str

    def __call__(self) -> None:
        raise AssertionError("never called")


@dataclass(frozen=True)
class Call:
    """Anything that is pickled as a call."""

    function: Name
    arguments: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@dataclass(frozen=True)
class Stores:
    """A storage."""

    key: str
    kind: str = "FloatStorage"
    numel: int = 6


ORDERED: collections.OrderedDict[Any, Any] = collections.OrderedDict()
STORAGE_MODULES = {"UntypedStorage": "torch.storage"}


PythonPickler: Any = getattr(pickle, "_Pickler")  # noqa: B009 - it is not in the stubs


class Pickler(PythonPickler):  # type: ignore[misc]
    """Python's pickler, which looks names up; this one writes those of the stand-ins as they are."""

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Stores):
            kind = Name(STORAGE_MODULES.get(obj.kind, "torch"), obj.kind)
            return "storage", kind, obj.key, "cpu", obj.numel
        return None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if not isinstance(obj, Name):
            super().save(obj, save_persistent_id)
        elif self.proto >= 4:
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())


def dumped(value: Any, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def tensor(
    key: str, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0, **storage: Any
) -> Call:
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    storage.setdefault("numel", int(np.prod(shape)) + offset)
    arguments: tuple[Any, ...] = (Stores(key, **storage), offset, shape, strides, False, ORDERED)
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)


def saved(
    path: Path,
    data: bytes | Any,
    storages: dict[str, Array] | None = None,
    root: str = "archive/",
    method: int = zipfile.ZIP_STORED,
    more: dict[str, bytes] | None = None,
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{root}data.pkl", data if isinstance(data, bytes) else dumped(data))
        for key, array in (storages or {}).items():
            archive.writestr(f"{root}data/{key}", array.tobytes())
        for name, content in ({"version": b"3\n", "byteorder": b"little"} | (more or {})).items():
            archive.writestr(root + name, content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught, open_source(path) as source:
        for key in source.tensors:
            for _ in source.chunks(key):
                pass
    assert str(path) in str(caught.value)
    return str(caught.value)


FLOATS = Name("torch", "FloatStorage")
SIX = np.arange(6, dtype=np.float32)


# --- Reading ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_tensors_are_read_whatever_the_protocol(tmp_path: Path, protocol: int, method: int) -> None:
    tree = {
        "net": collections.OrderedDict([("0.weight", tensor("0", (2, 3))), ("0.bias", tensor("1", (6,)))]),
        "more": [tensor("0", (2, 3)), {"x": (tensor("2", (), kind="LongStorage"),)}],
        "epoch": 12,
        "name": "größer",
        "numbers": [1, -(1 << 40), 2.5, True, None, b"ab", {1, 2}, frozenset([3]), 1 << 300, (), {}, bytearray(b"x")],
        "counter": collections.Counter("aab"),
    }
    path = saved(
        tmp_path / "a.pt",
        dumped(tree, protocol),
        {"0": SIX, "1": SIX + 1, "2": np.array(5, np.int64)},
        method=method,
    )
    with open_source(path) as source:
        assert isinstance(source, TorchSource)
        assert {key: each.shape for key, each in source.tensors.items()} == {
            "net/0.weight": (2, 3), "net/0.bias": (6,), "more/0": (2, 3), "more/1/x/0": (), "epoch": ()
        }  # fmt: skip
        np.testing.assert_array_equal(source.read("net/0.weight"), SIX.reshape(2, 3))
        np.testing.assert_array_equal(source.read("more/0"), SIX.reshape(2, 3))
        assert source.read("more/1/x/0") == 5
        assert source.read("epoch") == 12
        assert source.facts[("name",)] == "größer"
        assert source.facts[("numbers", "1")] == -(1 << 40)
        assert source.tree["counter"] == {"a": 2, "b": 1}
        assert source.written_by == {"torch.save": "file format 3"}


def test_a_tensor_by_itself_and_a_flat_state_dict(tmp_path: Path) -> None:
    with TorchSource(saved(tmp_path / "a.pt", tensor("0", (2, 3)), {"0": SIX}, root="x/")) as source:
        np.testing.assert_array_equal(source.read("tensor"), SIX.reshape(2, 3))
    flat = {"net.0.weight": tensor("0", (2, 3))}
    with TorchSource(saved(tmp_path / "a.pt", flat, {"0": SIX}, root="")) as source:
        assert list(source.tensors) == ["net.0.weight"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((3, 2), (1, 3), 0),
        ((2,), (3,), 1),
        ((3,), (1,), 2),
        ((2, 2), (2, 1), 1),
        ((0, 3), (3, 1), 0),
        ((1, 2), (9, 1), 4),
    ],
)
def test_views_of_a_storage(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, method: int
) -> None:
    path = saved(tmp_path / "a.pt", {"w": tensor("0", shape, strides, offset, numel=6)}, {"0": SIX}, method=method)
    expected = np.lib.stride_tricks.as_strided(SIX[offset:], shape, [4 * step for step in strides])
    with TorchSource(path) as source:
        np.testing.assert_array_equal(source.read("w"), expected)


def test_a_part_of_a_storage_is_given_only_when_all_of_it_is_whole(tmp_path: Path) -> None:
    storage = np.random.default_rng(0).normal(size=1000)
    part = tensor("0", (10,), offset=5, kind="DoubleStorage", numel=1000)
    path = saved(tmp_path / "a.pt", {"w": part}, {"0": storage})
    with TorchSource(path) as source:
        for _ in range(2):
            np.testing.assert_array_equal(source.read("w"), storage[5:15])
    data = bytearray(path.read_bytes())
    place = bytes(data).index(storage[900:910].tobytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert "the member 'archive/data/0' cannot be read" in refused(path)


def test_big_endian_files(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "a.pt",
        {"f": tensor("0", (6,)), "h": tensor("1", (2,), kind="BFloat16Storage")},
        {"0": SIX.astype(">f4"), "1": np.array([0x3F80, 0x4000], ">u2")},
        more={"byteorder": b"big"},
    )
    with TorchSource(path) as source:
        np.testing.assert_array_equal(source.read("f"), SIX)
        np.testing.assert_array_equal(source.read("h").astype(np.float32), [1, 2])
    assert "byteorder is 'odd'" in refused(saved(tmp_path / "a.pt", {}, more={"byteorder": b"odd"}))


def test_parameters_and_newer_tensors(tmp_path: Path) -> None:
    base = tensor("0", (2, 3))
    untyped = Stores("1", "UntypedStorage", 2)
    tree = {
        "p": Call(Name("torch._utils", "_rebuild_parameter"), (base, True, collections.OrderedDict())),
        "s": Call(Name("torch._utils", "_rebuild_parameter_with_state"), (base, True, collections.OrderedDict(), {})),
        "t": Call(
            Name("torch._tensor", "_rebuild_from_type_v2"),
            (Name("torch._utils", "_rebuild_tensor_v2"), Name("torch", "Tensor"), base.arguments, {}),
        ),
        "o": Call(Name("torch._utils", "_rebuild_tensor"), base.arguments[:4]),
        "f": Call(
            Name("torch._utils", "_rebuild_tensor_v3"),
            (untyped, 0, (2,), (1,), False, collections.OrderedDict(), Name("torch", "float8_e5m2")),
        ),
        "size": Call(Name("torch", "Size"), ((2, 3),)),
        "dtype": Name("torch", "float32"),
        "device": Call(Name("torch", "device"), ("cuda", 0)),
    }
    path = saved(tmp_path / "a.pt", tree, {"0": SIX, "1": np.array([0x3C, 0x40], np.uint8)})
    with TorchSource(path) as source:
        for key in "psto":
            np.testing.assert_array_equal(source.read(key), SIX.reshape(2, 3))
        assert source.tensors["f"].dtype == "float8_e5m2"
        np.testing.assert_array_equal(source.read("f").astype(np.float32), [1, 2])


# --- Refusing ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"cposix\nsystem\n(X\x04\x00\x00\x00truetR.", "names 'posix.system': refused; nothing was run"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "names 'os.system': refused; nothing was run"),
        (b"\x80\x02c__builtin__\neval\n.", "names 'builtins.eval'"),
        (b"\x80\x02cmypackage.nets\nNet\n)\x81.", "names 'mypackage.nets.Net'"),
        (b"\x80\x02ctorch\nhub.load\n.", "names 'torch.hub.load'"),
        (b"\x80\x02cnumpy.core.multiarray\nscalar\n.", "save model.state_dict() alone"),
        (b"\x80\x02(iposix\nsystem\n.", "makes an object of the class 'posix.system'"),
        (b"\x80\x02(ccollections\nOrderedDict\no.", "makes an object of a class 'collections.OrderedDict'"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "makes an object of a class 'collections.OrderedDict'"),
        (b"\x80\x02\x82\x01.", "calls the extension '1'"),
        (b"\x80\x02\x83\x01\x00.", "calls the extension '1'"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "calls the extension '1'"),
        (b"\x80\x02P0\n.", "names an outside object '0'"),
        (b"\x80\x05\x97.", "takes a buffer from outside"),
        (b"\x80\x02K\x01)R.", "calls something that is no function"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls 'torch.FloatStorage'"),
        (b"\x80\x02ctorch\nQInt8Storage\n.", "quantised"),
        (b"\x80\x02}K\x01b.", "sets the state of an object of type dict"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "value number 2,147,483,647"),
        (b"\x80\x02]r\xff\xff\xff\xff.", "value number 4,294,967,295"),
        (b"\x80\x02h\x05.", "asks for its value number 5"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "no whole pickle"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", "no whole pickle"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00abc.", "no whole pickle"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "no whole pickle"),
        (b"\x80\x02I" + b"9" * 6000 + b"\n.", "no whole pickle"),
        (b"\x80\x02]]]a", "no whole pickle"),
        (b"\x80\x02.", "leaves other than one value"),
        (b"\x80\x02]].", "leaves other than one value"),
        (b"\x80\x020.", "back to a mark"),
        (b"\x80\x02a.", "takes more values"),
        (b"\x80\x02K\x01a.", "adds a value to something else"),
        (b"\x80\x02K\x01K\x01a.", "adds a value to something else"),
        (b"\x80\x02}(K\x01u.", "key without a value"),
        (b"\x80\x02}]K\x01s.", "key of type list"),
        (b"\x80\x02}\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01K\x01s.", "key of type int"),
        (b"\x80\x02]q\x00h\x00a.", "holds itself"),
        (b"\x80\x02" + b"]" * 100 + b"a" * 99 + b".", "nests deeper than 64"),
        (b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".", "nests deeper than 64"),
        (b"\x80\x02" + b"]" * 300_000 + b".", "take more than"),
        (b"\x80\x02" + b"(" * 300_000 + b".", "take more than"),
        (b"\x80\x02)" + b"\x85" * 50_000 + b".", "nests deeper than 64"),
        (b"\x80\x02)" + b"2\x86" * 40 + b".", "names more values"),
        (b"(lp0\n0" + b"".join(b"(lp%d\n%s0" % (n + 1, b"g%d\na" % n * 20) for n in range(30)) + b"g30\n.", "names"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "no whole pickle"),
        (b"\x80\x02\xff.", "no whole pickle"),
        (b"", "ends too soon"),
    ],
)  # fmt: skip
def test_pickles_that_do_more_than_hold_tensors_are_refused(tmp_path: Path, data: bytes, found: str) -> None:
    tracemalloc.start()
    try:
        message = refused(saved(tmp_path / "a.pt", data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if data:
        assert found in message
    assert peak < 30 * len(data) + (20 << 20)


def storage(key: Any = "0", kind: Any = FLOATS, numel: Any = 6, *, first: str = "storage") -> bytes:
    """A pickle of a storage alone, built of anything."""
    return dumped((first, kind, key, "cpu", numel))[:-1] + b"Q."


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (storage(first="module"), "storage in no known way"),
        (storage(key=3), "storage in no known way"),
        (storage(kind="x"), "storage in no known way"),
        (storage(kind=Name("torch", "float32")), "no known class"),
        (storage(numel=-1), "of no size"),
        (storage(numel=True), "of no size"),
    ],
)
def test_storages_that_are_none_are_refused(tmp_path: Path, data: bytes, found: str) -> None:
    assert found in refused(saved(tmp_path / "a.pt", data))


def built(*arguments: Any, name: str = "_rebuild_tensor_v2", module: str = "torch._utils") -> Call:
    return Call(Name(module, name), arguments)


@pytest.mark.parametrize(
    ("leaf", "found"),
    [
        (tensor("0", (7,), numel=6), "reaches beyond its storage"),
        (tensor("0", (2, 3), (1 << 60, 1), numel=6), "reaches beyond its storage"),
        (tensor("0", (1,), (1,), 6, numel=6), "reaches beyond its storage"),
        (tensor("0", (1 << 40,), (0,), numel=6), "expanded view"),
        (tensor("0", (2, 3), (1, 1), numel=6), "expanded view"),
        (tensor("0", (6,), numel=5), "has 24 bytes, expected 20"),
        (tensor("0", (3,), kind="DoubleStorage", numel=6), "expected 48"),
        (tensor("9", (6,)), "'9', which is not there"),
        (tensor("../data.pkl", (6,)), "which is not there"),
        (tensor("0", (-1,), (1,), numel=6), "no sizes"),
        (tensor("0", (1 << 70,), (1,), numel=6), "no sizes"),
        (tensor("0", (True,), (1,), numel=6), "no sizes"),
        (tensor("0", (1,) * 65, numel=6), "no sizes"),
        (tensor("0", (6,), (1, 1), numel=6), "do not fit each other"),
        (tensor("0", (6,), (-1,), numel=6), "no sizes"),
        (built(Stores("0"), -1, (1,), (1,), False, ORDERED), "do not fit each other"),
        (built(Stores("0"), 0, (6,), (1,)), "another number of facts"),
        (built(3, 0, (6,), (1,), False, ORDERED), "without a storage"),
        (built(Stores("0", "UntypedStorage", 24), 0, (6,), (1,), False, ORDERED), "without a dtype"),
        (built(Stores("0"), 0, (6,), (1,), False, ORDERED, 3, name="_rebuild_tensor_v3"), "without a dtype"),
        (built(Stores("0"), 0, (6,), (1,), False, ORDERED, {"conj": True}), "conjugated"),
        (built(3, True, ORDERED, name="_rebuild_parameter"), "parameter of no tensor"),
        (built(3, name="_rebuild_qtensor"), "quantised"),
        (built(3, name="_rebuild_sparse_tensor"), "_rebuild_sparse_tensor"),
        (built(3, name="_rebuild_from_type_v2", module="torch._tensor"), "in no known way"),
        (built(Name("torch", "Size"), Name("torch", "Tensor"), (), {}, name="_rebuild_from_type_v2",
               module="torch._tensor"), "rebuilds a tensor with 'torch.Size'"),
        (built(Name("torch", "Size"), Name("torch", "Size"), (), {}, name="_rebuild_from_type_v2",
               module="torch._tensor"), "a class of its own"),
        (built(3, name="OrderedDict", module="collections"), "something else than pairs"),
        (built([3], name="OrderedDict", module="collections"), "something else than pairs"),
        (built(3, name="Counter", module="collections"), "something else than a dict"),
    ],
)  # fmt: skip
def test_tensors_that_lie_are_refused(tmp_path: Path, leaf: Call, found: str) -> None:
    assert found in refused(saved(tmp_path / "a.pt", {"w": leaf}, {"0": SIX}))


def test_a_storage_that_is_named_without_end_is_refused(tmp_path: Path) -> None:
    storage = np.zeros(1 << 18, np.float32)
    tree = [tensor("0", storage.shape) for _ in range(65)]
    assert "its tensors tell of" in refused(saved(tmp_path / "a.pt", tree, {"0": storage}))
    with TorchSource(saved(tmp_path / "a.pt", tree[:60], {"0": storage})) as source:
        assert len(source.tensors) == 60


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    assert "TorchScript" in refused(saved(path, {}, more={"code/__torch__.py": b"", "constants.pkl": b""}))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", dumped({}))
        archive.writestr("b/data.pkl", dumped({}))
    assert "holds 2 members data.pkl" in refused(path)
    path.write_bytes(pickle.dumps({}, 2))
    assert "is a pickle" in refused(path)
    with pytest.raises(CheckpointError, match=r"since PyTorch 1\.6"):
        TorchSource(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        TorchSource(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot be read"):
        TorchSource(tmp_path)


def test_names_that_cannot_be_told_apart_or_leave_the_folder_are_refused(tmp_path: Path) -> None:
    one = tensor("0", (6,))
    assert "two tensors at 'a/b'" in refused(saved(tmp_path / "a.pt", {"a": {"b": one}, "a/b": one}, {"0": SIX}))
    assert "two tensors at '1'" in refused(saved(tmp_path / "a.pt", {1: one, "1": one}, {"0": SIX}))
    assert "which is refused" in refused(saved(tmp_path / "a.pt", {"..": one}, {"0": SIX}))
    assert "which is refused" in refused(saved(tmp_path / "a.pt", {"": one}, {"0": SIX}))


def test_nothing_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    message = refused(saved(tmp_path / "a.pt", {"w": built(3, name="run", module="evil_module")}))
    assert "names 'evil_module.run': refused" in message
    assert "evil_module" not in sys.modules
    before = set(sys.modules)
    load(tmp_path, dumped({"w": tensor("0", (6,)), "s": {1, 2}, "d": Name("torch", "float32")}))
    assert set(sys.modules) == before


def test_files_without_checksums_are_read_and_said_to_be(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"w": tensor("0", (6,))}, {"0": SIX})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        infos, place = archive.infolist(), archive.start_dir
    for info in infos:
        data[place + 16 : place + 20] = bytes(4)
        place += 46 + len(info.filename) + len(info.extra)
    path.write_bytes(data)
    with TorchSource(path) as source:
        np.testing.assert_array_equal(source.read("w"), SIX)
        assert "without checksums" in source.contents().notes[0]


# --- What the tensors are ---------------------------------------------------------------------------------------------
ADAM = {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-7, "weight_decay": 0, "amsgrad": False, "maximize": False,
        "foreach": None, "decoupled_weight_decay": False}  # fmt: skip


class Storages:
    """Counts storages up and remembers what is in them."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def __call__(self, array: Array) -> Call:
        key = str(len(self.arrays))
        self.arrays[key] = array
        kind = {"float32": "FloatStorage", "int64": "LongStorage"}[array.dtype.name]
        return tensor(key, array.shape, kind=kind)

    def of(self, *shape: int) -> Call:
        return self(np.full(shape, len(self.arrays), np.float32))

    def optimizer(self, group: dict[str, Any], slots: tuple[str, ...], *shapes: tuple[int, ...]) -> dict[str, Any]:
        state = {
            index: {"step": self(np.array(3, np.float32)), **{slot: self.of(*shape) for slot in slots}}
            for index, shape in enumerate(shapes)
        }
        return {"state": state, "param_groups": [{**group, "params": list(range(len(shapes)))}]}


MOMENTS = ("exp_avg", "exp_avg_sq")


def gan() -> tuple[dict[Any, Any], Storages]:
    make = Storages()
    tree: dict[Any, Any] = {
        "modules": {
            "generator": collections.OrderedDict(
                {
                    "net.0.weight": make.of(4, 2),
                    "net.0.bias": make.of(4),
                    "net.1.running_mean": make.of(4),
                    "net.1.num_batches_tracked": make(np.array(9, np.int64)),
                }
            ),
            "discriminator": collections.OrderedDict({"net.0.weight": make.of(1, 2), "net.0.bias": make.of(1)}),
        },
        "optimizers": {
            "g": make.optimizer(ADAM, MOMENTS, (4, 2), (4,)),
            "d": make.optimizer(ADAM, MOMENTS, (1, 2), (1,)),
        },
        "epoch": 3,
        "note": "best",
    }
    return tree, make


def contents_of(path: Path, tree: Any, make: Storages) -> Contents:
    with TorchSource(saved(path, tree, make.arrays)) as source:
        found = source.contents()
        assert [entry.key for entry in found.entries] == list(source.tensors)
    return found


def test_modules_and_optimizers_are_told_apart(tmp_path: Path) -> None:
    found = contents_of(tmp_path / "a.pt", *gan())
    named = {entry.key: entry for entry in found.entries}
    assert named["modules/generator/net.0.weight"] == Entry(
        "modules/generator/net.0.weight", Role.WEIGHT, "generator/net/0/weight"
    )
    assert named["modules/generator/net.1.running_mean"].role is Role.STATISTIC
    assert named["modules/generator/net.1.num_batches_tracked"].role is Role.COUNT
    key = "optimizers/g/state/1/exp_avg_sq"
    assert named[key] == Entry(key, Role.SLOT, "optimizer/g/v/generator/net/0/bias", "generator/net/0/bias", "g", "v")
    assert named["optimizers/d/state/0/step"].role is Role.COUNT
    assert named["optimizers/d/state/0/step"].name == "optimizer/d/iterations"
    assert named["epoch"] == Entry("epoch", Role.COUNT, "epoch")
    g, d = found.optimizers
    assert g == OptimizerEntry(
        "g", "Adam" + CORRECTED, "torch",
        {"learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-7},
        ("generator/net/0/weight", "generator/net/0/bias"),
    )  # fmt: skip
    assert d.variables == ("discriminator/net/0/weight", "discriminator/net/0/bias")
    assert found.notes == ("Beside tensors the file holds note = 'best'.",)


def test_the_usual_names_of_one_model(tmp_path: Path) -> None:
    make = Storages()
    tree = {
        "model_state_dict": {"a.weight": make.of(2, 3)},
        "optimizer_state_dict": make.optimizer(ADAM, MOMENTS, (2, 3)),
        "global_step": 7,
    }
    found = contents_of(tmp_path / "a.pt", tree, make)
    assert [entry.name for entry in found.entries] == [
        "a/weight",
        "optimizer/optimizer/iterations",
        "optimizer/optimizer/m/a/weight",
        "optimizer/optimizer/v/a/weight",
        "global_step",
    ]


def test_an_optimizer_alone_and_a_list_of_them(tmp_path: Path) -> None:
    make = Storages()
    found = contents_of(tmp_path / "a.pt", make.optimizer(ADAM, MOMENTS, (2,)), make)
    assert [entry.name for entry in found.entries] == [
        "optimizer/optimizer/iterations", "optimizer/optimizer/m/0", "optimizer/optimizer/v/0"
    ]  # fmt: skip
    assert "those of no module here fit" in found.notes[0]
    make = Storages()
    tree = {"optimizer_states": [make.optimizer(ADAM, MOMENTS, (2,)), make.optimizer(ADAM, MOMENTS, (3,))]}
    found = contents_of(tmp_path / "a.pt", tree, make)
    assert [each.name for each in found.optimizers] == ["optimizer_0", "optimizer_1"]


def test_what_fits_twice_is_not_guessed(tmp_path: Path) -> None:
    make = Storages()
    twins: dict[str, Any] = {name: {"w": make.of(2)} for name in ("a", "b")}
    found = contents_of(tmp_path / "a.pt", {**twins, "opt": make.optimizer(ADAM, MOMENTS, (2,))}, make)
    slot = next(entry for entry in found.entries if entry.slot == "m")
    assert (slot.variable, slot.name) == ("", "optimizer/optimizer/m/0")
    assert "those of 2 modules or orders of them fit" in found.notes[0]
    assert found.optimizers[0].variables == ()
    tree = {**twins, "optimizers": {"b": make.optimizer(ADAM, MOMENTS, (2,))}}
    found = contents_of(tmp_path / "a.pt", tree, make)
    assert found.optimizers[0].variables == ("b/w",)
    assert "of its name" in found.notes[0]


def test_one_optimizer_of_two_modules_and_names_that_are_recorded(tmp_path: Path) -> None:
    make = Storages()
    modules = {"encoder": {"w": make.of(2)}, "decoder": {"w": make.of(3)}}
    found = contents_of(tmp_path / "a.pt", {**modules, "opt": make.optimizer(ADAM, MOMENTS, (3,), (2,))}, make)
    assert found.optimizers[0].variables == ("decoder/w", "encoder/w")
    make = Storages()
    group = {**ADAM, "param_names": ["b", "a"]}
    tree = {
        "model": {"a": make.of(2), "b": make.of(2), "frozen": make.of(2)},
        "opt": make.optimizer(group, (), (2,), (2,)),
    }
    assert contents_of(tmp_path / "a.pt", tree, make).optimizers[0].variables == ("b", "a")


def test_shared_parameters_count_once(tmp_path: Path) -> None:
    make = Storages()
    shared = make.of(2, 3)
    tree = {"model": {"embed.weight": shared, "head.weight": shared}, "opt": make.optimizer(ADAM, MOMENTS, (2, 3))}
    assert contents_of(tmp_path / "a.pt", tree, make).optimizers[0].variables == ("embed/weight",)


def test_steps_that_differ_are_told(tmp_path: Path) -> None:
    make = Storages()
    optimizer = make.optimizer(ADAM, MOMENTS, (2,), (3,))
    optimizer["state"][1]["step"] = 5
    found = contents_of(tmp_path / "a.pt", {"model": {"a": make.of(2), "b": make.of(3)}, "opt": optimizer}, make)
    names = [entry.name for entry in found.entries if entry.role is Role.COUNT]
    assert names == ["optimizer/optimizer/step/a", "optimizer/optimizer/step/b"]
    assert "from 3 to 5" in found.notes[0]


def test_numbers_that_are_tensors_and_groups_that_differ(tmp_path: Path) -> None:
    make = Storages()
    optimizer = make.optimizer({**ADAM, "lr": make(np.array(0.5, np.float32)), "initial_lr": 1.0}, MOMENTS, (2,), (3,))
    (group,) = optimizer["param_groups"]
    optimizer["param_groups"] = [{**group, "params": [0]}, {**group, "params": [1], "eps": 1e-3}]
    found = contents_of(tmp_path / "a.pt", {"model": {"a": make.of(2), "b": make.of(3)}, "opt": optimizer}, make)
    (each,) = found.optimizers
    assert each.hyperparameters == {"learning_rate": 0.5, "beta_1": 0.8, "beta_2": 0.99}
    assert each.variables == ("a", "b")
    assert each.varying == ("learning_rate",)
    assert "epsilon differ" in found.notes[0]
    names = [entry.name for entry in found.entries if entry.role is Role.HYPERPARAMETER]
    assert names == ["optimizer/optimizer/learning_rate"] * 2


@pytest.mark.parametrize(
    ("group", "slots", "algorithm", "canonical", "numbers"),
    [
        ({**ADAM, "weight_decay": 0.1}, MOMENTS, "Adam" + CORRECTED, ["m", "v"], {"l2": 0.1}),
        ({**ADAM, "decoupled_weight_decay": True, "weight_decay": 0.1}, MOMENTS, "AdamW" + CORRECTED, ["m", "v"],
         {"weight_decay": 0.1}),
        ({**ADAM, "amsgrad": True}, (*MOMENTS, "max_exp_avg_sq"), "Adam" + CORRECTED + ", amsgrad", ["m", "v", "vhat"],
         {}),
        ({**ADAM, "maximize": True}, MOMENTS, "Adam" + CORRECTED + ", maximising", ["m", "v"], {}),
        ({k: v for k, v in ADAM.items() if k != "decoupled_weight_decay"} | {"weight_decay": 0.1}, MOMENTS, None,
         ["m", "v"], {"weight_decay": 0.1}),
        ({"lr": 1, "momentum": 0.9, "dampening": 0, "nesterov": False, "weight_decay": 0}, ("momentum_buffer",),
         "Momentum", ["accumulator"], {"momentum": 0.9}),
        ({"lr": 1, "momentum": 0.9, "dampening": 0, "nesterov": True, "weight_decay": 0}, ("momentum_buffer",),
         "Nesterov", ["accumulator"], {"momentum": 0.9}),
        ({"lr": 1, "momentum": 0.9, "dampening": 0.1, "nesterov": False}, ("momentum_buffer",), "Momentum, dampened",
         ["accumulator"], {"momentum": 0.9, "dampening": 0.1}),
        ({"lr": 1, "momentum": 0, "dampening": 0, "nesterov": False}, (), "SGD", [], {}),
        ({"lr": 1, "alpha": 0.9, "centered": True, "eps": 1, "momentum": 0}, ("square_avg", "grad_avg"),
         "CenteredRMSProp" + CORRECTED, ["rms", "mean"], {"rho": 0.9, "epsilon": 1, "momentum": 0}),
        ({"lr": 1, "lr_decay": 0.5, "initial_accumulator_value": 0.1, "eps": 1}, ("sum",), "Adagrad" + CORRECTED,
         ["accumulator"], {"initial_accumulator": 0.1, "epsilon": 1, "learning_rate": 0.4}),
        ({"lr": 1, "rho": 0.9, "eps": 1}, ("square_avg", "acc_delta"), "Adadelta",
         ["accumulator", "accumulator_update"], {"rho": 0.9, "epsilon": 1}),
        ({"lr": 1, "betas": (0.9, 0.99), "eps": 1}, ("exp_avg", "exp_inf"), "Adamax, epsilon within the norm",
         ["m", "v"], {"beta_1": 0.9, "beta_2": 0.99, "epsilon": 1}),
        ({"lr": 1, "betas": (0.9, 0.99), "momentum_decay": 1}, MOMENTS, "NAdam", ["exp_avg", "exp_avg_sq"],
         {"beta_1": 0.9, "beta_2": 0.99, "momentum_decay": 1}),
        ({"lr": 1, "mystery": 2}, ("x",), None, ["x"], {"mystery": 2}),
    ],
)  # fmt: skip
def test_algorithms(
    tmp_path: Path,
    group: dict[str, Any],
    slots: tuple[str, ...],
    algorithm: str | None,
    canonical: list[str],
    numbers: dict[str, float],
) -> None:
    make = Storages()
    tree = {"model": {"a": make.of(2)}, "opt": make.optimizer(group, slots, (2,))}
    found = contents_of(tmp_path / "a.pt", tree, make)
    (each,) = found.optimizers
    assert each.algorithm == algorithm
    assert [entry.slot for entry in found.entries if entry.role is Role.SLOT] == canonical
    base = {"learning_rate": 1.0} if "betas" not in group or "amsgrad" not in group else {
        "learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-7}  # fmt: skip
    assert each.hyperparameters == {**base, **numbers}
    assert bool(algorithm) != any("do not tell" in note for note in found.notes)


# --- Writing ----------------------------------------------------------------------------------------------------------
def written(path: Path, source: Source, template: Source | None, **other: Array) -> Path:
    sink = TorchSink(path, list(source.tensors.values()), source.contents(), template)
    for key in source.tensors:
        sink.write(key, pieces(other[key]) if key in other else source.chunks(key))
    sink.finish()
    return path


def test_a_template_gives_everything_that_is_no_tensor(tmp_path: Path) -> None:
    tree, make = gan()
    tree |= {
        "numbers": [1, -(1 << 40), 2.5, True, None, b"ab", {1, 2}, 1 << 300, (), {}, bytearray(b"x"), 1 << 2_200],
        "counter": collections.Counter("aab"),
        "size": Call(Name("torch", "Size"), ((2, 3),)),
        "dtype": Name("torch", "float32"),
        (1, "a"): 3,
        "p": Call(Name("torch._utils", "_rebuild_parameter"), (make.of(2), True, collections.OrderedDict())),
    }
    with (
        TorchSource(saved(tmp_path / "a.pt", tree, make.arrays)) as source,
        TorchSource(written(tmp_path / "b.pt", source, source, epoch=np.array(9))) as copy,
    ):
        assert copy.tensors == source.tensors
        assert copy.read("epoch") == 9
        for key in source.tensors:
            if key != "epoch":
                np.testing.assert_array_equal(copy.read(key), source.read(key))
        assert copy.facts == source.facts
        assert copy.tree["counter"] == {"a": 2, "b": 1}
        assert copy.views["p"].parameter
        assert copy.views["p"].requires_grad
        assert copy.contents() == source.contents()


def test_without_a_template_one_flat_dict_is_written(tmp_path: Path) -> None:
    tree, make = gan()
    with (
        TorchSource(saved(tmp_path / "a.pt", tree, make.arrays)) as source,
        TorchSource(written(tmp_path / "b.pt", source, None)) as copy,
    ):
        assert list(copy.tree) == list(source.tensors)
        assert copy.tensors == source.tensors
        for key in source.tensors:
            np.testing.assert_array_equal(copy.read(key), source.read(key))
    with zipfile.ZipFile(tmp_path / "b.pt") as archive:
        data = (tmp_path / "b.pt").read_bytes()
        for info in archive.infolist():
            at = info.header_offset
            start = at + 30 + int.from_bytes(data[at + 26 : at + 28], "little")
            assert (start + int.from_bytes(data[at + 28 : at + 30], "little")) % 64 == 0


def test_what_does_not_fit_the_template_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"w": tensor("0", (6,))}, {"0": SIX})
    with TorchSource(path) as template:
        more = {**template.tensors, "x": Stored("x", (), "float32")}
        with pytest.raises(CheckpointError, match="x is not in the template"):
            TorchSink(tmp_path / "b.pt", list(more.values()), Contents(()), template)
        with pytest.raises(CheckpointError, match="w is in the template and not"):
            TorchSink(tmp_path / "b.pt", [], Contents(()), template)
    for dtype in (STRING, "float8_e4m3"):
        with pytest.raises(CheckpointError, match=f"w has dtype {dtype}"):
            TorchSink(tmp_path / "b.pt", [Stored("w", (1,), dtype)], Contents(()), None)
    assert not (tmp_path / "b.pt").exists()


def test_sinks_hold_to_what_was_announced(tmp_path: Path) -> None:
    sink = TorchSink(tmp_path / "b.pt", [Stored("w", (1,), "int8")], Contents(()), None)
    with pytest.raises(ValueError, match="announced"):
        sink.finish()
    sink.abandon()


def test_large_tensors_are_written_and_read_in_pieces(tmp_path: Path) -> None:
    large = {name: Stored(name, (24 << 20,), "uint8") for name in "ab"}
    tracemalloc.start()
    sink = TorchSink(tmp_path / "a.pt", list(large.values()), Contents(()), None)
    for name in large:
        sink.write(name, (bytes(1 << 20) for _ in range(24)))
    sink.finish()
    with TorchSource(tmp_path / "a.pt") as source:
        for name in large:
            assert sum(map(len, source.chunks(name))) == 24 << 20
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


# --- Mutations --------------------------------------------------------------------------------------------------------
def small(path: Path) -> None:
    tree, make = gan()
    tree["view"] = tensor("0", (2, 4), (1, 2), numel=8)
    saved(path, tree, make.arrays)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_mutated_files(tmp_path: Path, count: int) -> None:
    small(tmp_path / "a.pt")
    assert check_reader(tmp_path, "a.pt", tmp_path / "a.pt", range(count))["refused"]


@pytest.mark.parametrize("count", [2 * FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("protocol", [2, 4])
def test_mutated_pickles_with_the_right_checksum(
    tmp_path: Path, count: int, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, make = gan()
    whole = dumped(tree, protocol)
    saved(tmp_path / "a.pt", whole, make.arrays)

    def rebuilt(data: bytes, seed: int) -> bytes:
        return saved(tmp_path.parent / f"{tmp_path.name}.pt", mutated(whole, seed), make.arrays).read_bytes()

    monkeypatch.setattr(checkpoint_mutations, "mutated", rebuilt)
    found = check_reader(tmp_path, "a.pt", tmp_path / "a.pt", range(count))
    assert found["refused"]
    assert found["read"]


@pytest.mark.slow
def test_files_of_more_than_four_gigabytes(tmp_path: Path) -> None:
    tensors = {"a": Stored("a", ((4 << 30) + (1 << 20),), "uint8"), "b": Stored("b", (1 << 20,), "uint8")}
    sink = TorchSink(tmp_path / "a.pt", list(tensors.values()), Contents(()), None)
    for key, each in tensors.items():
        sink.write(key, (bytes(1 << 20) for _ in range(each.nbytes >> 20)))
    sink.finish()
    with TorchSource(tmp_path / "a.pt") as source:
        assert source.tensors == tensors
        for key, each in tensors.items():
            assert sum(map(len, source.chunks(key))) == each.nbytes
