"""Comparison of runs: the settings that differ, the results, and paired differences of the log-likelihood."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfvamp.config import DENSITIES, TrainConfig
from tfvamp.errors import RunError, check_choice
from tfvamp.runs import history
from tfvamp.runs.run import Run, paths_of, table_of

# Settings of where and on what a run was computed; no result depends on them.
PLACES = ("data_dir", "raw_dir", "device", "checkpoint_minutes")
# Two estimates can be compared, image by image, if these are equal.
ALIKE = (
    "split",
    "estimator",
    "proposal",
    "num_samples",
    "num_examples",
    "sources",
    "images_sha256",
    "settings",
)
SPREAD = (
    "bound",
    "log_likelihood",
    "encoder",
    "difference",
    "encoder_difference",
)  # reported with their spread over runs
RESULTS = (
    "log_likelihood", "log_likelihood_spread", "standard_error", "monte_carlo_error", "difference", "difference_spread",
    "difference_error", "encoder", "encoder_spread", "encoder_difference", "encoder_difference_spread",
    "encoder_difference_error",
)  # fmt: skip
ENCODER = "encoder_log_likelihood"  # the array of the encoder's own estimate, stored beside a closer one


class Estimate(NamedTuple):
    """The newest result of an evaluation of a split.

    Attributes:
      of: how it was made, and on which images.
      values: log-likelihood of each image for each proposal, [N] each, in nats.
      monte_carlo_error: error of the mean of the first of these.
      density: kind of the prior's log-density, "bound" or "estimate"; None if it is exact.
    """

    of: dict[str, Any]
    values: dict[str, np.ndarray]
    monte_carlo_error: float | None
    density: str | None


def compare(
    pattern: str | os.PathLike | Sequence[str | os.PathLike],
    baseline: str | os.PathLike | None = None,
    split: str = "test",
    over: str | None = None,
    say: Callable[[str], None] = lambda text: None,
):
    """Returns a table of runs: the settings that differ, the results, and the paired differences to one of them.

    A paired difference is the mean over images of the difference of two log-likelihoods. Its error
    is the standard deviation of these differences divided by the square root of their number.
    Because the images are the same, it does not matter that some images are harder than others.

    Args:
      pattern: the runs, as for `find_runs`.
      baseline: the run that the others are compared with; None for the first one.
      split: split of the evaluations.
      over: a setting, such as "seed". Runs that differ only in this setting become one row, with
        the means of their results and, in `..._spread`, the standard deviations over them. Each of
        these runs is compared with the run that has the baseline's settings but the same value of
        `over`.
      say: a function that gets one line of text for a run that has no estimate, or one that cannot
        be compared.

    Returns:
      as `Run.history`, with one row per run and these columns: `run`; each setting that differs;
      `trained_epochs`, `best_epoch`, and `bound`, the validation bound that chose it; `images`,
      `log_likelihood` (nats per image), its `standard_error` (over images) and `monte_carlo_error`;
      `difference` and `difference_error` to the baseline. If the proposals of the estimate are not
      the encoder's, `encoder`, `encoder_difference` and `encoder_difference_error` give the same
      for the encoder's own.

    Raises:
      RunError: no run matches, or one cannot be read.
      UsageError: `over` is not a setting.
    """
    runs = [Run(path) for path in paths_of(pattern)]
    if not runs:
        raise RunError("none of these is a run folder")
    first = runs[0] if baseline is None else Run(baseline)
    if first.path.resolve() not in {run.path.resolve() for run in runs}:
        runs.insert(0, first)
    estimates = {run: _estimate(run, split, say) for run in runs}
    base = estimates[next(run for run in runs if run.path.resolve() == first.path.resolve())]
    if base is None and any(estimates.values()):
        say(f"{first} has no current estimate: there are no differences to it")
    differing = _differing(runs)
    bases = dict.fromkeys(runs, base)
    if over is not None:
        check_choice("setting", over, list(TrainConfig().to_dict()))
        bases = {run: estimates[_alike(runs, first, run, over, say)] for run in runs}
    rows = [_row(run, differing, estimates[run], bases[run], say) for run in runs]
    if over is not None:
        rows = _averaged(rows, differing, over)
    return table_of(_without_empty(rows))


def _differing(runs: Sequence[Run]) -> list[str]:
    """Returns the settings in which some of the runs differ."""
    settings = [run.config.to_dict() for run in runs]
    return [
        name
        for name in TrainConfig().to_dict()
        if name not in PLACES and any(one[name] != settings[0][name] for one in settings)
    ]


def _alike(
    runs: Sequence[Run], baseline: Run, run: Run, over: str, say: Callable[[str], None] = lambda text: None
) -> Run:
    """Returns the run with the baseline's settings but the `over` of `run`, or the baseline if there is none."""
    wanted = baseline.config.to_dict() | {over: getattr(run.config, over)}
    wanted = {name: value for name, value in wanted.items() if name not in PLACES}
    found = next((one for one in runs if wanted.items() <= one.config.to_dict().items()), None)
    if found is None:
        say(f"{run} is compared with {baseline}, whose settings no run has with {over} = {wanted[over]}")
    return baseline if found is None else found


def _estimate(run: Run, split: str, say: Callable[[str], None]) -> Estimate | None:
    """Returns the newest evaluation of a split; None if there is none of the weights that the run has now."""
    result = run.evaluation(split)
    if result is None or not result["current"]:
        say(f"{run} is not evaluated on {split}: tfvamp evaluate {run} comes first")
        return None
    arrays = run.evaluated_arrays(split) or {}
    names = [name for name in ("log_likelihood", ENCODER) if name in arrays]
    values = {name: arrays[name] for name in names}
    shapes = {value.shape for value in values.values()}
    finite = all(value.dtype.kind == "f" and np.isfinite(value).all() for value in values.values())
    if "log_likelihood" not in values or shapes != {(result.get("num_examples"),)} or not finite:
        raise RunError(f"the evaluation of {run} is damaged: evaluate it again with tfvamp evaluate {run}")
    of = {name: result.get(name) for name in ALIKE}
    error = result.get("monte_carlo_error")
    density = next((name for name in DENSITIES[1:] if result.get("prior_density") == name), None)
    return Estimate(of, values, float(error) if isinstance(error, (int, float)) else None, density)


def _row(
    run: Run,
    differing: list[str],
    estimate: Estimate | None,
    base: Estimate | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    rows = run.rows(say)
    best = history.best_of(rows, run.config.beta)
    row: dict[str, Any] = {"run": str(run.path)}
    row |= {name: getattr(run.config, name) for name in differing}
    row["trained_epochs"] = len(rows)
    row["best_epoch"] = None if best is None else best["epoch"]
    row["bound"] = None if best is None else history.bound(best, run.config.beta)
    if estimate is None:
        return row
    values = estimate.values["log_likelihood"]
    row["images"], row["prior_density"] = len(values), estimate.density
    row["log_likelihood"] = float(values.mean())
    row["standard_error"] = _error(values)
    row["monte_carlo_error"] = estimate.monte_carlo_error
    if ENCODER in estimate.values:
        row["encoder"] = float(estimate.values[ENCODER].mean())
    if base is None or base is estimate:
        return row
    for name, value in estimate.of.items():
        if value != base.of[name]:
            unknown = None in (value, base.of[name])
            reason = "was not recorded for both: evaluate them again" if unknown else "differs"
            what = f"its {name.replace('_', ' ')} {reason}"
            say(f"{run} does not compare with the baseline image by image: {what}")
            return row
    for prefix, name in (("", "log_likelihood"), ("encoder_", ENCODER)):
        if name in estimate.values and name in base.values:
            difference = estimate.values[name] - base.values[name]
            row[f"{prefix}difference"] = float(difference.mean())
            row[f"{prefix}difference_error"] = _error(difference)
    return row


def _error(values: np.ndarray) -> float:
    """Returns the standard error of a mean; NaN for one value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _averaged(rows: list[dict[str, Any]], differing: list[str], over: str) -> list[dict[str, Any]]:
    """Returns one row for all runs that differ in only one setting: the means of their results."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in differing if name != over)
        groups.setdefault(key, []).append(row)
    averaged = []
    for group in groups.values():
        row = {"run": group[0]["run"], "runs": len(group)}
        row |= {name: group[0][name] for name in differing if name != over}
        row["prior_density"] = group[0].get("prior_density")
        for name in ("best_epoch", "bound", "images", *RESULTS):
            values = [one[name] for one in group if one.get(name) is not None]
            if len(values) == len(group):
                row[name] = float(np.mean(values))
                if name in SPREAD and len(values) > 1:
                    row[f"{name}_spread"] = float(np.std(values, ddof=1))
        averaged.append(row)
    return averaged


def _without_empty(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows with the same columns in the same order, without those that are empty in all rows."""
    order = (
        "run",
        "runs",
        *TrainConfig().to_dict(),
        "trained_epochs",
        "best_epoch",
        "bound",
        "bound_spread",
        "images",
        "prior_density",
        *RESULTS,
    )
    names = {name for row in rows for name in row if row[name] is not None}
    columns = sorted(names, key=lambda name: order.index(name))
    return [{name: row.get(name) for name in columns} for row in rows]
