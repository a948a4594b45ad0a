"""The file of a sweep: settings of all runs, settings that vary, how many runs, how they are evaluated."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from tfvamp.config import LARGEST_SEED, LARGEST_TOML, SPLITS, Estimation, TrainConfig
from tfvamp.config import fields as fields_of
from tfvamp.errors import UsageError, check_choice
from tfvamp.files import expanded, read_bytes, shown

LARGEST_SWEEP = 10_000  # maximum number of runs
KINDS = ("grid", "random")
KEYS = ("run_dir", "kind", "runs", "seed", "preset", "settings", "cases", "vary", "evaluate")
CASE_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,59}", re.ASCII)
OF_EVALUATION = ("limit", "split")  # what [evaluate] may have besides the settings of an estimate


@dataclasses.dataclass(frozen=True)
class Between:
    """Numbers between two bounds, from which a random sweep or a search draws.

    Attributes:
      low, high: the bounds; if both are integers, so are the numbers.
      log: whether to draw their logarithm uniformly.
    """

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> float:
        """Returns the number at a share in [0, 1) of the way."""
        top = self.high + 1 if self.whole else self.high
        ratio = math.exp(share * math.log(top / self.low)) if self.log else None
        value = self.low + share * (top - self.low) if ratio is None else self.low * ratio
        return min(math.floor(value), self.high) if self.whole else value


@dataclasses.dataclass(frozen=True)
class Spec:
    """The specification of a sweep.

    Attributes:
      run_dir: folder of its run folders.
      settings: settings of all runs, by their names in `TrainConfig`.
      vary: the values of each setting that varies, or what they lie between.
      kind: "grid" (all combinations) or "random".
      runs: number of runs of a random sweep.
      seed: seed of the random choice, and of a search.
      preset: the preset that the settings change.
      evaluate: settings of an evaluation after each training; None for no evaluation.
      cases: sets of settings by their names, each of which is run with every combination; empty if
        there are none.
    """

    run_dir: pathlib.Path
    settings: Mapping[str, Any]
    vary: Mapping[str, Sequence[Any] | Between]
    kind: str = "grid"
    runs: int = 20
    seed: int = 0
    preset: str | None = None
    evaluate: Mapping[str, Any] | None = None
    cases: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yields the values of the varying settings of each run, and the name of its "case", without repetition."""
        if self.kind == "grid":
            lists = self._cases() | {name: self._listed(name, of) for name, of in self.vary.items()}
            found = (dict(zip(lists, chosen, strict=True)) for chosen in itertools.product(*lists.values()))
        else:
            choose = random.Random(self.seed)
            found = (
                {name: self._drawn(of, choose) for name, of in self.vary.items()} for _ in range(self.runs)
            )
        seen = set()
        for combination in found:
            if (key := repr(combination)) not in seen:
                seen.add(key)
                yield combination

    def extremes(self) -> Iterator[dict[str, Any]]:
        """Yields all combinations of the lists, each with all numbers at their low and at their high ends."""
        lists = self._cases() | {name: of for name, of in self.vary.items() if not isinstance(of, Between)}
        if (
            math.prod(map(len, lists.values())) > LARGEST_SWEEP
        ):  # too many to check all: the lists are represented by their first values
            lists = {name: of[:1] for name, of in lists.items()}
        for chosen in itertools.product(*lists.values()):
            for share in (0.0, 1.0 - 2**-53):
                ends = {name: of.at(share) for name, of in self.vary.items() if isinstance(of, Between)}
                yield {**dict(zip(lists, chosen, strict=True)), **ends}

    def _cases(self) -> dict[str, Sequence[Any]]:
        return {"case": list(self.cases)} if self.cases else {}

    @staticmethod
    def _listed(name: str, of: Sequence[Any] | Between) -> Sequence[Any]:
        if isinstance(of, Between):
            raise UsageError(
                f'{name} lies between bounds: give a list, or set kind = "random", or use --search'
            )
        return of

    @staticmethod
    def _drawn(of: Sequence[Any] | Between, choose: random.Random) -> Any:
        share = choose.random()
        return of.at(share) if isinstance(of, Between) else of[int(share * len(of))]

    def config(self, combination: Mapping[str, Any]) -> TrainConfig:
        """Returns the settings of the run with these values.

        Raises:
          UsageError: the setting cannot have a value.
        """
        values = dict(combination)
        case = self.cases.get(values.pop("case", ""), {})
        try:
            return TrainConfig.from_preset(self.preset, **{**self.settings, **case, **values})
        except UsageError as error:
            text = ", ".join(f"{name} = {value!r}" for name, value in combination.items())
            raise UsageError(f"the run with {text}: {error}" if text else str(error)) from error


def read(path: str | os.PathLike, run_dir: str | os.PathLike | None = None) -> Spec:
    """Reads and checks the TOML file of a sweep.

    Args:
      path: the file; docs/sweeps.md describes it.
      run_dir: folder of the runs, instead of the one in the file.

    Raises:
      FileError: the file cannot be read.
      UsageError: the file is not TOML, or has an unknown key or a value that a setting cannot have.
    """
    file = expanded(path)
    try:
        document = tomllib.loads(read_bytes(file, LARGEST_TOML).decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{shown(file)} is not TOML: {' '.join(str(error).split())}") from error
    try:
        spec = _checked(document, run_dir, pathlib.Path("runs", file.stem))
        for combination in spec.extremes():
            spec.config(combination)
        if spec.kind == "random" or not any(isinstance(of, Between) for of in spec.vary.values()):
            for combination in spec.combinations():
                spec.config(combination)
    except UsageError as error:
        raise UsageError(f"{shown(file)}: {error}") from error
    return spec


def _checked(document: dict[str, Any], run_dir: str | os.PathLike | None, default: pathlib.Path) -> Spec:
    """Returns the sweep of a file; `run_dir` replaces the file's, and `default` is used if there is neither."""
    for name in document:
        check_choice("key of a sweep", name, KEYS)
    chosen: dict[str, Any] = {
        "run_dir": document.get("run_dir", default),
        "kind": "grid",
        "runs": 20,
        "seed": 0,
    }
    chosen |= {name: document[name] for name in ("kind", "runs", "seed", "preset") if name in document}
    for name, kind in (
        ("run_dir", (str, os.PathLike)),
        ("kind", str),
        ("preset", str),
        ("runs", int),
        ("seed", int),
    ):
        if name in chosen and (not isinstance(chosen[name], kind) or isinstance(chosen[name], bool)):
            raise UsageError(
                f"{name} must be {'a whole number' if kind is int else 'a text'}; got {chosen[name]!r}"
            )
    check_choice("kind", chosen["kind"], KINDS)
    if not 1 <= chosen["runs"] <= LARGEST_SWEEP:
        raise UsageError(f"runs must lie between 1 and {LARGEST_SWEEP}; got {chosen['runs']}")
    if not 0 <= chosen["seed"] <= LARGEST_SEED:
        raise UsageError(f"seed must lie between 0 and {LARGEST_SEED}; got {chosen['seed']}")
    if "runs" in document and chosen["kind"] == "grid":
        raise UsageError('runs goes with kind = "random": a grid has as many runs as combinations')
    settings, vary = _table(document, "settings"), _table(document, "vary")
    names = [field.name for field, _ in fields_of()]
    for name in (*settings, *vary):
        check_choice("setting", name, names)
    cases = _cases(document)
    for name in (name for of in cases.values() for name in of):
        check_choice("setting", name, names)
    for place, of in (("settings", settings), *((f"cases.{name}", of) for name, of in cases.items())):
        if both := [name for name in vary if name in of]:
            raise UsageError(f"{both[0]} stands both in [{place}] and in [vary]")
    if not vary and not cases:
        raise UsageError("[vary] names no setting: a single run is trained by tfvamp train")
    if cases and chosen["kind"] != "grid":
        raise UsageError('[cases] go with kind = "grid"')
    varying = {name: _values(name, of) for name, of in vary.items()}
    if chosen["kind"] == "grid":
        count = max(1, len(cases)) * math.prod(
            len(of) for of in varying.values() if not isinstance(of, Between)
        )
        if count > LARGEST_SWEEP:
            raise UsageError(f"the grid has {count} runs; at most {LARGEST_SWEEP} are allowed")
    chosen["run_dir"] = expanded(chosen["run_dir"] if run_dir is None else run_dir)
    return Spec(**chosen, settings=settings, vary=varying, evaluate=_evaluation(document), cases=cases)


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{name} must be a table: [{name}]")
    return table


def _cases(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the settings of each case."""
    cases = _table(document, "cases")
    for name, of in cases.items():
        if not CASE_NAME.fullmatch(name):
            raise UsageError(
                f"the name of a case must have at most 60 letters, digits, and . + - _; got {name[:80]!r}"
            )
        if not isinstance(of, dict):
            raise UsageError(f"a case must be a table of settings: [cases.{name}]")
        for inner in (key for key, value in of.items() if isinstance(value, dict)):
            if inner != "optimizer_arguments":
                raise UsageError(
                    f'a case whose name has a dot needs quotation marks: [cases."{name}.{inner}"]'
                )
    return cases


def _values(name: str, of: Any) -> Sequence[Any] | Between:
    """Returns the values of a setting: a list, or a table with low and high."""
    if isinstance(of, list):
        if not of:
            raise UsageError(f"{name} has no values")
        if len({repr(value) for value in of}) < len(of):
            raise UsageError(f"{name} has a value twice: {of!r}")
        return of
    if not isinstance(of, dict):
        raise UsageError(f"{name} must be a list of values, or {{low = ..., high = ...}}; got {of!r}")
    for key in of:
        check_choice(f"key of {name}", key, ("low", "high", "log"))
    low, high, log = of.get("low"), of.get("high"), of.get("log", False)
    if not (_is_number(low) and _is_number(high) and isinstance(log, bool)):
        raise UsageError(f"{name} needs the numbers low and high, and log is true or false; got {of!r}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high and (low > 0 or not log)):
        raise UsageError(f"{name} needs low < high, finite, and above 0 where log is true; got {of!r}")
    return Between(low, high, log)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _evaluation(document: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the settings under [evaluate], checked; None if there is no such table."""
    if "evaluate" not in document:
        return None
    table = _table(document, "evaluate")
    names = [field.name for field, _ in fields_of(Estimation)]
    for name in table:
        check_choice("setting of an evaluation", name, [*names, *OF_EVALUATION])
    given = {name: value for name, value in table.items() if name in names}
    Estimation(**given).check_effect(given)
    if table.get("estimator") == "bdmc" and "split" in table:
        raise UsageError("split has no effect on bdmc, whose images the model makes")
    limit, split = table.get("limit", 1), table.get("split", "test")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise UsageError(f"limit must be a whole number of at least 1; got {limit!r}")
    if not isinstance(split, str):
        raise UsageError(f"split must be a text; got {split!r}")
    check_choice("split", split, SPLITS)
    return table
