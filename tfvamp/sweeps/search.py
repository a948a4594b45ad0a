"""The values that a search tries next: Optuna's choice, from the runs so far."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfvamp.errors import UsageError
from tfvamp.files import shown
from tfvamp.sweeps.spec import Between, Spec

STUDY = "study.log"  # Optuna's study, in the folder of the runs
FIRST_TRIALS = 5  # drawn at random; no run is compared with them before they end
FIRST_EPOCHS = 10  # in which no run is given up


class Search:
    """A study of Optuna that continues where it stopped.

    Args:
      spec: specification of the sweep; its lists are choices, its bounds are ranges.
      trials: number of runs.

    Raises:
      UsageError: Optuna is not installed, or the study in the folder is of other settings.
    """

    def __init__(self, spec: Spec, trials: int):
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise UsageError("--search needs Optuna: pip install 'tfvamp[tune]'") from error
        if spec.cases:
            raise UsageError("a search chooses values itself: leave out the cases")
        if "seed" in spec.vary:
            raise UsageError(
                "a search chooses the best run, and a seed is no choice: leave seed out of [vary]"
            )
        self._optuna, self._trials, self._failed = optuna, trials, 0
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        spec.run_dir.mkdir(parents=True, exist_ok=True)
        path = spec.run_dir / STUDY
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise UsageError(f"{shown(path)} is not a file of a search: remove it")
        backend = JournalFileBackend(str(path))
        self._distributions = {name: self._distribution(name, of) for name, of in spec.vary.items()}
        try:
            storage = optuna.storages.JournalStorage(backend)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise UsageError(
                f"{shown(path)} is damaged ({type(error).__name__}): remove it, and the search begins again"
            ) from error
        self._study = optuna.create_study(
            storage=storage,
            study_name="sweep",
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(FIRST_TRIALS, FIRST_EPOCHS),
        )
        begun = len(self._study.get_trials(deepcopy=False))
        # Another seed after each stop, because the same one would draw the first trials again.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=spec.seed + begun, n_startup_trials=FIRST_TRIALS
        )
        self._check(spec.run_dir / STUDY)
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == optuna.trial.TrialState.RUNNING:  # of a sweep that was stopped
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                self._study.enqueue_trial(trial.params)

    def _check(self, path: pathlib.Path) -> None:
        known = {name: repr(one) for name, one in self._distributions.items()}
        for trial in self._study.get_trials(deepcopy=False):
            if trial.params and {name: repr(one) for name, one in trial.distributions.items()} != known:
                raise UsageError(f"{path} is the study of other settings: choose another run_dir")

    def _distribution(self, name: str, of: Sequence[Any] | Between) -> Any:
        distributions = self._optuna.distributions
        if not isinstance(of, Between):
            if any(isinstance(value, (list, dict)) for value in of):
                raise UsageError(f"a search takes texts, numbers, true and false; {name} has {of!r}")
            return distributions.CategoricalDistribution(tuple(of))
        if of.whole:
            return distributions.IntDistribution(int(of.low), int(of.high), log=of.log)
        return distributions.FloatDistribution(of.low, of.high, log=of.log)

    @property
    def left(self) -> int:
        """The number of runs that have not begun yet."""
        states = self._optuna.trial.TrialState
        counted = (states.COMPLETE, states.PRUNED, states.RUNNING)
        return self._trials - self._failed - len(self._study.get_trials(deepcopy=False, states=counted))

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Returns the next trial, and its values of the settings that vary."""
        trial = self._study.ask(self._distributions)
        return trial, dict(trial.params)

    def is_hopeless(self, trial: Any, bounds: Mapping[int, float]) -> bool:
        """Records the best validation bound up to some epochs; returns whether it is below the others' median."""
        for epoch, bound in bounds.items():
            trial.report(bound, epoch)
            if trial.should_prune():
                return True
        return False

    def finish(self, trial: Any, bound: float | None, given_up: bool) -> None:
        """Records how a trial ended: its best validation bound, or None if it failed."""
        states = self._optuna.trial.TrialState
        if given_up:
            self._study.tell(trial, state=states.PRUNED)
        elif bound is None:
            self._failed += 1
            self._study.tell(trial, state=states.FAIL)
        else:
            self._study.tell(trial, bound)

    def best(self) -> dict[str, Any] | None:
        """Returns the values of the best run; None if none has ended."""
        states = self._optuna.trial.TrialState
        if not self._study.get_trials(deepcopy=False, states=(states.COMPLETE,)):
            return None
        return dict(self._study.best_params)
