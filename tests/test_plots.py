"""Pictures: formats, titles, columns, what they show of small and odd data."""

import io
import xml.etree.ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tfvamp import evaluation, plots, runs
from tfvamp.errors import UsageError
from tfvamp_cli.main import main

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(12, 6, 5, 1)).astype(np.float32)
ROW = {f"{split}_{name}": -3.0 for split in ("train", "val") for name in ("elbo", "reconstruction", "kl")}
HISTORY = [
    {"epoch": epoch, **{key: value - 1 / epoch for key, value in ROW.items()}} for epoch in range(1, 6)
]
COMPONENTS = np.log([0.5, 0.5]), np.array([[0.0, 0.0], [2.0, 1.0]]), np.stack([np.eye(2)] * 2)
PICTURES = {
    "grid": lambda look: plots.grid(IMAGES, "A title", look),
    "pairs": lambda look: plots.pairs(IMAGES, IMAGES, title="A title", look=look),
    "curves": lambda look: plots.curves(HISTORY, HISTORY[2], look),
    "histogram": lambda look: plots.histogram(RNG.normal(size=40), look),
    "map": lambda look: plots.latent_map(
        RNG.normal(size=(30, 2)), np.arange(30) % 3, ["a", "b"], COMPONENTS, COMPONENTS[1], look
    ),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("file_format, start", [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_every_picture_in_every_format(name, file_format, start):
    contents = PICTURES[name](plots.Look(file_format))
    assert contents.startswith(start)
    if file_format == "svg":
        xml.etree.ElementTree.fromstring(contents)


@pytest.mark.parametrize("file_format", ["png", "pdf", "svg"])
def test_the_same_picture_is_the_same_file(file_format):
    look = plots.Look(file_format)
    assert plots.grid(IMAGES, "A title", look) == plots.grid(IMAGES, "A title", look)


def size(contents: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(contents)).size


def test_dots_columns_and_titles():
    plain = size(plots.grid(IMAGES, "A title"))
    double = size(plots.grid(IMAGES, "A title", plots.Look(dpi=240)))
    assert double[0] == pytest.approx(2 * plain[0], abs=3)
    wide, tall = (size(plots.grid(IMAGES, "A title", plots.Look(columns=count))) for count in (12, 2))
    assert wide[0] > 5 * wide[1] and tall[1] > 3 * tall[0] / 2
    titled, bare = (plots.grid(IMAGES, "A title", plots.Look("svg", title=title)) for title in (True, False))
    assert (
        len(titled) > len(bare) and size(plots.grid(IMAGES, "A title", plots.Look(title=False)))[1] < plain[1]
    )
    assert size(plots.bare_grid(IMAGES, 1, plots.Look(columns=12))) == (12 * 6 + 1, 8)


@pytest.mark.parametrize(
    "options", [{"dpi": 0}, {"dpi": 10**6}, {"columns": 0}, {"columns": 10**6}, {"format": "gif"}]
)
def test_looks_that_make_no_sense(options):
    with pytest.raises(UsageError):
        plots.Look(**options)


def test_contrast_is_stretched_image_by_image():
    images = np.stack([0.4 + 0.1 * IMAGES[0], np.full((6, 5, 1), 0.3), IMAGES[1]])
    stretched = plots.stretched(images)
    assert stretched[0].min() == 0.0 and stretched[0].max() == pytest.approx(1.0)
    np.testing.assert_array_equal(stretched[1], images[1])
    order = np.argsort(images[0].ravel())
    np.testing.assert_array_equal(np.argsort(stretched[0].ravel()), order)


def shown(monkeypatch, draw):
    """The figure that a picture is made from."""
    figures = []
    monkeypatch.setattr(plots, "rendered", lambda figure, look=None: figures.append(figure))
    draw()
    return figures[0]


@pytest.mark.parametrize("epochs, whole", [(1, True), (5, True), (30, True), (300, False)])
def test_short_runs_show_their_first_epochs(epochs, whole, monkeypatch):
    rows = [{"epoch": epoch, **dict.fromkeys(ROW, -500.0 / epoch)} for epoch in range(1, epochs + 1)]
    figure = shown(monkeypatch, lambda: plots.curves(rows, None))
    assert (figure.axes[0].get_ylim()[0] <= -500.0) == whole


@pytest.mark.parametrize("count", [1, 2, 20, 200, 5000])
def test_bins_fit_the_number_of_images(count, monkeypatch):
    values = np.random.default_rng(1).normal(-100.0, 20.0, count)
    axes = shown(monkeypatch, lambda: plots.histogram(values)).axes[0]
    assert 1 <= len(axes.patches) <= min(100, 2 * count + 2)
    assert sum(patch.get_height() for patch in axes.patches) == count


@pytest.mark.parametrize("labels", [np.full(30, -1), np.arange(30), np.arange(30) % 4 - 1])
def test_a_map_of_any_labels_and_of_one_latent(labels):
    means = RNG.normal(size=(30, 2))
    assert plots.latent_map(means, labels, (), COMPONENTS).startswith(b"\x89PNG")
    flat = means * [1.0, 0.0]  # one latent: no second axis
    components = np.zeros(1), np.zeros((1, 2)), np.array([[[1.0, 0.0], [0.0, 1e-6]]])
    assert plots.latent_map(flat, labels, (), components).startswith(b"\x89PNG")


def test_plot_and_sample_from_the_command_line(run, tmp_path):
    words = ["plot", str(run), "--format", "pdf", "--no-title", "--columns", "4", "--dpi", "60"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.stderr
    names = {path.stem for path in (run / "figures").glob("*.pdf")}
    assert names == {
        "curves", "samples", "reconstructions", "map", "pseudo_inputs", "components", "traversal", "interpolation"
    }  # fmt: skip
    for ending in ("png", "pdf", "svg"):
        path = tmp_path / f"s.{ending}"
        result = CliRunner().invoke(
            main, ["sample", str(run), "-n", "6", "--columns", "2", "--output", str(path)]
        )
        assert result.exit_code == 0 and path.is_file(), result.stderr
    sample = ["sample", str(run), "-n", "6", "--columns", "2", "--output", str(tmp_path / "t")]
    for words, path in (
        (["--format", "pdf", "--dpi", "60"], "t.pdf"),
        (["--format", "png", "--no-title"], "t.png"),
        (["--format", "svg", "--no-title"], "t.svg"),
    ):
        result = CliRunner().invoke(main, sample + words)
        assert result.exit_code == 0 and result.stdout == f"wrote 6 images to {tmp_path / path}\n", (
            result.stderr
        )
        assert (tmp_path / path).is_file()
    height, width = 3 * 28 + 4, 2 * 28 + 3  # with lines between and around the images, each pixel three wide
    with Image.open(tmp_path / "t.png") as bare, Image.open(tmp_path / "s.png") as titled:
        assert bare.size == (3 * width, 3 * height) and titled.size != bare.size
    for words, part in (
        (["plot", str(run), "--format", "gif"], "unknown format 'gif'"),
        (["sample", str(run), "--columns", "0", "--output", "a.png"], "columns must lie between 1 and 1000"),
        (["sample", str(run), "--output", "png"], "must end with one of"),
        (["sample", str(run), "--format", "gif", "--output", "a"], "unknown format 'gif'"),
        (["sample", str(run), "--format", "pdf", "--output", "a.png"], "--format pdf does not go with a.png"),
        (["sample", str(run), "--format", "pdf", "--output", "a.npz"], "--format pdf does not go with a.npz"),
        (["sample", str(run), "--dpi", "0", "--output", "a.png"], "dpi must lie between 1 and 2400"),
    ):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2 and part in result.stderr


def test_the_map_shows_the_density_of_the_prior(run, monkeypatch):
    """The mixture in the plane is the prior's own marginal there."""
    seen = {}
    monkeypatch.setattr(plots, "latent_map", lambda *arguments: seen.update(arguments=arguments) or b"")
    opened = runs.Run(run)
    runs.plot(opened)
    means, _, _, (log_weights, centres, covariances) = seen["arguments"][:4]
    z = opened.model().prior.sample(4000, seed=1).numpy()
    images = opened.dataset(1000).test.array()[0]
    posterior = evaluation.encode(opened.model(), evaluation.as_images(images, opened.model()))[0]
    axes, centre = evaluation.plane(posterior.loc.numpy())
    projected = (z - centre) @ axes
    weights = np.exp(log_weights)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(weights @ centres, projected.mean(axis=0), atol=0.1)
    second = np.einsum("k,kij->ij", weights, covariances) + np.einsum(
        "k,ki,kj->ij", weights, centres, centres
    )
    np.testing.assert_allclose(second, projected.T @ projected / len(z), atol=0.15)
    assert means.shape == (len(images), 2)
