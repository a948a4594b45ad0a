"""Shared fixtures: small data, small models, the real files where they are."""

from __future__ import annotations

import atexit
import dataclasses
import gc
import importlib.metadata
import os
import pathlib
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# XLA compiles as always, but LLVM optimises nothing, and the older of XLA's two code generators is the faster one to
# compile: a compiled program runs for milliseconds here. Values agree all the same, as the tests show; processes that the
# tests start inherit it. A flag that XLA does not know ends the process, so that this depends on the version.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false" * importlib.metadata.version("tensorflow").startswith("2.21."),
    ]
)
# The key that signs run folders, of the tests alone; processes that they start inherit it.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="tfvamp-tests-")

import numpy as np
import pytest

from tests.storm import Storm

# TensorFlow is imported by the fixtures that need it: the process that only hands out the tests does without.

# The published source files, where a checkout has them beside it or a variable says where.
REAL_RAW_DIR = pathlib.Path(
    os.environ.get("TFVAMP_TEST_RAW_DIR", pathlib.Path(__file__).parents[2] / "shared" / "data" / "raw")
)


def pytest_collection_modifyitems(items):
    """Tests that stay together on one core come first, so that none of these groups is left for the end."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def pytest_collection_finish():
    """Leaves what is imported by now, a million objects, out of garbage collection."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    atexit.register(gc.freeze)


def pytest_make_parametrize_id(val) -> str | None:
    """Names a test of long text by its beginning: names travel between processes, and some texts have 30 MB."""
    return f"{val[:40]!r}..." if isinstance(val, (str, bytes)) and len(val) > 100 else None


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    """Prepared data, made once a session."""
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def real_raw_dir() -> pathlib.Path:
    if not REAL_RAW_DIR.is_dir():
        pytest.skip("the published source files are not here (set TFVAMP_TEST_RAW_DIR)")
    return REAL_RAW_DIR


@pytest.fixture
def eager():
    """As `small.eagerly`, in one test."""
    from tests import small

    with small.eagerly():
        yield


@pytest.fixture(scope="session")
def storm():
    """Processes of their own, for which TensorFlow is imported once a session."""
    process = Storm(TF_CPP_MIN_LOG_LEVEL="3")
    yield process
    process.close()


@pytest.fixture
def images() -> np.ndarray:
    """Eight binary images [8, 6, 5, 1]."""
    return np.random.default_rng(0).integers(0, 2, (8, 6, 5, 1)).astype(np.float32)


@pytest.fixture(scope="session")
def small_config(data_dir):
    """A run of seconds, of two steps per epoch."""
    from tfvamp.config import TrainConfig

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
    import tfvamp
    from tests import small

    path = tmp_path_factory.mktemp("trained") / "run"
    with small.eagerly():
        tfvamp.train(small_config, path)
    return path


@pytest.fixture(scope="session")
def evaluated_runs(small_config, trained, tmp_path_factory) -> pathlib.Path:
    """Runs of two learning rates and two seeds, evaluated on the same images; and one that is not evaluated.

    Not to be changed; its tests are in the group "comparing", so that one process makes them.
    """
    import tfvamp
    from tests import small

    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(trained, folder / "a")
    shutil.copytree(trained, folder / "none")
    with small.eagerly():
        tfvamp.train(dataclasses.replace(small_config, learning_rate=1e-2), folder / "b")
        tfvamp.train(dataclasses.replace(small_config, seed=1), folder / "c")
        for name in "abc":
            tfvamp.evaluate(folder / name, 20, limit=30, refine_steps=2)
    return folder


@pytest.fixture
def run(trained, tmp_path) -> pathlib.Path:
    """A copy of the trained run, to be changed, resumed and damaged."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def shallow(monkeypatch):
    """As `small.shallow_networks`, in one test."""
    from tests import small
    from tfvamp.runs import building

    small.shallow_networks(monkeypatch.setattr)
    building._weight_shapes.cache_clear()  # the same settings have other weights meanwhile
    yield
    building._weight_shapes.cache_clear()
