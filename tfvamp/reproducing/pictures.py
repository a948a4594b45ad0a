"""Figures 4, 5 and 6: pseudo-inputs and what they generate; real images beside generated and reconstructed ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import matplotlib.figure
import numpy as np

from tfvamp import paper, plots
from tfvamp.errors import RunError, UsageError
from tfvamp.reproducing.cells import Cell
from tfvamp.reproducing.curves import SMALL, nothing
from tfvamp.runs import Run

COLUMNS = 5
SHOWN = COLUMNS**2  # images in a panel, as in the paper
PANEL = 1.65  # inches


def trained(cell: Cell) -> Run | None:
    """Returns the first run of a cell whose training has ended; None if there is none."""
    for run, look in zip(cell.runs, cell.looks, strict=True):
        if look.state in ("finished", "trained") and run.path.is_dir():
            return Run(run.path)
    return None


def pseudo_inputs(cells: Sequence[Cell], look: plots.Look, component: int) -> bytes:
    """Draws Figure 4: a pseudo-input, samples that its component generates, and the first pseudo-inputs; one row per model."""
    rows = [(cell, run) for cell in cells if (run := trained(cell)) is not None]
    titles = (f"pseudo-input {component}", "samples from it", "pseudo-inputs")
    figure, grid = _panels(max(1, len(rows)), len(titles))
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=SMALL + 1)
    for (cell, run), panels in zip(rows, grid, strict=False):
        prior = run.model().prior
        found = prior.clipped_pseudo_inputs()
        if found is None:
            raise RunError(f"{run} has no pseudo-inputs: choose the prior vamp")
        inputs = found.numpy()
        if component >= len(inputs):
            raise UsageError(f"--component must lie between 0 and {len(inputs) - 1}; got {component}")
        samples = run.model().sample(SHOWN, seed=0, component=component).numpy()
        _show(panels[0], inputs[component])
        _show(panels[1], plots.tile(samples, COLUMNS))
        _show(panels[2], plots.tile(inputs[:SHOWN], COLUMNS))
        _name(panels[0], f"{paper.TITLES[cell.point.dataset]}\n{paper.TITLES[str(cell.point.model)]}")
    if not rows:
        for axes in grid[0]:
            nothing(axes, "no run is trained")
    return plots.rendered(figure, look)


def beside_real(
    cells: Sequence[Cell],
    look: plots.Look,
    images_of: Callable[[Run, np.ndarray], np.ndarray],
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> bytes:
    """Draws Figure 5 or 6: real test images, and what each model makes; one row per data set that has a run.

    Args:
      cells: cells of the models.
      look: style of the figure.
      images_of: a function from a run and real images [n, H, W, C] to the images of a panel.
      data_dir, raw_dir, say: as for `Run.dataset`.
    """
    runs = {(cell.point.dataset, cell.point.model): trained(cell) for cell in cells}
    datasets = [name for name in paper.DATASETS if any(run for (of, _), run in runs.items() if of == name)]
    models = [cell.point for cell in cells if cell.point.dataset == (datasets or [cells[0].point.dataset])[0]]
    figure, grid = _panels(max(1, len(datasets)), 1 + len(models))
    titles = ["real images", *(_title(point.model, point.prior) for point in models)]
    for axes, letter, title in zip(grid[0], "abcde", titles, strict=False):
        axes.set_title(f"({letter}) {title}", fontsize=SMALL + 0.5)
    for dataset, panels in zip(datasets, grid, strict=False):
        there = [(point, runs[dataset, point.model]) for point in models]
        first = next(run for _, run in there if run is not None)
        images = first.dataset(SHOWN, None, data_dir, raw_dir, say).test.array()[0]
        real = plots.tile(images, COLUMNS)
        _show(panels[0], real)
        _name(panels[0], paper.TITLES[dataset])
        texts = {cell.point.model: cell.text for cell in cells if cell.point.dataset == dataset}
        for (point, run), axes in zip(there, panels[1:], strict=True):
            if run is None:
                nothing(axes, texts[point.model])
                axes.set_box_aspect(real.shape[0] / real.shape[1])
            else:
                _show(axes, plots.tile(images_of(run, images), COLUMNS))
    if not datasets:
        for axes in grid[0]:
            nothing(axes, "no run is trained")
    return plots.rendered(figure, look)


def generated(run: Run, images: np.ndarray) -> np.ndarray:
    """Returns as many images generated from the prior."""
    return np.asarray(run.model().sample(len(images), seed=0))


def reconstructed(run: Run, images: np.ndarray) -> np.ndarray:
    """Returns the reconstructions of images, at the means of their posteriors."""
    return np.asarray(run.model()(images))


def _title(model: str | None, prior: str | None) -> str:
    return paper.TITLES[str(model)] + (
        "" if prior in (None, "standard") else f" + {paper.TITLES[str(prior)]}"
    )


def _panels(rows: int, columns: int):
    figure = matplotlib.figure.Figure(
        figsize=(PANEL * columns + 0.3, PANEL * rows + 0.3), layout="constrained"
    )
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(axes, image: np.ndarray) -> None:
    axes.imshow(np.clip(image, 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _name(axes, text: str) -> None:
    axes.set_ylabel(text, fontsize=SMALL + 0.5)
