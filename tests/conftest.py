"""Shared fixtures: small data, small models, the real files where they are."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# XLA compiles as always, but LLVM optimises nothing: a compiled program runs for milliseconds here. Values agree all the
# same, as the tests show; processes that the tests start inherit it.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)
# The key that signs run folders, of the tests alone; processes that they start inherit it.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="tfvamp-tests-")

import numpy as np
import pytest
import tensorflow as tf

import tfvamp
from tests.storm import Storm, small_blocks
from tfvamp.config import TrainConfig
from tfvamp.networks import conv, pixelcnn
from tfvamp.runs import Run, building
from tfvamp.training import checkpoints

# The published source files, where a checkout has them beside it or a variable says where.
REAL_RAW_DIR = pathlib.Path(
    os.environ.get("TFVAMP_TEST_RAW_DIR", pathlib.Path(__file__).parents[2] / "shared" / "data" / "raw")
)


def pytest_collection_modifyitems(items):
    """Tests that stay together on one core come first, so that none of these groups is left for the end."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    """Prepared data, made once a session."""
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def real_raw_dir() -> pathlib.Path:
    if not REAL_RAW_DIR.is_dir():
        pytest.skip("the published source files are not here (set TFVAMP_TEST_RAW_DIR)")
    return REAL_RAW_DIR


@contextlib.contextmanager
def eagerly():
    """TensorFlow functions run op by op: on small models faster than being compiled for a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch.setattr)
        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def eager():
    """As `eagerly`, in one test."""
    with eagerly():
        yield


@pytest.fixture(scope="session")
def storm():
    """Processes of their own, for which TensorFlow is imported once a session."""
    process = Storm(TF_CPP_MIN_LOG_LEVEL="3")
    yield process
    process.close()


def check_runs_agree(run, other, epochs: int, of_rows: float, of_weights: float):
    """Two histories agree except for rounding, and so do the weights and the moments of the optimiser; with these relative errors."""
    ours, theirs = Run(run).rows(), Run(other).rows()
    assert len(ours) == len(theirs) == epochs
    for a, b in zip(ours, theirs, strict=True):
        for name in set(a) - {"seconds"}:
            assert a[name] == pytest.approx(b[name], rel=of_rows), name
    newest = [checkpoints.found(folder / "checkpoints")[0] for folder in (run, other)]
    with np.load(newest[0]) as a, np.load(newest[1]) as b:
        for name in sorted(set(a) - {"meta", "best"}):
            np.testing.assert_allclose(a[name], b[name], rtol=of_weights, atol=of_weights / 100)


@pytest.fixture
def images() -> np.ndarray:
    """Eight binary images [8, 6, 5, 1]."""
    return np.random.default_rng(0).integers(0, 2, (8, 6, 5, 1)).astype(np.float32)


@pytest.fixture(scope="session")
def small_config(data_dir) -> TrainConfig:
    """A run of seconds, of two steps per epoch."""
    return TrainConfig(
        dataset="mnist5k",
        components=7,
        hidden_units=12,
        latent_dims=4,
        epochs=3,
        warmup=2,
        batch_size=30,
        limit=60,
        jit=False,
        data_dir=data_dir,
    )


@pytest.fixture(scope="session")
def trained(small_config, tmp_path_factory) -> pathlib.Path:
    """The run folder of `small_config`, trained once; not to be changed."""
    path = tmp_path_factory.mktemp("trained") / "run"
    with eagerly():
        tfvamp.train(small_config, path)
    return path


@pytest.fixture(scope="session")
def evaluated_runs(small_config, trained, tmp_path_factory) -> pathlib.Path:
    """Runs of two learning rates and two seeds, evaluated on the same images; and one that is not evaluated.

    Not to be changed; its tests are in the group "comparing", so that one process makes them.
    """
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(trained, folder / "a")
    shutil.copytree(trained, folder / "none")
    with eagerly():
        tfvamp.train(dataclasses.replace(small_config, learning_rate=1e-2), folder / "b")
        tfvamp.train(dataclasses.replace(small_config, seed=1), folder / "c")
        for name in "abc":
            tfvamp.evaluate(folder / name, 20, limit=30, refine_steps=2)
    return folder


@pytest.fixture
def run(trained, tmp_path) -> pathlib.Path:
    """A copy of the trained run, to be changed, resumed and damaged."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


def small_model(kind: type, prior: str = "vamp", event_shape=(6, 5, 1), **kwargs):
    """An untrained model with D = 3, K = 5, 8 hidden units."""
    tf.keras.utils.set_random_seed(3)
    pseudo_inputs = np.random.default_rng(1).uniform(0.2, 0.8, (5, *event_shape)).astype(np.float32)
    return kind(
        event_shape=event_shape,
        latent_dims=3,
        hidden_units=8,
        prior=prior,
        components=5,
        pseudo_inputs=pseudo_inputs,
        **kwargs,
    )


def small_vae(prior: str = "vamp", **kwargs) -> tfvamp.models.VAE:
    return small_model(tfvamp.models.VAE, prior, **kwargs)


def small_hvae(prior: str = "vamp", **kwargs) -> tfvamp.models.HVAE:
    return small_model(tfvamp.models.HVAE, prior, **kwargs)


def shallow_networks(setattr) -> None:
    """Convolutional networks made from here on have fewer layers and filters, but each kind of layer.

    For tests of what does not depend on how many there are; the real depths are seen to by test_conv.py,
    test_pixelcnn.py, the twins and the counts of weights.
    """
    setattr(conv, "ENCODER", ((8, 7, 1), (8, 3, 2), (6, 3, 2)))
    setattr(conv, "JOINT_ENCODER", ((8, 3, 1), (8, 3, 2), (6, 3, 2)))
    setattr(conv, "DECODER", ((8, 3, 1),) * 2)
    setattr(pixelcnn, "FILTERS", 8)
    setattr(pixelcnn, "NUM_LAYERS", 3)


@pytest.fixture
def shallow(monkeypatch):
    """As `shallow_networks`, in one test."""
    shallow_networks(monkeypatch.setattr)
    building._weight_shapes.cache_clear()  # the same settings have other weights meanwhile
    yield
    building._weight_shapes.cache_clear()


def build_optimizer(model) -> None:
    """Makes the optimiser's variables now: `fit` traces a step twice when they are made in it."""
    model.optimizer.build(model.trainable_variables)
