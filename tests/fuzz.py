"""Source files with flipped, cut and repeated bytes: each must be read or refused in one line, in bounded memory.

python -m tests.fuzz --rounds 200                    on made files
python -m tests.fuzz --rounds 200 --raw-dir DIR      on the published ones
"""

from __future__ import annotations

import pathlib
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable

import click
import numpy as np
from PIL import Image

from tests import made
from tfvamp.datasets import image_store, own, sources
from tfvamp.datasets.caltech101_silhouettes import caltech101_silhouettes_dataset_builder as caltech
from tfvamp.datasets.dynamic_mnist import dynamic_mnist_dataset_builder as dynamic_mnist
from tfvamp.datasets.frey_faces import frey_faces_dataset_builder as frey_faces
from tfvamp.datasets.histopathology_gray import histopathology_gray_dataset_builder as histopathology
from tfvamp.datasets.mnist5k import mnist5k_dataset_builder as mnist5k
from tfvamp.datasets.omniglot_28x28 import omniglot_28x28_dataset_builder as omniglot
from tfvamp.datasets.static_mnist import static_mnist_dataset_builder as static_mnist
from tfvamp.errors import TfvampError

MEMORY = 2**30  # bytes that reading one file may add to what the process holds
SECONDS = 60  # the largest published file takes some ten
# data set -> its file, as it is here or gzipped, and what reads it
READERS: dict[str, tuple[str, Callable]] = {
    "mnist5k": ("mnist_5k.csv.gz", mnist5k.read_csv),
    "caltech101": ("caltech101_silhouettes_28_split1.mat", caltech.read_mat),
    "omniglot": ("chardata.mat", omniglot.read_mat),
    "frey_faces": ("freyfaces.pkl", frey_faces.read_pickle),
    "static_mnist": ("binarized_mnist_test.amat", static_mnist.read_amat),
    "dynamic_mnist": ("t10k-images-idx3-ubyte", dynamic_mnist.read_idx),
    "dynamic_mnist_labels": ("t10k-labels-idx1-ubyte", dynamic_mnist.read_idx),
    "histopathology": (
        "histopathology.pkl.tar.gz",
        lambda path: histopathology.read_pickle(path, histopathology.read_archive(path)),
    ),
    "npz": ("own.npz", lambda path: own.from_arrays("npz", own.read_npz(path), None)),
    "png": ("own.png", lambda path: _picture(path)),
    "jpeg": ("own.jpg", lambda path: _picture(path)),
}


def _picture(path: pathlib.Path) -> np.ndarray:
    """As `image_store` reads one picture: what it counts as broken is an error here."""
    try:
        return image_store.decode(path, (8, 8), grayscale=False)
    except image_store.BROKEN as error:
        raise TfvampError(str(error)) from error


def source(name: str, folder: pathlib.Path, raw_dir: pathlib.Path | None) -> pathlib.Path | None:
    """The file to damage: a published one of a folder, or a made one."""
    file = READERS[name][0]
    if raw_dir is not None:
        return next((p for p in (raw_dir / file, raw_dir / f"{file}.gz") if p.is_file()), None)
    rng = np.random.default_rng(0)
    if name == "npz":
        np.savez_compressed(folder / file, x=rng.integers(0, 256, (30, 6, 5)).astype(np.uint8))
    elif name in ("png", "jpeg"):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)).save(folder / file)
    else:
        made.make(name.removesuffix("_labels"), folder)
    return next(p for p in (folder / file, folder / f"{file}.gz") if p.is_file())


def unpacked(path: pathlib.Path) -> bytes:
    """The contents without compression, whose checksums would catch all damage before a reader sees any."""
    contents = sources.read_bytes(path)
    return sources.inflated_mat(contents, path) if path.suffix == ".mat" else contents


def damaged(contents: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes flipped, the end cut off, a piece left out, or a piece repeated; often near the start."""
    size = len(contents)
    reach = size if rng.random() < 0.5 else min(size, 512)
    first, length = int(rng.integers(reach)), int(rng.integers(1, 64))
    kind = rng.integers(4)
    if kind == 0:
        changed = bytearray(contents)
        for position in rng.integers(reach, size=int(rng.integers(1, 9))):
            changed[position] = int(rng.integers(256))
        return bytes(changed)
    if kind == 1:
        return contents[:first]
    if kind == 2:
        return contents[:first] + contents[first + length :]
    return contents[: first + length] + contents[first:]


def fuzz(name: str, rounds: int, raw_dir: pathlib.Path | None = None, seed: int = 0) -> Counter:
    """Reads damaged files; how often each outcome came. Raises where one is neither a reading nor an error in a line."""
    rng, outcomes = np.random.default_rng(seed), Counter()
    with tempfile.TemporaryDirectory() as scratch:
        path = source(name, pathlib.Path(scratch), raw_dir)
        if path is None:
            return outcomes
        contents, inside = path.read_bytes(), unpacked(path)
        victim = pathlib.Path(scratch) / path.name
        for number in range(rounds):  # in turn as published, and without compression
            victim.write_bytes(damaged((contents, inside)[number % 2], rng))
            before, start = peak(), time.perf_counter()
            try:
                READERS[name][1](victim)
                outcomes["read"] += 1
            except TfvampError as error:
                assert "\n" not in str(error).strip(), f"{name}, round {number}: {error}"
                outcomes["refused"] += 1
            assert peak() - before < MEMORY, f"{name}, round {number}: {peak() - before} bytes"
            assert time.perf_counter() - start < SECONDS, f"{name}, round {number}"
    return outcomes


def peak() -> int:
    """The most memory that this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@click.command()
@click.option("--rounds", default=200, show_default=True)
@click.option("--raw-dir", type=pathlib.Path, help="Damage the published files in this folder.")
def main(rounds, raw_dir):
    """Prints how often damaged files were read, and refused."""
    for name in READERS:
        outcomes = fuzz(name, rounds, raw_dir)
        if outcomes:
            print(f"{name:<22} {outcomes['read']:4d} read, {outcomes['refused']:4d} refused", flush=True)
    print(f"peak memory {peak() / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
