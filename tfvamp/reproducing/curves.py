"""Figures 2, 3 and 7: the ELBO and active units against the number of components, histograms of the log-likelihood."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from tfvamp import paper, plots
from tfvamp.reproducing.cells import Cell
from tfvamp.reproducing.results import Result

COLOURS = {"standard": "0.35", "mog": "tab:orange", "vamp": "tab:blue"}
MARKERS = {"elbo": "o", "iwae": "s"}
BINS = 100  # as in the paper
WIDE, SMALL = 6.6, 8  # inches, points
LINES = 4  # of a text in a panel


def elbo(cells: Sequence[Cell], look: plots.Look) -> bytes:
    """Draws Figure 2: the test ELBO against K, ours and the paper's, with a panel for each data set."""
    datasets = _datasets_of(cells)
    size = (WIDE * max(0.72, 0.5 * len(datasets)), 3.4)
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(datasets), squeeze=False)[0]
    for axes, dataset in zip(panels, datasets, strict=True):
        here = [cell for cell in cells if cell.point.dataset == dataset]
        places = _by_components(axes, here)
        for prior in paper.FIGURE2:
            of_prior = [cell for cell in here if cell.point.prior == prior]
            colour, title = COLOURS[prior], paper.TITLES[prior]
            _line(axes, of_prior, places, lambda result: result.elbo, colour, "o", "-", f"{title}, ours")
            printed = {
                cell.point.components: cell.point.published
                for cell in of_prior
                if cell.point.published is not None
            }
            _printed(axes, printed, places, colour, f"{title}, paper")
        axes.set_title(f"HVAE on {paper.TITLES[dataset]}", fontsize=SMALL + 2)
    panels[0].set_ylabel("test ELBO (nats)", fontsize=SMALL)
    _legend(figure, panels, cells, 3)
    return plots.rendered(figure, look)


def active_units(cells: Sequence[Cell], look: plots.Look) -> bytes:
    """Draws Figure 3: the active units of z1 and z2 against K, trained by the ELBO and by the importance-weighted bound.

    Each data set has a row.
    """
    datasets = _datasets_of(cells)
    figure = matplotlib.figure.Figure(figsize=(WIDE, 1.0 + 2.4 * len(datasets)), layout="constrained")
    grid = figure.subplots(len(datasets), 2, squeeze=False)
    for row, dataset in zip(grid, datasets, strict=True):
        here = [cell for cell in cells if cell.point.dataset == dataset]
        for index, (axes, layer) in enumerate(zip(row, ("z1", "z2"), strict=True)):
            places = _by_components(axes, here)
            for objective in paper.OBJECTIVES:
                for prior in paper.PRINTED_PRIORS:
                    of_line = [
                        cell
                        for cell in here
                        if (cell.point.prior, cell.point.objective) == (prior, objective)
                    ]
                    label = f"{paper.TITLES[prior]}, {objective.upper()}, ours"
                    style = "-" if objective == "elbo" else "-."
                    _line(
                        axes,
                        of_line,
                        places,
                        _units_of(layer),
                        COLOURS[prior],
                        MARKERS[objective],
                        style,
                        label,
                    )
            if dataset == "static_mnist":
                printed = dict(zip(paper.COMPONENTS, paper.FIGURE3[layer], strict=True))
                _printed(axes, printed, places, COLOURS["vamp"], "VampPrior, ELBO, paper")
                styles: tuple[Any, ...] = (":", (0, (1, 3)))
                for (name, counts), style in zip(paper.FIGURE3_OTHERS.items(), styles, strict=True):
                    label = f"{name}, another network, paper"
                    axes.axhline(counts[index], color="tab:red", linestyle=style, linewidth=1, label=label)
            axes.set_title(f"{paper.TITLES[dataset]}, ${layer[0]}_{layer[1]}$", fontsize=SMALL + 2)
            axes.set_ylabel("active units of 40", fontsize=SMALL)
            axes.set_ylim(0, 41)
    _legend(figure, grid.flat, cells, 3)
    return plots.rendered(figure, look)


def histograms(cells: Sequence[Cell], look: plots.Look) -> bytes:
    """Draws Figure 7: histograms of the log-likelihood of test images from the encoder's q, by data set and model."""
    shown = [cell for cell in cells if cell.results]
    datasets = [name for name in paper.DATASETS if any(cell.point.dataset == name for cell in shown)]
    models = [name for name in paper.MODELS if any(cell.point.model == name for cell in cells)]
    rows, columns = max(1, len(datasets)), len(models)
    size = (max(3.6, 2.4 * columns), 2.1 * rows + 0.3)
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, dataset in enumerate(datasets or [cells[0].point.dataset]):
        for column, model in enumerate(models):
            axes = grid[row, column]
            here = [cell for cell in cells if (cell.point.dataset, cell.point.model) == (dataset, model)]
            axes.set_title(f"{paper.TITLES[dataset]}, {paper.TITLES[model]}", fontsize=SMALL + 1)
            _histogram(axes, here)
            if column == 0:
                axes.set_ylabel("test images", fontsize=SMALL)
    return plots.rendered(figure, look)


def _histogram(axes, cells: Sequence[Cell]) -> None:
    """Draws the histograms of some priors over common bins, with their means."""
    values = {
        str(cell.point.prior): cell.results[0].of_images["encoder"]
        for cell in cells
        if cell.results and "encoder" in cell.results[0].of_images
    }
    axes.tick_params(labelsize=SMALL)
    if not values:
        text = "\n".join(f"{cell.point.title}: {cell.text}" for cell in cells)
        nothing(axes, text or "not asked for")
        return
    low, high = (
        extreme(array.min() if extreme is min else array.max() for array in values.values())
        for extreme in (min, max)
    )
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    for index, (prior, array) in enumerate(values.items()):
        colour = COLOURS.get(prior, f"C{index + 2}")
        label = f"{paper.TITLES[prior]}, mean {array.mean():.1f}"
        axes.hist(array, edges, histtype="stepfilled", color=colour, alpha=0.35)
        axes.hist(array, edges, histtype="step", color=colour, linewidth=0.9, label=label)
        axes.axvline(array.mean(), color=colour, linestyle=":", linewidth=1.2)
    axes.set_xlabel("log p(x) (nats)", fontsize=SMALL)
    axes.legend(fontsize=SMALL - 1, frameon=False, loc="upper left", handlelength=1.0)
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])  # room for the legend


def nothing(axes, text: str) -> None:
    """Makes a panel that only says why it is empty."""
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, 26)[:LINES]]
    axes.text(
        0.5, 0.5, "\n".join(lines), ha="center", va="center", fontsize=SMALL - 1, color="0.4",
        transform=axes.transAxes, in_layout=False, parse_math=False,
    )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color("0.8")


def _datasets_of(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.point.dataset for cell in cells))


def _line(
    axes, cells, places, number: Callable[[Result], float], colour: str, marker: str, style: Any, label: str
) -> None:
    """Draws the means over seeds as a line with standard errors, or as a level if there is no number of components."""
    points = []
    for cell in cells:
        values = [number(result) for result in cell.results]
        if values:
            error = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
            points.append((places.get(cell.point.components), float(np.mean(values)), error))
    if not points:
        return
    if points[0][0] is None:
        axes.axhline(points[0][1], color=colour, linestyle=style, linewidth=1.2, label=label)
        return
    at, means, errors = zip(*points, strict=True)
    axes.errorbar(
        at, means, errors, color=colour, marker=marker, markersize=4, linestyle=style, linewidth=1.2, capsize=2,
        label=label,
    )  # fmt: skip


def _printed(axes, values: Mapping[Any, float], places, colour: str, label: str) -> None:
    """Draws the paper's numbers by number of components, or as a level if there is none."""
    if None in values:
        axes.axhline(values[None], color=colour, linestyle="--", linewidth=1, label=label)
        return
    shown = {places[count]: value for count, value in values.items() if count in places}
    if shown:
        axes.plot(
            list(shown), list(shown.values()), "--", color=colour, marker="o", markerfacecolor="white", markersize=4,
            linewidth=1, label=label,
        )  # fmt: skip


def _units_of(layer: str) -> Callable[[Result], float]:
    return lambda result: float(result.active_units.get(layer, 0))


def _by_components(axes, cells: Sequence[Cell]) -> dict[int | None, int]:
    """Places the numbers of components at equal distances; returns the place of each."""
    counts = sorted({cell.point.components for cell in cells if cell.point.components is not None})
    axes.set_xlabel("number of components K", fontsize=SMALL)
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.tick_params(labelsize=SMALL)
    axes.grid(alpha=0.3)
    return {count: place for place, count in enumerate(counts)}


def _legend(figure, panels, cells: Sequence[Cell], columns: int) -> None:
    """Draws a legend below the panels, which also says how many runs are missing."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    pairs = [(handles[label], label) for label in sorted(handles)]
    total = sum(len(cell.runs) for cell in cells)
    missing = total - sum(len(cell.results) for cell in cells)
    figure.legend(
        [handle for handle, _ in pairs],
        [label for _, label in pairs],
        title=f"{missing} of {total} runs are not finished" if missing else None,
        title_fontsize=SMALL - 0.5,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=SMALL - 0.5,
    )
