"""Folders of PNG and JPEG files as images of one size."""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps

from tfvamp.datasets import image_store
from tfvamp.datasets.preparation import Preparation
from tfvamp.datasets.sources import is_data
from tfvamp.datasets.splits import SPLIT_SEED, SPLITS
from tfvamp.errors import DataError
from tfvamp.files import check_images, counted, printable, reason, shown

SUFFIXES = (".png", ".jpg", ".jpeg")
LARGEST_IMAGE = 2**26  # pixels
MOST_BROKEN = 0.1  # share of files that may be broken
GREY_MODES = ("1", "L", "LA", "La", "F")
SHOWN = 20  # maximum number of broken files that are named; all are in index.json
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's, by channels


def of_folder(
    folder: pathlib.Path,
    size: tuple[int, int],
    channels: int | None,
    background: str,
    preparation: Preparation,
) -> image_store.Store:
    """Returns the PNG and JPEG images under a folder, resized to one size.

    If `channels` is None, the images are grey if all files are, and in colour otherwise.
    Transparent images are laid over the background, "white" or "black". Hidden files and folders
    are ignored. Links to folders are followed, each folder once.

    Images in subfolders have the name of their first subfolder as their class. If there are
    subfolders train, validation and test, these are the splits, and classes are subfolders of them.
    Otherwise, all images are split by a fixed seed, one in ten for validation and one in ten for
    the test.

    Raises:
      DataError: there is no such folder, or no image in it, or more than one file in ten is broken;
        or the images are not prepared and must not be prepared.
    """
    check_images(folder, folder=True)
    found = [split for split in SPLITS if os.path.isdir(folder / split)]
    by_split = len(found) == len(SPLITS)
    if found and not by_split:
        raise DataError(
            f"{shown(folder)} has the folders {', '.join(found)}, but not all of {', '.join(SPLITS)}: "
            "make all three, or none to have the images split by a fixed seed"
        )
    places: dict[str, pathlib.Path] = {split: folder / split for split in SPLITS}

    def class_of(path: pathlib.Path, split: str) -> str | None:
        """Returns the first subfolder on the way to an image, its class; None for an image outside subfolders."""
        parts = path.relative_to(places[split] if by_split else folder).parts
        return parts[0] if len(parts) > 1 else None

    left_out: collections.Counter[str] = collections.Counter()
    paths = {
        split: files_under(place, SUFFIXES, left_out)
        for split, place in (places if by_split else {"all": folder}).items()
    }
    listing = image_store.listing([path for group in paths.values() for path in group], folder)
    said = ", ".join(f"{what}: {count}" for what, count in sorted(left_out.items()))
    if not listing:
        raise DataError(
            f"{shown(folder)} has no PNG or JPEG image, nor has a folder in it{said and f' (left out, {said})'}"
        )
    if not by_split:
        order = np.random.default_rng(SPLIT_SEED).permutation(len(listing))
        paths = {"all": [paths["all"][index] for index in order]}
    classes = sorted({name for split in paths for path in paths[split] if (name := class_of(path, split))})
    key = image_store.key_of(
        "folder with labels", os.fsencode(folder.resolve()).hex(), listing, size, channels, background
    )
    broken: list[str] = []
    transparent = 0

    @functools.cache
    def shape() -> tuple[int, int, int]:
        grey = all(_is_grey(path) for group in paths.values() for path in group)
        return (*size, channels or (1 if grey else 3))

    def images() -> Iterator[tuple[str, np.ndarray, int]]:
        nonlocal transparent
        for split, group in paths.items():
            for path in group:
                try:
                    image, seen_through = decode(path, size, shape()[-1], background)
                    transparent += seen_through
                    name = class_of(path, split)
                    yield split, image, classes.index(name) if name else -1
                except DataError as error:
                    broken.append(f"{printable(str(path.relative_to(folder)))} ({error})")
                    if len(broken) > max(1, MOST_BROKEN * len(listing)):
                        raise DataError(
                            f"{shown(folder)}: more than one file in ten is broken, {broken[0]} first: "
                            "remove or replace them"
                        ) from error

    store = image_store.kept(key, images(), len(listing), shape, preparation, str(folder), broken, classes)
    if store.broken:
        named = ", ".join(store.broken[:SHOWN]) + (", ..." if len(store.broken) > SHOWN else "")
        are = "is" if len(store.broken) == 1 else "are"
        preparation.say(f"{len(store.broken)} of {len(listing)} files {are} broken and left out: {named}")
    if transparent:
        other = "black" if background == "white" else "white"
        preparation.say(
            f"{counted(transparent, 'transparent image')} {'is' if transparent == 1 else 'are'} laid over {background} "
            f"(--background {other} for the other)"
        )
    if said:
        preparation.say(f"left out of {shown(folder)} ({said})")
    return store


def files_under(
    folder: pathlib.Path, suffixes: Sequence[str] = (), left_out: collections.Counter[str] | None = None
) -> list[pathlib.Path]:
    """Returns the regular files under a folder, in order, with one of these endings if any are given.

    Hidden files and folders are left out. Links are followed, to each file and folder once, and
    always to the same one. What is left out is counted by its kind. (`rglob` and, before Python
    3.12, `os.walk` call themselves for each folder in a folder, at most a thousand times.)

    Raises:
      DataError: a folder cannot be read.
    """
    left_out = collections.Counter() if left_out is None else left_out
    found: list[str] = []
    links: list[str] = []
    places, been = collections.deque([os.fspath(folder)]), set()
    try:
        while places:
            place = places.popleft()
            identity = _identity(place)
            if identity in been:
                left_out["folders that a link leads to again"] += 1
                continue
            been.add(identity)
            with os.scandir(place) as entries:
                for entry in sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name)):
                    if not is_data(entry.name):
                        left_out["hidden"] += 1
                    elif _is_kind(entry, folder=True):
                        places.append(entry.path)
                    elif not _is_kind(entry):
                        left_out["links to nothing, pipes or devices"] += 1
                    elif suffixes and pathlib.PurePath(entry.name).suffix.lower() not in suffixes:
                        left_out["of other kinds"] += 1
                    else:
                        (links if entry.is_symlink() else found).append(entry.path)
        if links:
            been = {_identity(path) for path in found}
            for path in sorted(links):
                if _identity(path) in been:
                    left_out["links to files that are there"] += 1
                else:
                    been.add(_identity(path))
                    found.append(path)
    except OSError as error:
        raise DataError(f"cannot read all folders in {shown(folder)} ({reason(error)})") from error
    return sorted(map(pathlib.Path, found))


def _identity(path: str) -> tuple[int, int]:
    """Returns an identity that a file or folder shares with all links to it."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_kind(entry: os.DirEntry, folder: bool = False) -> bool:
    """Returns whether an entry is, or leads to, a regular file (or a folder, if `folder`)."""
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def _is_grey(path: pathlib.Path) -> bool:
    """Returns whether a file's pixels are grey according to its header; a file that cannot be read counts as grey."""
    try:
        with _opened(path) as file, Image.open(file, formats=("PNG", "JPEG")) as image:
            if image.mode == "P":
                palette = image.getpalette("RGB") or []
                red, green, blue = (palette[channel::3] for channel in range(3))
                return red == green == blue
            return image.mode in GREY_MODES or image.mode.startswith("I")
    except Exception:  # Pillow may raise any error for damaged bytes; `decode` reports it
        return True


def decode(
    path: pathlib.Path, size: tuple[int, int], channels: int, background: str
) -> tuple[np.ndarray, bool]:
    """Returns a PNG or JPEG file as [H, W, 1 or 3] bytes of the given size, and whether it is transparent somewhere.

    Raises:
      DataError: the file is damaged or too large; the message is short.
    """
    try:
        with _opened(path) as file, Image.open(file, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise DataError(f"more than {LARGEST_IMAGE} pixels")
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
            transparent = upright.has_transparency_data
            if transparent:
                layers = upright.convert("RGBA")
                transparent = int(np.asarray(layers.getchannel("A")).min()) < 255
                upright = Image.alpha_composite(Image.new("RGBA", layers.size, background), layers)
            return _resize(upright.convert(MODES[channels]), size), transparent
    except DataError:
        raise
    except Exception as error:  # Pillow may raise any error for damaged bytes
        raise DataError(type(error).__name__) from error


@contextlib.contextmanager
def _opened(path: pathlib.Path):
    """Opens a file for reading, without waiting if it has become a pipe."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DataError("not a regular file")
        yield file


def resized(array: np.ndarray, size: tuple[int, int], channels: int) -> np.ndarray:
    """Returns an image [H, W, C] of bytes in another size, with another number of channels."""
    if array.shape == (*size, channels):
        return array
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    return _resize(image.convert(MODES[channels]), size)


def _resize(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BOX if _smaller(image, size) else None)
    array = np.asarray(image)
    return array[..., np.newaxis] if array.ndim == 2 else array


def _smaller(image: Image.Image, size: tuple[int, int]) -> bool:
    return image.height >= size[0] and image.width >= size[1]
