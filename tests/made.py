"""Small source files of every data set, in the format of the published ones."""

from __future__ import annotations

import gzip
import io
import pathlib
import pickle
import shutil
import struct
import tarfile

import numpy as np
import scipy.io

from tfvamp.datasets.mnist5k import mnist5k_dataset_builder

# data set -> (its files, images in training, validation and test)
COUNTS = {
    "mnist5k": (4000, 500, 500),
    "static_mnist": (7, 4, 5),
    "dynamic_mnist": (20, 10, 6),  # with VALIDATION
    "fashion_mnist": (20, 10, 6),
    "omniglot": (15, 1345, 6),
    "caltech101": (12, 5, 6),
    "frey_faces": (9, 200, 200),
    "histopathology": (8, 4, 5),
}
VALIDATION = 10  # of MNIST and Fashion-MNIST, in place of idx.NUM_VALIDATION


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def caltech(seed: int = 0, counts=COUNTS["caltech101"]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    stored = {}
    for prefix, count in zip(("train", "val", "test"), counts, strict=True):
        stored[f"{prefix}_data"] = rng.integers(0, 2, (count, 784)).astype(np.uint8)
        stored[f"{prefix}_labels"] = rng.integers(1, 102, (count, 1)).astype(np.uint8)
    return stored


def make(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes the source files of a data set into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, (train, validation, test) = np.random.default_rng(0), COUNTS[name]
    if name == "mnist5k":
        shutil.copy(mnist5k_dataset_builder.find_file(), folder)
    if name == "caltech101":
        scipy.io.savemat(folder / "caltech101_silhouettes_28_split1.mat", caltech())
    if name == "frey_faces":
        pixels = rng.integers(0, 256, (train + validation + test, 560)).astype(np.uint8)
        (folder / "freyfaces.pkl").write_bytes(pickle.dumps([pixels], protocol=2))
    if name == "histopathology":
        images = {
            "training": [rng.random((28, 28)) for _ in range(train)],
            "validation": rng.random((validation, 28, 28)),
            "test": rng.random((test, 784)),
        }
        contents = pickle.dumps(images, protocol=2)
        with tarfile.open(folder / "histopathology.pkl.tar.gz", "w:gz") as archive:
            info = tarfile.TarInfo("data/histopathology.pkl")
            info.size = len(contents)
            archive.addfile(info, io.BytesIO(contents))
    if name == "omniglot":
        drawings = {"data": rng.random((784, train + validation)), "testdata": rng.random((784, test))}
        scipy.io.savemat(folder / "chardata.mat", drawings, do_compression=True)
    if name == "static_mnist":
        for part, count in (("train", train), ("valid", validation), ("test", test)):
            lines = [" ".join(map(str, row)) for row in rng.integers(0, 2, (count, 784))]
            (folder / f"binarized_mnist_{part}.amat.gz").write_bytes(
                gzip.compress(("\n".join(lines) + "\n").encode(), 1, mtime=0)
            )
    if name in ("dynamic_mnist", "fashion_mnist"):
        for part, count in (("train", train + validation), ("t10k", test)):
            images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
            labels = rng.integers(0, 10, count).astype(np.uint8)
            (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
            (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels), mtime=0))
    return folder
