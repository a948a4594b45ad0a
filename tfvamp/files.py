"""Files and folders: written completely or not at all, read with a limit, shown safely on a terminal.

This file needs only the standard library, so that the command line can use it before TensorFlow is
imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import io
import json
import os
import pathlib
import re
import secrets
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from .errors import DataError, FileError, RunError

SCRATCH = ".tfvamp-"  # prefix of the names of unfinished files and folders
ASIDE = ".tfvamp-replaced"  # suffix of a folder's name while another one takes its place in two steps
JUST_MADE = 1  # seconds in which its process may not have locked it yet
LEFT_BEHIND = 7 * 86400  # seconds after which scratch counts as left behind on a disk without locks
LARGEST_JSON = 2**20  # bytes
_EXCHANGE, _AT_FDCWD = 2, -100  # of Linux's renameat2


def expanded(path: str | os.PathLike) -> pathlib.Path:
    """Returns the path with `~` replaced by the home folder."""
    return pathlib.Path(os.path.expanduser(os.fspath(path)))


def shown(path: str | os.PathLike) -> str:
    """Returns a path in a form that can be pasted into a shell, in one line without control characters."""
    return "".join(c if c.isprintable() else "?" for c in shlex.quote(os.fspath(path)))


def printable(text: str) -> str:
    """Returns a text as one line that is safe on a terminal: no line breaks, escape codes or lone surrogates."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))


def counted(number: int, noun: str) -> str:
    """Returns a number of things, such as "1 image" and "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def reason(error: BaseException) -> str:
    """Returns what went wrong, in a few words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text)[:200]


def check_run(path: str | os.PathLike) -> None:
    """Raises RunError unless there is a folder of that name."""
    if not os.path.isdir(expanded(path)):
        raise RunError(
            f"there is no run folder {shown(path)}: train one with tfvamp train --run-dir {shown(path)}"
        )


def check_images(path: str | os.PathLike, folder: bool) -> None:
    """Raises DataError unless there is a file of images, or a folder."""
    there = expanded(path)
    if not (os.path.isdir(there) if folder else os.path.isfile(there)):
        raise DataError(f"there is no {'folder' if folder else 'file'} {shown(path)}")


def read_bytes(path: pathlib.Path, largest: int) -> bytes:
    """Returns the contents of a regular file.

    Raises:
      FileError: it cannot be read, is not a regular file, or has more than `largest` bytes.
    """
    with _opened(path, largest) as file:
        return file.read(largest)


def sha256(path: pathlib.Path, largest: int) -> str:
    """Returns the checksum of a regular file, in hexadecimal; raises the same errors as `read_bytes`."""
    with _opened(path, largest) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _opened(path: pathlib.Path, largest: int) -> Iterator[io.BufferedReader]:
    try:
        # Without O_NONBLOCK a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileError(f"{shown(path)} is not a regular file")
            if status.st_size > largest:
                raise FileError(f"{shown(path)} is damaged: it has more than {size(largest)}")
            yield file
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise FileError(f"cannot read {shown(path)} ({reason(error)})") from error


def read_json(path: pathlib.Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
      FileError: it cannot be read, is too large, or is not a JSON object.
    """
    contents = read_bytes(path, largest)
    try:
        document = json.loads(contents, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{shown(path)} is damaged: it is not JSON ({reason(error)})") from error
    if not isinstance(document, dict):
        raise FileError(f"{shown(path)} is damaged: it must hold a JSON object")
    return document


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def json_bytes(document: dict[str, Any]) -> bytes:
    """Returns a JSON object as the contents of a file."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def write_json(path: pathlib.Path, document: dict[str, Any]) -> None:
    """Writes a JSON object as `replace_file` does; also raises FileError if it holds what JSON cannot."""
    try:
        contents = json_bytes(document)
    except (ValueError, TypeError, RecursionError) as error:
        raise cannot_write(path, error) from error
    replace_file(path, contents)


def replace_file(path: pathlib.Path, contents: bytes) -> None:
    """Writes a file so that it has either the old contents or the new ones, even after a kill or on a full disk.

    Raises:
      FileError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with _scratch_file(path.parent) as (scratch, descriptor):
            with open(descriptor, "wb", closefd=False) as file:
                file.write(contents)
                file.flush()
            os.fsync(descriptor)
            os.replace(scratch, path)
        sync_folder(path.parent)
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from error


def append(path: pathlib.Path, text: str) -> None:
    """Adds text to the end of a file and waits until the disk has it.

    Raises:
      FileError: it cannot be written.
    """
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path, flags, 0o666), "ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: str | os.PathLike, error: Exception) -> FileError:
    """Returns the error for a file or folder that could not be written."""
    for parent in reversed(pathlib.Path(path).parents):
        if os.path.lexists(parent) and not os.path.isdir(parent):
            return FileError(f"cannot write {shown(path)}: {shown(parent)} is not a folder")
    return FileError(f"cannot write {shown(path)} ({reason(error)})")


@contextlib.contextmanager
def scratch_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """Makes an empty folder in `parent`, which is made if needed; removes the empty folder at the end.

    The folder is locked while it is in use, so that the leftovers of a killed process can be told
    from what is being written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    path = parent / f"{SCRATCH}{secrets.token_hex(8)}"
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def put_folder(new: pathlib.Path, path: pathlib.Path, replace: bool = True) -> None:
    """Moves a folder to `path`; what is there moves to `new` in the same step, so that `path` is never missing.

    If the disk cannot exchange two folders, the old one is moved aside first, and `sweep` puts it
    back if this process is killed between the two steps. Without `replace`, an OSError is raised if
    there are files at `path`.
    """
    _sync_tree(new)
    if not replace or not os.path.lexists(path):
        os.rename(new, path)
    elif not _exchange(new, path):
        aside = path.with_name(f".{path.name}{ASIDE}")
        _remove(aside)
        os.rename(path, aside)
        try:
            os.rename(new, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.rename(aside, path)
            raise
        os.rename(aside, new)
    sync_folder(path.parent)


def replace_folder(path: pathlib.Path, fill: Callable[[pathlib.Path], None]) -> None:
    """Writes a folder completely: `fill` writes into an empty one, which then takes the place of `path`."""
    with scratch_folder(path.parent) as scratch:
        new = scratch / "new"
        new.mkdir()
        fill(new)
        put_folder(new, path)


def sweep(folder: pathlib.Path) -> None:
    """Removes the unfinished files and folders that killed processes left in a folder, and puts back what they moved."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(".")]
    except OSError:
        return
    for name in names:
        path = folder / name
        if re.fullmatch(rf"{re.escape(SCRATCH)}[0-9a-f]{{16}}", name):
            if _left_behind(path):
                _remove(path)
        elif name.endswith(ASIDE) and len(name) > len(ASIDE) + 1:
            with contextlib.suppress(OSError):
                original = folder / name.removeprefix(".").removesuffix(ASIDE)
                if os.path.lexists(original):
                    _remove(path)
                else:
                    os.rename(path, original)


def sync_folder(folder: pathlib.Path) -> None:
    """Makes the names in a folder survive a power failure, if the disk can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def size(count: float) -> str:
    """Returns a number of bytes as text: "512 bytes", "1.5 MiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"


@contextlib.contextmanager
def _scratch_file(parent: pathlib.Path) -> Iterator[tuple[pathlib.Path, int]]:
    """Makes a locked file and yields its path and descriptor; removes it at the end unless it was renamed."""
    path = parent / f"{SCRATCH}{secrets.token_hex(8)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path, descriptor
    except BaseException:
        with contextlib.suppress(OSError):  # never instead of the first error
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def _left_behind(path: pathlib.Path) -> bool:
    """Returns whether no process holds the lock of a scratch file or folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        age = time.time() - os.fstat(descriptor).st_mtime
        if age < JUST_MADE:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        return age > LEFT_BEHIND
    finally:
        os.close(descriptor)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Exchanges two paths in one step; returns False if the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _sync_tree(folder: pathlib.Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                descriptor = os.open(
                    os.path.join(place, name), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
                )
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        sync_folder(pathlib.Path(place))
