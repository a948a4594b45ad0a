"""Pictures as PNG bytes: grids of images, curves, histograms."""

from __future__ import annotations

import io
import math

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


def pairs(originals: np.ndarray, reconstructions: np.ndarray, columns: int = 8) -> bytes:
    """Originals beside their reconstructions, [n, H, W, C] both, in columns of pairs."""
    both = np.stack([originals, reconstructions], axis=1).reshape(-1, *originals.shape[1:])
    return _figure_of(tile(both, columns), "Test images, each with its reconstruction to the right")


def curves(history: list[dict[str, float]]) -> bytes:
    """The ELBO in training and validation and its two parts, by epoch."""
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
    best = max(history, key=lambda row: row["val_elbo"], default=None)
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
