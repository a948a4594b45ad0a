"""Your own images: arrays, `npz:FILE`, `folder:DIR`, `tfds:NAME[/CONFIG][:IMAGE_KEY]`."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
import typing
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from tfvamp import memory
from tfvamp.arrays import DAMAGE, read_member
from tfvamp.catalog import BINARIZATIONS, Binarization, DatasetSpec
from tfvamp.config import NEEDS_SIZE, height_and_width
from tfvamp.datasets import image_folder, image_store, image_tfds, pipeline
from tfvamp.datasets.preparation import Preparation
from tfvamp.datasets.splits import SPLIT_SEED, SPLITS, split_counts
from tfvamp.errors import DataError, FileError, UsageError, check_choice
from tfvamp.files import check_images, expanded, printable, reason, shown

SAMPLE = 2000  # number of images whose mean the initial pseudo-inputs use
LABELS: dict[str, tuple[str, ...]] = {  # names of the arrays of labels that belong to an array of images
    "x": ("y", "labels", "x_labels"),
    **{split: (f"{split}_labels", f"y_{split}", f"{split}_y") for split in SPLITS},
}
PSEUDO_INPUT_STD = 0.02
ROUNDING = 1e-5  # by which floats may lie outside [0, 1]


@dataclasses.dataclass(frozen=True)
class OwnData:
    """What was read: a spec, the pixels [N, H, W, C] and labels [N] of each split, and where they come from."""

    spec: DatasetSpec
    pixels: Mapping[str, np.ndarray]
    checksums: dict[str, str]
    labels: Mapping[str, np.ndarray] | None = None
    verified: bool | None = None
    class_names: tuple[str, ...] = ()


def read(
    name: str,
    preparation: Preparation,
    image_size: str | None,
    grayscale: bool,
    colour: bool,
    background: str,
    binarize: str | None,
) -> OwnData:
    """Returns the data set named "npz:...", "folder:..." or "tfds:..."; the arguments are those of `datasets.load`."""
    if binarize is not None:
        check_choice("binarisation", binarize, BINARIZATIONS)
    kind, rest = name.split(":", 1)
    size = height_and_width(image_size)
    if kind == "npz":
        if size or grayscale:
            raise UsageError("--image-size and --grayscale go with folder: and tfds:, not with npz:")
        if colour or background != "white":
            raise UsageError("--colour and --background go with folder:, not with npz:")
        if not rest:
            raise UsageError("npz: must be followed by a file")
        path = expanded(rest)
        arrays, label = read_npz(path), printable(path.name)
        labels, names = _labels(arrays, label)
        data = from_arrays(f"npz:{label}", arrays, binarize)
        checksums = {f"the pixels of {label}": _checksum(data.pixels)}
        return dataclasses.replace(data, labels=labels, class_names=names, checksums=checksums)
    if kind == "folder":
        if size is None:
            raise UsageError(NEEDS_SIZE)
        if not rest:
            raise UsageError("folder: must be followed by a folder")
        folder = expanded(rest)
        store = image_folder.of_folder(
            folder, size, 1 if grayscale else 3 if colour else None, background, preparation
        )
        return _of_store(f"folder:{printable(folder.name)}", store, binarize)
    if colour or background != "white":
        raise UsageError("--colour and --background go with folder:, not with tfds:")
    match = re.fullmatch(r"([\w./-]+?)(?::([A-Za-z_]\w*))?", rest)
    if match is None:
        raise UsageError(
            f"tfds: must be followed by NAME, NAME/CONFIG or NAME/CONFIG:IMAGE_KEY; got {rest!r}"
        )
    store = image_tfds.of_tfds(match[1], match[2] or "image", size, grayscale, preparation)
    return _of_store(f"tfds:{match[1]}", store, binarize)


def read_kept(
    name: str, preparation: Preparation, checksums: Iterable[str], binarize: str | None
) -> OwnData | None:
    """Returns prepared images of a "folder:..." that is gone, found by their checksum; None if there are none."""
    kind, _, rest = name.partition(":")
    folder = expanded(rest)
    if kind != "folder" or os.path.isdir(folder):
        return None
    store = image_store.with_checksums(preparation.root / image_store.FOLDER, checksums)
    return None if store is None else _of_store(f"folder:{printable(folder.name)}", store, binarize)


def read_tfds(spec: DatasetSpec, tfds_name: str, preparation: Preparation) -> OwnData:
    """Returns one of TFDS's own data sets that the catalogue has.

    TFDS checks what it downloads but keeps no record of the check, so it is not known whether the
    data are verified.

    Raises:
      DataError: the shape of the images or the sizes of the splits are not those of the spec.
    """
    store = image_tfds.of_tfds(tfds_name, "image", None, False, preparation, spec.sizes[1])
    shape, sizes = store.pixels["train"].shape[1:], tuple(map(len, store.pixels.values()))
    if (shape, sizes) != (spec.shape, spec.sizes):
        raise DataError(
            f"{tfds_name} must have images of {list(spec.shape)}, {list(spec.sizes)} in its splits; "
            f"got {list(shape)}, {list(sizes)}: what is prepared is another data set of this name"
        )
    return OwnData(spec, store.pixels, store.checksums)


def from_arrays(name: str, arrays: Mapping[str, np.ndarray], binarize: str | None) -> OwnData:
    """Returns checked arrays, with the likelihood that fits them."""
    if binarize is not None:
        check_choice("binarisation", binarize, BINARIZATIONS)
    pixels = {split: _images(np.asarray(array), f"{name} ({split})") for split, array in arrays.items()}
    shapes = {split: array.shape[1:] for split, array in pixels.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"{name}: all splits must have images of one shape; got {shapes}")
    stored = [np.asarray(array).dtype for array in arrays.values()]
    dtypes = {{"f": "floats", "b": "bool"}.get(dtype.kind, "uint8") for dtype in stored}  # as they are held
    if len(dtypes) > 1:
        raise DataError(f"{name}: all splits must have one dtype; got {', '.join(sorted(dtypes))}")
    if dtypes == {"uint8"}:
        largest = {split: int(array.max()) for split, array in pixels.items()}
        if max(largest.values()) == 1:  # bits, and not nearly black greys
            pixels = {split: 255 * array for split, array in pixels.items()}
        elif 1 in largest.values():
            raise DataError(
                f"{name}: some splits hold 0 and 1 and others grey bytes; largest values {largest}"
            )
    low, high = min(a.min() for a in pixels.values()), max(a.max() for a in pixels.values())
    if low == high:
        raise DataError(f"{name}: all pixels of all images are {low:g}: there is nothing to learn")
    binary = all(_is_binary(array) for array in pixels.values())
    return OwnData(_spec(name, pixels, binary, binarize), pixels, {})


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays `train`, `validation` and `test` of a .npz file, or `x` split by a fixed seed.

    Labels are returned as `train_labels`..., from arrays of these names, or `y_train`..., or `y`
    beside `x`.

    Raises:
      DataError: there is no such file, it is damaged, it holds objects, or it has other keys.
    """
    check_images(path, folder=False)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            keys: list[str] = [key for key in SPLITS if key in members]
            if keys and "x" in members:
                raise DataError(
                    f"{shown(path)} has x and {', '.join(keys)}: keep x, which is split, or the three splits"
                )
            if len(keys) < len(SPLITS):
                keys = ["x"] if "x" in members else []
            if not keys:
                raise DataError(
                    f"{shown(path)} must have the arrays train, validation and test, or x; "
                    f"it has: {printable(', '.join(sorted(members))[:200]) or 'none'}"
                )
            size = path.stat().st_size
            labels = {key: [name for name in LABELS[key] if name in members][:1] for key in keys}
            named = {key: names[0] for key, names in labels.items() if names}
            read = [members[name].file_size for name in (*keys, *named.values())]
            unpacked = sum(read) * (2 if "x" in keys else 1)  # x is split
            memory.check(
                unpacked, shown(path), "put the images in a folder, which is read in batches (folder:)"
            )
            arrays = {key: read_member(archive, members[key], f"{shown(path)}: {key}", size) for key in keys}
            given = {
                f"{key}_labels": read_member(archive, members[name], f"{shown(path)}: {name}", size, "buifU")
                for key, name in named.items()
            }
    except UsageError:  # it is a ValueError, like some errors from damage
        raise
    except FileError as error:
        raise DataError(str(error)) from error
    except DAMAGE as error:
        raise DataError(
            f"{shown(path)} cannot be read as a .npz file ({reason(error)}): write it again with numpy.savez"
        ) from error
    for key, array in arrays.items():
        if not array.ndim:
            raise DataError(f"{shown(path)}: {key} must have shape [N, H, W] or [N, H, W, C]; got ()")
    for key in named:
        if given[f"{key}_labels"].shape != arrays[key].shape[:1]:
            raise DataError(
                f"{shown(path)}: {named[key]} must have one label for each image, shape [{len(arrays[key])}]; "
                f"got {list(given[f'{key}_labels'].shape)}"
            )
    if "x" not in arrays:
        return arrays | given
    counts = split_counts(len(arrays["x"]), shown(path))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(arrays["x"]))
    parts = np.split(order, np.cumsum(list(counts.values()))[:-1])
    split_up = {split: arrays["x"][part] for split, part in zip(counts, parts, strict=True)}
    if given:
        of_x = given["x_labels"]
        split_up |= {f"{split}_labels": of_x[part] for split, part in zip(counts, parts, strict=True)}
    return split_up


def _labels(arrays: dict[str, np.ndarray], what: str) -> tuple[dict[str, np.ndarray] | None, tuple[str, ...]]:
    """Returns the labels, taken out of the arrays, as integers [N] of each split, and the names of text labels.

    Raises:
      DataError: they are neither whole numbers nor text.
    """
    given: dict[str, np.ndarray] = {
        split: arrays.pop(f"{split}_labels") for split in SPLITS if f"{split}_labels" in arrays
    }
    if not given:
        return None, ()
    if any(labels.dtype.kind not in "iufbU" for labels in given.values()):
        raise DataError(f"{what}: labels must be whole numbers or text")
    if any(labels.dtype.kind == "U" for labels in given.values()):
        names = sorted({str(label) for labels in given.values() for label in labels})
        place = {name: index for index, name in enumerate(names)}
        found: dict[str, np.ndarray] = {
            split: np.array([place[str(label)] for label in labels], np.int64)
            for split, labels in given.items()
        }
    else:
        names = []
        found = {split: labels.astype(np.int64) for split, labels in given.items()}
        if any((found[split] != labels).any() for split, labels in given.items()):
            raise DataError(f"{what}: labels must be whole numbers or text")
    for split in SPLITS:
        found.setdefault(split, np.full(len(arrays[split]), -1, np.int64))
    return found, tuple(printable(name) for name in names)


def check_pixels(images: np.ndarray, what: str, binary: bool) -> None:
    """Raises DataError for pixels that are not numbers in [0, 1], or not 0 and 1 if `binary`."""
    if not np.isfinite(images).all():
        raise DataError(f"{what}: pixels must be finite; got NaN or infinity")
    if images.min() < 0.0 or images.max() > 1.0:
        low, high = images.min(), images.max()
        help = " (divide by 255, or save them as uint8)" if low >= 0.0 and 1.0 < high <= 255.0 else ""
        raise DataError(f"{what}: pixels must lie in [0, 1]; got {low:.9g} to {high:.9g}{help}")
    if binary and not np.isin(images, (0.0, 1.0)).all():
        value = images[(images != 0.0) & (images != 1.0)][0]
        raise DataError(
            f"{what}: a Bernoulli likelihood needs pixels that are 0 or 1; got {value:g} (binarise the images first)"
        )


def _images(array: np.ndarray, what: str) -> np.ndarray:
    """Returns [N, H, W, C], bytes or float32 in [0, 1]."""
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or not array.size:
        raise DataError(
            f"{what} must have shape [N, H, W] or [N, H, W, C], none of them 0; got {list(array.shape)}"
        )
    if array.shape[-1] not in (1, 3):
        help = "grey images have 1 channel, colour images 3"
        if array.shape[1] in (1, 3):
            help = "the channels come last: numpy.transpose(images, (0, 2, 3, 1))"
        elif array.shape[-1] == 4:
            help = "lay transparent images over a ground first, or save them as PNG files, which folder: does that for"
        raise DataError(
            f"{what} must have shape [N, H, W, C] with C = 1 or 3; got {list(array.shape)}: {help}"
        )
    if array.dtype == np.bool_:
        return 255 * array.astype(np.uint8)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise DataError(
                f"{what}: whole numbers must lie between 0 and 255; got {array.min()} to {array.max()}"
            )
        return array.astype(np.uint8)
    if array.dtype.kind != "f":
        raise DataError(
            f"{what} must hold whole numbers from 0 to 255, or floats in [0, 1]; got {array.dtype}"
        )
    low, high = array.min(), array.max()
    if (low < 0.0 or high > 1.0) and low >= -ROUNDING and high <= 1.0 + ROUNDING:
        array = np.clip(array, 0.0, 1.0)
    check_pixels(array, what, binary=False)
    return array.astype(np.float32)


def _is_binary(pixels: np.ndarray) -> bool:
    white = 255 if pixels.dtype == np.uint8 else 1.0
    return all(
        np.isin(pixels[start : start + 1000], (0, white)).all() for start in range(0, len(pixels), 1000)
    )


def _of_store(name: str, store: image_store.Store, binarize: str | None) -> OwnData:
    spec = _spec(name, store.pixels, store.binary, binarize)
    return OwnData(spec, store.pixels, store.checksums, store.labels, class_names=store.class_names)


def _spec(name: str, pixels: Mapping[str, np.ndarray], binary: bool, binarize: str | None) -> DatasetSpec:
    train, binarization = pixels["train"], typing.cast(Binarization, binarize or "none")
    grey = not binary and binarization == "none"
    spec = DatasetSpec(
        name=name,
        tfds_name="",
        title="your own images",
        shape=(int(train.shape[1]), int(train.shape[2]), int(train.shape[3])),
        sizes=(len(train), len(pixels["validation"]), len(pixels["test"])),
        source="your own",
        binarization=binarization,
        likelihood="logistic" if grey else "bernoulli",
        scaling="centre" if grey else "unit",
        pseudo_input_std=PSEUDO_INPUT_STD,
    )
    # A few at a time: images may be large.
    starts = range(0, min(len(train), SAMPLE), 20)
    sums = [float(tf.reduce_sum(pipeline.to_images(tf.constant(train[i : i + 20]), spec))) for i in starts]
    mean = sum(sums) / train[:SAMPLE].size
    return dataclasses.replace(spec, pseudo_input_mean=round(mean, 4))


def _checksum(pixels: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256 of the pixels and shapes of all splits, whatever the form of the file."""
    checksum = hashlib.sha256()
    for split in SPLITS:
        checksum.update(f"{split} {pixels[split].dtype} {pixels[split].shape}".encode())
        for start in range(0, len(pixels[split]), 1000):  # a view of all may not be one block of memory
            checksum.update(np.ascontiguousarray(pixels[split][start : start + 1000]).tobytes())
    return checksum.hexdigest()


def absolute(name: str) -> str:
    """Returns the name of a data set in a form that is valid in any folder."""
    kind, _, rest = name.partition(":")
    return f"{kind}:{os.path.abspath(os.path.expanduser(rest))}" if kind in ("npz", "folder") else name
