"""Draws any figure of the paper."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from tfvamp import plots
from tfvamp.reproducing import curves, diagram, gradients, pictures
from tfvamp.reproducing.cells import Cell


def draw(
    name: str,
    cells: Sequence[Cell],
    look: plots.Look = plots.PLAIN,
    component: int = 0,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> bytes:
    """Draws a figure as the bytes of a file, from the runs that are there.

    Args:
      name: "figure1" to "figure7", or "gradients".
      cells: cells of the figure.
      look: style of the figure.
      component: the pseudo-input of figure4.
      data_dir, raw_dir, say: as for `Run.dataset`.
    """
    if name == "figure1":
        return diagram.dependencies(look)
    if name == "figure4":
        return pictures.pseudo_inputs(cells, look, component)
    if name in ("figure5", "figure6"):
        images_of = pictures.generated if name == "figure5" else pictures.reconstructed
        return pictures.beside_real(cells, look, images_of, data_dir, raw_dir, say)
    if name == "gradients":
        return gradients.figure(cells, look, data_dir, raw_dir, say)
    drawing = {"figure2": curves.elbo, "figure3": curves.active_units, "figure7": curves.histograms}[name]
    return drawing(cells, look)
