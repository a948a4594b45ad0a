"""Settings: round trip, defaults, presets, errors."""

import dataclasses
import inspect
import json
import tomllib

import numpy as np
import pytest

from tfvamp import config, models
from tfvamp.config import IMPORTANCE_SAMPLES, PRESETS, TrainConfig
from tfvamp.datasets import CATALOG
from tfvamp.errors import UsageError
from tfvamp.models import VAE
from tfvamp.runs import building


def test_json_round_trip():
    wanted = TrainConfig(dataset="caltech101", prior="mog", components=3, learning_rate=1e-3, limit=10)
    assert TrainConfig.from_dict(json.loads(json.dumps(wanted.to_dict()))) == wanted


def test_every_setting_has_a_help_text_that_is_a_sentence():
    for field, _ in config.fields():
        text = field.metadata["help"]
        assert text[0].isupper() and text.endswith("."), field.name


def test_resolve_takes_the_data_sets_defaults_and_keeps_what_was_given():
    spec = CATALOG["caltech101"]
    resolved = TrainConfig(dataset="caltech101").resolve(spec)
    assert (resolved.components, resolved.learning_rate, resolved.likelihood) == (500, 1e-4, "bernoulli")
    assert TrainConfig(dataset="caltech101", learning_rate=0.5).resolve(spec).learning_rate == 0.5
    assert resolved.resolve(spec) == resolved


def test_the_papers_preset():
    wanted = TrainConfig.from_preset("paper", dataset="caltech101")
    assert wanted.learning_rate == 5e-4
    assert wanted.resolve(CATALOG["caltech101"]).likelihood == "bernoulli-clipped"
    assert (wanted.batch_size, wanted.warmup, wanted.patience, wanted.epochs) == (100, 100, 50, 2000)
    assert TrainConfig.from_preset("paper", learning_rate=1e-4).learning_rate == 1e-4
    assert all(TrainConfig.from_preset(name).without_effect() == [] for name in PRESETS)


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
        ({"epochs": "many"}, "epochs must be of type int; got 'many'"),
        ({"epochs": True}, "epochs must be of type int; got True"),
        ({"epochs": 10**400}, "epochs must be at most 9007199254740992; got"),
        ({"objective": "iwea"}, r"unknown objective 'iwea'. Did you mean 'iwae'\?"),
        ({"objective": "iwae", "importance_samples": 0}, "importance_samples must be at least 1; got 0"),
        ({"num_samples": 0}, "num_samples must be at least 1; got 0"),
        ({"image_size": "64"}, "--image-size must be HxW, such as 64x64; got '64'"),
        ({"device": "tpu"}, "device must be cpu, gpu, or gpu:1 and so on; got 'tpu'"),
        ({"pseudo_input_init": "image"}, r"unknown pseudo input init 'image'. Did you mean 'images'\?"),
        ({"binarize": "yes"}, "unknown binarize 'yes'"),
        ({"importance_samples": 5}, "go with the objective iwae, not with elbo"),
        ({"dreg": True}, "go with the objective iwae, not with elbo"),
        ({"jit": 1}, "jit must be of type bool \\| None; got 1"),
    ],
)
def test_errors(settings, text):
    with pytest.raises(UsageError, match=text):
        TrainConfig.from_dict(settings)


def test_the_constructor_checks_types_too():
    with pytest.raises(UsageError, match="epochs must be of type int; got '3'"):
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
        match="the likelihood bernoulli does not fit faces, whose pixels have many levels: "
        "choose --likelihood logistic or logistic-paper",
    ):
        TrainConfig(likelihood="bernoulli").resolve(grey)
    with pytest.raises(UsageError, match="logistic does not fit caltech101, whose pixels are 0 or 1"):
        TrainConfig(likelihood="logistic").resolve(binary)


def test_the_number_of_importance_samples_follows_the_objective():
    spec = CATALOG["caltech101"]
    assert TrainConfig().resolve(spec).importance_samples is None
    assert TrainConfig(objective="iwae").resolve(spec).importance_samples == IMPORTANCE_SAMPLES == 5
    assert TrainConfig(objective="iwae", importance_samples=1).resolve(spec).importance_samples == 1
    assert VAE(objective="iwae").objective.samples_inside == 5
    assert VAE().objective.samples_inside == 1


def test_xla_where_it_is_faster():
    spec = CATALOG["caltech101"]
    assert building.resolve(TrainConfig(), spec).jit is True
    assert building.resolve(TrainConfig(model="convhvae"), spec).jit is False
    assert building.resolve(TrainConfig(model="convhvae", jit=True), spec).jit is True


def test_an_objective_that_the_model_does_not_have():
    wanted = TrainConfig(model="pixelhvae", objective="iwae", dreg=True)
    with pytest.raises(UsageError, match="PixelHVAE has no doubly reparameterised gradient"):
        building.resolve(wanted, CATALOG["caltech101"])


def test_names_of_choices_are_those_that_can_be_built():
    assert tuple(models.MODELS) == config.MODELS
    for name, kind in config.PRIORS.items():
        model = models.VAE(prior=name, components=3, pseudo_inputs=np.zeros((3, 28, 28, 1)), hidden_units=2)
        assert (model.prior.clipped_pseudo_inputs() is not None) == (kind.pseudo_inputs is not None)
        assert model.prior.is_mixture() == kind.mixture and getattr(model.prior, "num_components", None) in (
            None,
            3,
        )
    for name in config.LIKELIHOODS:
        assert models.likelihood_layer(name, (2, 2, 1)).event_shape == (2, 2, 1)


def test_a_setting_has_one_name_in_config_and_model():
    """What the model takes is what the settings of that name hold, with the same defaults."""
    parameters = inspect.signature(models.LatentVariableModel).parameters
    for name in config.names_of("model"):
        assert name in parameters, name
        if name not in ("components", "likelihood"):  # whose defaults are the data set's
            assert parameters[name].default == getattr(TrainConfig, name), name


def test_toml_gives_the_settings_back(tmp_path):
    wanted = TrainConfig(
        dataset='npz:a "b"\\\n\x7fü.npz', learning_rate=1e-5, jit=False, dreg=True, objective="iwae", limit=3
    )
    (tmp_path / "a.toml").write_text(wanted.to_toml())
    assert TrainConfig.from_dict(config.from_toml(tmp_path / "a.toml")) == wanted
    assert TrainConfig.from_dict(tomllib.loads(TrainConfig().to_toml())) == TrainConfig()


@pytest.mark.parametrize(
    "text, error",
    [
        ("epoch = 3", r"a.toml: unknown setting 'epoch'. Did you mean 'epochs'\?"),
        ("epochs = ", "a.toml is not TOML: Invalid value"),
        ("[train]\nepochs = 3", "a.toml: unknown setting 'train'"),
        ("a = " + 3000 * "[", "a.toml is not TOML|unknown setting"),
    ],
)
def test_what_a_toml_file_must_not_have(text, error, tmp_path):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(UsageError, match=error):
        config.from_toml(tmp_path / "a.toml")


def test_settings_without_effect_are_named():
    assert TrainConfig().without_effect() == []
    assert TrainConfig(prior="standard", components=3).without_effect() == [
        "components: the prior standard is no mixture"
    ]
    (text,) = TrainConfig(prior="vamp-data", pseudo_input_init="images").without_effect()
    assert text.startswith("pseudo_input_init: the prior vamp-data")
