"""Run folders: opened once, somebody else's, damaged; evaluations and the weights that they are of."""

import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import tfvamp
from tests.tiny_pictures import TinyPictures
from tfvamp import files, runs, training
from tfvamp.errors import DataError, RunError, UsageError
from tfvamp.runs import Run, building, lock, owner
from tfvamp.runs.folder import RunFolder
from tfvamp_cli.main import COMMANDS, main

pytestmark = pytest.mark.usefixtures("eager")


def command(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def edit(run: pathlib.Path, **changes) -> None:
    """Changes config.json as a text editor would: {"settings.model": "hvae"}."""
    document = json.loads((run / "config.json").read_text())
    for path, value in changes.items():
        place, *names = document, *path.split(".")
        for name in names[:-1]:
            place = place[name]
        place[names[-1]] = value
    (run / "config.json").write_text(json.dumps(document))


# --- a Run ---


def test_a_run_tells_what_it_is(run):
    opened = tfvamp.Run(run)
    assert (opened.config.prior, opened.spec.name, opened.path) == ("vamp", "mnist5k", run)
    assert opened.document.own and opened.document.verified is True
    history = opened.history()
    assert list(history["epoch"]) == [1, 2, 3] and len(history["val_elbo"]) == 3
    assert opened.evaluation() is None and len(opened.evaluations()) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as one about pseudo-inputs that are loaded later
        assert opened.model() is opened.model()
    assert opened.dataset().test.num_examples == 60
    assert opened.weights_epoch == max(opened.rows(), key=lambda row: row["val_elbo"])["epoch"]
    assert repr(opened) == f"Run({str(run)!r})" and str(opened) == str(run)


def test_without_pandas_tables_are_dictionaries(run, monkeypatch):
    import pandas

    assert isinstance(Run(run).history(), pandas.DataFrame)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert Run(run).history()["epoch"] == [1, 2, 3]
    assert tfvamp.find_runs(run)["val_elbo"] == [max(row["val_elbo"] for row in Run(run).rows())]


def test_runs_are_found_with_their_results_and_problems(run, tmp_path):
    shutil.copytree(run, tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text("{")
    (tmp_path / "no run").mkdir()
    tfvamp.evaluate(run, 3, limit=4, proposal="encoder")
    found = tfvamp.find_runs(tmp_path / "*")
    assert list(found["run"]) == [str(tmp_path / "other"), str(run)]
    assert "is damaged" in found["problem"][0] and found["problem"][1] == ""
    assert found["log_likelihood"][1] == Run(run).evaluation()["log_likelihood"]
    assert found["prior"][1] == "vamp" and found["epochs"][1] == 3


def test_config_json_is_read_once_per_command(run, tmp_path, monkeypatch):
    reads, real = [], files.read_bytes

    def read(path, largest):
        reads.append(os.path.basename(path))
        return real(path, largest)

    monkeypatch.setattr(files, "read_bytes", read)
    for words in (
        ("info", run),
        ("evaluate", run, "--proposal", "encoder", "--samples", 2, "--limit", 2),
        ("encode", run, "--limit", 2, "--output", tmp_path / "z.npz"),
        ("sample", run, "-n", 2, "--output", tmp_path / "s.npz"),
        ("plot", run),
        ("export", run, "--output", tmp_path / "export"),
        ("train", "--resume", run),
    ):
        reads.clear()
        result = command(*words)
        assert result.exit_code == 0, result.stderr
        assert reads.count("config.json") == 1, words


def test_loading_a_model_imports_no_training_loop():
    code = (
        "import importlib.util, sys, types\n"
        "light = types.ModuleType('tfvamp')  # without its __init__.py, which imports everything\n"
        "light.__path__ = importlib.util.find_spec('tfvamp').submodule_search_locations\n"
        "sys.modules['tfvamp'] = light\n"
        "import tfvamp.runs\n"
        "assert not [n for n in sys.modules if n.startswith('tfvamp.training')]\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# --- evaluations belong to their weights ---


def test_evaluations_are_kept_and_never_mixed(run):
    large = tfvamp.evaluate(run, 20, limit=10, proposal="encoder")
    small = tfvamp.evaluate(run, 2, limit=2, proposal="encoder")
    assert json.loads((run / "evaluation.json").read_text()) == small
    kept = Run(run).evaluations()
    assert list(kept["num_samples"]) == [2, 20] and list(kept["number"]) == [2, 1]
    assert json.loads((run / "evaluations" / "000001" / "evaluation.json").read_text()) == large
    for number, document in ((1, large), (2, small)):
        with np.load(run / "evaluations" / f"{number:06d}" / "log_likelihood.npz") as stored:
            assert stored["log_likelihood"].mean() == pytest.approx(document["log_likelihood"])
    assert (
        large["weights_sha256"]
        == Run(run).weights_sha256
        == files.sha256(run / "best" / "model.weights.h5", 10**9)
    )
    assert large["epoch"] == Run(run).weights_epoch and large["estimator"] == "importance"


def test_an_evaluation_of_other_weights_is_never_shown_as_current(run, tmp_path):
    document = tfvamp.evaluate(run, 3, limit=4, proposal="encoder")
    assert Run(run).evaluation() == {**document, "current": True}
    assert f"{document['log_likelihood']:.3f} nats" in command("info", run).stdout
    assert "log_likelihood.png" in command("plot", run).stdout
    export = json.loads(_exported(run, tmp_path / "a").read_text())
    assert export["evaluation"]["log_likelihood"] == document["log_likelihood"]
    training.resume(run, epochs=8)
    assert Run(run).weights_sha256 != document["weights_sha256"]
    assert Run(run).evaluation()["current"] is False
    shown = command("info", run).stdout
    assert f"of epoch {document['epoch']}; trained on since: evaluate again" in shown
    assert f"{document['log_likelihood']:.3f}" not in shown
    shown = command("plot", run).stdout
    assert "log_likelihood.png" not in shown and "of these weights yet. Next: tfvamp evaluate" in shown
    export = json.loads(_exported(run, tmp_path / "b").read_text())
    assert export["evaluation"] is None and export["weights"]["epoch"] == Run(run).weights_epoch
    assert np.isnan(tfvamp.find_runs(run)["log_likelihood"].astype(float)[0])


def _exported(run, path) -> pathlib.Path:
    result = command("export", run, "--output", path)
    assert result.exit_code == 0, result.stderr
    return path / "assets.extra" / "tfvamp.json"


def test_an_evaluation_of_an_older_tfvamp_is_kept(run):
    first = tfvamp.evaluate(run, 3, limit=4, proposal="encoder")
    shutil.rmtree(run / "evaluations")
    old = {k: v for k, v in first.items() if k not in ("number", "epoch", "weights_sha256", "estimator")}
    (run / "evaluation.json").write_text(json.dumps(old))
    assert Run(run).evaluation()["current"] is False
    tfvamp.evaluate(run, 2, limit=2, proposal="encoder")
    kept = json.loads((run / "evaluations" / "000001" / "evaluation.json").read_text())
    assert kept == {**old, "number": 1}
    assert (run / "evaluations" / "000001" / "log_likelihood.npz").is_file()


def test_arrays_that_were_not_written_any_more_are_taken_from_the_folder(run):
    document = tfvamp.evaluate(run, 3, limit=4, proposal="encoder")
    (run / "log_likelihood.npz").unlink()  # as between two steps of `write_evaluation`
    assert Run(run).evaluated_arrays()["log_likelihood"].mean() == pytest.approx(document["log_likelihood"])


def test_two_evaluations_that_end_together_do_not_mix(run, monkeypatch):
    """The second one starts to replace the files at the top before the first one has ended."""
    real, nested = RunFolder._current_number, []

    def number(self, split):
        if not nested:
            nested.append(1)
            with pytest.raises(BlockingIOError):  # the first one holds the lock
                descriptor = os.open(run / "evaluations", os.O_RDONLY)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return real(self, split)

    monkeypatch.setattr(RunFolder, "_current_number", number)
    tfvamp.evaluate(run, 3, limit=4, proposal="encoder")
    newer = tfvamp.evaluate(run, 2, limit=4, proposal="encoder")
    monkeypatch.setattr(RunFolder, "evaluations", lambda self: iter([(0, run)]))
    (run / "evaluations" / "000001").rename(run / "evaluations" / "moved")
    tfvamp.evaluate(run, 5, limit=4, proposal="encoder")  # takes number 1: older than what is at the top
    assert json.loads((run / "evaluation.json").read_text()) == newer


def test_an_evaluation_without_weights_is_not_current(run):
    tfvamp.evaluate(run, 3, limit=4, proposal="encoder")
    document = json.loads((run / "evaluation.json").read_text())
    del document["weights_sha256"]
    (run / "evaluation.json").write_text(json.dumps(document))
    (run / "best" / "model.weights.h5").unlink()
    assert Run(run).evaluation()["current"] is False


def test_a_run_that_is_open_sees_what_was_trained_on(run):
    opened = Run(run)
    opened.model()
    before = opened.weights_sha256
    training.resume(opened, epochs=8)
    assert opened.weights_sha256 != before
    assert (
        tfvamp.evaluate(opened, 2, limit=2, proposal="encoder")["weights_sha256"] == Run(run).weights_sha256
    )


# --- one writer ---


def test_a_second_writer_is_refused_and_readers_are_not(run, small_config):
    before = (run / "history.csv").read_bytes()
    with lock.writing(run):
        message = rf"is being written by process {os.getpid()} on .*, since .*: wait until it ends"
        with pytest.raises(RunError, match=message):
            training.resume(run, epochs=9)
        with pytest.raises(RunError, match=message):
            training.train(small_config, run, overwrite=True)
        assert tfvamp.evaluate(run, 2, limit=2, proposal="encoder")["num_examples"] == 2
        assert command("info", run).exit_code == 0
    assert (run / "history.csv").read_bytes() == before and not (run / "lock").exists()


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("lock", ("train", "--resume"), "lock is not a file: remove it"),
        ("evaluations", ("evaluate", "--samples", 2, "--limit", 2), "evaluations is not a folder"),
        (
            "best",
            ("sample", "-n", 1, "--output", "x.png"),
            "or lost the file, which tfvamp train --resume restores",
        ),
        ("best", ("train", "--resume"), "best is not a folder"),
        ("figures", ("plot", "--dpi", 20), "figures is not a folder"),
    ],
)
def test_a_folder_for_a_file_and_a_file_for_a_folder_are_named(name, words, said, run):
    if name == "lock":
        (run / name).mkdir()
    else:
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).write_bytes(b"")
    verb, *options = words
    if options[:1] == ["--resume"]:
        result = command(verb, "--resume", run, "--epochs", 4)
    else:
        result = command(verb, run, *options)
    lines = result.stderr.splitlines()
    assert result.exit_code == 1 and said in lines[-1]
    assert len(lines) == (2 if said == "best is not a folder" else 1)  # it says first what it restores


def test_the_lock_of_a_killed_process_does_not_count(run):
    (run / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "yesterday"}))
    assert training.resume(run, epochs=4).epochs == 4


def test_without_locks_on_the_disk_a_living_holder_counts(run, monkeypatch):
    def no_locks(*_):
        raise OSError(lock.errno.ENOLCK, "no locks")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = lock.socket.gethostname()
    for holder, free in (
        ({"pid": os.getppid(), "host": host}, False),
        ({"pid": ended.pid, "host": host}, True),
        ({"pid": 1, "host": "elsewhere"}, False),
        ({}, True),
    ):
        (run / "lock").write_text(json.dumps(holder))
        if free:
            with lock.writing(run):
                pass
        else:
            with pytest.raises(RunError, match="is being written by process"), lock.writing(run):
                pass


def test_a_lock_that_is_a_link_is_not_followed(run, tmp_path):
    (tmp_path / "precious").write_text("keep")
    (run / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match=r"run/lock is not a file: remove it"):
        training.resume(run, epochs=4)
    assert (tmp_path / "precious").read_text() == "keep"


# --- resuming a damaged run ---


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(run, trained):
    newest = sorted((run / "checkpoints").iterdir())[-1]
    contents = newest.read_bytes()
    for damage in (contents[:1000], b"", contents[:500_00] + b"x" + contents[500_01:], contents[:-10]):
        newest.write_bytes(damage)
        result = command("train", "--resume", run)
        assert result.exit_code == 0, result.stderr
        text = " ".join(result.stderr.split())
        assert "epoch-000003.npz is damaged" in text and "using the previous checkpoint" in text
        assert without_seconds(run) == without_seconds(trained)
        assert (run / "best" / "model.weights.h5").read_bytes() == (
            trained / "best" / "model.weights.h5"
        ).read_bytes()


def test_without_checkpoints_a_run_is_resumed_only_when_that_is_meant(run):
    shutil.rmtree(run / "checkpoints")
    before = (run / "history.csv").read_bytes()
    result = command("train", "--resume", run, "--epochs", 4)
    assert result.exit_code == 1 and result.stderr.startswith(
        f"tfvamp: {run} has no checkpoint (of this version of tfvamp), but a history of 3 epochs"
    )
    assert "--restart" in result.stderr and (run / "history.csv").read_bytes() == before
    result = command("train", "--resume", run, "--epochs", 2, "--restart")
    assert result.exit_code == 0 and result.stdout.startswith("2 epochs")
    assert len(Run(run).rows()) == 2
    (run / "history.csv").unlink()
    shutil.rmtree(run / "checkpoints")
    assert command("train", "--resume", run).exit_code == 1  # the best weights alone tell of epochs


def test_garbage_beside_the_checkpoints_does_not_matter(run):
    (run / "checkpoints" / "checkpoint").write_bytes(b"\xff\x00garbage")
    (run / "checkpoints" / "epoch-999999.npz").write_bytes(b"")
    assert command("train", "--resume", run, "--epochs", 4).stdout.startswith("4 epochs")


@pytest.mark.parametrize("damage", ["row", "cut", "missing", "binary", "empty", "gone"])
def test_a_damaged_history_never_costs_a_row(damage, run, trained):
    path = run / "history.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = {
        "row": [*lines[:2], b"2,nan,x\n", *lines[3:]],
        "cut": [*lines[:2], lines[2][:9]],
        "missing": [lines[0], *lines[2:]],
        "binary": [bytes(range(256))],
        "empty": [],
    }
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"".join(damaged[damage]))
    assert command("info", run).exit_code == 0
    result = command("train", "--resume", run)
    assert result.exit_code == 0 and "history.csv is restored as it was after epoch 3" in " ".join(
        result.stderr.split()
    )
    assert path.read_bytes() == (trained / "history.csv").read_bytes()


def test_best_weights_that_are_gone_come_back(run, trained):
    for damage in (b"", None):
        path = run / "best" / "model.weights.h5"
        path.unlink() if damage is None else path.write_bytes(damage)
        assert training.resume(run).epochs == 3
        assert path.read_bytes() == (trained / "best" / "model.weights.h5").read_bytes()


def test_pictures_that_lie_elsewhere_are_not_taken(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "events.out").write_text("precious")
    pictures = run / "tensorboard" / "pictures"
    pictures.symlink_to(tmp_path / "mine")
    training.resume(run, epochs=4)
    assert not pictures.exists()
    pictures.mkdir()
    (pictures / "events.link").symlink_to(tmp_path / "mine" / "events.out")
    (pictures / "events.own").write_text("own")
    os.mkfifo(pictures / "events.pipe")
    training.resume(run, epochs=5)
    assert (pictures / "events.own").read_text() == "own"
    assert not (pictures / "events.link").exists() and not (pictures / "events.pipe").exists()


def test_a_run_of_a_newer_version_is_refused_in_one_line(run):
    edit(run, **{"settings.from_the_future": 1})
    for words in (("info", run), ("train", "--resume", run), ("evaluate", run)):
        result = command(*words)
        assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
        assert (
            "has the setting 'from_the_future', which this version of tfvamp does not know" in result.stderr
        )


def test_tensorboard_has_every_epoch_once(run):
    from tensorflow.python.summary.summary_iterator import summary_iterator

    shutil.copy(next((run / "tensorboard").iterdir()), run / "tensorboard" / "events.out.tfevents.9.v2")
    (run / "checkpoints" / "epoch-000003.npz").unlink()
    training.resume(run, epochs=4)
    steps = [
        event.step
        for path in sorted((run / "tensorboard").glob("events*"))
        for event in summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == "val/elbo"
    ]
    assert sorted(steps) == [1, 2, 3, 4]


def without_seconds(run):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in Run(run).rows()]


# --- somebody else's run ---


def test_only_what_this_user_wrote_on_this_machine_is_followed(run, tmp_path, monkeypatch):
    assert Run(run).document.own
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert not Run(run).document.own  # another user, who has no key yet
    owner.signature({})
    assert not Run(run).document.own
    key = tmp_path / "state" / "tfvamp" / "key"
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_bytes()) == 32
    assert "somebody else" in command("info", run).stdout


@pytest.mark.parametrize(
    "words",
    [("evaluate", "--proposal", "encoder", "--samples", 2), ("encode",), ("plot",), ("train", "--resume")],
)
def test_places_in_somebody_elses_run_are_not_followed(words, run, tmp_path, monkeypatch):
    """Another folder of data, with other contents; a file; a folder; a builder of TFDS."""
    name, *options = words
    if name == "encode":
        options += ["--output", tmp_path / "z.npz"]
    np.savez(tmp_path / "secret.npz", x=np.zeros((30, 28, 28), np.uint8))
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path / "default"))
    shutil.copytree(Run(run).config.data_dir, tmp_path / "theirs")
    before = _tree(tmp_path)
    edit(run, **{"settings.data_dir": str(tmp_path / "theirs")})
    result = command(name, *options, run) if name == "train" else command(name, run, *options)
    assert result.exit_code == 1 and "datasets prepare mnist5k" in result.stderr, result.output
    assert f"the run's own folder, {tmp_path}/theirs, is not followed" in result.stderr
    spec = {"name": "a", "tfds_name": "", "title": "", "shape": [28, 28, 1], "sizes": [1, 1, 1], "source": ""}
    for dataset in (f"npz:{tmp_path}/secret.npz", f"folder:{tmp_path}", f"tfds:{TinyPictures.name}"):
        edit(run, **{"settings.dataset": dataset, "data.spec": spec})
        result = command(name, *options, run) if name == "train" else command(name, run, *options)
        assert result.exit_code == 1 and "was not written by you on this machine" in result.stderr
        assert "--dataset" in result.stderr and len(result.stderr.splitlines()) == 1
    after = _tree(tmp_path)
    assert {k: v for k, v in after.items() if not k.startswith("run")} == {
        k: v for k, v in before.items() if not k.startswith("run")
    }


def _tree(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_is_typed_is_followed(tmp_path, monkeypatch):
    """A run on your own images that moved, or came from elsewhere: --dataset says where they are."""
    x = np.random.default_rng(0).integers(0, 256, (40, 6, 5)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", x=x)
    small = ["--components", 3, "--hidden-units", 4, "--epochs", 1, "--warmup", 1, "--no-jit"]
    run = tmp_path / "run"
    assert command("train", "--dataset", f"npz:{tmp_path}/x.npz", *small, "--run-dir", run).exit_code == 0
    (tmp_path / "new").mkdir()
    (tmp_path / "x.npz").rename(tmp_path / "new" / "y.npz")
    result = command("evaluate", run, "--proposal", "encoder", "--samples", 2)
    assert result.exit_code == 1 and "say where they are with --dataset npz:..." in result.stderr
    moved = ["--dataset", f"npz:{tmp_path}/new/y.npz"]
    result = command("evaluate", run, "--proposal", "encoder", "--samples", 2, *moved)
    assert result.exit_code == 0 and "warning" not in result.stderr, result.stderr
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert command("evaluate", run, "--proposal", "encoder", "--samples", 2).exit_code == 1
    assert command("evaluate", run, "--proposal", "encoder", "--samples", 2, *moved).exit_code == 0
    assert command("train", "--resume", run, "--epochs", 2, *moved).stdout.startswith("2 epochs")
    np.savez(tmp_path / "new" / "z.npz", x=255 - x)
    other = ["--dataset", f"npz:{tmp_path}/new/z.npz"]
    result = command("evaluate", run, "--proposal", "encoder", "--samples", 2, *other)
    assert result.exit_code == 0 and "is made from other files than" in " ".join(result.stderr.split())
    result = command("train", "--resume", run, "--epochs", 3, *other)
    assert result.exit_code == 1 and "was trained on other source files" in result.stderr
    result = command("evaluate", run, "--proposal", "encoder", "--samples", 2, "--dataset", "mnist5k")
    assert result.exit_code == 2 and "was trained on npz:..., not on mnist5k" in result.stderr


def test_resuming_somebody_elses_run_signs_only_what_was_typed(run, small_config, tmp_path, monkeypatch):
    """The places that the run named stay unknown; another command does not follow them afterwards either."""
    edit(run, **{"settings.data_dir": str(tmp_path / "theirs"), "settings.raw_dir": str(tmp_path / "raw")})
    result = command("train", "--resume", run, "--epochs", 4, "--data-dir", small_config.data_dir)
    assert result.exit_code == 0, result.stderr
    opened = Run(run)
    assert opened.document.own
    assert (opened.config.data_dir, opened.config.raw_dir) == (small_config.data_dir, None)


def test_prepared_data_are_never_changed_by_a_run(run, small_config, tmp_path):
    """A raw folder with another file than the data were made from is refused, with the command that prepares again."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "mnist_5k.csv.gz").write_bytes(b"other")
    before = _tree(pathlib.Path(small_config.data_dir))
    for words in (
        ("evaluate", run, "--proposal", "encoder", "--samples", 2),
        ("train", "--resume", run, "--epochs", 4),
    ):
        result = command(*words, "--raw-dir", raw)
        assert result.exit_code == 1 and "tfvamp datasets prepare mnist5k" in result.stderr, result.output
    assert _tree(pathlib.Path(small_config.data_dir)) == before


def test_older_convolutional_runs_are_refused(run):
    edit(run, **{"settings.model": "convhvae"})
    with pytest.raises(
        RunError, match=r"version 1 of the networks of convhvae.* in version 2.*: train it again"
    ):
        Run(run)
    for version in (1, 3, True, "2", None, 1e300, [2]):
        edit(run, networks_version=version)
        with pytest.raises(RunError, match="of the networks of convhvae"):
            Run(run)
    edit(run, **{"settings.model": "vae", "networks_version": 1})
    assert Run(run).model().name == "vae"


def test_links_out_of_the_folder_are_not_followed(run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "history.csv").write_bytes((run / "history.csv").read_bytes())
    (run / "history.csv").unlink()
    (run / "history.csv").symlink_to(outside / "history.csv")
    result = command("info", run)
    assert result.exit_code == 1 and "is a link that leads out of the run folder" in result.stderr
    (run / "history.csv").unlink()
    for name in ("figures", "evaluations", "best"):
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).symlink_to(outside)
    for words in (("plot", run), ("evaluate", run, "--proposal", "encoder", "--samples", 2, "--limit", 2)):
        result = command(*words)
        assert result.exit_code == 1 and "leads out of the run folder" in result.stderr
    (run / "tensorflow.log").symlink_to(outside / "log")
    command("train", "--resume", run)
    assert {path.name for path in outside.iterdir()} == {"history.csv"}


HOSTILE = {
    "deep": ("config.json", b"[" * 200_000),
    "verified": ("config.json", {"data.verified": []}),
    "versions": ("config.json", {"versions": "x"}),
    "version": ("config.json", {"versions": {"python": 3}}),
    "resumed": ("config.json", {"resumed_from": 3}),
    "command": ("config.json", {"command": {"a": 1}}),
    "huge": ("config.json", {"settings.components": 10**15}),
    "wide": ("config.json", {"settings.hidden_units": 10**12}),
    "number": ("config.json", {"settings.epochs": 10**400}),
    "latents": ("config.json", {"settings.latent_dims": 10**9}),
    "epochs": ("history.csv", b"epoch,beta\nnan,1\n"),
    "infinite": ("history.csv", b"epoch,beta\ninf,1\n"),
    "field": ("history.csv", b'epoch,"' + b"x" * 300_000 + b'"\n1,2\n'),
    "binary": ("history.csv", bytes(range(256)) * 9),
    "evaluation": ("evaluation.json", b'{"log_likelihood": "x"}'),
    "nan": ("evaluation.json", b'{"log_likelihood": NaN, "num_samples": 1, "num_examples": 1}'),
    "big": (
        "evaluation.json",
        b'{"log_likelihood": ' + b"9" * 400 + b', "num_samples": 1, "num_examples": 1}',
    ),
    "number of it": (
        "evaluation.json",
        b'{"log_likelihood": 1, "num_samples": 1, "num_examples": 1, "number": "../../x"}',
    ),
    "arrays": ("log_likelihood.npz", b"PK\x03\x04"),
    "spec": ("config.json", {"data.spec.shape": [28.0, 28.0, 1.0], "settings.dataset": "npz:a.npz"}),
    "constant": ("config.json", b'{"settings": {}, "data": {"x": NaN}}'),
    "nan inside": ("config.json", {"data.x": 1, "resumed_from": [{"a": 1}]}),
    "values": ("history.csv", b"epoch,beta\n1,1e308\n"),
    "numbers": ("evaluations/\u00b2\u00b2\u00b2\u00b2\u00b2\u00b2", None),
    "key": ("config.json", {"settings." + "x" * 500_000: 1}),
    "long": ("config.json", {"command": "x" * 500_000}),
    "garbage checkpoints": ("checkpoints/epoch-999998.npz", b"x"),
    "weights": ("best/model.weights.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 99),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_contents_are_read_right_or_refused_in_one_line(kind, run, tmp_path):
    name, damage = HOSTILE[kind]
    if damage is None:
        (run / name).mkdir(parents=True)
    elif isinstance(damage, dict):
        edit(run, **damage)
    else:
        (run / name).write_bytes(damage)
    for words in (
        ("info", run),
        ("sample", run, "-n", 2, "--output", tmp_path / "s.png"),
        ("plot", run, "--dpi", 20),
        ("evaluate", run, "--proposal", "encoder", "--samples", 2, "--limit", 2),
        ("train", "--resume", run, "--epochs", 4),
    ):
        result = command(*words)
        assert len(result.output) < 10_000
        assert result.exit_code in (0, 1, 2) and "unexpected" not in result.stderr, result.stderr
        assert result.exit_code == 0 or len(result.stderr.splitlines()) == 1


def test_a_device_or_a_pipe_in_a_run_folder_is_no_file(run):
    (run / "history.csv").unlink()
    os.mkfifo(run / "history.csv")
    assert "is not a regular file" in " ".join(command("info", run).stderr.split())
    (run / "history.csv").unlink()
    (run / "config.json").unlink()
    os.mkfifo(run / "config.json")
    assert "it has no config.json" in command("info", run).stderr


def test_nothing_in_a_run_folder_controls_the_terminal(run):
    edit(run, command="\x1b[2J\x1b]0;x\x07tfvamp", versions={"python\x1b[1m": "\x9b31m"})
    shown = command("info", run).stdout
    assert "?[2J" in shown and all(c.isprintable() or c == "\n" for c in shown)


def test_weights_that_are_not_finite_are_refused(run):
    with h5py.File(run / "best" / "model.weights.h5", "r+") as file:
        arrays = []
        file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        arrays[0][...] = np.nan
    with pytest.raises(RunError, match="has weights that are not finite: train the run again"):
        tfvamp.load(run)


@pytest.mark.parametrize("kind", ["external", "virtual", "sparse", "objects", "more", "less"])
def test_weights_files_hold_the_numbers_of_the_model_and_no_others(kind, run, tmp_path):
    path = run / "best" / "model.weights.h5"
    (tmp_path / "secret").write_bytes(b"\0" * 400)
    with h5py.File(path, "r+") as file:
        if kind == "external":
            file.create_dataset("x", (100,), "f4", external=[(str(tmp_path / "secret"), 0, 400)])
        elif kind == "virtual":
            file.create_virtual_dataset("x", h5py.VirtualLayout((100,), "f4"))
        elif kind == "sparse":
            file.create_dataset("x", (10**12,), "f4", chunks=(1000,))
        elif kind == "objects":
            file.create_dataset("x", (10,), h5py.string_dtype())
        elif kind == "more":
            file["x"] = np.zeros(3, np.float32)
        else:
            names = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            del file[names[0]]
    with pytest.raises(RunError, match="model.weights.h5 is damaged or belongs to another model"):
        tfvamp.load(run)


# --- sizes ---


def test_the_shapes_of_weights_are_known_before_they_are_made(small_config):
    config = building.resolve(small_config, tfvamp.datasets.CATALOG["mnist5k"])
    for name in tfvamp.models.MODELS:
        config = dataclasses.replace(config, model=name)
        shapes = building.weight_shapes(config, (6, 5, 1))
        model = building.model_of(config, (6, 5, 1))
        assert sorted(shapes.values()) == sorted(tuple(weight.shape) for weight in model.weights)


@pytest.mark.parametrize(
    "words, text",
    [
        (
            ["--components", 10**8],
            "the weights of this model .* would need .* TiB of memory; this machine has",
        ),
        (["--hidden-units", 10**7], "choose a smaller --hidden-units than 10000000"),
        (
            ["--objective", "iwae", "--importance-samples", 10**8],
            "a step of 100 images, 100000000 latents each",
        ),
        (["--dataset", "folder:.", "--image-size", "9999x9999"], "would need .* of memory"),
    ],
)
def test_absurd_settings_are_refused_with_the_size_that_they_need(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command("train", *words, "--run-dir", "run", "--data-dir", "data")
    assert result.exit_code == 2 and not list(tmp_path.iterdir()), result.stderr
    assert re.search(text, result.stderr), result.stderr


def test_absurd_numbers_of_samples_are_refused_with_the_size_that_they_need(run, tmp_path):
    for words in (
        ("evaluate", run, "--samples", 10**9),
        ("sample", run, "-n", 10**12, "--output", tmp_path / "s.npz"),
    ):
        result = command(*words)
        assert result.exit_code == 2 and "of memory; this machine has" in result.stderr, result.stderr


def test_a_batch_is_never_larger_than_the_data(small_config, tmp_path):
    outcome = training.train(dataclasses.replace(small_config, batch_size=10**12, epochs=1), tmp_path / "run")
    assert outcome.epochs == 1


# --- what holds the structure ---


def test_nothing_else_knows_the_files_of_a_run():
    root = pathlib.Path(tfvamp.__file__).parents[1]
    names = (
        "config.json",
        "tensorflow.log",
        "history.csv",
        "evaluation.json",
        "model.weights.h5",
        "log_likelihood.npz",
        "checkpoints/",
    )
    for path in [*root.glob("tfvamp/**/*.py"), *root.glob("cli/*.py")]:
        if path.parent.name in ("runs", "training"):
            continue
        code = "\n".join(
            line for line in path.read_text().splitlines() if '"""' not in line and "help" not in line
        )
        strings = {word for word in names if f'"{word}"' in code}
        assert not strings, (path, strings)


def test_every_command_that_reads_a_run_is_tested_here():
    assert {"train", "evaluate", "sample", "encode", "export", "plot", "info"} <= set(COMMANDS)


def test_wrong_uses():
    with pytest.raises(UsageError, match="unknown split 'tests'"):
        RunFolder("x").evaluation_file("tests")
    with pytest.raises(RunError, match="there is no run folder nowhere"):
        runs.evaluate("nowhere")
    with pytest.raises(UsageError, match="samples must be at least 1; got 0"):
        runs.evaluate("nowhere", 0)
    assert issubclass(DataError, tfvamp.TfvampError)
