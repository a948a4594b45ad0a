"""Source files of data sets: found in a folder of the user's, or downloaded; always identified."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from tfvamp.errors import DataError

RAW_DIR_VARIABLE = "TFVAMP_RAW_DIR"


@dataclasses.dataclass(frozen=True)
class Source:
    """One published file.

    Attributes:
      filename: its name, also in a `--raw-dir` folder.
      url: the address it is published at; None where no download exists.
      sha256: its pinned checksum.
    """

    filename: str
    url: str | None
    sha256: str


def raw_dir(folder: str | os.PathLike | None) -> pathlib.Path | None:
    """The folder with files fetched by hand: as given, else from TFVAMP_RAW_DIR, else None."""
    folder = folder or os.environ.get(RAW_DIR_VARIABLE)
    if not folder:
        return None
    path = pathlib.Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"the raw-data folder {path} does not exist: create it, or leave out --raw-dir")
    return path


def sha256(path: pathlib.Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetched_by_hand(dl_manager: tfds.download.DownloadManager, source: Source) -> pathlib.Path | None:
    """The path of a source file in TFDS's manual folder or in TFVAMP_RAW_DIR; None if it is in neither."""
    folders = [raw_dir(None)]
    with contextlib.suppress(AssertionError):  # TFDS: no such folder, or an empty one
        folders.insert(0, pathlib.Path(dl_manager.manual_dir))
    for folder in folders:
        if folder is not None and (folder / source.filename).is_file():
            return folder / source.filename
    return None


def fetch(dl_manager: tfds.download.DownloadManager, source: Source) -> pathlib.Path:
    """The path of a source file: from the manual folder if it is there, else downloaded.

    Raises:
      DataError: it is not there and cannot be downloaded, or the download is not the published file.
    """
    path = fetched_by_hand(dl_manager, source)
    if path is not None:
        return path
    by_hand = (
        f"fetch {source.url} by hand, put it in a folder as {source.filename}, and pass that folder "
        f"with --raw-dir (or set {RAW_DIR_VARIABLE})"
    )
    try:
        return pathlib.Path(dl_manager.download(source.url))
    except (OSError, requests.RequestException, tfds.download.DownloadError) as error:
        raise DataError(f"cannot download {source.filename} ({type(error).__name__}): {by_hand}") from error
    except NonMatchingChecksumError as error:
        raise DataError(
            f"the download of {source.filename} differs from the published file: {by_hand}"
        ) from error


def record(info: tfds.core.DatasetInfo, files: dict[Source, pathlib.Path]) -> None:
    """Writes the checksums of the files that a data set is made from into its metadata."""
    info.metadata["sources"] = {source.filename: sha256(path) for source, path in files.items()}


def recorded(info: tfds.core.DatasetInfo) -> dict[str, str]:
    """The checksums that `record` wrote, read back from the prepared data."""
    try:
        return dict(info.metadata["sources"])  # `in` does not load TFDS's lazy metadata
    except (KeyError, TypeError):
        return {}


def prepare(
    builder_class, data_dir: str | None, folder: pathlib.Path | None, say: Callable[[str], None]
) -> tfds.core.DatasetBuilder:
    """The prepared builder: as it is on disk, or made now.

    Data prepared from other files than those in `folder` are made anew, beside the old
    ones, which are replaced only when the new ones are complete.
    """
    builder = builder_class(data_dir=data_dir)
    if not builder.data_path.exists():
        say(f"preparing {builder.name} in {builder.data_dir}")
        _download_and_prepare(builder, folder)
        return builder
    offered = {
        source.filename: sha256(folder / source.filename)
        for source in builder_class.SOURCES
        if folder is not None and (folder / source.filename).is_file()
    }
    before = recorded(builder.info)
    if all(before.get(name) == checksum for name, checksum in offered.items()):
        return builder
    say(f"preparing {builder.name} anew: {', '.join(offered)} in {folder} differs from what it was made of")
    root = pathlib.Path(builder.data_dir).parent
    with tempfile.TemporaryDirectory(prefix="tfvamp-", dir=root) as scratch:
        anew = builder_class(data_dir=scratch)
        _download_and_prepare(anew, folder)
        shutil.rmtree(builder.data_dir)
        os.replace(anew.data_dir, builder.data_dir)
    return builder_class(data_dir=data_dir)


def _download_and_prepare(builder: tfds.core.DatasetBuilder, folder: pathlib.Path | None) -> None:
    config = tfds.download.DownloadConfig(manual_dir=folder, try_download_gcs=False)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints what it does
            builder.download_and_prepare(download_config=config)
    except OSError as error:
        raise DataError(
            f"cannot prepare {builder.name} in {builder.data_dir} ({error.strerror or error}): "
            "choose another --data-dir"
        ) from error
