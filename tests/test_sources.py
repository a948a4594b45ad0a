"""Source files under other names, and in archives."""

import gzip
import hashlib
import io
import pathlib
import zipfile

import pytest

from tests import made
from tfvamp import datasets
from tfvamp.datasets import idx, sources
from tfvamp.errors import DataError

CONTENTS = b"the published file" * 99
SOURCE = sources.Source("train-images-idx3-ubyte", None, md5=hashlib.md5(CONTENTS).hexdigest())


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, contents in members.items():
            archive.writestr(name, contents)
    return buffer.getvalue()


LZMA = zipped({"x": CONTENTS}, zipfile.ZIP_LZMA)
MAC = {"__MACOSX/._x": b"finder", ".DS_Store": b"finder", "folder/": b"", "folder/x": CONTENTS}
FORMS = {
    "train-images-idx3-ubyte": CONTENTS,
    "train-images-idx3-ubyte.gz": gzip.compress(CONTENTS),
    "train-images.idx3-ubyte": CONTENTS,
    "TRAIN-IMAGES-IDX3-UBYTE": CONTENTS,
    "train_images_idx3_ubyte.GZ": gzip.compress(CONTENTS),
    "train-images-idx3-ubyte.zip": zipped({"x": CONTENTS}),
    "Train-Images.idx3-ubyte.gz.zip": zipped({"x.gz": gzip.compress(CONTENTS)}),
    "train-images-idx3-ubyte.zip.gz": gzip.compress(zipped({"x": CONTENTS})),
    "train-images-idx3.ubyte.zip": zipped(MAC),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_source_file_is_found_under_the_names_that_unpackers_give(name, tmp_path):
    (tmp_path / name).write_bytes(FORMS[name])
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"another")
    (tmp_path / f".{name}").write_bytes(b"hidden")
    path = sources.found(tmp_path, SOURCE)
    assert path == tmp_path / name and sources.read_bytes(path) == CONTENTS
    assert SOURCE.published(path)


def test_of_several_the_published_one_is_taken(tmp_path):
    (tmp_path / "Train-Images-idx3-ubyte").write_bytes(b"not this")
    (tmp_path / "train-images.idx3-ubyte.gz").write_bytes(gzip.compress(CONTENTS))
    assert sources.found(tmp_path, SOURCE).name == "train-images.idx3-ubyte.gz"
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"by its name first")
    assert sources.found(tmp_path, SOURCE).name == "train-images-idx3-ubyte"


@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "train-images-idx3-ubyte.txt", "images"])
def test_other_names_are_other_files(name, tmp_path):
    (tmp_path / name).write_bytes(CONTENTS)
    assert sources.found(tmp_path, SOURCE) is None
    assert sources.found(tmp_path / "missing", SOURCE) is None and sources.found(None, SOURCE) is None


WRONG = {
    "two files": zipped({"x": CONTENTS, "y": CONTENTS}),
    "no file": zipped({}),
    "cut": zipped({"x": CONTENTS})[:-40],
    "a header alone": b"PK\x03\x04" + b"\0" * 99,
    "gzip cut": gzip.compress(CONTENTS)[:-9],
    "damaged": zipped({"x": CONTENTS})[:40] + b"\xff" * 9 + zipped({"x": CONTENTS})[49:],
    "damaged, another compression": LZMA[:60] + b"\xff" * 9 + LZMA[69:],
    "more than is allowed": zipped({"x": bytes(10_000_000)}),
}


@pytest.mark.parametrize("kind", WRONG)
def test_archives_that_hold_something_else(kind, tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(WRONG[kind])
    with pytest.raises(DataError, match="cannot be read|holds more than"):
        sources.read_bytes(path, 100_000)


class Manager:
    def __init__(self, folder: pathlib.Path):
        self.manual_dir = folder

    def download(self, url):
        raise OSError("no network")


def test_a_checksum_proves_a_file_of_any_name_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.delenv("TFVAMP_RAW_DIR", raising=False)
    (tmp_path / "mnist (1)").write_bytes(CONTENTS)
    assert sources.fetch(Manager(tmp_path), SOURCE) == tmp_path / "mnist (1)"
    (tmp_path / "mnist (1)").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"put it in a folder as train-images-idx3-ubyte.* has: mnist \(1\)$"):
        sources.fetch(Manager(tmp_path), SOURCE)


def test_mnist_with_dots_is_prepared(tmp_path, monkeypatch):
    """As 7-Zip and Kaggle name the files."""
    monkeypatch.setattr(idx, "NUM_VALIDATION", made.VALIDATION)
    raw = tmp_path / "raw"
    raw.mkdir()
    made.make("dynamic_mnist", raw)
    for path in list(raw.iterdir()):
        path.rename(raw / path.name.replace("-idx", ".idx"))
    data = datasets.load("dynamic_mnist", data_dir=tmp_path / "data", raw_dir=raw)
    assert data.train.num_examples > 0 and not data.verified
    assert datasets.load("dynamic_mnist", data_dir=tmp_path / "data", raw_dir=raw).checksums == data.checksums
