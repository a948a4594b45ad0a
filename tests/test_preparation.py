"""When data are prepared, where, and what is left where that fails or is killed."""

import contextlib
import os
import pathlib
import re
import resource
import shlex
import signal
import subprocess

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from tests import made
from tests.tiny_pictures import TinyPictures
from tfvamp import datasets, describe, files
from tfvamp.datasets import image_store
from tfvamp.errors import DataError, UsageError

NAME = "caltech101_silhouettes_28_split1.mat"
TINY = f"tfds:{TinyPictures.name}"


@pytest.fixture
def raw(tmp_path) -> pathlib.Path:
    return made.make("caltech101", tmp_path / "raw")


@pytest.fixture
def pictures(tmp_path) -> pathlib.Path:
    """A folder of thirty pictures 20x20."""
    (tmp_path / "pictures").mkdir()
    for number in range(30):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    return tmp_path / "pictures"


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command_in(text: str) -> list[str]:
    """The arguments of `tfvamp datasets prepare` in the text of an error."""
    assert "\n" not in text
    words = shlex.split(text.split(", run ")[1])
    assert words[:3] == ["tfvamp", "datasets", "prepare"]
    return words[3:]


# "missing" and "never"


@pytest.mark.parametrize("data", ["data", "my data's"])
def test_never_prepares_nothing(data, raw, tmp_path):
    data_dir = tmp_path / data
    with pytest.raises(DataError, match="caltech101 is not prepared in .*1.0.0'?; to prepare it") as error:
        datasets.load("caltech101", data_dir, raw, prepare="never")
    assert command_in(str(error.value)) == ["caltech101", "--raw-dir", str(raw), "--data-dir", str(data_dir)]
    assert not data_dir.exists()
    before = datasets.load("caltech101", data_dir, raw)
    stored = contents(data_dir)
    after = datasets.load("caltech101", data_dir, raw, prepare="never")
    np.testing.assert_array_equal(after.train.pixels, before.train.pixels)
    assert contents(data_dir) == stored


def test_the_command_has_no_folder_that_was_not_given(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "default"))
    with pytest.raises(DataError, match="is not prepared in .*default") as error:
        datasets.load(TINY, prepare="never")
    assert command_in(str(error.value)) == [TINY]


@pytest.mark.parametrize("kind", ["folder", "tfds", "catalogue"])
def test_never_makes_no_store(kind, pictures, tmp_path, monkeypatch):
    """Of your own images: the store is what must be there; also where TFDS has prepared the data."""
    tiny = datasets.CATALOG["fashion_mnist"].__class__(
        **{**vars(datasets.CATALOG["fashion_mnist"]), "tfds_name": TinyPictures.name, "sizes": (15, 5, 20)}
    )
    monkeypatch.setitem(datasets.CATALOG, "fashion_mnist", tiny)
    name, options, words = {
        "folder": (f"folder:{pictures}", {"image_size": "8x9", "grayscale": True}, 4),
        "tfds": (TINY, {"image_size": "8x9"}, 3),
        "catalogue": ("fashion_mnist", {}, 1),
    }[kind]
    data_dir = tmp_path / "data"
    expected = [*[name, "--image-size", "8x9", "--grayscale"][:words], "--data-dir", str(data_dir)]
    for _ in range(2):
        with pytest.raises(DataError, match="is not prepared in ") as error:
            datasets.load(name, data_dir, prepare="never", **options)
        assert command_in(str(error.value)) == expected
        assert not list(data_dir.rglob("index.json"))
        if kind == "folder":
            assert not data_dir.exists()
        else:  # as TFDS alone would have it
            tfds.builder(TinyPictures.name, data_dir=str(data_dir)).download_and_prepare()
    for prepare in ("missing", "never"):
        stored = contents(data_dir)
        assert datasets.load(name, data_dir, prepare=prepare, **options).test.num_examples >= 3
    assert contents(data_dir) == stored


@pytest.mark.parametrize("prepare", ["missing", "never"])
@pytest.mark.parametrize("given", [True, False])
def test_prepared_data_are_never_rewritten(prepare, given, raw, tmp_path, monkeypatch):
    data_dir = tmp_path / "data"
    datasets.load("caltech101", data_dir, raw, prepare="missing")
    stored = contents(data_dir)
    scipy.io.savemat(raw / NAME, made.caltech(seed=1, counts=(13, 5, 6)))
    if not given:
        monkeypatch.setenv("TFVAMP_RAW_DIR", str(raw))
    text = (
        f"{NAME} in {raw} differs from what the prepared data in {data_dir}/caltech101_silhouettes/1.0.0 were"
    )
    with pytest.raises(DataError, match=text) as error:
        datasets.load("caltech101", data_dir, raw if given else None, prepare=prepare)
    assert contents(data_dir) == stored
    name, *options = command_in(str(error.value))
    assert options == ["--raw-dir", str(raw), "--data-dir", str(data_dir)]
    assert datasets.load(name, options[3], options[1]).train.num_examples == 13  # what the command does
    assert datasets.load("caltech101", data_dir, raw, prepare=prepare).train.num_examples == 13


def test_other_ways_to_prepare_are_refused():
    with pytest.raises(UsageError, match="unknown way to prepare 'always'.* replace, missing, never"):
        datasets.load("mnist5k", prepare="always")


# TFVAMP_RAW_DIR and paths


def test_a_variable_that_names_a_missing_folder_matters_where_files_are_needed(raw, tmp_path, monkeypatch):
    datasets.load("caltech101", tmp_path / "data", raw)
    monkeypatch.setenv("TFVAMP_RAW_DIR", str(tmp_path / "gone"))
    for prepare in ("replace", "missing", "never"):
        assert datasets.load("caltech101", tmp_path / "data", prepare=prepare).train.num_examples == 12
    assert datasets.load("caltech101", tmp_path / "other", raw).train.num_examples == 12
    with pytest.raises(
        DataError, match="there is no raw-data folder .*gone, which TFVAMP_RAW_DIR names: set it"
    ):
        datasets.load("caltech101", tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    with pytest.raises(DataError, match="there is no raw-data folder .*gone: name another, or leave out"):
        datasets.load("caltech101", tmp_path / "data", tmp_path / "gone")


def test_a_tilde_is_the_home_folder(raw, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(raw)
    np.savez(tmp_path / "own.npz", x=np.arange(160, dtype=np.uint8).reshape(10, 4, 4))
    assert datasets.load("npz:~/own.npz").spec.sizes == (8, 1, 1)
    assert datasets.load("folder:~/pictures", "~/data", image_size="8x8").spec.sizes == (24, 3, 3)
    assert datasets.load("caltech101", "~/data", "~/raw").train.num_examples == 12
    assert datasets.load(TINY, "~/data").train.num_examples == 18
    assert describe.is_prepared(datasets.CATALOG["caltech101"], "~/data")
    monkeypatch.setenv("TFVAMP_RAW_DIR", "~/raw")
    assert datasets.load("caltech101", "~/more").train.num_examples == 12
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", "~/default")
    assert datasets.load("caltech101").train.num_examples == 12
    assert describe.is_prepared(datasets.CATALOG["caltech101"])
    assert {"own.npz", "pictures", "data", "more", "default"} <= set(os.listdir(tmp_path))
    assert os.listdir(raw) == [NAME]


def test_paths_in_texts_can_be_pasted_and_do_nothing_to_a_terminal(raw, tmp_path):
    odd = tmp_path / "a b\x1b[31m\n"
    said = []
    with pytest.raises(DataError, match="not prepared") as error:
        datasets.load("caltech101", odd, prepare="never")
    datasets.load("caltech101", odd, raw, say=said.append)
    (raw / NAME).rename(tmp_path / "kept")
    (raw / NAME).write_bytes(b"damaged")
    moved = raw.rename(tmp_path / "c d\x1b[31m")
    with pytest.raises(DataError, match="Matlab") as other:
        datasets.load("caltech101", odd, moved)
    with pytest.raises(DataError, match="there is no file") as third:
        datasets.load(f"npz:{odd}/a.npz")
    with pytest.raises(DataError, match="there is no folder") as fourth:
        datasets.load(f"folder:{odd}/a", image_size="8x8")
    texts = [*said, *(str(each.value) for each in (error, other, third, fourth))]
    assert all(text.isprintable() and "'" in text for text in texts), texts


def test_paths_that_no_system_takes(raw):
    for name, options in (("caltech101", {}), ("npz:x", {}), ("folder:x", {"image_size": "8x8"})):
        with pytest.raises(UsageError, match="a path must not contain a null byte"):
            datasets.load(name, "a\0b", **options)
        with pytest.raises(DataError, match="File name too long|there is no f"):
            datasets.load(name.replace("x", 3000 * "x/"), 3000 * "a/", **options)


# Killed, full, read-only


def test_data_are_prepared_in_a_scratch_folder_and_downloads_kept(tmp_path, monkeypatch):
    seen = []
    real = TinyPictures._generate_examples
    prepare = TinyPictures.download_and_prepare

    def look(self):
        seen.append(sorted(os.listdir(tmp_path / TinyPictures.name)))
        yield from real(self)

    def remember(self, **options):
        seen.append(options["download_dir"])
        prepare(self, **options)

    monkeypatch.setattr(TinyPictures, "_generate_examples", look)
    monkeypatch.setattr(TinyPictures, "download_and_prepare", remember)
    datasets.load(TINY, tmp_path)
    downloads, first, second = seen
    assert downloads == str(tmp_path / "downloads")
    assert first == second and len(first) == 1 and first[0].startswith(files.SCRATCH)
    assert os.listdir(tmp_path / TinyPictures.name) == ["1.0.0"]
    assert sorted(os.listdir(tmp_path)) == ["downloads", "tfvamp_images", TinyPictures.name]


KILLED = """
import os, signal
from tests.tiny_pictures import TinyPictures
from tfvamp import datasets
from tfvamp.datasets import image_store, sources

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

name, data_dir, raw, image_size = arguments
sources.examples = image_store.write = TinyPictures._generate_examples = kill
datasets.load(name, data_dir, raw or None, image_size=image_size or None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["catalogue", "tfds", "folder"])
def test_what_a_killed_process_left_goes(kind, storm, raw, pictures, tmp_path):
    name, source_dir, image_size, place = {
        "catalogue": ("caltech101", str(raw), "", "caltech101_silhouettes"),
        "tfds": (TINY, "", "", TinyPictures.name),
        "folder": (f"folder:{pictures}", "", "8x8", image_store.FOLDER),
    }[kind]
    data_dir = tmp_path / "data"
    arguments = [name, str(data_dir), source_dir, image_size]
    answer = storm(python=f"arguments = {arguments}\n{KILLED}", eager=False)
    assert answer["status"] == -signal.SIGKILL, answer["stderr"][-2000:]
    (left,) = (data_dir / place).iterdir()
    assert left.name.startswith(files.SCRATCH)
    os.utime(left, (0, 0))
    options = {"raw_dir": source_dir or None, "image_size": image_size or None}
    with pytest.raises(DataError, match="is not prepared"):
        datasets.load(name, data_dir, prepare="never", **options)
    assert left.exists()  # nothing is written, nor removed
    datasets.load(name, data_dir, **options)
    assert not [path for path in data_dir.rglob("*") if path.name.startswith((".", "incomplete"))]


@contextlib.contextmanager
def largest_file(size: int):
    """No file may grow over so many bytes: a write then fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def attempts(data_dir, raw, pictures):
    """Each way to prepare data, with the start of the text where that fails."""
    return [
        (lambda: datasets.load("static_mnist", data_dir, raw), "cannot prepare static_mnist"),
        (lambda: datasets.load(TINY, data_dir), "cannot prepare tiny_pictures"),
        (
            lambda: datasets.load(f"folder:{pictures}", data_dir, image_size="20x20"),
            "cannot keep the images of",
        ),
    ]


def test_a_full_disk(pictures, tmp_path):
    raw, data_dir = made.make("static_mnist", tmp_path / "raw"), tmp_path / "data"
    for attempt, text in attempts(data_dir, raw, pictures):
        with largest_file(1000), pytest.raises(DataError) as error:
            attempt()
        pattern = rf"{text}.* in {data_dir}/\S+ \(File too large.*\): choose another --data-dir"
        assert re.fullmatch(pattern, str(error.value)), error.value
    assert not [path for path in data_dir.rglob("*") if path.is_file() or path.name.startswith(".")]
    for attempt, _ in attempts(data_dir, raw, pictures):
        assert attempt().train.num_examples > 0


@pytest.mark.parametrize("options", ["size=64k", "ro"])
def test_small_and_read_only_disks(options, pictures, tmp_path):
    raw, disk = made.make("static_mnist", tmp_path / "raw"), tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        if options != "ro":
            (disk / "full").write_bytes(bytes(50_000))
        for attempt, text in attempts(disk / "data", raw, pictures):
            with pytest.raises(DataError) as error:
                attempt()
            why = "Read-only file system" if options == "ro" else "No space left on device"
            failed = rf"{text}.* in {disk}/\S+ \({why}\): choose another --data-dir"
            refused = rf"the 30 images of .* would need 35.2 KiB in {disk}/\S+, where .* are free: choose .*"
            assert re.fullmatch(f"{failed}|{refused}", str(error.value))
        assert not [path for path in disk.rglob("*") if path.name.startswith(".")]
    finally:
        subprocess.run(["umount", disk], check=True)
