"""Source files of data sets: found in a folder of the user's, or downloaded; always identified."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import gzip
import hashlib
import io
import os
import pathlib
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from google.protobuf import json_format
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from tfvamp.errors import DataError

RAW_DIR_VARIABLE = "TFVAMP_RAW_DIR"
LARGEST_CONTENTS = 2**28  # bytes, unpacked: the largest published file has 195 MiB
RETRIES = 4  # of a download, 6 s in all; TFDS's 10 take three minutes and a half before an error
TIMEOUT = 15  # seconds without an answer; TFDS waits for ever
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}  # what a disk fails with
SCRATCH = "tfvamp-"  # what names of unfinished folders begin with
LEFT_BEHIND = 7 * 86400  # seconds after which an unfinished folder is taken for one of a killed process


@dataclasses.dataclass(frozen=True)
class Source:
    """One published file.

    Attributes:
      filename: its name, also in a `--raw-dir` folder; there it may be gzipped, with .gz after its name.
      url: the address it is published at; None where no download exists.
      sha256, md5: a pinned checksum, of what is inside where the file is gzipped and its name does not say so.
    """

    filename: str
    url: str | None
    sha256: str | None = None
    md5: str | None = None

    def checksum(self, path: pathlib.Path, algorithm: str = "sha256") -> str:
        """The checksum of a file that stands for this one, in hexadecimal."""
        if self.filename.endswith(".gz"):
            with path.open("rb") as file:
                return hashlib.file_digest(file, algorithm).hexdigest()
        return hashlib.new(algorithm, read_bytes(path)).hexdigest()

    def published(self, path: pathlib.Path) -> bool:
        """Whether the file is the published one, as far as a checksum of that is known."""
        pinned = {"sha256": self.sha256, "md5": self.md5}
        return any(
            checksum is not None and self.checksum(path, algorithm) == checksum
            for algorithm, checksum in pinned.items()
        )


def read_bytes(path: pathlib.Path, largest: int | None = None) -> bytes:
    """What is in a file, or inside it if it is gzipped.

    Raises:
      DataError: it cannot be read, or is larger than `largest` bytes (256 MiB).
    """
    largest = LARGEST_CONTENTS if largest is None else largest
    parts: list[bytes] = []
    total = 0
    try:
        with path.open("rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if gzipped else path.open("rb") as file:
            while total <= largest and (part := file.read(2**20)):
                parts.append(part)
                total += len(part)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from error
    if total > largest:
        raise too_large(path, largest)
    return b"".join(parts)


def too_large(path: pathlib.Path, largest: int) -> DataError:
    """The error for a file that holds more than so many bytes."""
    return DataError(f"{path} holds more than {largest / 2**20:g} MiB: it is not the published file")


def raw_dir(folder: str | os.PathLike | None) -> pathlib.Path | None:
    """The folder with files fetched by hand: as given, else from TFVAMP_RAW_DIR, else None."""
    folder = folder or os.environ.get(RAW_DIR_VARIABLE)
    if not folder:
        return None
    path = pathlib.Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"there is no raw-data folder {path}: name another, or leave out --raw-dir")
    return path


def fetched_by_hand(dl_manager: tfds.download.DownloadManager, source: Source) -> pathlib.Path | None:
    """The path of a source file in TFDS's manual folder or in TFVAMP_RAW_DIR; None if it is in neither."""
    folders = [raw_dir(None)]
    with contextlib.suppress(AssertionError):  # TFDS: no such folder, or an empty one
        folders.insert(0, pathlib.Path(dl_manager.manual_dir))
    return next((path for folder in folders if (path := found(folder, source))), None)


def fetch_either(
    dl_manager: tfds.download.DownloadManager, preferred: Source, other: Source
) -> tuple[Source, pathlib.Path]:
    """One of two source files that hold the same data, and its path: the first by hand, else the other, else fetched."""
    for source in (preferred, other):
        if (path := fetched_by_hand(dl_manager, source)) is not None:
            return source, path
    return preferred, fetch(dl_manager, preferred)


def found(folder: pathlib.Path | None, source: Source) -> pathlib.Path | None:
    """The source file in a folder, plain or gzipped; None if it is not there."""
    if folder is None:
        return None
    paths = (folder / source.filename, folder / f"{source.filename}.gz")
    return next((path for path in paths if path.is_file()), None)


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
    except (OSError, tfds.download.DownloadError) as error:  # those of requests among them
        if getattr(error, "errno", None) in DISK:
            raise
        raise DataError(f"cannot download {source.filename} ({type(error).__name__}): {by_hand}") from error
    except NonMatchingChecksumError as error:
        raise DataError(
            f"the download of {source.filename} differs from the published file: {by_hand}"
        ) from error


def record(
    info: tfds.core.DatasetInfo, files: dict[Source, pathlib.Path], verified: bool | None = None
) -> None:
    """Writes into a data set's metadata the checksums of the files it is made from, and whether they are published.

    Args:
      info: of the data set.
      files: where each source file is.
      verified: what was found by other means than the files' checksums.
    """
    info.metadata["sources"] = {source.filename: source.checksum(path) for source, path in files.items()}
    published = all(source.published(path) for source, path in files.items())
    info.metadata["verified"] = published if verified is None else verified


def recorded(info: tfds.core.DatasetInfo) -> dict[str, str]:
    """The checksums that `record` wrote, read back from the prepared data."""
    return dict(_metadata(info, "sources") or {})


def verified(info: tfds.core.DatasetInfo) -> bool:
    """Whether the prepared data are made from the published files, as `record` wrote."""
    return bool(_metadata(info, "verified"))


def _metadata(info: tfds.core.DatasetInfo, key: str):
    """What `record` wrote; None where it wrote nothing."""
    try:
        return info.metadata[key]  # `in` does not load TFDS's lazy metadata
    except (KeyError, TypeError):
        return None
    except ValueError as error:  # of JSON
        raise damaged(str(info.data_dir), error) from error


def damaged(folder: str, error: Exception) -> DataError:
    """The error for prepared data that cannot be read."""
    return DataError(
        f"the prepared data in {folder} are damaged ({type(error).__name__}): "
        "delete that folder and run the command again"
    )


def image_info(
    builder: tfds.core.GeneratorBasedBuilder,
    shape,
    homepage: str,
    num_classes: int | None = None,
    dtype=np.uint8,
) -> tfds.core.DatasetInfo:
    """What a data set of images [H, W, C] holds: `image`, and `label` if there are classes."""
    features = {"image": tfds.features.Image(shape=shape, dtype=dtype)}
    if num_classes is not None:
        features["label"] = tfds.features.ClassLabel(num_classes=num_classes)
    return builder.dataset_info_from_configs(
        features=tfds.features.FeaturesDict(features),
        supervised_keys=("image", "label") if num_classes is not None else None,
        homepage=homepage,
        metadata=tfds.core.MetadataDict(),
    )


def examples(images: np.ndarray, labels: np.ndarray | None = None):
    """The examples of a builder's split."""
    for index, image in enumerate(images):
        yield index, {"image": image} if labels is None else {"image": image, "label": int(labels[index])}


def prepare(
    builder_class,
    data_dir: str | None,
    folder: pathlib.Path | None,
    say: Callable[[str], None],
    progress: bool = False,
) -> tfds.core.DatasetBuilder:
    """The prepared builder: as it is on disk, or made now.

    Data prepared from other files than those in `folder` are made anew, beside the old
    ones, which are replaced only when the new ones are complete.
    """
    builder = opened(builder_class, data_dir)
    if not builder.data_path.exists():
        say(f"preparing {builder.name} in {builder.data_dir}")
        _download_and_prepare(builder, folder, progress)
        return builder_class(data_dir=data_dir)
    offered = {
        source.filename: source.checksum(path)
        for source in builder_class.SOURCES
        if (path := found(folder, source)) is not None
    }
    before = recorded(builder.info)
    known = {name: checksum for name, checksum in offered.items() if name in before} or offered
    if all(before.get(name) == checksum for name, checksum in known.items()):
        return builder
    offered = {name: checksum for name, checksum in known.items() if before.get(name) != checksum}
    say(f"preparing {builder.name} anew: {', '.join(offered)} in {folder} differs from what it was made of")
    try:
        with scratch(pathlib.Path(builder.data_dir).parent) as place:
            anew = builder_class(data_dir=str(place))
            _download_and_prepare(anew, folder, progress)
            replace_folder(pathlib.Path(anew.data_dir), pathlib.Path(builder.data_dir), place)
    except OSError as error:
        raise _unwritable(builder, error) from error
    return builder_class(data_dir=data_dir)


def opened(builder_class, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """A builder with what is known of the prepared data.

    Raises:
      DataError: that is damaged.
    """
    try:
        return builder_class(data_dir=data_dir)
    except (ValueError, json_format.ParseError) as error:  # of its metadata
        root = data_dir or tfds.core.constants.DATA_DIR
        raise damaged(os.path.join(root, builder_class.name), error) from error


@contextlib.contextmanager
def scratch(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty folder in `root`, removed at the end; those that killed processes left are removed after a week."""
    for left in root.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError):  # another process is removing it, too
            if left.stat().st_mtime < time.time() - LEFT_BEHIND:
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=root, ignore_cleanup_errors=True) as folder:
        yield pathlib.Path(folder)


def replace_folder(new: pathlib.Path, old: pathlib.Path, aside: pathlib.Path) -> None:
    """Puts a folder in the place of another, if there is one, which is moved into `aside`; neither is ever in parts."""
    with contextlib.suppress(FileNotFoundError):
        os.replace(old, aside / "old")
    try:
        os.replace(new, old)
    except OSError:
        if not old.is_dir():  # else another process was faster
            raise


@contextlib.contextmanager
def tfds_output(progress: bool):
    """TFDS with its progress bars or without, without what it prints, and with an end to what it waits for."""
    (tfds.enable_progress_bar if progress else tfds.disable_progress_bar)()
    retries, get = downloader.MAX_RETRIES, requests.Session.get
    try:
        downloader.MAX_RETRIES = RETRIES
        # TFDS makes its own sessions and takes no timeout; a checker knows no replaced methods.
        requests.Session.get = functools.partialmethod(get, timeout=TIMEOUT)  # type: ignore[method-assign,assignment]
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        downloader.MAX_RETRIES = retries
        requests.Session.get = get  # type: ignore[method-assign]  # as above


def _download_and_prepare(
    builder: tfds.core.DatasetBuilder, folder: pathlib.Path | None, progress: bool
) -> None:
    config = tfds.download.DownloadConfig(manual_dir=folder, try_download_gcs=False)
    try:
        with tfds_output(progress):
            builder.download_and_prepare(download_config=config)
    except (OSError, RuntimeError, tf.errors.OpError) as error:  # TFDS wraps what TensorFlow raises
        if not builder.data_path.exists():  # else another process was faster
            raise _unwritable(builder, error) from error


def _unwritable(builder: tfds.core.DatasetBuilder, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error)[:200]
    return DataError(
        f"cannot prepare {builder.name} in {builder.data_dir} ({reason}): choose another --data-dir"
    )
