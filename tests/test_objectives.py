"""The evidence lower bound: identities, and the importance-sampled likelihood against closed forms."""

import dataclasses
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests import twins
from tests.make_goldens import LIKELIHOODS, PATH, TWINS, case
from tests.oracles import LinearGaussian, TwoLayers
from tests.small import build_optimizer, small_hvae, small_model, small_vae
from tfvamp import evaluation, objectives, seeds
from tfvamp.errors import UsageError
from tfvamp.evaluation.images import AT_ONCE
from tfvamp.models import MODELS


def generator_of(model) -> objectives.Generator:
    return objectives.Generator(model.prior(), model.decoder, model.levels)


def test_kl_of_a_distribution_with_itself_is_zero():
    model = LinearGaussian()
    x = tf.constant(model.draw(1))
    posterior = model.encoder(x)
    noise = objectives.noise(posterior, (), seeds.stateless(0), 1)
    bound = objectives.elbo(posterior, objectives.Generator(posterior, model.decoder), x, noise)
    np.testing.assert_array_equal(bound.kl, [0.0])
    np.testing.assert_array_equal(bound.bound, bound.reconstruction)


def test_beta_weighs_the_kl():
    model = LinearGaussian()
    x = tf.constant(model.draw(4))
    posterior = model.encoder(x)
    noise = objectives.noise(posterior, (), seeds.stateless(0), 1)
    bound = objectives.elbo(posterior, generator_of(model), x, noise, beta=0.25)
    np.testing.assert_allclose(bound.bound, bound.reconstruction - 0.25 * bound.kl, rtol=1e-6)


def test_several_samples_average_outside_the_logarithm():
    model = LinearGaussian(components=3)
    x = tf.constant(model.draw(4))
    q, p, seed = model.encoder(x), model.prior(), seeds.stateless(0)
    z = q.sample(7, seed=seed)
    many = objectives.elbo(q, generator_of(model), x, objectives.noise(q, (), seed, 7))
    log_weights = model.decoder(z).log_prob(x) + p.log_prob(z) - q.log_prob(z)
    np.testing.assert_allclose(many.bound, tf.reduce_mean(log_weights, 0), rtol=1e-5)


def test_parts_equal_the_numpy_twin(images):
    for prior in ("vamp", "vamp-weighted"):
        model = small_vae(prior)
        z = model.encoder(images).sample(seed=(1, 2))
        at = objectives.parts([z], [model.encoder(images)], model.generator(), images)
        terms = twins.VAETwin(model).terms(images, z.numpy())
        expected = terms["x"], terms["q_z"] - terms["p_z"]
        np.testing.assert_allclose(at.reconstruction, expected[0], rtol=1e-5)
        np.testing.assert_allclose(at.kl, expected[1], rtol=1e-4, atol=2e-5)


with PATH.open() as file:
    GOLDENS = json.load(file)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("name", TWINS)
def test_each_log_density_equals_its_golden_and_its_twin(name, likelihood):
    model, x, latents = case(name, likelihood)
    expected = TWINS[name](model).terms(x, *latents)
    posteriors, priors = [model.encoder(x)], [model.prior()]
    for level, above in zip(model.levels, latents[:-1], strict=True):
        posteriors.append(level.posterior(x, above))
        priors.append(level.prior(above))
    terms = {"x": model.decoder(*latents).log_prob(x)}
    for latent, z, posterior, prior in zip(model.latent_names, latents, posteriors, priors, strict=True):
        terms |= {f"q_{latent}": posterior.log_prob(z), f"p_{latent}": prior.log_prob(z)}
    goldens = GOLDENS[f"{name} {likelihood}"]
    assert terms.keys() == expected.keys() == goldens.keys()
    for term, golden in goldens.items():
        np.testing.assert_allclose(expected[term], golden, rtol=1e-9)
        np.testing.assert_allclose(terms[term], golden, rtol=2e-5, atol=2e-5)
    at = objectives.parts(latents, posteriors, model.generator(), x)
    np.testing.assert_allclose(at.reconstruction, expected["x"], rtol=2e-5)
    for kl, latent in zip(at.kls, model.latent_names, strict=True):
        np.testing.assert_allclose(
            kl, expected[f"q_{latent}"] - expected[f"p_{latent}"], rtol=1e-4, atol=5e-5
        )


def run(model, x, num_samples, jit=False, **kwargs):
    return evaluation.log_likelihood(model, x, num_samples, jit=jit, **kwargs)


both_depths = pytest.mark.parametrize("oracle", [LinearGaussian, TwoLayers])


@both_depths
def test_with_the_exact_posterior_every_weight_is_the_evidence(oracle):
    model = oracle()
    x = model.draw(6)
    result = run(model, x, 20)
    evidence = model.evidence(x)
    for estimate in (result.per_example, result.elbo):
        np.testing.assert_allclose(estimate, evidence, rtol=2e-6, atol=5e-6)
    np.testing.assert_allclose(result.effective_sample_size, 20.0, rtol=1e-4)
    assert result.monte_carlo_error < 1e-3


@both_depths
def test_under_a_vamp_prior_the_estimate_reaches_the_closed_form(oracle):
    model = oracle(components=4)
    x = model.draw(40)
    result = run(model, x, 20_000)
    error = np.abs(result.per_example.mean() - model.evidence(x).mean())
    # Four of the estimator's own standard errors: a right estimator fails once in 16,000 seeds.
    assert 0 < result.monte_carlo_error < 0.05
    assert error < 4 * result.monte_carlo_error
    assert (result.elbo < result.per_example).all()  # Jensen, on the same samples


def test_the_monte_carlo_error_is_the_spread_over_draws():
    """The same five images 40 times in one array: the noise of an image comes from its place."""
    model = LinearGaussian(components=4)
    result = run(model, np.tile(model.draw(5), [40, 1]), 1000)
    means = result.per_example.reshape(40, 5).mean(axis=1)
    each = [
        dataclasses.replace(result, group_variances=result.group_variances[:, 5 * draw : 5 * draw + 5])
        for draw in range(40)
    ]
    predicted = np.mean([one.monte_carlo_error for one in each])
    # A standard deviation from 40 draws has a relative error of 1 / sqrt(78) = 11 %; four of them.
    assert np.std(means, ddof=1) == pytest.approx(predicted, rel=0.45)


@both_depths
def test_more_samples_raise_the_bound(oracle):
    model = oracle(components=4)
    x = model.draw(200)
    estimates = [run(model, x, s).per_example.mean() for s in (1, 10, 100)]
    assert estimates[0] < estimates[1] < estimates[2]


def test_one_sample_is_the_elbo():
    model = LinearGaussian(components=4)
    result = run(model, model.draw(9), 1)
    np.testing.assert_allclose(result.per_example, result.elbo)
    np.testing.assert_allclose(result.effective_sample_size, 1.0)
    assert result.monte_carlo_error is None  # one sample says nothing of its spread


@both_depths
def test_chunks_batches_and_xla_change_nothing(oracle):
    model = oracle(components=4)
    x = model.draw(11)
    whole = run(model, x, 30, rows=10_000)
    for rows, jit in ((30, False), (7, False), (75, True), (1, False)):
        other = run(model, x, 30, rows=rows, jit=jit)
        np.testing.assert_allclose(other.per_example, whole.per_example, rtol=1e-5, atol=2e-5)
        np.testing.assert_allclose(other.effective_sample_size, whole.effective_sample_size, rtol=1e-3)
    alone = run(model, x[:1], 30)
    np.testing.assert_allclose(alone.per_example, whole.per_example[:1], rtol=1e-5, atol=2e-5)


def test_encoder_runs_once_an_image_and_components_once_in_all():
    calls = {"rows": 0, "prior": 0}

    class Counting(LinearGaussian):
        def encoder(self, x, training=False):
            tf.numpy_function(self.count, [tf.shape(x)[0]], tf.int32)
            return super().encoder(x)

        def count(self, rows):
            calls["rows"] += int(rows)
            return np.int32(0)

        def prior(self):
            calls["prior"] += 1
            return super().prior()

    model = Counting(components=3)
    run(model, model.draw(13), 50, rows=100)
    assert calls == {"rows": AT_ONCE, "prior": 1}  # one block, whatever the number of images


def test_summary_has_the_numbers_of_the_design():
    model = LinearGaussian()
    x = model.draw(8)
    result = run(model, x, 10)
    summary = result.summary()
    assert summary["standard_error"] == pytest.approx(result.per_example.std(ddof=1) / np.sqrt(8))
    assert summary["bits_per_dim"] == pytest.approx(-summary["log_likelihood"] / (5 * np.log(2)))
    assert summary["elbo"] == pytest.approx(summary["reconstruction"] - summary["kl"])
    assert run(model, x[:1], 10).summary()["standard_error"] is None


def test_any_readable_encoder_will_do():
    class Plain(LinearGaussian):
        def encoder(self, x, training=False):
            q = super().encoder(x)
            return tfd.MultivariateNormalDiag(q.loc, tf.exp(0.5 * q.log_variance))

    x = LinearGaussian().draw(3)
    np.testing.assert_allclose(
        run(Plain(), x, 5).per_example, run(LinearGaussian(), x, 5).per_example, rtol=1e-5
    )


def test_bad_arguments():
    model = LinearGaussian()
    with pytest.raises(UsageError, match="samples must be at least 1; got 0"):
        run(model, model.draw(2), 0)
    with pytest.raises(UsageError, match="there are no images"):
        run(model, np.zeros((0, 5), np.float32), 3)


def test_active_units():
    means = np.zeros((100, 3))
    means[:, 0] = np.linspace(-1, 1, 100)
    means[:, 1] = 0.05 * np.linspace(-1, 1, 100)
    assert evaluation.active_units(means) == 1


def test_two_layers_report_both():
    model = TwoLayers(components=2)
    result = run(model, model.draw(6), 10)
    summary = result.summary()
    assert list(result.kls) == ["z2", "z1"]
    assert summary["kl"] == pytest.approx(summary["kl_z2"] + summary["kl_z1"])
    np.testing.assert_allclose(result.kl, result.kls["z2"] + result.kls["z1"], rtol=1e-6)


def iwae(model, x, seed, num_importance_samples, num_samples=1, **kwargs):
    posterior = model.encoder(x)
    noise = objectives.noise(
        posterior, model.levels, seeds.stateless(seed), num_samples * num_importance_samples
    )
    return objectives.iwae_bound(
        posterior, generator_of(model), x, noise, num_importance_samples=num_importance_samples, **kwargs
    )


@both_depths
def test_iwae_with_one_sample_is_the_elbo(oracle):
    model = oracle(components=3)
    x = tf.constant(model.draw(5))
    posterior = model.encoder(x)
    noise = objectives.noise(posterior, model.levels, seeds.stateless(0), 4)
    elbo = objectives.elbo(posterior, generator_of(model), x, noise, beta=0.3)
    bound = iwae(model, x, 0, 1, num_samples=4, beta=0.3)
    np.testing.assert_allclose(bound.bound, elbo.bound, rtol=1e-6)
    np.testing.assert_allclose(bound.kl, elbo.kl, rtol=1e-6)


@both_depths
def test_iwae_bound_is_its_formula_and_averages_bounds_outside(oracle):
    model = oracle(components=3)
    x = tf.constant(model.draw(5))
    bound = iwae(model, x, 0, 4, num_samples=3, beta=0.5)
    posterior = model.encoder(x)
    noise = objectives.noise(posterior, model.levels, seeds.stateless(0), 12)
    latents, posteriors = objectives.infer(posterior, model.levels, x, noise)
    log_q = [q.log_prob(z).numpy() for q, z in zip(posteriors, latents, strict=True)]
    log_p = [model.prior().log_prob(latents[0]).numpy()]
    log_p += [level.prior(latents[0]).log_prob(latents[1]).numpy() for level in model.levels]
    log_w = model.decoder(*latents).log_prob(x).numpy() + 0.5 * (sum(log_p) - sum(log_q))
    expected = np.log(np.exp(log_w.astype(np.float64)).reshape(3, 4, 5).mean(axis=1)).mean(axis=0)
    np.testing.assert_allclose(bound.bound, expected, rtol=1e-5)


@both_depths
def test_the_iwae_bound_grows_with_the_samples_towards_the_evidence(oracle):
    model = oracle(components=4)
    x = tf.constant(model.draw(10_000))
    bounds = [iwae(model, x, 3, count).bound.numpy() for count in (1, 5, 50)]
    for low, high in itertools.pairwise(bounds):
        gain = high - low
        assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain))  # by four standard errors
    assert bounds[-1].mean() < model.evidence(x).mean()


def gradients(model, x, doubly_reparameterized: bool, num_seeds: int):
    """From beta to the gradients of the bound by every weight, [seeds, weights]; compiled once for every beta."""
    variables = model.trainable_variables
    base = seeds.stateless(11, "dreg" if doubly_reparameterized else "plain")

    def gradient(index, beta):
        with tf.GradientTape() as tape:
            posterior = model.posterior(x)
            noise = objectives.noise(posterior, model.levels, seeds.fold_in(base, index), 4)
            bound = objectives.iwae_bound(
                posterior, model.generator(), x, noise, beta, 4, doubly_reparameterized
            )
            value = tf.reduce_mean(bound.surrogate)
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(value, variables)], axis=0)

    @tf.function(autograph=False)
    def many(beta):
        return tf.map_fn(
            lambda index: gradient(index, beta), tf.range(num_seeds), fn_output_signature=tf.float32
        )

    return lambda beta: many(tf.constant(beta)).numpy().astype(np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("make", [small_vae, small_hvae])
def test_the_doubly_reparameterised_gradient_has_the_same_mean_and_less_noise(make, images):
    """Over encoder, decoder and pseudo-inputs, with a VampPrior that shares the encoder.

    After some training: the noise is less where q is near the true posterior, not everywhere.
    """
    model = make("vamp", objective="iwae", importance_samples=4)
    model.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
    build_optimizer(model)
    x = tf.constant(images)
    model.fit(tf.data.Dataset.from_tensors(x).repeat(400), shuffle=False, verbose=0)
    ways = [gradients(model, x, flag, 2000) for flag in (False, True)]
    for beta in (1.0, 0.4):
        check_the_gradients(model, *(way(beta) for way in ways))


def check_the_gradients(model, plain, dreg):
    count = len(plain)
    error = np.sqrt((plain.var(axis=0) + dreg.var(axis=0)) / count)
    moved = error > 1e-9
    z = (plain.mean(axis=0) - dreg.mean(axis=0))[moved] / error[moved]
    # Normal scores if the means agree: their mean square is 1, with correlated entries; a wrong term in
    # any network gives scores in the tens. The largest of some 1,000 stays below 5 except once in 1,700.
    assert np.abs(z).max() < 5.0 and (z**2).mean() < 2.0
    sizes = np.cumsum([0, *(int(np.prod(v.shape)) for v in model.trainable_variables)])
    inference = [
        slice(start, stop)
        for v, start, stop in zip(model.trainable_variables, sizes[:-1], sizes[1:], strict=True)
        if v.path.startswith("encoder")
    ]
    noise = {
        name: sum(values[:, part].var(axis=0).sum() for part in inference)
        for name, values in (("plain", plain), ("dreg", dreg))
    }
    assert noise["dreg"] < noise["plain"]


@pytest.mark.parametrize("make", [small_vae, small_hvae])
def test_dreg_reports_the_same_bound(make, images):
    x, seed = tf.constant(images), seeds.stateless(2)
    reports = []
    for dreg in (False, True):
        model = make("vamp", objective="iwae", importance_samples=3, dreg=dreg)
        reports.append(model.bound(x, seed, 0.7))
    for name in ("bound", "reconstruction", "kl"):
        np.testing.assert_allclose(getattr(reports[0], name), getattr(reports[1], name), rtol=1e-5)


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"objective": "iwae", "importance_samples": 0}, "must be at least 1; got 1 and 0"),
        ({"num_samples": 0}, "must be at least 1; got 0 and 1"),
        ({"importance_samples": 5}, "go with the objective iwae"),
        ({"dreg": True}, "go with the objective iwae"),
        ({"objective": "vae"}, "objective"),
    ],
)
def test_objectives_that_make_no_sense(settings, match):
    with pytest.raises(UsageError, match=match):
        small_vae("standard", **settings)


def test_no_doubly_reparameterised_gradient_through_batch_normalisation():
    """In training a sample's weight depends on the other samples there, and the gradient would be biased."""
    with pytest.raises(UsageError, match="PixelHVAE has no doubly reparameterised gradient"):
        small_model(MODELS["pixelhvae"], objective="iwae", importance_samples=3, dreg=True)
