"""The history as TensorBoard shows it: every epoch once, however often the run was stopped."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import tensorflow as tf

from tfvamp import files


class Summaries:
    """Writes the rows of a history as scalars.

    Args:
      folder: where; what is there is replaced by `rows`.
      rows: those written so far.

    Raises:
      FileError: the folder cannot be written.
    """

    def __init__(self, folder: pathlib.Path, rows: list[dict[str, float]]):
        def fill(new: pathlib.Path) -> None:
            writer = tf.summary.create_file_writer(str(new))
            for row in rows:
                _write(writer, row)
            writer.close()

        self._folder = folder
        with self._errors():
            if rows or folder.is_dir():
                files.replace_folder(folder, fill)
            self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, row: dict[str, float]) -> None:
        """Adds one epoch."""
        with self._errors():
            _write(self._writer, row)
            self._writer.flush()

    def close(self) -> None:
        """Ends the file; the folder may be moved then."""
        with self._errors():
            self._writer.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            raise files.cannot_write(self._folder, error) from error


def _write(writer: tf.summary.SummaryWriter, row: dict[str, float]) -> None:
    with writer.as_default(step=row["epoch"]):
        for name, value in row.items():
            if name != "epoch":
                tf.summary.scalar(name.replace("_", "/", 1), value)
