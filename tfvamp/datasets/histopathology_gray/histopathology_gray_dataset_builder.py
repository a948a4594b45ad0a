"""Histopathology, 28x28 grey patches of tissue (Tomczak and Welling 2016)."""

from __future__ import annotations

import pathlib
import tarfile
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfvamp.datasets import safe_pickle, sources
from tfvamp.errors import DataError
from tfvamp.files import reason, shown

NAME = "histopathology.pkl"
# We know of no checksum of the published file: data made from it count as unverified.
PICKLE = sources.Source(filename=NAME, url=None)
ARCHIVE = sources.Source(
    filename=f"{NAME}.tar.gz",
    url="https://github.com/jmtomczak/vae_householder_flow/raw/master/datasets/histopathologyGray/histopathology.pkl.tar.gz",
)
SPLITS = {"train": "training", "validation": "validation", "test": "test"}  # split -> its key in the file
LARGEST_ARCHIVE = safe_pickle.LARGEST_PICKLE + 2**20  # bytes, unpacked
LARGEST_COUNT = 20_000  # images of a split; the published counts are 6800, 2000 and 2000


class Builder(tfds.core.GeneratorBasedBuilder):
    """DatasetBuilder for histopathology_gray."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "6800 / 2000 / 2000 patches as published."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Optional: put {ARCHIVE.filename} or {PICKLE.filename} in this folder."
    SOURCES = (ARCHIVE, PICKLE)

    def _info(self) -> tfds.core.DatasetInfo:
        homepage = "https://github.com/jmtomczak/vae_householder_flow"
        return sources.image_info(self, (28, 28, 1), homepage, dtype=np.float32)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        source, path = sources.fetch_either(dl_manager, ARCHIVE, PICKLE)
        contents = read_archive(path) if source is ARCHIVE else sources.read_bytes(path, LARGEST_ARCHIVE)
        images = read_pickle(path, contents)
        sources.record(self.info, {source: path})
        return {split: self._generate_examples(images[split]) for split in SPLITS}

    def _generate_examples(self, images: np.ndarray):
        return sources.examples(images)


def read_archive(path: pathlib.Path) -> bytes:
    """Returns the pickle inside the archive; nothing is unpacked to disk.

    Raises:
      DataError: the file is not such an archive.
    """
    contents, start = sources.read_bytes(path, LARGEST_ARCHIVE), 0
    # Header by header: `tarfile` itself follows extensions, which may state any size or be slow to read.
    while start < len(contents):
        header = contents[start : start + tarfile.BLOCKSIZE]
        if not header.strip(b"\0"):  # the end of an archive
            break
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise DataError(
                f"{shown(path)} cannot be read as an archive ({reason(error)}): fetch it again from {ARCHIVE.url}"
            ) from error
        start += tarfile.BLOCKSIZE
        if (
            member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
            and pathlib.PurePosixPath(member.name).name == NAME
        ):
            return contents[start : start + member.size]
        start += max(0, -(-member.size // tarfile.BLOCKSIZE)) * tarfile.BLOCKSIZE
    raise DataError(f"{shown(path)} does not hold {NAME}: fetch it again from {ARCHIVE.url}")


def read_pickle(path: pathlib.Path, contents: bytes) -> dict[str, np.ndarray]:
    """Returns images [N, 28, 28, 1] (float32 in [0, 1]) of each split, read without running the pickle.

    Raises:
      DataError: the file is not such a pickle.
    """
    try:
        stored = safe_pickle.loads(contents)
    except safe_pickle.UnsafePickleError as error:
        raise DataError(f"{shown(path)} is not read: {error}; fetch it again from {ARCHIVE.url}") from error
    if not isinstance(stored, dict) or not set(SPLITS.values()) <= set(stored):
        raise DataError(f"{shown(path)} must hold a dictionary with the keys {', '.join(SPLITS.values())}")
    return {split: _images(path, stored[key], key) for split, key in SPLITS.items()}


def _images(path: pathlib.Path, stored, key: str) -> np.ndarray:
    if isinstance(stored, list) and 0 < len(stored) <= LARGEST_COUNT:
        if not all(isinstance(image, np.ndarray) and image.size == 784 for image in stored):
            raise DataError(f"{shown(path)}: {key} must hold images of 28x28 pixels")
        stored = np.stack([image.reshape(784) for image in stored])
    if not isinstance(stored, np.ndarray) or stored.size % 784 or not 0 < stored.size <= 784 * LARGEST_COUNT:
        found = list(stored.shape) if isinstance(stored, np.ndarray) else type(stored).__name__
        raise DataError(f"{shown(path)}: {key} must hold images [N, 28, 28]; got {found}")
    pixels = stored.astype(np.float32).reshape(-1, 28, 28, 1)
    if not np.isfinite(pixels).all() or pixels.min() < 0.0 or pixels.max() > 1.0:
        raise DataError(f"{shown(path)}: {key} must lie in [0, 1]; got {pixels.min():g} to {pixels.max():g}")
    return pixels
