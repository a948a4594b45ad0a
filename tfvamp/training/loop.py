"""The training loop: epochs of `train_step`, validation, the stopping rule, and the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import pathlib
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import rich.console

from tfvamp import datasets, devices, files
from tfvamp.catalog import CATALOG
from tfvamp.config import PIXELS, SPLITS, TrainConfig
from tfvamp.datasets import Dataset
from tfvamp.errors import FileError, RunError, TrainingError, UsageError
from tfvamp.files import counted, expanded, printable, shown
from tfvamp.models import LatentVariableModel
from tfvamp.networks.images import unchecked
from tfvamp.optimizers import averaged
from tfvamp.runs import Run, building, history, lock, weights
from tfvamp.runs.creating import check_free, creating
from tfvamp.runs.folder import RunFolder
from tfvamp.training import checkpoints, strategies
from tfvamp.training.checkpoints import Checkpoint
from tfvamp.training.early_stopping import EarlyStopping
from tfvamp.training.epoch import Begun, Diverged, epoch_of
from tfvamp.training.interrupts import Interrupts
from tfvamp.training.progress import Progress
from tfvamp.training.schedules import learning_rate
from tfvamp.training.steps import compile_model, steps_of, validated_at_once
from tfvamp.training.strategies import Agreement, Devices
from tfvamp.training.tensorboard import NUM_ENCODED, Summaries, is_pictured

JUMP = (
    100.0  # after the warm-up, a validation bound that falls by this many times its best value has diverged
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
      model: the model with the best epoch's weights; None if no epoch was finished.
      run_dir: the run folder.
      epochs: number of complete epochs in all.
      steps: number of steps of the next epoch that are also saved.
      best_epoch: the epoch whose weights were kept.
      best_bound: its validation bound (see `stop_by` of TrainConfig), in nats.
      signal: number of the signal that ended training (Ctrl-C: SIGINT); None if it ended by itself.
      old_run_kept: whether the training was to replace a run, and ended before its first epoch;
        `run_dir` is gone then.

    >>> config = TrainConfig(limit=40, epochs=1, components=5, latent_dims=2, hidden_units=8)
    >>> outcome = train(config, "runs/outcome")
    >>> outcome.epochs, outcome.best_epoch, outcome.interrupted
    (1, 1, False)
    """

    model: LatentVariableModel
    run_dir: pathlib.Path
    epochs: int
    best_epoch: int
    best_bound: float
    signal: int | None
    steps: int = 0
    old_run_kept: bool = False

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the training."""
        return self.signal is not None


def train(
    config: TrainConfig,
    run_dir: str | os.PathLike | None = None,
    overwrite: bool = False,
    console: rich.console.Console | None = None,
    events: Callable[[str], None] | None = None,
    on_start: Callable[[RunFolder], None] = lambda folder: None,
) -> Outcome:
    """Trains a model into a new run folder.

    Args:
      config: settings of the training.
      run_dir: the run folder, which is created; None for runs/DATASET-MODEL-PRIOR-TIME.
      overwrite: whether to replace an existing run folder, once the new run has finished an epoch.
      console: where progress is shown; None shows nothing.
      events: a function that gets a line of JSON for each event instead, as docs/training.md
        describes them.
      on_start: a function that gets the run folder when training starts.

    Raises:
      RunError, DataError, UsageError: the folder, the data or the settings do not allow it.
      TrainingError: the loss became NaN; the run folder keeps the weights from before.
    """
    if run_dir is not None:
        check_free(run_dir, overwrite)
    elif strategies.workers(config.strategy) > 1:
        raise UsageError(
            "several workers need the name of the run folder, which all of them see: name it with --run-dir"
        )
    progress = Progress(config.epochs, console, events)
    with devices.on(config.device, config.deterministic), contextlib.ExitStack() as stack:
        where = strategies.devices_of(config.strategy, progress.say)
        config, dataset = prepared(config, progress)
        strategies.check(config, dataset.train.num_examples, where)
        with where.scope():
            model = building.untrained(config, dataset)
        if where.chief:
            folder, place = stack.enter_context(creating(run_dir, config, dataset, overwrite))
            return _run(config, folder, place, dataset, model, where, progress, None, on_start)
        assert run_dir is not None
        # Nobody needs the files of workers other than the chief.
        scratch = stack.enter_context(_scratch_run())
        folder, place = stack.enter_context(creating(scratch, config, dataset, overwrite=False))
        with _named(scratch, expanded(run_dir)):
            outcome = _run(
                config,
                folder,
                place,
                dataset,
                model,
                where,
                Progress(config.epochs),
                None,
                lambda folder: None,
            )
        return dataclasses.replace(outcome, run_dir=expanded(run_dir))


@contextlib.contextmanager
def _scratch_run() -> Iterator[pathlib.Path]:
    """Yields the place of a run folder that is not kept."""
    with tempfile.TemporaryDirectory(prefix="tfvamp-worker-") as folder:
        yield pathlib.Path(folder) / "run"


@contextlib.contextmanager
def _named(copy: pathlib.Path, folder: pathlib.Path) -> Iterator[None]:
    """Makes errors within it name the run folder instead of its copy."""
    try:
        yield
    except (RunError, TrainingError) as error:
        raise type(error)(str(error).replace(shown(copy), shown(folder))) from error


def prepared(config: TrainConfig, progress: Progress) -> tuple[TrainConfig, Dataset]:
    """Returns the resolved settings of a new run, and its data; refuses beforehand what needs too much memory."""
    for text in config.without_effect():
        progress.say(f"warning: a setting has no effect: {text}")
    building.check_fit(config)
    shape, spec = building.known_shape(config), CATALOG.get(config.dataset)
    if spec is not None:
        count = min(spec.sizes[0], config.limit or spec.sizes[0])
        building.check_memory(config.resolve(spec), spec.shape, count)
    elif shape is not None:  # before the images are read
        likelihood = None if config.likelihood == "paper" else config.likelihood
        building.check_memory(dataclasses.replace(config, likelihood=likelihood), shape, 1)
    dataset = datasets.load(
        config.dataset,
        config.data_dir,
        config.raw_dir,
        config.limit,
        progress.say,
        progress=progress.on_terminal,
        **config.loading(),
    )
    if config.likelihood is None:
        progress.say(
            f"likelihood {dataset.spec.likelihood}, because the {PIXELS[dataset.spec.likelihood]} as they are trained on"
        )
    config = dataclasses.replace(
        building.resolve(config, dataset.spec),
        dataset=datasets.absolute(config.dataset),
        data_dir=_absolute(config.data_dir),
        raw_dir=_absolute(config.raw_dir),
    )
    building.check_pseudo_inputs(config, dataset.train.num_examples)
    if spec is None:
        building.check_memory(config, dataset.spec.shape, dataset.train.num_examples)
    return config, dataset


def resume(
    run: Run | str | os.PathLike,
    epochs: int | None = None,
    dataset: str | None = None,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    device: str | None = None,
    on_nan: str | None = None,
    strategy: str | None = None,
    restart: bool = False,
    console: rich.console.Console | None = None,
    events: Callable[[str], None] | None = None,
    on_start: Callable[[RunFolder], None] = lambda folder: None,
) -> Outcome:
    """Continues a run after the last step that is saved, as if it had not stopped.

    Args:
      run: the run, or its folder.
      epochs: a new maximum number of epochs; None keeps the run's.
      dataset, data_dir, raw_dir: where the data are, as for `Run.dataset`.
      device, on_nan, strategy: as in `TrainConfig`; None keeps the run's.
      restart: whether to start again from epoch 1 if no checkpoint can be read.
      console: where progress is shown; None shows nothing.
      events: a function that gets a line of JSON for each event instead, as docs/training.md
        describes them.
      on_start: a function that gets the run folder when training starts.

    Raises:
      RunError: there is no such run, another process is writing it, its data have changed, or it
        has no checkpoint that can be read.
      TrainingError: the loss became NaN.
    """
    folder = RunFolder(run.path if isinstance(run, Run) else run)
    folder.check_exists()
    changes = {"epochs": epochs, "device": device, "on_nan": on_nan, "strategy": strategy}
    places = {"dataset": dataset, "data_dir": data_dir, "raw_dir": raw_dir}
    try:
        several = bool(os.environ.get("TF_CONFIG"))
        if several and not strategies.is_chief(strategy or Run(folder.path).config.strategy):
            with _scratch_run() as copy:  # before the chief continues, which waits for this worker
                shutil.copytree(folder.path, copy, symlinks=True, ignore=_not_needed)
                with _named(copy, folder.path):
                    outcome = _resume(Run(copy), changes, places, restart, Progress, lambda folder: None)
                return dataclasses.replace(outcome, run_dir=folder.path)
        folder.sweep()
        with lock.writing(folder.path):
            # Opened under the lock: a run that was read before may have been trained further, or replaced.
            progress = functools.partial(Progress, console=console, events=events)
            return _resume(Run(folder.path), changes, places, restart, progress, on_start)
    except OSError as error:
        raise files.cannot_write(folder.path, error) from error
    finally:
        if isinstance(run, Run):
            run.forget()


def _not_needed(folder: str, names: list[str]) -> set[str]:
    """Returns the files of a run folder that workers other than the chief do not copy."""
    del folder
    return {
        name for name in names if name in ("lock", "tensorboard", "evaluations", "figures", "tensorflow.log")
    }


def _resume(
    run: Run, changes: dict[str, Any], places: dict[str, Any], restart: bool, progress_of, on_start
) -> Outcome:
    changes = {**changes, **_remembered(run, places)}
    chosen = {name: value for name, value in changes.items() if value is not None}
    if chosen.get("strategy", "one") != "one":
        chosen.setdefault("device", None)  # the run's own does not go with several
    config = dataclasses.replace(run.config, **chosen)
    if not run.document.own:  # what was not typed stays unknown, and is never signed
        config = dataclasses.replace(config, data_dir=changes["data_dir"], raw_dir=changes["raw_dir"])
    progress = progress_of(config.epochs)
    with devices.on(config.device, config.deterministic):
        where = strategies.devices_of(config.strategy, progress.say)
        strategies.check(config, run.spec.sizes[0], where)
        building.check_memory(config, run.spec.shape, run.spec.sizes[0])
        loaded = run.dataset(None, **places, say=progress.say)
        if not run.made_from(loaded):
            raise RunError(
                f"{run} was trained on other source files than {printable(loaded.spec.name)} is made from now"
            )
        building.check_pseudo_inputs(config, loaded.train.num_examples)
        with where.scope():
            model = building.untrained(config, loaded)
            compile_model(model, config)
        checkpoint = _checkpoint(run, model, restart, progress)
        if checkpoint is not None:
            if checkpoint.step > _steps(config, loaded):
                raise RunError(
                    f"the newest checkpoint of {run} is of other data: it is at step {checkpoint.step} of an epoch"
                )
            stopping = EarlyStopping(config.patience, config.warmup)
            stopping.restore(checkpoint.stopping)
            _repair(run.folder, checkpoint, progress)
            if checkpoint.epoch >= config.epochs or stopping.stop:
                return _outcome(model, run.folder, checkpoint.epoch, stopping, None)
        document = run.document
        before = {"command": document.command, "started": document.started, "versions": document.versions}
        run.folder.write_config(config, loaded, [*document.resumed_from, before])
        return _run(config, run.folder, None, loaded, model, where, progress, checkpoint, on_start)


def _remembered(run: Run, places: dict[str, Any]) -> dict[str, str | None]:
    """Returns the places that were typed, in a form that is valid in any folder."""
    dataset, data_dir, raw_dir = places["dataset"], places["data_dir"], places["raw_dir"]
    return {
        "dataset": None if dataset is None else datasets.absolute(dataset),
        "data_dir": None if data_dir is None else _absolute(os.fspath(data_dir)),
        "raw_dir": None if raw_dir is None else _absolute(os.fspath(raw_dir)),
    }


def _checkpoint(run: Run, model: LatentVariableModel, restart: bool, progress: Progress) -> Checkpoint | None:
    """Returns the newest checkpoint of a run that can be read; None to start from epoch 1."""
    folder, shapes = run.folder, [tuple(one.shape) for one in checkpoints.variables(model)]
    try:
        checkpoint = checkpoints.newest(
            folder.checkpoints,
            shapes,
            weights.largest(model.weights),
            progress.say,
            len(model.metrics_variables),
        )
    except RunError:
        if not restart:
            raise
        checkpoint = None
    if checkpoint is not None or restart or _stopped_in_the_first_epoch(run):
        return checkpoint
    rows, _ = history.read(folder.history_file)
    raise RunError(
        f"{run} has no checkpoint (of this version of tfvamp), but a history of {counted(len(rows), 'epoch')}: put its folder "
        "checkpoints back, or start again from epoch 1 with --restart, which replaces its history and its best weights"
    )


def _stopped_in_the_first_epoch(run: Run) -> bool:
    """Returns whether a run has no checkpoint because its first epoch was not finished."""
    if os.path.lexists(run.folder.history_file):
        return False
    try:
        return not run.folder.best_weights.exists() or run.weights_epoch == 1
    except RunError:  # damaged weights
        return False


def _repair(folder: RunFolder, checkpoint: Checkpoint, progress: Progress) -> None:
    """Writes the history and the best weights as they are in the checkpoint, if they differ."""
    wanted = {}
    if checkpoint.rows:
        wanted[folder.history_file] = history.to_text(checkpoint.rows).encode()
    if checkpoint.best_weights:
        wanted[folder.best_weights] = checkpoint.best_weights
    for path, contents in wanted.items():
        try:
            same = files.read_bytes(path, len(contents)) == contents
        except FileError:
            same = False
        if not same:
            progress.say(f"{shown(path)} is restored as it was after epoch {checkpoint.epoch}")
            files.replace_file(path, contents)


def _run(
    config: TrainConfig,
    folder: RunFolder,
    place: Callable[[], RunFolder] | None,
    dataset: Dataset,
    model: LatentVariableModel,
    where: Devices,
    progress: Progress,
    checkpoint: Checkpoint | None,
    on_start: Callable[[RunFolder], None],
) -> Outcome:
    """Trains from a checkpoint, or from epoch 1; `place` moves the folder once the first epoch is written."""
    with where.scope():
        compile_model(model, config)
    stopping = EarlyStopping(config.patience, config.warmup)
    rows: list[dict[str, float]] = []
    best_weights, begun = b"", Begun()
    if checkpoint is not None:
        checkpoints.restore(checkpoint, model, stopping)
        rows, best_weights = list(checkpoint.rows), checkpoint.best_weights
        begun = Begun(checkpoint.step, checkpoint.seconds, checkpoint.skipped)
    _announce(config, dataset, progress)
    at_once = validated_at_once(model, config.validation_samples)
    validation = dataset.validation.images.batch(at_once).prefetch(1)
    per_epoch, number = _steps(config, dataset), None
    on_start(folder)
    with unchecked(), progress, Interrupts() as interrupts:  # the data were checked when they were prepared
        saved = time.monotonic()

        def is_due() -> bool:
            minutes = (time.monotonic() - saved) / 60.0
            return 0.0 < config.checkpoint_minutes < minutes

        agreement = Agreement(lambda: interrupts.number is not None, is_due)
        steps = steps_of(model, config, where, agreement, functools.cache(progress.say))

        def stopped() -> bool:
            """Returns whether training ends here; on several machines, only when all of them know it."""
            return agreement.stopping if where.strategy is not None else interrupts.number is not None

        def pause(done: Callable[[], Begun]) -> None:
            """Saves the state within an epoch when that is due, and before an interrupt."""
            nonlocal begun, saved
            due = agreement.due if where.strategy is not None else is_due()
            if due or stopped():
                now = done()  # on all machines at the same step, since it reads what they hold together
                if place is None:
                    checkpoints.save(
                        folder.checkpoints,
                        now.state,
                        stopping,
                        rows,
                        best_weights,
                        now.step,
                        now.seconds,
                        now.skipped,
                    )
                    begun = now
                saved = time.monotonic()
            if stopped():
                raise KeyboardInterrupt

        progress.start(len(rows), begun.step, per_epoch, dataset.train.num_examples)
        try:
            if checkpoint is None:
                _remove_files(folder)
            summaries = Summaries(folder.tensorboard, rows, config)
            batches = iter(
                dataset.training_batches(
                    config.batch_size,
                    config.seed,
                    len(rows) + 1,
                    begun.step,
                    model.prior.uses_indices,
                    config.epochs - len(rows),
                )
            )
            while len(rows) < config.epochs and not stopping.stop:
                if stopped():
                    raise KeyboardInterrupt
                row = epoch_of(
                    len(rows) + 1,
                    config,
                    model,
                    steps.elbo if len(rows) < config.elbo_epochs else steps.train,
                    steps.test,
                    itertools.islice(batches, per_epoch - begun.step),
                    validation,
                    learning_rate(config, rows),
                    begun,
                    progress,
                    pause,
                )
                begun = Begun()
                bound = history.bound(row, config.beta)
                _check_bound(bound, stopping.best, len(rows) + 1, config.warmup)
                best = stopping.update(len(rows) + 1, bound)
                if not folder.config_file.is_file():
                    raise RunError(f"the run folder {folder} was removed while it was trained")
                if best:
                    with averaged(model):
                        best_weights = weights.to_bytes(model, len(rows) + 1)
                    files.replace_file(folder.best_weights, best_weights)
                summaries.write(row)
                if is_pictured(len(rows) + 1):
                    images = next(iter(dataset.validation.images.batch(NUM_ENCODED))).numpy()
                    with averaged(model):
                        summaries.picture(model, images, len(rows) + 1)
                state = checkpoints.state(model)
                checkpoints.save(folder.checkpoints, state, stopping, [*rows, row], best_weights)
                rows.append(row)
                saved = time.monotonic()
                files.append(folder.history_file, history.to_text([row], header=len(rows) == 1))
                if place is not None:
                    summaries.close()
                    folder, place = place(), None
                    on_start(folder)
                    summaries = Summaries(folder.tensorboard, rows, config)
                progress.epoch(row, best, stopping.left(len(rows), config.epochs))
        except KeyboardInterrupt:
            number = interrupts.number or (signal.SIGTERM if agreement.stopping else signal.SIGINT)
        except (FileError, OSError) as error:
            raise RunError(
                _saved(files.reason(error), folder, len(rows), begun.step, place is not None)
            ) from error
        except strategies.GONE as error:
            if where.workers == 1:
                raise
            text = f"another worker is gone ({type(error).__name__})"
            if not where.chief:
                raise RunError(f"{text}: start all workers again, with --resume") from error
            raise RunError(_saved(text, folder, len(rows), begun.step, place is not None)) from error
        except Diverged as error:
            kept = _kept(folder, len(rows), begun.step, place is not None)
            raise TrainingError(
                f"{error} ({kept}): try a smaller --learning-rate or a longer --warmup, or leave such steps out with "
                "--on-nan skip"
            ) from error
    return _outcome(
        model, folder, len(rows), stopping, number, steps=begun.step, old_run_kept=place is not None
    )


def _remove_files(folder: RunFolder) -> None:
    """Removes the files that a run that starts from epoch 1 would continue with."""
    for path in (folder.history_file, folder.best_weights, *checkpoints.found(folder.checkpoints)):
        path.unlink(missing_ok=True)


def _saved(what: str, folder: RunFolder, epochs: int, steps: int, replaces: bool) -> str:
    if replaces:
        return f"{what}: the run that was there before is kept"
    if not epochs and not steps:
        return f"{what}: no epoch is saved yet; free space or choose another --run-dir"
    return f"{what}; saved: {spoken(epochs, steps)}; go on with tfvamp train --resume {folder}"


def _check_bound(bound: float, best: float, epoch: int, warmup: int) -> None:
    """Raises Diverged if the validation bound is NaN or infinite or, after the warm-up, far below the best one."""
    if not math.isfinite(bound):
        raise Diverged(f"the validation bound became NaN or infinite in epoch {epoch}")
    if epoch > warmup and math.isfinite(best) and bound < best - JUMP * max(abs(best), 1.0):
        raise Diverged(f"the validation bound fell from {best:.2f} to {bound:.4g} in epoch {epoch}")


def _kept(folder: RunFolder, epochs: int, steps: int, replaces: bool) -> str:
    """Returns, as text, what is left by a training that diverged."""
    if replaces:
        return "the run that was there before is kept"
    if not epochs and not steps:
        return f"no weights were saved in {folder}"
    return f"{folder} is as it was after {spoken(epochs, steps)}"


def spoken(epochs: int, steps: int) -> str:
    """Returns as text how much is saved: whole epochs, and steps of the next one.

    >>> spoken(3, 20)
    '3 whole epochs and 20 steps'
    """
    parts = [f"{epochs} whole epoch{'s' * (epochs != 1)}"]
    parts += [f"{steps} step{'s' * (steps != 1)}"] if steps else []
    return " and ".join(parts)


def _outcome(
    model: LatentVariableModel,
    folder: RunFolder,
    epochs: int,
    stopping: EarlyStopping,
    number: int | None,
    **more: Any,
) -> Outcome:
    if folder.best_weights.is_file():
        shapes = [tuple(weight.shape) for weight in model.weights]
        stored = weights.read(folder.best_weights, shapes)
        weights.load(model, stored, folder.best_weights)
    return Outcome(model, folder.path, epochs, stopping.best_epoch, stopping.best, number, **more)


def _absolute(folder: str | None) -> str | None:
    """Returns the folder as an absolute path, for the run to remember."""
    return None if folder is None else os.path.abspath(expanded(folder))


def _steps(config: TrainConfig, dataset: Dataset) -> int:
    return math.ceil(dataset.train.num_examples / config.batch_size)


def _announce(config: TrainConfig, dataset: Dataset, progress: Progress) -> None:
    sizes = "/".join(str(dataset.split(name).num_examples) for name in SPLITS)
    mixture = f", K = {config.components}" if config.mixture else ""
    progress.say(
        f"{printable(dataset.spec.name)} ({sizes} images), model {config.model}, prior {config.prior}{mixture}, "
        f"likelihood {config.likelihood}, learning rate {config.learning_rate:g}, seed {config.seed}"
    )
    if dataset.verified is False:
        progress.say(
            f"warning: the source files of {config.dataset} are not the published ones "
            "(or no checksum of those is known): recorded as dataset_verified: false"
        )
    if config.warmup > config.epochs:
        progress.say(
            f"warning: the warm-up ({counted(config.warmup, 'epoch')}) is longer than the training ({config.epochs}): "
            f"beta never reaches {config.beta:g}; choose a smaller --warmup"
        )
    if (config.schedule_epochs or 0) > config.epochs:
        progress.say(
            f"warning: the schedule ({config.schedule_epochs} epochs) is longer than the training ({config.epochs}): "
            "the learning rate never reaches its smallest value; choose a smaller schedule_epochs"
        )
    if config.elbo_epochs >= config.epochs and config.objective == "iwae":
        progress.say(
            f"warning: the first {config.elbo_epochs} epochs maximise the ELBO, which are all of them: "
            "choose a smaller --elbo-epochs"
        )
