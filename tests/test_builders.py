"""The builders of the data sets: on made files, on damaged ones, in TFDS's own test case, on the real files."""

import dataclasses
import errno
import gzip
import hashlib
import inspect
import io
import os
import pathlib
import pickle
import shutil
import socket
import tarfile
import unittest
from typing import ClassVar

import numpy as np
import PIL.Image
import pytest
import scipy.io
import tensorflow as tf
import tensorflow_datasets as tfds

from tests import made
from tests.tiny_pictures import TinyPictures
from tfvamp import datasets, describe, files
from tfvamp.datasets import idx, sources
from tfvamp.datasets.dynamic_mnist import dynamic_mnist_dataset_builder as dynamic_mnist
from tfvamp.datasets.frey_faces import frey_faces_dataset_builder as frey_faces
from tfvamp.datasets.mnist5k import mnist5k_dataset_builder as mnist5k
from tfvamp.datasets.omniglot_28x28 import omniglot_28x28_dataset_builder as omniglot
from tfvamp.datasets.static_mnist import static_mnist_dataset_builder as static_mnist
from tfvamp.errors import DataError, UsageError

each_made = pytest.mark.parametrize("name", made.COUNTS)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> pathlib.Path:
    """Folders of made source files, by data set."""
    root = tmp_path_factory.mktemp("raw")
    for name in made.COUNTS:
        made.make(name, root / name)
    return root


@pytest.fixture(autouse=True)
def few_of_mnist(request, monkeypatch):
    """In made files, the validation images of MNIST and Fashion-MNIST are few."""
    if "real_raw_dir" not in request.fixturenames:
        monkeypatch.setattr(idx, "NUM_VALIDATION", made.VALIDATION)


def test_every_builder_has_made_files():
    assert {datasets.CATALOG[name].tfds_name for name in made.COUNTS} == set(datasets.BUILDERS)


@each_made
def test_made_files_load(name, raw, tmp_path):
    data = datasets.load(name, tmp_path, raw / name)
    spec = data.spec
    assert tuple(data.split(split).num_examples for split in datasets.SPLITS) == made.COUNTS[name]
    for split in datasets.SPLITS:
        images, labels = data.split(split).array()
        assert images.shape[1:] == spec.shape and images.dtype == np.float32
        assert spec.margin <= images.min() and images.max() <= 1 - spec.margin
        assert (set(np.unique(images)) == {0.0, 1.0}) == (spec.likelihood == "bernoulli")
        assert len(labels) == len(images)
    batch = next(iter(data.training_batches(3, 0, 1))).numpy()
    assert batch.shape == (3, *spec.shape)
    assert data.verified == (name == "mnist5k")
    again = datasets.load(name, tmp_path)  # as prepared, without the files
    np.testing.assert_array_equal(again.test.array()[0], data.test.array()[0])
    assert again.checksums == data.checksums


@each_made
def test_the_sizes_of_the_catalogue_are_the_papers(name):
    spec = datasets.CATALOG[name]
    expected = {
        "omniglot": (23000, 1345, 8070),
        "histopathology": (6800, 2000, 2000),
        "frey_faces": (1565, 200, 200),
    }
    expected |= {"caltech101": (4100, 2264, 2307), "mnist5k": (4000, 500, 500)}
    assert spec.sizes == expected.get(name, (50000, 10000, 10000))
    assert spec.num_components == (1000 if name == "omniglot" else 500)
    assert spec.shape == ((28, 20, 1) if name == "frey_faces" else (28, 28, 1))


def _case(name: str, folder: pathlib.Path) -> type:
    """TFDS's test case for a builder, on made files."""

    class Case(tfds.testing.DatasetBuilderTestCase):
        DATASET_CLASS = datasets.BUILDERS[datasets.CATALOG[name].tfds_name]
        SPLITS: ClassVar = dict(zip(datasets.SPLITS, made.COUNTS[name], strict=True))
        EXAMPLE_DIR = str(folder)
        SKIP_CHECKSUMS = True  # the made files have others; test_checksums_of_tfds_are_those_of_the_sources
        SKIP_TF1_GRAPH_MODE = True

    return Case


@each_made
def test_tfds_own_test_case(name, raw, monkeypatch):
    monkeypatch.setenv("TFVAMP_RAW_DIR", str(raw / name))
    case = _case(name, raw / name)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert not result.failures + result.errors, (result.failures + result.errors)[0][1]
    assert result.testsRun >= 5 and [case.id().rsplit(".", 1)[1] for case, _ in result.skipped] == [
        "test_session"
    ]


@each_made
def test_checksums_of_tfds_are_those_of_the_sources(name):
    """Every source that TFDS downloads and that has a known checksum is in checksums.tsv, and nothing else is."""
    builder = datasets.BUILDERS[datasets.CATALOG[name].tfds_name]
    table = pathlib.Path(inspect.getfile(builder)).with_name("checksums.tsv").read_text().splitlines()
    listed = {line.split("\t")[0]: line.split("\t")[2:] for line in table}
    downloaded = {source.url: source for source in builder.SOURCES if source.url}
    assert set(listed) <= set(downloaded)
    for url, source in downloaded.items():
        name_there = url.rsplit("/", 1)[1]
        if source.sha256 is not None:
            assert listed[url] == [source.sha256, name_there]  # of what is downloaded, which is not gzipped
        elif url in listed:  # of the gzipped file; that of its contents is pinned in the source
            assert listed[url][1] == name_there == f"{source.filename}.gz" and source.md5


def test_static_mnist_reads_plain_and_gzipped_text(tmp_path):
    rows = np.random.default_rng(0).integers(0, 2, (3, 784))
    text = "".join(" ".join(map(str, row)) + " \r\n" for row in rows).encode()
    (tmp_path / "a.amat").write_bytes(text)
    (tmp_path / "b.amat").write_bytes(gzip.compress(text))
    for name in ("a.amat", "b.amat"):
        images = static_mnist.read_amat(tmp_path / name)
        np.testing.assert_array_equal(images.reshape(3, 784), 255 * rows)


def test_dynamic_mnist_has_the_papers_bits():
    """One generator, validation first: NumPy's legacy stream never changes."""
    grey = np.arange(256, dtype=np.uint8).repeat(8).reshape(2, 32, 32)
    validation, test = dynamic_mnist.binarize(grey, grey)
    generator = np.random.RandomState(777)
    for bits in (validation, test):
        expected = generator.binomial(1, grey.astype("float32") / np.float32(255))
        np.testing.assert_array_equal(bits, 255 * expected)
    assert hashlib.sha256(validation.tobytes() + test.tobytes()).hexdigest()[:16] == "6be9e97c44007498"


def test_omniglot_is_in_column_order(tmp_path):
    drawing = np.zeros((28, 28))
    drawing[3, 20] = 1.0  # row 3, column 20
    stored = np.zeros((784, 1350))
    stored[:, 0] = drawing.reshape(-1, order="F")
    scipy.io.savemat(tmp_path / "chardata.mat", {"data": stored, "testdata": stored}, do_compression=True)
    images, _ = omniglot.read_mat(tmp_path / "chardata.mat")
    np.testing.assert_array_equal(images[0, :, :, 0], 255 * drawing)


def drawings(count: int, height: float, width: float) -> np.ndarray:
    """Round spots [N, 28, 28] whose centres spread as a normal does, down and across."""
    rng, at = np.random.default_rng(0), np.arange(28)
    rows, columns = rng.normal(13.5, height, (count, 1, 1)), rng.normal(13.5, width, (count, 1, 1))
    return (np.hypot(at[:, None] - rows, at - columns) < 2.0).astype(np.float64)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("order", "FC")
def test_omniglot_files_that_numpy_wrote(order, transposed, tmp_path):
    """Pixels row by row, or images as rows, are found out by the ink, which spreads more from top to bottom."""
    upright = drawings(1400, 4.8, 4.2)
    stored = upright.reshape(1400, -1) if order == "C" else upright.swapaxes(1, 2).reshape(1400, -1)
    stored = stored if transposed else stored.T
    scipy.io.savemat(tmp_path / "chardata.mat", {"data": stored, "testdata": stored}, do_compression=True)
    data = datasets.load("omniglot", tmp_path, tmp_path)
    pixels = np.concatenate([data.train.pixels, data.validation.pixels])[..., 0]
    expected = (255 * upright).astype(np.uint8)
    assert {one.tobytes() for one in pixels} == {one.tobytes() for one in expected}
    np.testing.assert_array_equal(np.sort(data.test.pixels.sum((1, 2, 3))), np.sort(expected.sum((1, 2))))


def test_drawings_that_show_no_side_count_as_upright():
    grey = np.random.default_rng(0).integers(0, 256, (1400, 28, 28, 1)).astype(np.uint8)
    assert not omniglot.lie_on_their_side(grey) and not omniglot.lie_on_their_side(0 * grey)


def test_frey_faces_from_the_matlab_file_are_the_same(raw, tmp_path):
    pixels = frey_faces.read_pickle(raw / "frey_faces" / "freyfaces.pkl").reshape(-1, 560)
    scipy.io.savemat(tmp_path / "frey_rawface.mat", {"ff": pixels.T})
    one = datasets.load("frey_faces", tmp_path / "a", raw / "frey_faces")
    other = datasets.load("frey_faces", tmp_path / "b", tmp_path)
    np.testing.assert_array_equal(one.train.array()[0], other.train.array()[0])
    assert list(other.checksums) == ["frey_rawface.mat"]
    assert datasets.load("frey_faces", tmp_path / "b", tmp_path).checksums == other.checksums


WRONG = {
    "static_mnist": [
        ("binarized_mnist_test.amat", b"0 1 0\n", "lines of 784 digits, 0 or 1; got 3 in line 1"),
        ("binarized_mnist_test.amat", b"", "got no such line"),
        ("binarized_mnist_test.amat", b"0 " * 784 + b"\n" + b"0 " * 783, "got 783 in line 2"),
        ("binarized_mnist_test.amat", b"2 " * 784, "must hold only 0 and 1"),
        ("binarized_mnist_test.amat.gz", b"\x1f\x8bxx", "cannot be read"),
    ],
    "dynamic_mnist": [
        ("t10k-images-idx3-ubyte", b"", "is not an IDX file of bytes"),
        (
            "t10k-images-idx3-ubyte",
            made.idx(np.zeros((6, 28, 28), np.uint8))[:-1],
            "must hold 6 x 28 x 28 bytes",
        ),
        ("t10k-images-idx3-ubyte", made.idx(np.zeros((6, 28, 27), np.uint8)), r"got \[6, 28, 27\] and \[6\]"),
        (
            "t10k-labels-idx1-ubyte.gz",
            gzip.compress(made.idx(np.full(6, 10, np.uint8)), mtime=0),
            "labels from 0 to 9",
        ),
        (
            "train-images-idx3-ubyte",
            made.idx(np.zeros((20, 28, 28), np.uint8)),
            r"got \[20, 28, 28\] and \[30\]",
        ),
    ],
    "frey_faces": [
        (
            "freyfaces.pkl",
            pickle.dumps([np.zeros((500, 561), np.uint8)]),
            r"shape \[N, 560\]; got \[500, 561\]",
        ),
        ("freyfaces.pkl", pickle.dumps([np.zeros((400, 560), np.uint8)]), "more than 400 faces.*; got 400"),
        ("freyfaces.pkl", pickle.dumps([np.full((500, 560), 0.5)]), "whole numbers from 0 to 255"),
        ("freyfaces.pkl", pickle.dumps({"a": 1}), r"shape \[N, 560\]; got dict"),
        ("freyfaces.pkl", pickle.dumps(print), "is not read: it asks for"),
    ],
    "histopathology": [
        ("histopathology.pkl.tar.gz", b"no archive", "cannot be read as an archive"),
        ("histopathology.pkl.tar.gz", None, "does not hold histopathology.pkl"),
    ],
    "omniglot": [
        ("chardata.mat", b"MATLAB 5.0", "cannot be read as a Matlab 5 file"),
    ],
}


@pytest.mark.parametrize(
    "name, file, contents, text", [(name, *case) for name, cases in WRONG.items() for case in cases]
)
def test_wrong_source_files(name, file, contents, text, raw, tmp_path):
    folder = tmp_path / "raw"
    made.make(name, folder)
    for old in folder.glob(f"{file.removesuffix('.gz')}*"):
        old.unlink()
    if contents is None:
        with tarfile.open(folder / file, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("../../histopathology.txt"))
    else:
        (folder / file).write_bytes(contents)
    with pytest.raises(DataError, match=text):
        datasets.load(name, tmp_path / "data", folder)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]  # nothing half-made


def test_fashion_mnist_is_as_it_was_published(raw, tmp_path):
    """The last training images validate, in the order of the files; labels stay with their images."""
    data = datasets.load("fashion_mnist", tmp_path, raw / "fashion_mnist")
    (images, labels), (test, test_labels) = (
        (idx.read(raw / "fashion_mnist" / f"{part}-images-idx3-ubyte"), idx.read(raw / "fashion_mnist" / f"{part}-labels-idx1-ubyte.gz"))
        for part in ("train", "t10k")
    )  # fmt: skip
    for split, pixels, classes in (
        (data.train, images[:20], labels[:20]),
        (data.validation, images[20:], labels[20:]),
        (data.test, test, test_labels),
    ):
        expected = {image.tobytes(): label for image, label in zip(pixels, classes, strict=True)}
        found = {image.tobytes(): label for image, label in zip(split.pixels, split.labels, strict=True)}
        assert found == expected


def test_fashion_mnist_is_not_taken_for_mnist(tmp_path):
    """Their files have the same names; Fashion-MNIST has as many images of each class."""
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    images = np.zeros((60_000, 28, 28), np.uint8)
    for name, array in (("train", images), ("t10k", images[:10_000])):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(made.idx(array))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(made.idx(labels[: len(array)]))
    with pytest.raises(DataError, match="6000 images of each class.* choose --dataset fashion_mnist"):
        datasets.load("dynamic_mnist", tmp_path / "data", tmp_path)


def test_mnist_is_not_taken_for_fashion_mnist(real_raw_dir, tmp_path):
    with pytest.raises(DataError, match="train-images.* is the file of MNIST, not of Fashion-MNIST"):
        datasets.load("fashion_mnist", tmp_path, real_raw_dir)


def test_histopathology_values(raw, tmp_path):
    folder = made.make("histopathology", tmp_path / "raw")
    (folder / "histopathology.pkl.tar.gz").unlink()
    images = {key: np.full((4, 28, 28), 1.5) for key in ("training", "validation", "test")}
    (folder / "histopathology.pkl").write_bytes(pickle.dumps(images))
    with pytest.raises(DataError, match=r"training must lie in \[0, 1\]; got 1.5 to 1.5"):
        datasets.load("histopathology", tmp_path / "data", folder)
    images["training"] = np.full((4, 28, 28), 1.0)
    images["validation"] = images["test"] = np.zeros((4, 28, 28))
    (folder / "histopathology.pkl").write_bytes(pickle.dumps(images))
    data = datasets.load("histopathology", tmp_path / "data", folder)
    assert data.train.array()[0].max() == np.float32(511 / 512)  # clipped as in the paper
    assert data.test.array()[0].min() == np.float32(1 / 512)


def test_sets_of_tfds_are_split_as_the_catalogue_says(tmp_path, monkeypatch):
    """As cifar10 is, which needs the network: here a tiny one."""
    spec = datasets.CATALOG["fashion_mnist"]
    dummy = dataclasses.replace(spec, tfds_name=TinyPictures.name, sizes=(15, 5, 20))
    monkeypatch.setitem(datasets.CATALOG, "fashion_mnist", dummy)
    data = datasets.load("fashion_mnist", tmp_path)
    assert [data.split(split).num_examples for split in datasets.SPLITS] == [15, 5, 20]
    images, _ = data.train.array()
    assert images.shape == (15, 28, 28, 1) and data.verified is None  # TFDS keeps no record of it
    assert set(np.unique(256 * images)) <= set(np.arange(20) + 0.5)
    for change, text in (
        ({"shape": (32, 32, 3)}, r"must have images of \[32, 32, 3\]"),
        ({"sizes": (16, 5, 20)}, r"\[16, 5, 20\] in its splits; got \[28, 28, 1\], \[15, 5, 20\]"),
    ):
        monkeypatch.setitem(datasets.CATALOG, "cifar10", dataclasses.replace(dummy, **change))
        with pytest.raises(DataError, match=text):
            datasets.load("cifar10", tmp_path)
    with pytest.raises(UsageError, match="--raw-dir does not go with fashion_mnist"):
        datasets.load("fashion_mnist", tmp_path, raw_dir=tmp_path)  # TFDS's, here


REAL = {
    # name: sizes, and the start of the sha256 of each split's stored pixels, each image's followed by its label where
    # there is one, sorted (TFDS shuffles them): from the files by NumPy alone
    "static_mnist": ((50000, 10000, 10000), ("6c7d98baab9e4077", "fe46599fe39dd21f", "564930b6cba1b5bd")),
    "dynamic_mnist": ((50000, 10000, 10000), ("f4d0e8ab77b3dd39", "1f987986efe046a1", "ab75eb1dd4c9e89d")),
    "omniglot": ((23000, 1345, 8115), ("c317dd981986368e", "6b1794818c555e13", "424dd416a28f71f8")),
    "caltech101": ((4100, 2264, 2307), ("98f0844044aa952c", "b4beeb827decfc69", "bcaadc677fff24b7")),
    "frey_faces": ((1565, 200, 200), ("f6d9d9c6cb03a8bd", "57dad5d9e405afb9", "fed00bffea312067")),
}


def digest(part: datasets.Split) -> str:
    """Of the images, with their labels, in sorted order."""
    rows = part.pixels.reshape(part.num_examples, -1)
    if (part.labels >= 0).all():
        rows = np.concatenate([rows, part.labels.astype(np.uint8)[:, np.newaxis]], axis=1)
    return hashlib.sha256(rows[np.lexsort(rows.T[::-1])].tobytes()).hexdigest()[:16]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_files(name, real_raw_dir, tmp_path):
    """Counts, values, polarity, every pixel and every label."""
    data = datasets.load(name, tmp_path, real_raw_dir)
    sizes, digests = REAL[name]
    assert tuple(data.split(split).num_examples for split in datasets.SPLITS) == sizes
    assert tuple(digest(getattr(data, split)) for split in datasets.SPLITS) == digests
    assert data.verified == (name != "omniglot")  # a rebuild of the published file
    images = data.train.array()[0]
    if name == "frey_faces":
        assert set(np.unique(256 * images - 0.5)) <= set(range(8, 239))  # (v + 0.5) / 256
    if name == "omniglot":
        pixels = data.train.pixels
        assert not omniglot.lie_on_their_side(pixels) and omniglot.lie_on_their_side(pixels.swapaxes(1, 2))
    if name != "frey_faces":
        assert images[:, 9:19, 9:19].mean() > 2 * images[:, [0, -1]].mean()  # white on black


@pytest.mark.parametrize("shape", [(28, 28, 1), (28, 20, 1), (1, 1, 1)], ids=str)
def test_png_files_hold_the_pixels(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    contents = sources.to_png(image)
    np.testing.assert_array_equal(tf.io.decode_png(contents), image)
    with PIL.Image.open(io.BytesIO(contents)) as picture:
        picture.load()  # checks the checksums, too
        assert picture.format == "PNG" and picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), image[..., 0])


@pytest.mark.parametrize("ready", [True, False])
def test_another_process_prepares_the_same(ready, raw, tmp_path, monkeypatch):
    """The slower one takes what the faster one has made; where there is nothing, it says what went wrong."""
    builder = datasets.BUILDERS["frey_faces"]
    real = builder.download_and_prepare

    def slow(self, **kwargs):
        if ready:
            monkeypatch.setattr(builder, "download_and_prepare", real)
            datasets.load("frey_faces", tmp_path, raw / "frey_faces")
            raise OSError("Destination already exists")
        raise RuntimeError("ResourceExhaustedError: No space left on device")

    monkeypatch.setattr(builder, "download_and_prepare", slow)
    if ready:
        assert datasets.load("frey_faces", tmp_path, raw / "frey_faces").train.num_examples == 9
    else:
        with pytest.raises(DataError, match="cannot prepare frey_faces .*No space left.*another --data-dir"):
            datasets.load("frey_faces", tmp_path, raw / "frey_faces")


def other_test_images(folder: pathlib.Path) -> None:
    """Another source file of static_mnist, with three test images."""
    text = "\n".join([" ".join(["1"] * 784)] * 3).encode()
    (folder / "binarized_mnist_test.amat.gz").write_bytes(gzip.compress(text))


@pytest.mark.parametrize(
    "exchanged, fails_at, then", [(True, 1, 5), (True, 2, 3), (False, 1, 5), (False, 2, 5), (False, 3, 3)]
)
def test_preparing_again_is_interrupted(exchanged, fails_at, then, raw, tmp_path, monkeypatch):
    """At each step in which new data take the place of the old: there is always one of the two, whole.

    The steps are the exchange and what follows; or three renames where the disk cannot exchange folders.
    """
    folder = shutil.copytree(raw / "static_mnist", tmp_path / "raw")
    before = datasets.load("static_mnist", tmp_path / "data", folder)
    other_test_images(folder)
    place = tmp_path / "data" / "static_mnist"
    rename, exchange, calls = os.rename, files._exchange, []

    def count():
        calls.append(1)
        if len(calls) == fails_at:
            raise KeyboardInterrupt

    def counted(source, target):
        if place in (pathlib.Path(source).parent, pathlib.Path(target).parent):
            count()
        rename(source, target)

    def exchanges(one, other):
        if not exchanged:
            return False
        count()
        done = exchange(one, other)
        count()
        return done

    with monkeypatch.context() as patched:
        patched.setattr(files, "_exchange", exchanges)
        patched.setattr(os, "rename", counted)
        with pytest.raises(KeyboardInterrupt):
            datasets.load("static_mnist", tmp_path / "data", folder)
    again = datasets.load("static_mnist", tmp_path / "data", prepare="missing")
    assert again.test.num_examples == then
    if then == 5:
        np.testing.assert_array_equal(again.test.pixels, before.test.pixels)
    assert datasets.load("static_mnist", tmp_path / "data", folder).test.num_examples == 3
    assert os.listdir(place) == ["1.0.0"]


def test_preparing_again_where_nothing_can_be_written(raw, tmp_path, monkeypatch):
    folder = shutil.copytree(raw / "static_mnist", tmp_path / "raw")
    datasets.load("static_mnist", tmp_path / "data", folder)
    other_test_images(folder)

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for step in ("scratch_folder", "put_folder"):
        with monkeypatch.context() as patched:
            patched.setattr(files, step, refused)
            with pytest.raises(
                DataError, match=r"cannot prepare static_mnist .*Permission denied.*another --data-dir"
            ):
                datasets.load("static_mnist", tmp_path / "data", folder)
    assert datasets.load("static_mnist", tmp_path / "data").test.num_examples == 5


def test_a_server_that_does_not_answer(tmp_path, monkeypatch):
    """One that takes the connection and says nothing, for ever."""
    monkeypatch.setattr(sources, "TIMEOUT", 0.2)
    monkeypatch.setattr(sources, "RETRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/chardata.mat"
        monkeypatch.setattr(omniglot, "SOURCE", dataclasses.replace(omniglot.SOURCE, url=address))
        with pytest.raises(DataError, match=r"cannot download chardata.mat \(ConnectionError\): fetch http"):
            datasets.load("omniglot", tmp_path)


def test_a_disk_that_is_full_while_downloading_is_no_missing_network(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tfds.download.DownloadManager, "download", full)
    with pytest.raises(DataError, match=r"cannot prepare omniglot_28x28 .*No space left.*another --data-dir"):
        datasets.load("omniglot", tmp_path)


def test_prepared_data_whose_description_is_damaged(raw, tmp_path):
    datasets.load("frey_faces", tmp_path, raw / "frey_faces")
    for name in ("dataset_info.json", "metadata.json"):
        path = next(tmp_path.rglob(name))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="are damaged .*delete that folder"):
            datasets.load("frey_faces", tmp_path)
        if name == "dataset_info.json":
            with pytest.raises(DataError, match="are damaged"):
                describe.is_prepared(datasets.CATALOG["frey_faces"], tmp_path)
        path.write_bytes(whole)


def test_labels_of_mnist5k(tmp_path):
    lines = gzip.decompress(mnist5k.find_file().read_bytes()).decode().splitlines()
    lines[7] = lines[7].rsplit(",", 1)[0] + ",77"
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode(), 1))
    with pytest.raises(DataError, match=r"a label \(0 to 9\)"):
        mnist5k.read_csv(path)
