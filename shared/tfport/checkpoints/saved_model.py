"""SavedModels of TF1 and TF2: the variables in `variables/`, and what the graph or the object graph says of them.

`saved_model.pb` (`tensorflow/core/protobuf/saved_model.proto`) is read as bytes: versions, tags and signatures when it
is opened, the graph only when `contents` asks. Nothing in it runs.

`fingerprint.pb` holds hashes, that of the variables' index among them. TensorFlow 2.21 loads a SavedModel whose
fingerprint is another's or missing; a new one is written without it, as its hash would be wrong.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tfport.checkpoints import object_graph, tf1_meta
from tfport.checkpoints.bundle import BundleSink, BundleSource
from tfport.checkpoints.contents import STRING, Bytes, Contents, Sink, Source, Stored, damaged
from tfport.checkpoints.object_graph import Message
from tfport.checkpoints.tf1_names import by_names
from tfport.errors import CheckpointError
from tfport.files import explained

_GRAPH = "saved_model.pb"
_TEXT = "saved_model.pbtxt"
_VARIABLES = Path("variables") / "variables"
_LAMBDA = re.compile(rb'"class_name": ?"Lambda"')
_KERAS_VERSION = re.compile(rb'"keras_version": ?"([\w.+-]{1,40})"')
_SHOWN = 6


class SavedModelSource(Source):
    """An open SavedModel."""

    format = "saved-model"

    def __init__(self, folder: Path) -> None:
        """Reads `saved_model.pb`'s outline and the variables' index.

        Args:
          folder: holds saved_model.pb, or saved_model.pbtxt, whose graph is not read; variables lie in `variables/`.

        Raises:
          CheckpointError: a file is missing or damaged.
        """
        self.path = folder
        self.written_by = {}
        self.graphs: list[Message] = []
        """Its MetaGraphDefs."""
        self.notes: list[str] = []
        self._read_graphs()
        self._read_keras()
        self.bundle = self._variables()
        """Its variables; None where it has none."""
        self.tensors = self.bundle.tensors if self.bundle is not None else {}

    def _read_graphs(self) -> None:
        path = self.path / _GRAPH
        if not path.is_file():
            if not (self.path / _TEXT).is_file():
                raise CheckpointError(f"{self.path} holds no {_GRAPH}; expected the folder of a SavedModel.")
            self.notes.append(f"its graph is in {_TEXT}, as text, and is not read")
            return
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
        try:
            outer = Message(data)
            self.graphs = [Message(each) for each in outer.raw(2)]
            for meta in self.graphs:
                self.written_by |= tf1_meta.meta_versions(meta)
            outlines = [_outline(meta) for meta in self.graphs]
        except ValueError as error:
            raise damaged(path, f"it is no SavedModel ({error})") from None
        if not self.graphs:
            raise damaged(path, "it holds no graph, expected at least one")
        for place, outline in enumerate(outlines, 1):
            self.notes.append(f"graph {place} of {len(self.graphs)}: {outline}")

    def _read_keras(self) -> None:
        path = self.path / "keras_metadata.pb"
        if not path.is_file():
            return
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from None
        if match := _KERAS_VERSION.search(data):
            self.written_by["keras"] = match[1].decode("ascii")
        if _LAMBDA.search(data):
            self.notes.append("a Keras model of it has a Lambda layer: its Python code is neither read nor run")

    def _variables(self) -> BundleSource | None:
        prefix = self.path / _VARIABLES
        if prefix.with_name(f"{prefix.name}.index").is_file():
            bundle = BundleSource(prefix)
            self.written_by = {**bundle.written_by, **self.written_by}
            return bundle
        beside = sorted(each.name for each in prefix.parent.glob("*")) if prefix.parent.is_dir() else []
        if beside:
            raise CheckpointError(
                f"{prefix}.index does not exist, and the variables cannot be read without it; beside it lie "
                f"{', '.join(beside[:4])}. Copy the whole SavedModel."
            )
        self.notes.append("it has no variables")
        return None

    def chunks(self, key: str) -> Iterator[Bytes]:
        """As `Source.chunks`."""
        if self.bundle is None:
            raise KeyError(key)
        return self.bundle.chunks(key)

    def strings(self, key: str) -> list[bytes]:
        """The texts of a tensor, as `BundleSource.strings`."""
        if self.bundle is None:
            raise KeyError(key)
        return self.bundle.strings(key)

    def contents(self) -> Contents:
        """What each tensor is: by the object graph of TF2's, by the graph of TF1's, else by names."""
        found = self._contents() if self.bundle is not None else Contents(())
        return Contents(found.entries, found.optimizers, (*self.notes, *found.notes))

    def _contents(self) -> Contents:
        if object_graph.OBJECT_GRAPH in self.tensors:
            return object_graph.contents(self)
        errors: list[str] = []
        for meta in sorted(self.graphs, key=_is_not_training):
            try:
                return tf1_meta.graph_contents(self.path / _GRAPH, meta, self.tensors, self.read)
            except tf1_meta.GraphError as error:
                errors.append(str(error))
        found = by_names(self.tensors, self.read)
        why = (*errors, "what each tensor is was told by its name alone")
        return Contents(found.entries, found.optimizers, (*why, *found.notes))

    def close(self) -> None:
        """Closes the variables' files."""
        if self.bundle is not None:
            self.bundle.close()


def _tags(meta: Message) -> list[str]:
    return [tag for info in meta.messages(1) for tag in info.texts(4)]


def _is_not_training(meta: Message) -> bool:
    return "train" not in _tags(meta)


def _outline(meta: Message) -> str:
    """A graph's tags, signatures and TensorFlow."""
    tags = ", ".join(_tags(meta)) or "none"
    signatures = [each.text(1) for each in meta.messages(5)]
    shown = ", ".join(each for each in signatures if not each.startswith("__saved_model"))
    made = tf1_meta.meta_versions(meta).get("tensorflow", "an unknown version")
    return f"tags {tags}; signatures {shown or 'none'}; TensorFlow {made}"


class SavedModelSink(Sink):
    """A SavedModel with the graph, assets and signatures of a template and new variables.

    Nothing of a graph can be made up from tensors, so a template is needed. Its fingerprint is left out.
    """

    def __init__(
        self, path: Path, tensors: Iterable[Stored], contents: Contents, template: Source | None = None
    ) -> None:
        """Copies the template but its variables.

        Args:
          path: the folder.
          tensors: headers of all that will be written: what the template holds, of the same shapes and dtypes.
          contents: what each of them is.
          template: an open SavedModelSource.

        Raises:
          CheckpointError: there is no template, or its graph has other variables.
          RunError: the disk refused.
        """
        if not isinstance(template, SavedModelSource):
            raise CheckpointError(
                f"{path} cannot be written: a SavedModel is a graph with variables, and tensors alone make no graph. "
                "Give a SavedModel of the same model whose graph it shall have: --like=FOLDER."
            )
        self.path = path
        headers = list(tensors)
        _check_fits(path, headers, template)
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
            _copy(template.path, path)
        self._bundle: BundleSink | None = None
        if headers:
            with explained(path):
                (path / _VARIABLES).parent.mkdir(exist_ok=True)
            self._bundle = BundleSink(path / _VARIABLES, headers, contents, template.bundle)

    def write(self, key: str, chunks: Iterable[Bytes]) -> None:
        """As `Sink.write`."""
        if self._bundle is None:
            raise KeyError(key)
        self._bundle.write(key, chunks)

    def finish(self) -> None:
        """As `Sink.finish`."""
        if self._bundle is not None:
            self._bundle.finish()

    def abandon(self) -> None:
        """As `Sink.abandon`."""
        if self._bundle is not None:
            self._bundle.abandon()


def _check_fits(path: Path, tensors: Sequence[Stored], template: SavedModelSource) -> None:
    given = {each.key: each for each in tensors}
    for kind, keys in (
        ("lacks", template.tensors.keys() - given.keys()),
        ("does not know", given.keys() - template.tensors.keys()),
    ):
        if keys:
            shown = ", ".join(sorted(keys)[:_SHOWN])
            whose = "what would be written" if kind == "lacks" else "the template's graph"
            raise CheckpointError(
                f"{path} cannot be written: {whose} {kind} {len(keys)} tensor(s) ({shown}), and a SavedModel whose "
                f"variables are not those of its graph does not load. Expected those of {template.path}."
            )
    for key, stored in template.tensors.items():
        other = given[key]
        if stored.dtype != STRING and (stored.shape, stored.dtype) != (other.shape, other.dtype):
            raise CheckpointError(
                f"{path} cannot be written: {key} is {other.dtype} of shape {list(other.shape)}, and the graph of "
                f"{template.path} has {stored.dtype} of shape {list(stored.shape)}."
            )


def _copy(source: Path, target: Path) -> None:
    """Copies files and folders, links not followed, without the variables and the fingerprint."""
    for each in sorted(source.iterdir()):
        if each.name in ("variables", "fingerprint.pb"):
            continue
        if each.is_symlink():
            raise CheckpointError(f"{each} is a link; a template's files are copied, so it must hold none.")
        if each.is_dir():
            (target / each.name).mkdir()
            _copy(each, target / each.name)
        elif each.is_file():
            shutil.copyfile(each, target / each.name)
