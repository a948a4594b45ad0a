"""Blocks of an evaluation that was stopped: the next one with the same settings continues after them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy as np

from tfvamp.arrays import npz_bytes, unpacked
from tfvamp.errors import FileError
from tfvamp.files import read_bytes, replace_file
from tfvamp.runs import owner
from tfvamp.runs.folder import EVALUATIONS, RunFolder

LARGEST = 2**28  # maximum number of bytes of a block
PREFIX = "unfinished-"
FORGOTTEN = 7 * 24 * 3600.0  # seconds after which what was never finished is removed
SIGNATURE_BYTES = 64


class Unfinished(MutableMapping):
    """Arrays of finished blocks by name, in a folder beside the evaluations.

    Each block is signed with your key, together with its name and with what its numbers depend on.
    Blocks of another user, of other weights or settings, and damaged ones are computed again. If
    nothing can be written, nothing is kept.

    Args:
      folder: the run folder.
      of: everything that the numbers depend on, as JSON can hold it.
    """

    def __init__(self, folder: RunFolder, of: dict[str, Any]):
        self._digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
        self._place = folder.file(EVALUATIONS, f"{PREFIX}{self._digest[:16]}")
        _forget(folder)

    def __getitem__(self, name: str) -> dict[str, np.ndarray]:
        try:
            signed = read_bytes(self._place / f"{name}.block", LARGEST)
            signature, contents = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
            if not owner.is_signed(self._statement(name, contents), signature.decode("ascii", "replace")):
                raise KeyError(name)
            return unpacked(contents, name, LARGEST)
        except FileError as error:
            raise KeyError(name) from error

    def __setitem__(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        contents = npz_bytes(arrays, compressed=False)
        signature = owner.sign(self._statement(name, contents))
        if signature is not None:
            with contextlib.suppress(OSError, FileError):
                self._place.mkdir(parents=True, exist_ok=True)
                replace_file(self._place / f"{name}.block", signature.encode() + contents)

    def __delitem__(self, name: str) -> None:
        (self._place / f"{name}.block").unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        with contextlib.suppress(OSError):
            yield from (
                name.removesuffix(".block")
                for name in sorted(os.listdir(self._place))
                if name.endswith(".block")
            )

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def finish(self) -> None:
        """Removes all blocks."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _statement(self, name: str, contents: bytes) -> bytes:
        return f"{self._digest} {name} {hashlib.sha256(contents).hexdigest()}".encode()


def _forget(folder: RunFolder) -> None:
    """Removes the blocks of evaluations that were stopped long ago."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder.file(EVALUATIONS)):
            known = entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)
            if known and time.time() - entry.stat(follow_symlinks=False).st_mtime > FORGOTTEN:
                shutil.rmtree(entry.path, ignore_errors=True)
