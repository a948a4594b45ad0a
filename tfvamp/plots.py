"""Pictures as PNG bytes: grids of images, curves, histograms."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import matplotlib.figure
import matplotlib.image
import numpy as np

GROUND = 0.35  # the grey between images


def tile(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images [n, H, W, C] side by side in rows, one grey pixel between them: [rows, columns, 3]."""
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), GROUND, np.float32)
    for index, image in enumerate(np.clip(images, 0.0, 1.0)):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image if channels == 3 else image[..., :1]
    return canvas


def bare_grid(images: np.ndarray, scale: int = 3) -> bytes:
    """A grid of images [n, H, W, C] without words, each pixel `scale` pixels wide."""
    canvas = tile(images).repeat(scale, axis=0).repeat(scale, axis=1)
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, canvas, format="png")
    return buffer.getvalue()


def grid(images: np.ndarray, title: str) -> bytes:
    """A titled grid of images [n, H, W, C]."""
    return _figure_of(tile(images), title)


def pairs(
    originals: np.ndarray,
    others: np.ndarray,
    columns: int = 8,
    title: str = "Test images, each with its reconstruction to the right",
) -> bytes:
    """Images and what belongs to them side by side, [n, H, W, C] both, in columns of pairs."""
    both = np.stack([originals, others], axis=1).reshape(-1, *originals.shape[1:])
    return _figure_of(tile(both, columns), title)


def curves(history: list[dict[str, float]], best: dict[str, float] | None) -> bytes:
    """The ELBO in training and validation and its two parts, by epoch, and the row of the best epoch."""
    epochs = [row["epoch"] for row in history]
    figure = matplotlib.figure.Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    titles = {"elbo": "ELBO (nats)", "reconstruction": "E[log p(x | z)] (nats)", "kl": "KL (nats)"}
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        axes.plot(epochs, [row[f"train_{name}"] for row in history], label="training", linewidth=1)
        validation = [row[f"val_{name}"] for row in history]
        axes.plot(epochs, validation, label="validation", linewidth=1)
        axes.set(title=title, xlabel="epoch")
        if history and name != "kl":  # the first epochs are far below everything that follows
            axes.set_ylim(bottom=np.percentile(validation, 10), top=None)
        axes.grid(alpha=0.3)
    if best is not None:
        panels[0].axvline(best["epoch"], color="grey", linestyle=":", label=f"best ({best['val_elbo']:.1f})")
    panels[0].legend(fontsize=8)
    return _png(figure)


def histogram(log_likelihood: np.ndarray) -> bytes:
    """The log-likelihoods [N] of test images in 100 bins, and their mean (the paper's Figure 7)."""
    figure = matplotlib.figure.Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.hist(log_likelihood, bins=100)
    mean = float(log_likelihood.mean())
    axes.axvline(mean, color="black", linestyle=":", label=f"mean {mean:.2f}")
    axes.set(
        title=f"Log-likelihood of {len(log_likelihood)} test images",
        xlabel="log p(x) (nats)",
        ylabel="images",
    )
    axes.legend()
    return _png(figure)


def spectra(variances: dict[str, Sequence[float]], threshold: float) -> bytes:
    """The variances of posterior means [D] of each stochastic layer, the largest first, and the threshold of activity."""
    figure = matplotlib.figure.Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, values in variances.items():
        axes.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-8), marker=".", label=name)
    axes.axhline(threshold, color="black", linestyle=":", label=f"active from {threshold:g} on")
    axes.set(title="Variance of the posterior means over test images", xlabel="latent", ylabel="variance")
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def estimates(curves: dict[str, Sequence]) -> bytes:
    """Estimates of log p(x) against the number of samples; curves of points (num_samples, mean, error)."""
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
    return _png(figure)


def scatter(means: np.ndarray, components: np.ndarray | None) -> bytes:
    """Posterior means [N, 2] and a mixture's component means [K, 2] on two principal axes."""
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
    return _png(figure)


def shares(values: np.ndarray) -> bytes:
    """The shares [K] of a mixture's components, the largest first."""
    figure = matplotlib.figure.Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(values) + 1), np.sort(values)[::-1], linewidth=1)
    axes.axhline(1.0 / len(values), color="black", linestyle=":", label="all the same")
    axes.set(
        title="Shares of the components in the latents of test images", xlabel="component", ylabel="share"
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def _figure_of(canvas: np.ndarray, title: str) -> bytes:
    height, width = canvas.shape[:2]
    figure = matplotlib.figure.Figure(figsize=(6, 6 * height / width + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    return _png(figure)


def _png(figure: matplotlib.figure.Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
