"""The part of a report that compares several runs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfvamp.errors import TfvampError
from tfvamp.plots import FEW_EPOCHS
from tfvamp.reports import charts
from tfvamp.reports.contents import Contents
from tfvamp.reports.evaluated import NONE, difference, encoders, other, stated
from tfvamp.reports.html import Html, items, section, table, tag
from tfvamp.reports.parts import plain
from tfvamp.runs.comparing import compare

MOST_DRAWN = charts.COLOURS  # maximum number of curves
MOST_DIFFERENCES = 3  # maximum number of histograms


def comparison(
    contents: Sequence[Contents],
    names: Sequence[str],
    baseline: str | os.PathLike | None,
    say: Callable[[str], None],
    shown: Callable[[str], str],
) -> Html:
    """Returns the comparison of runs, with paired differences to one of them.

    Args:
      contents: contents of the runs.
      names: names of the runs in the report.
      baseline: the run with which the others are compared; None for the first one.
      say: a function that gets one line of text about what cannot be compared.
      shown: a function from such a text to what the page shows.
    """
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(shown(text))
        say(text)

    paired = _paired(contents, baseline, note)
    estimators = {another.name for one in contents if (another := other(one)) is not None}
    estimate = estimators.pop() if len(estimators) == 1 else "other estimate"
    first = contents[0].run.path if baseline is None else baseline
    of = names[0] if baseline is None else os.path.basename(os.path.realpath(first))
    head = [
        "run", "settings that differ", "epochs (best)", "validation bound", "log p(x), encoder's q", "paper", "minus the paper",
        f"minus {of}, paired, encoder's q", f"log p(x), {estimate}", f"minus {of}, paired, {estimate}",
    ]  # fmt: skip
    rows = []
    for index, (one, name) in enumerate(zip(contents, names, strict=True)):
        cells = _row(one, paired.get(_place(one), {}), named=len(estimators) > 1)
        rows.append([tag("a", name, href=f"#{anchor(index)}"), *cells])
    kept = [index for index in range(len(head)) if any(row[index] not in (NONE, "") for row in rows)]
    about = (
        "Nats per image of the test images, ± the standard error over images, which is that of another test set. A paired difference "
        "is the mean over images of the difference of two estimates by the same estimator: its error is smaller, because the images are "
        "the same. Estimates from the encoder's q and other ones are in columns of their own and never compare."
    )
    return section(
        "Comparison",
        tag("p", about),
        table([head[index] for index in kept], [[row[index] for index in kept] for row in rows]),
        items(dict.fromkeys(notes), "warnings"),
        tag(
            "div", _validation(contents, names), _differences(contents, names, first, paired), class_="charts"
        ),
        level=2,
    )


def _paired(
    contents: Sequence[Contents], baseline: str | os.PathLike | None, note: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Returns the row of each run in the table of `compare`, by the place of its folder."""
    try:
        found = compare([one.run.path for one in contents], baseline, say=note)
    except TfvampError as error:
        note(f"there are no paired differences: {error}")
        return {}
    columns = {name: list(found[name]) for name in found}
    return {
        os.path.realpath(path): {name: cells[index] for name, cells in columns.items()}
        for index, path in enumerate(columns["run"])
    }


def _place(contents: Contents) -> str:
    return os.path.realpath(contents.run.path)


def _row(contents: Contents, paired: dict[str, Any], named: bool) -> list[Any]:
    own, another, printed = encoders(contents), other(contents), contents.printed
    settings = contents.document.settings.to_dict()
    differing = ", ".join(f"{key} {plain(settings[key])}" for key in paired if key in settings)
    best = contents.best
    # If no other estimate was made, "log_likelihood" is the encoder's.
    of_encoder = "encoder_difference" if another is not None else "difference"
    unit = " bits" if printed is not None and printed.unit == "bits_per_dim" else ""
    return [
        differing,
        NONE if best is None else f"{len(contents.rows)} ({best['epoch']})",
        stated(_number(paired.get("bound"))),
        _estimate(own) + (f" ({stated(own.number('bits_per_dim'), digits=3)} bits)" if own and unit else ""),
        NONE if printed is None or own is None else f"{printed.value:.2f}{unit}",
        NONE if difference(contents) is None else f"{difference(contents):.2f}{unit}",
        _difference(paired, of_encoder) if own is not None else NONE,
        NONE if another is None else _estimate(another) + (f" ({another.name})" if named else ""),
        _difference(paired, "difference") if another is not None else NONE,
    ]


def anchor(index: int) -> str:
    """Returns the name of the anchor at which the report on a run begins."""
    return f"run-{index + 1}"


def _estimate(estimate) -> str:
    if estimate is None:
        return NONE
    return stated(estimate.number("log_likelihood"), estimate.number("standard_error"))


def _difference(paired: dict[str, Any], name: str) -> str:
    return stated(_number(paired.get(name)), _number(paired.get(f"{name}_error")))


def _number(value: Any) -> float | None:
    """Returns a cell as a number; None if it has no value."""
    return None if value is None or math.isnan(float(value)) else float(value)


def _differences(
    contents: Sequence[Contents],
    names: Sequence[str],
    first: str | os.PathLike,
    paired: dict[str, dict[str, Any]],
) -> Html:
    """Returns the paired differences per image of the first runs that can be compared; empty if there are none."""
    base = next((one for one in contents if _place(one) == os.path.realpath(first)), None)
    if base is None or "test" not in base.evaluations:
        return Html()
    theirs = base.evaluations["test"].values
    found: dict[str, np.ndarray] = {}
    for one, name in zip(contents, names, strict=True):
        if _number(paired.get(_place(one), {}).get("difference")) is None:
            continue
        ours = one.evaluations["test"].values
        for estimate in list(ours)[-1:]:
            if estimate in theirs and len(found) < MOST_DIFFERENCES:
                found[f"{name}, {estimate}"] = ours[estimate] - theirs[estimate]
    if not found:
        return Html()
    of = names[list(contents).index(base)]
    return charts.histogram(
        f"Images by difference to {of}", found, "difference of log p(x) of an image (nats)"
    )


def _validation(contents: Sequence[Contents], names: Sequence[str]) -> Html:
    """Returns the validation ELBO of the runs, in one chart."""
    drawn = [(one, name) for one, name in zip(contents, names, strict=True) if one.rows][:MOST_DRAWN]
    if not drawn:
        return Html()
    series = [
        charts.Line(name, [row["epoch"] for row in one.rows], [row["val_elbo"] for row in one.rows], colour)
        for colour, (one, name) in enumerate(drawn)
    ]
    late = [row["val_elbo"] for one, _ in drawn for row in one.rows[FEW_EPOCHS:]]
    figure = charts.lines("Validation ELBO (nats)", series, "epoch", min(late) if late else None)
    return figure
