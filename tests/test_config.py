"""Settings: round trip, defaults, presets, errors."""

import dataclasses
import json

import pytest

from tfvamp.config import PRESETS, TrainConfig
from tfvamp.datasets import CATALOG
from tfvamp.errors import UsageError
from tfvamp.models import VAE
from tfvamp.models.base import IMPORTANCE_SAMPLES


def test_json_round_trip():
    config = TrainConfig(dataset="caltech101", prior="mog", components=3, learning_rate=1e-3, limit=10)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_setting_has_a_docstring():
    for field in dataclasses.fields(TrainConfig):
        assert f"      {field.name}: " in TrainConfig.__doc__


def test_resolve_takes_the_data_sets_defaults_and_keeps_what_was_given():
    spec = CATALOG["caltech101"]
    resolved = TrainConfig(dataset="caltech101").resolve(spec)
    assert (resolved.components, resolved.learning_rate, resolved.likelihood) == (500, 1e-4, "bernoulli")
    assert TrainConfig(dataset="caltech101", learning_rate=0.5).resolve(spec).learning_rate == 0.5
    assert resolved.resolve(spec) == resolved


def test_the_papers_preset():
    config = TrainConfig.from_preset("paper", dataset="caltech101")
    assert config.learning_rate == 5e-4
    assert config.resolve(CATALOG["caltech101"]).likelihood == "bernoulli-clipped"
    assert (config.batch_size, config.warmup, config.patience, config.epochs) == (100, 100, 50, 2000)
    assert TrainConfig.from_preset("paper", learning_rate=1e-4).learning_rate == 1e-4
    assert all(TrainConfig.from_preset(name) for name in PRESETS)


@pytest.mark.parametrize(
    "settings, text",
    [
        (
            {"dataset": "mnist5"},
            r"unknown data set 'mnist5'. Did you mean 'mnist5k'\? Choose one of: mnist5k, static_mnist",
        ),
        ({"model": "vea"}, r"unknown model 'vea'. Did you mean 'vae'\?"),
        (
            {"prior": "xyz"},
            "unknown prior 'xyz'. Choose one of: standard, mog, vamp, vamp-data, vamp-weighted",
        ),
        ({"likelihood": "bernouli"}, r"unknown likelihood 'bernouli'. Did you mean 'bernoulli'\?"),
        ({"components": 0}, "components must be at least 1; got 0"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"batch_size": -3}, "batch_size must be at least 1; got -3"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number; got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive number; got nan"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
        ({"seed": 2**31}, "seed must be at most 2147483647; got 2147483648"),
        ({"learning_rat": 1.0}, r"unknown setting 'learning_rat'. Did you mean 'learning_rate'\?"),
        ({"epochs": "many"}, "setting 'epochs' must be of type int; got 'many'"),
        ({"epochs": True}, "setting 'epochs' must be of type int; got True"),
        ({"objective": "iwea"}, r"unknown objective 'iwea'. Did you mean 'iwae'\?"),
        ({"objective": "iwae", "importance_samples": 0}, "must be at least 1; got 1 and 0"),
        ({"num_samples": 0}, "must be at least 1; got 0 and 1"),
        ({"importance_samples": 5}, "go with the objective iwae, not with elbo"),
        ({"dreg": True}, "go with the objective iwae, not with elbo"),
        (
            {"model": "pixelhvae", "objective": "iwae", "dreg": True},
            "PixelHVAE has no doubly reparameterised gradient",
        ),
        ({"jit": 1}, "setting 'jit' must be of type bool \\| None; got 1"),
    ],
)
def test_errors(settings, text):
    with pytest.raises(UsageError, match=text):
        TrainConfig.from_dict(settings)


def test_the_constructor_checks_types_too():
    with pytest.raises(UsageError, match="setting 'epochs' must be of type int; got '3'"):
        TrainConfig(epochs="3")


def test_unknown_preset():
    with pytest.raises(UsageError, match=r"unknown preset 'papr'. Did you mean 'paper'\?"):
        TrainConfig.from_preset("papr")


def test_likelihoods_fit_the_data():
    """Those of binary pixels, those of grey ones, and the paper's of either."""
    binary = CATALOG["caltech101"]
    grey = dataclasses.replace(binary, name="faces", likelihood="logistic")
    assert TrainConfig(likelihood="paper").resolve(binary).likelihood == "bernoulli-clipped"
    assert TrainConfig(likelihood="paper").resolve(grey).likelihood == "logistic-paper"
    assert TrainConfig().resolve(grey).likelihood == "logistic"
    with pytest.raises(
        UsageError,
        match="the likelihood bernoulli does not fit faces, whose pixels are grey: "
        "choose --likelihood logistic or logistic-paper",
    ):
        TrainConfig(likelihood="bernoulli").resolve(grey)
    with pytest.raises(UsageError, match="logistic does not fit caltech101, whose pixels are 0 or 1"):
        TrainConfig(likelihood="logistic").resolve(binary)


def test_the_number_of_importance_samples_follows_the_objective():
    spec = CATALOG["caltech101"]
    assert TrainConfig().resolve(spec).importance_samples == 1
    assert TrainConfig(objective="iwae").resolve(spec).importance_samples == IMPORTANCE_SAMPLES == 5
    assert TrainConfig(objective="iwae", importance_samples=1).resolve(spec).importance_samples == 1
    assert VAE(objective="iwae").objective.num_importance_samples == 5


def test_xla_where_it_is_faster():
    spec = CATALOG["caltech101"]
    assert TrainConfig().resolve(spec).jit is True
    assert TrainConfig(model="convhvae").resolve(spec).jit is False
    assert TrainConfig(model="convhvae", jit=True).resolve(spec).jit is True
