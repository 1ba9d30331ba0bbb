"""The checkpoint folder of a tfport run: its files as one Source, once the manifest has vouched for them.

`tfport.training.checkpoint` writes it. Every file that the manifest lists is read once on opening, for its SHA-256.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tfport.checkpoints.contents import Contents, check_names
from tfport.checkpoints.parts import PartsSource
from tfport.checkpoints.zips import shown, told
from tfport.errors import CheckpointError
from tfport.files import sha256
from tfport.training.checkpoint import FORMAT

MANIFEST = "manifest.json"
_MANIFEST_SIZE = 16 << 20
_NAME = re.compile(r"step-(\d{10})")
_ENDINGS = (".h5", ".keras", ".npz", ".safetensors", ".pt", ".pth")


class RunSource(PartsSource):
    """An open checkpoint of a run.

    Raises:
      CheckpointError: the manifest or a file is missing or damaged, or of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        manifest = self._manifest()
        self.model = self._text(manifest, "model")
        self.paradigm = self._text(manifest, "paradigm")
        self.precision = self._text(manifest, "precision")
        self.step = self._step(manifest)
        self.learning_rates = self._rates(manifest)
        """Optimizer -> its rate at the start of the run."""
        names = self._files(manifest)
        found = _checkpoints(names)
        if not found:
            raise CheckpointError(
                f"{path} is no checkpoint of a run: its {MANIFEST} lists {', '.join(names[:4]) or 'no files'}, and "
                "no checkpoint among them."
            )
        super().__init__(path, found)
        self.written_by = self._versions(manifest)

    # --- The manifest -------------------------------------------------------------------------------------------------
    def _manifest(self) -> dict[str, object]:
        from tfport.checkpoints.opening import load_json

        file = self.path / MANIFEST
        try:
            with file.open("rb") as opened:
                data = opened.read(_MANIFEST_SIZE + 1)
        except OSError as error:
            raise CheckpointError(
                f"{file} cannot be read ({error.strerror or error}), and without it the folder is no checkpoint of a "
                "run. Open one of the files in it by itself."
            ) from None
        if len(data) > _MANIFEST_SIZE:
            raise CheckpointError(f"{file} has more than {_MANIFEST_SIZE:,} bytes: it is no manifest of a run.")
        manifest = load_json(file, data, "the manifest")
        if "files" not in manifest or "format" not in manifest:
            raise CheckpointError(
                f"{file} is no manifest of a tfport run: it lacks 'format' or 'files'. Open one of the files in "
                f"{self.path} by itself."
            )
        if manifest["format"] != FORMAT or isinstance(manifest["format"], bool):
            raise CheckpointError(
                f"{file} has checkpoint format {told(manifest['format'])}, and this tfport reads format {FORMAT}; use "
                "the tfport version that wrote it."
            )
        return manifest

    def _wrong(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path / MANIFEST} is damaged: {what}. Take another copy of the checkpoint, or the one before it."
        )

    def _text(self, manifest: dict[str, object], key: str) -> str:
        value = manifest.get(key)
        if not isinstance(value, str):
            raise self._wrong(f"its {key} is of type {type(value).__name__}, expected a text")
        return value

    def _step(self, manifest: dict[str, object]) -> int:
        value = manifest.get("step")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise self._wrong("its step is no count")
        named = _NAME.fullmatch(self.path.name)
        if named and int(named[1]) != value:
            raise self._wrong(f"it is of step {value:,}, and the folder is {self.path.name}")
        return value

    def _rates(self, manifest: dict[str, object]) -> dict[str, float]:
        value = manifest.get("learning_rates", {})
        if not isinstance(value, dict) or not all(
            isinstance(each, (int, float)) and not isinstance(each, bool) and abs(each) < 1e300
            for each in value.values()
        ):
            raise self._wrong("its learning_rates are no numbers")
        return {str(name): float(each) for name, each in value.items()}

    def _versions(self, manifest: dict[str, object]) -> dict[str, str]:
        value = manifest.get("versions", {})
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            raise self._wrong("its versions are no texts")
        return dict(value)

    def _files(self, manifest: dict[str, object]) -> list[str]:
        """The files' names, each found whole."""
        files = manifest["files"]
        if not isinstance(files, dict):
            raise self._wrong("its files are no object")
        check_names(self.path / MANIFEST, files)
        for name, facts in files.items():
            size, digest = (facts.get("bytes"), facts.get("sha256")) if isinstance(facts, dict) else (None, None)
            if not isinstance(size, int) or not 0 <= size < 1 << 63 or not isinstance(digest, str):
                raise self._wrong(f"it tells neither size nor digest of {shown(name)}")
            self._check_file(self.path / name, size, digest)
        return sorted(files)

    def _check_file(self, path: Path, size: int, digest: str) -> None:
        remedy = "take another copy of the checkpoint, or the one before it"
        try:
            found = path.stat().st_size if path.is_file() else None
            if found is None:
                raise CheckpointError(f"{path} is missing, and {self.path / MANIFEST} lists it; {remedy}.")
            if found != size:
                raise CheckpointError(f"{path} has {found:,} bytes, not {size:,}: it was cut or changed; {remedy}.")
            if sha256(path) != digest:
                raise CheckpointError(f"{path} was changed after it was written (its SHA-256 differs); {remedy}.")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: {shown(path.name)} cannot be read ({shown(str(error))}).") from None

    def contents(self) -> Contents:
        """See `Source.contents`."""
        found = super().contents()
        note = f"Step {self.step:,} of a run of the model {self.model} in {self.paradigm}, {self.precision}."
        return dataclasses.replace(found, notes=tuple(dict.fromkeys([note, *found.notes])))


def _checkpoints(names: list[str]) -> list[str]:
    """What is to be opened: prefixes and files."""
    prefixes = [name.removesuffix(".index") for name in names if name.endswith(".index")]
    return [*prefixes, *(name for name in names if name.endswith(_ENDINGS))]
