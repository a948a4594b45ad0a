"""Prepares data with TFDS, completely or not at all, if they are missing and may be prepared."""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import typing
from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf
import tensorflow_datasets as tfds

from tfvamp import files
from tfvamp.datasets import sources
from tfvamp.datasets.builders import folder_of, opened, recorded
from tfvamp.errors import DataError
from tfvamp.files import expanded, printable, reason, shown

Prepare = Literal["replace", "missing", "never"]
PREPARE: tuple[Prepare, ...] = typing.get_args(Prepare)
FASTER = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT}  # errors of a move after another process made the same


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Where data are prepared, whether they may be, and how progress is shown.

    Attributes:
      name: name of the data set on the command line.
      data_dir: folder of prepared data; None for TFDS's own default.
      prepare: "replace", "missing" or "never", as for `datasets.load`.
      say: a function that gets one line of text when data are prepared.
      progress: whether bars are shown meanwhile.
      options: further options of the command that prepares the data.
    """

    name: str
    data_dir: str | None = None
    prepare: Prepare = "replace"
    say: Callable[[str], None] = lambda text: None
    progress: bool = False
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def root(self) -> pathlib.Path:
        """The folder of all prepared data."""
        return expanded(self.data_dir or tfds.core.constants.DATA_DIR)

    def command(self, **more: Any) -> str:
        """Returns the command that prepares the data, to be pasted into a shell."""
        words = ["tfvamp datasets prepare", shown(self.name)]
        for option, value in {**self.options, **more, "data_dir": self.data_dir}.items():
            if value:
                words.append(f"--{option.replace('_', '-')}")
                words += [] if value is True else [shown(value)]
        return " ".join(words)

    def sweep(self, folder: pathlib.Path) -> None:
        """Removes what killed processes left in a folder, unless nothing may be written."""
        if self.prepare != "never":
            files.sweep(folder)

    def check(self, folder: pathlib.Path) -> None:
        """Raises DataError if data that are missing in a folder must not be prepared."""
        if self.prepare == "never":
            raise DataError(
                f"{printable(self.name)} is not prepared in {shown(folder)}; to prepare it, run {self.command()}"
            )


def prepare(
    builder_class, raw: str | os.PathLike | None, preparation: Preparation
) -> tfds.core.DatasetBuilder:
    """Returns the prepared builder, either as it is on disk or prepared now.

    Args:
      builder_class: one of `datasets.BUILDERS`.
      raw: the folder with source files, as for `sources.raw_dir`.
      preparation: what to do if the data are missing, or were made from other files than those in
        `raw`.

    Raises:
      DataError: the data are damaged, cannot be prepared, or must not be prepared.
    """
    source_dir = sources.raw_dir(raw, needed=False)
    builder = opened(builder_class, preparation.data_dir)
    folder = folder_of(builder)
    missing = not os.path.exists(folder)
    preparation.sweep(folder.parent)
    if missing and os.path.exists(folder):  # it was put back: a killed process had moved it
        builder = opened(builder_class, preparation.data_dir)
    if not os.path.exists(folder):
        preparation.check(folder)
        source_dir = sources.raw_dir(raw)
        preparation.say(f"preparing {builder.name} in {shown(folder)}")
        _make(builder, source_dir, preparation)
        return opened(builder_class, preparation.data_dir)
    changed = _changed(builder, source_dir)
    if source_dir is None or not changed:
        return builder
    differ = (
        f"{', '.join(changed)} in {shown(source_dir)} {'differs' if len(changed) == 1 else 'differ'} from"
    )
    if preparation.prepare != "replace":
        raise DataError(
            f"{differ} what the prepared data in {shown(folder)} were made from; to prepare them again, run "
            f"{preparation.command(raw_dir=source_dir)}"
        )
    preparation.say(f"preparing {builder.name} again: {differ} what it was made from")
    _make(builder, source_dir, preparation, again=True)
    return opened(builder_class, preparation.data_dir)


def _changed(builder: tfds.core.DatasetBuilder, source_dir: pathlib.Path | None) -> list[str]:
    """Returns the names of source files in a folder that differ from those which the prepared data were made from."""
    before = recorded(builder.info)
    offered = {
        source.filename: source.checksum(path)
        for source in builder.SOURCES
        if (path := sources.found(source_dir, source)) is not None
    }
    known = {name: checksum for name, checksum in offered.items() if name in before} or offered
    return [name for name, checksum in known.items() if before.get(name) != checksum]


def _make(
    builder: tfds.core.DatasetBuilder,
    source_dir: pathlib.Path | None,
    preparation: Preparation,
    again: bool = False,
) -> None:
    config = tfds.download.DownloadConfig(manual_dir=source_dir, try_download_gcs=False)
    try:
        make(builder, config, preparation.progress, again)
    except (
        OSError,
        RuntimeError,
        UnicodeError,
        tf.errors.OpError,
    ) as error:  # TFDS wraps some errors in RuntimeError
        if again or not os.path.exists(folder_of(builder)):  # otherwise another process was faster
            raise unwritable(builder.name, folder_of(builder), error) from error


def make(
    builder: tfds.core.DatasetBuilder,
    config: tfds.download.DownloadConfig,
    progress: bool,
    again: bool = False,
) -> None:
    """Prepares a builder's data in a scratch folder beside their place, and moves them there when they are complete.

    Downloads are kept where TFDS keeps them, for the next attempt.

    Args:
      builder: the builder whose data are prepared.
      config: how downloads are done.
      progress: whether bars are shown.
      again: whether to replace existing data. Otherwise, data that another process prepared in the
        meantime stay.
    """
    folder, downloads = folder_of(builder), expanded(builder.data_dir_root) / "downloads"
    with files.scratch_folder(folder.parent) as scratch:
        new = opened(type(builder), scratch, config=builder.builder_config)
        with sources.tfds_output(progress):
            new.download_and_prepare(download_dir=os.fspath(downloads), download_config=config)
        put(folder_of(new), folder, again)
        note = scratch / builder.name / ".config"  # which configuration is the default
        if note.exists():
            put(note, folder.parent.parent / ".config")


def put(new: pathlib.Path, folder: pathlib.Path, again: bool = False) -> None:
    """Moves a complete folder to its place; `again` replaces what is there, which otherwise stays."""
    try:
        files.put_folder(new, folder, replace=again)
    except OSError as error:
        if error.errno not in FASTER or not os.path.isdir(folder):
            raise


def unwritable(name: str, folder: pathlib.Path, error: Exception) -> DataError:
    """Returns the error for data that cannot be prepared in a folder."""
    why = reason(error)
    if not isinstance(error, OSError):  # TensorFlow's "what was done with which file; why it failed"
        why = printable(str(error).rsplit("; ", 1)[-1])[:200]
    return DataError(f"cannot prepare {name} in {shown(folder)} ({why}): choose another --data-dir")
