"""Many images as one file of bytes, made once, from which training reads what a batch needs.

A store is a folder with `pixels.npy`, [N, H, W, C] uint8 in the order of the splits; `labels.npy`,
[N] int64; and `index.json`. It appears completely or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import pathlib
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tqdm

from tfvamp import files
from tfvamp.datasets.preparation import Preparation, put
from tfvamp.datasets.splits import SPLITS, split_counts
from tfvamp.errors import DataError
from tfvamp.files import counted, printable, reason, shown

FOLDER = "tfvamp_images"  # of all stores, in the data folder
LARGEST_INDEX = 2**26  # bytes: it names each broken file
NPY_HEADER = 4096  # bytes; the header of a store has 128


@dataclasses.dataclass(frozen=True)
class Store:
    """Images that have been read.

    Attributes:
      pixels: [N, H, W, C] (uint8, in a file) of each split.
      binary: whether all pixels are 0 or 255.
      checksums: sha256 of all pixels.
      broken: files that were left out, and why.
      labels: [N] of each split; -1 where there is none.
      class_names: names of the labels 0, 1...; empty if they have no names.
    """

    pixels: dict[str, np.ndarray]
    binary: bool
    checksums: dict[str, str]
    broken: list[str]
    labels: dict[str, np.ndarray]
    class_names: tuple[str, ...]


def key_of(*parts) -> str:
    """Returns the name of the store for these sources and settings."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def listing(paths: list[pathlib.Path], folder: pathlib.Path) -> list[tuple[str, int, int]]:
    """Returns the names, sizes and times of files, by which a change is noticed.

    Raises:
      DataError: a file no longer exists.
    """
    try:
        return [
            (os.fsencode(path.relative_to(folder)).hex(), path.stat().st_size, path.stat().st_mtime_ns)
            for path in paths
        ]
    except OSError as error:
        raise DataError(
            f"cannot read {shown(folder)} ({reason(error)}): did it change in the meantime?"
        ) from error


def kept(
    key: str,
    images: Iterable[tuple[str, np.ndarray, int]],
    most: int,
    shape: Callable[[], tuple[int, int, int]],
    preparation: Preparation,
    what: str,
    broken: list[str],
    class_names: Sequence[str] = (),
) -> Store:
    """Returns the store with that key, either as it is on disk or made now.

    Args:
      key: key of the store.
      images: (split, image, label) of at most `most` images.
      most: maximum number of images.
      shape: a function that returns (H, W, C) of each image, when the images are read.
      preparation: where the store is made, and whether it may be.
      what: a readable name of the images.
      broken: what `images` has left out, complete once all images are taken.
      class_names: names of the labels.

    Raises:
      DataError: the store is damaged, cannot be made, or must not be made.
    """
    root = preparation.root / FOLDER
    folder = root / key[:16]
    preparation.sweep(root)
    try:
        if not os.path.isfile(folder / "index.json"):
            preparation.check(root)
            needed = files.size(_checked_size(most, shape(), root, what))
            preparation.say(
                f"reading {counted(most, 'image')} of {shown(what)} into {shown(folder)} ({needed})"
            )
            hidden = not preparation.progress
            bar = tqdm.tqdm(images, printable(what), most, leave=False, unit=" images", disable=hidden)
            with files.scratch_folder(root) as scratch:
                made = scratch / "store"
                made.mkdir()
                write(made, bar, most, shape(), what, broken, class_names)
                put(made, folder, again=os.path.isdir(folder) and not os.path.isfile(folder / "index.json"))
        return opened(folder)
    except OSError as error:
        raise DataError(
            f"cannot keep the images of {shown(what)} in {shown(root)} ({reason(error)}): "
            "choose another --data-dir"
        ) from error


def _checked_size(most: int, shape: tuple[int, int, int], root: pathlib.Path, what: str) -> int:
    """Returns the number of bytes that a store takes.

    Raises:
      DataError: the disk does not have as many.
    """
    needed = most * math.prod(shape)
    place = next(place for place in (root, *root.absolute().parents) if os.path.exists(place))
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DataError(
            f"the {most} images of {shown(what)} at {shape[0]}x{shape[1]} would need {files.size(needed)} in "
            f"{shown(root)}, where {files.size(free)} are free: choose a smaller --image-size or another --data-dir"
        )
    return needed


def write(
    folder: pathlib.Path,
    images,
    most: int,
    shape,
    what: str,
    broken: list[str],
    class_names: Sequence[str] = (),
) -> None:
    """Writes a store into an empty folder; arguments as for `kept`."""
    counts: dict[str, int] = {}
    binary, checksum = True, hashlib.sha256()
    low, high = 255, 0
    labels: list[int] = []
    with (folder / "pixels.npy").open("wb") as file:  # not a memory map, whose pages count as memory
        header = {"descr": "|u1", "fortran_order": False, "shape": (most, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for split, image, label in images:
            assert image.shape == shape and image.dtype == np.uint8
            contents = image.tobytes()
            file.write(contents)
            checksum.update(contents)
            low, high = min(low, int(image.min())), max(high, int(image.max()))
            binary = binary and bool(np.isin(image, (0, 255)).all())
            counts[split] = counts.get(split, 0) + 1
            labels.append(label)
        written = sum(counts.values())
        file.truncate(file.tell() + (most - written) * math.prod(shape))
    if low >= high:
        raise DataError(f"{shown(what)}: all pixels of all images are {low}: there is nothing to learn")
    counts = split_counts(written, shown(what)) if "all" in counts else counts
    for split in SPLITS:
        if counts.get(split, 0) < 1:
            raise DataError(
                f"{shown(what)} has no image for {split}: three splits need at least one image each"
            )
    checksums = {f"the pixels of {printable(what)}": checksum.hexdigest()}
    index = {
        "counts": [counts[split] for split in SPLITS],
        "binary": binary,
        "checksums": checksums,
        "broken": broken,
        "class_names": [printable(name) for name in class_names],
    }
    contents = files.json_bytes(index)
    if len(contents) > LARGEST_INDEX:
        raise DataError(f"{shown(what)} has {len(broken)} broken files: remove or replace them")
    np.save(folder / "labels.npy", np.array(labels, np.int64))
    (folder / "index.json").write_bytes(contents)


def with_checksums(root: pathlib.Path, checksums: Iterable[str]) -> Store | None:
    """Returns the store with those pixels in the folder of all stores, wherever they came from, or None."""
    wanted = sorted(checksums)
    places = sorted(root.iterdir()) if os.path.isdir(root) else []
    for folder in places:
        if os.path.isfile(folder / "index.json"):
            with contextlib.suppress(DataError):  # a damaged store is skipped
                store = opened(folder)
                if sorted(store.checksums.values()) == wanted:
                    return store
    return None


def opened(folder: pathlib.Path) -> Store:
    """Returns the store in a folder.

    Raises:
      DataError: it is damaged.
    """
    try:
        index = files.read_json(folder / "index.json", LARGEST_INDEX)
        pixels = _mapped(folder / "pixels.npy")
        counts, checksums, broken = index["counts"], index["checksums"], index.get("broken", [])
        class_names = index.get("class_names", [])
        texts = [*checksums, *checksums.values(), *broken, *class_names]
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise ValueError("texts that are none")
        if len(counts) != len(SPLITS) or not all(type(count) is int and count > 0 for count in counts):
            raise ValueError("no number of images for each split")
        ends = np.cumsum([0, *counts])
        labels = _labels(folder / "labels.npy", int(ends[-1]))
        if ends[-1] > len(pixels):
            raise ValueError("too few images")
        parts: dict[str, np.ndarray] = {
            split: pixels[ends[i] : ends[i + 1]] for i, split in enumerate(SPLITS)
        }
        of_split: dict[str, np.ndarray] = {
            split: labels[ends[i] : ends[i + 1]] for i, split in enumerate(SPLITS)
        }
        binary = bool(index["binary"])
        return Store(parts, binary, dict(checksums), list(broken), of_split, tuple(class_names))
    except Exception as error:  # damaged bytes may lead to any error
        raise DataError(
            f"the images kept in {shown(folder)} are damaged: delete that folder and run again ({reason(error)})"
        ) from error


def _labels(path: pathlib.Path, count: int) -> np.ndarray:
    """Returns the labels of a store; -1 for a store without labels."""
    if not os.path.isfile(path):
        return np.full(count, -1, np.int64)
    labels = np.lib.format.read_array(
        io.BytesIO(files.read_bytes(path, 8 * count + NPY_HEADER)), allow_pickle=False
    )
    if labels.shape != (count,) or labels.dtype != np.int64:
        raise ValueError("no label for each image")
    return labels


def _mapped(path: pathlib.Path) -> np.ndarray:
    """Returns the array of a store, read from its file when it is needed."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of .npy")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=NPY_HEADER)
        if fortran or dtype != np.uint8 or len(shape) != 4 or min(shape) < 1:
            raise ValueError("not images of bytes")
        return np.memmap(file, np.uint8, "r", file.tell(), shape)
