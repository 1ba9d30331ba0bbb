"""Files of torch.save against PyTorch itself, in both directions. `make test-torch` has PyTorch."""

# ruff: noqa: E402  what needs PyTorch is imported where PyTorch is there
from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed; `make test-torch` runs this where it is")

from tfport.adapters import torch_program
from tfport.checkpoints import torch_names
from tfport.checkpoints.contents import Contents, Role, Stored, numpy_dtype, pieces
from tfport.checkpoints.opening import open_source
from tfport.checkpoints.torch_file import TorchSink, TorchSource
from tfport.checkpoints.torch_pickle import written_dtypes
from tfport.errors import CheckpointError


def bits(tensor: Any) -> bytes:
    """A tensor's elements in C order."""
    flat = tensor.detach().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 1))


def trained(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    module = model()
    optimizer = make(module.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
    return module, optimizer


def same_tree(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.requires_grad == other.requires_grad
        assert bits(one) == bits(other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same_tree(one[key], other[key])
        assert vars(one).keys() == vars(other).keys() if hasattr(one, "__dict__") else True
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same_tree(left, right)
    else:
        assert one == other


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype_is_read(tmp_path: Path, protocol: int) -> None:
    tensors = {name: torch.tensor([[0, 1, 2], [3, 1, 0]]).to(getattr(torch, name)) for name in sorted(written_dtypes())}
    torch.save(tensors, tmp_path / "a.pt", pickle_protocol=protocol)
    with open_source(tmp_path / "a.pt") as source:
        for name, tensor in tensors.items():
            assert source.tensors[name] == Stored(name, (2, 3), name)
            assert b"".join(map(bytes, source.chunks(name))) == bits(tensor)


def test_views_and_parameters_are_read(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    channels = torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last)
    own = torch.nn.Parameter(torch.ones(2))
    own.note = "kept"
    tree = {
        "base": base, "turned": base.permute(2, 0, 1), "row": base[1], "column": base[:, 1, 2], "step": base[:, ::2],
        "channels": channels, "scalar": torch.tensor(3), "empty": torch.zeros(0, 3), "own": own, "shared": base,
    }  # fmt: skip
    torch.save(tree, tmp_path / "a.pt")
    with TorchSource(tmp_path / "a.pt") as source:
        for key, tensor in tree.items():
            np.testing.assert_array_equal(source.read(key), tensor.detach().numpy())


def test_what_pytorch_reads_is_what_was_written(tmp_path: Path) -> None:
    tensors, arrays = {}, {}
    for name in sorted(written_dtypes()):
        for shape in ((), (0, 2), (2, 3)):
            stored = Stored(f"{name}.{len(shape)}.{0 in shape}", shape, name)
            tensors[stored.key] = stored
            arrays[stored.key] = np.ones(shape).astype(numpy_dtype(name))
    sink = TorchSink(tmp_path / "a.pt", list(tensors.values()), Contents(()), None)
    for key, array in arrays.items():
        sink.write(key, pieces(array))
    sink.finish()
    for more in ({}, {"mmap": True}):
        found = torch.load(tmp_path / "a.pt", weights_only=True, **more)
        assert list(found) == list(tensors)
        for key, array in arrays.items():
            assert found[key].dtype == getattr(torch, tensors[key].dtype)
            assert tuple(found[key].shape) == array.shape
            assert bits(found[key]) == array.tobytes()


def test_a_template_keeps_all_that_is_no_tensor(tmp_path: Path) -> None:
    module, optimizer = trained(lambda parameters: torch.optim.Adam(parameters, 0.1))
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 2, 5])
    tree = {
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": 4,
        "best": (0.5, None, {"x": [True]}),
        "bytes": b"\x00\xff",
        "set": {1, 2},
        "size": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "grad": torch.ones(2, requires_grad=True),
        7: {(1, "a"): 1.5},
        "large": [1 << 40, -(1 << 63), 1 << 100],
    }
    torch.save(tree, tmp_path / "a.pt")
    with TorchSource(tmp_path / "a.pt") as source:
        sink = TorchSink(tmp_path / "b.pt", list(source.tensors.values()), source.contents(), source)
        for key in source.tensors:
            sink.write(key, source.chunks(key))
        sink.finish()
    found = torch.load(tmp_path / "b.pt", weights_only=True)
    same_tree(found, torch.load(tmp_path / "a.pt", weights_only=True))
    other = model(1)
    other.load_state_dict(found["model"])
    assert found["model"]._metadata == tree["model"]._metadata
    torch.optim.Adam(other.parameters()).load_state_dict(found["optimizer"])


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "dampened": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, dampening=0.5),
    "adam": lambda p: torch.optim.Adam(p, 0.1, betas=(0.5, 0.9)),
    "adam decayed": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.Adam(p, 0.1, amsgrad=True),
    "maximising": lambda p: torch.optim.Adam(p, 0.1, maximize=True),
    "tensor rate": lambda p: torch.optim.Adam(p, torch.tensor(0.5)),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
    "adamw amsgrad": lambda p: torch.optim.AdamW(p, 0.1, amsgrad=True),
    "adamax": lambda p: torch.optim.Adamax(p, 0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1, lr_decay=0.5, initial_accumulator_value=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.1),
    "rmsprop momentum": lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.5, centered=True),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.1),
    "nadam": lambda p: torch.optim.NAdam(p, 0.1),
    "radam": lambda p: torch.optim.RAdam(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_file_tells_of_an_optimizer_what_the_live_one_does(tmp_path: Path, name: str) -> None:
    module, optimizer = trained(OPTIMIZERS[name])
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    with TorchSource(tmp_path / "a.pt") as source:
        contents = source.contents()
        (found,) = contents.optimizers
        named = {entry.name: source.read(entry.key) for entry in contents.entries}

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = module(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    program = torch_program.torch_module(module, optimizer, step=step)
    (live,) = program.optimizers()
    # A live program's phases tell what is maximised; a file has only the flag.
    assert (found.algorithm or "").removesuffix(", maximising") == live.algorithm
    assert (found.algorithm or "").endswith(", maximising") == (name == "maximising")
    assert dict(found.hyperparameters) == pytest.approx(dict(live.hyperparameters))
    state = program.state().arrays
    slots = {key for key in state if key.startswith("optimizer/") and not key.endswith("/iterations")}
    kept = {entry.name for entry in contents.entries if entry.role is Role.SLOT}
    assert kept == slots
    for key in slots | {entry.name for entry in contents.entries if entry.role is Role.WEIGHT}:
        np.testing.assert_array_equal(named[key], state[key], err_msg=key)
    if "optimizer/optimizer/iterations" in named:
        assert named["optimizer/optimizer/iterations"] == 3
    assert list(found.variables) == [each.name for each in program.variables() if each.optimizers] if kept else True


def test_the_adapters_words_are_the_files() -> None:
    assert torch_names.WITHIN == torch_program.WITHIN


def test_files_without_checksums_and_of_other_kinds(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    with TorchSource(tmp_path / "a.pt") as source:
        assert source.read("w").tolist() == [1, 1, 1]
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="is a pickle"):
        open_source(tmp_path / "a.pt")
    for wrong, found in (
        (model(), "names 'torch.nn.modules.container.Sequential'"),
        ({"w": torch.ones(3).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"w": torch.ones(2, dtype=torch.complex64).conj()}, "conjugated"),
        ({"w": torch.ones(1).expand(5)}, "expanded view"),
        ({"w": np.float64(3)}, "names 'numpy"),
    ):
        torch.save(wrong, tmp_path / "a.pt")
        with pytest.raises(CheckpointError, match=found):
            open_source(tmp_path / "a.pt")
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="TorchScript"):
        open_source(tmp_path / "a.pt")
