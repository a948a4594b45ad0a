"""One's own images: arrays, `npz:FILE`, `folder:DIR`, `tfds:NAME[/CONFIG][:IMAGE_KEY]`."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import os
import pathlib
import re
import typing
import zipfile
import zlib
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tfvamp.datasets import image_store, pipeline
from tfvamp.datasets.catalog import Binarization, DatasetSpec
from tfvamp.datasets.splits import SPLIT_SEED, SPLITS, split_counts
from tfvamp.errors import DataError, UsageError, check_choice, printable

BINARIZATIONS: tuple[Binarization, ...] = typing.get_args(Binarization)
LARGEST_HEADER = 4096  # bytes of a .npy file's: of an array of numbers it has some hundred
ALWAYS_READ = 2**28  # bytes: a larger array must not be compressed to less than
MOST_COMPRESSED = 0.01  # this share; images of one colour alone are
SAMPLE = 2000  # images whose mean the initial pseudo-inputs take
PSEUDO_INPUT_STD = 0.02


@dataclasses.dataclass(frozen=True)
class OwnData:
    """What was read: a spec, pixels [N, H, W, C] and labels [N] of each split, where they come from."""

    spec: DatasetSpec
    pixels: Mapping[str, np.ndarray]
    checksums: dict[str, str]
    labels: Mapping[str, np.ndarray] | None = None
    verified: bool | None = None


def read(
    name: str,
    data_dir: str | None,
    image_size: str | None,
    grayscale: bool,
    binarize: str | None,
    say: Callable[[str], None],
    progress: bool = False,
) -> OwnData:
    """The data set of a name "npz:...", "folder:..." or "tfds:..."; arguments as for `datasets.load`."""
    if binarize is not None:
        check_choice("binarisation", binarize, BINARIZATIONS)
    kind, rest = name.split(":", 1)
    size = _size(image_size)
    if kind == "npz":
        if size or grayscale:
            raise UsageError("--image-size and --grayscale go with folder: and tfds:, not with npz:")
        path = pathlib.Path(rest).expanduser()
        arrays = read_npz(path)
        return from_arrays(f"npz:{path.name}", arrays, binarize, {path.name: _sha256(path)})
    if kind == "folder":
        if size is None:
            raise UsageError("folder: needs --image-size HxW, the size that all images are brought to")
        if not rest:
            raise UsageError("folder: must be followed by a folder")
        folder = pathlib.Path(rest).expanduser()
        store = image_store.of_folder(folder, size, grayscale, data_dir, say, progress)
        return _of_store(f"folder:{folder.name}", store, binarize)
    match = re.fullmatch(r"([\w./-]+?)(?::([A-Za-z_]\w*))?", rest)
    if match is None:
        raise UsageError(
            f"tfds: must be followed by NAME, NAME/CONFIG or NAME/CONFIG:IMAGE_KEY; got {rest!r}"
        )
    store = image_store.of_tfds(match[1], match[2] or "image", size, grayscale, data_dir, say, progress)
    return _of_store(f"tfds:{match[1]}", store, binarize)


def read_tfds(
    spec: DatasetSpec,
    tfds_name: str,
    data_dir: str | None,
    say: Callable[[str], None],
    progress: bool = False,
) -> OwnData:
    """A data set of TFDS's own that the catalogue has.

    TFDS checks what it downloads and keeps no record of that: whether the data are verified is not known.

    Raises:
      DataError: the shape of its images or the sizes of its splits are not the spec's.
    """
    store = image_store.of_tfds(tfds_name, "image", None, False, data_dir, say, progress, spec.sizes[1])
    shape, sizes = store.pixels["train"].shape[1:], tuple(map(len, store.pixels.values()))
    if (shape, sizes) != (spec.shape, spec.sizes):
        raise DataError(
            f"{tfds_name} must have images of {list(spec.shape)}, {list(spec.sizes)} in its splits; "
            f"got {list(shape)}, {list(sizes)}: what is prepared is another data set of this name"
        )
    return OwnData(spec, store.pixels, store.checksums)


def from_arrays(
    name: str, arrays: Mapping[str, np.ndarray], binarize: str | None, checksums: dict[str, str] | None = None
) -> OwnData:
    """Checked arrays with the likelihood that fits them."""
    if binarize is not None:
        check_choice("binarisation", binarize, BINARIZATIONS)
    pixels = {split: _images(np.asarray(array), f"{name} ({split})") for split, array in arrays.items()}
    shapes = {split: array.shape[1:] for split, array in pixels.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"{name}: all splits must have images of one shape; got {shapes}")
    stored = [np.asarray(array).dtype for array in arrays.values()]
    dtypes = {"floats" if dtype.kind == "f" else str(dtype) for dtype in stored}
    if len(dtypes) > 1:
        raise DataError(f"{name}: all splits must have one dtype; got {', '.join(sorted(dtypes))}")
    if dtypes == {"uint8"}:
        largest = {split: int(array.max()) for split, array in pixels.items()}
        if max(largest.values()) == 1:  # bits, not nearly black greys
            pixels = {split: 255 * array for split, array in pixels.items()}
        elif 1 in largest.values():
            raise DataError(
                f"{name}: some splits hold 0 and 1 and others grey bytes; largest values {largest}"
            )
    binary = all(_is_binary(array) for array in pixels.values())
    return OwnData(_spec(name, pixels, binary, binarize), pixels, checksums or {})


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays `train`, `validation` and `test` of a .npz file, or `x` split by a fixed seed.

    Raises:
      DataError: there is no such file, or it is damaged, or holds objects, or has other keys.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            keys: list[str] = [key for key in SPLITS if key in members]
            if len(keys) < len(SPLITS):
                keys = ["x"] if "x" in members else []
            if not keys:
                raise DataError(
                    f"{path} must have the arrays train, validation and test, or x; "
                    f"it has: {printable(', '.join(sorted(members))[:200]) or 'none'}"
                )
            size = path.stat().st_size
            arrays = {key: _read_member(archive, members[key], f"{path}: {key}", size) for key in keys}
    except (
        OSError,
        EOFError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise DataError(
            f"{path} cannot be read as a .npz file ({error}): write it anew with numpy.savez"
        ) from error
    if "x" not in arrays:
        return arrays
    counts = split_counts(len(arrays["x"]), str(path))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(arrays["x"]))
    parts = np.split(order, np.cumsum(list(counts.values()))[:-1])
    return {split: arrays["x"][part] for split, part in zip(counts, parts, strict=True)}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str, size: int) -> np.ndarray:
    """One array of an archive of `size` bytes; its header must account for all before memory is taken for it."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{what} is compressed in a way that NumPy does not use: write it anew with numpy.savez"
        )
    if info.file_size > max(ALWAYS_READ, min(size, info.compress_size) / MOST_COMPRESSED):
        raise DataError(
            f"{what} unpacks to {info.file_size} bytes, more than a hundred times its size: if that is meant, "
            "write it anew with numpy.savez, without compression"
        )
    with archive.open(info) as file:
        shape, fortran, dtype = _read_header(file, what)
        if dtype.hasobject or dtype.kind not in "buif":
            raise DataError(f"{what} must hold numbers; got dtype {dtype}")
        if not shape or any(type(size) is not int or size < 0 for size in shape):
            raise DataError(f"{what} must have shape [N, H, W] or [N, H, W, C]; got {str(shape)[:60]}")
        count = math.prod(shape)
        contents = file.read(count * dtype.itemsize) if count * dtype.itemsize <= info.file_size else b""
        if len(contents) != count * dtype.itemsize or file.read(1):
            raise DataError(
                f"{what} is damaged: its header says shape {list(shape)} of {dtype}, its size another"
            )
    return np.frombuffer(contents, dtype).reshape(shape, order="F" if fortran else "C")


def _read_header(file, what: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of a .npy file; NumPy would read a header of any stated length first."""
    version = np.lib.format.read_magic(file)
    width = 2 if version == (1, 0) else 4
    length = file.read(width)
    header = file.read(min(LARGEST_HEADER, int.from_bytes(length, "little")))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        return read(io.BytesIO(length + header))
    except Exception as error:  # NumPy parses a Python expression: damage leads anywhere
        raise DataError(f"{what} has a damaged header ({type(error).__name__})") from error


def check_pixels(images: np.ndarray, what: str, binary: bool) -> None:
    """Raises DataError for pixels that are no numbers in [0, 1], or not 0 and 1 where `binary`."""
    if not np.isfinite(images).all():
        raise DataError(f"{what}: pixels must be finite; got NaN or infinity")
    if images.min() < 0.0 or images.max() > 1.0:
        raise DataError(f"{what}: pixels must lie in [0, 1]; got {images.min():g} to {images.max():g}")
    if binary and not np.isin(images, (0.0, 1.0)).all():
        value = images[(images != 0.0) & (images != 1.0)][0]
        raise DataError(
            f"{what}: a Bernoulli likelihood needs pixels that are 0 or 1; got {value:g} (binarise the images first)"
        )


def _images(array: np.ndarray, what: str) -> np.ndarray:
    """[N, H, W, C], bytes or float32 in [0, 1]."""
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.ndim != 4 or not array.size:
        raise DataError(
            f"{what} must have shape [N, H, W] or [N, H, W, C], none of them 0; got {list(array.shape)}"
        )
    if array.dtype == np.bool_:
        return 255 * array.astype(np.uint8)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise DataError(f"{what} must have dtype uint8, or floats in [0, 1]; got {array.dtype}")
    check_pixels(array, what, binary=False)
    return array.astype(np.float32)


def _is_binary(pixels: np.ndarray) -> bool:
    white = 255 if pixels.dtype == np.uint8 else 1.0
    return all(
        np.isin(pixels[start : start + 1000], (0, white)).all() for start in range(0, len(pixels), 1000)
    )


def _of_store(name: str, store: image_store.Store, binarize: str | None) -> OwnData:
    return OwnData(_spec(name, store.pixels, store.binary, binarize), store.pixels, store.checksums)


def _spec(name: str, pixels: Mapping[str, np.ndarray], binary: bool, binarize: str | None) -> DatasetSpec:
    train, binarization = pixels["train"], typing.cast(Binarization, binarize or "none")
    grey = not binary and binarization == "none"
    spec = DatasetSpec(
        name=name,
        tfds_name="",
        title="one's own images",
        shape=(int(train.shape[1]), int(train.shape[2]), int(train.shape[3])),
        sizes=(len(train), len(pixels["validation"]), len(pixels["test"])),
        source="one's own",
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


def _size(text: str | None) -> tuple[int, int] | None:
    """(H, W) of "HxW"."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,4})[xX](\d{1,4})", text)
    if match is None or min(int(match[1]), int(match[2])) < 1:
        raise UsageError(f"--image-size must be HxW, such as 64x64; got {text!r}")
    return int(match[1]), int(match[2])


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def absolute(name: str) -> str:
    """The name of a data set as it is found from any folder."""
    kind, _, rest = name.partition(":")
    return f"{kind}:{os.path.abspath(os.path.expanduser(rest))}" if kind in ("npz", "folder") else name
