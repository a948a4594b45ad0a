"""The cells of a table or figure: the runs behind each cell, and how far they are."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tfvamp import files
from tfvamp.catalog import CATALOG
from tfvamp.config import TrainConfig
from tfvamp.errors import RunError, TfvampError, UsageError
from tfvamp.files import expanded, printable, shown
from tfvamp.paper import Point
from tfvamp.reproducing.results import LARGEST_ENTRY, Result, entry, read_entry, result_of
from tfvamp.runs import Run, building
from tfvamp.sweeps import Planned

State = Literal["finished", "trained", "unfinished", "missing", "damaged"]
LONGEST_TEXT = 300  # letters of the text on what is wrong with a run
OF_A_CELL = ("dataset", "model", "prior", "components", "objective", "seed")  # --config cannot change these


class Look(NamedTuple):
    """How far a run is.

    Attributes:
      state: "finished" (trained and evaluated as the table needs it), "trained", "unfinished", "missing" or "damaged".
      text: the state as text for a person; empty if the run is finished.
      result: its numbers; None unless it is finished.
    """

    state: State
    text: str
    result: Result | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table or figure.

    Attributes:
      point: the content of the cell, and the published number.
      runs: one run per seed; none for a method that tfvamp does not have.
      looks: how far each of them is.
    """

    point: Point
    runs: tuple[Planned, ...]
    looks: tuple[Look, ...]

    @property
    def results(self) -> list[Result]:
        """The results of the finished runs."""
        return [look.result for look in self.looks if look.result is not None]

    @property
    def text(self) -> str:
        """How far the runs are, as text; empty if all are finished."""
        texts = [
            f"seed {run.config.seed}: {look.text}" if len(self.runs) > 1 else look.text
            for run, look in zip(self.runs, self.looks, strict=True)
            if look.text
        ]
        return "; ".join(texts)


def planned_runs(
    point: Point,
    root: pathlib.Path,
    seeds: int,
    evaluate: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> tuple[Planned, ...]:
    """Returns the runs of a cell, one per seed from 0 on; none for a method that tfvamp does not have.

    Args:
      point: content of the cell.
      root: folder of the runs.
      seeds: number of seeds.
      evaluate: settings of the evaluation, as from `paper.evaluation`; None for runs that need none.
      settings: settings that differ from the defaults, such as where the data are.

    Raises:
      UsageError: a setting belongs to the cell, or has a value that it cannot have.
    """
    if point.model is None:
        return ()
    if own := sorted(set(settings) & set(OF_A_CELL)):
        raise UsageError(f"{own[0]} is given by the cells of the table: leave it out of the settings")
    spec, runs = CATALOG[point.dataset], []
    for seed in range(seeds):
        chosen = {
            "dataset": point.dataset,
            "model": point.model,
            "prior": point.prior,
            "components": point.components,
            "objective": point.objective,
            "seed": seed,
        }
        config = TrainConfig(**{**settings, **chosen}).resolve(spec)
        building.check_fit(config)
        name = name_of(point, seed)
        runs.append(Planned(name, root / name, chosen, config, evaluate))
    return tuple(runs)


def name_of(point: Point, seed: int) -> str:
    """Returns the name of the folder of a run; tables and figures that need the same run share it.

    >>> name_of(Point("static_mnist", "", None, "hvae", "vamp", 10, "iwae"), 1)
    'static_mnist-hvae-vamp-k10-iwae-seed1'
    """
    parts = [point.dataset, str(point.model), str(point.prior)]
    if point.components not in (None, CATALOG[point.dataset].num_components):
        parts.append(f"k{point.components}")
    if point.objective != "elbo":
        parts.append(point.objective)
    return "-".join([*parts, f"seed{seed}"])


def cells_of(
    points: Sequence[Point],
    root: str | os.PathLike,
    seeds: int,
    evaluate: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    archive: str | os.PathLike | None = None,
) -> list[Cell]:
    """Returns the cells of some points, and how far their runs are; arguments as for `planned_runs` and `look`."""
    place = expanded(root)
    kept = None if archive is None else expanded(archive)
    cells = []
    for point in points:
        runs = planned_runs(point, place, seeds, evaluate, settings)
        cells.append(Cell(point, runs, tuple(look(run, kept) for run in runs)))
    return cells


def look(run: Planned, archive: pathlib.Path | None = None) -> Look:
    """Returns how far a run is, and its numbers if it is finished and was to be evaluated.

    Args:
      run: the run.
      archive: folder with the entries of finished runs, which are used if there is no run folder.
    """
    try:
        state = run.state()
        if state == "missing":
            path = None if archive is None else archive / f"{run.name}.json"
            if path is None or run.evaluate is None or not os.path.lexists(path):
                return Look("missing", "not run")
            return _evaluated(result_of(read_entry(path), shown(path)), run.evaluate)
        if state == "unfinished":
            return Look("unfinished", f"epoch {run.progress().epochs}")
        if run.evaluate is None:
            return Look("finished", "")
        opened = Run(run.path)
        evaluation = opened.evaluation()
        if evaluation is None or not evaluation["current"]:
            return Look("trained", "trained, not evaluated yet")
        return _evaluated(result_of(entry(opened, evaluation), str(opened)), run.evaluate)
    except TfvampError as error:
        return Look("damaged", f"not usable: {printable(str(error))[:LONGEST_TEXT]}")


def _evaluated(result: Result, wanted: Mapping[str, Any]) -> Look:
    """Returns the look of an evaluated run; if the encoder's numbers are enough, so is any evaluation of that many samples."""
    samples = wanted["samples"]
    if result.samples == samples or (wanted.get("proposal") == "encoder" and result.samples > samples):
        return Look("finished", "", result)
    return Look("trained", f"evaluated with S = {result.samples}, not {samples}")


def keep(cells: Sequence[Cell], archive: str | os.PathLike) -> list[pathlib.Path]:
    """Writes the entry of each finished run that has a folder, one JSON file per run; returns the paths of new ones.

    Raises:
      FileError: a file cannot be written.
    """
    place, written = expanded(archive), []
    for cell in cells:
        for run, of_run in zip(cell.runs, cell.looks, strict=True):
            path = place / f"{run.name}.json"
            if of_run.result is None or not run.path.is_dir():
                continue
            opened = Run(run.path)
            evaluation = opened.evaluation()
            if evaluation is None:
                raise RunError(f"the evaluation of {opened} was removed meanwhile")
            contents = _json_bytes(entry(opened, evaluation))
            if not path.is_file() or files.read_bytes(path, LARGEST_ENTRY) != contents:
                files.replace_file(path, contents)
                written.append(path)
    return written


def _json_bytes(kept: dict[str, Any]) -> bytes:
    """Returns an entry as the contents of a file: one line per part, because some have a number for each image."""
    parts = (f"{json.dumps(name)}: {json.dumps(part, allow_nan=False)}" for name, part in kept.items())
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def command_of(run: Planned, of_run: Look, config_file: str | None = None) -> str:
    """Returns the commands that finish a run, for a shell; empty if nothing is left to do.

    Args:
      run: the run to finish.
      of_run: how far it is.
      config_file: file with the settings that differ from the defaults.
    """
    evaluate = []
    if run.evaluate is not None:
        options = "".join(f" --{name} {value}" for name, value in run.evaluate.items())
        evaluate = [f"tfvamp evaluate {shown(run.path)}{options}"]
    if of_run.state == "unfinished":
        return " && ".join([f"tfvamp train --resume {shown(run.path)}", *evaluate])
    if of_run.state == "trained":
        return "".join(evaluate)
    if of_run.state != "missing":
        return ""
    words = ["tfvamp", "train", *([] if config_file is None else ["--config", config_file])]
    unset = dataclasses.asdict(TrainConfig())
    for name in (*OF_A_CELL, "data_dir", "raw_dir", "device"):
        value = run.values[name] if name in run.values else getattr(run.config, name)
        if value is not None and (value != unset[name] or name in ("dataset", "model", "prior", "seed")):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return " && ".join([shlex.join([*words, "--run-dir", str(run.path)]), *evaluate])
