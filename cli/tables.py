"""Tables for a terminal, a page or a paper."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import click

from tfvamp_cli import light

FORMATS = ("text", "markdown", "csv", "latex", "json")
option = click.option(
    "--format",
    "form",
    metavar="NAME",
    default="text",
    show_default=True,
    help=f"Format of the table: {light.config.listed(FORMATS)}.",
)
LONGEST_CELL = 200  # letters: a file may hold texts of any length
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def rendered(
    columns: Mapping[str, Sequence[Any]], format: str, digits: Mapping[str, int | Sequence[int]]
) -> str:
    """Returns a table as text that ends in a new line.

    Args:
      columns: the cells of each column by its name; None and NaN are cells without a value.
      format: one of `FORMATS`; csv and json have all digits of numbers.
      digits: number of digits after the point for each column in the other formats; as many as needed for a
        column that is not named. A sequence has one number for each row.
    """
    names = list(columns)
    rows = [list(cells) for cells in zip(*columns.values(), strict=True)]
    if format == "json":
        return json.dumps([dict(zip(names, map(_plain, row), strict=True)) for row in rows], indent=1) + "\n"
    if format == "csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(
            [names, *([_plain(cell) for cell in row] for row in rows)]
        )
        return buffer.getvalue()

    def digits_of(name: str, row: int) -> int | None:
        found = digits.get(name)
        return found if found is None or isinstance(found, int) else found[row]

    texts = [
        [_text(cell, digits_of(name, index)) for name, cell in zip(names, row, strict=True)]
        for index, row in enumerate(rows)
    ]
    numeric = [all(_is_number(cell) for cell in cells) for cells in columns.values()]
    if format == "latex":
        return _latex(names, texts, numeric)
    if format == "markdown":
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in texts]
        marks = ["---:" if one else "---" for one in numeric]
        return "".join(f"| {' | '.join(row)} |\n" for row in (names, marks, *escaped))
    widths = [max(map(len, cells)) for cells in zip(names, *texts, strict=True)]
    lines = []
    for row in (names, *texts):
        aligned = [
            f"{cell:>{width}}" if right else f"{cell:<{width}}"
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines) + "\n"


def _latex(names: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """Returns a table in the style of the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(LATEX.get(letter, letter) for letter in cell) for cell in cells) + r" \\"

    columns = "".join("r" if one else "l" for one in numeric)
    body = [line(row) for row in rows]
    parts = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(names), r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*parts, r"\end{tabular}"]) + "\n"


def _is_number(cell: Any) -> bool:
    return cell is None or (isinstance(cell, (int, float)) and not isinstance(cell, bool))


def _plain(cell: Any) -> Any:
    """Returns a cell for a program; a NaN has no value."""
    cell = cell.item() if hasattr(cell, "item") else cell
    if isinstance(cell, float) and math.isnan(cell):
        return None
    return light.files.printable(cell) if isinstance(cell, str) else cell


def _text(cell: Any, digits: int | None) -> str:
    """Returns a cell for a person."""
    cell = _plain(cell)
    if cell is None:
        return ""
    if digits is not None and _is_number(cell):
        return f"{cell:.{digits}f}"
    if isinstance(cell, float):
        return f"{cell:g}"
    text = str(cell)
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}..."
