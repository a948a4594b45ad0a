"""Source files of data sets: found in the user's folder or downloaded, and always identified."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import gzip
import hashlib
import io
import lzma
import os
import pathlib
import re
import typing
import zipfile
import zlib
from typing import IO

import numpy as np
import PIL.Image
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from tfvamp.errors import DataError
from tfvamp.files import expanded, printable, reason, shown

RAW_DIR_VARIABLE = "TFVAMP_RAW_DIR"
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)  # errors from damaged archives
SHOWN = 20  # maximum number of file names in a message
MOST_TRIED = 50  # maximum number of files whose checksums are tried if no name fits
LARGEST_CONTENTS = 2**28  # bytes, unpacked: the largest published file has 195 MiB
RETRIES = 4  # of a download, 6 s in all; TFDS's 10 take three minutes and a half before an error
TIMEOUT = 15  # seconds without an answer; TFDS waits forever
DISK = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
}  # errors of a disk


@dataclasses.dataclass(frozen=True)
class Source:
    """One published file.

    Attributes:
      filename: its name, also in a `--raw-dir` folder, where it may be inside a .gz or .zip file
        (`found`).
      url: the address at which it is published; None if it cannot be downloaded.
      sha256, md5: a pinned checksum. If the file is gzipped and its name does not say so, it is the
        checksum of the contents.
    """

    filename: str
    url: str | None
    sha256: str | None = None
    md5: str | None = None

    def checksum(self, path: pathlib.Path, algorithm: str = "sha256") -> str:
        """Returns the checksum of a copy of this file, in hexadecimal."""
        if self.filename.endswith(".gz"):
            with path.open("rb") as file:
                return hashlib.file_digest(file, algorithm).hexdigest()
        return hashlib.new(algorithm, read_bytes(path)).hexdigest()

    def published(self, path: pathlib.Path) -> bool:
        """Returns whether the file is the published one, as far as its checksum is known."""
        pinned = {"sha256": self.sha256, "md5": self.md5}
        return any(
            checksum is not None and self.checksum(path, algorithm) == checksum
            for algorithm, checksum in pinned.items()
        )


def read_bytes(path: pathlib.Path, largest: int | None = None) -> bytes:
    """Returns the contents of a file, unpacked if it is gzipped or a .zip archive of one file.

    Raises:
      DataError: the file cannot be read, or its contents are larger than `largest` bytes (256 MiB).
    """
    largest = LARGEST_CONTENTS if largest is None else largest
    parts: list[bytes] = []
    total = 0
    try:
        with path.open("rb") as file:
            contents = _unpacked(file)
            while total <= largest and (part := contents.read(2**20)):
                parts.append(part)
                total += len(part)
    except (*UNREADABLE, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        raise DataError(f"{shown(path)} cannot be read ({reason(error)}): fetch it again") from error
    if total > largest:
        raise too_large(path, largest)
    return b"".join(parts)


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    """Returns the contents of a file without gzip, a .zip archive of one file, or both around it."""
    for _ in range(2):
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(b"\x1f\x8b"):
            file = typing.cast(IO[bytes], gzip.GzipFile(fileobj=file))
        elif magic in (b"PK\x03\x04", b"PK\x05\x06"):
            archive = zipfile.ZipFile(file)
            members = [info for info in archive.infolist() if not info.is_dir() and is_data(info.filename)]
            if len(members) != 1:
                raise zipfile.BadZipFile(f"an archive of {len(members)} files, not of one")
            file = archive.open(members[0])
        else:
            break
    return file


def is_data(name: str) -> bool:
    """Returns whether a path is data: not hidden, and not one of the files that a Mac adds to archives."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in pathlib.PurePosixPath(name).parts)


def too_large(path: pathlib.Path, largest: int) -> DataError:
    """Returns the error for a file that holds more than this number of bytes."""
    return DataError(f"{shown(path)} holds more than {largest / 2**20:g} MiB: it is not the published file")


def raw_dir(folder: str | os.PathLike | None, needed: bool = True) -> pathlib.Path | None:
    """Returns the folder with files fetched by hand: the given one, or else that in TFVAMP_RAW_DIR, or else None.

    Args:
      folder: the given folder.
      needed: whether files are needed; if not, it does not matter that the folder in the variable
        is missing.

    Raises:
      DataError: there is no such folder.
    """
    named = folder or os.environ.get(RAW_DIR_VARIABLE)
    if not named:
        return None
    path = expanded(named)
    if os.path.isdir(path):
        return path
    if folder:
        raise DataError(f"there is no raw-data folder {shown(path)}: name another, or leave out --raw-dir")
    if needed:
        raise DataError(
            f"there is no raw-data folder {shown(path)}, which {RAW_DIR_VARIABLE} names: "
            "set it to another, or unset it"
        )
    return None


def fetched_by_hand(dl_manager: tfds.download.DownloadManager, source: Source) -> pathlib.Path | None:
    """Returns the path of a source file in TFDS's manual folder or in TFVAMP_RAW_DIR; None if it is in neither."""
    manual = None
    with contextlib.suppress(AssertionError):  # TFDS: no such folder, or an empty one
        manual = pathlib.Path(dl_manager.manual_dir)
    return found(manual, source) or found(raw_dir(None), source)


def _folder_by_hand(dl_manager: tfds.download.DownloadManager) -> pathlib.Path | None:
    """Returns TFDS's manual folder, or else TFVAMP_RAW_DIR; None if there is neither."""
    with contextlib.suppress(AssertionError):  # TFDS: no such folder, or an empty one
        return pathlib.Path(dl_manager.manual_dir)
    return raw_dir(None)


def _what_lies_there(dl_manager: tfds.download.DownloadManager) -> str:
    """Returns a list of the files in the given folder, for a message; empty without a folder."""
    folder = _folder_by_hand(dl_manager)
    if folder is None:
        return ""
    names = _names(folder)
    listed = ", ".join(printable(name) for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f". {shown(folder)} has: {listed or 'no files'}"


def fetch_either(
    dl_manager: tfds.download.DownloadManager, preferred: Source, other: Source
) -> tuple[Source, pathlib.Path]:
    """Returns one of two source files with the same data, and its path: by hand if there is one, otherwise downloaded."""
    for source in (preferred, other):
        if (path := fetched_by_hand(dl_manager, source)) is not None:
            return source, path
    return preferred, fetch(dl_manager, preferred)


def found(folder: pathlib.Path | None, source: Source) -> pathlib.Path | None:
    """Returns the source file in a folder; None if it is not there.

    The file has its own name, or .gz after it. Otherwise it may have a name changed by unpackers:
    one that differs in capitals, in .gz or .zip at its end, or in dots, dashes and underscores. Of
    several such files, it is the one with the checksum of the published file.
    """
    if folder is None:
        return None
    paths = (folder / source.filename, folder / f"{source.filename}.gz")
    if path := next((path for path in paths if os.path.isfile(path)), None):
        return path
    near = [folder / name for name in _names(folder) if _plain(name) == _plain(source.filename)]
    if len(near) > 1:
        return next((path for path in near if _proves(path, source)), near[0])
    return near[0] if near else None


def _under_any_name(folder: pathlib.Path | None, source: Source) -> pathlib.Path | None:
    """Returns the file in a folder with the checksum of the published file, whatever its name is."""
    if folder is None:
        return None
    paths = (folder / name for name in _names(folder)[:MOST_TRIED])
    return next((path for path in paths if _proves(path, source)), None)


def _names(folder: pathlib.Path) -> list[str]:
    """Returns the names of the files in a folder, in order."""
    try:
        return sorted(name for name in os.listdir(folder) if is_data(name) and os.path.isfile(folder / name))
    except OSError:
        return []


def _plain(name: str) -> str:
    """Returns a name without the parts that unpackers change."""
    name = name.casefold()
    while name.endswith((".gz", ".zip")):
        name = name.rpartition(".")[0]
    return re.sub(r"[ ._-]+", "-", name)


def _proves(path: pathlib.Path, source: Source) -> bool:
    """Returns whether the checksum of a file proves that it is the published one."""
    try:
        return path.stat().st_size <= LARGEST_CONTENTS and source.published(path)
    except (DataError, OSError):
        return False


def fetch(dl_manager: tfds.download.DownloadManager, source: Source) -> pathlib.Path:
    """Returns the path of a source file: from the manual folder if it is there, otherwise downloaded.

    Raises:
      DataError: the file is not there and cannot be downloaded, or the download is not the
        published file.
    """
    path = fetched_by_hand(dl_manager, source) or _under_any_name(_folder_by_hand(dl_manager), source)
    if path is not None:
        return path
    by_hand = (
        f"fetch {source.url} by hand, put it in a folder as {source.filename}, and pass that folder "
        f"with --raw-dir (or set {RAW_DIR_VARIABLE}){_what_lies_there(dl_manager)}"
    )
    try:
        return pathlib.Path(dl_manager.download(source.url))
    except (OSError, tfds.download.DownloadError) as error:  # including those of requests
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
    """Writes the checksums of a data set's source files, and whether they are the published ones, into its metadata.

    Args:
      info: the information of the data set.
      files: path of each source file.
      verified: the result of a check by other means than the files' checksums.
    """
    info.metadata["sources"] = {source.filename: source.checksum(path) for source, path in files.items()}
    published = all(source.published(path) for source, path in files.items())
    info.metadata["verified"] = published if verified is None else verified


def image_info(
    builder: tfds.core.GeneratorBasedBuilder,
    shape,
    homepage: str,
    num_classes: int | None = None,
    dtype=np.uint8,
) -> tfds.core.DatasetInfo:
    """Returns the information of a data set of images [H, W, C]: `image`, and `label` if there are classes."""
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
    """Returns the examples of a builder's split: images [N, H, W, 1] of bytes (as PNG files) or floats, and their labels."""
    for index, image in enumerate(images):
        example = {"image": to_png(image) if images.dtype == np.uint8 else image}
        yield index, example if labels is None else {**example, "label": int(labels[index])}


def to_png(image: np.ndarray) -> bytes:
    """Returns the PNG file of an image [H, W, 1] of bytes, by Pillow.

    For 28x28, TensorFlow takes 2.4 times as long, and Pillow's usual compression 1.6 times, for files that are 20 % smaller.
    """
    buffer = io.BytesIO()
    PIL.Image.fromarray(image[..., 0]).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


@contextlib.contextmanager
def tfds_output(progress: bool):
    """Runs TFDS with or without its progress bars, without its prints, and with limits on how long it waits."""
    (tfds.enable_progress_bar if progress else tfds.disable_progress_bar)()
    retries, get = downloader.MAX_RETRIES, requests.Session.get
    try:
        downloader.MAX_RETRIES = RETRIES
        # TFDS makes its own sessions and takes no timeout. Type checkers do not accept replaced methods.
        requests.Session.get = functools.partialmethod(get, timeout=TIMEOUT)  # type: ignore[method-assign,assignment]
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        downloader.MAX_RETRIES = retries
        requests.Session.get = get  # type: ignore[method-assign]  # as above
