"""Commands that are killed, at file events and at random moments; two at once; full disks. Nothing is lost or mixed."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from tfvamp import files
from tfvamp.runs import Run

SMALL = (
    "--components", 3, "--hidden-units", 4, "--latent-dims", 2, "--warmup", 2, "--batch-size", 20, "--no-jit",
    "--checkpoint-minutes", 1e-9,  # after every step
    "--patience", 10**6,  # a writer trains until it is stopped, however slow the second one is to start
)  # fmt: skip
EPOCHS = 12
NUM_KILLS = 25

pytestmark = pytest.mark.xdist_group("crashes")  # they share a run


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> list:
    """Tiny images and settings for them."""
    path = tmp_path_factory.mktemp("images") / "x.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 2, (50, 6, 5)).astype(np.uint8))
    return ["--dataset", f"npz:{path}", *SMALL]


@pytest.fixture(scope="module")
def whole(storm, small, tmp_path_factory) -> pathlib.Path:
    """An unbroken run, evaluated."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train = ["train", *small, "--epochs", EPOCHS, "--run-dir", run]
    for words in (train, ["evaluate", run, "--proposal", "encoder", "--samples", 5]):
        answer = storm(*words)
        assert answer["status"] == 0, answer
    return run


@pytest.fixture
def run(whole, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(whole, tmp_path / "run"))


def history(run) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in Run(run).rows()]


def contents(run) -> tuple:
    """What must be equal for a run that was killed and one that was not."""
    document = json.loads((run / "evaluation.json").read_text())
    with np.load(run / "log_likelihood.npz") as stored:
        arrays = {name: stored[name].tobytes() for name in stored}
    weights = (run / "best" / "model.weights.h5").read_bytes()
    return history(run), weights, {k: v for k, v in document.items() if k != "number"}, arrays


def scratch(folder) -> list[str]:
    return [str(path) for path in folder.rglob(f"{files.SCRATCH}*")]


def test_twenty_five_kills_are_not_seen(storm, whole, small, tmp_path):
    """Half of them at a file event, half at a random moment; then history, weights and evaluation of each run."""
    choose, kills, runs = random.Random(1), 0, 0
    while kills < NUM_KILLS:
        run = tmp_path / f"run{runs}"
        words = ["train", *small, "--epochs", EPOCHS, "--run-dir", run]
        while kills < NUM_KILLS:
            event = choose.randint(1, 40)
            how = {"kill_after": choose.uniform(0.2, 1.5)} if kills % 2 else {"kill_at": event}
            answer = storm(*words, **how)
            if answer["status"] == 0:
                break
            assert answer["status"] == -signal.SIGKILL, answer
            kills += 1
            if (run / "config.json").exists():
                words = ["train", "--resume", run]
                rows = history(run)
                assert rows == history(whole)[: len(rows)]
        for last in (words, ["evaluate", run, "--proposal", "encoder", "--samples", 5]):
            if last is not words or answer["status"]:
                answer = storm(*last)
                assert answer["status"] == 0, answer
        assert contents(run) == contents(whole)
        runs += 1
    time.sleep(files.JUST_MADE)
    assert storm("train", "--resume", run)["status"] == 0
    assert scratch(tmp_path) == []


def every_event(storm, words, folder, copies, check, eager=True) -> int:
    """Lets a command end; `check` is told each folder that a kill before a file event would have left, and the last one.

    A kill leaves a folder as it was then, so that one command shows them all: `copies` of the folder.
    """
    copies.mkdir()
    answer = storm(*words, watched=folder, copies=copies, eager=eager)
    assert answer["status"] == 0, answer
    left = sorted(copies.iterdir())
    assert len(left) == answer["events"]
    for path in (*left, folder):
        check(path)
    return answer["events"]


def killed(storm, words, event, eager=True) -> None:
    answer = storm(*words, kill_at=event, eager=eager)
    assert answer["status"] == -signal.SIGKILL, answer


def test_a_killed_evaluation_leaves_files_that_agree(storm, whole, run, tmp_path):
    old = contents(run)

    def check(folder):
        run = folder / "run"
        document = json.loads((run / "evaluation.json").read_text())
        assert document["num_samples"] in (5, 3)
        if (run / "log_likelihood.npz").exists():
            with np.load(run / "log_likelihood.npz") as stored:
                assert stored["log_likelihood"].mean() == pytest.approx(document["log_likelihood"], rel=1e-12)
        opened = Run(run)
        assert opened.evaluation()["current"]
        arrays = opened.evaluated_arrays()
        assert arrays["log_likelihood"].mean() == pytest.approx(document["log_likelihood"], rel=1e-12)
        if document["num_samples"] == 5:
            assert document == {**old[2], "number": 1}

    place = tmp_path / "place"
    copied = pathlib.Path(shutil.copytree(whole, place / "run"))
    events = every_event(
        storm,
        ["evaluate", copied, "--proposal", "encoder", "--samples", 3],
        place,
        tmp_path / "copies",
        check,
    )
    assert events > 5 and Run(copied).evaluation()["num_samples"] == 3
    for event in (events // 2, events - 1):  # and in truth
        shutil.rmtree(copied)
        shutil.copytree(whole, copied)
        killed(storm, ["evaluate", copied, "--proposal", "encoder", "--samples", 3], event)
        check(place)


def test_a_killed_overwrite_leaves_the_old_run_or_the_new_one(storm, whole, small, tmp_path):
    place = tmp_path / "place"
    run = pathlib.Path(shutil.copytree(whole, place / "run"))
    words = ["train", *small, "--epochs", 1, "--seed", 1, "--run-dir", run, "--overwrite"]
    left = []

    def check(folder):
        left.append(history(folder / "run"))
        assert Run(folder / "run").model() is not None

    events = every_event(storm, words, place, tmp_path / "copies", check)
    old, new = history(whole), history(run)
    assert len(left) == events + 1 and old != new
    assert left == [old] * left.index(new) + [new] * (len(left) - left.index(new))
    for event in (left.index(new), left.index(new) + 1):  # and in truth: the last one that leaves the old run
        shutil.rmtree(place)
        shutil.copytree(whole, run)
        killed(storm, words, event)
        check(place)
    assert left[-2:] == [old, new]


def test_a_killed_export_leaves_the_old_one_or_the_new_one(storm, whole, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    output = place / "export"
    answer = storm("export", whole, "--output", output, eager=False)
    assert answer["status"] == 0, answer
    names = {path.relative_to(output) for path in output.rglob("*")}
    document = pathlib.Path("assets.extra", "tfvamp.json")
    (output / document).write_text(json.dumps({**json.loads((output / document).read_text()), "old": True}))
    first = tmp_path / "first"
    shutil.copytree(place, first)
    words = ["export", whole, "--output", output, "--overwrite"]
    left = []

    def check(folder):
        export = folder / "export"
        assert {path.relative_to(export) for path in export.rglob("*")} == names
        left.append("old" in json.loads((export / document).read_text()))

    every_event(storm, words, place, tmp_path / "copies", check, eager=False)
    assert set(left) == {True, False} and left == sorted(left, reverse=True)
    for event in (
        left.index(False),
        left.index(False) + 1,
    ):  # and in truth: the last one that leaves the old one
        shutil.rmtree(place)
        shutil.copytree(first, place)
        killed(storm, words, event, eager=False)
        check(place)
    assert left[-2:] == [True, False]
    time.sleep(files.JUST_MADE)
    files.sweep(place)
    assert scratch(place) == []


# --- two at once ---


def test_of_two_writers_one_is_refused(storm, run):
    """Started together; then one while the other one trains."""

    def start(epochs: int) -> int:
        return storm("train", "--resume", run, "--epochs", epochs, detach=True)["pid"]

    ended = [storm.wait(pid) for pid in (start(60), start(60))]
    assert sorted(answer["status"] for answer in ended) == [0, 1]
    refused = next(answer["stderr"] for answer in ended if answer["status"] == 1)
    assert "is being written by process" in refused and len(refused.splitlines()) == 1
    assert [row["epoch"] for row in Run(run).rows()] == list(range(1, 61))
    first = start(100_000)
    deadline = time.monotonic() + 120
    while len(Run(run).rows()) < 62 and time.monotonic() < deadline:
        time.sleep(0.1)
    second = storm("train", "--resume", run, "--epochs", 70)
    assert second["status"] == 1 and "is being written by process" in second["stderr"]
    os.kill(first, signal.SIGTERM)
    answer = storm.wait(first)
    assert "whole epochs" in answer["stderr"] and answer["status"] == 143
    epochs = [row["epoch"] for row in Run(run).rows()]
    assert epochs == list(range(1, len(epochs) + 1)) and len(epochs) >= 62


def test_default_run_folders_are_never_shared(storm, small, tmp_path):
    """Two runs of one second: the folders that each would take are there already."""
    clock = (
        "import datetime\n"
        "from tfvamp.runs import creating\n"
        "class Clock(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None): return cls(2026, 1, 2)\n"
        "creating.datetime = type('module', (), {'datetime': Clock})\n"
    )
    first = "x.npz-vae-vamp-20260102-000000"
    for folders in ({first}, {first, f"{first}-2"}, {first, f"{first}-2", f"{first}-3"}):
        answer = storm("train", *small, "--epochs", 1, python=clock, folder=tmp_path)
        assert answer["status"] == 0, answer
        assert {path.name for path in (tmp_path / "runs").iterdir()} == folders
        assert f"runs/{max(folders)}. " in answer["stdout"]


# --- full disks ---


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """A disk of 1 MiB."""
    place = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=False)


def test_a_full_disk_is_one_line_and_costs_nothing(storm, whole, small, small_disk):
    """Wherever the disk fills up, in training and in evaluation; afterwards both go on as if nothing had happened."""
    run, filler = small_disk / "run", small_disk / "filler"
    train = ["train", *small, "--epochs", EPOCHS, "--run-dir", run]
    errors = 0
    for room in (2_000, 60_000, 150_000, 350_000, 600_000):
        filler.unlink(missing_ok=True)
        free = shutil.disk_usage(small_disk).free
        filler.write_bytes(b"\0" * max(0, free - room))
        answer = storm(*(["train", "--resume", run] if (run / "config.json").exists() else train))
        if answer["status"]:
            errors += 1
            lines = [line for line in answer["stderr"].splitlines() if line.startswith("tfvamp: ")]
            assert answer["status"] == 1 and len(lines) == 1, answer
            assert "No space left on device" in lines[0] and "unexpected" not in answer["stderr"]
            assert "Traceback" not in answer["stderr"]
    filler.unlink()
    assert errors >= 3 and storm("train", "--resume", run)["status"] == 0
    assert history(run) == history(whole)
    assert storm("evaluate", run, "--proposal", "encoder", "--samples", 4)["status"] == 0
    before = Run(run).evaluation()
    filler.write_bytes(b"\0" * shutil.disk_usage(small_disk).free)
    answer = storm("evaluate", run, "--proposal", "encoder", "--samples", 5)
    assert answer["status"] == 1 and "No space left on device" in answer["stderr"]
    assert "unexpected" not in answer["stderr"] and Run(run).evaluation() == before
    assert Run(run).evaluated_arrays() is not None
    filler.unlink()
    assert storm("evaluate", run, "--proposal", "encoder", "--samples", 5)["status"] == 0
    time.sleep(files.JUST_MADE)
    files.sweep(run)
    assert scratch(run) == []


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_limit_on_file_sizes_is_one_line(storm, run):
    """As on a full disk, where no small disk can be mounted."""
    limit = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    )
    before = history(run)
    answer = storm("train", "--resume", run, "--epochs", 14, python=limit)
    assert answer["status"] == 1, answer
    line = next(line for line in answer["stderr"].splitlines() if line.startswith("tfvamp: "))
    assert "File too large" in line and "unexpected" not in answer["stderr"]
    assert "Traceback" not in answer["stderr"]
    assert history(run) == before
