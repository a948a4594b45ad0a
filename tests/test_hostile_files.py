"""Small files that would take much memory or time: refused before they do."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io

from tests import made
from tfvamp import datasets
from tfvamp.datasets import matlab, own
from tfvamp.datasets.dynamic_mnist import dynamic_mnist_dataset_builder as dynamic_mnist
from tfvamp.datasets.histopathology_gray import histopathology_gray_dataset_builder as histopathology
from tfvamp.datasets.mnist5k import mnist5k_dataset_builder as mnist5k
from tfvamp.datasets.omniglot_28x28 import omniglot_28x28_dataset_builder as omniglot
from tfvamp.datasets.static_mnist import static_mnist_dataset_builder as static_mnist
from tfvamp.errors import DataError


def gzip_bomb(path):
    path.write_bytes(gzip.compress(b"0" * 2**26, 1))
    return dynamic_mnist.read_idx


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
    return dynamic_mnist.read_idx


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
    monkeypatch.setattr(own, "ALWAYS_READ", 2**20)
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
    monkeypatch.setattr(own, "ALWAYS_READ", 2**10)
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
    with pytest.raises(DataError, match="damaged header|must have shape"):
        datasets.load(f"npz:{tmp_path / 'a.npz'}")
