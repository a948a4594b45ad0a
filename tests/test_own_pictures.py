"""What lies in people's folders: hidden files, links, grey and colour, transparency; arrays with other axes."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tfvamp import datasets, training
from tfvamp.config import TrainConfig
from tfvamp.errors import DataError, UsageError
from tfvamp.runs import Run
from tfvamp_cli.main import main

GREYS = ("L", "LA", "1", "I;16", "P")


def picture(number: int, mode: str = "L") -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8)).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels.astype(np.uint16) * 257)
    if mode == "P":
        return Image.fromarray(pixels).quantize(16)
    if mode in ("RGB", "RGBA"):
        layers = [pixels, pixels // 2, pixels // 3]
        return Image.fromarray(np.stack([*layers, *[pixels] * (mode == "RGBA")], axis=-1))
    return Image.fromarray(pixels).convert(mode)


def fill(folder, count=10, mode="L", suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(number, mode).save(folder / f"{number}{suffix}")
    return folder


def load(folder, tmp_path, **options):
    said = []
    data = datasets.load(f"folder:{folder}", tmp_path / "data", say=said.append, image_size="8x8", **options)
    return data, " | ".join(said)


@pytest.mark.parametrize(
    "hidden", [".ipynb_checkpoints/a.png", ".a.png", "__MACOSX/a.png", "cats/.thumbnails/deep/a.png", ".Trash-1000/a.png"]
)  # fmt: skip
def test_what_is_hidden_is_no_data(hidden, tmp_path):
    folder = fill(tmp_path / "pictures")
    path = folder / hidden
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(99).save(path)
    data, said = load(folder, tmp_path)
    assert sum(data.spec.sizes) == 10 and "left out of" in said and "hidden: 1" in said


def test_links_to_folders_are_followed_once(tmp_path):
    disk = fill(tmp_path / "disk" / "cats")
    folder = tmp_path / "pictures"
    fill(folder / "dogs")
    (folder / "cats").symlink_to(disk)
    assert sum(load(folder, tmp_path)[0].spec.sizes) == 20
    (folder / "felines").symlink_to(disk)  # again
    (folder / "cats" / "up").symlink_to(tmp_path / "disk")  # in a circle
    (folder / "dogs" / "self").symlink_to(folder / "dogs" / "self")
    (folder / "dogs" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    data, said = load(folder, tmp_path)
    assert sum(data.spec.sizes) == 20
    assert "folders that a link leads to again: 2" in said
    assert "links to nothing, pipes or devices: 2" in said
    labels = np.concatenate([data.split(split).labels for split in datasets.SPLITS])
    assert (
        data.class_names == ("cats", "dogs") and sorted(labels) == [0] * 10 + [1] * 10
    )  # the first name, always
    (folder / "again.png").symlink_to(min(fill(folder / "dogs").glob("*[0-9].png")))
    (folder / "dogs" / "again.png").symlink_to(min(disk.glob("*[0-9].png")))
    picture(7).save(tmp_path / "other.png")
    (folder / "dogs" / "other.png").symlink_to(tmp_path / "other.png")  # there by this link alone
    data, said = load(folder, tmp_path)
    assert sum(data.spec.sizes) == 21 and "links to files that are there: 2" in said
    only = tmp_path / "only"
    only.mkdir()
    (only / "cats").symlink_to(disk)
    assert sum(load(only, tmp_path)[0].spec.sizes) == 10


def test_a_folder_of_hidden_files_says_what_it_left_out(tmp_path):
    fill(tmp_path / "pictures" / ".hidden")
    (tmp_path / "pictures" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no PNG or JPEG.*left out, hidden: 1, of other kinds: 1"):
        load(tmp_path / "pictures", tmp_path)


@pytest.mark.parametrize("mode", GREYS)
def test_grey_files_stay_grey(mode, tmp_path):
    folder = fill(tmp_path / "pictures", mode=mode)
    data, _ = load(folder, tmp_path)
    assert data.spec.shape == (8, 8, 1)
    if mode in ("L", "I;16"):
        expected = sorted(np.asarray(picture(number)).tobytes() for number in range(10))
        pixels = [image.tobytes() for split in datasets.SPLITS for image in data.split(split).pixels]
        assert sorted(pixels) == expected
    assert load(folder, tmp_path, colour=True)[0].spec.shape == (8, 8, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_one_file_in_colour_makes_all_of_them_colour(mode, tmp_path):
    folder = fill(tmp_path / "pictures")
    picture(50, mode).save(folder / "colour.png")
    assert load(folder, tmp_path)[0].spec.shape == (8, 8, 3)
    assert load(folder, tmp_path, grayscale=True)[0].spec.shape == (8, 8, 1)
    assert load(fill(tmp_path / "jpeg", suffix=".jpg"), tmp_path)[0].spec.shape == (8, 8, 1)


@pytest.mark.parametrize("background, value", [("white", 255), ("black", 0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_images_are_laid_over_a_background(mode, background, value, tmp_path):
    """The colour that a transparent pixel hides is never seen."""
    folder = tmp_path / "icons"
    folder.mkdir()
    for number in range(6):
        layers = np.full((8, 8, 4), (10, 200, 40, 0), np.uint8)
        layers[2:4, 2:4] = (90, 90, 90, 255)
        layers[6, 6] = (number, 0, 0, 255)
        image = Image.fromarray(layers)
        if mode == "P":
            image = image.quantize(8)
        image.convert(mode).save(folder / f"{number}.png")
    data, said = load(folder, tmp_path, background=background)
    assert f"6 transparent images are laid over {background}" in said
    image = data.train.pixels[0]
    assert (image[0] == value).all() and (image[5] == value).all() and abs(int(image[2, 2, 0]) - 90) < 3
    assert data.spec.shape[-1] == (1 if mode == "LA" else 3)


def test_half_transparent_pixels_are_mixed(tmp_path):
    folder = fill(tmp_path / "icons", mode="RGBA")
    data, _ = load(folder, tmp_path, background="black", grayscale=False)
    alpha = np.asarray(picture(3, "RGBA")).astype(float)
    expected = alpha[..., :3] * alpha[..., 3:] / 255
    images = [image.astype(float) for split in datasets.SPLITS for image in data.split(split).pixels]
    assert min(np.abs(image - expected).max() for image in images) <= 1.0


def test_options_that_do_not_go_together(tmp_path):
    folder = fill(tmp_path / "pictures")
    for options, part in (
        ({"grayscale": True, "colour": True}, "exclude each other"),
        ({"background": "red"}, "unknown background 'red'"),
    ):
        with pytest.raises(UsageError, match=part):
            load(folder, tmp_path, **options)
    np.savez(tmp_path / "x.npz", x=np.arange(160).reshape(10, 4, 4).astype(np.uint8))
    with pytest.raises(UsageError, match="go with folder:, not with npz:"):
        datasets.load(f"npz:{tmp_path / 'x.npz'}", colour=True)
    with pytest.raises(UsageError, match="go with your own images, not with mnist5k"):
        datasets.load("mnist5k", colour=True)


def test_the_command_line_has_the_options(tmp_path):
    folder = fill(tmp_path / "pictures", mode="RGBA")
    words = ["datasets", "info", f"folder:{folder}", "--image-size", "8x8", "--background", "black"]
    result = CliRunner().invoke(main, [*words, "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 0 and "8 x 8 x 3" in result.stdout, result.stderr
    assert "laid over black (--background white for the other)" in result.stderr + result.stdout


def test_identity_is_the_content(tmp_path, eager):
    """A folder that is copied, touched, renamed or deleted is the same data; one changed pixel is noticed."""
    folder, run = fill(tmp_path / "pictures"), tmp_path / "run"
    small = {"components": 3, "hidden_units": 4, "latent_dims": 2, "epochs": 1, "warmup": 1, "jit": False}
    config = TrainConfig(
        dataset=f"folder:{folder}", image_size="8x8", data_dir=str(tmp_path / "data"), **small
    )
    training.train(config, run)
    pixels = Run(run).dataset().test.pixels.tobytes()

    def seen(**where) -> str:
        said = []
        assert Run(run).dataset(say=said.append, **where).spec.shape == (8, 8, 1)
        return " | ".join(said)

    for path in folder.iterdir():
        path.touch()
    shutil.copytree(folder, tmp_path / "copy")
    for where in ({}, {"dataset": f"folder:{tmp_path / 'copy'}"}):
        assert "warning" not in seen(**where)
    folder.rename(tmp_path / "renamed")
    assert "is gone: its images are taken as they were prepared" in seen()
    assert Run(run).dataset().test.pixels.tobytes() == pixels
    assert "warning" not in seen(dataset=f"folder:{tmp_path / 'renamed'}")
    changed = Image.open(tmp_path / "renamed" / "3.png")
    changed.putpixel((2, 2), (changed.getpixel((2, 2)) + 1) % 256)
    changed.save(tmp_path / "renamed" / "3.png")
    assert "is made from other files" in seen(dataset=f"folder:{tmp_path / 'renamed'}")
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DataError, match="there is no folder"):
        seen()


@pytest.mark.parametrize(
    "shape, part",
    [
        (
            (9, 3, 8, 7),
            r"got \[7, 3, 8, 7\]: the channels come last: numpy.transpose\(images, \(0, 2, 3, 1\)\)",
        ),
        ((9, 1, 8, 7), "the channels come last"),
        ((9, 8, 7, 4), "lay transparent images over a ground first"),
        ((9, 8, 7, 2), "grey images have 1 channel, colour images 3"),
        ((9, 8, 7, 5), "grey images have 1 channel, colour images 3"),
    ],
)
def test_arrays_have_one_channel_or_three(shape, part, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.savez(tmp_path / "x.npz", x=x)
    with pytest.raises(DataError, match=part):
        datasets.load(f"npz:{tmp_path / 'x.npz'}")


@pytest.mark.parametrize("value", [0, 7, 255])
def test_images_that_are_all_one_value_are_refused(value, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.full((20, 4, 4), value, np.uint8))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(10):
        Image.new("L", (8, 8), value).save(folder / f"{number}.png")
    for load_it in (
        lambda: datasets.load(f"npz:{tmp_path / 'x.npz'}"),
        lambda: load(folder, tmp_path),
        lambda: datasets.from_arrays(*[np.full((5, 4, 4), value / 255.0)] * 3),
    ):
        with pytest.raises(DataError, match="all pixels of all images are .*nothing to learn"):
            load_it()


def test_class_folders_are_labels(tmp_path):
    folder = tmp_path / "animals"
    for name, count in (("cats", 12), ("dogs", 8)):
        fill(folder / name / "deeper", count)
    picture(77).save(folder / "stray.png")
    data, _ = load(folder, tmp_path)
    assert data.class_names == ("cats", "dogs")
    labels = np.concatenate([data.split(split).labels for split in datasets.SPLITS])
    assert sorted(labels) == [-1] + [0] * 12 + [1] * 8
    again, _ = load(folder, tmp_path, limit=2)  # from the store
    np.testing.assert_array_equal(again.train.labels, data.train.labels[:2])
    cats = {np.asarray(picture(number)).tobytes() for number in range(12)}
    for image, label in zip(data.train.pixels, data.train.labels, strict=True):
        assert label < 0 or image.tobytes() in cats  # the dogs have the same pictures as eight cats
    words = [
        "datasets",
        "info",
        f"folder:{folder}",
        "--image-size",
        "8x8",
        "--data-dir",
        str(tmp_path / "data"),
    ]
    result = CliRunner().invoke(main, words)
    assert "without a label 1, cats 12, dogs 8" in result.stdout


def test_a_broken_file_takes_no_label_with_it(tmp_path):
    folder = tmp_path / "animals"
    for number, name in enumerate("abc"):
        for index in range(6):
            (folder / name).mkdir(parents=True, exist_ok=True)
            image = np.full((8, 8), 40 * number + index, np.uint8)
            Image.fromarray(image).save(folder / name / f"{index}.png")
    (folder / "a" / "3.png").write_bytes(b"broken")
    data, _ = load(folder, tmp_path)
    for split in datasets.SPLITS:
        part = data.split(split)
        np.testing.assert_array_equal(part.pixels[:, 0, 0, 0] // 40, part.labels)


def test_classes_in_folders_of_splits(tmp_path):
    for split in datasets.SPLITS:
        for name in ("b", "a"):
            fill(tmp_path / "pictures" / split / name, 2)
    data, _ = load(tmp_path / "pictures", tmp_path)
    assert data.class_names == ("a", "b") and all(
        sorted(data.split(split).labels) == [0, 0, 1, 1] for split in datasets.SPLITS
    )


X = np.random.default_rng(0).integers(0, 256, (40, 4, 4)).astype(np.uint8)
X[:, 0, 0] = np.arange(40)  # each image has its number


@pytest.mark.parametrize(
    "labels, names",
    [
        (np.arange(40), ()),
        (np.arange(40, dtype=np.uint8), ()),
        (np.arange(40.0), ()),
        (np.array([f"class {i:02d}" for i in range(40)]), tuple(f"class {i:02d}" for i in range(40))),
    ],
)
@pytest.mark.parametrize("key", ["y", "labels"])
def test_labels_beside_an_array(labels, names, key, tmp_path):
    np.savez(tmp_path / "x.npz", x=X, **{key: labels})
    data = datasets.load(f"npz:{tmp_path / 'x.npz'}")
    assert data.class_names == names
    for split in datasets.SPLITS:
        np.testing.assert_array_equal(data.split(split).pixels[:, 0, 0, 0], data.split(split).labels)


@pytest.mark.parametrize("form", ["{}_labels", "y_{}"])
def test_labels_of_splits(form, tmp_path):
    parts = {split: X[10 * i : 10 * i + 10] for i, split in enumerate(datasets.SPLITS)}
    labels = {form.format(split): part[:, 0, 0] for split, part in parts.items()}
    del labels[form.format("test")]
    np.savez(tmp_path / "x.npz", **parts, **labels)
    data = datasets.load(f"npz:{tmp_path / 'x.npz'}")
    np.testing.assert_array_equal(data.validation.labels, np.arange(10, 20))
    assert (data.test.labels == -1).all()


@pytest.mark.parametrize(
    "labels, part",
    [
        (np.arange(39), r"y must have one label for each image, shape \[40\]; got \[39\]"),
        (np.zeros((40, 10)), r"shape \[40\]; got \[40, 10\]"),
        (np.arange(40) + 0.5, "whole numbers or text"),
        (np.zeros(40, np.complex64), "must hold numbers or text; got dtype complex64"),
        (np.array([None] * 40), "must hold numbers or text; got dtype object"),
    ],
)
def test_labels_that_are_none(labels, part, tmp_path):
    np.savez(tmp_path / "x.npz", x=X, y=labels)
    with pytest.raises(DataError, match=part):
        datasets.load(f"npz:{tmp_path / 'x.npz'}")


def test_encode_gives_labels_and_their_names(tmp_path, eager):
    np.savez(tmp_path / "x.npz", x=X, y=np.where(np.arange(40) % 2, "odd", "even"))
    small = {"components": 3, "hidden_units": 4, "latent_dims": 2, "epochs": 1, "warmup": 1, "jit": False}
    training.train(TrainConfig(dataset=f"npz:{tmp_path / 'x.npz'}", **small), tmp_path / "run")
    words = ["encode", str(tmp_path / "run"), "--output", str(tmp_path / "z.npz")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "z.npz") as stored:
        assert list(stored["class_names"]) == ["even", "odd"]
        assert set(stored["label"]) <= {0, 1} and len(stored["label"]) == len(stored["mean"])
