"""Matlab 5 files: arrays of numbers, whatever else a file says."""

from __future__ import annotations

import io
import pathlib
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import scipy.io

from tfvamp.datasets import sources
from tfvamp.errors import DataError
from tfvamp.files import shown

# Bytes before the elements of a file; types of an element; classes of arrays of numbers.
HEADER, ARRAY, COMPRESSED, NUMBERS = 128, 14, 15, range(6, 16)
NAMED = 128  # bytes within which the name of an element of two dimensions ends
MOST_ELEMENTS = 1000  # the published files have about ten


def read(path: pathlib.Path, keys: tuple[str, ...], url: str | None) -> dict[str, np.ndarray]:
    """Returns arrays of numbers from a Matlab 5 file.

    Raises:
      DataError: the file cannot be read, lacks a key, or holds something else under one.
    """
    try:
        contents = inflated(sources.read_bytes(path), path, keys)
        stored = scipy.io.loadmat(io.BytesIO(contents), variable_names=list(keys))
    except DataError:
        raise
    except Exception as error:  # SciPy may raise any error for damaged bytes
        raise DataError(
            f"{shown(path)} cannot be read as a Matlab 5 file ({type(error).__name__}): fetch it again from {url}"
        ) from error
    for key in keys:
        if key not in stored:
            held = ", ".join(sorted(k for k in stored if not k.startswith("__"))) or "none"
            raise DataError(f"{shown(path)} has no key {key!r} (of the expected keys it has: {held})")
        if not isinstance(stored[key], np.ndarray) or stored[key].dtype.kind not in "uifb":
            raise DataError(
                f"{shown(path)}: {key} must hold numbers; got dtype {np.asarray(stored[key]).dtype}"
            )
    return stored


def inflated(contents: bytes, path: pathlib.Path, keys: tuple[str, ...] = ()) -> bytes:
    """Returns a Matlab 5 file with only the numeric arrays of a file (only those of `keys`, if any), unpacked.

    SciPy believes what a file says about the size of cells, structures, texts and compressed
    elements, and reads whatever follows an array in its element.

    Raises:
      DataError: the file is not a Matlab 5 file, holds something else under one of the keys, or
        unpacks to more than 256 MiB.
    """
    order = {b"IM": "<", b"MI": ">"}.get(contents[126:128])
    if order is None:
        raise DataError(f"{shown(path)} cannot be read as a Matlab 5 file: its header is not that of one")
    parts, total = [contents[:HEADER]], 0
    for kind, element in _elements(contents, order, path):
        compressed = kind == COMPRESSED
        head = zlib.decompressobj().decompress(element[8:], NAMED) if compressed else element[:NAMED]
        name, array_class = _array(bytes(head), order)
        if keys and name not in keys:
            continue
        if array_class not in NUMBERS:
            if name in keys:
                raise DataError(
                    f"{shown(path)}: {name} must hold numbers; got a Matlab array of class {array_class}"
                )
            continue
        part = bytes(element)
        if compressed:
            part = zlib.decompressobj().decompress(element[8:], sources.LARGEST_CONTENTS + 1)
        total += len(part)
        if total > sources.LARGEST_CONTENTS:
            raise sources.too_large(path, sources.LARGEST_CONTENTS)
        if struct.unpack_from(f"{order}I", part, 4)[0] + 8 != len(part):
            raise DataError(
                f"{shown(path)} is damaged: the size that {name} states is not its own; fetch it again"
            )
        parts.append(part)
    return b"".join(parts)


def _elements(contents: bytes, order: str, path: pathlib.Path) -> Iterator[tuple[int, memoryview]]:
    """Yields the type and the bytes, tag included, of each element of a Matlab 5 file."""
    start = HEADER
    for _ in range(MOST_ELEMENTS):
        if start + 8 > len(contents):
            return
        kind, size = struct.unpack_from(f"{order}II", contents, start)
        yield kind, memoryview(contents)[start : start + 8 + size]
        start += 8 + size
    raise DataError(f"{shown(path)} has more than {MOST_ELEMENTS} arrays: it is not the published file")


def _array(element: bytes, order: str) -> tuple[str, int]:
    """Returns the name and class of an array, from the tag, flags, dimensions and name at the start of its element."""
    if len(element) < 56 or struct.unpack(f"{order}I", element[:4])[0] != ARRAY:
        return "", 0
    array_class = struct.unpack(f"{order}I", element[16:20])[0] & 0xFF
    start = 32 + -(-struct.unpack(f"{order}I", element[28:32])[0] // 8) * 8
    kind, size = struct.unpack(f"{order}II", element[start : start + 8].ljust(8, b"\0"))
    if kind >> 16:  # a short name, with its length in the tag
        return element[start + 4 : start + 4 + (kind >> 16)].decode("latin1"), array_class
    return element[start + 8 : start + 8 + min(size, 63)].decode("latin1"), array_class
