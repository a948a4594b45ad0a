"""Estimates of log p(x): their errors, what they depend on, refined proposals, models that are not tfvamp's."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfvamp
from tests.oracles import LinearGaussian, TwoLayers
from tests.small import small_vae
from tfvamp import blocks
from tfvamp.config import Estimation
from tfvamp.errors import UsageError
from tfvamp.evaluation import LogLikelihood, estimate, needs, proposals, tails
from tfvamp.graph import traced
from tfvamp.layers import DiagonalGaussian


def of_log_weights(log_weights, **kwargs) -> LogLikelihood:
    """The estimates that log weights [S, N] give."""
    arrays = estimate.of_parts(log_weights, np.zeros((1, *log_weights.shape)))
    kls = dict(zip(["z"], arrays.pop("kls"), strict=True))
    settings = {"seed": 0, "dimensions": 5, "estimator": "importance", "proposal": "encoder"}
    return LogLikelihood(**arrays, kls=kls, num_samples=len(log_weights), **settings | kwargs)


class Misled(LinearGaussian):
    """Its encoder is off by a standard normal's width in each dimension, and too narrow."""

    def posterior(self, x):
        exact = self.encoder(x)
        return DiagonalGaussian(exact.loc + 1.0, exact.log_variance - 1.0)


class Turned(Misled):
    """The columns of W are not orthogonal: the dimensions of the posterior are correlated."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.w = self.w @ (np.eye(3) + 0.6 * np.random.default_rng(7).normal(size=(3, 3)))


class TurnedTwice(TwoLayers):
    """Independent q(z1 | x) and q(z2 | x): the two layers of the posterior are correlated."""

    def posterior_z1(self, x, z2):
        at_mean = super().posterior_z1(x, self.encoder(x).loc)
        zeros = tf.zeros_like(z2)
        return DiagonalGaussian(at_mean.loc + zeros, at_mean.log_variance + zeros)


class MisledTwice(TwoLayers):
    """Both its posteriors are off."""

    def posterior(self, x):
        exact = self.encoder(x)
        return DiagonalGaussian(exact.loc + 1.0, exact.log_variance - 1.0)

    def posterior_z1(self, x, z2):
        exact = super().posterior_z1(x, z2)
        return DiagonalGaussian(exact.loc - 0.7, exact.log_variance + 1.0)


# --- errors ---


@pytest.mark.parametrize("spread, effective", [(0.5, 700.0), (2.0, 60.0), (4.0, 5.0)])
def test_the_monte_carlo_error_is_the_spread_whatever_the_tail(spread, effective):
    """Weights that are log-normal: exp(4 n) has an effective sample size of 5 of 1000."""
    rng = np.random.default_rng(0)
    results = [of_log_weights(spread * rng.normal(size=(1000, 20))) for _ in range(200)]
    seen = np.std([result.mean for result in results], ddof=1)
    stated = np.mean([result.monte_carlo_error for result in results])
    assert np.median(results[0].effective_sample_size) == pytest.approx(effective, rel=0.6)
    # 200 draws give a standard deviation to 5 %; the extrapolation is no better than that either.
    assert stated == pytest.approx(seen, rel=0.2)
    delta = np.mean([np.sqrt((1 / r.effective_sample_size - 1e-3).sum()) / 20 for r in results])
    assert (delta < 0.75 * seen) == (spread == 4.0)  # what the delta method says


@pytest.mark.parametrize("shape", [0.2, 0.5, 1.0, 1.5])
def test_pareto_k_of_pareto_weights(shape):
    rng = np.random.default_rng(1)
    log_weights = -shape * np.log(rng.uniform(size=(5000, 60)))
    # The tail has 212 weights: an error of (1 + k) / sqrt(212) each, and the prior draws k to 0.5 by a twentieth.
    expected = (212 * shape + 5) / 222
    assert tails.pareto_k(log_weights).mean() == pytest.approx(
        expected, abs=4 * (1 + shape) / np.sqrt(212 * 60)
    )


def test_pareto_k_where_there_is_no_tail():
    assert np.isnan(tails.pareto_k(np.zeros((24, 2)))).all()
    assert (tails.pareto_k(np.zeros((100, 2))) == -np.inf).all()
    assert np.isfinite(tails.pareto_k(np.random.default_rng(0).normal(size=(25, 2)) * 1e-3)).all()


def test_the_curve_is_what_fewer_samples_give():
    log_weights = 3.0 * np.random.default_rng(2).normal(size=(1000, 7))
    result = of_log_weights(log_weights)
    assert [point.num_samples for point in result.curve] == [10, 100, 1000]
    parts = [of_log_weights(part).mean for part in np.split(log_weights, 10)]
    assert result.curve[1].mean == pytest.approx(np.mean(parts))
    assert result.curve[-1].mean == pytest.approx(result.mean)
    assert result.slope == pytest.approx(result.mean - np.mean(parts)) and result.slope > 0.1
    assert "still rises by" in result.warning() and "--proposal refined" in result.warning()
    assert "--proposal" not in of_log_weights(log_weights, proposal="refined").warning()
    assert (
        of_log_weights(log_weights, proposal="refined")
        .warning()
        .endswith("take more samples, or --estimator ais")
    )
    assert of_log_weights(0.1 * log_weights).warning() is None
    few = of_log_weights(log_weights[:12])
    assert [point.num_samples for point in few.curve] == [1, 12]
    assert few.slope == pytest.approx(
        (few.mean - few.curve[0].mean) / np.log10(12.0)
    )  # for ten times as many
    chains = of_log_weights(log_weights[:12], estimator="ais").warning()
    assert "when the chains become ten times as many" in chains and chains.endswith("take more --steps")


# --- what an estimate depends on ---


@pytest.mark.parametrize("model", [Misled(components=3), MisledTwice(components=3)])
@pytest.mark.parametrize("proposal", ["encoder", "refined"])
def test_the_other_images_change_nothing(model, proposal):
    """To the last bit from the encoder's q. A refinement differs by some ulps from itself in one call of ten, alone or
    not: TensorFlow's threads add its gradients in an order of their own."""
    x = model.draw(23)

    def of(images):
        how = {"refine_steps": 8} if proposal == "refined" else {}
        return tfvamp.log_likelihood(model, images, 40, proposal=proposal, **how).per_example

    whole = of(x)
    for images in (x[:1], x[:7], x[:22], np.concatenate([x[:5], x[:18]])):
        same = min(len(images), 5 if len(images) == 23 else 22)
        np.testing.assert_allclose(of(images)[:same], whole[:same], rtol=0 if proposal == "encoder" else 1e-6)


# --- refined proposals ---


@pytest.mark.parametrize("kind", [Misled, Turned, MisledTwice, TurnedTwice])
def test_refined_proposals_find_the_posterior(kind):
    """A normal that is exact under one component: the bound reaches the evidence, and every weight is the evidence."""
    model = kind()
    x = model.draw(12)
    evidence = model.evidence(x)
    own = tfvamp.log_likelihood(model, x, 200)
    refined = tfvamp.log_likelihood(model, x, 200, proposal="refined", refine_step_size=0.05)
    assert (own.elbo < evidence - 0.1).all()
    np.testing.assert_allclose(refined.elbo, evidence, atol=0.01)
    np.testing.assert_allclose(refined.per_example, evidence, atol=0.005)
    assert refined.effective_sample_size.min() > 190 > own.effective_sample_size.mean()
    assert refined.proposal == "refined" and refined.warning() is None


@pytest.mark.parametrize("model", [Misled(components=3), MisledTwice(components=3)])
def test_a_fit_is_a_density_and_has_an_inverse(model):
    """E_q[w] = p(x) for any fit, log q is the density at the latents, and the noise of a latent comes back."""
    x, levels, prior = tf.constant(model.draw(2)), model.levels, model.prior()
    start = proposals.unfitted(proposals.of_encoder(model.posterior(x)), levels)
    rng = np.random.default_rng(0)
    shape = tf.nest.map_structure(
        lambda zero: 0.2 * rng.normal(size=zero.shape).astype(np.float32), start.fit
    )
    (loc, log_variance), *below = shape.shifts  # wide, so that weights have a variance
    shape = shape._replace(shifts=((loc - 1.0, log_variance + 1.5), *below))
    fitted = start._replace(fit=tf.nest.map_structure(tf.constant, shape))
    count, layers = 60_000, 1 + len(levels)
    noise = [tf.constant(rng.normal(size=(count, 2, 3)), tf.float32) for _ in range(layers)]
    latents, log_q = proposals.drawn(fitted, x, noise, levels)
    _, of_path = proposals.drawn(fitted, x, noise, levels, of_path=True)
    for back, draw in zip(proposals.noise_at(fitted, x, latents, levels), noise, strict=True):
        np.testing.assert_allclose(back, draw, atol=1e-4)
    np.testing.assert_allclose(tf.add_n(of_path), tf.add_n(log_q), atol=1e-3)
    parts = proposals.log_weight_parts(fitted, x, noise, prior, model.likelihood, levels)
    log_w = (parts.reconstruction - parts.kl).numpy().astype(float)
    weights = np.exp(log_w - model.evidence(x))
    assert (np.abs(weights.mean(0) - 1.0) < 4 * weights.std(0) / np.sqrt(count)).all() and weights.std() < 30
    if not levels:  # against a normal with all covariances
        scale = np.exp(0.5 * (start.log_variance + shape.shifts[0][1]))
        for image in range(2):
            root = scale[image][:, None] * (np.eye(3) + np.tril(shape.mixing[image], -1))
            exact = scipy.stats.multivariate_normal(
                start.loc[image] + shape.shifts[0][0][image], root @ root.T
            ).logpdf(latents[0][:50, image])
            np.testing.assert_allclose(log_q[0][:50, image], exact, atol=1e-3)


def test_what_evaluate_refines():
    """Importance sampling, of models without convolutions; chains start from the encoder's q, to check it."""
    ways = {("importance", False): "refined", ("importance", True): "encoder", ("ais", False): "encoder"}
    for (estimator, convolutional), proposal in ways.items():
        assert Estimation(estimator=estimator).resolve(convolutional).proposal == proposal
    assert Estimation(proposal="refined").resolve(True).proposal == "refined"
    model = Misled()
    assert tfvamp.log_likelihood(model, model.draw(2), 5, proposal=None, refine_steps=2).proposal == "refined"


def test_memory_bounds_what_is_computed_at_a_time(monkeypatch):
    """Fewer latents at a time, with the same numbers; what does not fit for one image is refused in plain words."""
    seen = []
    model = small_vae("standard", event_shape=(28, 28, 1))
    likelihood = model.likelihood

    def watched(*latents):
        seen.append(np.prod(latents[0].shape[:-1]))
        return likelihood(*latents)

    monkeypatch.setattr(model, "likelihood", watched)
    x = np.random.default_rng(0).integers(0, 2, (3, 28, 28, 1)).astype(np.float32)
    estimates = []
    for memory in (2.0, 2**-6):
        seen.clear()
        estimates.append(tfvamp.log_likelihood(model, x, 3000, max_memory=memory).per_example)
        assert max(seen) == (2500 if memory == 2.0 else 2**20 // 784)
    np.testing.assert_allclose(*estimates, rtol=1e-5)
    with pytest.raises(
        UsageError, match=r"samples of an image would need .* max_memory is 0.015625 GiB: raise it"
    ):
        tfvamp.log_likelihood(model, x, 10**6, max_memory=2**-6)
    with pytest.raises(UsageError, match="max_memory must be at least"):
        tfvamp.log_likelihood(model, x, 10, max_memory=0.0)


def test_the_time_is_said_before_a_long_evaluation(monkeypatch):
    model, said = Misled(), []
    x = tf.constant(model.draw(1))
    for how in (Estimation(estimator="ais", steps=10**5), Estimation(estimator="bdmc", proposal="refined")):
        needs.say_time(model, x, 10**5, how, said.append)
    assert len(said) == 2 and all("100000 images will take about" in line for line in said)
    assert "chains" in said[0] and "importance sampling" in said[0] and "refinement" in said[1]
    needs.say_time(model, x, 10, Estimation(), said.append)
    assert len(said) == 2  # seconds are not worth a line
    clock = iter(range(100))
    monkeypatch.setattr(
        needs.time, "perf_counter", lambda: float(next(clock))
    )  # each measurement takes a second
    parts = needs.seconds(model, x, 25, Estimation(proposal="refined", samples=5000))
    assert parts == {"importance sampling": 2 * 25 * 5000 / 2500, "refinement": 25 * 300 * 4 / 1600}


@pytest.mark.parametrize("kind, exact", [(Misled, LinearGaussian), (MisledTwice, TwoLayers)])
def test_refined_estimates_are_unbiased(kind, exact):
    """Under a mixture, where no normal is exact: within four errors of the closed form."""
    model = kind(components=4)
    x = model.draw(60)
    result = tfvamp.log_likelihood(model, x, 2000, proposal="refined", seed=3)
    error = np.abs(result.mean - model.evidence(x).mean())
    assert error < 4 * result.monte_carlo_error < 0.05
    own = tfvamp.log_likelihood(exact(components=4), x, 2000, seed=3)
    assert own.effective_sample_size.mean() < result.effective_sample_size.mean()


def test_an_exact_encoder_is_kept():
    model = LinearGaussian()
    x = model.draw(6)
    refined = tfvamp.log_likelihood(model, x, 50, proposal="refined", refine_steps=20)
    np.testing.assert_allclose(refined.per_example, model.evidence(x), atol=1e-3)


def test_proposals_that_still_improve_are_said():
    said = []
    tfvamp.log_likelihood(Misled(), Misled().draw(4), 5, proposal="refined", refine_steps=20, say=said.append)
    assert len(said) == 1 and "of 4 images still improved when their 20 steps ended" in said[0]


def test_graph_and_xla_give_the_same_refined_estimates():
    model = MisledTwice(components=3)
    x = model.draw(5)
    how = {"proposal": "refined", "refine_steps": 30}
    with_xla, without = (tfvamp.log_likelihood(model, x, 100, jit=jit, **how) for jit in (True, False))
    np.testing.assert_allclose(with_xla.per_example, without.per_example, rtol=1e-4, atol=1e-4)


def test_functions_of_one_evaluation_are_counted_alone(caplog):
    """TensorFlow warns of code that is traced again and again, as by evaluations of a model in a loop."""
    monitor = tf.get_logger()
    caplog.set_level("WARNING", logger=monitor.name)  # other tests silence it
    monitor.addHandler(caplog.handler)
    try:
        for factor in range(7):
            assert traced(lambda x, factor=factor: factor * x)(tf.constant(2.0)) == 2.0 * factor
        assert not caplog.text
        for factor in range(7):
            tf.function(lambda x, factor=factor: factor * x)(tf.constant(2.0))
        assert "retracing" in caplog.text, "TensorFlow's own functions are warned of"
    finally:
        monitor.removeHandler(caplog.handler)


def test_what_is_not_known_is_refused():
    model = LinearGaussian()
    x = model.draw(2)
    with pytest.raises(UsageError, match="unknown proposal 'refind'. Did you mean 'refined'"):
        tfvamp.log_likelihood(model, x, proposal="refind")
    with pytest.raises(UsageError, match="unknown estimator"):
        tfvamp.log_likelihood(model, x, estimator="exact")


# --- models that are not tfvamp's ---


class PlainVAE(keras.Model):
    """Dense layers alone, without a class of tfvamp."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(6)])
        self.decoder = keras.Sequential([keras.layers.Dense(30), keras.layers.Reshape((6, 5, 1))])
        self.prior = tfd.MultivariateNormalDiag(tf.zeros(3))

    def posterior(self, x):
        mean, log_variance = tf.split(self.encoder(x), 2, axis=-1)
        return tfd.MultivariateNormalDiag(mean, tf.exp(0.5 * log_variance))

    def likelihood(self, z):
        logits = self.decoder(tf.reshape(z, [-1, 3]))
        logits = tf.reshape(logits, tf.concat([tf.shape(z)[:-1], [6, 5, 1]], axis=0))
        return tfd.Independent(tfd.Bernoulli(logits=logits), 3)


def test_a_model_of_your_own(images):
    """Against the estimate computed by hand, from the same normal draws."""
    keras.utils.set_random_seed(1)
    model = PlainVAE()
    result = tfvamp.log_likelihood(model, images, 300)
    q = model.posterior(images)
    z = q.sample(20_000, seed=4)
    log_weights = model.likelihood(z).log_prob(images) + model.prior.log_prob(z) - q.log_prob(z)
    expected = tf.reduce_logsumexp(log_weights, axis=0) - np.log(20_000.0)
    error = result.per_example - expected.numpy()
    assert np.abs(error.mean()) < 4 * result.monte_carlo_error + 0.01 and result.monte_carlo_error < 0.2
    refined = tfvamp.log_likelihood(model, images, 300, proposal="refined", refine_steps=60)
    assert refined.elbo.mean() > result.elbo.mean()


@pytest.mark.parametrize("head", ["tensor", "distribution"])
def test_keras_models_give_the_numbers_of_a_model_written_by_hand(images, head):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5, 1))
    h = keras.layers.Flatten()(inputs)
    moments = [keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)]
    encoder = keras.Model(inputs, [*moments, tfvamp.layers.GaussianSample(seed=0)(moments)])
    logits = keras.Sequential([keras.Input((2,)), keras.layers.Dense(30), keras.layers.Reshape((6, 5, 1))])
    decoder = logits
    if head == "distribution":

        def decoder(z, training):
            return tfd.Independent(tfd.Bernoulli(logits(z), dtype=tf.float32), 3)

    prior = tfvamp.layers.VampPriorLayer(encoder, 3)

    class ByHand:
        def __init__(self):
            self.prior = prior

        def posterior(self, x):
            return DiagonalGaussian(*encoder(x)[:2])

        def likelihood(self, z):
            flat = logits(tf.reshape(z, [-1, 2]))
            shape = tf.concat([tf.shape(z)[:-1], [6, 5, 1]], 0)
            return tfd.Independent(tfd.Bernoulli(tf.reshape(flat, shape), dtype=tf.float32), 3)

    model = tfvamp.evaluation.from_keras(encoder, decoder, prior)
    assert len(tfvamp.evaluation.bracket(model, 2, chains=1, steps=2, leapfrogs=1).upper) == 2
    for settings in ({"proposal": "encoder"}, {"proposal": "refined", "refine_steps": 5}):
        ours, theirs = (tfvamp.log_likelihood(one, images, 20, **settings) for one in (model, ByHand()))
        np.testing.assert_allclose(ours.per_example, theirs.per_example, rtol=1e-5)


def test_what_is_no_model_is_refused(images):
    functional = keras.Sequential([keras.Input((6, 5, 1)), keras.layers.Flatten()])
    text = r"Sequential has no posterior, no likelihood, no prior.*from_keras\(encoder, decoder, prior\)"
    with pytest.raises(TypeError, match=text):
        tfvamp.log_likelihood(functional, images)
    with pytest.raises(TypeError, match=text):
        tfvamp.evaluation.bracket(functional, 2)


@pytest.mark.parametrize("kind", tfvamp.models.MODELS.values(), ids=tfvamp.models.MODELS)
def test_gradients_of_wide_models_take_few_latents_at_a_time(kind):
    """512 MiB for all layers that are kept, however large the images; a whole block of narrow ones."""
    for size in (28, 64, 256):
        rows = blocks.rows_of_gradients(kind, (size, size, 1))
        layers = blocks.CONV_LAYERS if kind.features_per_pixel > 1 else blocks.DENSE_LAYERS
        assert rows == 1 or 4 * rows * layers * kind.features_per_pixel * size**2 <= 2**29
    assert (blocks.rows_of_gradients(kind, (28, 28, 1)) == 1600) == (kind.features_per_pixel == 1)
