"""Source files and run folders with flipped, cut and repeated bytes: each is read or refused in one line, in bounded
memory.

python -m tests.fuzz --rounds 200                    on made files
python -m tests.fuzz --rounds 200 --raw-dir DIR      on the published ones
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gzip
import io
import pathlib
import struct
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from unittest import mock

import click
import numpy as np
import scipy.io
import tensorflow as tf
from PIL import Image

import tfvamp
from tests import made
from tfvamp.config import TrainConfig
from tfvamp.datasets import idx, image_folder, image_store, matlab, own, sources
from tfvamp.datasets.caltech101_silhouettes import caltech101_silhouettes_dataset_builder as caltech
from tfvamp.datasets.frey_faces import frey_faces_dataset_builder as frey_faces
from tfvamp.datasets.histopathology_gray import histopathology_gray_dataset_builder as histopathology
from tfvamp.datasets.mnist5k import mnist5k_dataset_builder as mnist5k
from tfvamp.datasets.omniglot_28x28 import omniglot_28x28_dataset_builder as omniglot
from tfvamp.datasets.splits import SPLITS
from tfvamp.datasets.static_mnist import static_mnist_dataset_builder as static_mnist
from tfvamp.errors import TfvampError
from tfvamp.optimizers import NormalizedAdam
from tfvamp.runs import Run, building, weights
from tfvamp.training import checkpoints

MEMORY = 2**30  # bytes that reading one file may add to what the process holds
SECONDS = 60  # after which the process ends; the largest published file takes some ten
ROWS = 60  # of mnist5k, in the made file
# data set -> its file, as it is here or gzipped, and what reads it
READERS: dict[str, tuple[str, Callable]] = {
    "mnist5k": ("mnist_5k.csv.gz", mnist5k.read_csv),
    "caltech101": ("caltech101_silhouettes_28_split1.mat", caltech.read_mat),
    "omniglot": ("chardata.mat", omniglot.read_mat),
    "frey_faces": ("freyfaces.pkl", frey_faces.read_pickle),
    "frey_faces_matlab": ("frey_rawface.mat", frey_faces.read_mat),
    "static_mnist": ("binarized_mnist_test.amat", static_mnist.read_amat),
    "dynamic_mnist": ("t10k-images-idx3-ubyte", idx.read),
    "dynamic_mnist_labels": ("t10k-labels-idx1-ubyte", idx.read),
    "histopathology": (
        "histopathology.pkl.tar.gz",
        lambda path: histopathology.read_pickle(path, histopathology.read_archive(path)),
    ),
    "histopathology_pickle": (
        "histopathology.pkl",
        lambda path: histopathology.read_pickle(
            path, sources.read_bytes(path, histopathology.LARGEST_ARCHIVE)
        ),
    ),
    "npz": ("own.npz", lambda path: own.from_arrays("npz", own.read_npz(path), None)),
    "png": ("own.png", lambda path: image_folder.decode(path, (8, 8), 3, "white")[0]),
    "store_index": ("index.json", lambda path: image_store.opened(path.parent)),
    "store_labels": ("labels.npy", lambda path: image_store.opened(path.parent)),
    "store_pixels": ("pixels.npy", lambda path: image_store.opened(path.parent)),
    "jpeg": ("own.jpg", lambda path: image_folder.decode(path, (8, 8), 3, "white")[0]),
    "run_config": ("run/config.json", lambda path: _read_run(path.parent)),
    "run_history": ("run/history.csv", lambda path: Run(path.parent).rows()),
    "run_evaluation": ("run/evaluation.json", lambda path: Run(path.parent).evaluation()),
    "run_arrays": ("run/evaluations/000001/log_likelihood.npz", lambda path: _read_arrays(path.parents[2])),
    "run_weights": ("run/best/model.weights.h5", lambda path: _read_weights(path)),
    "run_checkpoint": ("run/checkpoints/epoch-000002.npz", lambda path: _read_checkpoint(path)),
}


def _read_run(folder: pathlib.Path) -> None:
    run = Run(folder)
    assert run.stored_weights.epoch and len(run.rows()) == 2 and run.evaluation()


def _read_arrays(folder: pathlib.Path) -> None:
    assert len(Run(folder).evaluated_arrays()["log_likelihood"])


@functools.cache
def _model(folder: pathlib.Path):
    """The model of the made run, compiled: only its files are damaged."""
    config = Run(folder).config
    model = building.model_of(config, (6, 5, 1))
    model.compile(optimizer=NormalizedAdam(1e-3))
    model.optimizer.build(model.trainable_variables)
    return model


def _read_weights(path: pathlib.Path) -> None:
    model = _model(path.parents[1])
    stored = weights.read(path, [tuple(weight.shape) for weight in model.weights])
    weights.load(model, stored, path)


def _read_checkpoint(path: pathlib.Path) -> None:
    """As if it were alone: damage is an error then, not a reason to go back to the one before."""
    for other in path.parent.glob("epoch-000001.npz"):
        other.unlink()
    shapes = [tuple(one.shape) for one in checkpoints.variables(_model(path.parents[1]))]
    checkpoint = checkpoints.newest(path.parent, shapes, 2**20, lambda text: None)
    assert checkpoint is not None and checkpoint.epoch == 2


def _make_run(folder: pathlib.Path) -> None:
    """A run of two epochs on tiny images, evaluated, in the folder `run`."""
    images = np.random.default_rng(0).integers(0, 2, (30, 6, 5)).astype(np.uint8)
    np.savez(folder / "x.npz", x=images)
    config = TrainConfig(
        dataset=f"npz:{folder}/x.npz",
        components=3,
        hidden_units=4,
        latent_dims=2,
        epochs=2,
        warmup=1,
        jit=False,
    )
    tf.config.run_functions_eagerly(True)
    tfvamp.train(config, folder / "run")
    tfvamp.evaluate(folder / "run", 3, proposal="encoder")
    tf.config.run_functions_eagerly(False)


def source(name: str, folder: pathlib.Path, raw_dir: pathlib.Path | None) -> pathlib.Path | None:
    """The file to damage: a published one of a folder, or a made one."""
    file = READERS[name][0]
    if raw_dir is not None:
        return next((p for p in (raw_dir / file, raw_dir / f"{file}.gz") if p.is_file()), None)
    rng = np.random.default_rng(0)
    if name == "npz":
        np.savez_compressed(folder / file, x=rng.integers(0, 256, (30, 6, 5)).astype(np.uint8))
    elif name in ("png", "jpeg"):
        exif = Image.Exif()
        exif[0x0112], exif[0x011A] = 3, 72.0  # turned, with a resolution
        pixels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / file, exif=exif)
    elif name.startswith("run_"):
        _make_run(folder)
    elif name.startswith("store_"):
        images = [
            (split, rng.integers(0, 256, (6, 5, 1)).astype(np.uint8), label)
            for label, split in enumerate(SPLITS)
        ]
        image_store.write(folder, images, 3, (6, 5, 1), "pictures", ["a.png (OSError)"], ["a", "b", "c"])
    elif name == "frey_faces_matlab":
        faces = rng.integers(0, 256, (560, 410)).astype(np.uint8)
        scipy.io.savemat(folder / file, {"ff": faces}, do_compression=True)
    elif name == "histopathology_pickle":
        archive = made.make("histopathology", folder) / "histopathology.pkl.tar.gz"
        (folder / file).write_bytes(histopathology.read_archive(archive))
    elif name == "mnist5k":
        lines = gzip.decompress(mnist5k.find_file().read_bytes()).splitlines(keepends=True)
        (folder / file).write_bytes(gzip.compress(b"".join(lines[:: len(lines) // ROWS][:ROWS])))
    else:
        made.make(name.removesuffix("_labels"), folder)
    return next(p for p in (folder / file, folder / f"{file}.gz") if p.is_file())


def opened(path: pathlib.Path) -> tuple[bytes, Callable[[bytes], bytes]]:
    """What is inside a file's compression and checksums, which would catch all damage before a reader sees any.

    And how that becomes a file again.
    """
    contents = path.read_bytes() if "run" in path.parts else sources.read_bytes(path)
    if path.suffix == ".mat":
        return matlab.inflated(contents, path), bytes
    if path.name == "own.npz":
        with zipfile.ZipFile(path) as archive:
            return archive.read("x.npy"), _zipped
    return contents, _with_checksums if path.suffix == ".png" else bytes


def _zipped(contents: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", contents)
    return buffer.getvalue()


def _with_checksums(png: bytes) -> bytes:
    """A PNG file whose chunks have the checksums of what they hold."""
    parts, start = [png[:8]], 8
    while start + 12 <= len(png):
        end = start + 8 + int.from_bytes(png[start : start + 4], "big")
        parts += [png[start:end], struct.pack(">I", zlib.crc32(png[start + 4 : end]))]
        start = end + 4
    return b"".join([*parts, png[start:]])


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
    """Reads damaged files; how often each outcome came, and the most bytes that reading one added, "memory".

    Raises where one is neither a reading nor an error in a line, or takes too much memory; one that takes too long ends
    the process.
    """
    rng, outcomes = np.random.default_rng(seed), Counter()
    rows = mock.patch.object(mnist5k, "COUNT", ROWS) if raw_dir is None else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as scratch, rows:
        path = source(name, pathlib.Path(scratch), raw_dir)
        if path is None:
            return outcomes
        contents, (inside, packed) = path.read_bytes(), opened(path)
        victim = path if raw_dir is None else pathlib.Path(scratch) / path.name
        for number in range(rounds):  # in turn as published, and inside
            victim.write_bytes(packed(damaged(inside, rng)) if number % 2 else damaged(contents, rng))
            before = watched_memory()
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                READERS[name][1](victim)
                outcomes["read"] += 1
            except TfvampError as error:
                assert "\n" not in str(error).strip(), f"{name}, round {number}: {error}"
                outcomes["refused"] += 1
            finally:
                faulthandler.cancel_dump_traceback_later()
            outcomes["memory"] = max(outcomes["memory"], peak() - before)
            assert outcomes["memory"] < MEMORY, f"{name}, round {number}: {outcomes['memory']} bytes"
    return outcomes


def watched_memory() -> int:
    """The bytes that this process holds, from which `peak` begins again."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The most bytes that this process held since `watched_memory`; of Linux."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


@click.command()
@click.option("--rounds", default=200, show_default=True)
@click.option("--raw-dir", type=pathlib.Path, help="Damage the published files in this folder.")
def main(rounds, raw_dir):
    """Prints how often damaged files were read, and refused."""
    for name in READERS:
        outcomes = fuzz(name, rounds, raw_dir)
        if outcomes:
            print(
                f"{name:<22} {outcomes['read']:4d} read, {outcomes['refused']:4d} refused, "
                f"{outcomes['memory'] / 2**20:4.0f} MiB at most",
                flush=True,
            )


if __name__ == "__main__":
    main()
