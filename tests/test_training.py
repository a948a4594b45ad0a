"""Training runs: the stopping rule, resuming, what is written, what goes wrong."""

import csv
import dataclasses
import io
import itertools
import json
import math
import shutil
import signal

import numpy as np
import pytest
import rich.console
import tensorflow as tf
from click.testing import CliRunner

import tfvamp
from tests.small import small_model
from tfvamp import runs, training
from tfvamp.config import TrainConfig
from tfvamp.errors import RunError, TrainingError, UsageError
from tfvamp.graph import compiled
from tfvamp.networks.images import unchecked
from tfvamp.optimizers import NormalizedAdam
from tfvamp.runs import Run, building, weights
from tfvamp.runs.history import COLUMNS as HISTORY_COLUMNS
from tfvamp.training import checkpoints, loop, steps
from tfvamp.training.early_stopping import EarlyStopping
from tfvamp.training.interrupts import Interrupts
from tfvamp.training.tensorboard import is_pictured
from tfvamp_cli.main import main

SMALL_SETTINGS = (
    "dataset", "components", "hidden_units", "latent_dims", "epochs", "warmup", "batch_size", "limit", "data_dir",
)  # fmt: skip


def without_seconds(folder):
    with open(folder / "history.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def values(outcome):
    return [v.numpy() for v in outcome.model.variables]


def test_stopping_rule_by_hand():
    rule = EarlyStopping(patience=2, warmup=4)
    #            best  -    -   best  -    -     -  (epochs 2 and 3 are warm-up: the count stays 0)
    values = [-5.0, -6.0, -6.0, -4.0, -4.0, -9.0, -4.5]
    seen = [
        (rule.update(epoch, value), rule.waited, rule.stop) for epoch, value in enumerate(values, start=1)
    ]
    assert seen == [
        (True, 0, False),
        (False, 0, False),
        (False, 0, False),
        (True, 0, False),
        (False, 1, False),
        (False, 2, False),
        (False, 3, True),  # exceeds 2
    ]
    assert (rule.best, rule.best_epoch) == (-4.0, 4)


def test_bests_during_the_warmup_count():
    rule = EarlyStopping(patience=1, warmup=10)
    assert rule.update(1, -1.0)
    assert not any(rule.update(epoch, -2.0) for epoch in range(2, 12))
    assert rule.best_epoch == 1 and rule.stop


@pytest.mark.parametrize(("patience", "warmup", "epochs"), [(2, 4, 40), (0, 0, 40), (3, 10, 8), (5, 1, 40)])
def test_how_many_epochs_are_left_if_none_is_better(patience, warmup, epochs):
    """At each epoch it is as many as there are then."""
    rule, said = EarlyStopping(patience, warmup), []
    rule.update(1, 0.0)
    while not rule.stop and len(said) + 1 < epochs:
        said.append(rule.left(len(said) + 1, epochs))
        rule.update(len(said) + 1, -1.0)
    assert said == list(range(len(said), 0, -1)) and rule.left(len(said) + 1, epochs) == 0


def test_without_warmup():
    rule = EarlyStopping(patience=0, warmup=0)
    assert rule.update(1, -1.0) and not rule.stop
    assert not rule.update(2, -1.0) and rule.stop  # equal is not better


@pytest.mark.usefixtures("eager")
def test_a_run_writes_its_folder(small_config, tmp_path):
    outcome = training.train(small_config, tmp_path / "run")
    folder = tmp_path / "run"
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "history.csv",
        "best",
        "checkpoints",
        "tensorboard",
    }
    document = json.loads((folder / "config.json").read_text())
    assert document["settings"]["learning_rate"] == 5e-4 and document["data"]["verified"] is True
    assert {"tensorflow", "keras", "numpy", "python"} <= document["versions"].keys()
    rows = Run(folder).rows()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["beta"] for row in rows] == [0.5, 1.0, 1.0]
    for row in rows:
        assert tuple(row) == HISTORY_COLUMNS
        assert row["train_elbo"] == pytest.approx(row["train_reconstruction"] - row["train_kl"], rel=1e-5)
        assert row["train_loss"] == pytest.approx(
            row["beta"] * row["train_kl"] - row["train_reconstruction"], rel=1e-5
        )
        assert row["val_elbo"] == pytest.approx(row["val_reconstruction"] - row["val_kl"], rel=1e-5)
    assert outcome.best_bound == max(row["val_elbo"] for row in rows)
    assert list((folder / "tensorboard").glob("events*"))
    assert not outcome.interrupted and outcome.epochs == 3


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("prior", ["vamp", "mog", "vamp-data"])
def test_the_same_seed_gives_the_same_run_and_resuming_is_not_seen(small_config, tmp_path, prior):
    config = dataclasses.replace(small_config, prior=prior)
    whole = training.train(config, tmp_path / "whole")
    training.train(dataclasses.replace(config, epochs=1), tmp_path / "parts")
    assert without_seconds(tmp_path / "parts") == without_seconds(tmp_path / "whole")[:1]
    again = training.resume(tmp_path / "parts", epochs=3)
    assert without_seconds(tmp_path / "parts") == without_seconds(tmp_path / "whole")
    for a, b in zip(values(whole), values(again), strict=True):
        np.testing.assert_array_equal(a, b)
    training.train(dataclasses.replace(config, seed=1, epochs=1), tmp_path / "other")
    assert without_seconds(tmp_path / "other") != without_seconds(tmp_path / "whole")[:1]


def trained_whole_and_in_parts(config, folder, monkeypatch):
    """A run, and another that goes on from what the first one would have left if it had been killed in its second epoch.

    Its steps are compiled again.
    """
    real, seen = loop.Progress.step, []

    def step(self, epoch, count=1):
        seen.append(epoch)
        if epoch == 2 and seen.count(2) == 2:  # the checkpoint of the first step is written
            shutil.copytree(folder / "whole", folder / "parts")
        real(self, epoch, count)

    config = dataclasses.replace(config, checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Progress, "step", step)
        training.train(config, folder / "whole")
    assert without_seconds(folder / "parts") == without_seconds(folder / "whole")[:1]
    names = [path.name for path in checkpoints.found(folder / "parts" / "checkpoints")]
    assert names == ["epoch-000001-step-000000001.npz", "epoch-000001.npz"]
    training.resume(folder / "parts")
    assert len(Run(folder / "parts").rows()) == config.epochs
    assert without_seconds(folder / "parts") == without_seconds(folder / "whole")


def test_resuming_is_not_seen_in_a_graph_either(small_config, tmp_path, monkeypatch):
    """The last batch is short."""
    trained_whole_and_in_parts(dataclasses.replace(small_config, batch_size=40), tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", tfvamp.models.MODELS.values(), ids=tfvamp.models.MODELS)
def test_checkpoints_hold_every_weight(kind, tmp_path, images):
    """The moving moments of batch normalisation and the optimiser's too."""

    def trained(steps):
        model = small_model(kind)
        model.compile(optimizer=NormalizedAdam(1e-2))
        model.optimizer.build(model.trainable_variables)
        for _ in range(steps):
            model.train_step(tf.constant(images))
        return model

    def state(model):
        parts = (*model.weights, *model.optimizer.variables, *model.metrics_variables)
        return [variable.numpy() for variable in parts]

    model, stopping = trained(2), EarlyStopping(1, 0, best=-3.5, best_epoch=2, waited=1)
    rows = [dict.fromkeys(HISTORY_COLUMNS, 1.0 / 3.0) | {"epoch": epoch} for epoch in (1, 2)]
    checkpoints.save(tmp_path, checkpoints.state(model), stopping, rows, b"best", 7, 1.5)
    other, fresh = trained(1), EarlyStopping(1, 0)
    shapes = [one.shape for one in checkpoints.variables(other)]
    checkpoint = checkpoints.newest(tmp_path, shapes, 10, print)
    assert (checkpoint.epoch, checkpoint.rows, checkpoint.best_weights) == (2, rows, b"best")
    assert (checkpoint.step, checkpoint.seconds) == (7, 1.5)
    checkpoints.restore(checkpoint, other, fresh)
    assert fresh == stopping
    for a, b in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("eager")
def test_rows_that_no_checkpoint_knows_are_trained_again(run, trained):
    for path in checkpoints.found(run / "checkpoints")[:1]:
        path.unlink()
    with (run / "history.csv").open("a") as file:
        file.write("4,1.0,1,1,1,1,1,1,1,1\r\n5,1.0,12")  # a row without checkpoint, and one cut off
    training.resume(run)
    assert without_seconds(run) == without_seconds(trained)


@pytest.mark.usefixtures("eager")
def test_resuming_a_finished_run_changes_nothing(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    outcome = training.resume(run)
    assert outcome.epochs == 3 and outcome.best_epoch and not outcome.interrupted
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("eager")
def test_early_stopping_ends_training_with_the_best_weights(small_config, tmp_path, monkeypatch):
    elbos = iter([-10.0, -5.0, -6.0, -7.0, -8.0])
    kept = []
    real = loop.epoch_of

    def epoch(*args):
        row = {**real(*args), "val_elbo": next(elbos)}
        kept.append([v.numpy() for v in args[2].trainable_variables])
        return row

    monkeypatch.setattr(loop, "epoch_of", epoch)
    config = dataclasses.replace(small_config, epochs=50, warmup=0, patience=1)
    outcome = training.train(config, tmp_path / "run")
    assert (outcome.epochs, outcome.best_epoch, outcome.best_bound) == (4, 2, -5.0)
    for a, b in zip(outcome.model.trainable_variables, kept[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("eager")
def test_ctrl_c_keeps_whole_epochs_and_resumes(small_config, trained, tmp_path, monkeypatch):
    progress_step = loop.Progress.step

    def shown(self, epoch, count=1):
        progress_step(self, epoch, count)
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Progress, "step", shown)
    console = rich.console.Console(file=io.StringIO(), width=300)
    outcome = training.train(small_config, tmp_path / "stopped", console=console)
    monkeypatch.undo()
    assert outcome.interrupted and outcome.epochs == 1 and outcome.signal == signal.SIGINT
    training.resume(tmp_path / "stopped")
    assert without_seconds(tmp_path / "stopped") == without_seconds(trained)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("interrupted_at", "epochs", "steps"),
    [(1, 0, 1), (2, 0, 2), (3, 1, 1)],
    ids=["the first step", "the last step of an epoch", "the second epoch"],
)
def test_a_signal_saves_the_steps_of_an_epoch(
    small_config, trained, tmp_path, monkeypatch, interrupted_at, epochs, steps
):
    real, calls = loop.Progress.step, []

    def step(self, epoch, count=1):
        real(self, epoch, count)
        calls.append(epoch)
        if len(calls) == interrupted_at:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Progress, "step", step)
        outcome = training.train(small_config, tmp_path / "run")
    assert (outcome.epochs, outcome.steps, outcome.signal) == (epochs, steps, signal.SIGTERM)
    assert len(Run(tmp_path / "run").rows()) == epochs
    if not epochs:  # and nothing says that it was trained
        assert not (tmp_path / "run" / "best").exists() and not (tmp_path / "run" / "history.csv").exists()
    training.resume(tmp_path / "run")
    assert without_seconds(tmp_path / "run") == without_seconds(trained)
    newest = [checkpoints.found(folder / "checkpoints")[0] for folder in (tmp_path / "run", trained)]
    with np.load(newest[0]) as ours, np.load(newest[1]) as theirs:
        for name in sorted(set(ours) - {"meta", "best"}):
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.usefixtures("eager")
def test_a_signal_in_the_validation_trains_no_step_again(small_config, trained, tmp_path, monkeypatch):
    real, seen = tfvamp.models.VAE.test_step, []

    def test_step(self, images):
        if not seen:
            signal.raise_signal(signal.SIGTERM)
        seen.append("validation")
        return real(self, images)

    monkeypatch.setattr(tfvamp.models.VAE, "test_step", test_step)
    outcome = training.train(small_config, tmp_path / "run")
    assert (outcome.epochs, outcome.steps) == (0, 2)
    monkeypatch.undo()
    training.resume(tmp_path / "run")
    assert without_seconds(tmp_path / "run") == without_seconds(trained)


@pytest.mark.usefixtures("eager")
def test_the_newest_checkpoints_are_kept(small_config, tmp_path):
    training.train(dataclasses.replace(small_config, checkpoint_minutes=1e-9, epochs=2), tmp_path / "run")
    names = [path.name for path in checkpoints.found(tmp_path / "run" / "checkpoints")]
    assert names == ["epoch-000002.npz", "epoch-000001-step-000000002.npz"]


def test_an_interrupt_waits_for_the_step_and_the_second_does_not():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        interrupts.check()
        signal.raise_signal(signal.SIGINT)  # remembered
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("eager")
def test_an_interrupt_while_a_file_is_written_leaves_it_whole(small_config, trained, tmp_path, monkeypatch):
    real = weights.to_bytes

    def to_bytes(model, epoch):
        signal.raise_signal(signal.SIGINT)
        return real(model, epoch)

    monkeypatch.setattr(weights, "to_bytes", to_bytes)
    outcome = training.train(small_config, tmp_path / "run")
    assert outcome.interrupted and outcome.epochs == 1
    assert tfvamp.load(tmp_path / "run").sample(1, 0).shape == (1, 28, 28, 1)
    monkeypatch.undo()
    training.resume(tmp_path / "run")
    assert without_seconds(tmp_path / "run") == without_seconds(trained)


@pytest.mark.usefixtures("eager")
def test_nan_stops_and_keeps_the_last_good_weights(small_config, tmp_path, monkeypatch):
    real = loop.epoch_of

    def epoch(number, config, model, *rest):
        if number == 3:
            model.decoder.heads[0].bias.assign(np.full(784, np.nan, np.float32))
        return real(number, config, model, *rest)

    monkeypatch.setattr(loop, "epoch_of", epoch)
    with pytest.raises(
        TrainingError,
        match=r"the loss and its reconstruction became NaN or infinite in epoch 3, step 1 \(.*run is as it was after 2 whole "
        r"epochs\): try a smaller --learning-rate",
    ):
        training.train(small_config, tmp_path / "run")
    model = tfvamp.load(tmp_path / "run")
    assert all(np.isfinite(v.numpy()).all() for v in model.variables)
    assert len(Run(tmp_path / "run").rows()) == 2


class Poisoned:
    """A step of training whose images are NaN at some calls."""

    def __init__(self, *calls):
        self.calls, self.made = calls, 0

    def __call__(self, step):
        def poisoned(images):
            self.made += 1
            return step(images * (np.nan if self.made in self.calls else 1.0))

        return poisoned


def test_a_step_that_is_skipped_changes_nothing(images):
    """Not the weights, the optimiser's moments, the moving moments of batch normalisation, nor the means."""
    model = small_model(tfvamp.models.ConvHVAE, event_shape=(12, 12, 1))
    model.compile(optimizer=NormalizedAdam(1e-2))
    model.optimizer.build(model.trainable_variables)
    model.skip_nonfinite, model.check_inputs = True, False
    step = tf.function(model.train_step, autograph=False)
    batch = tf.constant(np.tile(images, (1, 2, 3, 1))[:, :12, :12])

    def state():
        iterations = model.optimizer.iterations
        kept = [one for one in checkpoints.variables(model) if one is not iterations]
        return [one.numpy() for one in kept], int(iterations.numpy())

    with unchecked():
        first = step(batch)
        before, count = state()
        assert first["skipped"] == 0.0 and np.isfinite(first["loss"])
        second = step(batch * np.nan)
        after, more = state()
        assert second["skipped"] == 1.0 and second["loss"] == first["loss"] and more == count + 1
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)
        assert step(batch)["skipped"] == 0.0
        assert any(not np.array_equal(a, b) for a, b in zip(state()[0], before, strict=True))


@pytest.mark.usefixtures("eager")
def test_nan_is_skipped_where_that_is_asked_for(small_config, tmp_path, monkeypatch):
    def compiled_poisoned(poisoned):
        return lambda step, *rest: poisoned(step) if step.__name__ == "step" else step

    console = rich.console.Console(file=io.StringIO(), width=300)
    monkeypatch.setattr(steps, "compiled", compiled_poisoned(Poisoned(4)))
    with pytest.raises(
        TrainingError, match="all its terms became NaN or infinite in epoch 2, step 2 .*--on-nan skip"
    ):
        training.train(small_config, tmp_path / "run")
    assert checkpoints.found(tmp_path / "run" / "checkpoints")[0].name == "epoch-000001.npz"
    monkeypatch.setattr(steps, "compiled", compiled_poisoned(Poisoned(2)))  # of those that are left
    outcome = training.resume(tmp_path / "run", on_nan="skip", console=console)
    assert outcome.epochs == 3
    assert (
        "epoch 2: 1 of 2 steps had a NaN or infinite loss or gradient and were skipped"
        in console.file.getvalue()
    )
    assert all(np.isfinite(list(row.values())).all() for row in Run(tmp_path / "run").rows())
    monkeypatch.setattr(steps, "compiled", compiled_poisoned(Poisoned(*range(9))))
    with pytest.raises(TrainingError, match="all steps of epoch 4 have a NaN"):
        training.resume(tmp_path / "run", epochs=4)


@pytest.mark.usefixtures("eager")
def test_skipped_steps_are_counted_over_a_stop(small_config, tmp_path, monkeypatch):
    """The first of two steps is trained, then the run is stopped; the second is skipped after it is resumed."""
    config, console = dataclasses.replace(small_config, on_nan="skip", epochs=1), None
    real = loop.Progress.step

    def step(self, epoch, count=1):
        real(self, epoch, count)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Progress, "step", step)
        assert training.train(config, tmp_path / "run").steps == 1
    monkeypatch.setattr(
        steps, "compiled", lambda step, *rest: Poisoned(1)(step) if step.__name__ == "step" else step
    )
    console = rich.console.Console(file=io.StringIO(), width=300)
    assert training.resume(tmp_path / "run", console=console).epochs == 1
    assert "epoch 1: 1 of 2 steps had a NaN" in console.file.getvalue()


@pytest.mark.usefixtures("eager")
def test_a_checkpoint_without_metrics_is_read(run, trained):
    """Those of tfvamp 0.1.0 have none, and no step."""
    for path in checkpoints.found(run / "checkpoints"):
        with np.load(path) as stored:
            arrays = dict(stored)
        meta = json.loads(arrays["meta"].tobytes())
        arrays["meta"] = np.frombuffer(
            json.dumps({k: meta[k] for k in ("stopping", "rows")}).encode(), np.uint8
        )
        metrics = 2 * len(tfvamp.load(trained).trackers)
        for name in sorted(name for name in arrays if name.isdigit())[-metrics:]:
            del arrays[name]
        np.savez(path, **arrays)
    checkpoints.found(run / "checkpoints")[0].unlink()
    training.resume(run)
    assert without_seconds(run) == without_seconds(trained)


@pytest.mark.usefixtures("eager")
def test_a_jump_of_the_validation_bound_is_a_divergence(small_config, tmp_path, monkeypatch):
    real = loop.epoch_of

    def epoch(number, *rest):
        row = real(number, *rest)
        return {**row, "val_elbo": 1000 * row["val_elbo"]} if number in (2, 3) else row

    monkeypatch.setattr(loop, "epoch_of", epoch)
    with pytest.raises(
        TrainingError, match=r"the validation bound fell from -\S+ to -\S+ in epoch 3 \(.*2 whole epochs\)"
    ):
        training.train(small_config, tmp_path / "run")


def summaries(folder) -> dict[str, list[int]]:
    """The epochs of each tag in the event files of a folder."""
    from tensorflow.python.summary.summary_iterator import summary_iterator

    found: dict[str, list[int]] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        for event in summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    # Names of files of the same second have no order in time.
    return {tag: sorted(steps) for tag, steps in found.items()}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "settings", [{"model": "hvae"}, {"prior": "standard", "average": 0.5}], ids=["hvae", "vae"]
)
def test_pictures_for_tensorboard(small_config, tmp_path, settings, monkeypatch):
    """After an epoch, once, and kept when the run is resumed; they change nothing of the training."""
    assert [epoch for epoch in range(1001) if is_pictured(epoch)] == [5, 10, 20, 50, 100, 200, 500, 1000]
    monkeypatch.setattr(loop, "is_pictured", lambda epoch: epoch == 2)
    config = dataclasses.replace(small_config, epochs=1, **settings)
    training.train(config, tmp_path / "run")
    folder = tmp_path / "run" / "tensorboard"
    assert not (folder / "pictures").exists()
    training.resume(tmp_path / "run", epochs=2)
    found = summaries(folder / "pictures")
    expected = {"samples", "reconstructions"}
    if config.model == "hvae":
        expected |= {"pseudo-inputs", "shares of the components", "effective number of components"}
        expected |= {
            f"{what} of {name}"
            for what in ("variances of the means", "active units")
            for name in ("z2", "z1")
        }
    else:
        expected |= {"variances of the means of z", "active units of z"}
    assert set(found) == expected and set(map(tuple, found.values())) == {(2,)}
    training.resume(tmp_path / "run", epochs=3)
    assert summaries(folder / "pictures") == found
    scalars = summaries(folder)
    assert scalars["val/elbo"] == [1, 2, 3] and any("hparams" in tag for tag in scalars)
    training.train(dataclasses.replace(config, epochs=3), tmp_path / "whole")
    assert without_seconds(tmp_path / "run") == without_seconds(tmp_path / "whole")


@pytest.mark.usefixtures("eager")
def test_load_gives_the_best_model_back(run):
    outcome, model = training.resume(run), tfvamp.load(run)
    for a, b in zip(model.variables, outcome.model.variables, strict=True):
        if not a.path.endswith("beta"):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(model.sample(3, 1), outcome.model.sample(3, 1))
    assert model.train_config.prior == "vamp" and model.dataset_spec.name == "mnist5k"


@pytest.mark.usefixtures("eager")
def test_what_a_person_sees(small_config, tmp_path):
    console = rich.console.Console(file=io.StringIO(), width=300)
    training.train(dataclasses.replace(small_config, warmup=9), tmp_path / "run", console=console)
    text = console.file.getvalue()
    assert "mnist5k (60/60/60 images), model vae, prior vamp, K = 7, likelihood bernoulli" in text
    assert "warning: the warm-up (9 epochs) is longer than the training (3): beta never reaches 1" in text
    assert "epoch 1/3  val ELBO -" in text


@pytest.mark.usefixtures("eager")
def test_the_bar_on_a_terminal(small_config, tmp_path):
    console = rich.console.Console(file=io.StringIO(), width=160, force_terminal=True)
    training.train(small_config, tmp_path / "run", console=console)
    text = console.file.getvalue()
    assert "epoch 3/3" in text and "val ELBO -" in text
    assert "compiling" in text and "step 2/2" in text and "images/s" in text


@pytest.mark.usefixtures("eager")
def test_progress_as_json(small_config, tmp_path):
    words = [f"--{name.replace('_', '-')}={getattr(small_config, name)}" for name in SMALL_SETTINGS]
    words += ["--run-dir", str(tmp_path / "run"), "--no-jit", "--json-progress", "--input-dropout=0.0"]
    result = CliRunner().invoke(main, ["train", *words])
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] != "message"] == [
        "start",
        *["epoch"] * 3,
        "end",
    ]
    start = next(event for event in events if event["event"] == "start")
    assert (start["epochs"], start["epoch"], start["steps"], start["images"]) == (3, 0, 2, 60)
    rows = Run(tmp_path / "run").rows()
    shown = [event for event in events if event["event"] == "epoch"]
    assert [{name: event[name] for name in rows[0]} for event in shown] == rows
    assert events[-1]["best_epoch"] == 3 and events[-1]["best_bound"] == max(row["val_elbo"] for row in rows)
    assert events[-1]["run_dir"] == str(tmp_path / "run") and not result.stderr
    resumed = CliRunner().invoke(main, ["train", "--resume", str(tmp_path / "run"), "--json-progress"])
    assert json.loads(resumed.stdout.splitlines()[-1])["epochs"] == 3


@pytest.mark.usefixtures("eager")
def test_a_folder_that_exists_is_refused_and_replaced_on_demand(small_config, run):
    config = dataclasses.replace(small_config, epochs=1)
    (run / "evaluation.json").write_text("{}")
    with pytest.raises(RunError, match=r"the run folder .*run exists: resume it with --resume .*--overwrite"):
        training.train(config, run)
    assert (run / "evaluation.json").exists()
    assert training.train(config, run, overwrite=True).run_dir == run
    assert not (run / "evaluation.json").exists() and len(Run(run).rows()) == 1
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.usefixtures("eager")
def test_the_old_run_stays_until_the_new_one_has_an_epoch(small_config, run, trained, monkeypatch):
    seen, real = [], loop.epoch_of

    def epoch(number, *rest):
        seen.append(len(Run(run).rows()))
        if number == 3:
            raise KeyboardInterrupt
        return real(number, *rest)

    monkeypatch.setattr(loop, "epoch_of", epoch)
    outcome = training.train(small_config, run, overwrite=True)
    assert seen == [3, 1, 2] and outcome.epochs == 2  # the old run's rows, then the new one's
    monkeypatch.undo()
    training.resume(run)
    assert without_seconds(run) == without_seconds(trained)

    def never(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "epoch_of", never)
    assert training.train(small_config, run, overwrite=True).epochs == 0
    assert without_seconds(run) == without_seconds(trained) and [p.name for p in run.parent.iterdir()] == [
        "run"
    ]


@pytest.mark.usefixtures("eager")
def test_what_is_not_a_run_is_never_replaced(small_config, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep")
    with pytest.raises(RunError, match="exists and is not a run folder"):
        training.train(small_config, tmp_path / "precious", overwrite=True)
    (tmp_path / "precious" / "config.json").write_text('{"model_type": "another program\'s"}')
    with pytest.raises(RunError, match="exists and is not a run folder"):
        training.train(small_config, tmp_path / "precious", overwrite=True)
    assert (tmp_path / "precious" / "file").read_text() == "keep"


def test_missing_and_wrong_run_folders(tmp_path):
    resolved = (
        '{"settings": {"components": 3, "learning_rate": 0.1, "likelihood": "logistic", "dataset": "npz:a.npz"}, '
        '"data": {"shape": %s, "spec": {"name": "", "tfds_name": "", "title": "", "shape": %s, "sizes": [1, 1, 1], '
        '"source": ""}}}'
    )
    with pytest.raises(RunError, match="there is no run folder"):
        tfvamp.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"is not a run folder \(it has no config.json\)"):
        tfvamp.load(tmp_path / "empty")
    for text, error in (
        ("{", "config.json is damaged: it is not JSON"),
        ("[]", "must hold a JSON object"),
        ("{}", "config.json is damaged: settings must be of type dict"),
        ('{"settings": [], "data": []}', "settings must be of type dict"),
        ('{"settings": {}, "data": []}', "data must be of type dict"),
        ('{"settings": {"prior": "x"}, "data": {}}', "config.json: unknown prior 'x'"),
        ('{"settings": {}, "data": {}}', "the setting 'learning_rate' is missing"),
        (
            '{"settings": {"learning_rate": 0.1, "likelihood": "bernoulli"}, "data": {}}',
            "the setting 'components' is missing",
        ),
        (resolved % ('"big"', '"big"'), r"data.shape not its \[H, W, C\]; got big"),
        (resolved % ("[28, 28]", "[28, 28]"), r"data.shape not its \[H, W, C\]; got \[28, 28\]"),
    ):
        (tmp_path / "empty" / "config.json").write_text(text)
        with pytest.raises(RunError, match=error):
            tfvamp.load(tmp_path / "empty")


def test_weights_of_another_model_are_refused(run):
    path = run / "config.json"
    path.write_text(path.read_text().replace('"hidden_units": 12', '"hidden_units": 13'))
    with pytest.raises(RunError, match="belongs to another model"):
        tfvamp.load(run)


def test_resuming_on_other_data_is_refused(run):
    path = run / "config.json"
    document = json.loads(path.read_text())
    document["data"]["sources"] = {"mnist_5k.csv.gz": "0" * 64}
    path.write_text(json.dumps(document))
    with pytest.raises(RunError, match="was trained on other source files"):
        training.resume(run)


@pytest.mark.usefixtures("eager")
def test_too_many_pseudo_inputs_for_the_images(small_config, tmp_path):
    for settings in ({"prior": "vamp-data"}, {"pseudo_input_init": "images"}):
        with pytest.raises(UsageError, match="K = 61 pseudo-inputs cannot be taken from 60 training images"):
            training.train(dataclasses.replace(small_config, components=61, **settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("eager")
def test_vamp_data_takes_training_images(small_config, data_dir):
    data = tfvamp.datasets.load("mnist5k", data_dir, limit=60)
    config = dataclasses.replace(small_config, prior="vamp-data").resolve(data.spec)
    chosen = building.untrained(config, data).prior.pseudo_inputs.numpy()
    images = {image.tobytes() for image in data.train.array()[0]}
    assert len({c.tobytes() for c in chosen} & images) == 7
    near = building.untrained(dataclasses.replace(config, prior="vamp", pseudo_input_init="images"), data)
    noise = near.prior.pseudo_inputs.numpy() - chosen
    assert 0.005 < noise.std() < 0.02


@pytest.mark.usefixtures("eager")
def test_initial_pseudo_inputs_follow_the_data_set(small_config, data_dir):
    data = tfvamp.datasets.load("mnist5k", data_dir, limit=60)
    pseudo_inputs = building.untrained(small_config.resolve(data.spec), data).prior.pseudo_inputs.numpy()
    assert pseudo_inputs.mean() == pytest.approx(0.05, abs=0.001) and pseudo_inputs.std() == pytest.approx(
        0.01, rel=0.1
    )


def test_without_xla_after_a_failure():
    said = []
    calls = []

    def step(x):
        calls.append(1)
        return tf.strings.length(tf.strings.as_string(x))  # XLA knows no strings

    run = compiled(step, True, said.append)
    assert int(run(tf.constant(12.0))) > 0 and int(run(tf.constant(1.0))) > 0
    assert len(said) == 1 and said[0].startswith("XLA cannot compile a step (")
    assert "--no-jit" in said[0]


@pytest.mark.parametrize("jit", [False, True])
def test_errors_of_the_step_itself_are_not_hidden(jit):
    def step(x):
        return tf.ensure_shape(tf.strings.as_string(x), [3])

    said = []
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        compiled(step, jit, said.append)(tf.constant(-1.0))
    assert said == []


@pytest.mark.slow
def test_resuming_is_not_seen_under_xla_either(small_config, tmp_path, monkeypatch):
    config = dataclasses.replace(small_config, prior="vamp-weighted", jit=True)
    trained_whole_and_in_parts(config, tmp_path, monkeypatch)


@pytest.mark.usefixtures("eager")
def test_a_resumed_run_remembers_its_new_end_and_its_past(run):
    training.resume(run, epochs=4)
    opened = Run(run)
    assert opened.config.epochs == 4 and len(opened.document.resumed_from) == 1


@pytest.mark.usefixtures("eager")
def test_a_run_outlives_its_raw_folder(small_config, tmp_path):
    (tmp_path / "raw").mkdir()
    config = dataclasses.replace(small_config, epochs=1, raw_dir=str(tmp_path / "raw"))
    training.train(config, tmp_path / "run")
    (tmp_path / "raw").rmdir()
    assert tfvamp.evaluate(tmp_path / "run", 2, limit=2, proposal="encoder")["num_examples"] == 2
    assert training.resume(tmp_path / "run", epochs=2).epochs == 2


def test_a_limit_of_zero_is_refused(run):
    with pytest.raises(UsageError, match="--limit must be at least 1; got 0"):
        tfvamp.evaluate(run, 2, limit=0, proposal="encoder")


@pytest.mark.usefixtures("eager")
def test_evaluate_writes_its_files(run, tmp_path):
    document = tfvamp.evaluate(tmp_path / "run", num_samples=20, limit=10, proposal="encoder")
    assert document == json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert set(document) == {
        "log_likelihood", "standard_error", "bits_per_dim", "elbo", "reconstruction", "kl", "num_examples",
        "num_samples", "monte_carlo_error", "effective_sample_size", "seed", "split", "dataset",
        "dataset_verified", "sources", "active_units", "estimator", "epoch", "weights_sha256", "number",
        "proposal", "curve", "pareto_k", "warning", "settings", "limit", "images_sha256", "prior_density",
    }  # fmt: skip
    assert document["num_examples"] == 10 and document["dataset_verified"] is True
    assert document["elbo"] <= document["log_likelihood"] < 0
    with np.load(tmp_path / "run" / "log_likelihood.npz", allow_pickle=False) as stored:
        assert stored["log_likelihood"].mean() == pytest.approx(document["log_likelihood"])
        assert len(stored["label"]) == 10
    other = tfvamp.evaluate(tmp_path / "run", 20, split="validation", limit=10, proposal="encoder")
    assert (tmp_path / "run" / "evaluation-validation.json").is_file() and other["split"] == "validation"
    assert document == json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert (
        tfvamp.evaluate(tmp_path / "run", 20, split="train", limit=10, proposal="encoder")["num_examples"]
        == 10
    )
    assert math.isfinite(other["log_likelihood"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict[str, str]:
    """Images of 8x7 pixels, binary and grey: sizes prove nothing about the path from the command line."""
    folder, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    np.savez(folder / "binary.npz", x=rng.integers(0, 2, (40, 8, 7)).astype(np.uint8))
    np.savez(folder / "grey.npz", x=rng.integers(0, 256, (40, 8, 7)).astype(np.uint8))
    return {name: f"npz:{folder}/{name}.npz" for name in ("binary", "grey")}


def every_pair():
    """Every model with the VampPrior and the VAE with every prior; and, in the full suite, all other pairs."""
    for model, prior in itertools.product(tfvamp.models.MODELS, tfvamp.models.PRIORS):
        marks = [] if model == "vae" or prior == "vamp" else [pytest.mark.full]
        yield pytest.param(model, prior, marks=marks)


@pytest.mark.slow
@pytest.mark.usefixtures("eager", "shallow")
@pytest.mark.parametrize("model, prior", every_pair())
def test_every_model_with_every_prior(model, prior, tiny, tmp_path):
    """Two epochs and an evaluation by one path for all, from the command line; each model on binary and on grey images.

    With one prior, each model is also encoded, plotted, diagnosed and resumed. Run op by op: that a graph computes the same is
    tested in test_models.py, and of whole runs below.
    """
    run, grey = tmp_path / "run", prior in ("standard", "vamp-data")
    data = tiny["grey" if grey else "binary"]
    components = [] if prior == "exemplar" else ["--components", 7]
    small = [*components, "--epochs", 2, "--warmup", 2, "--batch-size", 32, "--hidden-units", 12]
    commands = [
        ["train", "--model", model, "--prior", prior, "--dataset", data, *small, "--run-dir", run],
        ["evaluate", run, "--proposal", "encoder", "--samples", 5, "--limit", 6],
    ]
    for command in commands:
        result = CliRunner().invoke(main, [str(word) for word in command])
        assert result.exit_code == 0, result.stderr
    opened = Run(run)
    history, names = opened.rows(), opened.model().latent_names
    several = len(names) > 1
    parts = [name for name in history[0] if name.startswith("val_kl_")]
    assert len(history) == 2 and parts == ([f"val_kl_{name}" for name in names] if several else [])
    for row in history:
        assert row["val_elbo"] == pytest.approx(row["val_reconstruction"] - row["val_kl"], rel=1e-5)
        assert not parts or row["val_kl"] == pytest.approx(sum(row[name] for name in parts), rel=1e-5)
    document = opened.evaluation()
    assert opened.config.likelihood == ("logistic" if grey else "bernoulli")
    assert math.isfinite(document["log_likelihood"]) and document["elbo"] <= document["log_likelihood"]
    active = document["active_units"]
    assert set(active) == set(names) if several else isinstance(active, int)
    if prior == "vamp":
        arrays = runs.encode(opened, limit=3)
        assert {array.shape for name, array in arrays.items() if name != "label"} == {(3, 40)}
        assert len(arrays) == 1 + 2 * len(names) and len(runs.plot(opened)) == (
            9 if opened.model().has_mean else 7
        )
        assert tuple(runs.diagnose(opened, 3, limit=2, refine_steps=1)["layers"]) == names
        tfvamp.resume(run, epochs=3)
        assert len(Run(run).rows()) == 3


@pytest.mark.parametrize("dreg", [False, True])
@pytest.mark.usefixtures("eager")
def test_importance_weighted_training(dreg, small_config, tmp_path):
    config = dataclasses.replace(
        small_config, objective="iwae", importance_samples=3, num_samples=2, dreg=dreg
    )
    tfvamp.train(config, tmp_path / "run")
    model = tfvamp.load(tmp_path / "run")
    assert model.objective == tfvamp.models.Objective("iwae", 2, 3, dreg)
    last = Run(tmp_path / "run").rows()[-1]
    assert last["beta"] == 1.0 and last["train_loss"] < -last["train_elbo"]  # the bound is above the ELBO


def test_a_checkpoint_of_another_model_is_refused(run):
    document = json.loads((run / "config.json").read_text())
    document["settings"]["model"] = "hvae"
    (run / "config.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="belong"):
        tfvamp.load(run)
    with pytest.raises(RunError, match="no checkpoint in .* can be read .*belongs to another model"):
        tfvamp.resume(run, epochs=4)


@pytest.mark.usefixtures("eager")
def test_beta_weighs_the_kl_and_chooses_the_best_epoch(small_config, trained, tmp_path):
    """Rate and distortion of two runs, the smaller beta with the higher rate; the best epoch by the same weight."""
    config = dataclasses.replace(small_config, beta=0.1, learning_rate=1e-2)
    tfvamp.train(config, tmp_path / "run")
    shutil.copytree(trained, tmp_path / "other")
    opened = Run(tmp_path / "run")
    rows = opened.rows()
    assert [row["beta"] for row in rows] == pytest.approx([0.05, 0.1, 0.1])
    for row in rows:
        assert row["val_elbo"] == pytest.approx(row["val_reconstruction"] - row["val_kl"], rel=1e-5)
    bounds = [row["val_reconstruction"] - 0.1 * row["val_kl"] for row in rows]
    assert opened.weights_epoch == 1 + int(np.argmax(bounds))
    with pytest.raises(RunError, match="none of these is an evaluated run"):
        tfvamp.rate_distortion([tmp_path / "nowhere"])
    results = {
        name: tfvamp.evaluate(tmp_path / name, 50, limit=20, refine_steps=1) for name in ("run", "other")
    }
    table = tfvamp.rate_distortion(tmp_path / "*").set_index("run")
    for name, result in results.items():
        row = table.loc[str(tmp_path / name)]
        assert (row["rate"], row["distortion"]) == (
            result["encoder"]["kl"],
            -result["encoder"]["reconstruction"],
        )
        assert row["elbo"] == pytest.approx(-row["rate"] - row["distortion"])
    assert table["beta"].tolist() == [1.0, 0.1] and table["rate"].is_monotonic_increasing
    shown = CliRunner().invoke(main, ["rate-distortion", *(str(tmp_path / name) for name in results)])
    assert shown.exit_code == 0 and len(shown.stdout.splitlines()) == 3 and "beta 0.1" not in shown.stdout
    assert "beta 0.1" in CliRunner().invoke(main, ["info", str(tmp_path / "run")]).stdout
    (tmp_path / "other").rename(tmp_path / "other [1]*")  # a name that exists is no pattern
    assert (
        len(tfvamp.find_runs(tmp_path / "other [1]*"))
        == len(tfvamp.rate_distortion(tmp_path / "other [1]*"))
        == 1
    )
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps({**results["run"], "encoder": [1]}))
    shown = CliRunner().invoke(main, ["rate-distortion", str(tmp_path / "run")])
    assert shown.exit_code == 1 and "is damaged" in shown.stderr


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf"), 1e7])
def test_a_beta_that_is_no_weight_is_refused(beta):
    with pytest.raises(UsageError, match="beta must be at"):
        TrainConfig(beta=beta)
