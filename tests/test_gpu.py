"""On a GPU: steps, whole runs, two devices and log-likelihoods agree with the CPU's."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.small import check_runs_agree, small_vae
from tfvamp import devices
from tfvamp.training import checkpoints

pytestmark = [
    pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="there is no GPU here"),
    pytest.mark.xdist_group("gpu"),  # they share runs
]

# In a process of its own: some of a GPU's memory, twice.
TWO_GPUS = (
    "import tensorflow as tf\n"
    "one = tf.config.LogicalDeviceConfiguration(memory_limit=1024)\n"
    "tf.config.set_logical_device_configuration(tf.config.list_physical_devices('GPU')[0], [one, one])\n"
)
EPOCHS = 2


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> list:
    """Tiny images and settings for them; the last batch of an epoch has one image, so that one of two devices has none."""
    path = tmp_path_factory.mktemp("images") / "x.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 2, (51, 6, 5)).astype(np.uint8))
    words = "--model hvae --prior vamp --components 7 --hidden-units 4 --latent-dims 2 --warmup 2 --batch-size 10 --patience 1000000"
    return ["train", "--dataset", f"npz:{path}", *words.split(), "--epochs", EPOCHS]


@pytest.fixture(scope="module")
def on_the_cpu(storm, small, tmp_path_factory):
    """The run of the CPU."""
    run = tmp_path_factory.mktemp("cpu") / "run"
    answer = storm(*small, "--run-dir", run, "--device", "cpu", eager=False)
    assert answer["status"] == 0, answer
    return run


def check_equal(run, other):
    check_runs_agree(run, other, EPOCHS, 1e-4, 5e-3)


@pytest.mark.parametrize(
    "prior", ["standard", "mog", "vamp", "vamp-data", "vamp-weighted", "flow", "exemplar"]
)
def test_a_step_agrees_with_the_cpu(prior, images):
    """By plain gradient steps: Adam makes whole steps of gradients that are 0 except for rounding."""
    logs, weights = {}, {}
    for device in ("cpu", "gpu"):
        with devices.on(device):
            model = small_vae(prior)
            model.compile(optimizer=keras.optimizers.SGD(1e-3))
            step = tf.function(model.train_step, jit_compile=True, autograph=False)
            for _ in range(3):
                given = {"image": images, "index": np.arange(8) % 5} if model.prior.uses_indices else images
                result = step(tf.nest.map_structure(tf.constant, given))
            logs[device] = {name: float(value) for name, value in result.items()}
            assert f"{device.upper()}:0" in model.trainable_variables[0].value.device
            weights[device] = [variable.numpy() for variable in model.trainable_variables]
    for cpu, gpu in zip(weights["cpu"], weights["gpu"], strict=True):
        np.testing.assert_allclose(gpu, cpu, rtol=1e-4, atol=1e-5)
    for name, value in logs["cpu"].items():
        np.testing.assert_allclose(logs["gpu"][name], value, rtol=1e-4)


@pytest.mark.parametrize("jit", ["--jit", "--no-jit"])
def test_a_run_gives_the_curve_of_the_cpu(storm, small, on_the_cpu, tmp_path, jit):
    answer = storm(*small, jit, "--run-dir", tmp_path / "run", eager=False)
    assert answer["status"] == 0, answer
    check_equal(tmp_path / "run", on_the_cpu)


def test_two_devices_give_the_curve_of_the_cpu(storm, small, on_the_cpu, tmp_path):
    words = [*small, "--run-dir", tmp_path / "run", "--strategy", "mirrored"]
    answer = storm(*words, python=TWO_GPUS, eager=False)
    assert answer["status"] == 0, answer
    check_equal(tmp_path / "run", on_the_cpu)


def test_a_resumed_run_equals_the_unbroken_one(storm, small, tmp_path):
    """With deterministic operations, bit for bit."""
    words = [*small, "--deterministic", "--checkpoint-minutes", 1e-9]
    for name, kill in (("unbroken", {}), ("resumed", {"kill_at": 60})):
        answer = storm(*words, "--run-dir", tmp_path / name, eager=False, **kill)
        if kill:
            assert answer["status"] == -9, answer
            answer = storm("train", "--resume", tmp_path / name, eager=False)
        assert answer["status"] == 0, answer
    ours, theirs = (checkpoints.found(tmp_path / name / "checkpoints")[0] for name in ("unbroken", "resumed"))
    with np.load(ours) as a, np.load(theirs) as b:
        for name in sorted(set(a) - {"meta"}):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_log_likelihood_agrees_with_the_cpu(storm, on_the_cpu):
    """Of the encoder's samples; refined proposals and chains follow rounding."""
    found = []
    for device in ("cpu", "gpu"):
        words = ["--samples", 50, "--limit", 5, "--proposal", "encoder", "--device", device]
        answer = storm("evaluate", on_the_cpu, *words, eager=False)
        assert answer["status"] == 0, answer
        found.append(json.loads((on_the_cpu / "evaluation.json").read_text())["log_likelihood"])
    assert found[1] == pytest.approx(found[0], abs=1e-4)
