"""Several devices and several processes: the curve of one, agreement on signals, workers that are gone or never come."""

import json
import os
import shutil
import signal
import socket
import threading
import time

import numpy as np
import pytest

from tests.small import check_runs_agree
from tfvamp.config import TrainConfig
from tfvamp.errors import RunError, UsageError
from tfvamp.runs import Run
from tfvamp.training import checkpoints, replicas, strategies
from tfvamp.training.strategies import Agreement, Cluster, Devices

pytestmark = pytest.mark.xdist_group("strategies")  # they share a run

TWO_CPUS = (
    "import tensorflow as tf\n"
    "one = tf.config.LogicalDeviceConfiguration()\n"
    "tf.config.set_logical_device_configuration(tf.config.list_physical_devices('CPU')[0], [one, one])\n"
)
EPOCHS = 3


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> list:
    """Tiny images and settings for them; the last batch of an epoch has one image, so that one device has none."""
    path = tmp_path_factory.mktemp("images") / "x.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 2, (51, 6, 5)).astype(np.uint8))
    words = "--model hvae --prior exemplar --hidden-units 4 --latent-dims 2 --warmup 2 --batch-size 10 --no-jit --patience 1000000"
    return [
        "train",
        "--dataset",
        f"npz:{path}",
        *words.split(),
        "--input-dropout",
        0.1,
        "--checkpoint-minutes",
        1e-9,
    ]


@pytest.fixture(scope="module")
def one(storm, small, tmp_path_factory):
    """The run of one device."""
    run = tmp_path_factory.mktemp("one") / "run"
    answer = storm(*small, "--epochs", EPOCHS, "--run-dir", run)
    assert answer["status"] == 0, answer
    return run


def check_equal(run, other):
    check_runs_agree(run, other, EPOCHS, 2e-5, 2e-3)


def test_two_devices_give_the_curve_of_one(storm, small, one, tmp_path):
    words = [*small, "--epochs", EPOCHS, "--run-dir", tmp_path / "run", "--strategy", "mirrored"]
    answer = storm(*words, python=TWO_CPUS, eager=False)
    assert answer["status"] == 0, answer
    check_equal(tmp_path / "run", one)
    # And one device goes on after an epoch of two.
    for path in checkpoints.found(tmp_path / "run" / "checkpoints")[:1]:
        path.unlink()
    answer = storm("train", "--resume", tmp_path / "run", "--strategy", "one")
    assert answer["status"] == 0, answer
    check_equal(tmp_path / "run", one)


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one_ in held:
        one_.bind(("127.0.0.1", 0))
    ports = [one_.getsockname()[1] for one_ in held]
    for one_ in held:
        one_.close()
    return ports


def start_two(storm, *words) -> list[int]:
    """Starts the command line in two processes of one cluster, and returns their ids, the chief's first."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    pids = []
    for index in (0, 1):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        python = f"import os; os.environ['TF_CONFIG'] = {json.dumps(task)!r}"
        pids.append(storm(*words, python=python, eager=False, detach=True)["pid"])
    return pids


def test_two_processes_give_the_curve_of_one(storm, one, tmp_path):
    """From epoch 1 to the end, on two processes, in a run that has lost its checkpoints."""
    run = shutil.copytree(one, tmp_path / "run")
    for path in checkpoints.found(run / "checkpoints"):
        path.unlink()
    for pid in start_two(storm, "train", "--resume", run, "--restart", "--strategy", "multiworker"):
        answer = storm.wait(pid)
        assert answer["status"] == 0, answer
    assert Run(run).rows() != Run(one).rows()  # trained again
    check_equal(run, one)


def test_two_processes_end_and_go_on_together(storm, small, tmp_path):
    """One of them is killed in the middle, and the other one says so; both are stopped by a signal to one; both go on."""
    run = tmp_path / "run"
    model = ("--model", "vae", "--prior", "standard")  # the smallest graph

    def after(rows: int) -> None:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not (
            (run / "history.csv").exists() and len(Run(run).rows()) >= rows
        ):
            time.sleep(0.1)

    chief, worker = start_two(
        storm, *small, *model, "--epochs", 10**6, "--run-dir", run, "--strategy", "multiworker"
    )
    after(1)
    os.kill(worker, signal.SIGKILL)
    assert storm.wait(worker)["status"] == -signal.SIGKILL
    answer = storm.wait(chief)
    assert answer["status"] == 1 and "another worker is gone" in answer["stderr"], answer
    assert f"go on with tfvamp train --resume {run}" in answer["stderr"]
    done = len(Run(run).rows())
    chief, worker = start_two(storm, "train", "--resume", run)
    after(done + 1)
    os.kill(worker, signal.SIGTERM)
    for answer in (storm.wait(chief), storm.wait(worker)):
        assert (
            answer["status"] == 143 and f"saved. Go on with: tfvamp train --resume {run}" in answer["stderr"]
        ), answer
    rows = Run(run).rows()
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON such as"),
        ("[]", "must be JSON such as"),
        ('{"cluster": {"worker": ["a:1"]}}', "must be JSON such as"),
        (
            '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
            "an address must be host:port; got 'a'",
        ),
        (
            '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
            "must be host:port; got 'a'",
        ),
        ('{"cluster": {"worker": ["a:99999"]}, "task": {"type": "worker", "index": 0}}', "must be host:port"),
        ('{"cluster": {"worker": [3]}, "task": {"type": "worker", "index": 0}}', "must be host:port; got 3"),
        (
            '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
            "an address of its own",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "'worker' 1 is not in the cluster",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": true}}',
            "is not in the cluster",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
            "'ps' 0 is not in the cluster",
        ),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": [1], "index": 0}}', "is not in the cluster"),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
            "names 'ps'",
        ),
    ],
)
def test_a_cluster_that_is_none(text, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match=message):
        strategies.devices_of("multiworker")


def test_the_chief_is_the_first_worker_or_the_one_that_is_named(monkeypatch):
    def config(kind, index):
        cluster = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
        monkeypatch.setenv(
            "TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
        )
        return strategies.cluster()

    assert config("chief", 0) == Cluster(["c:1", "a:1", "b:1"], 0) and config("chief", 0).chief
    assert config("worker", 1).index == 2 and not config("worker", 1).chief
    assert strategies.workers("multiworker") == 3 and strategies.workers("one") == 1
    assert strategies.is_chief("one") and not strategies.is_chief("auto")
    monkeypatch.delenv("TF_CONFIG")
    assert strategies.cluster() is None
    with pytest.raises(UsageError, match="needs the environment variable TF_CONFIG"):
        strategies.devices_of("multiworker")
    assert strategies.devices_of("auto") == Devices()  # this machine has one device


def test_several_workers_need_a_named_folder(monkeypatch, small_config):
    import dataclasses

    from tfvamp.training import train

    task = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    with pytest.raises(UsageError, match="name it with --run-dir"):
        train(dataclasses.replace(small_config, strategy="multiworker"))


def test_a_worker_that_never_joins_is_named():
    own, other = free_ports(2)
    start = time.monotonic()
    with pytest.raises(RunError, match=rf"the workers 127.0.0.1:{other} did not join within 300 seconds"):
        strategies.meet(
            Cluster([f"127.0.0.1:{own}", f"127.0.0.1:{other}"], 0), start + 1.0, lambda text: None
        )
    assert time.monotonic() - start < 10.0
    with socket.socket() as held:
        held.bind(("", own))
        held.listen()
        with pytest.raises(RunError, match=f"the port of 127.0.0.1:{own} is not free"):
            strategies.meet(Cluster([f"127.0.0.1:{own}", f"127.0.0.1:{other}"], 0), start, lambda text: None)


def test_workers_that_start_at_different_times_meet():
    addresses, said = [f"127.0.0.1:{port}" for port in free_ports(3)], []
    deadline, errors = time.monotonic() + 60.0, []

    def join(index):
        time.sleep(0.7 * index)
        try:
            strategies.meet(Cluster(addresses, index), deadline, said.append)
        except RunError as error:
            errors.append(error)

    threads = [threading.Thread(target=join, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and "worker 0 of 3 waits for the others" in said


def test_settings_that_do_not_go_with_several_devices():
    class Three:
        num_replicas_in_sync = 3

    def check(devices, num_examples=12, **settings):
        strategies.check(
            TrainConfig(**{"strategy": "mirrored", "batch_size": 3, **settings}), num_examples, devices
        )

    three = Devices(Three())
    with pytest.raises(UsageError, match="a batch of 2 images cannot be divided among 3 devices"):
        check(three, batch_size=2)
    with pytest.raises(UsageError, match="--on-nan skip goes with one device"):
        check(three, on_nan="skip")
    with pytest.raises(UsageError, match="clipnorm would act on the gradient of each of 3 devices"):
        check(three, optimizer="adam", optimizer_arguments={"clipnorm": 1.0})
    with pytest.raises(UsageError, match="the last batch of 14 images has 2, fewer than 3 devices"):
        check(three, 14, model="pixelhvae", batch_size=6)
    check(three, 15, model="pixelhvae", batch_size=6)
    check(three, 14, model="convhvae", batch_size=6)
    check(three)
    check(Devices(), batch_size=1, on_nan="skip", strategy="one")
    with pytest.raises(UsageError, match="device goes with the strategy one"):
        TrainConfig(device="cpu", strategy="mirrored")


def test_rows_of_a_batch():
    for total in range(9):
        for count in (1, 2, 3, 5):
            rows = replicas.rows_of(total, count)
            assert [row for start, end in rows for row in range(start, end)] == list(range(total))
            sizes = [end - start for start, end in rows]
            assert len(rows) == count and max(sizes) - min(sizes) <= 1


def test_workers_agree_on_a_signal_of_one_of_them():
    here = Agreement(lambda: False)
    here.take([0.0, 0.0])
    assert not here.stopping and not here.due and here.flag().numpy().tolist() == [0.0, 0.0]
    here.take([1.0, 2.0])  # others'
    assert here.stopping and here.due
    here.take([0.0, 0.0])
    assert here.stopping and not here.due  # which is so for one step
    assert Agreement(lambda: True, lambda: True).flag().numpy().tolist() == [1.0, 1.0]
