"""Your own images: .npz files, folders, TFDS sets, arrays."""

import contextlib
import dataclasses
import errno
import fcntl
import io
import json
import mmap
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import time

import numpy as np
import pytest
import requests
import tensorflow as tf
from PIL import Image
from tensorflow_datasets.core.download import downloader

import tfvamp
from tests.tiny_pictures import TinyPictures
from tfvamp import datasets, files, memory, runs, training
from tfvamp.config import TrainConfig
from tfvamp.datasets import image_folder, image_store, pipeline
from tfvamp.errors import DataError, UsageError


def bytes_of(count, shape=(6, 5, 1), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return f"npz:{path}"


def test_npz_with_three_splits(tmp_path):
    parts = {split: bytes_of(5 + i, seed=i) for i, split in enumerate(datasets.SPLITS)}
    data = datasets.load(save(tmp_path / "a.npz", **parts))
    assert data.spec.name == "npz:a.npz" and data.spec.shape == (6, 5, 1) and data.verified is None
    assert data.spec.likelihood == "logistic" and set(data.checksums) == {"the pixels of a.npz"}
    for split, stored in parts.items():
        images, labels = data.split(split).array()
        np.testing.assert_array_equal(images, ((stored + np.float32(0.5)) / 256))  # each in its bin of 256
        assert (labels == -1).all()


def test_npz_files_are_known_by_their_pixels(tmp_path):
    """Written again, compressed, as other types of 0 and 1, or with labels: the same data; with one pixel changed, others."""
    bits = np.random.default_rng(0).integers(0, 2, (20, 6, 5))

    def checksums(x, save=np.savez, **more):
        save(tmp_path / "a.npz", x=x, **more)
        return datasets.load(f"npz:{tmp_path / 'a.npz'}").checksums

    (known,) = checksums(np.uint8(bits)).values()
    same = [
        checksums(np.uint8(bits), np.savez_compressed),
        checksums(np.uint8(255 * bits)),
        checksums(bits.astype(bool)),
        checksums(np.uint8(bits)[..., np.newaxis]),
        checksums(np.asfortranarray(np.uint8(bits))),
        checksums(np.uint8(bits), y=np.arange(20)),
    ]
    assert all(list(one.values()) == [known] for one in same)
    changed = np.uint8(bits)
    changed[7, 3, 2] ^= 1
    assert list(checksums(changed).values()) != [known]
    assert list(checksums(np.uint8(bits).reshape(20, 5, 6)).values()) != [known]


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int8])
def test_whole_numbers_and_rounding_are_taken(dtype, tmp_path):
    grey = np.random.default_rng(0).integers(0, 100, (20, 6, 5))
    expected = datasets.load(save(tmp_path / "a.npz", x=np.uint8(grey)))
    found = datasets.load(save(tmp_path / "b.npz", x=grey.astype(dtype)))
    assert [*found.checksums.values()] == [*expected.checksums.values()]
    shares = grey / 99.0
    rounded = np.where(shares == 1.0, 1.000001, np.where(shares == 0.0, -1e-6, shares))
    plain, other = (
        datasets.load(save(tmp_path / f"{name}.npz", x=x)) for name, x in (("c", shares), ("d", rounded))
    )
    assert [*plain.checksums.values()] == [*other.checksums.values()]


@pytest.mark.parametrize(
    "name, kind", [("a.npz", "npz"), ("pictures/", "folder"), ("~/x", "folder"), ("/data/b.npz", "npz")]
)
def test_a_path_without_its_prefix(name, kind):
    for make in (lambda: datasets.load(name), lambda: TrainConfig(dataset=name)):
        with pytest.raises(UsageError, match=f"for your own images say {kind}:{name}"):
            make()
    with pytest.raises(UsageError, match="--image-size must be HxW"):
        datasets.load("folder:x", image_size=(24, 24))


def test_npz_in_one_piece_is_split_by_a_fixed_seed(tmp_path):
    stored = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    first, second = (datasets.load(save(tmp_path / name, x=stored)) for name in ("a.npz", "b.npz"))
    assert [first.split(split).num_examples for split in datasets.SPLITS] == [32, 4, 4]
    seen = np.concatenate([first.split(split).pixels[:, 0, 0, 0] for split in datasets.SPLITS])
    assert sorted(seen) == list(range(40)) and list(seen) != list(range(40))
    np.testing.assert_array_equal(first.test.pixels, second.test.pixels)


@pytest.mark.parametrize(
    "array, binarize, likelihood, values",
    [
        (bytes_of(30) // 128 * 255, None, "bernoulli", {0.0, 1.0}),
        (bytes_of(30) // 128, None, "bernoulli", {0.0, 1.0}),  # bits
        (bytes_of(30) > 99, "none", "bernoulli", {0.0, 1.0}),
        ((bytes_of(30) > 99).astype(np.float64), None, "bernoulli", {0.0, 1.0}),
        (bytes_of(30), "threshold", "bernoulli", {0.0, 1.0}),
        (bytes_of(30) / 255.0, "threshold", "bernoulli", {0.0, 1.0}),
        (bytes_of(30), "dynamic", "bernoulli", {0.0, 1.0}),
        (bytes_of(30), "none", "logistic", None),
        (bytes_of(30) / 255.0, None, "logistic", None),
        (bytes_of(30)[..., 0], None, "logistic", None),
    ],
)
def test_the_likelihood_follows_the_pixels(array, binarize, likelihood, values):
    data = datasets.from_arrays(array[:20], array[20:25], array[25:], binarize)
    assert data.spec.likelihood == likelihood and data.spec.shape == (6, 5, 1)
    batch = next(iter(data.training_batches(20, 0, 1))).numpy()
    images = np.concatenate([batch, data.test.array()[0]])
    assert (set(np.unique(images)) == values) if values else len(np.unique(images)) > 100


@pytest.mark.parametrize("kind", ["npz", "folder", "tfds"])
def test_every_kind_is_binarised_as_asked(kind, folder, tmp_path):
    grey = np.arange(120, 136, dtype=np.uint8).reshape(1, 4, 4, 1)
    name, options = {
        "npz": (save(tmp_path / "a.npz", train=grey, validation=grey, test=grey), {}),
        "folder": (f"folder:{folder}", {"image_size": "8x9", "grayscale": True}),
        "tfds": (f"tfds:{TinyPictures.name}", {}),
    }[kind]
    cut, drawn, plain = (
        datasets.load(name, tmp_path, binarize=how, **options) for how in ("threshold", "dynamic", "none")
    )
    np.testing.assert_array_equal(cut.test.array()[0], plain.test.pixels >= 128)
    np.testing.assert_array_equal(cut.split("train").array()[0], plain.train.pixels >= 128)
    batch = next(iter(cut.training_batches(5, 0, 1))).numpy()
    assert set(np.unique(batch)) <= {0.0, 1.0}
    assert cut.spec.pseudo_input_mean == pytest.approx((plain.train.pixels >= 128).mean(), abs=1e-4)
    assert set(np.unique(drawn.test.array()[0])) <= {0.0, 1.0}
    assert [d.spec.likelihood for d in (cut, drawn, plain)] == ["bernoulli", "bernoulli", "logistic"]


def bad(**changes):
    return {**{split: bytes_of(4) for split in datasets.SPLITS}, **changes}


@pytest.mark.parametrize(
    "arrays, text",
    [
        ({"images": bytes_of(4)}, "must have the arrays train, validation and test, or x; it has: images"),
        (bad(test=bytes_of(0)), r"\(test\) must have shape .* none of them 0; got \[0, 6, 5, 1\]"),
        (bad(train=bytes_of(4)[:, 0, 0]), r"got \[4, 1\]"),
        (bad(test=bytes_of(4, (5, 5, 1))), "all splits must have images of one shape"),
        (bad(test=bytes_of(4) / 255.0), "all splits must have one dtype; got floats, uint8"),
        (bad(train=bytes_of(4).astype(np.int64) + 1000), "whole numbers must lie between 0 and 255; got 1"),
        (bad(train=bytes_of(4).astype(np.int64) - 256), "whole numbers must lie between 0 and 255; got -"),
        (bad(train=bytes_of(4).astype(np.float32)), "divide by 255, or save them as uint8"),
        (bad(train=bytes_of(4) / 255.0 + 1e-4), r"must lie in \[0, 1\]; got .* to 1.0001"),
        (bad(train=bytes_of(4).astype(complex)), "must hold numbers; got dtype complex128"),
        (bad(x=bytes_of(4)), "has x and train, validation, test: keep x"),
        (bad(train=np.full((4, 6, 5, 1), np.nan)), "pixels must be finite"),
        (bad(train=np.full((4, 6, 5, 1), 1.5)), r"pixels must lie in \[0, 1\]; got 1.5 to 1.5"),
        (bad(train=np.array([[["a"]]])), "must hold numbers"),
        (bad(train=bytes_of(4) > 99), "all splits must have one dtype; got bool, uint8"),
        (bad(train=bytes_of(4) // 128), "some splits hold 0 and 1 and others grey bytes"),
        ({"x": np.uint8(3)}, r"must have shape .*; got \(\)"),
        ({"x": bytes_of(2)}, "has 2 images: at least 3 are needed"),
    ],
)
def test_wrong_npz_files(arrays, text, tmp_path):
    with pytest.raises(DataError, match=text):
        datasets.load(save(tmp_path / "a.npz", **arrays))


def test_npz_files_from_anywhere(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(DataError, match="there is no file"):
        datasets.load(f"npz:{path}")
    np.savez(path, x=np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DataError, match="must hold numbers; got dtype object"):
        datasets.load(f"npz:{path}")
    for contents in (b"", b"PK", b"no zip"):
        path.write_bytes(contents)
        with pytest.raises(DataError, match="cannot be read as a .npz file"):
            datasets.load(f"npz:{path}")
    save(path, x=bytes_of(40))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be read as a .npz file"):
        datasets.load(f"npz:{path}")


@pytest.fixture
def folder(tmp_path):
    """Thirty images of all kinds in nested folders."""
    root = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for number in range(30):
        place = root / ("a" if number % 2 else "b/c")
        place.mkdir(parents=True, exist_ok=True)
        mode = ("L", "RGB", "RGBA", "P")[number % 4] if number % 3 else "RGB"
        pixels = rng.integers(0, 256, (20 + number, 30, 3)).astype(np.uint8)
        suffix = "png" if mode in ("RGBA", "P") or number % 5 else "JPEG"
        Image.fromarray(pixels).convert(mode).save(place / f"{number}.{suffix}")
    (root / "notes.txt").write_text("no image")
    return root


@pytest.mark.parametrize("grayscale, channels", [(True, 1), (False, 3)])
def test_folder(folder, tmp_path, grayscale, channels):
    said = []

    def load():
        options = {"image_size": "8x9", "grayscale": grayscale}
        return datasets.load(f"folder:{folder}", tmp_path / "data", say=said.append, **options)

    data = load()
    assert data.spec.shape == (8, 9, channels) and data.spec.likelihood == "logistic"
    assert [data.split(split).num_examples for split in datasets.SPLITS] == [24, 3, 3]
    assert len(said) == 2 and said[0].startswith("reading 30 images of ")
    assert said[1].endswith("(of other kinds: 1)")
    again = load()
    assert said[2:] == said[1:2]  # once made, kept
    np.testing.assert_array_equal(again.train.pixels, data.train.pixels)
    Image.new("RGB", (9, 9)).save(folder / "new.png")
    assert load().train.num_examples == 25 and len(said) == 5


def test_folder_pixels_are_means_of_blocks(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    root = tmp_path / "a"
    for split in datasets.SPLITS:
        (root / split).mkdir(parents=True)
        Image.fromarray(pixels).save(root / split / "x.png")
    data = datasets.load(f"folder:{root}", tmp_path / "data", image_size="4x4", grayscale=True)
    assert [data.split(split).num_examples for split in datasets.SPLITS] == [1, 1, 1]  # its own splits
    blocks = pixels.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(
        data.test.pixels[0, :, :, 0], blocks, atol=1.0
    )  # rounded along rows, then columns


def test_pictures_of_sixteen_bits_and_turned_ones(tmp_path):
    root = tmp_path / "a"
    root.mkdir()
    ramp = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 3  # by half a turn
    for number in range(3):
        Image.fromarray(ramp).save(root / f"{number}.png", exif=turned)
    for grayscale in (True, False):
        data = datasets.load(f"folder:{root}", tmp_path / "data", image_size="8x8", grayscale=grayscale)
        np.testing.assert_array_equal(data.test.pixels[0, :, :, 0], (ramp // 257)[::-1, ::-1])


def test_a_changed_picture_of_the_same_size_is_read_again(tmp_path):
    root = tmp_path / "a"
    root.mkdir()
    for grey in (10, 200):
        for number in range(3):
            Image.new("L", (8, 8), grey + number).save(root / f"{number}.png")
            os.utime(root / f"{number}.png", ns=(0, grey))
        data = datasets.load(f"folder:{root}", tmp_path / "data", image_size="8x8", grayscale=True)
        assert grey <= data.train.pixels.min() and data.train.pixels.max() <= grey + 2
    (checksum,) = data.checksums.values()
    for number in range(3):
        os.utime(root / f"{number}.png", ns=(0, 7))  # copied, say: the pixels are the same
    again = datasets.load(f"folder:{root}", tmp_path / "data", image_size="8x8", grayscale=True)
    assert list(again.checksums.values()) == [checksum]


def test_a_folder_with_some_of_the_splits(folder, tmp_path):
    (folder / "train").mkdir()
    (folder / "test").mkdir()
    with pytest.raises(
        DataError, match="has the folders train, test, but not all of train, validation, test"
    ):
        datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8")


def test_names_that_are_no_text(folder, tmp_path):
    broken = folder / os.fsdecode(b"a\xff\n\x1b[31mb.png")
    broken.write_bytes(b"")
    said = []
    datasets.load(f"folder:{folder}", tmp_path / "data", say=said.append, image_size="8x8")
    assert "a? ?[31mb.png (UnidentifiedImageError)" in said[1] and said[1].isprintable()
    renamed = folder.rename(folder.with_name(os.fsdecode(b"c\xff")))
    data = datasets.load(f"folder:{renamed}", tmp_path / "data", image_size="8x8", binarize="dynamic")
    assert set(np.unique(data.test.array()[0])) <= {0.0, 1.0}


def test_two_processes_keep_the_same_images(folder, tmp_path, monkeypatch):
    """The slower one takes what the faster one has made; what a killed one left goes, what is in use stays."""
    real = image_store.write

    def slow(made, *args):
        real(made, *args)
        monkeypatch.setattr(image_store, "write", real)
        datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8")

    monkeypatch.setattr(image_store, "write", slow)
    root = tmp_path / "data" / "tfvamp_images"
    left, in_use, new = (root / f"{files.SCRATCH}{letter * 16}" for letter in "abc")
    for scratch, age in ((left, 10), (in_use, 700_000), (new, 0)):
        scratch.mkdir(parents=True)
        os.utime(scratch, (time.time() - age,) * 2)
    monkeypatch.setattr(files, "JUST_MADE", 5)
    used = os.open(in_use, os.O_RDONLY)
    fcntl.flock(used, fcntl.LOCK_EX)
    data = datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8")
    os.close(used)
    assert data.train.num_examples == 24
    stores = [path.name for path in root.iterdir() if not path.name.startswith(files.SCRATCH)]
    assert len(stores) == 1
    assert sorted(os.listdir(root)) == sorted([*stores, in_use.name, new.name])


def test_broken_files_are_named_and_left_out(folder, tmp_path):
    victim = sorted(folder.rglob("*.png"))[3]
    victim.write_bytes(victim.read_bytes()[:60])
    said = []
    data = datasets.load(f"folder:{folder}", tmp_path / "data", say=said.append, image_size="8x8")
    assert sum(data.spec.sizes) == 29
    assert said[1].startswith("1 of 30 files is broken and left out: ") and victim.name in said[1]
    for path in sorted(folder.rglob("*.png"))[:8]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="more than one file in ten is broken"):
        datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8")
    assert len(list((tmp_path / "data" / "tfvamp_images").iterdir())) == 1  # nothing half-made


def test_a_picture_whose_turning_makes_no_sense_is_broken(folder, tmp_path):
    """Pillow raises a TypeError where EXIF says to turn and has a text for the resolution."""
    turn, resolution = struct.pack("<HHIHH", 0x0112, 3, 1, 3, 0), struct.pack("<HHI4s", 0x011A, 2, 1, b"a")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + turn + resolution + bytes(4)
    Image.new("RGB", (8, 8)).save(folder / "turned.jpg", exif=exif)
    said = []
    data = datasets.load(f"folder:{folder}", tmp_path / "data", say=said.append, image_size="8x8")
    assert sum(data.spec.sizes) == 30 and "1 of 31 files is broken and left out: turned.jpg (" in said[1]
    again = []  # said each time, not only when they are read
    datasets.load(f"folder:{folder}", tmp_path / "data", say=again.append, image_size="8x8")
    assert again == said[1:]


def test_sizes_beyond_the_disk(folder, tmp_path, monkeypatch):
    """Refused with what they would need, before anything is written; what is taken is said."""
    said = []
    used = {"say": said.append, "image_size": "8x9"}
    datasets.load(f"folder:{folder}", tmp_path / "data", **used)
    assert said[0].startswith(f"reading 30 images of {folder} into ") and said[0].endswith(" (6.3 KiB)")
    datasets.load(f"tfds:{TinyPictures.name}", tmp_path / "data", **used)
    assert said[3].startswith(f"reading 40 images of {TinyPictures.name} into ")
    stores = sorted((tmp_path / "data" / "tfvamp_images").iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(2**30, 2**30, 10**6))
    for name, needed in ((f"folder:{folder}", "8.4"), (f"tfds:{TinyPictures.name}", "3.7")):
        with pytest.raises(
            DataError,
            match=rf"images of .* at 9999x9999 would need {needed} GiB in .*tfvamp_images, where 976.6 KiB are free",
        ):
            datasets.load(name, tmp_path / "data", say=said.append, image_size="9999x9999")
    assert len(said) == 4 and sorted((tmp_path / "data" / "tfvamp_images").iterdir()) == stores
    with pytest.raises(DataError, match="choose a smaller --image-size or another --data-dir"):
        datasets.load(f"folder:{folder}", tmp_path / "a" / "b", image_size="9999x9999")
    assert not (tmp_path / "a").exists()


def test_arrays_beyond_the_memory(folder, tmp_path, monkeypatch):
    name = save(tmp_path / "a.npz", x=bytes_of(40))
    small, large = datasets.load(name), datasets.load(f"folder:{folder}", tmp_path, image_size="8x8")
    monkeypatch.setattr(memory, "available", lambda: 4 * small.train.pixels.size)
    small.train.array()
    with pytest.raises(
        UsageError, match=r"folder:pictures \(train\) as an array would need 18.0 KiB of memory"
    ):
        large.train.array()
    save(tmp_path / "a.npz", x=bytes_of(300))
    with pytest.raises(
        UsageError, match="a.npz would need .* of memory; this machine has 3.8 KiB: put the images in"
    ):
        datasets.load(name)


def nested(folder: pathlib.Path, depth: int) -> pathlib.Path:
    """A folder in a folder in a folder; none of the usual functions makes, or removes, a thousand of them."""
    place = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    Image.new("L", (8, 8)).save(folder.with_name("one.png"))
    source = os.open(folder.parent, os.O_RDONLY)
    os.rename("one.png", "one.png", src_dir_fd=source, dst_dir_fd=place)
    os.close(source)
    os.close(place)
    return folder


def remove_nested(folder: pathlib.Path) -> None:
    subprocess.run(["rm", "-rf", folder], check=True)


def test_pictures_1800_folders_deep(folder, tmp_path):
    try:
        data = datasets.load(f"folder:{nested(folder, 1800)}", tmp_path / "data", image_size="8x8")
        assert sum(data.spec.sizes) == 31
        nested(folder / "b", 2100)  # beyond what a path may be long
        with pytest.raises(DataError, match=r"cannot read all folders in .*pictures \(File name too long\)"):
            datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8")
    finally:
        remove_nested(folder)


def test_files_that_are_none(folder, tmp_path):
    """Pipes, devices, sockets and links into nothing, named as pictures."""
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "nothing.png").symlink_to(folder / "nowhere")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    (folder / "folder.png").mkdir()
    (folder / "up").symlink_to(folder)
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(folder):
        server.bind("socket.png")
    data = datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8")
    assert sum(data.spec.sizes) == 30
    with pytest.raises(DataError, match="not a regular file"):  # made one after it was found
        image_folder.decode(folder / "pipe.png", (8, 8), 3, "white")


@pytest.mark.parametrize("when", ["found", "listed", "read"])
def test_a_folder_that_vanishes_meanwhile(when, folder, tmp_path, monkeypatch):
    def gone(real):
        def first(*args):
            shutil.rmtree(folder, ignore_errors=True)
            return real(*args)

        return first

    owner, name = {
        "found": (os, "scandir"),
        "listed": (image_store, "listing"),
        "read": (image_folder, "decode"),
    }[when]
    with monkeypatch.context() as patched, pytest.raises(DataError) as error:
        if when == "found":
            real = os.scandir

            def scandir(place):
                patched.undo()
                shutil.rmtree(folder)
                return real(place)

            patched.setattr(os, "scandir", scandir)
        else:
            patched.setattr(owner, name, gone(getattr(owner, name)))
        datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8")
    text = {
        "found": f"cannot read all folders in {folder} (No such file or directory)",
        "listed": f"cannot read {folder} (No such file or directory): did it change in the meantime?",
        "read": f"{folder}: more than one file in ten is broken, ",
    }[when]
    assert str(error.value).startswith(text) and "\n" not in str(error.value)


def test_a_full_disk(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(DataError, match="No space left on device.: choose another --data-dir"):
        datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8")
    assert not list((tmp_path / "data" / "tfvamp_images").iterdir())


def test_an_image_too_large_is_broken(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(image_folder, "LARGEST_IMAGE", 1200)  # 40 x 30
    said = []
    monkeypatch.setattr(image_folder, "MOST_BROKEN", 0.5)
    data = datasets.load(f"folder:{folder}", tmp_path / "data", say=said.append, image_size="8x8")
    assert sum(data.spec.sizes) == 21 and "9 of 30 files are broken" in said[1]


@pytest.mark.parametrize(
    "name, options, error, text",
    [
        ("folder:nowhere", {"image_size": "8x8"}, DataError, "there is no folder nowhere"),
        ("folder:.", {}, UsageError, "needs --image-size HxW"),
        ("folder:", {"image_size": "8x8"}, UsageError, "must be followed by a folder"),
        ("npz:/dev/zero", {}, DataError, "there is no file /dev/zero"),
        ("folder:.", {"image_size": "8"}, UsageError, "--image-size must be HxW, such as 64x64; got '8'"),
        ("folder:.", {"image_size": "0x8"}, UsageError, "got '0x8'"),
        ("folder:.", {"image_size": "8x8"}, DataError, "has no PNG or JPEG image"),
        ("npz:a.npz", {"grayscale": True}, UsageError, "not with npz:"),
        ("npz:a.npz", {"binarize": "yes"}, UsageError, "unknown binarisation 'yes'"),
        ("tfds:no_such_set", {}, UsageError, "TFDS knows no data set 'no_such_set'"),
        ("tfds:../../x y", {}, UsageError, "must be followed by NAME"),
        ("mnist5k", {"image_size": "8x8"}, UsageError, "go with your own images, not with mnist5k"),
    ],
)
def test_bad_names_and_options(name, options, error, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=text):
        datasets.load(name, tmp_path / "data", **options)


def test_a_data_folder_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot keep the images of .*choose another --data-dir"):
        datasets.load(f"folder:{folder}", tmp_path / "file", image_size="8x8")


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_a_damaged_store(folder, tmp_path):
    datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8")
    (store,) = (tmp_path / "data" / "tfvamp_images").iterdir()
    index, pixels = store / "index.json", store / "pixels.npy"
    whole, text, stored = pixels.read_bytes(), index.read_text(), json.loads(index.read_text())
    for damage in (
        lambda: pixels.write_bytes(whole[:-1000]),
        lambda: pixels.write_bytes(b""),
        pixels.unlink,
        lambda: index.write_text("{}"),
        lambda: index.write_text("{"),
        lambda: index.write_text(json.dumps({**stored, "counts": [-5, 10, 10]})),
        lambda: index.write_text(json.dumps({**stored, "counts": [10**30, 1, 1]})),
        lambda: index.write_text(json.dumps({**stored, "counts": {"a": 1, "b": 2, "c": 3}})),
        lambda: index.write_text(json.dumps({**stored, "checksums": {"a\x1b[31m": "b"}})),
        lambda: index.write_text(json.dumps({**stored, "broken": [{}]})),
        lambda: index.write_text("[" * 200_000),
        lambda: pixels.write_bytes(npy(np.zeros((30, 8, 8, 3), np.float32))),
        lambda: pixels.write_bytes(npy(np.zeros((30, 8, 8), np.uint8))),
        lambda: pixels.write_bytes(npy(np.asfortranarray(np.zeros((30, 8, 8, 3), np.uint8)))),
        lambda: pixels.write_bytes(whole[:8] + b"\xff\xff" + b"(" * 2**16),
        lambda: pixels.write_bytes(npy(np.array([{}]))),
        lambda: (pixels.unlink(), os.mkfifo(pixels)),
        lambda: (pixels.unlink(), pixels.symlink_to("/dev/zero")),
    ):
        damage()
        with pytest.raises(DataError, match="are damaged: delete that folder"):
            datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8", prepare="never")
        for path in (index, pixels):
            path.unlink(missing_ok=True)
        index.write_text(text)
        pixels.write_bytes(whole)
    datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x8", prepare="never")


def test_any_set_of_tfds(tmp_path):
    name = TinyPictures.name
    data = datasets.load(f"tfds:{name}", tmp_path)
    assert [data.split(split).num_examples for split in datasets.SPLITS] == [18, 2, 20]
    assert data.spec.shape == (28, 28, 1)
    assert sorted(data.test.pixels[:, 0, 0, 0]) == list(range(20))
    small = datasets.load(f"tfds:{name}:image", tmp_path, image_size="14x7", binarize="dynamic")
    assert small.spec.shape == (14, 7, 1) and small.spec.likelihood == "bernoulli"
    with pytest.raises(UsageError, match="has no image 'label'; it has: image"):
        datasets.load(f"tfds:{name}:label", tmp_path)


def test_prepared_data_of_tfds_that_are_damaged(tmp_path):
    name = f"tfds:{TinyPictures.name}"
    datasets.load(name, tmp_path)
    for victim, keep in (("*.tfrecord*", 200), ("dataset_info.json", 100)):
        path = next(tmp_path.rglob(victim))
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataError, match="the prepared data in .* are damaged .*: delete that folder"):
            datasets.load(name, tmp_path)


def test_sets_of_tfds_prepared_again_are_read_again(tmp_path, monkeypatch):
    first = datasets.load(f"tfds:{TinyPictures.name}", tmp_path)

    def brighter(self):
        for i in range(20):
            yield i, {"image": np.full((28, 28, 1), 200 + i, np.uint8), "label": i}

    monkeypatch.setattr(TinyPictures, "_generate_examples", brighter)
    shutil.rmtree(tmp_path / TinyPictures.name)
    again = datasets.load(f"tfds:{TinyPictures.name}", tmp_path)
    assert first.train.pixels.max() < 20 and again.train.pixels.min() >= 200


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_of_tfds_keep_their_channels(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, channels)).astype(np.uint8)
    small = image_folder.resized(pixels, (3, 4), channels)
    assert small.shape == (3, 4, channels)
    blocks = pixels.reshape(3, 2, 4, 2, channels).mean(axis=(1, 3))
    if channels < 4:  # Pillow weighs colours by how opaque they are
        np.testing.assert_allclose(small, blocks, atol=1.0)


def test_a_set_of_tfds_without_a_network(tmp_path, monkeypatch):
    def no_network(*_, **__):
        assert downloader.MAX_RETRIES < 10  # which take minutes
        assert requests.Session().get.keywords["timeout"] < 60
        raise requests.ConnectionError("unreachable")

    monkeypatch.setattr(TinyPictures, "download_and_prepare", no_network)
    with pytest.raises(DataError, match=r"cannot download tiny_pictures .*: check the network, or copy "):
        datasets.load(f"tfds:{TinyPictures.name}", tmp_path)
    assert downloader.MAX_RETRIES == 10 and not hasattr(requests.Session().get, "keywords")


def test_batches_from_a_file_equal_those_from_memory(folder, tmp_path, monkeypatch):
    map_of = pipeline._map_of

    def batches():
        data = datasets.load(f"folder:{folder}", tmp_path / "data", image_size="8x9")
        return [batch.numpy() for batch in data.training_batches(7, 3, 2)], data.test.array()[0]

    held, test = batches()
    monkeypatch.setattr(pipeline, "IN_MEMORY", 0)
    released = []
    monkeypatch.setattr(pipeline, "_map_of", lambda pixels: released.append(map_of(pixels)) or released[-1])
    read, same = batches()
    assert len(released) == 2 and all(isinstance(mapped, mmap.mmap) for mapped in released)
    np.testing.assert_array_equal(test, same)
    assert [len(batch) for batch in read] == [7, 7, 7, 3]
    for a, b in zip(held, read, strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_of_some_indices_are_those_in_order(folder, tmp_path):
    """Also where each is binarised from a seed of its own, and by reading these alone."""
    for binarize in ("none", "dynamic"):
        data = datasets.load(
            f"folder:{folder}", tmp_path / "data", image_size="8x9", grayscale=True, binarize=binarize
        )
        for split in datasets.SPLITS:
            part = data.split(split)
            np.testing.assert_array_equal(part.at(tf.constant([2, 0])), part.array()[0][[2, 0]])


@pytest.mark.usefixtures("eager")
def test_a_run_whose_images_are_other_ones_now(tmp_path, small_config):
    """Other values of the same kind are said; those that the model cannot mean are refused."""
    bits = bytes_of(40) // 128 * 255
    name = save(tmp_path / "a.npz", x=bits)
    config = dataclasses.replace(small_config, dataset=name, limit=None, epochs=1)
    training.train(config, tmp_path / "run")
    said = []
    first = tfvamp.evaluate(tmp_path / "run", num_samples=2, say=said.append, proposal="encoder")
    assert said == [] and list(first["sources"]) == ["the pixels of a.npz"]
    save(tmp_path / "a.npz", x=255 - bits)
    second = tfvamp.evaluate(tmp_path / "run", num_samples=2, say=said.append, proposal="encoder")
    assert "is made from other files than those" in said[0] and second["sources"] != first["sources"]
    with pytest.raises(tfvamp.errors.RunError, match="was trained on other source files"):
        training.resume(tmp_path / "run", epochs=2)
    save(tmp_path / "a.npz", x=bytes_of(40))
    for use in (tfvamp.evaluate, runs.encode, runs.plot):
        with pytest.raises(
            UsageError, match="likelihood bernoulli does not fit npz:a.npz, whose pixels have many levels"
        ):
            use(tmp_path / "run")
    save(tmp_path / "a.npz", x=bits[:, :5])
    with pytest.raises(
        tfvamp.errors.RunError, match=r"trained on images of \[6, 5, 1\]; .* have \[5, 5, 1\] now"
    ):
        tfvamp.evaluate(tmp_path / "run", proposal="encoder")


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kind", ["npz", "folder", "tfds"])
def test_training_evaluation_and_resume(kind, folder, tmp_path, small_config, monkeypatch):
    name = {
        "npz": lambda: save(tmp_path / "a.npz", x=bytes_of(40)),
        "folder": lambda: f"folder:{folder}",
        "tfds": lambda: f"tfds:{TinyPictures.name}",
    }[kind]()
    options = {"image_size": "6x6", "grayscale": True} if kind == "folder" else {}
    config = dataclasses.replace(small_config, dataset=name, data_dir=str(tmp_path), limit=None, **options)
    training.train(config, tmp_path / "run")
    result = tfvamp.evaluate(tmp_path / "run", num_samples=4, proposal="encoder")
    assert result["dataset_verified"] is None and np.isfinite(result["bits_per_dim"])
    model = tfvamp.load(tmp_path / "run")
    assert model.dataset_spec.name.startswith(f"{kind}:") and model.dataset_spec.likelihood == "logistic"
    monkeypatch.chdir(tmp_path.parent)  # a run finds its images from anywhere
    assert training.resume(tmp_path / "run", epochs=4).epochs == 4
    document = json.loads((tmp_path / "run" / "config.json").read_text())
    del document["data"]["spec"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(document))
    with pytest.raises(tfvamp.errors.RunError, match="data.spec is not that of a data set"):
        tfvamp.load(tmp_path / "run")


def test_resolved_settings_of_grey_images(tmp_path):
    data = datasets.load(save(tmp_path / "a.npz", x=bytes_of(40)))
    config = TrainConfig(dataset="npz:a.npz").resolve(data.spec)
    assert config.likelihood == "logistic" and config.components == 500
    assert (
        TrainConfig(dataset="npz:a.npz", likelihood="paper").resolve(data.spec).likelihood == "logistic-paper"
    )
    assert abs(data.spec.pseudo_input_mean - 0.5) < 0.05


def test_tensors_never_leave_the_unit_interval():
    spec = dataclasses.replace(datasets.CATALOG["histopathology"])
    images = pipeline.to_images(tf.constant([0, 128, 255], tf.uint8), spec)
    np.testing.assert_allclose(images, [1 / 512, 128 / 255, 511 / 512], rtol=1e-6)
