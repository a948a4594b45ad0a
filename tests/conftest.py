"""Shared fixtures: small data, small models, the real files where they are."""

from __future__ import annotations

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf

import tfvamp
from tfvamp.config import TrainConfig

# The published source files, where a checkout has them beside it or a variable says where.
REAL_RAW_DIR = pathlib.Path(
    os.environ.get("TFVAMP_TEST_RAW_DIR", pathlib.Path(__file__).parents[2] / "shared" / "data" / "raw")
)


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
def images() -> np.ndarray:
    """Eight binary images [8, 6, 5, 1]."""
    return np.random.default_rng(0).integers(0, 2, (8, 6, 5, 1)).astype(np.float32)


@pytest.fixture
def small_config(data_dir) -> TrainConfig:
    """A run of seconds."""
    return TrainConfig(
        dataset="mnist5k",
        components=7,
        hidden_units=12,
        latent_dims=4,
        epochs=3,
        warmup=2,
        batch_size=30,
        limit=100,
        jit=False,
        data_dir=data_dir,
    )


def small_model(kind: type, prior: str = "vamp", event_shape=(6, 5, 1), **kwargs):
    """An untrained model with D = 3, K = 5, 8 hidden units."""
    tf.keras.utils.set_random_seed(3)
    pseudo_inputs = np.random.default_rng(1).uniform(0.2, 0.8, (5, *event_shape)).astype(np.float32)
    return kind(
        event_shape=event_shape,
        latent_dims=3,
        hidden_units=8,
        prior=prior,
        num_components=5,
        pseudo_inputs=pseudo_inputs,
        **kwargs,
    )


def small_vae(prior: str = "vamp", **kwargs) -> tfvamp.models.VAE:
    return small_model(tfvamp.models.VAE, prior, **kwargs)


def small_hvae(prior: str = "vamp", **kwargs) -> tfvamp.models.HVAE:
    return small_model(tfvamp.models.HVAE, prior, **kwargs)
