"""The evidence lower bound: identities, and the importance-sampled likelihood against closed forms."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests import twins
from tests.conftest import small_vae
from tests.oracles import LinearGaussian
from tfvamp import evaluation, objectives, seeds
from tfvamp.errors import UsageError


def test_kl_of_a_distribution_with_itself_is_zero():
    model = LinearGaussian()
    x = tf.constant(model.draw(1))
    posterior = model.encoder(x)
    bound = objectives.elbo(posterior, model.decoder, posterior, x, seeds.stateless(0))
    np.testing.assert_array_equal(bound.kl, [0.0])
    np.testing.assert_array_equal(bound.elbo, bound.reconstruction)


def test_beta_weighs_the_kl():
    model = LinearGaussian()
    x = tf.constant(model.draw(4))
    bound = objectives.elbo(model.encoder(x), model.decoder, model.prior(), x, seeds.stateless(0), beta=0.25)
    np.testing.assert_allclose(bound.elbo, bound.reconstruction - 0.25 * bound.kl, rtol=1e-6)


def test_several_samples_average_outside_the_logarithm():
    model = LinearGaussian(components=3)
    x = tf.constant(model.draw(4))
    q, p, seed = model.encoder(x), model.prior(), seeds.stateless(0)
    z = q.sample(7, seed=seed)
    many = objectives.elbo(q, model.decoder, p, x, seed, num_samples=7)
    log_weights = model.decoder(z).log_prob(x) + p.log_prob(z) - q.log_prob(z)
    np.testing.assert_allclose(many.elbo, tf.reduce_mean(log_weights, 0), rtol=1e-5)


def test_parts_equal_the_numpy_twin(images):
    for prior in ("vamp", "vamp-weighted"):
        model = small_vae(prior)
        z = model.encoder(images).sample(seed=(1, 2))
        reconstruction, kl = objectives.parts(z, model.encoder(images), model.decoder, model.prior(), images)
        expected = twins.VAETwin(model).parts(images, z.numpy())
        np.testing.assert_allclose(reconstruction, expected[0], rtol=1e-5)
        np.testing.assert_allclose(kl, expected[1], rtol=1e-4, atol=2e-5)


def run(model, x, num_samples, **kwargs):
    return evaluation.evaluate(model, tf.data.Dataset.from_tensor_slices(x), num_samples, **kwargs)


def test_with_the_exact_posterior_every_weight_is_the_evidence():
    model = LinearGaussian()
    x = model.draw(6)
    result = run(model, x, 20)
    evidence = model.evidence(x)
    for estimate in (result.log_likelihood, result.elbo):
        np.testing.assert_allclose(estimate, evidence, rtol=2e-6, atol=5e-6)
    np.testing.assert_allclose(result.effective_sample_size, 20.0, rtol=1e-4)
    assert result.monte_carlo_error < 1e-3


def test_under_a_vamp_prior_the_estimate_reaches_the_closed_form():
    model = LinearGaussian(components=4)
    x = model.draw(40)
    result = run(model, x, 20_000)
    error = np.abs(result.log_likelihood.mean() - model.evidence(x).mean())
    # Four of the estimator's own standard errors: a right estimator fails once in 16,000 seeds.
    assert 0 < result.monte_carlo_error < 0.05
    assert error < 4 * result.monte_carlo_error
    assert (result.elbo < result.log_likelihood).all()  # Jensen, on the same samples


def test_the_monte_carlo_error_is_the_spread_over_seeds():
    model = LinearGaussian(components=4)
    x = model.draw(5)
    results = [run(model, x, 1000, seed=seed, jit=False) for seed in range(40)]
    spread = np.std([r.log_likelihood.mean() for r in results], ddof=1)
    predicted = np.mean([r.monte_carlo_error for r in results])
    # A standard deviation from 40 draws has a relative error of 1 / sqrt(78) = 11 %; four of them.
    assert spread == pytest.approx(predicted, rel=0.45)


def test_more_samples_raise_the_bound():
    model = LinearGaussian(components=4)
    x = model.draw(200)
    estimates = [run(model, x, s).log_likelihood.mean() for s in (1, 10, 100)]
    assert estimates[0] < estimates[1] < estimates[2]


def test_one_sample_is_the_elbo():
    model = LinearGaussian(components=4)
    result = run(model, model.draw(9), 1)
    np.testing.assert_allclose(result.log_likelihood, result.elbo)
    np.testing.assert_allclose(result.effective_sample_size, 1.0)
    assert result.monte_carlo_error is None  # one sample says nothing of its spread


def test_chunks_batches_and_xla_change_nothing():
    model = LinearGaussian(components=4)
    x = model.draw(11)
    whole = run(model, x, 30, rows=10_000, jit=False)
    for rows, jit in ((30, False), (7, False), (75, True), (1, False)):
        other = run(model, x, 30, rows=rows, jit=jit)
        np.testing.assert_allclose(other.log_likelihood, whole.log_likelihood, rtol=1e-5, atol=2e-5)
        np.testing.assert_allclose(other.effective_sample_size, whole.effective_sample_size, rtol=1e-3)
    alone = run(model, x[:1], 30)
    np.testing.assert_allclose(alone.log_likelihood, whole.log_likelihood[:1], rtol=1e-5, atol=2e-5)


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
    assert calls == {"rows": 13, "prior": 1}


def test_summary_has_the_numbers_of_the_design():
    model = LinearGaussian()
    x = model.draw(8)
    result = run(model, x, 10)
    summary = result.summary()
    assert summary["standard_error"] == pytest.approx(result.log_likelihood.std(ddof=1) / np.sqrt(8))
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
        run(Plain(), x, 5).log_likelihood, run(LinearGaussian(), x, 5).log_likelihood, rtol=1e-5
    )


def test_bad_arguments():
    model = LinearGaussian()
    with pytest.raises(UsageError, match=f"must be at least 1; got 0 and {evaluation.log_likelihood.ROWS}"):
        run(model, model.draw(2), 0)
    with pytest.raises(UsageError, match="there are no images"):
        run(model, np.zeros((0, 5), np.float32), 3)


def test_active_units():
    means = np.zeros((100, 3))
    means[:, 0] = np.linspace(-1, 1, 100)
    means[:, 1] = 0.05 * np.linspace(-1, 1, 100)
    assert evaluation.active_units(means) == 1
