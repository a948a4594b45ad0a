"""Pictures as the bytes of PNG, PDF or SVG files: grids of images, curves, histograms, maps of the latents."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.figure
import matplotlib.image
import numpy as np

from tfvamp.config import FORMATS
from tfvamp.errors import UsageError, check_choice

GROUND = 0.35  # the grey between images
FEW_EPOCHS = 30  # up to this number, curves are shown whole
MOST_NAMED = 30  # labels in a legend
FINEST = 100  # bins of a histogram, the paper's number
MAP_POINTS = 80  # along each axis of a map's density
DATES: dict[str, Any] = {
    "png": {},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}  # no dates, so that the same picture is the same file


@dataclasses.dataclass(frozen=True)
class Look:
    """The style of pictures.

    Attributes:
      format: "png", "pdf" or "svg".
      dpi: dots per inch of a PNG file, and of the images in a PDF or SVG file.
      columns: number of columns of a grid of images; None for about as many as rows.
      title: whether pictures have titles.
    """

    format: str = FORMATS[0]
    dpi: int = 120
    columns: int | None = None
    title: bool = True

    def __post_init__(self):
        check_choice("format", self.format, FORMATS)
        for name, value, most in (
            ("dpi", self.dpi, 2400),
            ("columns", 1 if self.columns is None else self.columns, 1000),
        ):
            if not 1 <= value <= most:
                raise UsageError(f"{name} must lie between 1 and {most}; got {value}")


PLAIN = Look()


def tile(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Returns images [n, H, W, C] side by side in rows, with one grey pixel between them: [rows, columns, 3]."""
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), GROUND, np.float32)
    for index, image in enumerate(np.clip(images, 0.0, 1.0)):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image if channels == 3 else image[..., :1]
    return canvas


def bare_grid(images: np.ndarray, scale: int = 3, look: Look = PLAIN) -> bytes:
    """Draws a grid of images [n, H, W, C] without text, each pixel `scale` pixels wide."""
    canvas = tile(images, look.columns).repeat(scale, axis=0).repeat(scale, axis=1)
    buffer = io.BytesIO()
    metadata = DATES[look.format] or None
    matplotlib.image.imsave(buffer, canvas, format=look.format, dpi=look.dpi, metadata=metadata)
    return buffer.getvalue()


def grid(images: np.ndarray, title: str, look: Look = PLAIN) -> bytes:
    """Draws a grid of images [n, H, W, C] with a title."""
    return _figure_of(tile(images, look.columns), title, look)


def stretched(images: np.ndarray) -> np.ndarray:
    """Returns images [n, H, W, C], each with its contrast stretched to [0, 1]; an image of one value stays so."""
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    return np.where(high > low, (images - low) / np.maximum(high - low, 1e-12), images)


def pairs(
    originals: np.ndarray,
    others: np.ndarray,
    columns: int = 8,
    title: str = "Test images, each with its reconstruction to the right",
    look: Look = PLAIN,
) -> bytes:
    """Draws images and their counterparts side by side, [n, H, W, C] both, in columns of pairs."""
    both = np.stack([originals, others], axis=1).reshape(-1, *originals.shape[1:])
    return _figure_of(tile(both, look.columns or columns), title, look)


def curves(history: list[dict[str, float]], best: dict[str, float] | None, look: Look = PLAIN) -> bytes:
    """Draws the ELBO in training and validation and its two parts, by epoch, and marks the best epoch."""
    epochs = [row["epoch"] for row in history]
    figure = matplotlib.figure.Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    titles = {"elbo": "ELBO (nats)", "reconstruction": "E[log p(x | z)] (nats)", "kl": "KL (nats)"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        axes.plot(epochs, [row[f"train_{name}"] for row in history], label="training", linewidth=1)
        validation = [row[f"val_{name}"] for row in history]
        axes.plot(epochs, validation, label="validation", linewidth=1)
        axes.set(title=title, xlabel="epoch")
        if len(history) > FEW_EPOCHS and name != "kl":  # the first ones are far below everything that follows
            axes.set_ylim(bottom=np.percentile(validation, 10), top=None)
        axes.grid(alpha=0.3)
    if best is not None:
        panels[0].axvline(best["epoch"], color="grey", linestyle=":", label=f"best ({best['val_elbo']:.1f})")
    panels[0].legend(fontsize=8)
    return rendered(figure, look)


def histogram(log_likelihood: np.ndarray, look: Look = PLAIN) -> bytes:
    """Draws a histogram of the log-likelihoods [N] of test images, with their mean (the paper's Figure 7 has 100 bins)."""
    figure = matplotlib.figure.Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    fitting = len(np.histogram_bin_edges(log_likelihood, "auto")) - 1
    axes.hist(log_likelihood, bins=max(1, min(FINEST, 2 * fitting)))
    mean = float(log_likelihood.mean())
    axes.axvline(mean, color="black", linestyle=":", label=f"mean {mean:.2f}")
    axes.set(
        title=f"Log-likelihood of {len(log_likelihood)} test images",
        xlabel="log p(x) (nats)",
        ylabel="images",
    )
    axes.legend()
    return rendered(figure, look)


def spectra(variances: dict[str, Sequence[float]], threshold: float) -> bytes:
    """Draws the variances of posterior means [D] of each layer, largest first, and the threshold of activity."""
    figure = matplotlib.figure.Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, values in variances.items():
        axes.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-8), marker=".", label=name)
    axes.axhline(threshold, color="black", linestyle=":", label=f"active from {threshold:g} on")
    axes.set(title="Variance of the posterior means over test images", xlabel="latent", ylabel="variance")
    axes.grid(alpha=0.3)
    axes.legend()
    return rendered(figure)


def estimates(curves: dict[str, Sequence]) -> bytes:
    """Draws estimates of log p(x) against the number of samples; curves are points (num_samples, mean, error)."""
    figure = matplotlib.figure.Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        sizes, means = [point.num_samples for point in points], [point.mean for point in points]
        errors = [point.error or 0.0 for point in points]
        axes.errorbar(sizes, means, errors, marker=".", capsize=3, label=f"from the {name} q(z | x)")
    axes.set(
        title="Estimate of the test log-likelihood, which rises to its value",
        xlabel="importance samples",
        ylabel="nats",
        xscale="log",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return rendered(figure)


def scatter(means: np.ndarray, components: np.ndarray | None) -> bytes:
    """Draws posterior means [N, 2] and a mixture's component means [K, 2] on two principal axes."""
    figure = matplotlib.figure.Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(means[:, 0], means[:, 1], s=6, alpha=0.5, label="posterior means of test images")
    if components is not None:
        axes.scatter(
            components[:, 0],
            components[:, 1],
            s=14,
            marker="x",
            color="black",
            linewidths=0.8,
            label="components",
        )
    axes.set(title="Latents on the first two principal axes", xlabel="first", ylabel="second")
    axes.legend(fontsize=8)
    return rendered(figure)


def shares(values: np.ndarray) -> bytes:
    """Draws the shares [K] of a mixture's components, the largest first."""
    figure = matplotlib.figure.Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(values) + 1), np.sort(values)[::-1], linewidth=1)
    axes.axhline(1.0 / len(values), color="black", linestyle=":", label="all the same")
    axes.set(
        title="Shares of the components in the latents of test images", xlabel="component", ylabel="share"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return rendered(figure)


def latent_map(
    means: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    density: tuple[np.ndarray, np.ndarray, np.ndarray],
    components: np.ndarray | None = None,
    look: Look = PLAIN,
) -> bytes:
    """Draws posterior means [N, 2] on two principal axes, by label, over the prior's density in that plane.

    Args:
      means: posterior means of test images.
      labels: [N]; below 0 for images without a label.
      class_names: names of the labels; empty if they have no names.
      density: the prior's density, as a mixture of normals in the plane: log-weights [M], means [M,
        2], covariances [M, 2, 2].
      components: the latents [K, 2] at the means of the prior's components; None for a prior
        without components.
    """
    figure = matplotlib.figure.Figure(figsize=(6.5, 5.5), layout="constrained")
    axes = figure.subplots()
    low, high = means.min(axis=0), means.max(axis=0)
    margin = 0.1 * (high - low) + 1e-6
    lines = [
        np.linspace(start, stop, MAP_POINTS) for start, stop in zip(low - margin, high + margin, strict=True)
    ]
    points = np.stack(np.meshgrid(*lines), axis=-1)
    height = np.zeros(points.shape[:2])
    for log_weight, centre, covariance in zip(*density, strict=True):
        square = np.einsum("...i,ij,...j", points - centre, np.linalg.inv(covariance), points - centre)
        height += np.exp(log_weight - 0.5 * square) / (2 * np.pi * np.sqrt(np.linalg.det(covariance)))
    axes.contourf(*lines, height, levels=12, cmap="Greys", alpha=0.6)
    known = [label for label in np.unique(labels) if label >= 0]
    colours = matplotlib.colormaps["tab10" if len(known) <= 10 else "turbo"]
    for index, label in enumerate(known if known else [-1]):
        chosen = labels == label if known else np.full(len(means), True)
        name = class_names[label] if 0 <= label < len(class_names) else str(label) if known else "test images"
        colour = colours(index if len(known) <= 10 else index / (len(known) - 1))
        x, y = means[chosen, 0], means[chosen, 1]
        axes.scatter(x, y, s=6, alpha=0.7, color=colour, label=name, linewidths=0)
    if components is not None:
        x, y = components[:, 0], components[:, 1]
        axes.scatter(x, y, s=12, marker="x", color="black", linewidths=0.7, label="components")
    axes.set(
        title="Posterior means of test images on two principal axes, over the prior's density",
        xlabel="first axis",
        ylabel="second axis",
    )
    axes.title.set_fontsize(10)
    if len(known) <= MOST_NAMED:
        axes.legend(fontsize=7, markerscale=2, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return rendered(figure, look)


def _figure_of(canvas: np.ndarray, title: str, look: Look = PLAIN) -> bytes:
    height, width = canvas.shape[:2]
    figure = matplotlib.figure.Figure(
        figsize=(6, 6 * height / width + (0.4 if look.title else 0.0)), layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_title(title, fontsize=10, wrap=True)
    axes.set_axis_off()
    return rendered(figure, look)


def rendered(figure: matplotlib.figure.Figure, look: Look = PLAIN) -> bytes:
    """Returns a figure as the bytes of a file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    if not look.title:
        for axes in figure.axes:
            axes.set_title("")
    with matplotlib.rc_context({"svg.hashsalt": "tfvamp", "pdf.fonttype": 42}):
        figure.savefig(
            buffer, format=look.format, dpi=look.dpi, bbox_inches="tight", metadata=DATES[look.format]
        )
    return buffer.getvalue()
