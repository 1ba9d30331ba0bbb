"""A run goes on only as what it was begun as, and a new one begins only where nothing is in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tfport import data, models
from tfport.errors import RunError, UserError
from tfport.training.config import RunConfig
from tfport.training.loop import train
from tfport.training.run_directory import RunDirectory

Configure = Callable[..., RunConfig]
Contents = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def run(stub: Any, configure: Configure, tmp_path: Path) -> Path:
    """The directory of a finished run of the stub."""
    train(configure(tmp_path / "run"))
    return tmp_path / "run"


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((run / "run.json").read_text())
    change(record)
    (run / "run.json").write_text(json.dumps(record))


def refused(config: RunConfig, run: Path, contents: Contents, match: str, resume: bool = True) -> None:
    before = contents(run)
    with pytest.raises(UserError, match=match) as caught:
        train(config, resume=resume)
    assert contents(run) == before
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("paradigm", "keras2", "gradient_tape, not keras2"),
        ("batch_size", 21, "20, not 21"),
        ("seed", 4, "3, not 4"),
        ("precision", "float64", "float32, not float64"),
        ("learning_rate", 1e-3, "0.0002, not 0.001"),
    ],
)
def test_another_run_is_not_gone_on_with(
    name: str, value: object, shown: str, run: Path, configure: Configure, contents: Contents
) -> None:
    changes = {"paradigm": "gradient_tape", name: value}
    refused(configure(run, **changes), run, contents, f"begun with --{name}={shown}.*--run_dir for a new run")


def test_a_run_of_another_model_is_not_gone_on_with(run: Path, configure: Configure, contents: Contents) -> None:
    edit(run, lambda record: record["config"].update(model="dcgan"))
    refused(configure(run), run, contents, "begun with --model=dcgan, not vanilla_gan")


def test_other_images_under_the_same_name_are_refused(run: Path, configure: Configure, contents: Contents) -> None:
    edit(run, lambda record: record["dataset"].update(digest="0" * 64))
    refused(configure(run), run, contents, "begun on other images .*000000000000.*--data_dir")


def test_a_run_of_another_version_of_the_model_is_refused(run: Path, configure: Configure, contents: Contents) -> None:
    edit(run, lambda record: record["spec"]["optimizers"][1][1].update(beta_2=0.5))
    message = r"another version of the model: spec\.optimizers\[1\]\[1\]\.beta_2 was 0\.5 and is 0\.99"
    refused(configure(run), run, contents, message)


def test_another_format_is_refused(run: Path, configure: Configure, contents: Contents) -> None:
    edit(run, lambda record: record.update(format=2))
    refused(configure(run), run, contents, "format 2.*reads format 1.*version that wrote it")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", "{}", "\udcff"),
        *('{"format": 1}', '{"format": 1, "config": 3}', '{"format": 1, "config": {"model": "vanilla_gan"}}'),
    ],
)
def test_a_record_that_is_none_is_refused(text: str, run: Path, configure: Configure, contents: Contents) -> None:
    (run / "run.json").write_text(text, errors="surrogateescape")
    refused(configure(run), run, contents, r"run\.json")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *(("dataset", {}), ("dataset", None), ("versions", 3)),
        *((("config", "steps"), "many"), (("config", "seed"), None), (("config", "model"), [])),
    ],
    ids=str,
)
def test_a_record_with_a_wrong_part_is_refused(
    part: Any, value: object, run: Path, configure: Configure, contents: Contents
) -> None:
    where, key = part if isinstance(part, tuple) else (None, part)
    edit(run, lambda record: (record[where] if where else record).update({key: value}))
    refused(configure(run), run, contents, r"run\.json .*choose another --run_dir")


def test_a_cut_record_is_refused(run: Path, configure: Configure, contents: Contents) -> None:
    text = (run / "run.json").read_text().rstrip()
    for length in range(0, len(text), 101):
        (run / "run.json").write_text(text[:length])
        refused(configure(run), run, contents, r"run\.json cannot be read")


def test_another_version_of_a_framework_warns_and_goes_on(
    run: Path, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(run, lambda record: record["versions"].update(tensorflow="1.15.5"))
    assert train(configure(run, steps=7), resume=True).step == 7
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "begun under tensorflow 1.15.5 and goes on under 2." in warnings[0]


def test_the_same_versions_do_not_warn(run: Path, configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    train(configure(run, steps=7), resume=True)
    assert "warning: " not in capsys.readouterr().err


def test_nothing_to_resume(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run.*nothing to resume; leave --resume out"):
        train(configure(tmp_path / "run"), resume=True)
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_begun_over(run: Path, configure: Configure, contents: Contents) -> None:
    refused(configure(run), run, contents, "already holds a run. Go on with it by --resume", resume=False)


def test_a_folder_of_other_things_is_not_written_into(configure: Configure, contents: Contents, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    refused(configure(tmp_path), tmp_path, contents, "in the way and holds no run; choose another", resume=False)


def test_a_file_is_not_replaced_by_a_run(configure: Configure, contents: Contents, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("important")
    refused(configure(tmp_path / "file"), tmp_path, contents, "in the way and holds no run", resume=False)
    refused(configure(tmp_path / "file" / "run"), tmp_path, contents, "part of the path is a file", resume=False)


def test_a_folder_that_may_not_be_read_is_explained(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(RunError, match="permission denied: choose a folder"):
        RunDirectory(tmp_path / "run").check_free()


def test_an_empty_folder_will_do_and_so_will_what_a_killed_start_left(
    stub: Any, configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.x7f3").write_text("{")
    assert train(configure(tmp_path)).step == 6
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".lock"]


def test_intervals_and_length_may_change(run: Path, configure: Configure) -> None:
    train(configure(run, steps=9, log_every=3, sample_every=9, checkpoint_every=9), resume=True)
    record = json.loads((run / "run.json").read_text())
    assert (record["config"]["steps"], record["config"]["log_every"], record["step"]) == (9, 3, 9)


@pytest.mark.parametrize(
    ("begun", "now", "message"),
    [
        (None, None, None),
        (None, 1e-3, r"--learning_rate=\[0\.0002, 0\.001\], not 0\.001"),
        (1e-3, None, r"--learning_rate=0\.001, not \[0\.0002, 0\.001\]"),
        (1e-3, 1e-3, None),
    ],
)
def test_a_rate_for_all_is_not_the_rates_of_each(
    begun: float | None, now: float | None, message: str | None, configure: Configure, tmp_path: Path
) -> None:
    """infogan's optimizers have two rates: one rate given is another run, even where it is one of the two."""
    digits = data.load("digits")
    directory = RunDirectory(tmp_path / "run")
    directory.begin(configure(tmp_path / "run", model="infogan", learning_rate=begun), digits)
    config = configure(tmp_path / "run", model="infogan", learning_rate=now)
    if message is None:
        assert directory.check_resumable(config, digits.digest) == []
    else:
        with pytest.raises(RunError, match=message):
            directory.check_resumable(config, digits.digest)


@pytest.mark.parametrize("model", models.MODELS)
def test_every_models_record_holds_its_spec_and_comes_back(model: str, configure: Configure, tmp_path: Path) -> None:
    config = configure(tmp_path / "run", model=model)
    directory = RunDirectory(tmp_path / "run")
    directory.begin(config, data.load("digits"))
    assert directory.config() == config
    spec = directory.read()["spec"]
    assert (spec["name"], spec["batching"]["batch_size"]) == (model, 20)
    assert [name for name, _ in spec["optimizers"]] == [name for name, _ in models.get(model).optimizers]


def test_a_rate_that_is_the_specs_own_is_no_other_rate(copy_of: Callable[[], Path], configure: Configure) -> None:
    run = copy_of()
    begun = RunDirectory(run)
    digest = begun.read()["dataset"]["digest"]
    assert begun.check_resumable(configure(run, learning_rate=2e-4), digest) == []
