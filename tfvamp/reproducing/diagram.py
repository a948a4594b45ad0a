"""Figure 1: the stochastic dependencies of a VAE with one and with two stochastic layers."""

from __future__ import annotations

from typing import Any

import matplotlib.figure
import matplotlib.lines
import matplotlib.patches

from tfvamp import plots

RADIUS = 0.32
GENERATIVE: Any = "-"
VARIATIONAL: Any = (0, (4, 2.5))  # longer dashes than "--" has
NODES = {
    "one": {"z": (0.0, 2.0), "x": (0.0, 0.0)},
    "two": {"z_2": (0.9, 2.0), "z_1": (-0.9, 1.0), "x": (0.9, 0.0)},
}
# From, to, how much it bends, and whether it is of the generative part.
ARROWS = {
    "one": (("z", "x", -0.3, True), ("x", "z", -0.3, False)),
    "two": (
        ("z_2", "z_1", -0.25, True),
        ("z_2", "x", -0.25, True),
        ("z_1", "x", -0.25, True),
        ("x", "z_2", -0.25, False),
        ("x", "z_1", -0.25, False),
        ("z_2", "z_1", 0.25, False),
    ),
}
TITLES = {"one": "(a) one stochastic layer (VAE)", "two": "(b) two stochastic layers (HVAE)"}


def dependencies(look: plots.Look) -> bytes:
    """Draws which variables depend on which in the generative and in the variational part."""
    figure = matplotlib.figure.Figure(figsize=(5.4, 3.1), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), NODES, strict=True):
        places = NODES[name]
        for start, end, bend, generative in ARROWS[name]:
            axes.add_patch(
                matplotlib.patches.FancyArrowPatch(
                    places[start],
                    places[end],
                    connectionstyle=f"arc3,rad={bend}",
                    arrowstyle="-|>",
                    mutation_scale=13,
                    shrinkA=22,
                    shrinkB=22,
                    linewidth=1.2,
                    linestyle=GENERATIVE if generative else VARIATIONAL,
                    color="black",
                )
            )
        for label, place in places.items():
            shade = "0.85" if label == "x" else "white"  # x is observed
            axes.add_patch(
                matplotlib.patches.Circle(place, RADIUS, facecolor=shade, edgecolor="black", linewidth=1.2)
            )
            axes.text(*place, rf"$\mathbf{{{label[0]}}}{label[1:]}$", ha="center", va="center", fontsize=14)
        axes.set(xlim=(-1.7, 1.7), ylim=(-0.5, 2.5), aspect="equal")
        axes.set_axis_off()
        axes.set_title(TITLES[name], fontsize=10)
    lines = [
        matplotlib.lines.Line2D([], [], color="black", linestyle=style, linewidth=1.2)
        for style in (GENERATIVE, VARIATIONAL)
    ]
    figure.legend(
        lines,
        [r"generative part, $p$", r"variational part, $q$"],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    return plots.rendered(figure, look)
