"""Many images as one file of bytes, made once, from which training reads what a batch needs.

A store is a folder with `pixels.npy`, [N, H, W, C] uint8 in the order of the splits, and `index.json`. It appears
whole or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import requests
import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm
from google.protobuf import json_format
from PIL import Image, ImageOps

from tfvamp.datasets import sources
from tfvamp.datasets.splits import SHARE, SPLIT_SEED, SPLITS, split_counts
from tfvamp.errors import DataError, UsageError, printable

SUFFIXES = (".png", ".jpg", ".jpeg")
LARGEST_IMAGE = 2**26  # pixels
MOST_BROKEN = 0.1  # share of files that may be broken
SHOWN = 20  # broken files that are named; all are in index.json
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's, by channels


@dataclasses.dataclass(frozen=True)
class Store:
    """Images that were read.

    Attributes:
      pixels: [N, H, W, C] (uint8, in a file) of each split.
      binary: whether they are all 0 or 255.
      checksums: sha256 of all pixels.
      broken: files that were left out, and why.
    """

    pixels: dict[str, np.ndarray]
    binary: bool
    checksums: dict[str, str]
    broken: list[str]


def of_folder(
    folder: pathlib.Path,
    size: tuple[int, int],
    grayscale: bool,
    data_dir: str | None,
    say: Callable[[str], None],
    progress: bool = False,
) -> Store:
    """The PNG and JPEG images under a folder, brought to one size.

    Subfolders train, validation and test are the splits; without them all images are split by a fixed seed, one in
    ten for validation and one in ten for the test.

    Raises:
      DataError: there is no such folder, or no image in it, or more than one file in ten is broken.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    found = [split for split in SPLITS if (folder / split).is_dir()]
    by_split = len(found) == len(SPLITS)
    if found and not by_split:
        raise DataError(
            f"{folder} has the folders {', '.join(found)}, but not all of {', '.join(SPLITS)}: "
            "make all three, or none to have the images split by a fixed seed"
        )
    places: dict[str, pathlib.Path] = {split: folder / split for split in SPLITS}
    paths = {split: _paths(place) for split, place in (places if by_split else {"all": folder}).items()}
    listing = _listing([path for group in paths.values() for path in group], folder)
    if not listing:
        raise DataError(f"{folder} has no PNG or JPEG image, nor has a folder in it")
    if not by_split:
        order = np.random.default_rng(SPLIT_SEED).permutation(len(listing))
        paths = {"all": [paths["all"][index] for index in order]}
    key = _key("folder", os.fsencode(folder.resolve()).hex(), listing, size, grayscale)
    channels = 1 if grayscale else 3
    broken: list[str] = []

    def images() -> Iterator[tuple[str, np.ndarray]]:
        for split, group in paths.items():
            for path in group:
                try:
                    yield split, decode(path, size, grayscale)
                except DataError as error:
                    broken.append(f"{printable(str(path.relative_to(folder)))} ({error})")
                    if len(broken) > max(1, MOST_BROKEN * len(listing)):
                        raise DataError(
                            f"{folder}: more than one file in ten is broken, {broken[0]} first: remove or replace them"
                        ) from error

    shape = (*size, channels)
    store = _store(key, images(), len(listing), shape, data_dir, say, progress, str(folder), broken)
    if store.broken:
        shown = ", ".join(store.broken[:SHOWN]) + (", ..." if len(store.broken) > SHOWN else "")
        say(f"{len(store.broken)} of {len(listing)} files are broken and left out: {shown}")
    return store


def _listing(paths: list[pathlib.Path], folder: pathlib.Path) -> list[tuple[str, int, int]]:
    """Name, size and time of files, by which a change is seen."""
    try:
        return [
            (os.fsencode(path.relative_to(folder)).hex(), path.stat().st_size, path.stat().st_mtime_ns)
            for path in paths
        ]
    except OSError as error:
        raise DataError(f"cannot read {folder} ({error.strerror}): has it changed meanwhile?") from error


def of_tfds(
    name: str,
    image_key: str,
    size: tuple[int, int] | None,
    grayscale: bool,
    data_dir: str | None,
    say: Callable[[str], None],
    progress: bool = False,
    num_validation: int | None = None,
) -> Store:
    """The images of any data set of TFDS, brought to one size if one is given.

    Its splits train, validation and test are taken as they are; where validation or test is missing, the last
    images of train stand for it: one in ten, or `num_validation`.

    Raises:
      UsageError: TFDS knows no such data set, or it has no such image.
      DataError: it cannot be prepared, or its images differ in size and none is given.
    """
    builder = tfds_builder(name, data_dir)
    features = dict((builder.info.features or {}).items())
    feature = features.get(image_key)
    if not isinstance(feature, tfds.features.Image):
        found = [key for key, value in features.items() if isinstance(value, tfds.features.Image)]
        raise UsageError(
            f"{name} has no image {image_key!r}; it has: {', '.join(found) or 'no image at all'}"
        )
    height, width, channels = feature.shape
    if size is None and (height is None or width is None):
        raise UsageError(f"the images of {name} differ in size: choose one with --image-size HxW")
    height, width = size or (height, width)
    channels = 1 if grayscale else channels or 3
    if not builder.data_path.exists():
        say(f"preparing {builder.name} in {builder.data_dir}")
        try:
            with sources.tfds_output(progress):
                builder.download_and_prepare()
        except (requests.RequestException, tfds.download.DownloadError) as error:
            raise DataError(
                f"cannot download {name} ({type(error).__name__}): check the network, or copy "
                f"{builder.data_dir} from a machine where TFDS has prepared it"
            ) from error
        except Exception as error:  # whatever the builder or the disk raise
            text = " ".join(str(error).split())[:200]
            raise DataError(
                f"cannot prepare {name} in {builder.data_dir} ({type(error).__name__}: {text})"
            ) from error
    splits = _tfds_splits(builder, num_validation)
    count = sum(stop - start for _, start, stop in splits.values())

    def images() -> Iterator[tuple[str, np.ndarray]]:
        for split, (source, start, stop) in splits.items():
            examples = builder.as_dataset(split=f"{source}[{start}:{stop}]", shuffle_files=False)
            try:
                for example in tfds.as_numpy(examples):
                    yield split, _resized(_to_bytes(example[image_key], name), (height, width), channels)
            except tf.errors.OpError as error:
                raise sources.damaged(str(builder.data_dir), error) from error

    prepared = pathlib.Path(builder.data_dir)
    files = _listing(sorted(path for path in prepared.rglob("*") if path.is_file()), prepared)
    key = _key("tfds", str(prepared), files, image_key, (height, width), channels, splits)
    return _store(key, images(), count, (height, width, channels), data_dir, say, progress, name, [])


def tfds_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """A data set of TFDS by its name.

    Raises:
      UsageError: TFDS knows none of that name.
      DataError: what is known of its prepared data is damaged.
    """
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (json.JSONDecodeError, json_format.ParseError) as error:
        root = data_dir or tfds.core.constants.DATA_DIR
        raise sources.damaged(os.path.join(root, name), error) from error
    except (tfds.core.registered.DatasetNotFoundError, ValueError, ImportError, TypeError) as error:
        raise UsageError(f"TFDS knows no data set {name!r}: see tensorflow.org/datasets/catalog") from error


def _tfds_splits(builder, num_validation: int | None) -> dict[str, tuple[str, int, int]]:
    """split -> (split in TFDS, first, last + 1)."""
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    if "train" not in counts:
        raise DataError(f"{builder.name} has no split train; it has: {', '.join(counts)}")
    splits, end = {}, counts["train"]
    part = num_validation or max(1, end // SHARE)
    for split in ("test", "validation"):
        if split in counts:
            splits[split] = (split, 0, counts[split])
        else:
            splits[split] = ("train", end - part, end)
            end -= part
    if end < 1 or min(stop - start for _, start, stop in splits.values()) < 1:
        raise DataError(f"{builder.name} has {counts['train']} training images: too few for three splits")
    splits["train"] = ("train", 0, end)
    return {split: splits[split] for split in SPLITS}


def _paths(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def decode(path: pathlib.Path, size: tuple[int, int], grayscale: bool) -> np.ndarray:
    """A PNG or JPEG file as [H, W, 1 or 3] bytes of the given size.

    Raises:
      DataError: it is damaged or too large; says so in few words.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise DataError(f"more than {LARGEST_IMAGE} pixels")
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
            return _resize(upright.convert("L" if grayscale else "RGB"), size)
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever the damaged bytes lead to
        raise DataError(type(error).__name__) from error


def _resize(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BOX if _smaller(image, size) else None)
    array = np.asarray(image)
    return array[..., np.newaxis] if array.ndim == 2 else array


def _smaller(image: Image.Image, size: tuple[int, int]) -> bool:
    return image.height >= size[0] and image.width >= size[1]


def _to_bytes(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype != np.uint8:
        raise DataError(f"the images of {name} have dtype {array.dtype}: only bytes are read")
    return array


def _resized(array: np.ndarray, size: tuple[int, int], channels: int) -> np.ndarray:
    if array.shape == (*size, channels):
        return array
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    return _resize(image.convert(MODES[channels]), size)


def _key(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _store(
    key: str,
    images: Iterable[tuple[str, np.ndarray]],
    most: int,
    shape: tuple[int, int, int],
    data_dir: str | None,
    say: Callable[[str], None],
    progress: bool,
    what: str,
    broken: list[str],
) -> Store:
    """The store of that key, as it is on disk, or made now from (split, image) of at most `most` images.

    `broken` is what `images` has left out, once they are all taken.
    """
    root = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / "tfvamp_images"
    folder = root / key[:16]
    try:
        if not (folder / "index.json").is_file():
            say(f"reading {most} images of {what} into {folder}")
            root.mkdir(parents=True, exist_ok=True)
            with sources.scratch(root) as scratch:
                made = scratch / "store"
                made.mkdir()
                shown = tqdm.tqdm(images, what, most, leave=False, unit=" images", disable=not progress)
                _write(made, shown, most, shape, what, broken)
                if not (folder / "index.json").is_file():  # or another process was faster
                    sources.replace_folder(made, folder, scratch)
        return _open(folder)
    except OSError as error:
        raise DataError(
            f"cannot keep the images of {what} in {root} ({error.strerror or error}): choose another --data-dir"
        ) from error


def _write(folder: pathlib.Path, images, most: int, shape, what: str, broken: list[str]) -> None:
    counts: dict[str, int] = {}
    binary, checksum = True, hashlib.sha256()
    with (folder / "pixels.npy").open("wb") as file:  # not through a map, whose pages count as memory
        header = {"descr": "|u1", "fortran_order": False, "shape": (most, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for split, image in images:
            assert image.shape == shape and image.dtype == np.uint8
            contents = image.tobytes()
            file.write(contents)
            checksum.update(contents)
            binary = binary and bool(np.isin(image, (0, 255)).all())
            counts[split] = counts.get(split, 0) + 1
        written = sum(counts.values())
        file.truncate(file.tell() + (most - written) * math.prod(shape))
    counts = split_counts(written, what) if "all" in counts else counts
    for split in SPLITS:
        if counts.get(split, 0) < 1:
            raise DataError(f"{what} has no image for {split}: three splits need at least one image each")
    checksums = {f"the pixels of {printable(what)}": checksum.hexdigest()}
    index = {
        "counts": [counts[split] for split in SPLITS],
        "binary": binary,
        "checksums": checksums,
        "broken": broken,
    }
    (folder / "index.json").write_text(json.dumps(index))


def _open(folder: pathlib.Path) -> Store:
    try:
        index = json.loads((folder / "index.json").read_text())
        pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        ends = np.cumsum([0, *index["counts"]])
        if ends[-1] > len(pixels):
            raise ValueError("too few images")
        parts: dict[str, np.ndarray] = {
            split: pixels[ends[i] : ends[i + 1]] for i, split in enumerate(SPLITS)
        }
        return Store(parts, bool(index["binary"]), dict(index["checksums"]), list(index.get("broken", [])))
    except (ValueError, KeyError, TypeError, EOFError, FileNotFoundError) as error:
        raise DataError(
            f"the images kept in {folder} are damaged: delete that folder and run again"
        ) from error
