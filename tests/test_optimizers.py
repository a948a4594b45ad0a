"""The settings of a study: optimisers, schedules, averages, decay, noise on the encoder's input, what chooses the best epoch."""

import dataclasses
import io
import math

import keras
import numpy as np
import pytest
import rich.console
import tensorflow as tf
from click.testing import CliRunner

import tfvamp
from tests.small import build_optimizer, small_model, small_vae
from tfvamp import objectives, seeds, training
from tfvamp.catalog import CATALOG
from tfvamp.config import OPTIMIZERS, PRIORS, TrainConfig, from_toml
from tfvamp.errors import UsageError
from tfvamp.networks.images import unchecked
from tfvamp.optimizers import KINDS, averaged, optimizer_of
from tfvamp.runs import Run, history
from tfvamp.training import checkpoints
from tfvamp.training.schedules import learning_rate
from tfvamp.training.steps import compile_model
from tfvamp_cli.main import main

CONFIG = TrainConfig(learning_rate=0.01, components=5, epochs=20, warmup=0)


def variables() -> list[tf.Variable]:
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    return [keras.Variable(values, name="matrix"), keras.Variable(values[0], name="vector")]


def gradients(step: int) -> list[tf.Tensor]:
    rng = np.random.default_rng(step + 1)
    return [tf.constant(rng.normal(size=shape), tf.float32) for shape in ((4, 3), (3,))]


def after(optimizer, steps: int = 4) -> list[np.ndarray]:
    """Two variables after some steps on the same gradients."""
    ours = variables()
    optimizer.build(ours)
    for step in range(steps):
        optimizer.apply_gradients(zip(gradients(step), ours, strict=True))
    return [variable.numpy() for variable in ours]


def test_every_optimizer_of_keras_has_its_name():
    assert set(KINDS) == set(OPTIMIZERS)
    assert all(issubclass(kind, keras.optimizers.Optimizer) for kind in KINDS.values())


@pytest.mark.parametrize("name", OPTIMIZERS[1:])
def test_an_optimizer_by_name_is_that_of_keras(name):
    config = dataclasses.replace(CONFIG, optimizer=name, optimizer_arguments={"clipnorm": 0.7})
    ours = after(optimizer_of(config))
    # Two of them decay weights unless they are told otherwise; here the setting weight_decay, which is 0, tells them.
    decay = {"adamw": ("weight_decay",), "muon": ("weight_decay", "adam_weight_decay")}.get(name, ())
    theirs = after(KINDS[name](learning_rate=0.01, clipnorm=0.7, **dict.fromkeys(decay, 0.0)))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_default_optimizer_takes_the_arguments_of_adam():
    config = dataclasses.replace(CONFIG, optimizer_arguments={"beta_1": 0.8, "clipnorm": 1.0})
    optimizer = optimizer_of(config)
    assert optimizer.beta_1 == 0.8 and optimizer.clipnorm == 1.0
    for name in ("gradient_accumulation_steps", "loss_scale_factor"):
        with pytest.raises(UsageError, match=f"unknown argument of normalized-adam '{name}'"):
            optimizer_of(dataclasses.replace(CONFIG, optimizer_arguments={name: 4}))


def test_arguments_of_the_optimizer_from_a_file(tmp_path):
    config = dataclasses.replace(
        CONFIG, optimizer="adam", optimizer_arguments={"beta_1": 0.5, "amsgrad": True}
    )
    (tmp_path / "study.toml").write_text(config.to_toml())
    again = TrainConfig.from_dict(from_toml(tmp_path / "study.toml"))
    assert again == config
    theirs = after(keras.optimizers.Adam(0.01, beta_1=0.5, amsgrad=True))
    for a, b in zip(after(optimizer_of(again)), theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta1": 0.5}, "unknown argument of adam 'beta1'.*beta_1"),
        ({"learning_rate": 0.5}, "learning_rate has settings of its own"),
        ({"ema_momentum": 0.5}, "ema_momentum has settings of its own"),
        ({"clipnorm": -1.0, "clipvalue": 1.0}, "do not fit adam"),
    ],
)
def test_arguments_that_an_optimizer_does_not_take(arguments, message):
    config = dataclasses.replace(CONFIG, optimizer="adam", optimizer_arguments=arguments)
    with pytest.raises(UsageError, match=message):
        optimizer_of(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average": 1.0}, "average must be below 1"),
        ({"average": -0.1}, "average must be at least 0"),
        ({"input_dropout": 1.0}, "input_dropout must be at most 0.99"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'.*cosine"),
        ({"optimizer": "adma"}, "unknown optimizer 'adma'.*adam"),
        ({"optimizer_arguments": [1]}, "optimizer_arguments must be of type dict"),
        ({"optimizer_arguments": {"beta_1": {"a": 1}}}, "must be a flat table of numbers"),
        ({"optimizer_arguments": {"beta_1": [0.1]}}, "must be a flat table of numbers"),
        ({"on_nan": "skip", "mixed_precision": True}, "on_nan skip goes without mixed_precision"),
        ({"device": "cpu", "strategy": "auto"}, "device goes with the strategy one"),
        ({"stop_by": "iwae", "beta": 0.5}, "stop_by iwae goes with beta 1"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**settings)


def test_settings_without_effect_are_said():
    config = TrainConfig(
        schedule_floor=0.5, plateau_patience=3, weight_decay_of="both", elbo_epochs=4, stop_by="iwae"
    )
    said = {text.partition(":")[0] for text in config.without_effect()}
    assert said == {"schedule_floor", "plateau_patience", "weight_decay_of", "elbo_epochs", "stop_by"}
    assert TrainConfig().without_effect() == []


# --- schedules ---


def rows_of(bounds) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "val_elbo": bound, "val_reconstruction": bound, "val_kl": 0.0}
        for epoch, bound in enumerate(bounds, start=1)
    ]


def test_a_constant_and_a_cosine_by_hand():
    assert learning_rate(CONFIG, rows_of([-1.0] * 7)) == 0.01
    cosine = dataclasses.replace(CONFIG, schedule="cosine", schedule_epochs=10, schedule_floor=0.1)
    rates = [learning_rate(cosine, rows_of([-1.0] * done)) for done in (0, 5, 10, 19)]
    np.testing.assert_allclose(rates, [0.01, 0.0055, 0.001, 0.001], rtol=1e-12)
    ends = dataclasses.replace(CONFIG, schedule="cosine")  # over all epochs
    assert ends.resolve(CATALOG["mnist5k"]).schedule_epochs == 20  # also when more epochs follow
    theirs = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=20, alpha=0.01)
    for done in (0, 3, 11, 19):
        assert learning_rate(ends, rows_of([-1.0] * done)) == pytest.approx(float(theirs(done)), rel=1e-5)


def test_a_plateau_by_hand():
    config = dataclasses.replace(
        CONFIG, schedule="plateau", plateau_patience=2, plateau_factor=0.5, schedule_floor=0.2, warmup=3
    )
    #         warm-up      best  -    plateau  best  -    plateau  -   plateau, at the floor
    bounds = [-5.0, -9.0, -4.0, -6.0, -6.0, -3.0, -3.0, -4.0, -4.0, -4.0]
    rates = [learning_rate(config, rows_of(bounds[:done])) for done in range(len(bounds) + 1)]
    np.testing.assert_allclose(
        np.array(rates) / 0.01, [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2], rtol=1e-12
    )


@pytest.mark.usefixtures("eager")
def test_the_schedule_of_a_run_is_in_its_history_and_is_resumed(small_config, tmp_path):
    console = rich.console.Console(file=io.StringIO(), width=300)
    config = dataclasses.replace(small_config, schedule="cosine", schedule_epochs=4, checkpoint_minutes=1e-9)
    outcome = training.train(config, tmp_path / "run", console=console)
    assert "the schedule (4 epochs) is longer than the training (3)" in console.file.getvalue()
    rows = Run(tmp_path / "run").rows()
    rates = [learning_rate(Run(tmp_path / "run").config, rows[:done]) for done in range(3)]
    assert [row["learning_rate"] for row in rows] == rates and rates[0] > rates[1] > rates[2]
    assert list(rows[0])[-2:] == ["learning_rate", "seconds"]
    assert float(outcome.model.optimizer.learning_rate) == pytest.approx(rates[2])
    checkpoints.found(tmp_path / "run" / "checkpoints")[0].unlink()  # back into the last epoch
    training.resume(tmp_path / "run")
    again = Run(tmp_path / "run").rows()
    assert [row | {"seconds": 0} for row in again] == [row | {"seconds": 0} for row in rows]


# --- two learning rates ---


@pytest.mark.parametrize(
    ("name", "prior"),
    [
        ("normalized-adam", "vamp"),
        ("adamw", "vamp"),
        ("sgd", "flow"),
        ("sgd", "exemplar"),
        ("sgd", "standard"),
    ],
)
def test_the_prior_has_a_learning_rate_of_its_own(name, prior, images):
    """Its own variables move three times as far in a step, those of the networks as far as before."""
    moved = []
    for rate in (None, 3e-3):
        model = small_vae(prior)
        config = dataclasses.replace(CONFIG, optimizer=name, learning_rate=1e-3, prior_learning_rate=rate)
        compile_model(model, config)
        own = {id(variable) for variable in model.variables_of_prior()}
        before = [variable.numpy() for variable in model.trainable_variables]
        given = {"image": images, "index": np.arange(8) % 5} if model.prior.uses_indices else images
        model.train_step(tf.nest.map_structure(tf.constant, given))
        moved.append([a.numpy() - b for a, b in zip(model.trainable_variables, before, strict=True)])
    assert len(own) == {"vamp": 1, "exemplar": 1, "standard": 0}.get(prior, len(own)) and (
        own or prior == "standard"
    )
    for variable, slow, fast in zip(model.trainable_variables, *moved, strict=True):
        expected = slow * (3.0 if id(variable) in own else 1.0)
        np.testing.assert_allclose(fast, expected, rtol=2e-3, atol=2e-7, err_msg=variable.path)


@pytest.mark.parametrize("prior", PRIORS)
def test_priors_without_variables_say_so(prior):
    config = TrainConfig(prior=prior, prior_learning_rate=1e-3)
    said = [text for text in config.without_effect() if text.startswith("prior_learning_rate")]
    assert bool(said) == (not small_vae(prior).variables_of_prior())


# --- averages ---


def test_averages_by_hand():
    config = dataclasses.replace(CONFIG, optimizer="sgd", average=0.9)
    optimizer, ours = optimizer_of(config), variables()
    optimizer.build(ours)
    expected = None
    for step in range(4):
        optimizer.apply_gradients(zip(gradients(step), ours, strict=True))
        value = ours[0].numpy()
        expected = value if expected is None else 0.9 * expected + 0.1 * value
    own = ours[0].numpy()

    class Model:
        trainable_variables = ours

    Model.optimizer = optimizer
    with averaged(Model):
        np.testing.assert_allclose(ours[0].numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(ours[0].numpy(), own)


def test_averages_start_at_the_weights_where_the_first_step_is_skipped(images):
    model = small_model(tfvamp.models.VAE)
    compile_model(model, dataclasses.replace(CONFIG, average=0.9, on_nan="skip"))
    model.check_inputs = False
    before = [variable.numpy() for variable in model.trainable_variables]
    with unchecked():
        assert float(model.train_step(tf.constant(images * np.nan))["skipped"]) == 1.0
        with averaged(model):
            for variable, value in zip(model.trainable_variables, before, strict=True):
                np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.usefixtures("eager")
def test_a_run_with_averages(small_config, trained, tmp_path):
    """Training is that of the plain run; validation and the best weights are those of the averages; resuming is not seen."""
    config = dataclasses.replace(small_config, average=0.6, checkpoint_minutes=1e-9)
    outcome = training.train(config, tmp_path / "run")
    plain, rows = Run(trained).rows(), Run(tmp_path / "run").rows()
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in plain]
    assert all(a["val_elbo"] != b["val_elbo"] for a, b in zip(rows, plain, strict=True))
    best = [
        variable.numpy() for variable in outcome.model.trainable_variables
    ]  # of the last epoch, as it is the best
    assert outcome.best_epoch == 3
    newest = checkpoints.found(tmp_path / "run" / "checkpoints")
    with averaged(outcome.model):
        for a, b in zip(outcome.model.trainable_variables, best, strict=True):
            np.testing.assert_array_equal(a.numpy(), b)
    newest[0].unlink()  # back into the last epoch
    again = training.resume(tmp_path / "run")
    assert [row | {"seconds": 0} for row in Run(tmp_path / "run").rows()] == [
        row | {"seconds": 0} for row in rows
    ]
    for a, b in zip(again.model.trainable_variables, best, strict=True):
        np.testing.assert_array_equal(a.numpy(), b)


# --- weight decay ---


@pytest.mark.parametrize("which", ["decoder", "encoder", "both"])
def test_weight_decay_shrinks_the_matrices_of_its_networks_alone(which):
    model = small_model(tfvamp.models.HVAE)
    config = dataclasses.replace(
        CONFIG, optimizer="sgd", learning_rate=0.1, weight_decay=0.5, weight_decay_of=which
    )
    compile_model(model, config)
    before = [variable.numpy() for variable in model.trainable_variables]
    zeros = [tf.zeros(variable.shape) for variable in model.trainable_variables]
    model.optimizer.apply_gradients(zip(zeros, model.trainable_variables, strict=True))
    shrunk = set()
    for variable, value in zip(model.trainable_variables, before, strict=True):
        if np.any(variable.numpy() != value):
            np.testing.assert_allclose(variable.numpy(), value * (1 - 0.1 * 0.5), rtol=1e-6)
            shrunk.add(variable.path)
    names = {"encoder": ("encoder", "encoder_z1"), "decoder": ("decoder", "prior_z1")}
    wanted = names["encoder"] + names["decoder"] if which == "both" else names[which]
    expected = {
        variable.path
        for variable in model.trainable_variables
        if len(variable.shape) > 1 and any(f"/{name}/" in f"/{variable.path}" for name in wanted)
    }
    assert shrunk == expected and len(shrunk) > 5
    assert not any("pseudo" in path for path in shrunk)


# --- noise on the encoder's input ---


def test_input_dropout_changes_the_posterior_alone(images):
    """The share that is dropped, the mean that stays; the decoder explains the whole image; the prior encodes whole ones."""
    model = small_model(tfvamp.models.HVAE, input_dropout=0.25)
    whole = small_model(tfvamp.models.HVAE)
    for a, b in zip(model.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    seed = seeds.stateless(1)
    ones = tf.ones([2000, 6, 5, 1])
    dropped = model._with_dropout(ones, seed).numpy()
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert (dropped == 0.0).mean() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / ones.numpy().size))
    images = tf.constant(images)
    inputs = model._with_dropout(images, seed)
    with unchecked():
        posterior = whole.posterior(inputs)
        noise = objectives.noise(posterior, whole.levels, seed, 1)
        expected = objectives.elbo(posterior, whole.generator(), images, noise, inputs=inputs)
    found = model.bound(images, seed, training=True)
    np.testing.assert_array_equal(found.bound, expected.bound)
    np.testing.assert_array_equal(model.bound(images, seed).bound, whole.bound(images, seed).bound)
    assert np.all(found.bound.numpy() != whole.bound(images, seed).bound.numpy())
    assert type(model).from_config(model.get_config()).input_dropout == 0.25
    with pytest.raises(UsageError, match="input_dropout must lie in"):
        small_model(tfvamp.models.VAE, input_dropout=1.0)


@pytest.mark.parametrize("jit", [False, True])
def test_a_compiled_step_with_all_settings(images, jit):
    """And XLA computes what a graph does."""
    config = dataclasses.replace(
        CONFIG, weight_decay=0.1, average=0.9, input_dropout=0.2, on_nan="skip", optimizer="adamw"
    )
    model = small_model(tfvamp.models.VAE, input_dropout=0.2)
    compile_model(model, config)
    step = tf.function(model.train_step, autograph=False, jit_compile=jit)
    losses = [float(step(tf.constant(images))["loss"]) for _ in range(3)]
    eager = small_model(tfvamp.models.VAE, input_dropout=0.2)
    compile_model(eager, config)
    expected = [float(eager.train_step(tf.constant(images))["loss"]) for _ in range(3)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


# --- validation ---


def test_validation_by_the_importance_weighted_bound(images):
    model = small_model(tfvamp.models.VAE)
    model.compile(optimizer="sgd")
    build_optimizer(model)
    images = tf.constant(images)
    one = {name: float(value) for name, value in model.test_step(images).items()}
    model.reset_metrics()
    model.validate_by(1, iwae=True)
    same = {name: float(value) for name, value in model.test_step(images).items()}
    assert {name: same[name] for name in one} == one and same["iwae"] == pytest.approx(one["elbo"], rel=1e-6)
    model.reset_metrics()
    model.validate_by(50, iwae=True)
    many = {name: float(value) for name, value in model.test_step(images).items()}
    assert many["iwae"] > many["elbo"]
    seed = seeds.fold_in(seeds.fold_in(seeds.stateless(0, "validate"), 0), 0)
    posterior = model.posterior(images)
    noise = objectives.noise(posterior, (), seed, 50)
    expected = objectives.iwae_bound(posterior, model.generator(), images, noise, num_importance_samples=50)
    assert many["iwae"] == pytest.approx(float(tf.reduce_mean(expected.bound)), rel=1e-6)


@pytest.mark.usefixtures("eager")
def test_a_run_that_is_stopped_by_the_importance_weighted_bound(small_config, tmp_path):
    config = dataclasses.replace(small_config, stop_by="iwae", validation_samples=7, epochs=2)
    console = rich.console.Console(file=io.StringIO(), width=300)
    outcome = training.train(config, tmp_path / "run", console=console)
    rows = Run(tmp_path / "run").rows()
    assert outcome.best_bound == max(row["val_iwae"] for row in rows)
    assert f" (beta 0.5), IWAE {rows[0]['val_iwae']:.2f} *" in console.file.getvalue()
    told = CliRunner().invoke(main, ["info", str(tmp_path / "run")]).stdout
    assert f"{outcome.best_epoch}, validation ELBO " in told
    assert f", importance-weighted bound {outcome.best_bound:.2f}" in told
    assert all(row["val_iwae"] > row["val_elbo"] for row in rows)
    assert history.best_of(rows, 1.0)["epoch"] == outcome.best_epoch
    checkpoints.found(tmp_path / "run" / "checkpoints")[0].unlink()
    training.resume(tmp_path / "run")
    again = Run(tmp_path / "run").rows()
    assert [row | {"seconds": 0} for row in again] == [row | {"seconds": 0} for row in rows]


# --- an ELBO phase before IWAE ---


@pytest.mark.usefixtures("eager")
def test_an_elbo_phase_is_the_elbo_and_then_iwae(small_config, trained, tmp_path):
    config = dataclasses.replace(
        small_config, objective="iwae", importance_samples=4, elbo_epochs=1, epochs=2
    )
    outcome = training.train(config, tmp_path / "run")
    rows, plain = Run(tmp_path / "run").rows(), Run(trained).rows()
    assert rows[0] | {"seconds": 0} == plain[0] | {"seconds": 0}  # the run that maximises the ELBO
    assert rows[1]["train_loss"] < rows[1]["beta"] * rows[1]["train_kl"] - rows[1]["train_reconstruction"]
    assert outcome.model.objective.name == "iwae"
    console = rich.console.Console(file=io.StringIO(), width=300)
    training.train(dataclasses.replace(config, elbo_epochs=2), tmp_path / "all", console=console)
    assert "the first 2 epochs maximise the ELBO, which are all of them" in console.file.getvalue()
