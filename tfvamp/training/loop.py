"""The training loop: epochs of `train_step`, validation, the stopping rule, the run folder."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable

import keras
import numpy as np
import rich.console
import tensorflow as tf

from tfvamp import datasets, seeds
from tfvamp.blocks import images_at_once
from tfvamp.config import PIXELS, TrainConfig
from tfvamp.datasets import Dataset
from tfvamp.errors import RunError, TrainingError, UsageError
from tfvamp.graph import compiled
from tfvamp.models import MODELS, LatentVariableModel
from tfvamp.optimizers import NormalizedAdam
from tfvamp.training.checkpoints import Checkpoints, load_weights, save_weights
from tfvamp.training.early_stopping import EarlyStopping
from tfvamp.training.interrupts import Interrupts
from tfvamp.training.progress import Progress
from tfvamp.training.run_folder import RunFolder

IMAGE_NOISE = 0.01  # the paper's code adds N(0, 0.01^2) to images taken as pseudo-inputs


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
      model: with the best epoch's weights.
      epochs: how many whole ones were run in all.
      best_epoch: the one whose weights were kept.
      best_elbo: its one-sample validation ELBO, in nats.
      interrupted: whether Ctrl-C ended it.
    """

    model: LatentVariableModel
    epochs: int
    best_epoch: int
    best_elbo: float
    interrupted: bool


def train(
    config: TrainConfig,
    run_dir: str | os.PathLike,
    overwrite: bool = False,
    console: rich.console.Console | None = None,
) -> Outcome:
    """Trains a model into a new run folder.

    Args:
      config: what to train.
      run_dir: the run folder, made here.
      overwrite: replace a run folder that exists.
      console: where progress is shown; None shows nothing.

    Raises:
      RunError, DataError, UsageError: the folder, the data or the settings do not allow it.
      TrainingError: the loss became NaN; the run folder keeps the weights before that.
    """
    shown = Progress(config.epochs, console)
    dataset = datasets.load(
        config.dataset,
        config.data_dir,
        config.raw_dir,
        config.limit,
        shown.say,
        progress=shown.on_terminal,
        **config.loading(),
    )
    if config.likelihood is None:
        shown.say(
            f"likelihood {dataset.spec.likelihood}, because the {PIXELS[dataset.spec.likelihood]} as they are trained on"
        )
    config = config.resolve(dataset.spec)
    config = dataclasses.replace(
        config,
        dataset=datasets.absolute(config.dataset),
        data_dir=_absolute(config.data_dir),
        raw_dir=_absolute(config.raw_dir),
    )
    model = build_model(config, dataset)
    folder = RunFolder.create(run_dir, config, dataset, overwrite)
    return _run(config, folder, dataset, model, console, resume=False)


def resume(
    run_dir: str | os.PathLike,
    epochs: int | None = None,
    data_dir: str | None = None,
    raw_dir: str | None = None,
    console: rich.console.Console | None = None,
) -> Outcome:
    """Goes on with a run after its last whole epoch, as if it had not stopped.

    Args:
      run_dir: the run folder.
      epochs: a new number of most epochs; None keeps the run's.
      data_dir, raw_dir: where the data are, if not where they were.
      console: where progress is shown; None shows nothing.

    Raises:
      RunError: there is no such run, its data are other ones now, or its checkpoint is damaged.
      TrainingError: the loss became NaN.
    """
    folder = RunFolder.open(run_dir)
    config = folder.read_config()
    if epochs is not None:
        config = dataclasses.replace(config, epochs=epochs)
    document = folder.read_document()
    dataset = dataset_of(folder, data_dir, raw_dir, say=Progress(config.epochs, console).say)
    if dataset.checksums != document["data"].get("sources"):
        raise RunError(f"{run_dir} was trained on other source files than {config.dataset} is made from now")
    before = {key: document.get(key) for key in ("command", "started", "versions")}
    folder.write_config(config, dataset, [*document.get("resumed_from", []), before])
    return _run(config, folder, dataset, build_model(config, dataset), console, resume=True)


def dataset_of(
    folder: RunFolder,
    data_dir: str | None = None,
    raw_dir: str | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """The data set of a run, from where it was then unless other folders are given.

    A folder of source files that is gone since does not matter while the prepared data are there.

    Raises:
      RunError: its images have another shape now.
      UsageError: the run's likelihood does not fit their values now.
    """
    config = folder.read_config()
    remembered = config.raw_dir if config.raw_dir and os.path.isdir(config.raw_dir) else None
    limit = config.limit if limit is None else limit
    dataset = datasets.load(
        config.dataset, data_dir or config.data_dir, raw_dir or remembered, limit, say, **config.loading()
    )
    shape = tuple(folder.read_shape())
    if dataset.spec.shape != shape:
        raise RunError(
            f"{folder.path} was trained on images of {list(shape)}; those of {config.dataset} have "
            f"{list(dataset.spec.shape)} now"
        )
    config.resolve(dataset.spec)
    if dataset.checksums != folder.read_document()["data"].get("sources"):
        say(
            f"warning: {config.dataset} is made from other files now than those that {folder.path} was trained on"
        )
    return dataset


def build_model(config: TrainConfig, dataset: Dataset) -> LatentVariableModel:
    """The untrained model of a run, with the initial weights that its seed gives.

    Sets the global seeds of Python, NumPy and TensorFlow, from which Keras draws initial weights.
    """
    keras.utils.set_random_seed(config.seed)
    return model_for(config, dataset.spec.shape, _initial_pseudo_inputs(config, dataset))


def model_for(config: TrainConfig, event_shape, pseudo_inputs=None) -> LatentVariableModel:
    """The model that resolved settings describe."""
    assert config.components is not None and config.likelihood is not None  # as `resolve` leaves them
    return MODELS[config.model](
        event_shape=event_shape,
        latent_dims=config.latent_dims,
        hidden_units=config.hidden_units,
        prior=config.prior,
        num_components=config.components,
        pseudo_inputs=pseudo_inputs,
        likelihood=config.likelihood,
        objective=config.objective,
        num_samples=config.num_samples,
        num_importance_samples=config.importance_samples,
        doubly_reparameterized=config.dreg,
        seed=config.seed,
        name=config.model,
    )


def _initial_pseudo_inputs(config: TrainConfig, dataset: Dataset):
    """An array or initializer for the VampPriors; None for other priors."""
    if not config.prior.startswith("vamp"):
        return None
    if config.prior != "vamp-data" and config.pseudo_input_init == "normal":
        return keras.initializers.RandomNormal(dataset.spec.pseudo_input_mean, dataset.spec.pseudo_input_std)
    assert config.components is not None  # as `resolve` leaves it
    count = dataset.train.num_examples
    if config.components > count:
        raise UsageError(
            f"K = {config.components} pseudo-inputs cannot be taken from {count} training images: "
            f"choose --components {count} or fewer"
        )
    rng = np.random.default_rng(seeds.stateless(config.seed, "pseudo-inputs").numpy())
    chosen = dataset.train.at(tf.constant(rng.choice(count, config.components, replace=False))).numpy()
    if config.prior == "vamp-data":
        return chosen
    return chosen + rng.normal(0.0, IMAGE_NOISE, chosen.shape).astype(np.float32)


def _run(
    config: TrainConfig,
    folder: RunFolder,
    dataset: Dataset,
    model: LatentVariableModel,
    console: rich.console.Console | None,
    resume: bool,
) -> Outcome:
    progress = Progress(config.epochs, console)
    model.compile(optimizer=NormalizedAdam(config.learning_rate))
    model.optimizer.build(model.trainable_variables)
    stopping = EarlyStopping(config.patience, config.warmup)
    checkpoints = Checkpoints(folder.checkpoints, model, stopping)
    epoch = checkpoints.restore() if resume else 0
    folder.truncate_history(epoch)
    _announce(config, dataset, progress)
    steps = math.ceil(dataset.train.num_examples / config.batch_size)
    say_once = functools.cache(progress.say)
    train_step = compiled(model.train_step, bool(config.jit), say_once)
    test_step = compiled(model.test_step, bool(config.jit), say_once)
    validation = dataset.validation.images.batch(images_at_once(model, dataset.spec.shape)).prefetch(1)
    writer = tf.summary.create_file_writer(str(folder.tensorboard))
    interrupted = False
    with progress, Interrupts() as interrupts:

        def step_done(number: int) -> None:
            progress.step(number)
            interrupts.check()

        progress.start(epoch, steps)
        try:
            while epoch < config.epochs and not stopping.stop:
                row = _epoch(epoch + 1, config, dataset, model, train_step, test_step, validation, step_done)
                _check_finite(row, stopping, folder)
                best = stopping.update(epoch + 1, row["val_elbo"])
                if best:
                    save_weights(model, folder.best_weights)
                folder.append_history(row)
                checkpoints.save(epoch + 1)
                epoch += 1
                _write_summary(writer, row)
                progress.epoch(row, best)
        except KeyboardInterrupt:
            interrupted = True
    if folder.best_weights.is_file():
        load_weights(model, folder.best_weights)
    return Outcome(model, epoch, stopping.best_epoch, stopping.best, interrupted)


def _absolute(folder: str | None) -> str | None:
    """The folder as it is found from anywhere, for the run to remember."""
    return None if folder is None else os.path.abspath(os.path.expanduser(folder))


def _announce(config: TrainConfig, dataset: Dataset, progress: Progress) -> None:
    sizes = "/".join(str(dataset.split(name).num_examples) for name in datasets.SPLITS)
    mixture = "" if config.prior == "standard" else f", K = {config.components}"
    progress.say(
        f"{dataset.spec.name} ({sizes} images), model {config.model}, prior {config.prior}{mixture}, "
        f"likelihood {config.likelihood}, learning rate {config.learning_rate:g}, seed {config.seed}"
    )
    if dataset.verified is False:
        progress.say(
            f"warning: the source files of {config.dataset} are not the published ones "
            "(or no checksum of those is known): recorded as dataset_verified: false"
        )
    if config.warmup > config.epochs:
        progress.say(
            f"warning: the warm-up ({config.warmup} epochs) is longer than the training ({config.epochs}): "
            "beta never reaches 1; choose a smaller --warmup"
        )


def _epoch(epoch, config, dataset, model, train_step, test_step, validation, step_done) -> dict[str, float]:
    """Trains and validates once; the epoch's row of history.csv."""
    start = time.perf_counter()
    beta = min(1.0, epoch / config.warmup) if config.warmup else 1.0
    model.beta.assign(beta)
    model.reset_metrics()
    for images in dataset.training_batches(config.batch_size, config.seed, epoch):
        training = train_step(images)
        step_done(epoch)
    training = {name: float(value) for name, value in training.items()}
    model.reset_metrics()
    for images in validation:
        validated = test_step(images)
    validated = {name: float(value) for name, value in validated.items()}
    return {
        "epoch": epoch,
        "beta": beta,
        **{f"train_{name}": training[name] for name in ("loss", "elbo", "reconstruction", "kl")},
        **{f"val_{name}": value for name, value in validated.items() if name != "loss"},
        "seconds": round(time.perf_counter() - start, 3),
    }


def _check_finite(row: dict[str, float], stopping: EarlyStopping, folder: RunFolder) -> None:
    """Raises TrainingError where the loss is NaN or infinite."""
    if math.isfinite(row["train_loss"]) and math.isfinite(row["val_elbo"]):
        return
    kept = (
        f"the weights of epoch {stopping.best_epoch} are kept" if stopping.best_epoch else "no epoch was good"
    )
    raise TrainingError(
        f"the loss became NaN or infinite in epoch {row['epoch']} ({kept} in {folder.path}): "
        "try a smaller --learning-rate or a longer --warmup"
    )


def _write_summary(writer: tf.summary.SummaryWriter, row: dict[str, float]) -> None:
    with writer.as_default(step=row["epoch"]):
        for name, value in row.items():
            if name != "epoch":
                tf.summary.scalar(name.replace("_", "/", 1), value)
    writer.flush()
