"""Likelihoods for your own models: what predictions mean, normal densities, probabilities taken for logits."""

import warnings

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfvamp.layers import (
    GaussianLikelihood,
    GaussianSample,
    KLDivergence,
    ReconstructionLoss,
    StandardNormalPriorLayer,
)
from tfvamp.layers.normal_likelihood import NormalImages, NormalVectors
from tfvamp.losses import NegativeLogLikelihood

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(4, 3, 2)).astype(np.float32)
MEAN = RNG.normal(size=(4, 3, 2)).astype(np.float32)
LOG_SCALE = RNG.normal(size=(4, 3, 2)).astype(np.float32)


def mean_of(log_prob) -> float:
    """-log p summed over the event and averaged over the batch."""
    return -float(np.sum(log_prob)) / 4


def test_gaussian_is_the_normal_density():
    for scale, expected in ((None, 1.0), (0.3, 0.3)):
        loss = NegativeLogLikelihood("gaussian", scale=scale)
        assert float(loss(X, MEAN)) == pytest.approx(
            mean_of(scipy.stats.norm.logpdf(X, MEAN, expected)), rel=1e-5
        )
    predicted = NegativeLogLikelihood("gaussian", scale="predicted")(X, np.concatenate([MEAN, LOG_SCALE], -1))
    assert float(predicted) == pytest.approx(
        mean_of(scipy.stats.norm.logpdf(X, MEAN, np.exp(LOG_SCALE))), rel=1e-5
    )


def test_bernoulli_reads_logits_or_probabilities():
    data = (X > 0.5).astype(np.float32)
    probability = 1 / (1 + np.exp(-MEAN))
    expected = mean_of(scipy.stats.bernoulli.logpmf(data, probability))
    assert float(NegativeLogLikelihood()(data, MEAN)) == pytest.approx(expected, rel=1e-5)
    assert float(NegativeLogLikelihood(from_logits=False)(data, probability)) == pytest.approx(
        expected, rel=1e-5
    )
    sure = NegativeLogLikelihood(from_logits=False)(data, data)
    assert 0 <= float(sure) < 1e-4 and np.isfinite(NegativeLogLikelihood(from_logits=False)(1 - data, data))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("scale", ["predicted", 0.1, None])
def test_logistic_sums_to_one_over_256_levels(from_logits, scale):
    """The densities of the 256 values of one pixel."""
    levels = ((np.arange(256) + 0.5) / 256).astype(np.float32)[:, None]
    row = [0.3 if not from_logits else -0.8, -1.5][: 1 if scale == 0.1 else 2]
    loss = NegativeLogLikelihood("logistic", from_logits, scale, reduction="none")
    densities = np.exp(-np.asarray(loss(levels, np.tile(np.float32(row), (256, 1)))))
    assert densities.sum() == pytest.approx(1.0, rel=1e-5)
    mean = 0.3 if not from_logits else 1 / (1 + np.exp(0.8))
    assert abs(levels[1 + densities[1:-1].argmax(), 0] - mean) < 0.01  # the ends are open


@pytest.mark.parametrize(
    "options, part",
    [
        ({"likelihood": "bernoulli", "scale": 1.0}, "has no scale"),
        ({"likelihood": "gaussian", "from_logits": True}, "are means, not logits"),
        ({"likelihood": "gaussian", "scale": "learned"}, "GaussianLikelihood.*ReconstructionLoss"),
        ({"likelihood": "gaussian", "scale": 0.0}, "above 0"),
        ({"likelihood": "logistic", "scale": "fitted"}, "above 0"),
        ({"likelihood": "gauss"}, "Did you mean 'gaussian'"),
    ],
)
def test_options_that_make_no_sense(options, part):
    with pytest.raises(ValueError, match=part):
        NegativeLogLikelihood(**options)


def test_predictions_of_another_shape():
    with pytest.raises(ValueError, match="even number of entries"):
        NegativeLogLikelihood("gaussian", scale="predicted")(X, np.zeros((4, 3, 3)))
    with pytest.raises(ValueError, match=r"prediction's shape \[4, 3, 2\]; got \[4, 3, 1\]"):
        NegativeLogLikelihood("gaussian")(X[..., :1], MEAN)


def test_a_loss_is_in_the_keras_file(tmp_path):
    loss = NegativeLogLikelihood("logistic", False, 0.2)
    again = NegativeLogLikelihood.from_config(loss.get_config())
    assert float(again(X, np.full_like(X, 0.5))) == float(loss(X, np.full_like(X, 0.5)))


# --- probabilities where logits are expected ---


def ends() -> dict:
    """Decoders whose predictions are probabilities, in the ways that people write."""
    x, dense = keras.layers.Input((3,)), keras.layers.Dense

    def subclassed():
        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.inner = dense(6)

            def call(self, x):
                return tf.reshape(tf.sigmoid(self.inner(x)), [-1, 3, 2])

        return Own()

    return {
        "activation": lambda: keras.Sequential([x, dense(6, "sigmoid"), keras.layers.Reshape((3, 2))]),
        "layer": lambda: keras.Sequential([x, dense(6), keras.layers.Activation("sigmoid"), keras.layers.Reshape((3, 2))]),
        "reshaped before": lambda: keras.Sequential([x, dense(6), keras.layers.Reshape((3, 2)), keras.layers.Activation("sigmoid")]),
        "softmax": lambda: keras.Sequential([x, dense(6, "softmax"), keras.layers.Reshape((3, 2))]),
        "subclassed": subclassed,
    }  # fmt: skip


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("end", ends())
def test_a_decoder_that_ends_in_a_sigmoid_is_refused_or_read_as_one_says(end, jit):
    keras.utils.set_random_seed(0)
    model = ends()[end]()
    model.compile("sgd", loss=NegativeLogLikelihood(), jit_compile=jit)
    with pytest.raises(ValueError, match=r"squashed twice.*no activation.*from_logits=False"):
        model.fit(X[:, :, 0], (X > 0.5).astype(np.float32), verbose=0)
    if not jit:
        for from_logits in (False, True):
            model.compile("sgd", loss=NegativeLogLikelihood(from_logits=from_logits), run_eagerly=True)
            assert np.isfinite(
                model.fit(X[:, :, 0], (X > 0.5).astype(np.float32), verbose=0).history["loss"]
            ).all()


def test_values_tell_where_no_operation_does():
    with pytest.raises(ValueError, match="all lie between 0 and 1"):
        NegativeLogLikelihood()(np.zeros((10, 12)), np.full((10, 12), 0.4, np.float32))
    NegativeLogLikelihood()(np.zeros((10, 12)), np.linspace(-0.1, 0.9, 120, dtype=np.float32).reshape(10, 12))
    NegativeLogLikelihood()(np.zeros((1, 2)), np.full((1, 2), 0.4, np.float32))  # too few to tell


# --- the layers ---


@pytest.mark.parametrize("shape, kind", [((4,), NormalVectors), ((2, 2, 1), NormalImages)])
@pytest.mark.parametrize("scale", ["learned", "learned-per-column", "predicted", 0.7])
def test_gaussian_likelihood_is_the_normal_density(shape, kind, scale):
    layer = GaussianLikelihood(shape, scale)
    if scale == "learned":
        layer.log_scale.assign(-0.4)
    if scale == "learned-per-column":  # of a table; the images have one channel
        layer.log_scale.assign([-0.4, 0.1, 0.2, 0.6][: shape[-1]])
    raw = RNG.normal(size=(3, 5, 4 * len(layer.heads))).astype(np.float32)
    likelihood, x = layer(raw), RNG.normal(size=(5, *shape)).astype(np.float32)
    sigma = {
        "learned": np.exp(-0.4),
        "learned-per-column": np.exp([-0.4, 0.1, 0.2, 0.6] if shape == (4,) else -0.4),
        "predicted": np.exp(raw[..., 4:]),
        0.7: 0.7,
    }[scale]
    expected = scipy.stats.norm.logpdf(x.reshape(5, 4), raw[..., :4], sigma).sum(-1)
    np.testing.assert_allclose(likelihood.log_prob(x), expected, rtol=1e-5, atol=1e-5)
    assert isinstance(likelihood, kind) and likelihood.event_shape == shape
    draws = likelihood.sample(4000, seed=(1, 2)).numpy().reshape(4000, 3, 5, 4)
    np.testing.assert_allclose(draws.mean(0), raw[..., :4], atol=5 * np.max(sigma) / np.sqrt(4000))
    np.testing.assert_allclose(draws.std(0) / (sigma * np.ones((3, 5, 4))), 1.0, atol=0.07)
    assert GaussianLikelihood.from_config(layer.get_config()).scale == scale


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), "fixed", [1.0], None])
def test_a_scale_is_above_zero(scale):
    with pytest.raises(ValueError, match="scale must be a number above 0"):
        GaussianLikelihood((4,), scale)


def test_raw_outputs_of_another_size():
    with pytest.raises(ValueError, match=r"\[\.\.\., 8\], 2 for each entry.*got \[5, 4\]"):
        GaussianLikelihood((4,), "predicted")(tf.zeros([5, 4]))
    with pytest.raises(ValueError, match=r"event_shape must be \(F,\) or \(H, W, C\)"):
        GaussianLikelihood((4, 4))


def table(count=400) -> np.ndarray:
    """Rows of a line in four dimensions, and noise of standard deviation 0.1."""
    rng = np.random.default_rng(1)
    along = rng.normal(size=(count, 1))
    return (along * np.array([1.0, -2.0, 0.5, 0.0]) + 0.1 * rng.normal(size=(count, 4))).astype(np.float32)


def test_a_table_finds_the_scale_of_its_noise():
    """A functional VAE on unbounded data, trained by `fit`: the ELBO reaches the evidence of the line to half a nat."""
    keras.utils.set_random_seed(3)
    x = keras.Input((4,))
    h = keras.layers.Dense(16, "tanh")(x)
    loc, log_variance = keras.layers.Dense(1)(h), keras.layers.Dense(1, bias_initializer="zeros")(h)
    z = KLDivergence(StandardNormalPriorLayer(1))(
        [loc, log_variance, GaussianSample(seed=1)([loc, log_variance])]
    )
    likelihood = GaussianLikelihood((4,), scale="learned")
    model = keras.Model(x, ReconstructionLoss()([likelihood(keras.layers.Dense(4)(z)), x]))
    model.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    history = model.fit(table(), batch_size=100, epochs=60, verbose=0).history
    assert set(history) == {"loss", "kl", "reconstruction"}
    np.testing.assert_allclose(history["loss"], np.add(history["kl"], history["reconstruction"]), rtol=1e-4)
    assert np.exp(float(likelihood.log_scale.numpy())) == pytest.approx(0.1, abs=0.03)
    line = np.array([1.0, -2.0, 0.5, 0.0])
    evidence = (
        scipy.stats.multivariate_normal(cov=np.outer(line, line) + 0.01 * np.eye(4)).logpdf(table()).mean()
    )
    assert -evidence - 0.1 < history["loss"][-1] < -evidence + 0.5


def test_reconstruction_loss_refuses_what_does_not_fit():
    x = keras.Input((4,))
    with pytest.raises(ValueError, match=r"must be called on \[distribution, data\]"):
        ReconstructionLoss()([x, x])
    with pytest.raises(ValueError, match=r"distribution's shape \[None, 4\]; got \[None, 3\]"):
        ReconstructionLoss()([GaussianLikelihood((4,))(x), x[:, :3]])


def vae(on_the_way: bool, nested: bool) -> keras.Model:
    x = keras.Input((4,))
    loc, log_variance = keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)
    z = GaussianSample(seed=1)([loc, log_variance])
    if nested:
        encoder, x = keras.Model(x, [loc, log_variance, z]), keras.Input((4,))
        loc, log_variance, z = encoder(x)
    passed = KLDivergence(StandardNormalPriorLayer(2), name="divergence")([loc, log_variance, z])
    model = keras.Model(x, keras.layers.Dense(4)(passed if on_the_way else z))
    model.kept = passed  # as a variable of a notebook is
    model.compile("sgd", loss=NegativeLogLikelihood(), jit_compile=False)
    return model


@pytest.mark.parametrize("nested", [False, True])
def test_a_divergence_off_the_way_to_the_output_is_said(nested):
    data = (table(8) > 0).astype(np.float32)
    with pytest.warns(UserWarning, match="'divergence' is not on the way from the input to the output"):
        vae(False, nested).fit(data, data, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae(True, nested).fit(data, data, verbose=0)
