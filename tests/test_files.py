"""Files and folders: whole or not at all, bounded reading, what a killed process leaves behind."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tfvamp import arrays, files, memory
from tfvamp.errors import FileError, UsageError


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_with_the_users_permissions(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    for contents in (b"old", b"new"):
        files.replace_file(path, contents)
        assert path.read_bytes() == contents and names(path.parent) == {"a.txt"}
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failure_keeps_the_old_file_and_says_the_first_error(broken, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def also(*_):
        raise OSError(errno.EIO, "the clean-up's own error")

    monkeypatch.setattr(os, broken, fail)
    monkeypatch.setattr(pathlib.Path, "unlink", also)
    with pytest.raises(FileError, match=r"cannot write .*a.txt \(No space left on device\)"):
        files.replace_file(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"


def test_a_name_that_is_too_long_is_one_line(tmp_path):
    with pytest.raises(FileError, match=r"cannot write .* \(File name too long\)"):
        files.replace_file(tmp_path / ("x" * 300), b"")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_whole(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    for contents in ("old", "new"):
        files.replace_folder(tmp_path / "a", lambda new, text=contents: (new / "f").write_text(text))
        assert (tmp_path / "a" / "f").read_text() == contents and names(tmp_path) == {"a"}

    def fail(new):
        (new / "f").write_text("cut")
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        files.replace_folder(tmp_path / "a", fail)
    assert (tmp_path / "a" / "f").read_text() == "new" and names(tmp_path) == {"a"}


def test_without_exchange_a_failure_puts_the_old_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    files.replace_folder(tmp_path / "a", lambda new: (new / "f").write_text("old"))
    rename, calls = os.rename, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="broken"):
        files.replace_folder(tmp_path / "a", lambda new: (new / "f").write_text("new"))
    assert (tmp_path / "a" / "f").read_text() == "old" and names(tmp_path) == {"a"}


KILLED = """
import os, pathlib, signal
from tfvamp_cli.light import files
files._exchange = lambda *_: False
rename, calls = os.rename, []

def killed(*paths):
    if len(calls) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(paths)
    rename(*paths)

os.rename = killed
files.replace_folder(pathlib.Path({path!r}), lambda new: (new / "f").write_text("new"))
"""


@pytest.mark.parametrize("number, left", [(0, "old"), (1, "old"), (2, "new"), (3, "new")])
def test_a_kill_before_each_step_without_exchange(number, left, tmp_path, monkeypatch):
    """Before the old folder is aside, before the new one is there, before the old one goes, and never."""
    path = tmp_path / "a"
    files.replace_folder(path, lambda new: (new / "f").write_text("old"))
    code = KILLED.format(number=number, path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == (0 if number == 3 else -signal.SIGKILL), done.stderr
    assert path.exists() == (number != 1)
    monkeypatch.setattr(files, "JUST_MADE", -1)  # whatever is not locked was left behind
    files.sweep(tmp_path)
    assert (path / "f").read_text() == left and names(tmp_path) == {"a"}


def test_a_folder_that_a_killed_process_moved_aside_is_put_back(tmp_path):
    (tmp_path / f".a{files.ASIDE}").mkdir()
    (tmp_path / f".b{files.ASIDE}").mkdir()
    (tmp_path / "b").mkdir()
    files.sweep(tmp_path)
    assert names(tmp_path) == {"a", "b"}


def test_what_killed_processes_left_is_swept_and_what_is_in_use_is_not(tmp_path):
    code = (
        "import os, pathlib, signal, sys\n"
        "from tfvamp_cli.light import files\n"
        "with files.scratch_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'f').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    used, new = (tmp_path / f"{files.SCRATCH}{16 * letter}" for letter in "ab")
    used.write_text("x")
    with used.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        old = time.time() - 10
        os.utime(left, (old, old))
        os.utime(used, (old, old))
        new.write_text("just made, not locked yet")
        mine = tmp_path / f"{files.SCRATCH}notes"  # a name of the user's own
        mine.mkdir()
        os.utime(mine, (old, old))
        files.sweep(tmp_path)
        assert names(tmp_path) == {used.name, new.name, mine.name}


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "large", "missing", "null"])
def test_only_regular_files_of_bounded_size_are_read(kind, tmp_path):
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(10**12)
    elif kind == "null":
        path = tmp_path / "a\0b"
    expected = {
        "fifo": "is not a regular file", "device": "is not a regular file", "folder": "cannot read|not a regular",
        "large": "has more than 100 bytes", "missing": "No such file", "null": "cannot read",
    }  # fmt: skip
    for read in (files.read_bytes, files.sha256):
        with pytest.raises(FileError, match=expected[kind]):
            read(path, 100)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 200_000, '"x"', "\xff", "9" * 5000, '{"a":' * 99_999])
def test_what_is_not_a_json_object_is_one_line(text, tmp_path):
    (tmp_path / "a.json").write_bytes(text.encode("latin1"))
    with pytest.raises(FileError, match="a.json is damaged: it (is not JSON|must hold a JSON object)"):
        files.read_json(tmp_path / "a.json")


def test_json_round_trip(tmp_path):
    document = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    files.write_json(tmp_path / "a.json", document)
    assert files.read_json(tmp_path / "a.json") == document == json.loads((tmp_path / "a.json").read_text())


def test_nothing_shown_controls_a_terminal():
    assert files.printable("a\x1b[31mb\r\nc\x07\udcff\x9bd\u202e") == "a?[31mb c???d?"
    assert files.shown("/a b/c") == "'/a b/c'" and files.shown("a\x1b[2J") == "'a?[2J'"
    assert files.size(0) == "0 bytes" and files.size(3 * 2**30) == "3.0 GiB"


def test_arrays_round_trip_and_are_bounded(tmp_path):
    path, stored = tmp_path / "a.npz", {"x": np.arange(6.0).reshape(2, 3), "n": np.array([1, 2])}
    arrays.write_npz(path, **stored)
    read = arrays.read_npz(path, 10_000)
    assert set(read) == set(stored) and all(np.array_equal(read[name], stored[name]) for name in stored)
    arrays.write_npz(path, x=np.zeros(2_000_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(FileError, match="unpacks to more than 1000000 bytes"):
        arrays.read_npz(path, 1_000_000)
    np.savez(path, x=np.array([{}], dtype=object))
    with pytest.raises(FileError, match="must hold numbers"):
        arrays.read_npz(path, 10_000)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(FileError, match="is damaged"):
        arrays.read_npz(path, 10_000)


def test_more_memory_than_there_is_is_refused_with_the_size():
    memory.check(1000, "a small thing", "nothing")
    with pytest.raises(
        UsageError, match=r"K = 9 would need 900.0 TiB of memory; this machine has .*: choose a"
    ):
        memory.check(900 * 2**40, "K = 9", "choose a smaller --components")
