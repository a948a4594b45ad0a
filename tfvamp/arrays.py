"""Arrays of numbers in .npz files: written completely, and read within the memory that the file accounts for."""

from __future__ import annotations

import io
import math
import os
import pathlib
import zipfile
import zlib

import numpy as np

from tfvamp.errors import FileError
from tfvamp.files import expanded, read_bytes, replace_file, shown

LARGEST_HEADER = 4096  # bytes; the header of an array of numbers has about a hundred
ALWAYS_READ = 2**28  # bytes; larger arrays are not read if they are compressed to less than
MOST_COMPRESSED = 0.01  # this share, as only images of one colour are
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    MemoryError,
)  # errors of zipfile and NumPy for damaged bytes


def write_npz(path: str | os.PathLike, **arrays: np.ndarray) -> None:
    """Writes arrays into a compressed .npz file, completely or not at all."""
    replace_file(expanded(path), npz_bytes(arrays))


def npz_bytes(arrays: dict[str, np.ndarray], compressed: bool = True) -> bytes:
    """Returns the contents of a .npz file."""
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_npz(path: pathlib.Path, largest: int) -> dict[str, np.ndarray]:
    """Returns all arrays of a .npz file.

    Args:
      path: the file.
      largest: maximum number of bytes of the file, and of its unpacked arrays.

    Raises:
      FileError: the file is missing, damaged or too large, or holds something other than numbers.
    """
    return unpacked(read_bytes(path, largest), shown(path), largest)


def unpacked(contents: bytes, what: str, largest: int) -> dict[str, np.ndarray]:
    """Returns the arrays in the contents of a .npz file; arguments and errors are as for `read_npz`."""
    try:
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > largest:
                raise FileError(f"{what} is damaged: it unpacks to more than {largest} bytes")
            return {
                member.filename.removesuffix(".npy"): read_member(archive, member, what, len(contents))
                for member in members
            }
    except DAMAGE as error:
        raise FileError(f"{what} is damaged ({type(error).__name__})") from error


def read_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str, size: int, kinds: str = "buif"
) -> np.ndarray:
    """Returns one array of an archive of `size` bytes; its header must account for all before memory is allocated.

    `kinds` are the kinds of dtypes, in NumPy's letters, that are read: numbers, and text if it has
    "U".

    Raises:
      FileError: it is not an array of numbers, or its header and its size disagree.
      Exception: one of `DAMAGE`.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FileError(
            f"{what} is compressed in a way that NumPy does not use: write it again with numpy.savez"
        )
    if info.file_size > max(ALWAYS_READ, min(size, info.compress_size) / MOST_COMPRESSED):
        raise FileError(
            f"{what} unpacks to {info.file_size} bytes, more than a hundred times its size: if that is meant, "
            "write it again with numpy.savez, without compression"
        )
    with archive.open(info) as file:
        shape, fortran, dtype = _read_header(file, what)
        if dtype.hasobject or dtype.kind not in kinds:
            allowed = "numbers or text" if "U" in kinds else "numbers"
            raise FileError(f"{what} must hold {allowed}; got dtype {dtype}")
        if any(type(size) is not int or size < 0 for size in shape):
            raise FileError(f"{what} must hold an array; got shape {str(shape)[:60]}")
        count = math.prod(shape)
        contents = file.read(count * dtype.itemsize) if count * dtype.itemsize <= info.file_size else b""
        if len(contents) != count * dtype.itemsize or file.read(1):
            raise FileError(
                f"{what} is damaged: its header says shape {list(shape)} of {dtype}, its size another"
            )
    return np.frombuffer(contents, dtype).reshape(shape, order="F" if fortran else "C")


def _read_header(file, what: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns shape, order and dtype of a .npy file; NumPy itself would read a header of any stated length."""
    version = np.lib.format.read_magic(file)
    width = 2 if version == (1, 0) else 4
    length = file.read(width)
    header = file.read(min(LARGEST_HEADER, int.from_bytes(length, "little")))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        return read(io.BytesIO(length + header))
    except Exception as error:  # NumPy parses a Python expression: damage may lead to any error
        raise FileError(f"{what} has a damaged header ({type(error).__name__})") from error
