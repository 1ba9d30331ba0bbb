"""A checkpoint that is not the run's own, whole, is refused by name with a remedy, and nothing is changed."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from tfport import models, paradigms
from tfport.errors import CheckpointError, RunError, TrainingDiverged
from tfport.files import sha256
from tfport.initial import initial_state
from tfport.training import checkpoint
from tfport.training.checkpoint import Checkpoint, checkpoints
from tfport.training.config import RunConfig
from tfport.training.loop import train

PARADIGMS = ("tf1_graph", "gradient_tape", "keras2", "keras3")
Configure = Callable[..., RunConfig]
Contents = Callable[[Path], dict[str, bytes]]
LAST = f"step-{6:010d}"


def cut(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


def empty(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")


def flip(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)


def remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


DAMAGE: dict[Callable[[Path, str], None], str] = {
    cut: r"has \d+ bytes, not \d+: it was cut or changed",
    empty: "has 0 bytes",
    flip: "was changed after it was written",
    remove: "is missing",
}
FILES = [
    ("tf1_graph", "model.ckpt.index"),
    ("tf1_graph", "model.ckpt.data-00000-of-00001"),
    ("gradient_tape", "checkpoint.index"),
    ("gradient_tape", "checkpoint.data-00000-of-00001"),
    ("keras2", "checkpoint.data-00000-of-00001"),
    ("keras3", "discriminator.weights.h5"),
    ("keras3", "generator.weights.h5"),
]


def refused(config: RunConfig, run: Path, contents: Contents, match: str) -> str:
    """The message with which a resume is refused; the run directory is as it was."""
    before = contents(run)
    with pytest.raises(CheckpointError, match=match) as caught:
        train(config, resume=True)
    assert contents(run) == before
    assert "\n" not in str(caught.value).strip()
    return str(caught.value)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda each: each.__name__)
@pytest.mark.parametrize(("paradigm", "name"), FILES)
def test_a_damaged_file_is_named(
    paradigm: str,
    name: str,
    damage: Callable[[Path, str], None],
    copy_of: Callable[[str], Path],
    configure: Configure,
    contents: Contents,
) -> None:
    run = copy_of(paradigm)
    folder = run / "checkpoints" / LAST
    damage(folder, name)
    message = refused(configure(run, paradigm), run, contents, DAMAGE[damage])
    assert str(folder / name) in message
    assert f"delete {folder} to go on from the checkpoint before it" in message


@pytest.mark.parametrize("damage", [cut, empty, remove])
def test_a_damaged_manifest_is_named(
    damage: Callable[[Path, str], None], copy_of: Callable[[], Path], configure: Configure, contents: Contents
) -> None:
    run = copy_of()
    folder = run / "checkpoints" / LAST
    damage(folder, "manifest.json")
    message = refused(configure(run), run, contents, "no readable manifest.json")
    assert f"delete {folder} to go on" in message


def test_a_changed_byte_of_the_manifest_is_a_checkpoint_error_or_harmless(copy_of: Callable[[], Path]) -> None:
    folder = copy_of() / "checkpoints" / LAST
    path = folder / "manifest.json"
    whole = path.read_bytes()
    chance = random.Random(0)
    refusals = 0
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            checkpoint.read_manifest(Checkpoint(folder, 6))
        except CheckpointError:
            refusals += 1
    assert refusals > len(whole) // 4


@pytest.mark.parametrize(
    "manifest",
    ["[]", "3", "null", "{}", '{"format": 1, "files": {"a": 3}}', '{"format": 1, "files": [], "state_digest": "a"}'],
)
def test_json_that_is_no_manifest_is_refused(manifest: str, copy_of: Callable[[], Path]) -> None:
    folder = copy_of() / "checkpoints" / LAST
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match=r"no readable manifest\.json.*delete"):
        checkpoint.read_manifest(Checkpoint(folder, 6))


def test_another_format_is_refused(copy_of: Callable[[], Path], configure: Configure, contents: Contents) -> None:
    run = copy_of()
    path = run / "checkpoints" / LAST / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    refused(configure(run), run, contents, "checkpoint format 2.*reads format 1.*version that wrote it")


def test_a_checkpoint_of_another_paradigm_is_refused(
    copy_of: Callable[[str], Path], unbroken: Callable[[str], Path], configure: Configure, contents: Contents
) -> None:
    run = copy_of("gradient_tape")
    folder = run / "checkpoints" / LAST
    shutil.rmtree(folder)
    shutil.copytree(unbroken("keras2") / "checkpoints" / LAST, folder)
    message = refused(configure(run), run, contents, "is of paradigm 'keras2'; this run has 'gradient_tape'")
    assert f"delete {folder}" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "is of seed 4; this run has 3"),
        ({"batch_size": 25}, "is of batch_size 25; this run has 20"),
        ({"learning_rate": 0.01}, "is of learning_rates {'discriminator': 0.00999"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    change: dict[str, Any],
    message: str,
    copy_of: Callable[[], Path],
    configure: Configure,
    contents: Contents,
    tmp_path: Path,
) -> None:
    run = copy_of()
    train(configure(tmp_path / "other", **change))
    folder = run / "checkpoints" / LAST
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "other" / "checkpoints" / LAST, folder)
    assert "delete" in refused(configure(run), run, contents, message)


def test_a_renamed_checkpoint_is_refused(copy_of: Callable[[], Path], configure: Configure, contents: Contents) -> None:
    run = copy_of()
    root = run / "checkpoints"
    (root / LAST).rename(root / f"step-{5:010d}")
    assert "delete" in refused(configure(run), run, contents, "is of step 6; this run has 5")


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_a_state_that_is_not_the_one_that_was_saved_is_refused(
    paradigm: str, copy_of: Callable[[str], Path], configure: Configure, contents: Contents
) -> None:
    """Files of an earlier step under a manifest that vouches for them: only the state's digest can tell."""
    run = copy_of(paradigm)
    root = run / "checkpoints"
    path = root / LAST / "manifest.json"
    manifest = json.loads(path.read_text())
    earlier = root / f"step-{4:010d}"
    manifest["files"] = json.loads((earlier / "manifest.json").read_text())["files"]
    shutil.copytree(earlier, root / LAST, dirs_exist_ok=True)
    path.write_text(json.dumps(manifest))
    assert "delete" in refused(configure(run, paradigm), run, contents, "state it gave is not the one that was saved")


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_files_no_reader_can_read_are_refused_even_if_vouched_for(
    paradigm: str, copy_of: Callable[[str], Path], configure: Configure, contents: Contents
) -> None:
    run = copy_of(paradigm)
    folder = run / "checkpoints" / LAST
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        flip(folder, name)
        manifest["files"][name]["sha256"] = sha256(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    message = refused(configure(run, paradigm), run, contents, "cannot be restored|not the one that was saved")
    assert f"delete {folder} to go on from the checkpoint before it" in message


def test_fewer_steps_than_were_done_are_refused(
    copy_of: Callable[[], Path], configure: Configure, contents: Contents
) -> None:
    run = copy_of()
    refused(configure(run, steps=5), run, contents, "taken after 6 steps, beyond --steps=5; give more")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_leaves_the_older_checkpoints(
    number: int, stub: object, configure: Configure, contents: Contents, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(configure(run))
    before = contents(run / "checkpoints")

    def save(folder: Path) -> NoReturn:
        (folder / "half").write_text("half of it")
        raise OSError(number, os.strerror(number))

    stub.save = save  # type: ignore[attr-defined]
    with pytest.raises(RunError, match=f"cannot write .*step-{8:010d}: .*(space|folder).*untouched"):
        train(configure(run, steps=8), resume=True)
    assert contents(run / "checkpoints") == before
    del stub.save  # type: ignore[attr-defined]
    assert train(configure(run, steps=8), resume=True).step == 8


def test_a_frameworks_own_error_is_explained_too(
    stub: object, configure: Configure, contents: Contents, tmp_path: Path
) -> None:
    import tensorflow as tf

    def save(folder: Path) -> NoReturn:
        (folder / "half").write_text("half of it")
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    stub.save = save  # type: ignore[attr-defined]
    with pytest.raises(RunError, match=r"could not be written: No space left.*untouched"):
        train(configure(tmp_path / "run"))
    assert not contents(tmp_path / "run" / "checkpoints")


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_each_frameworks_writer_that_may_write_no_more(
    paradigm: str, configure: Configure, contents: Contents, tmp_path: Path
) -> None:
    """A limit on file sizes stands for a full disk: the paradigm's real writer meets a real refusal, half way."""
    subject = paradigms.build(paradigm, configure(tmp_path / "run", paradigm).spec())
    root = tmp_path / "checkpoints"
    checkpoint.save(root, subject, 1, 0)
    before = contents(root)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(RunError, match=f"step-{2:010d}.*untouched") as caught:
            checkpoint.save(root, subject, 2, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in str(caught.value)
    assert "\n" not in str(caught.value), "no stack of the framework's"
    assert contents(root) == before
    checkpoint.save(root, subject, 2, 0)
    subject.close()


def test_nan_weights_are_not_saved(stub: object, configure: Configure, tmp_path: Path) -> None:
    stub.load(_stub_state(configure(tmp_path)))  # type: ignore[attr-defined]
    stub.arrays["optimizer/generator/v/generator/hidden/kernel"][1, 2] = np.inf  # type: ignore[attr-defined]
    with pytest.raises(
        TrainingDiverged, match=r"step 9, phase generator: optimizer/generator/v/generator/hidden/kernel holds NaN"
    ):
        checkpoint.save(tmp_path / "checkpoints", stub, 9, 0)  # type: ignore[arg-type]
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("model", "name", "place"),
    [
        ("batchnorm_gan", "discriminator/hidden1/kernel", "optimizer discriminator"),
        ("batchnorm_gan", "optimizer/discriminator/m/discriminator/hidden1/kernel", "optimizer discriminator"),
        ("batchnorm_gan", "generator/norm2/moving_variance", "phase generator"),
        ("infogan", "recognition/codes/bias", "phase information"),
        ("infogan", "optimizer/information/v/discriminator/hidden/kernel", "phase information"),
        ("vae", "optimizer/vae/rms/encoder/mean/kernel", "phase vae"),
    ],
)
def test_the_place_of_a_nan_is_the_phase_or_the_optimizer_that_phases_share(
    model: str, name: str, place: str, stub: Any, tmp_path: Path
) -> None:
    stub.spec = models.get(model)
    stub.arrays = dict(initial_state(stub.spec, 0, "float32").arrays)
    stub.arrays[name] = np.full_like(stub.arrays[name], np.nan)
    with pytest.raises(TrainingDiverged, match=rf"^step 9, {place}: {name} holds NaN or infinity"):
        checkpoint.save(tmp_path / "checkpoints", stub, 9, 0)


def test_the_newest_three_are_kept(stub: object, configure: Configure, tmp_path: Path) -> None:
    train(configure(tmp_path / "run", steps=9))
    assert [each.step for each in checkpoints(tmp_path / "run" / "checkpoints")] == [6, 8, 9]


def test_what_is_no_checkpoint_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / f"step-{3:010d}").mkdir()
    (tmp_path / "step-4").mkdir()
    (tmp_path / ".step-0000000005.abc").mkdir()
    (tmp_path / f"step-{6:010d}").write_text("a file")
    assert [each.step for each in checkpoints(tmp_path)] == [3]
    assert checkpoints(tmp_path / "nothing") == []


def _stub_state(config: RunConfig) -> object:
    return initial_state(config.spec(), config.seed, config.precision)
