"""TensorBoard events, written as protocol buffers so that every paradigm logs alike, graph mode or not."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tfport.errors import RunError
from tfport.files import explained

if TYPE_CHECKING:
    from PIL import Image


class EventWriter:
    """One event file in `folder`; a resumed run writes another, and TensorBoard drops what its start replaces."""

    def __init__(self, folder: Path, start: int) -> None:
        """Opens a new file for a run that goes on after `start` steps.

        Raises:
          RunError: the folder cannot be written.
        """
        import tensorflow as tf

        self._v1 = tf.compat.v1
        self._failures = (OSError, tf.errors.OpError)
        self._folder = folder
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            taken = len(list(folder.glob("events.out.tfevents.*")))
            path = folder / f"events.out.tfevents.{int(time.time())}.{taken:04d}"
            path.touch()
        self._writer = tf.io.TFRecordWriter(str(path))
        self._write(self._v1.Event(file_version="brain.Event:2"))
        # Readers drop what older files hold of this step and later ones; step `start` itself was logged and stays.
        first = start + 1 if start else 0
        self._write(self._v1.Event(step=first, session_log=self._v1.SessionLog(status=self._v1.SessionLog.START)))

    def _write(self, event: object) -> None:
        event.wall_time = time.time()  # type: ignore[attr-defined]
        try:
            self._writer.write(event.SerializeToString())  # type: ignore[attr-defined]
            self._writer.flush()
        except self._failures as error:
            raise RunError(f"cannot write TensorBoard events to {self._folder}: {error}.") from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One value a tag at `step`."""
        summary = self._v1.Summary
        rows = [summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(self._v1.Event(step=step, summary=summary(value=rows)))

    def image(self, step: int, tag: str, image: Image.Image) -> None:
        """One picture at `step`."""
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        summary = self._v1.Summary
        picture = summary.Image(
            height=image.height, width=image.width, colorspace=1, encoded_image_string=buffer.getvalue()
        )
        self._write(self._v1.Event(step=step, summary=summary(value=[summary.Value(tag=tag, image=picture)])))

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()
