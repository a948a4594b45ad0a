"""Models of more than two stochastic layers, and decoders of other depths."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import tfvamp
from tests.small import small_hvae, small_model, small_vae
from tfvamp import evaluation, export, objectives, runs, seeds
from tfvamp.config import TrainConfig
from tfvamp.errors import UsageError
from tfvamp.evaluation import diagnostics
from tfvamp.models import HVAE, VAE, ConvHVAE, ConvVAE, PixelHVAE
from tfvamp.runs import Run
from tfvamp_cli.main import main

D, H, P = 3, 8, 30  # latents, hidden units, pixels of the small models


def count(network) -> int:
    return sum(math.prod(weight.shape) for weight in network.trainable_variables)


def gated(inputs: int, units: int = H) -> int:
    return 2 * (inputs * units + units)


@pytest.mark.parametrize("layers", [2, 3, 5])
@pytest.mark.parametrize("shared", [False, True])
def test_networks_of_each_layer(layers, shared):
    model = small_hvae(layers=layers, shared_levels=shared)
    names = tuple(f"z{layer}" for layer in range(layers, 0, -1))
    assert model.latent_names == names and tuple(level.name for level in model.levels) == names[1:]
    encoders = {id(level.posterior) for level in model.levels}
    priors = {id(level.prior) for level in model.levels}
    assert len(encoders) == len(priors) == (1 if shared else layers - 1)
    level, normal = model.levels[0], 2 * (H * D + D)
    assert count(level.posterior) == gated(P) + gated(D) + gated(2 * H) + normal
    assert count(level.prior) == gated(D) + gated(H) + normal
    assert count(model.decoder) == layers * gated(D) + gated(layers * H) + H * P + P
    own = {id(variable) for variable in model.trainable_variables}
    assert len(own) == len(model.trainable_variables)


def test_the_bound_of_three_layers_by_hand(images):
    """log p(x | z1, z2, z3) p(z1 | z2) p(z2 | z3) p(z3) - log q(z1 | x, z2) q(z2 | x, z3) q(z3 | x), term by term."""
    model, x, seed = small_hvae("mog", layers=3), tf.constant(images), seeds.stateless(4)
    noise = objectives.noise(model.posterior(x), model.levels, seed, 2)
    assert [draw.shape for draw in noise] == [(2, 8, D)] * 3
    assert np.abs(noise[1] - noise[2]).max() > 0.1
    q3 = model.encoder(x)
    z3 = q3.loc + tf.exp(0.5 * q3.log_variance) * noise[0]
    q2 = model.encoder_z2(x, z3)
    z2 = q2.loc + tf.exp(0.5 * q2.log_variance) * noise[1]
    q1 = model.encoder_z1(x, z2)
    z1 = q1.loc + tf.exp(0.5 * q1.log_variance) * noise[2]
    kls = [
        q3.log_prob(z3) - model.prior(z3),
        q2.log_prob(z2) - model.prior_z2(z3).log_prob(z2),
        q1.log_prob(z1) - model.prior_z1(z2).log_prob(z1),
    ]
    reconstruction = model.decoder(z3, z2, z1).log_prob(x)
    bound = model.elbo(images, seed, num_samples=2)
    for ours, theirs in zip(bound.kls, kls, strict=True):
        np.testing.assert_allclose(ours, tf.reduce_mean(theirs, axis=0), rtol=1e-5, atol=1e-5)
    expected = tf.reduce_mean(reconstruction - tf.add_n(kls), axis=0)
    np.testing.assert_allclose(bound.bound, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layers, shared", [(2, False), (3, False), (4, True)])
def test_layers_below_have_their_posterior_at_a_pseudo_input_as_prior(images, layers, shared):
    """p(z_l | z_l+1) = q(z_l | u(z_l+1), z_l+1), for latents of any leading shape; u lies in [0, 1] and follows z_l+1."""
    model = small_hvae(layers=layers, shared_levels=shared, level_prior="vamp")
    above = tf.constant(np.random.default_rng(1).normal(size=(4, 8, D)), tf.float32)
    for level in model.levels:
        seen = level.prior.pseudo_inputs(above)
        assert seen.shape == (4, 8, 6, 5, 1) and np.min(seen) > 0.0 and np.max(seen) < 1.0
        assert np.std(seen, axis=(0, 1)).min() > 1e-3
        ours = level.prior(above)
        for sample in range(4):
            theirs = level.posterior(seen[sample], above[sample])
            np.testing.assert_allclose(ours.loc[sample], theirs.loc, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(ours.log_variance[sample], theirs.log_variance, rtol=1e-5, atol=1e-6)
        own = count(level.prior) - count(level.posterior)
        assert own == gated(D) + gated(H) + H * P + P
    # Each variable of the posteriors counts once, however many networks know it.
    own = {id(variable) for variable in model.trainable_variables}
    assert len(own) == len(model.trainable_variables)
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == sum(
        count(network) for network in (model.encoder, model.decoder)
    ) + sum(
        count(prior) for prior in {id(level.prior): level.prior for level in model.levels}.values()
    ) + math.prod(model.prior.pseudo_inputs.shape)


def test_the_kl_of_a_layer_vanishes_where_its_posterior_sees_its_own_pseudo_input():
    model, seed = small_hvae(level_prior="vamp"), seeds.stateless(2)
    (level,) = model.levels
    z2 = tf.random.stateless_normal([5, D], seed)
    q, p = level.posterior(level.prior.pseudo_inputs(z2), z2), level.prior(z2)
    z1 = q.at(tf.random.stateless_normal([5, D], seed + 1))
    np.testing.assert_allclose(q.log_prob(z1), p.log_prob(z1), rtol=1e-5, atol=1e-5)


def test_three_layers_generate_from_the_top_down():
    model, seed = small_hvae("vamp", layers=3), seeds.as_seed(1)
    z3 = model.prior.sample(5, seeds.fold_in_name(seed, "latents"))
    z2 = model.prior_z2(z3).at(seeds.normal([5, D], seeds.fold_in_name(seed, "z2")))
    z1 = model.prior_z1(z2).at(seeds.normal([5, D], seeds.fold_in_name(seed, "z1")))
    np.testing.assert_allclose(model.sample(5, 1), model.decoder(z3, z2, z1).mean(), rtol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("decoder_layers, level_prior", [(0, "normal"), (1, "vamp"), (3, "normal")])
def test_every_variable_gets_a_gradient(images, shared, decoder_layers, level_prior):
    model = small_hvae(
        layers=4,
        shared_levels=shared,
        decoder_layers=decoder_layers,
        decoder_units=5,
        level_prior=level_prior,
    )
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model.elbo(images, seeds.stateless(0)).bound)
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert gradient is not None and np.isfinite(gradient).all() and np.abs(gradient).max() > 0, (
            variable.path
        )


@pytest.mark.parametrize("make, inputs", [(small_vae, D), (small_hvae, 2 * D)])
@pytest.mark.parametrize("decoder_layers", [0, 1, 2, 4])
def test_a_decoder_of_another_depth_and_width(make, inputs, decoder_layers):
    model = make(decoder_layers=decoder_layers, decoder_units=5)
    last = (decoder_layers and 5) or inputs
    if decoder_layers == 0:
        hidden = 0
    elif decoder_layers == 1 or make is small_vae:
        hidden = gated(inputs, 5) + (decoder_layers - 1) * gated(5, 5)
    else:
        hidden = 2 * gated(D, 5) + gated(10, 5) + (decoder_layers - 2) * gated(5, 5)
    assert count(model.decoder) == hidden + last * P + P
    assert count(model.encoder) == count(make().encoder)


@pytest.mark.parametrize("make, latents", [(small_vae, 1), (small_hvae, 3)])
def test_a_decoder_without_hidden_layers_is_linear(make, latents):
    model = make(decoder_layers=0, **({"layers": 3} if latents == 3 else {}))
    rng = np.random.default_rng(0)
    a, b = ([tf.constant(rng.normal(size=(4, D)), tf.float32) for _ in range(latents)] for _ in range(2))

    def logits(z):
        return model.decoder(*z).distribution.logits

    together = logits([one + other for one, other in zip(a, b, strict=True)])
    nothing = logits([tf.zeros_like(one) for one in a])
    np.testing.assert_allclose(
        together - nothing, logits(a) + logits(b) - 2.0 * nothing, rtol=1e-4, atol=1e-5
    )


def test_keras_files_of_three_layers(images, tmp_path):
    model = small_hvae(
        "flow",
        layers=3,
        shared_levels=True,
        level_prior="vamp",
        decoder_layers=1,
        decoder_units=6,
        flow_base="vamp",
    )
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), model(images), rtol=1e-5)
    np.testing.assert_array_equal(again.sample(3, 1), model.sample(3, 1))


BAD = {
    "one layer": (HVAE, {"layers": 1}, "HVAE has 2 to 8 stochastic layers; got layers = 1"),
    "nine layers": (HVAE, {"layers": 9}, "HVAE has 2 to 8 stochastic layers; got layers = 9"),
    "vae": (VAE, {"layers": 2}, "VAE has 1 stochastic layer; got layers = 2"),
    "pixelhvae": (PixelHVAE, {"layers": 3}, "PixelHVAE has 2 stochastic layers; got layers = 3"),
    "shared": (VAE, {"shared_levels": True}, "shared_levels goes with the model hvae"),
    "level prior": (
        VAE,
        {"level_prior": "vamp"},
        "level_prior goes with several stochastic layers: VAE has one",
    ),
    "unknown level prior": (HVAE, {"level_prior": "mog"}, "prior of the lower layers"),
    "conv": (ConvVAE, {"decoder_layers": 1}, "ConvVAE has a decoder of its own"),
    "width": (ConvHVAE, {"decoder_units": 10}, "ConvHVAE has a decoder of its own"),
    "below": (VAE, {"decoder_layers": -1}, "decoder_layers must be at least 0; got -1"),
    "a fraction": (HVAE, {"layers": 2.0}, "layers must be a whole number; got 2.0"),
    "none": (VAE, {"decoder_units": 0}, "decoder_units must be at least 1; got 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_layers_that_a_model_does_not_have(case):
    kind, settings, text = BAD[case]
    with pytest.raises(UsageError, match=text):
        kind((6, 5, 1), prior="standard", **settings)


def test_settings_of_layers_without_effect():
    assert TrainConfig(model="hvae", shared_levels=True).without_effect() == [
        "shared_levels: there is at most one layer below the top one"
    ]
    assert TrainConfig(decoder_layers=0, decoder_units=5).without_effect() == [
        "decoder_units: the decoder has no hidden layers"
    ]
    result = CliRunner().invoke(main, ["train", "--model", "convhvae", "--layers", "3", "--dry-run"])
    assert result.exit_code == 2 and "ConvHVAE has 2 stochastic layers; got layers = 3" in result.stderr


class Sinh:
    """z = loc + scale 2 sinh(e / 2) of standard normal e: heavy tails, and a density by the change of variables."""

    def __init__(self, normal):
        self.normal, self.loc = normal, normal.loc

    def at(self, noise):
        return self.normal.at(2.0 * tf.sinh(noise / 2.0))

    def noise_at(self, value):
        return 2.0 * tf.asinh(self.normal.noise_at(value) / 2.0)

    def log_prob(self, value):
        noise = self.noise_at(value)
        log_slope = 0.5 * self.normal.log_variance + tf.math.log(tf.cosh(noise / 2.0))
        return tf.reduce_sum(-0.5 * noise**2 - 0.5 * math.log(2.0 * math.pi) - log_slope, axis=-1)


class HeavyTailed(HVAE):
    """A user's model, whose p(z1 | z2) is no normal."""

    @property
    def levels(self):
        return tuple(
            level._replace(prior=lambda above, prior=level.prior: Sinh(prior(above)))
            for level in super().levels
        )


@pytest.mark.usefixtures("eager")
def test_the_layers_below_take_other_densities_than_normals():
    """The ELBO by hand; and the estimated probabilities of all 16 images of four pixels add up to 1."""
    model, seed = small_model(HeavyTailed, "standard", event_shape=(2, 2, 1)), seeds.stateless(4)
    rng = np.random.default_rng(1)
    for network in (model.encoder, model.encoder_z1, model.prior_z1):  # near N(0, I), so that q covers p
        for variable in network.trainable_variables:
            variable.assign(rng.normal(0.0, 0.2, variable.shape))
    model.encoder_z1.posterior.log_variance.bias.assign(tf.ones([D]))
    for variable in model.decoder.trainable_variables:
        variable.assign_add(rng.normal(0.0, 0.5, variable.shape))
    assert isinstance(model.levels[0].prior(tf.zeros([1, D])), objectives.OfNoise)
    images = np.array(list(itertools.product([0.0, 1.0], repeat=4)), np.float32).reshape(16, 2, 2, 1)
    noise = objectives.noise(model.posterior(images), model.levels, seed, 1)
    z2 = model.encoder(images).at(noise[0])
    q1 = model.encoder_z1(images, z2)
    z1 = q1.at(noise[1])
    by_hand = (q1.log_prob(z1) - Sinh(model.prior_z1(z2)).log_prob(z1))[0]
    np.testing.assert_allclose(model.elbo(images, seed).kls[1], by_hand, rtol=1e-4, atol=1e-5)
    found = tfvamp.log_likelihood(model, images, 2000, proposal="encoder")
    probabilities = np.exp(found.per_example)  # each to 5 % of itself, from the effective sample sizes
    assert probabilities.sum() == pytest.approx(1.0, abs=0.05)
    drawn = model.sample(4000, seed=1, draw=True).numpy().reshape(-1, 4)
    shares = np.bincount((drawn @ [8, 4, 2, 1]).astype(int), minlength=16) / 4000
    error = np.sqrt(probabilities / 4000)
    assert np.all(np.abs(shares - probabilities) < 4.0 * error + 0.05 * probabilities)
    below = model.levels[0].prior(z2)
    np.testing.assert_allclose(below.at(below.noise_at(z1)), z1, rtol=1e-4, atol=1e-5)  # as chains go back


@pytest.mark.usefixtures("eager")
def test_a_run_of_three_layers(small_config, tmp_path):
    """Trained from the command line, those below with pseudo-inputs, and through every command."""
    words = [
        "--model",
        "hvae",
        "--layers",
        3,
        "--prior",
        "flow",
        "--flow-base",
        "vamp",
        "--components",
        7,
        "--limit",
        60,
    ]
    words += ["--epochs", 2, "--warmup", 2, "--batch-size", 30, "--hidden-units", 12, "--latent-dims", 4]
    words += ["--data-dir", small_config.data_dir, "--run-dir", tmp_path / "run", "--no-jit"]
    (tmp_path / "more.toml").write_text('level_prior = "vamp"\n')
    words += ["--config", tmp_path / "more.toml"]
    for command in (
        ["train", *words],
        ["evaluate", tmp_path / "run", "--samples", 5, "--limit", 4, "--refine-steps", 3],
        ["sample", tmp_path / "run", "-n", 4, "--component", 6, "--output", tmp_path / "s.png"],
        ["plot", tmp_path / "run", "--dpi", 20],
        ["info", tmp_path / "run"],
    ):
        result = CliRunner().invoke(main, [str(word) for word in command])
        assert result.exit_code == 0, result.stderr
    run = Run(tmp_path / "run")
    assert [name for name in run.rows()[0] if name.startswith("val_kl_")] == [
        "val_kl_z3",
        "val_kl_z2",
        "val_kl_z1",
    ]
    document = run.evaluation()
    assert set(document["active_units"]) == {"z3", "z2", "z1"} and document["proposal"] == "refined"
    assert set(runs.encode(run, limit=3)) == {
        "mean", "log_variance", "mean_z2", "log_variance_z2", "mean_z1", "log_variance_z1", "label"
    }  # fmt: skip
    posterior = evaluation.encode(run.model(), run.dataset(4).test.array()[0])[0]
    shares = diagnostics.usage(posterior, run.model().prior()).shares
    assert shares.shape == (7,) and shares.sum() == pytest.approx(1.0)
    tf.config.run_functions_eagerly(False)
    export.export_run(run, tmp_path / "export")
    loaded, model = tf.saved_model.load(tmp_path / "export"), run.model()
    np.testing.assert_allclose(loaded.sample(3, [7, 0])["images"], model.sample(3, 7), rtol=1e-5, atol=1e-6)
    ours = loaded.sample_component(2, 3, [7, 0])["images"]
    np.testing.assert_allclose(ours, model.sample(3, 7, component=2), rtol=1e-5, atol=1e-6)
    x = run.dataset(4).test.array()[0]
    estimate = tfvamp.log_likelihood(model, x, 20, seed=7).per_example
    ours = loaded.log_likelihood(x, 20, [7, 0])["log_likelihood"]
    np.testing.assert_allclose(ours, estimate, rtol=1e-5, atol=1e-4)
