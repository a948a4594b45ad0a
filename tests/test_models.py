"""The whole model: sizes, gradients, equal paths, likelihood, sampling, optimiser."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.small import build_optimizer, small_hvae, small_model, small_vae
from tfvamp import blocks, evaluation, seeds
from tfvamp.config import TrainConfig
from tfvamp.errors import UsageError
from tfvamp.layers import (
    BernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    FlowPriorLayer,
    MixturePriorLayer,
    PriorLayer,
    VampPriorLayer,
)
from tfvamp.models import HVAE, LIKELIHOODS, MODELS, PRIORS, VAE, ConvHVAE, ConvVAE, PixelHVAE, clone_model
from tfvamp.optimizers import NormalizedAdam
from tfvamp.runs import building

TWO_LAYERS = (HVAE, ConvHVAE, PixelHVAE)
each_model = pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
every_pair = pytest.mark.parametrize(
    "kind, prior",
    [
        *((VAE, prior) for prior in PRIORS),
        (HVAE, "standard"),
        *((kind, "vamp") for kind in MODELS.values() if kind is not VAE),
    ],
)


@pytest.mark.parametrize(
    "kind, size", [(VAE, 1_116_864), (HVAE, 2_431_024), (ConvHVAE, 2_210_861), (PixelHVAE, 1_385_821)]
)
@pytest.mark.parametrize(
    "prior, extra",
    [("standard", 0), ("mog", 2 * 500 * 40), ("vamp", 500 * 784), ("vamp-weighted", 500 * 784 + 500)],
)
def test_parameter_counts(kind, size, prior, extra):
    model = kind(prior=prior)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert trainable == size + extra


@pytest.mark.parametrize(
    "kind, size",
    [(VAE, 1_352_848), (HVAE, 2_667_008), (ConvVAE, 948_150), (ConvHVAE, 2_210_926), (PixelHVAE, 1_385_884)],
)
def test_parameter_counts_of_grey_images(kind, size):
    """A second head; PixelHVAE's have no bias, as in the paper's code."""
    model = kind(prior="standard", likelihood="logistic-paper")
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == size


@each_model
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_heads_have_a_bias_as_in_the_papers_code(kind, likelihood):
    """All but those of PixelHVAE for grey images."""
    decoder = small_model(kind, "standard", likelihood=likelihood).decoder
    biased = kind is not PixelHVAE or likelihood.startswith("bernoulli")
    for head in decoder.heads:
        assert [weight.name for weight in head.weights] == ["kernel", "bias"][: 1 + biased]


@each_model
@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic"])
def test_initial_weights_are_the_papers(kind, likelihood):
    """Dense kernels N(0, 2 / fan_in), the rest U(+-1 / sqrt(fan_in)); no two weights share their draws."""
    model = kind((28, 20, 1), likelihood=likelihood, prior="standard")
    fan_in, seen = None, []
    for variable in model.trainable_variables:  # a kernel comes before its bias
        values = variable.numpy()
        if variable.name in ("gamma", "beta"):
            assert (values == (variable.name == "gamma")).all()
            continue
        if values.ndim > 1:
            fan_in = int(np.prod(values.shape[:-1]))
        if values.ndim == 2:
            # The deviation of n normal draws has a relative error of 1 / sqrt(2 n); five of them.
            assert values.std() == pytest.approx((2 / fan_in) ** 0.5, rel=5 * (2 * values.size) ** -0.5), (
                variable.path
            )
        else:
            bound = fan_in**-0.5
            assert np.abs(values).max() <= bound * (1 + 1e-6), variable.path
            if values.size > 100:
                assert np.abs(values).max() > 0.9 * bound, variable.path
        seen.append((variable.path, values.ravel()))
    for (path, a), (other, b) in itertools.combinations(seen, 2):
        count = min(4, len(a), len(b))
        ratio = a[:count] / b[:count]
        assert count < 2 or np.ptp(ratio) > 1e-5 * np.abs(ratio).max(), (path, other)


@pytest.mark.parametrize(
    "name, layer, settings",
    [
        ("bernoulli", BernoulliLikelihood, {"clip": None}),
        ("bernoulli-clipped", BernoulliLikelihood, {"clip": 1e-5}),
        ("logistic", DiscretizedLogisticLikelihood, {"open_ends": True}),
        ("logistic-paper", DiscretizedLogisticLikelihood, {"open_ends": False}),
    ],
)
def test_the_likelihood_of_a_name(name, layer, settings):
    likelihood = small_vae("standard", likelihood=name).decoder.likelihood
    assert type(likelihood) is layer
    assert {key: getattr(likelihood, key) for key in settings} == settings


@each_model
@pytest.mark.parametrize("shape", [(7, 5, 3), (4, 9, 1), (1, 1, 1), (12, 16, 3)], ids=str)
@pytest.mark.usefixtures("eager", "shallow")
def test_grey_and_colour_images_of_odd_sizes(kind, shape):
    """Every weight learns, an evaluation in pieces is the whole one, and what is drawn are pixels."""
    model = small_model(kind, event_shape=shape, likelihood="logistic")
    x = (np.random.default_rng(0).integers(0, 256, (6, *shape)).astype(np.float32) + 0.5) / 256
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model.bound(x, seeds.stateless(0), training=True).surrogate)
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert gradient is not None and np.isfinite(gradient).all() and np.abs(gradient).max() > 0, (
            variable.path
        )
    data = tf.data.Dataset.from_tensor_slices(x)
    whole, pieces = (evaluation.log_likelihood(model, data, 5, rows=rows, jit=False) for rows in (100, 3))
    np.testing.assert_allclose(pieces.per_example, whole.per_example, rtol=1e-5)
    np.testing.assert_allclose(whole.kl, sum(whole.kls.values()), rtol=1e-5)
    drawn = model.sample(3, 1, draw=True).numpy()
    assert drawn.shape == (3, *shape) and np.isin(256 * drawn - 0.5, range(256)).all()
    assert model(x).shape == x.shape


@each_model
def test_many_images_are_decoded_some_at_a_time(kind, monkeypatch, shallow):
    model = small_model(kind)
    whole = model.sample(7, 3)
    monkeypatch.setattr(blocks, "ROWS", 3)
    np.testing.assert_allclose(model.sample(7, 3), whole, rtol=1e-5)
    sampled = tf.function(lambda: model.sample(7, 3), autograph=False)
    np.testing.assert_allclose(sampled(), whole, rtol=1e-5)


def test_wide_images_are_decoded_fewer_at_a_time():
    """At most 512 MiB in the widest of a decoder's layers and its outputs."""
    assert blocks.rows_of(small_vae("standard"), (28, 28, 1)) == 2500
    grey = small_vae("standard", likelihood="logistic")
    assert blocks.rows_of(grey, (256, 256, 3)) == 2**27 // (256 * 256 * 3 * 2)
    assert blocks.rows_of(small_model(PixelHVAE, "standard"), (28, 28, 1)) == 2**27 // (784 * 128)


@every_pair
def test_every_trainable_variable_gets_a_gradient(kind, prior, images, shallow):
    model = small_model(kind, prior)
    if prior == "flow":  # at the identity, the last layer of its networks alone has a gradient
        for variable in model.prior.trainable_variables:
            variable.assign(variable + 0.1)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model.elbo(images, seeds.stateless(0)).bound)
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.isfinite(gradient).all() and np.abs(gradient).max() > 0, (
            variable.path
        )
    names = {v.path.split("/")[0] for v in model.trainable_variables}
    assert names == {"encoder", "decoder"} | (
        {"prior"} if prior in ("mog", "vamp", "vamp-weighted", "vamp-mixture", "exemplar", "flow") else set()
    ) | ({"encoder_z1", "prior_z1"} if issubclass(kind, TWO_LAYERS) else set())


def test_the_prior_alone_teaches_the_encoder(images):
    model = small_vae("vamp")
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(model.prior(tf.ones([4, 3])))
    for variable, gradient in zip(
        model.encoder.trainable_variables, tape.gradient(loss, model.encoder.trainable_variables), strict=True
    ):
        assert gradient is not None and np.abs(gradient).max() > 0, variable.path


@every_pair
def test_eager_graph_and_xla_take_the_same_steps(kind, prior, images, shallow):
    _check_equal_steps(kind, prior, images)


@each_model
def test_eager_graph_and_xla_take_the_same_importance_weighted_steps(kind, images, shallow):
    """Doubly reparameterised where the model allows; under XLA where that is the default."""
    settings = {"objective": "iwae", "num_samples": 2, "importance_samples": 3}
    settings["dreg"] = not kind.couples_images
    logs = _check_equal_steps(kind, "vamp", images, (None, kind.faster_with_xla), **settings)
    assert logs["loss"] < -logs["elbo"]  # the bound is above the ELBO


def _check_equal_steps(kind, prior, images, ways=(None, False, True), **settings) -> dict:
    """With plain gradient descent: the first steps of Adam follow the sign of a gradient, and so of its rounding."""
    results, steps = [], []
    for jit in ways:
        model = small_model(kind, prior, **settings)
        before = [v.numpy() for v in model.trainable_variables]
        model.compile(optimizer=keras.optimizers.SGD(1e-2))
        step = (
            model.train_step
            if jit is None
            else tf.function(model.train_step, jit_compile=jit, autograph=False)
        )
        batch = tf.constant(images)
        if model.prior.uses_indices:
            batch = {"image": batch, "index": tf.range(len(images)) % 5}
        for _ in range(2):
            logs = step(batch)
        results.append([float(v) for v in logs.values()])
        steps.append([v.numpy() - old for v, old in zip(model.trainable_variables, before, strict=True)])
    for other in range(1, len(ways)):
        np.testing.assert_allclose(results[other], results[0], rtol=1e-4, atol=1e-5)
        for variable, a, b in zip(model.trainable_variables, steps[0], steps[other], strict=True):
            # sums in another order; 1e-7 is the rounding of weights near 1
            np.testing.assert_allclose(b, a, atol=1e-3 * np.abs(a).max() + 1e-7, err_msg=variable.path)
    return logs


@each_model
def test_train_step_reports_means_over_examples(kind, images, shallow):
    model = small_model(kind, "standard")
    model.compile(optimizer=NormalizedAdam(1e-12))
    model.beta.assign(0.5)
    model.train_step(tf.constant(images[:5]))
    logs = model.train_step(tf.constant(images[5:]))
    bounds = [
        model.bound(part, seeds.fold_in(seeds.stateless(0, "train"), i), 0.5, training=True)
        for i, part in enumerate((images[:5], images[5:]))
    ]
    reconstruction, kl = (
        np.concatenate([getattr(b, name) for b in bounds]) for name in ("reconstruction", "kl")
    )
    assert float(logs["elbo"]) == pytest.approx((reconstruction - kl).mean(), rel=1e-5)
    assert float(logs["loss"]) == pytest.approx((0.5 * kl - reconstruction).mean(), rel=1e-5)


@each_model
def test_noise_depends_on_the_iteration_and_the_seed(kind, images, shallow):
    def first_losses(seed):
        model = small_model(kind, "standard", seed=seed)
        model.compile(optimizer=NormalizedAdam(1e-12))
        losses = []
        for _ in range(2):
            model.reset_metrics()
            losses.append(float(model.train_step(tf.constant(images))["loss"]))
        return losses

    a, b = first_losses(0), first_losses(1)
    assert a == first_losses(0)
    assert len({*a, *b}) == 4


@each_model
def test_validation_noise_differs_from_batch_to_batch(kind, images, shallow):
    model = small_model(kind, "standard")
    model.compile(optimizer=NormalizedAdam(1e-3))
    first = float(model.test_step(tf.constant(images))["elbo"])
    both = float(model.test_step(tf.constant(images))["elbo"])
    assert first != both
    model.reset_metrics()
    assert first == float(model.test_step(tf.constant(images))["elbo"])


@each_model
def test_fit_evaluate_predict(kind, images, shallow):
    model = small_model(kind, "vamp")
    model.compile(optimizer=NormalizedAdam(1e-2), jit_compile=kind.faster_with_xla)
    build_optimizer(model)
    history = model.fit(images, batch_size=4, epochs=30, verbose=0).history
    by_layer = {"kl_z1", "kl_z2"} if issubclass(kind, TWO_LAYERS) else set()
    assert set(history) == {"loss", "elbo", "reconstruction", "kl"} | by_layer
    assert history["elbo"][-1] > history["elbo"][0] + 1
    assert model.evaluate(images, verbose=0, return_dict=True)["elbo"] < 0
    assert model.predict(images, verbose=0).shape == images.shape


@every_pair
def test_sampling(kind, prior, shallow):
    model = small_model(kind, prior)
    images = model.sample(9, seed=7).numpy()
    assert images.shape == (9, 6, 5, 1)
    assert 0 < images.min() < images.max() < 1 if model.has_mean else set(np.unique(images)) == {0.0, 1.0}
    np.testing.assert_array_equal(images, model.sample(9, seed=7))
    assert np.abs(images - model.sample(9, seed=8)).max() > 1e-4
    assert set(np.unique(model.sample(9, seed=7, draw=True))) == {0.0, 1.0}


def test_a_component_generates_from_its_own_posterior():
    model = small_vae("vamp")
    components = model.prior.components()
    z = components[3].sample(5, seed=seeds.fold_in_name(seeds.as_seed(1), "latents"))
    np.testing.assert_allclose(model.sample(5, 1, component=3), model.decoder(z).mean(), rtol=1e-5)


def test_two_layers_generate_by_ancestral_sampling():
    """z2 from the prior, z1 from p(z1 | z2), x from both; without noise the means."""
    model = small_hvae("vamp")
    seed = seeds.as_seed(1)
    z2 = model.prior.sample(5, seeds.fold_in_name(seed, "latents"))
    z1 = model.prior_z1(z2)
    noise = seeds.normal([5, 3], seeds.fold_in_name(seed, "z1"))
    drawn = z1.loc + tf.exp(0.5 * z1.log_variance) * noise
    np.testing.assert_allclose(model.sample(5, 1), model.decoder(z2, drawn).mean(), rtol=1e-5)
    np.testing.assert_allclose(model.generate(z2).mean(), model.decoder(z2, z1.loc).mean(), rtol=1e-5)


def test_two_layers_reconstruct_through_both(images):
    model = small_hvae("vamp")
    z2 = model.encoder(images).loc
    z1 = model.encoder_z1(images, z2).loc
    np.testing.assert_allclose(model(images), model.decoder(z2, z1).mean(), rtol=1e-5)
    drawn = model.reconstruct(images, 3).mean().numpy()
    np.testing.assert_array_equal(drawn, model.reconstruct(images, 3).mean())
    assert np.abs(drawn - model(images)).max() > 1e-3


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: small_vae().sample(0, 1), "the number of samples must be at least 1; got 0"),
        (lambda: small_vae().sample(2, 1, component=5), "the prior has components 0 to 4; got 5"),
        (
            lambda: VAE(prior="vampp"),
            r"unknown prior 'vampp'. Did you mean 'vamp'\? Choose one of: standard, mog",
        ),
        (lambda: VAE(likelihood="gauss"), "unknown likelihood 'gauss'"),
        (lambda: VAE(components=0), "the number of components K must be at least 1; got 0"),
        (lambda: VAE(prior="vamp-data"), "the prior vamp-data needs pseudo_inputs"),
    ],
)
def test_bad_arguments(call, text):
    with pytest.raises(UsageError, match=text):
        call()


def test_vamp_data_keeps_its_images(images, eager):
    model = VAE((6, 5, 1), 3, 8, "vamp-data", 4, images[:4])
    model.compile(optimizer=NormalizedAdam(1e-1))
    model.fit(images, epochs=2, verbose=0)
    np.testing.assert_array_equal(model.prior.pseudo_inputs, images[:4])


@keras.saving.register_keras_serializable(package="tests")
class StudentT(PriorLayer):
    """Independent Student's t distributions with learned scales."""

    def __init__(self, latent_dims, **kwargs):
        super().__init__(**kwargs)
        self.latent_dims = latent_dims
        self.log_scale = self.add_weight(name="log_scale", shape=(latent_dims,), initializer="zeros")

    def distribution(self):
        scale = tf.exp(self.log_scale)
        return tfd.Independent(tfd.StudentT(5.0, tf.zeros_like(scale), scale), 1)

    def get_config(self):
        return {**super().get_config(), "latent_dims": self.latent_dims}


@keras.saving.register_keras_serializable(package="tests")
class Corners(MixturePriorLayer):
    """A mixture with fixed components, one of which has half the weight."""

    def components(self):
        return tfd.MultivariateNormalDiag(3.0 * tf.eye(3), tf.ones([3, 3]))

    def log_weights(self, components):
        return tf.math.log([0.5, 0.25, 0.25])


OWN_PRIORS = {
    "a layer": lambda: StudentT(3),
    "a function": lambda: lambda encoder: StudentT(3),
    "a mixture": lambda: FlowPriorLayer(Corners(), 3, 2),
    "of the encoder": lambda: lambda encoder: VampPriorLayer(encoder, 2, (6, 5, 1), weighted=True),
    "a flow over one": lambda: lambda encoder: FlowPriorLayer(VampPriorLayer(encoder, 2, (6, 5, 1)), 3, 2),
}


@pytest.mark.parametrize("kind", OWN_PRIORS)
def test_a_prior_of_your_own_trains_and_is_saved(images, kind, tmp_path, eager):
    model = VAE((6, 5, 1), 3, 8, prior=OWN_PRIORS[kind]())
    model.compile(optimizer=NormalizedAdam(1e-2))
    before = [value.numpy() for value in model.prior.trainable_variables]
    model.fit(
        images, epochs=3, verbose=0
    )  # a flow starts as the identity: its first layers move in the second step
    for value, old in zip(model.prior.trainable_variables, before, strict=True):
        assert np.any(value.numpy() != old), value.path
    shares = any(one is model.encoder for one in model.prior._flatten_layers())
    assert shares == (kind in ("of the encoder", "a flow over one"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for copy in (loaded, clone_model(model)):
        assert any(one is copy.encoder for one in copy.prior._flatten_layers()) == shares
        np.testing.assert_array_equal(copy.sample(4, seed=1), model.sample(4, seed=1))
        seed = seeds.stateless(0)
        np.testing.assert_array_equal(copy.elbo(images, seed).bound, model.elbo(images, seed).bound)
    again = VAE.from_config(model.get_config())  # the config alone, outside a file
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again.prior.sample(4, seed=1), model.prior.sample(4, seed=1))


def test_a_mixture_of_your_own_is_one(images):
    model = VAE((6, 5, 1), 3, 8, prior=Corners())
    assert model.prior.is_mixture()
    z = model.prior.sample_component(1, 500, seed=0)
    np.testing.assert_allclose(tf.reduce_mean(z, 0), [0.0, 3.0, 0.0], atol=0.2)
    expected = tfd.MixtureSameFamily(tfd.Categorical(probs=[0.5, 0.25, 0.25]), model.prior.components())
    np.testing.assert_allclose(model.prior.log_prob(z), expected.log_prob(z), rtol=1e-5)
    np.testing.assert_allclose(
        tf.reduce_mean(model.prior.responsibilities(model.prior.sample(4000, seed=0)), 0),
        [0.5, 0.25, 0.25],
        atol=0.03,
    )


class Wrong(PriorLayer):
    def __init__(self, distribution):
        super().__init__()
        self.made = distribution

    def distribution(self):
        return self.made()


class Unclear(StudentT):
    density = "bond"


class Pair(MixturePriorLayer):
    MEANS = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)

    def components(self):
        return tf.constant(self.MEANS), tf.zeros([2, 3])


class WrongMixture(Corners):
    def distribution(self):
        return tfd.MixtureSameFamily(tfd.Categorical(logits=tf.zeros([3])), self.components())


@pytest.mark.parametrize(
    "prior, text",
    [
        (lambda: lambda encoder: None, "a function from the encoder to a prior layer .* got NoneType"),
        (lambda: lambda encoder: tfd.Normal(0.0, 1.0), "got Normal"),
        (lambda: StudentT(7), r"StudentT.distribution\(\) .* event shape \[3\] .*; got event shape \[7\]"),
        (lambda: lambda encoder: StudentT(7), r"got event shape \[7\]"),
        (
            lambda: Wrong(lambda: tfd.Normal(tf.zeros([3]), 1.0)),
            r"tfd.Independent\(..., 1\) makes it; got event shape \[\] and batch shape \[3\]",
        ),
        (lambda: Wrong(lambda: tf.zeros([3])), r"must return a tfd.Distribution; got EagerTensor"),
        (
            lambda: Wrong(lambda: tfd.MultivariateNormalDiag(tf.zeros([3], tf.float64))),
            "must have the dtype float32; got float64",
        ),
        (WrongMixture, r"DiagonalGaussianMixture.*; got MixtureSameFamily: leave out the method"),
        (lambda: Corners, "prior must be a name, .*; got the class Corners: make the layer first"),
        (lambda: Unclear(3), "Unclear.density must be one of exact, bound, estimate; got 'bond'"),
    ],
)
def test_a_prior_of_your_own_that_does_not_fit(prior, text):
    with pytest.raises(UsageError, match=text):
        VAE((6, 5, 1), 3, 8, prior=prior())


def test_the_components_of_a_mixture_of_your_own():
    """They may be a pair, as an encoder's output may be; their weights are as many."""
    pair = VAE((6, 5, 1), 3, 8, prior=Pair()).prior
    np.testing.assert_array_equal(pair.centres(), Pair.MEANS)
    np.testing.assert_allclose(pair().mean(), tf.reduce_mean(Pair.MEANS, 0))
    pair.log_weights = lambda components: tf.zeros([5])
    with pytest.raises(
        ValueError, match=r"components \[K, D\] and log_weights \[K\]; got \[2, 3\] and \[5\]"
    ):
        pair.distribution()


def test_normalized_adam_equals_its_twin():
    rng = np.random.default_rng(0)
    start, gradients = (
        rng.normal(size=(4, 3)),
        rng.normal(size=(6, 4, 3)) * 10.0 ** rng.integers(-5, 5, (6, 1, 1)),
    )
    variable = keras.Variable(start.astype(np.float32))
    optimizer = NormalizedAdam(learning_rate=0.01)
    optimizer.build([variable])
    w, m, v = start.copy(), np.zeros((4, 3)), np.zeros((4, 3))
    for t, g in enumerate(gradients, start=1):
        optimizer.apply_gradients([(tf.constant(g, tf.float32), variable)])
        g = g / (np.sqrt((g**2).sum()) + 1e-7)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8 / np.sqrt(1 - 0.999**t))
    np.testing.assert_allclose(variable.numpy(), w, rtol=2e-5, atol=1e-6)
    assert optimizer.get_config()["epsilon"] == 1e-8


def test_normalisation_is_per_variable():
    a, b = keras.Variable(np.zeros(3, np.float32)), keras.Variable(np.zeros(3, np.float32))
    optimizer = NormalizedAdam(learning_rate=1.0, epsilon=1.0)  # a large epsilon shows the gradient's size
    optimizer.build([a, b])
    optimizer.apply_gradients([(tf.constant([3.0, 0.0, 4.0]), a), (tf.constant([300.0, 0.0, 400.0]), b)])
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


def test_a_compiled_model_goes_on_from_its_file(images, tmp_path, eager):
    """With its optimiser: two epochs and two more are four."""
    unbroken = small_vae()
    unbroken.compile(NormalizedAdam(1e-2), jit_compile=False)
    unbroken.fit(images, epochs=2, shuffle=False, verbose=0)
    unbroken.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, NormalizedAdam) and not loaded.jit_compile
    for model in (unbroken, loaded):
        model.fit(images, epochs=2, shuffle=False, verbose=0)
    for ours, theirs in zip(loaded.get_weights(), unbroken.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@every_pair
def test_keras_files_give_the_model_back(kind, prior, tmp_path, images, shallow):
    model = small_model(kind, prior)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")  # safe_mode is on
    np.testing.assert_array_equal(copy(images), model(images))
    z = tf.zeros([2, 3])
    np.testing.assert_array_equal(copy.prior(z), model.prior(z))
    assert len(copy.variables) == len(model.variables)  # the encoder is still shared
    if prior.startswith("vamp"):
        assert copy.prior.encoder is copy.encoder


@each_model
def test_only_this_version_of_the_networks_is_read(kind, shallow):
    """A config without a version is of version 1."""
    config = small_model(kind, "standard").get_config()
    version = config["networks_version"]
    assert version == kind.networks_version == (1 if kind in (VAE, HVAE) else 2)
    assert kind.from_config(config).get_config() == config
    without = {key: value for key, value in config.items() if key != "networks_version"}
    for other in (1, 2, 3, None):
        changed = without if other is None else {**config, "networks_version": other}
        if (other or 1) == version:
            assert kind.from_config(changed).get_config() == config
            continue
        text = (
            f"^the file was made by version {other or 1} of the networks of {kind.__name__}, and this is version "
            f"{version}, in which the same weights would compute something else: train again$"
        )
        with pytest.raises(ValueError, match=text):
            kind.from_config(changed)


def test_a_keras_file_of_other_networks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ConvVAE, "networks_version", 1)
    small_model(ConvVAE, "vamp").save(tmp_path / "model.keras")
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match="made by version 1 of the networks of ConvVAE, and this is version 2"
    ):
        keras.models.load_model(tmp_path / "model.keras")


# --- the gradient of a step in parts of the batch ---

IN_PARTS = {
    "vae": (VAE, {}),
    "vae, standard": (VAE, {"prior": "standard"}),
    "vae, mog, some components": (VAE, {"prior": "mog", "components_per_step": 2}),
    "vae, weighted, some components": (
        VAE,
        {"prior": "vamp-weighted", "components_per_step": 2},
    ),
    "hvae, iwae": (HVAE, {"objective": "iwae", "importance_samples": 4, "input_dropout": 0.2}),
    "hvae, dreg": (
        HVAE,
        {"objective": "iwae", "importance_samples": 3, "dreg": True, "num_samples": 2},
    ),
}


def check_in_parts(kind, settings, images, compiled):
    """The gradient of a model in parts, the last one smaller, against that of the whole batch; and what is tracked."""
    model = small_model(kind, **settings)
    model.compile(optimizer="sgd")
    build_optimizer(model)

    def gradients(images):
        return model.gradients(images, seeds.stateless(5), images.shape[0])

    loss, expected, values = gradients(tf.constant(images))
    model.images_at_a_time = 3
    found = compiled(gradients)(tf.constant(images))
    np.testing.assert_allclose(found[0], loss, rtol=1e-5)
    for a, b in zip(found[2], values, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    for variable, a, b in zip(model.trainable_variables, found[1], expected, strict=True):
        b = tf.convert_to_tensor(b)
        tolerance = 1e-5 * max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=tolerance, err_msg=variable.path)


@pytest.mark.parametrize("case", IN_PARTS)
def test_the_gradient_in_parts_is_that_of_the_whole_batch(case, images):
    check_in_parts(*IN_PARTS[case], images, lambda step: step)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_the_gradient_in_parts_is_compiled(jit, images):
    kind, settings = IN_PARTS["hvae, iwae"]
    check_in_parts(kind, settings, images, lambda step: tf.function(step, jit_compile=jit, autograph=False))


def test_the_gradient_in_parts_of_a_convolutional_model(images, shallow):
    settings = {"event_shape": (12, 12, 1), "objective": "iwae", "importance_samples": 3}
    batch = np.tile(images, (1, 2, 3, 1))[:4, :12, :12]
    check_in_parts(ConvHVAE, settings, batch, lambda step: step)


def test_how_many_images_a_step_takes_at_a_time():
    """Where the samples of the whole batch would need more than `step_memory`; never where images are coupled."""

    def at_a_time(**settings):
        config = TrainConfig(components=10, learning_rate=1e-3, **settings)
        return building.images_at_a_time(config, (28, 28, 1))

    many = {"objective": "iwae", "importance_samples": 50}
    assert at_a_time() is None and at_a_time(model="convhvae") is None
    few = at_a_time(model="convhvae", **many)
    assert 1 < few < 100 and at_a_time(model="convhvae", step_memory=2.0, **many) == pytest.approx(
        few / 2, abs=1
    )
    assert at_a_time(model="pixelhvae", **many) is None and at_a_time(model="vae", **many) is None
    assert at_a_time(model="convhvae", step_memory=0.01, **many) == 1
