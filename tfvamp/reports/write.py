"""Writes a report: one HTML file about one or several runs."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.resources
import os
import pathlib
import string
from collections.abc import Callable, Sequence

from tfvamp.errors import RunError, UsageError
from tfvamp.files import expanded, replace_file, shown
from tfvamp.reports import parts
from tfvamp.reports.card import card, citations
from tfvamp.reports.compared import anchor, comparison
from tfvamp.reports.contents import Contents, collected
from tfvamp.reports.evaluated import TITLES, evaluation, headline
from tfvamp.reports.html import Html, escaped, items, joined, tag
from tfvamp.reports.images import Look
from tfvamp.reports.paths import hidden, of_text
from tfvamp.runs import Run, as_run
from tfvamp.runs.run import paths_of

MOST_RUNS = 50  # maximum number of runs in one page
MOST_IMAGES = 400  # maximum number of images in a picture


def report(
    runs: Run | str | os.PathLike | Sequence[Run | str | os.PathLike],
    output: str | os.PathLike | None = None,
    overwrite: bool = False,
    baseline: str | os.PathLike | None = None,
    images: int = Look.images,
    seed: int = 0,
    title: str | None = None,
    hide_paths: bool = False,
    dataset: str | None = None,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> pathlib.Path:
    """Writes a report about one or several runs: an HTML file that needs no other file and no network.

    Args:
      runs: a run or its folder, or several; patterns such as "runs/*" as for `find_runs`.
      output: the file; for one run, None means report.html in its folder.
      overwrite: whether to replace an existing file.
      baseline: for several runs, the one with which the others are compared; None for the first
        one.
      images: maximum number of images in a picture; 0 for a report without pictures, which reads no
        weights.
      seed: seed of what is drawn.
      title: title of the report; None for a description of the run, or the number of runs.
      hide_paths: whether to replace the paths in command lines by their last part.
      dataset, data_dir, raw_dir: where the data are, as for `Run.dataset`; without data there are
        no reconstructions.
      say: a function that gets one line of text about each part that is left out.

    Returns:
      the path of the file.

    Raises:
      RunError: no run matches, or one cannot be read.
      UsageError: there are several runs and no output, the file exists, or an argument is out of
        bounds.
      FileError: the file cannot be written.
    """
    if not 0 <= images <= MOST_IMAGES:
        raise UsageError(f"the number of images must lie between 0 and {MOST_IMAGES}; got {images}")
    opened = _opened(runs)
    path = _path_of(opened, output, overwrite)
    look = Look(images, seed, dataset, data_dir, raw_dir)
    contents = [collected(run, look, say) for run in opened]
    if hide_paths:
        contents = [hidden(one) for one in contents]
    text = page(contents, baseline, title, say, of_text if hide_paths else str)
    replace_file(path, text.encode("utf-8"))
    return path


def page(
    contents: Sequence[Contents],
    baseline: str | os.PathLike | None = None,
    title: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    shown: Callable[[str], str] = str,
) -> str:
    """Returns a report as HTML.

    Args:
      contents: contents of each run.
      baseline, title, say: as for `report`.
      shown: a function from a note of the comparison to what the page shows.
    """
    names, single = _names(contents), len(contents) == 1
    body = [
        _run(one, name, index, single) for index, (one, name) in enumerate(zip(contents, names, strict=True))
    ]
    if not single:
        body.insert(0, comparison(contents, names, baseline, say, shown))
    body.append(citations([one.document.settings.dataset for one in contents]))
    heading = title or (parts.described(contents[0]) if single else f"Comparison of {len(contents)} runs")
    about = f"Report by tfvamp {importlib.metadata.version('tfvamp')} on {', '.join(names)}"
    template = importlib.resources.files("tfvamp.reports").joinpath("page.html").read_text(encoding="utf-8")
    style = template.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return string.Template(template).substitute(
        style_digest=digest, title=escaped(heading), about=escaped(about), body=joined(*body)
    )


def _run(contents: Contents, name: str, index: int, single: bool) -> Html:
    return tag(
        "article",
        tag("h2", name),
        "" if single else tag("p", parts.described(contents), class_="about"),
        items(contents.notes, "notes"),
        headline(contents),
        *(evaluation(contents, split) for split in TITLES if split in contents.evaluations),
        parts.pictures(contents),
        parts.curves(contents),
        parts.diagnosis(contents),
        card(contents),
        parts.settings(contents),
        id=anchor(index),
    )


def _opened(runs) -> list[Run]:
    """Returns the runs that are meant, each of them once.

    Raises:
      RunError: there is none, or one cannot be read.
      UsageError: there are too many.
    """
    given = [runs] if isinstance(runs, (Run, str, os.PathLike)) else list(runs)
    found: list[Run | str | os.PathLike] = []
    for one in given:
        found += (
            [one] if isinstance(one, Run) else paths_of(one) or [one]
        )  # a folder that is not there: `Run` says so
    opened = {os.path.realpath(run.path): run for run in map(as_run, found)}
    if not opened:
        raise RunError("a report needs at least one run")
    if len(opened) > MOST_RUNS:
        raise UsageError(f"a report takes up to {MOST_RUNS} runs; got {len(opened)}")
    return list(opened.values())


def _path_of(runs: Sequence[Run], output: str | os.PathLike | None, overwrite: bool) -> pathlib.Path:
    """Returns the path of the report; raises UsageError if it cannot be written there."""
    if output is None:
        if len(runs) > 1:
            raise UsageError("a report on several runs needs a file: --output report.html")
        path = runs[0].folder.file("report.html")
    else:
        path = expanded(output)
        if path.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"a report is an HTML file: its name must end with .html; got {shown(path)}")
    if path.is_dir():
        raise UsageError(f"{shown(path)} is a folder: name a file")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{shown(path)} exists: replace it with --overwrite, or choose another --output")
    return path


def _names(contents: Sequence[Contents]) -> list[str]:
    """Returns the report's names of the runs: the name of the folder, or its path if two folders have the same name."""
    short = [os.path.basename(os.path.realpath(one.run.path)) for one in contents]
    return [
        name if short.count(name) == 1 else str(one.run.path)
        for name, one in zip(short, contents, strict=True)
    ]
