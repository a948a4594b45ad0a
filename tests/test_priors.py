"""The prior layers' contract, and the VampPrior itself."""

import inspect
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfvamp.layers
from tests import twins
from tests.small import build_optimizer, small_vae
from tfvamp import seeds
from tfvamp.errors import UsageError
from tfvamp.layers import (
    DiagonalGaussian,
    DiagonalGaussianMixture,
    ExemplarPriorLayer,
    FlowDistribution,
    FlowPriorLayer,
    MixtureOfGaussiansPriorLayer,
    MixturePriorLayer,
    PriorLayer,
    StandardNormalPriorLayer,
    VampMixturePriorLayer,
    VampPriorLayer,
    priors,
)
from tfvamp.networks.mlp import MLPEncoder
from tfvamp.optimizers import NormalizedAdam

SHAPE, D, K = (6, 5, 1), 3, 5


def encoder():
    layer = MLPEncoder(SHAPE, D, 8)
    layer.build((None, *SHAPE))
    return layer


CASES = {
    "StandardNormalPriorLayer": lambda: StandardNormalPriorLayer(D),
    "MixtureOfGaussiansPriorLayer": lambda: MixtureOfGaussiansPriorLayer(K, D),
    "VampPriorLayer": lambda: VampPriorLayer(encoder(), K, SHAPE),
    "VampPriorLayer, weighted": lambda: VampPriorLayer(encoder(), K, SHAPE, weighted=True),
    "VampMixturePriorLayer": lambda: VampMixturePriorLayer(encoder(), K, SHAPE, initial_variance=0.3),
    "ExemplarPriorLayer": lambda: ExemplarPriorLayer(
        encoder(), np.random.default_rng(0).uniform(size=(K, *SHAPE)).astype(np.float32)
    ),
    "VampPriorLayer, fixed": lambda: VampPriorLayer(encoder(), K, SHAPE, trainable=False),
    "FlowPriorLayer": lambda: bent(FlowPriorLayer(latent_dims=D, num_couplings=3, hidden_units=4)),
    "FlowPriorLayer, spline over vamp": lambda: bent(
        FlowPriorLayer(
            VampPriorLayer(encoder(), K, SHAPE), num_couplings=2, hidden_units=4, transform="spline"
        )
    ),
}


def bent(prior: FlowPriorLayer) -> FlowPriorLayer:
    """A flow that is not the identity."""
    rng = np.random.default_rng(0)
    for weight in prior._networks:
        weight.assign(weight + rng.normal(0.0, 0.2, weight.shape))
    return prior


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def prior(request) -> PriorLayer:
    keras.utils.set_random_seed(0)
    return request.param()


def test_every_public_prior_has_a_case():
    public = [getattr(tfvamp.layers, name) for name in tfvamp.layers.__all__]
    priors = {
        c.__name__
        for c in public
        if inspect.isclass(c) and issubclass(c, PriorLayer) and not inspect.isabstract(c)
    }
    assert priors == {name.split(",")[0] for name in CASES}


def test_layer_and_distribution_agree(prior):
    z = np.random.default_rng(0).normal(size=(4, 7, D)).astype(np.float32)
    assert isinstance(prior(), tfd.Distribution)
    assert prior().event_shape == (D,) and prior().batch_shape == ()
    np.testing.assert_array_equal(prior(z), prior.distribution().log_prob(z))
    assert prior(z).shape == (4, 7)
    assert prior(z[0, 0]).shape == ()


def test_samples(prior):
    draws = prior.sample(6, seed=3)
    assert draws.shape == (6, D)
    np.testing.assert_array_equal(draws, prior.sample(6, seed=3))
    assert not np.array_equal(draws, prior.sample(6, seed=4))


def test_components(prior):
    z = np.random.default_rng(0).normal(size=(4, D)).astype(np.float32)
    if not prior.is_mixture():
        for ask in (lambda: prior.sample_component(0, 1), lambda: prior.responsibilities(z)):
            with pytest.raises(UsageError, match="the prior is no mixture, and has no component"):
                ask()
        return
    assert prior().num_components == K and prior.centres().shape == (K, D)
    responsibilities = prior.responsibilities(z).numpy()
    np.testing.assert_allclose(responsibilities.sum(axis=-1), 1.0, rtol=1e-5)
    parts = prior().component_log_prob(z)
    np.testing.assert_allclose(tf.reduce_logsumexp(parts, axis=-1), prior(z), rtol=1e-5, atol=1e-5)
    draws = prior.sample_component(2, 2000, seed=0)
    assert draws.shape == (2000, D)
    # Where the draws of a component are, it has on average the share that Bayes' rule gives it.
    own = prior.responsibilities(draws).numpy()[:, 2].mean()
    others = [
        prior.responsibilities(prior.sample_component(k, 2000, seed=0)).numpy()[:, 2].mean() for k in (0, 4)
    ]
    assert own > max(others)
    for component in (-1, K):
        with pytest.raises(UsageError, match=f"the prior has components 0 to {K - 1}; got {component}"):
            prior.sample_component(component, 1)


def test_eager_graph_and_xla_agree(prior):
    z = tf.constant(np.random.default_rng(0).normal(size=(7, D)), tf.float32)
    eager = prior(z)
    for jit in (False, True):
        np.testing.assert_allclose(
            tf.function(lambda z: prior(z), jit_compile=jit, autograph=False)(z), eager, rtol=1e-5, atol=1e-5
        )


def test_in_a_functional_model(prior):
    z = keras.Input((D,))
    model = keras.Model(z, prior(z))
    batch = np.random.default_rng(0).normal(size=(7, D)).astype(np.float32)
    np.testing.assert_allclose(model.predict(batch, verbose=0), prior(batch), rtol=1e-5, atol=1e-5)


def test_config_round_trip(prior):
    config = prior.get_config()
    shared = {"encoder": prior.encoder} if "encoder" in config else {}
    if isinstance(getattr(prior, "base", None), VampPriorLayer):
        # Its encoder is the model's: a config alone is refused, as the VampPrior's is.
        with pytest.raises(ValueError, match=r"shares its encoder.*tfvamp\.clone_model"):
            type(prior).from_config(config)
        return
    copy = type(prior).from_config(config, **shared)
    assert {k: v for k, v in copy.get_config().items() if k != "encoder"} == {
        k: v for k, v in config.items() if k != "encoder"
    }
    copy.set_weights(prior.get_weights())
    z = np.zeros((1, D), np.float32)
    np.testing.assert_array_equal(copy(z), prior(z))


def test_every_trainable_variable_gets_a_gradient(prior):
    z = tf.constant(np.random.default_rng(0).normal(size=(7, D)), tf.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(prior(z))
    for variable, gradient in zip(
        prior.trainable_variables, tape.gradient(loss, prior.trainable_variables), strict=True
    ):
        if isinstance(prior, ExemplarPriorLayer) and "posterior/log_variance" in variable.path:
            assert gradient is None, variable.path  # it takes the encoder's means alone
            continue
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, variable.path


def test_a_wrong_width_is_named(prior):
    with pytest.raises(ValueError, match=r"z must have shape \[\.\.\., D\] = \[\.\.\., 3\]; got \[2, 4\]"):
        prior(tf.zeros([2, 4]))


def test_a_weight_that_changes_changes_the_distribution():
    prior = CASES["VampPriorLayer"]()
    z = tf.zeros([1, D])
    before = prior(z).numpy()
    prior.pseudo_inputs.assign(
        1.0 - prior.pseudo_inputs + np.random.default_rng(0).normal(0, 0.3, (K, *SHAPE))
    )
    middle = prior(z).numpy()
    prior.encoder.gated_1.value_kernel.assign_add(0.1 * tf.ones_like(prior.encoder.gated_1.value_kernel))
    assert before != middle and middle != prior(z).numpy()


def test_vamp_is_the_mixture_of_the_encoder_at_the_pseudo_inputs():
    prior = VampPriorLayer(
        encoder(), K, SHAPE, weighted=True, initial=keras.initializers.RandomUniform(0.0, 1.0)
    )
    prior.pseudo_inputs.assign(3.0 * prior.pseudo_inputs - 1.0)  # as training may leave them
    prior.logits.assign(np.linspace(-1, 1, K))
    posterior = prior.encoder(np.clip(prior.pseudo_inputs.numpy(), 0.0, 1.0))
    z = np.random.default_rng(0).normal(size=(9, D)).astype(np.float32)
    expected = twins.mixture_log_prob(z, np.linspace(-1, 1, K), posterior.loc, posterior.log_variance)
    np.testing.assert_allclose(prior(z), expected, rtol=1e-6, atol=1e-5)
    assert isinstance(prior(), tfd.MixtureSameFamily) and isinstance(prior(), DiagonalGaussianMixture)


def test_a_component_of_the_mixture_model_has_the_variance_of_its_centre_and_its_own():
    """Stirn and Knowles (2024): z = centre + noise, centre ~ q(z | u_k); hence the sum of the variances, by a float64 twin."""
    prior = VampMixturePriorLayer(
        encoder(), K, SHAPE, initial=keras.initializers.RandomUniform(0.0, 1.0), initial_variance=0.5
    )
    np.testing.assert_allclose(np.exp(prior.log_variance), 0.5, rtol=1e-6)
    own = np.random.default_rng(1).normal(0.0, 1.0, (K, D)).astype(np.float32)
    prior.log_variance.assign(own)
    prior.logits.assign(np.linspace(-1, 1, K))
    posterior = prior.encoder(prior.clipped_pseudo_inputs())
    variance = np.exp(posterior.log_variance.numpy().astype(np.float64)) + np.exp(own.astype(np.float64))
    z = np.random.default_rng(0).normal(size=(9, D)).astype(np.float32)
    expected = twins.mixture_log_prob(z, np.linspace(-1, 1, K), posterior.loc, np.log(variance))
    np.testing.assert_allclose(prior(z), expected, rtol=1e-6, atol=1e-5)
    prior.log_variance.assign(np.full((K, D), -30.0))  # clipped: as narrow as it gets, the VampPrior
    narrow = twins.mixture_log_prob(z, np.linspace(-1, 1, K), posterior.loc, posterior.log_variance)
    np.testing.assert_allclose(prior(z), narrow, rtol=1e-2, atol=1e-2)
    assert type(prior).from_config(prior.get_config(), encoder=prior.encoder).initial_variance == 0.5
    assert VampMixturePriorLayer(prior.encoder, K).latent_dims == D
    for bad in (0, -1.0, 100.0, float("nan"), float("inf")):
        with pytest.raises(
            ValueError, match=f"initial_variance must lie between 4.5e-05 and 54.6; got {bad}"
        ):
            VampMixturePriorLayer(prior.encoder, K, initial_variance=bad)
    fixed = VampMixturePriorLayer(prior.encoder, K, trainable=False)
    assert len(fixed.trainable_variables) == len(prior.encoder.trainable_variables)


def test_vamp_with_one_component_is_the_posterior_at_it():
    prior = VampPriorLayer(encoder(), 1, SHAPE)
    z = np.random.default_rng(0).normal(size=(9, D)).astype(np.float32)
    posterior = prior.encoder(prior.clipped_pseudo_inputs())
    np.testing.assert_allclose(prior(z), posterior.log_prob(z), rtol=1e-5, atol=1e-5)


def test_pseudo_inputs_outside_the_bounds_have_no_gradient():
    initial = np.full((2, *SHAPE), 0.5, np.float32)
    initial[0, 0, 0, 0], initial[1, 2, 3, 0] = -0.5, 1.5
    bounded = VampPriorLayer(encoder(), 2, SHAPE)
    bounded.pseudo_inputs.assign(initial)
    free = VampPriorLayer(encoder(), 2, SHAPE, initial=initial, bounds=None)
    for prior, zero in ((bounded, True), (free, False)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(prior(tf.ones([1, D])))
        gradient = tape.gradient(loss, prior.pseudo_inputs.value).numpy()
        assert (gradient[0, 0, 0, 0] == 0) == zero and (gradient[1, 2, 3, 0] == 0) == zero
        assert np.count_nonzero(gradient) >= gradient.size - 2


def test_fixed_pseudo_inputs_leave_the_encoder_learning():
    prior = CASES["VampPriorLayer, fixed"]()
    paths = [v.path for v in prior.trainable_variables]
    assert not any("pseudo_inputs" in path for path in paths)
    assert len(paths) == len(prior.encoder.trainable_variables) > 0


def test_encoder_is_shared_not_copied():
    shared = encoder()
    prior = VampPriorLayer(shared, K, SHAPE)
    assert {id(v) for v in shared.variables} < {id(v) for v in prior.variables}


def test_batch_norm_is_not_dragged_by_pseudo_inputs():
    inputs = keras.Input(SHAPE)
    h = keras.layers.BatchNormalization()(keras.layers.Flatten()(inputs))
    net = keras.Model(inputs, [keras.layers.Dense(D)(h), keras.layers.Dense(D)(h)])
    prior = VampPriorLayer(net, K)
    before = [v.numpy() for v in net.non_trainable_variables]
    prior(tf.zeros([1, D]), training=True)
    for a, b in zip(before, net.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("output", ["pair", "tfd"])
def test_a_users_encoder_in_a_subclassed_model_of_their_own(output):
    class Encoder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.flatten, self.loc, self.log_variance = (
                keras.layers.Flatten(),
                keras.layers.Dense(D),
                keras.layers.Dense(D),
            )

        def call(self, x):
            loc, log_variance = self.loc(self.flatten(x)), self.log_variance(self.flatten(x))
            if output == "pair":
                return loc, log_variance
            return tfd.MultivariateNormalDiag(loc, tf.exp(0.5 * log_variance))

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()
            self.prior = VampPriorLayer(self.encoder, K, event_shape=SHAPE)
            self.decoder = keras.Sequential([keras.layers.Dense(30), keras.layers.Reshape(SHAPE)])

        def train_step(self, x):
            with tf.GradientTape() as tape:
                q = tfvamp.layers.as_diagonal_gaussian(self.encoder(x))
                z = q.sample(seed=(1, 2))
                nll = keras.ops.binary_crossentropy(x, self.decoder(z), from_logits=True)
                loss = tf.reduce_mean(tf.reduce_sum(nll, [1, 2, 3]) + q.log_prob(z) - self.prior(z))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"negative_elbo": loss}

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).integers(0, 2, (64, *SHAPE)).astype(np.float32)
    model = Model()
    model.encoder(x[:1])
    pseudo_inputs = model.prior.pseudo_inputs.numpy()
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    history = model.fit(x, batch_size=32, epochs=30, verbose=0).history["negative_elbo"]
    assert history[-1] < history[0] - 1.0
    assert len(model.trainable_variables) == 4 + 2 + 1  # encoder once, decoder, pseudo-inputs
    assert np.abs(model.prior.pseudo_inputs.numpy() - pseudo_inputs).max() > 0.01


def test_an_unbuilt_encoder_needs_an_event_shape():
    with pytest.raises(ValueError, match=r"the encoder does not tell the shape.*pass event_shape"):
        VampPriorLayer(MLPEncoder(SHAPE, D, 8), K)


def test_an_encoder_that_was_called_tells_its_shape():
    called = MLPEncoder(SHAPE, D, 8)
    called(tf.zeros([1, *SHAPE]))
    assert VampPriorLayer(called, K).event_shape == SHAPE


def test_a_functional_encoder_tells_its_shape():
    inputs = keras.Input(SHAPE)
    h = keras.layers.Flatten()(inputs)
    net = keras.Model(inputs, [keras.layers.Dense(D)(h), keras.layers.Dense(D)(h)])
    prior = VampPriorLayer(net, K)
    assert prior.pseudo_inputs.shape == (K, *SHAPE) and prior().event_shape == (D,)
    with pytest.raises(
        ValueError, match=r"event_shape must be the encoder's input shape \[6, 5, 1\]; got \[4, 4, 1\]"
    ):
        VampPriorLayer(net, K, (4, 4, 1))


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: VampPriorLayer(encoder(), 0, SHAPE), "num_components must be at least 1; got 0"),
        (lambda: MixtureOfGaussiansPriorLayer(0, D), "num_components must be at least 1; got 0"),
        (lambda: MixtureOfGaussiansPriorLayer(K, 0), "latent_dims must be at least 1; got 0"),
        (lambda: StandardNormalPriorLayer(0), "latent_dims must be at least 1; got 0"),
        (lambda: VampPriorLayer(encoder(), K, SHAPE, bounds=(1, 0)), r"bounds must be \(low, high\)"),
        (
            lambda: VampPriorLayer(encoder(), K, SHAPE, initial=np.zeros((K, 30))),
            r"initial pseudo-inputs must have shape \[K, \*event\] = \[5, 6, 5, 1\]; got \[5, 30\]",
        ),
    ],
)
def test_bad_arguments(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_an_encoder_is_needed():
    with pytest.raises(TypeError, match="encoder must be a Keras layer or model; got NoneType"):
        VampPriorLayer(None, K, SHAPE)


def test_mixed_precision_keeps_densities_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        prior = VampPriorLayer(encoder(), K, SHAPE)
        log_prob = prior(tf.zeros([2, D], tf.float16))
    finally:
        keras.config.set_dtype_policy("float32")
    assert log_prob.dtype == tf.float32 and np.isfinite(log_prob).all()


# --- flows ---


TRANSFORMS = ("affine", "spline")


def flow(dims: int, transform: str, spread: float = 0.2, couplings: int = 3, **options) -> FlowPriorLayer:
    """A flow in float64 with weights from a normal."""
    keras.utils.set_random_seed(1)
    prior = FlowPriorLayer(
        latent_dims=dims,
        num_couplings=couplings,
        hidden_units=4,
        transform=transform,
        dtype="float64",
        **options,
    )
    rng = np.random.default_rng(dims)
    for weight in prior._networks:
        weight.assign(weight.numpy() + rng.normal(0.0, spread, weight.shape))
    return prior


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("base", ["standard", "mog", "vamp", "vamp-weighted"])
def test_a_flow_starts_as_its_base(transform, base):
    model, own = small_vae("flow", flow_base=base, flow_transform=transform), small_vae(base)
    z = np.random.default_rng(0).normal(0.0, 3.0, (5, 3)).astype(np.float32)
    np.testing.assert_allclose(model.prior(z), own.prior(z), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(
        model.prior.sample(4, seed=2), own.prior.sample(4, seed=2), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dims", [1, 2, 3, 8])
def test_a_flow_is_inverted_and_its_determinant_is_that_of_the_jacobian(transform, dims):
    distribution = flow(dims, transform)()
    z = tf.constant(np.random.default_rng(0).normal(0.0, 3.0, (6, dims)))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        e, log_det = distribution.to_base(z)
        sums = tf.unstack(tf.reduce_sum(e, axis=0))  # rows do not depend on each other
    jacobian = np.stack([tape.gradient(each, z) for each in sums], axis=1)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(distribution.from_base(e), z, rtol=1e-8, atol=1e-8)
    assert dims == 1 or np.abs(log_det).max() > 0.1  # all dimensions take part
    assert (np.abs(jacobian).max(axis=(0, 2)) > 0).all()


def test_a_coupling_equals_the_numpy_twin():
    """Dinh, Sohl-Dickstein and Bengio (2017), equations 7 and 8, one row and one coupling at a time."""
    prior = flow(5, "affine", couplings=6)
    z = np.random.default_rng(0).normal(size=(4, 5))
    arrays = [weight.numpy() for weight in prior._networks]
    expected = []
    for row in z:
        log_det = 0.0
        for coupling in range(6):
            first = prior._kind.first(coupling)
            places = [(first + place) % 5 for place in range(5)]
            changed, kept = places[:3], places[3:]
            kernels, biases = (
                arrays[6 * coupling : 6 * coupling + 6 : 2],
                arrays[6 * coupling + 1 : 6 * coupling + 6 : 2],
            )
            hidden = row[kept]
            for kernel, bias in zip(kernels[:2], biases[:2], strict=True):
                hidden = hidden @ kernel + bias
                hidden = hidden / (1.0 + np.exp(-hidden))
            shift, scale = np.split(hidden @ kernels[2] + biases[2], 2)
            scale = 2.0 * np.tanh(scale / 2.0)
            row = row.copy()
            row[changed] = (row[changed] - shift) * np.exp(-scale)
            log_det -= scale.sum()
        expected.append(-0.5 * (row**2).sum() - 2.5 * np.log(2.0 * np.pi) + log_det)
    np.testing.assert_allclose(prior(z), expected, rtol=1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_density_of_a_flow_integrates_to_one(transform):
    """On a line, by Simpson's rule."""
    prior = flow(1, transform, spread=0.5)
    grid = np.linspace(-100.0, 100.0, 200_001)
    density = np.exp(prior(grid[:, None]).numpy())
    weights = np.ones_like(grid)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    np.testing.assert_allclose((density * weights).sum() * (grid[1] - grid[0]) / 3.0, 1.0, rtol=1e-5)
    assert np.abs(density - np.exp(-0.5 * grid**2) / np.sqrt(2.0 * np.pi)).max() > 0.01


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_draws_of_a_flow_have_its_density(transform):
    """Counts of draws in quantile bins of the base: chi-square with 63 degrees of freedom, 99.99 % below 118."""
    prior = flow(2, transform, spread=0.3)
    draws, _ = prior().to_base(prior.sample(20_000, seed=0))
    edges = tfd.Normal(0.0, 1.0).quantile(np.arange(1, 8, dtype=np.float32) / 8.0).numpy()
    cells = 8 * np.searchsorted(edges, draws[:, 0]) + np.searchsorted(edges, draws[:, 1])
    counts, expected = np.bincount(cells, minlength=64), 20_000 / 64
    assert ((counts - expected) ** 2 / expected).sum() < 118.0
    # The share of the draws in a rectangle is the integral of the density over it.
    z = prior.sample(20_000, seed=1).numpy()
    low, high = np.quantile(prior.sample(1000, seed=2), [0.2, 0.8], axis=0)
    share = ((z > low) & (z < high)).all(axis=1).mean()
    line = (np.arange(400) + 0.5) / 400.0
    square = low + (high - low) * np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    integral = np.exp(prior(square).numpy()).mean() * np.prod(high - low)
    assert 0.05 < share < 0.95
    assert abs(share - integral) < 4.0 * np.sqrt(share * (1.0 - share) / len(z))


def test_a_flow_over_a_flow_and_what_a_base_may_be():
    inner = flow(3, "affine")
    outer = FlowPriorLayer(inner, num_couplings=2, hidden_units=4, dtype="float64")
    z = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(outer(z), inner(z), rtol=1e-12)
    with pytest.raises(ValueError, match="a flow of 4 latents needs a base of as many; got one of 3"):
        FlowPriorLayer(StandardNormalPriorLayer(3), latent_dims=4)
    with pytest.raises(ValueError, match="a flow of 4 latents needs a base of as many; got one of 3"):
        FlowPriorLayer(VampPriorLayer(encoder(), K, SHAPE), latent_dims=4)
    with pytest.raises(ValueError, match="a flow needs a base, or latent_dims"):
        FlowPriorLayer()
    with pytest.raises(
        TypeError, match=r"base must be a prior layer, such as VampPriorLayer\(...\); got int"
    ):
        FlowPriorLayer(3)
    with pytest.raises(ValueError, match="transform must be one of affine, spline; got 'cubic'"):
        FlowPriorLayer(latent_dims=3, transform="cubic")
    for wrong in (0, 1.5, True, "6", math.inf):
        text = f"num_couplings must be {'at least 1' if wrong == 0 else 'a whole number'}; got {wrong!r}"
        with pytest.raises(ValueError, match=text):
            FlowPriorLayer(latent_dims=3, num_couplings=wrong)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_flow_in_a_graph_that_does_not_know_the_size_of_a_batch(transform, dims):
    """As `fit`, an export and an evaluation run it; with one latent, a coupling keeps nothing."""
    prior = flow(dims, transform, couplings=2)
    z = tf.constant(np.random.default_rng(0).normal(size=(5, dims)))
    graph = tf.function(prior.log_prob, input_signature=[tf.TensorSpec([None, dims], tf.float64)])
    np.testing.assert_allclose(graph(z), prior.log_prob(z), rtol=1e-12)
    draws = tf.function(lambda n: prior.sample(n, seed=1), input_signature=[tf.TensorSpec([], tf.int32)])
    assert draws(4).shape == (4, dims)
    np.testing.assert_allclose(draws(4), prior.sample(4, seed=1), rtol=1e-12)
    if transform == "affine":  # the gradient of a spline's graph takes seconds to trace
        with tf.GradientTape() as tape:
            loss = graph(z)
        assert all(gradient is not None for gradient in tape.gradient(loss, prior.trainable_variables))


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32")])
def test_a_flow_has_its_own_dtype_over_any_base(dtypes):
    base = MixtureOfGaussiansPriorLayer(K, 3, dtype=dtypes[0])
    prior = FlowPriorLayer(base, num_couplings=2, hidden_units=4, dtype=dtypes[1])
    z = np.random.default_rng(0).normal(size=(5, 3))
    spec = prior(keras.Input((3,), dtype=dtypes[1]))
    assert (
        prior.sample(2, seed=0).dtype == prior.log_prob(z).dtype == prior().dtype == spec.dtype == dtypes[1]
    )
    assert prior.responsibilities(z).dtype == prior.centres().dtype == dtypes[1]
    np.testing.assert_allclose(prior.log_prob(z), base.log_prob(z), rtol=1e-5)


def test_the_config_of_a_flow_takes_the_encoder_of_its_base():
    shared = encoder()
    prior = FlowPriorLayer(VampPriorLayer(shared, K, SHAPE), num_couplings=2, hidden_units=4)
    with pytest.raises(ValueError, match=r"\.from_config\(config, encoder=encoder\)"):
        FlowPriorLayer.from_config(prior.get_config())
    assert FlowPriorLayer.from_config(prior.get_config(), encoder=shared).base.encoder is shared
    outer = FlowPriorLayer(prior, num_couplings=2, hidden_units=4)
    assert FlowPriorLayer.from_config(outer.get_config(), encoder=shared).base.base.encoder is shared
    without = FlowPriorLayer(latent_dims=3, num_couplings=2, hidden_units=4).get_config()
    assert FlowPriorLayer.from_config(without, encoder=shared).latent_dims == 3


class OwnMixture(MixturePriorLayer):
    """As docs/priors.md says: two methods."""

    def components(self):
        return DiagonalGaussian(tf.constant([[0.0, 0.0], [3.0, 0.0]]), tf.zeros([2, 2]))

    def distribution(self):
        return priors.mixture_of(tf.zeros([2]), self.components())


class OwnPrior(PriorLayer):
    """A distribution of TFP's own."""

    density = "bound"
    num_components = 2

    def distribution(self):
        components = tfd.MultivariateNormalDiag([[0.0, 0.0], [3.0, 0.0]], [[1.0, 1.0]])
        return tfd.MixtureSameFamily(tfd.Categorical(logits=[0.0, 0.0]), components)


def test_priors_of_your_own_and_flows_over_them():
    own, other = OwnMixture(), OwnPrior()
    z = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    np.testing.assert_allclose(own(z), other(z), rtol=1e-5)
    assert own.is_mixture() and own.responsibilities(z).shape == (4, 2) and own.centres().shape == (2, 2)
    assert not other.is_mixture() and other.centres() is None
    flow_over, flow_over_other = FlowPriorLayer(own, num_couplings=2), FlowPriorLayer(other, num_couplings=2)
    assert flow_over.is_mixture() and not flow_over_other.is_mixture()
    assert flow_over.density == "exact" and flow_over_other.density == "bound"
    np.testing.assert_allclose(flow_over.responsibilities(z), own.responsibilities(z), rtol=1e-5)
    with pytest.raises(TypeError, match="the base, a MixtureSameFamily, has no tensors"):
        flow_over_other().tensors()
    for prior in (own, flow_over):
        np.testing.assert_allclose(
            prior.responsibilities(tf.cast(z, tf.float16)).numpy().sum(axis=1), 1.0, rtol=1e-3
        )
        with pytest.raises(
            ValueError, match=r"z must have shape \[\.\.\., D\] = \[\.\.\., 2\]; got \[4, 3\]"
        ):
            prior.responsibilities(tf.zeros([4, 3]))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_flow_and_a_base_of_other_dtypes(transform):
    prior = FlowPriorLayer(
        VampPriorLayer(encoder(), K, SHAPE), num_couplings=2, transform=transform, dtype="float64"
    )
    z = np.random.default_rng(0).normal(size=(4, D))
    np.testing.assert_allclose(prior(z), prior.base(z), rtol=1e-5)
    assert prior.sample(2, seed=0).shape == (2, D) and prior.centres().shape == (K, D)
    assert prior.sample_component(1, 2, seed=0).shape == (2, D) and prior.responsibilities(z).shape == (4, K)


@pytest.mark.parametrize("base", ["vamp", "vamp-weighted"])
def test_a_flow_over_some_components(base):
    prior = small_vae("flow", flow_base=base).prior
    z = tf.constant(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
    some = prior.of_some(2, seeds.stateless(3))
    assert isinstance(some, FlowDistribution)
    np.testing.assert_allclose(
        some.log_prob(z), prior.base.of_some(2, seeds.stateless(3)).log_prob(z), rtol=1e-5
    )
    again = some.rebuilt(some.tensors())
    np.testing.assert_array_equal(again.log_prob(z), some.log_prob(z))


# --- some of the components ---


@pytest.mark.parametrize("name", ["mog", "vamp", "vamp-weighted", "vamp-mixture"])
def test_some_components_estimate_the_density_without_bias(name):
    """Over many choices the mean of the estimate is p(z); the mean of its logarithm is below log p(z)."""
    prior = small_vae(name).prior
    if name == "vamp-mixture":
        prior.log_variance.assign(np.random.default_rng(1).normal(0.0, 1.0, (5, 3)))
    if name in ("vamp-weighted", "vamp-mixture"):
        prior.logits.assign([0.0, 1.0, -1.0, 0.5, 2.0])
    z = tf.constant(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
    estimate = tf.function(lambda seed: prior.of_some(2, seed).log_prob(z))
    estimates = np.stack([estimate(seeds.stateless(choice)).numpy() for choice in range(400)])
    exact = prior.log_prob(z).numpy()
    ratio = np.exp(estimates - exact)
    error = ratio.std(axis=0, ddof=1) / np.sqrt(len(ratio))
    assert np.all(np.abs(ratio.mean(axis=0) - 1.0) < 4.0 * error) and np.all(error > 0.0)
    assert np.all(estimates.mean(axis=0) < exact)
    # The bias is about half the relative variance.
    bias, expected = (estimates - exact).mean(), -0.5 * ratio.var(axis=0, ddof=1).mean()
    assert expected * 2.0 < bias < expected / 2.0
    np.testing.assert_array_equal(prior.of_some(5, seeds.stateless(0)).log_prob(z), exact)
    np.testing.assert_array_equal(prior.of_some(9, seeds.stateless(0)).log_prob(z), exact)


def test_each_component_is_chosen_equally_often_and_once():
    choose = tf.function(lambda seed: priors.choose(2, 5, seed))
    chosen = np.stack([choose(seeds.stateless(choice)).numpy() for choice in range(1000)])
    assert np.all(chosen[:, 0] != chosen[:, 1])
    counts = np.bincount(chosen.reshape(-1), minlength=5)
    assert np.all(np.abs(counts - 400) < 4.0 * np.sqrt(1000 * 0.4 * 0.6))


@pytest.mark.parametrize("jit", [False, True])
def test_a_step_with_some_components_moves_those_alone(images, jit):
    """The pseudo-inputs of the others keep their values, and validation takes all components."""
    model = small_vae(components_per_step=2)
    model.compile(optimizer=NormalizedAdam(1e-2))
    build_optimizer(model)
    before = model.prior.pseudo_inputs.numpy()
    seed = seeds.fold_in_name(model.step_seed(), "components")
    chosen = set(priors.choose(2, 5, seed).numpy())
    tf.function(model.train_step, jit_compile=jit, autograph=False)(tf.constant(images))
    moved = np.any(model.prior.pseudo_inputs.numpy() != before, axis=(1, 2, 3))
    assert set(np.flatnonzero(moved)) == chosen
    whole = small_vae()
    for a, b in zip(whole.weights, model.weights, strict=True):
        a.assign(b)
    images, seed = tf.constant(images), seeds.stateless(4)
    np.testing.assert_array_equal(model.elbo(images, seed).kl, whole.elbo(images, seed).kl)
    assert type(model).from_config(model.get_config()).components_per_step == 2
    with pytest.raises(UsageError, match="components_per_step must be at least 1"):
        small_vae(components_per_step=0)
