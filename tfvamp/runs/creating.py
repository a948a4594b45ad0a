"""Creating a run folder: it appears whole, and replaces an old run only when it has something to show."""

from __future__ import annotations

import contextlib
import datetime
import errno
import itertools
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

from tfvamp import files
from tfvamp.config import TrainConfig
from tfvamp.datasets import Dataset
from tfvamp.errors import FileError, RunError, UsageError
from tfvamp.files import expanded, shown
from tfvamp.runs import lock
from tfvamp.runs.folder import RunFolder

TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}  # errors of renaming onto something


def default_path(config: TrainConfig) -> pathlib.Path:
    """Returns the run folder that is used if none is named: runs/DATASET-MODEL-PRIOR-TIME."""
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = re.sub(r"[^\w.-]+", "-", config.dataset.rstrip("/").rsplit("/", 1)[-1])[:100]
    return pathlib.Path("runs", f"{name}-{config.model}-{config.prior}-{time}")


def check_free(run_dir: str | os.PathLike, overwrite: bool) -> bool:
    """Returns whether there is a run that is to be replaced.

    Raises:
      RunError: there is a run and `overwrite` is not set, or there is something else.
      UsageError: this cannot be the name of a run folder.
    """
    path = expanded(run_dir)
    if not os.fspath(run_dir) or os.path.realpath(path) == os.getcwd():
        raise UsageError("the run folder must not be the current folder: name a new one with --run-dir")
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the name {shown(path)} is not UTF-8: name another run folder with --run-dir"
        ) from error
    files.sweep(path.parent)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)  # an impossible name: too long, or inside a file
        if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
            return False
    except OSError as error:
        raise RunError(
            f"cannot make the run folder {shown(path)} ({files.reason(error)}): choose another --run-dir"
        ) from error
    if not _is_run(path):
        raise RunError(f"{shown(path)} exists and is not a run folder: choose another --run-dir")
    if not overwrite:
        raise RunError(
            f"the run folder {shown(path)} exists: resume it with --resume {shown(path)}, choose another --run-dir, "
            "or replace it with --overwrite"
        )
    return True


def _is_run(path: pathlib.Path) -> bool:
    """Returns whether a folder has the config.json of a run, even damaged: other programs' files are never replaced."""
    with contextlib.suppress(FileError):
        raw = files.read_json(path / "config.json")
        return isinstance(raw.get("settings"), dict) and isinstance(raw.get("data"), dict)
    return False


@contextlib.contextmanager
def creating(
    run_dir: str | os.PathLike | None, config: TrainConfig, dataset: Dataset, overwrite: bool
) -> Iterator[tuple[RunFolder, Callable[[], RunFolder] | None]]:
    """Makes a run folder with its config.json, locked for this process.

    Yields:
      the folder; and, if an old run is to be replaced, a function that moves the new run into its
      place and returns its folder there. Until then, the old run stays as it is.

    Raises:
      RunError: another process is writing the run that is there, or the folder cannot be made.
      UsageError, RunError: as `check_free`.
    """
    path = expanded(run_dir) if run_dir is not None else default_path(config)
    replaces = run_dir is not None and check_free(run_dir, overwrite)
    with contextlib.ExitStack() as stack:
        try:
            if replaces:
                stack.enter_context(lock.writing(path))
            scratch = stack.enter_context(files.scratch_folder(path.parent))
            new = scratch / "run"
            new.mkdir()
            RunFolder(new).write_config(config, dataset)
            held = stack.enter_context(lock.writing(new))
            if not replaces:
                path = held.folder = _move(new, path, run_dir is not None)
            placed = RunFolder(path)
        except OSError as error:
            raise RunError(
                f"cannot make the run folder {shown(path)} ({files.reason(error)}): choose another --run-dir"
            ) from error

        def place() -> RunFolder:
            files.put_folder(new, path)
            held.folder = path
            shutil.rmtree(new, ignore_errors=True)  # the old run
            return placed

        yield (RunFolder(new), place) if replaces else (placed, None)


def _move(new: pathlib.Path, path: pathlib.Path, named: bool) -> pathlib.Path:
    """Moves a new run to its place, or to the next free one if no name was asked for."""
    for number in itertools.count(1):
        target = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            os.rename(new, target)
            files.sync_folder(target.parent)
            return target
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            if named:
                check_free(path, overwrite=False)
                raise
    raise AssertionError("unreachable")
