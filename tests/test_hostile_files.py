"""Small files that would take much memory or time: refused before they do."""

import contextlib
import gzip
import io
import json
import os
import pathlib
import shutil
import struct
import sys
import tarfile
import tempfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
import tensorflow_datasets as tfds

from tests import made
from tests.tiny_pictures import TinyPictures
from tfvamp import arrays, datasets, describe
from tfvamp.datasets import builders, idx, matlab
from tfvamp.datasets.histopathology_gray import histopathology_gray_dataset_builder as histopathology
from tfvamp.datasets.mnist5k import mnist5k_dataset_builder as mnist5k
from tfvamp.datasets.omniglot_28x28 import omniglot_28x28_dataset_builder as omniglot
from tfvamp.datasets.static_mnist import static_mnist_dataset_builder as static_mnist
from tfvamp.errors import DataError, UsageError


def gzip_bomb(path):
    path.write_bytes(gzip.compress(b"0" * 2**26, 1))
    return idx.read


def csv_bomb(path):
    path.write_bytes(gzip.compress(b"0," * 2**25, 1))
    return mnist5k.read_csv


def matlab_bomb(path):
    """Many zeros in a compressed element, which SciPy would unpack whatever their size."""
    scipy.io.savemat(path, {"data": np.zeros((784, 60_000), np.uint8)}, do_compression=True)
    assert path.stat().st_size < 2**16
    return omniglot.read_mat


def matlab_unread_bomb(path):
    """The same under another name: nothing of it is unpacked."""
    scipy.io.savemat(path, {"other": np.zeros((784, 60_000), np.uint8)}, do_compression=True)
    return omniglot.read_mat


def amat_bomb(path):
    path.write_bytes(gzip.compress(b"0" + b"\n" * 2**22 + b"0"))
    return static_mnist.read_amat


MATLAB_HEADER = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"


def matlab_array(array_class: int, dims: tuple[int, int], name: bytes = b"data", held: bytes = b"") -> bytes:
    """An element of a Matlab 5 file: an array that states a class and dimensions, and what it holds."""
    flags = struct.pack("<IIII", 6, 8, array_class, 0)
    shape = struct.pack("<IIii", 5, 8, *dims)
    array = flags + shape + struct.pack("<II", 1, len(name)) + name.ljust(8, b"\0") + held
    return struct.pack("<II", 14, len(array)) + array


def matlab_cells(path):
    """A few hundred bytes that state 2^28 cells, for which SciPy would make an array of objects at once."""
    path.write_bytes(MATLAB_HEADER + matlab_array(1, (2**28, 1)))
    return omniglot.read_mat


def matlab_text(path):
    path.write_bytes(MATLAB_HEADER + matlab_array(4, (2**28, 1)))
    return omniglot.read_mat


def matlab_text_behind_numbers(path):
    """In one compressed element an honest array, then a text, which SciPy would read as another variable."""
    numbers = matlab_array(9, (1, 1), held=struct.pack("<IIB7x", 2, 1, 7))
    both = zlib.compress(numbers + matlab_array(4, (2**24, 1), b"testdata", struct.pack("<II", 2, 0)))
    path.write_bytes(MATLAB_HEADER + struct.pack("<II", 15, len(both)) + both)
    return omniglot.read_mat


def matlab_many(path):
    """Empty elements without end."""
    path.write_bytes(MATLAB_HEADER + bytes(2**15))
    return omniglot.read_mat


def amat_lines(path):
    """As many lines as digits."""
    path.write_bytes(gzip.compress(b"0\n" * 2**21, 1))
    return static_mnist.read_amat


def idx_count(path):
    path.write_bytes(gzip.compress(made.idx(np.zeros((70_001,), np.uint8)), 1))
    return idx.read


def pax_tar(path):
    """An extension header of a megabyte, which `tarfile` reads in quadratic time."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind in (("ext", tarfile.XHDTYPE), ("other", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, 2**15
            archive.addfile(member, io.BytesIO(b"1" * 2**15))
    return histopathology.read_archive


def sparse_tar(path):
    """A member that states 64 GiB and holds nothing: tarfile would fill it with zeros."""
    member = tarfile.TarInfo("histopathology.pkl")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = tarfile.itn(2**36, 12, tarfile.GNU_FORMAT)  # the size when unpacked
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1024))
    with tarfile.open(path) as archive:
        assert archive.getmembers()[0].size == 2**36
    return histopathology.read_archive


@pytest.mark.parametrize(
    "bomb",
    [
        gzip_bomb,
        csv_bomb,
        amat_bomb,
        amat_lines,
        idx_count,
        matlab_bomb,
        matlab_unread_bomb,
        matlab_cells,
        matlab_text,
        matlab_text_behind_numbers,
        matlab_many,
        sparse_tar,
        pax_tar,
    ],
)
def test_bombs_are_not_unpacked(bomb, tmp_path, monkeypatch):
    path = tmp_path / "bomb.gz"
    read = bomb(path)
    monkeypatch.setattr("tfvamp.datasets.sources.LARGEST_CONTENTS", 2**17)
    monkeypatch.setattr(mnist5k, "LARGEST_TABLE", 2**17)
    tracemalloc.start()
    try:
        refused = (
            "holds more than 0.125 MiB|does not hold histopathology.pkl|must hold numbers|no such line|"
            "70000 images or labels at most|has no key|size that data states|has more than 1000 arrays"
        )
        with pytest.raises(DataError, match=refused):
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**25


def test_compressed_matlab_files_read_as_plain_ones(tmp_path):
    stored = made.caltech()
    for name, compress in (("a.mat", True), ("b.mat", False)):
        scipy.io.savemat(tmp_path / name, stored, do_compression=compress)
        read = matlab.read(tmp_path / name, tuple(stored), None)
        for key, array in stored.items():
            np.testing.assert_array_equal(read[key], array)


def test_a_header_that_promises_terabytes(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 28, 28, 1)}"
    header += b" " * (118 - len(header) - 1) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"12")
    with pytest.raises(
        DataError, match=r"its header says shape \[1099511627776, 28, 28, 1\] of uint8, its size another"
    ):
        datasets.load(f"npz:{tmp_path / 'a.npz'}")


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_arrays_compressed_to_almost_nothing(how, tmp_path, monkeypatch):
    """bzip2 and lzma, which NumPy does not write, unpack without a bound; deflated zeros shrink a thousandfold."""
    monkeypatch.setattr(arrays, "ALWAYS_READ", 2**20)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2**16, 32, 32), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", how) as archive:
        archive.writestr("x.npy", buffer.getvalue())
    del buffer
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="in a way that NumPy does not use|more than a hundred times"):
            datasets.load(f"npz:{tmp_path / 'a.npz'}")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_stated_compressed_size_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "ALWAYS_READ", 2**10)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros((1000, 32, 32), np.uint8))
    real = zipfile.ZipFile.infolist

    def boastful(archive):
        for info in real(archive):
            info.compress_size = 2**40
        return real(archive)

    monkeypatch.setattr(zipfile.ZipFile, "infolist", boastful)
    with pytest.raises(DataError, match="more than a hundred times its size"):
        datasets.load(f"npz:{path}")


@pytest.mark.parametrize(
    "header",
    [
        b"\x02\x00" + (2**30).to_bytes(4, "little") + b" " * 10_000,  # a header of a GiB
        b"\x01\x00\x40\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': ((((((".ljust(63) + b"\n",
        b"\x01\x00\x40\x00" + b"{'descr': (), 'fortran_order': False, 'shape': (1,)}".ljust(63) + b"\n",
        b"\x01\x00\x40\x00" + b"{'descr':'|u1','fortran_order':False,'shape':(-1,8,8)}".ljust(63) + b"\n",
        b"\x01\x00\x40\x00" + b"{'descr':'|u1','fortran_order':False,'shape':(True,8)}".ljust(63) + b"\n",
        b"\x09\x09\x02\x00{}",
    ],
)
def test_damaged_headers_of_arrays(header, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY" + header + b"12")
    with pytest.raises(DataError, match="damaged header|must hold an array"):
        datasets.load(f"npz:{tmp_path / 'a.npz'}")


# Prepared data that somebody else made


@pytest.fixture
def prepared(tmp_path) -> pathlib.Path:
    """A data folder with prepared data of caltech101 and of TFDS's tiny pictures."""
    raw = made.make("caltech101", tmp_path / "raw")
    datasets.load("caltech101", tmp_path / "data", raw)
    datasets.load(f"tfds:{TinyPictures.name}", tmp_path / "data")
    return tmp_path / "data"


class NoFeatures(tfds.core.GeneratorBasedBuilder):
    """A data set whose code does not say what it holds: TFDS would ask a file beside the data."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self)

    def _split_generators(self, dl_manager):
        return {}

    def _generate_examples(self):
        yield from ()


def test_no_module_that_prepared_data_name_is_imported(prepared, tmp_path, monkeypatch):
    """TFDS imports what features.json names where it makes a builder from files."""
    mark = tmp_path / "mark"
    (tmp_path / "evil_features.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    tiny = prepared / TinyPictures.name / "1.0.0"
    for place in (tiny, prepared / "caltech101_silhouettes" / "1.0.0"):
        path = place / "features.json"
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "pythonClassName": "evil_features.Image"})
        )
    for place in ("evil/1.0.0", "evil/config/1.0.0", "mnist/3.0.1", f"{NoFeatures.name}/1.0.0"):
        shutil.copytree(tiny, prepared / place)
        path = prepared / place / "dataset_info.json"
        path.write_text(path.read_text().replace(TinyPictures.name, place.split("/")[0]))
    for name, text in {
        "evil": "TFDS knows no data set 'evil'",
        "Evil": "TFDS knows no data set 'Evil'",
        "evil/config": "TFDS knows no data set 'evil/config'",
        "evil/1.0.0": "TFDS knows no data set 'evil/1.0.0'",
        "huggingface:evil": "TFDS knows no data set 'huggingface'",
        "evil/evil:evil": "TFDS knows no data set 'evil/evil'",
        f"{TinyPictures.name}/1.0.0": "tiny_pictures of TFDS has no configurations",
        "mnist/3.0.1": "mnist of TFDS has no configurations",
        "cifar10_corrupted/3.0.1": "cifar10_corrupted of TFDS has no configuration '3.0.1'",
    }.items():
        with pytest.raises(UsageError, match=text):
            datasets.load(f"tfds:{name}", prepared)
    with pytest.raises(DataError, match="the code of its data set does not say what it holds"):
        datasets.load(f"tfds:{NoFeatures.name}", prepared)
    for prepare in ("replace", "never"):
        assert datasets.load("caltech101", prepared, prepare=prepare).train.num_examples == 12
        if prepare == "replace":  # features.json belongs to what is kept
            assert datasets.load(f"tfds:{TinyPictures.name}", prepared).train.num_examples == 18
    for spec in datasets.CATALOG.values():
        describe.is_prepared(spec, prepared)
    assert not mark.exists() and "evil_features" not in sys.modules
    with contextlib.suppress(Exception):
        tfds.builder("evil", data_dir=str(prepared))
    assert mark.exists()  # what all this is against


def test_names_and_configurations_of_tfds(tmp_path):
    assert builders.registered("TinyPictures", tmp_path).name == TinyPictures.name
    builder = builders.registered("cifar10_corrupted/fog_1", tmp_path)
    assert builder.builder_config.name == "fog_1"
    with pytest.raises(
        UsageError, match=r"has no configuration 'fog'\. Did you mean 'fog_\d'\? .* \(95 in all\)"
    ):
        builders.registered("cifar10_corrupted/fog", tmp_path)


def test_opening_leaves_nothing_in_the_temporary_folder(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for spec in datasets.CATALOG.values():
        assert not describe.is_prepared(spec, tmp_path / "data")
    assert not os.listdir(tmp_path / "temporary") and not (tmp_path / "data").exists()


def edited(path: pathlib.Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def elsewhere(path: pathlib.Path) -> None:
    """Data that are read from a pipe in another folder."""
    os.mkfifo(path.parents[1] / "pipe-00000-of-00001")
    splits = json.loads(path.read_text())["splits"]
    edited(path, splits=[{**split, "filepathTemplate": "../pipe-{SHARD_X_OF_Y}"} for split in splits])


def bomb(path: pathlib.Path) -> None:
    """Pictures that are small files and would be large in memory."""
    picture = tf.io.encode_png(np.zeros((4000, 4000, 1), np.uint8)).numpy()
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(12):
            writer.write(example)


def instead(path: pathlib.Path, make) -> None:
    path.unlink()
    make(path)


TRAIN = "caltech101_silhouettes-train.tfrecord-00000-of-00001"


@pytest.mark.parametrize(
    "file, damage, text",
    [
        ("dataset_info.json", lambda path: edited(path, version="2.0.0"), r"damaged \(AssertionError\)"),
        ("dataset_info.json", lambda path: edited(path, splits=[]), "damaged"),
        ("dataset_info.json", lambda path: edited(path, splits=[{"name": "train"}]), "damaged"),
        ("dataset_info.json", lambda path: edited(path, fileFormat="parquet"), "damaged"),
        ("dataset_info.json", lambda path: edited(path, fileFormat="no such"), "damaged"),
        ("dataset_info.json", elsewhere, r"damaged \(ValueError\)"),
        ("dataset_info.json", lambda path: path.write_text("[" * 100_000), "damaged"),
        ("dataset_info.json", lambda path: path.write_bytes(b"\xff\xfe"), "damaged"),
        ("dataset_info.json", lambda path: instead(path, os.mkfifo), "is not a regular file"),
        (
            "dataset_info.json",
            lambda path: instead(path, lambda p: p.symlink_to("/dev/zero")),
            "is not a regular",
        ),
        (
            "dataset_info.json",
            lambda path: os.truncate(path, 2**40),
            "dataset_info.json has more than 1.0 MiB",
        ),
        ("metadata.json", lambda path: path.write_text("[" * 100_000), "damaged"),
        ("metadata.json", lambda path: path.write_text('{"sources": 3}'), "damaged"),
        ("metadata.json", lambda path: path.write_text('{"sources": {"a": "\\u001b[31m"}}'), "damaged"),
        ("metadata.json", lambda path: path.write_text('{"sources": {"a": ["b"]}}'), "damaged"),
        (TRAIN, lambda path: instead(path, os.mkfifo), "is not a regular file"),
        (TRAIN, lambda path: path.write_bytes(path.read_bytes()[:0]), "damaged"),
        (TRAIN, bomb, r"damaged \(InvalidArgumentError\)"),
    ],
)
def test_prepared_data_that_are_damaged_on_purpose(file, damage, text, prepared):
    damage(prepared / "caltech101_silhouettes" / "1.0.0" / file)
    with pytest.raises(DataError, match=text) as error:
        datasets.load("caltech101", prepared, prepare="never")
    assert str(error.value).isprintable() and str(prepared) in str(error.value)


def test_a_split_that_does_not_fit_into_memory(prepared):
    path = prepared / "caltech101_silhouettes" / "1.0.0" / "dataset_info.json"
    splits = json.loads(path.read_text())["splits"]
    for split in splits:
        split["shardLengths"] = [str(10**12)]
    edited(path, splits=splits)
    with pytest.raises(UsageError, match=r"caltech101 \(train\) would need 2,852.2 TiB of memory"):
        datasets.load("caltech101", prepared)
    with pytest.raises(DataError, match="damaged"):
        datasets.load("caltech101", prepared, limit=100)  # which it has not
    assert datasets.load("caltech101", prepared, limit=3).train.num_examples == 3
