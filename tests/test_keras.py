"""tfvamp's pieces in models of your own: every encoder, every kind of model, losses, callbacks, files."""

import math
import subprocess
import sys

import keras
import matplotlib.image
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import tfvamp
from tests import twins
from tests.small import build_optimizer, small_model, small_vae
from tfvamp import seeds
from tfvamp.callbacks import DrawSamples, EarlyStopping, WarmUp
from tfvamp.layers import (
    BernoulliLikelihood,
    DiagonalGaussian,
    GaussianPosterior,
    GaussianSample,
    KLDivergence,
    MixtureOfGaussiansPriorLayer,
    StandardNormalPriorLayer,
    VampPriorLayer,
    as_diagonal_gaussian,
)
from tfvamp.losses import NegativeLogLikelihood
from tfvamp.models import PixelHVAE

D, SHAPE = 3, (6, 5, 1)
OUTPUTS = ("distribution", "pair", "triple", "columns")


def encoder_with(output: str) -> keras.Model:
    """A functional encoder with one of the outputs that the layers read; the same function for each."""
    keras.utils.set_random_seed(4)
    x = keras.Input(SHAPE)
    h = keras.layers.Dense(8, "tanh")(keras.layers.Flatten()(x))
    if output == "distribution":
        return keras.Model(x, GaussianPosterior(D)(h))
    columns = keras.layers.Dense(2 * D)(h)
    if output == "columns":
        return keras.Model(x, columns)
    loc, log_variance = keras.ops.split(columns, 2, axis=-1)
    if output == "pair":
        return keras.Model(x, [loc, log_variance])
    return keras.Model(x, [loc, log_variance, GaussianSample(seed=8)([loc, log_variance])])


def decoder() -> keras.Model:
    return keras.Sequential([keras.Input((D,)), keras.layers.Dense(30), keras.layers.Reshape(SHAPE)])


def functional(output: str, jit: bool = False) -> keras.Model:
    encoder = encoder_with(output)
    prior = VampPriorLayer(encoder, 4, event_shape=SHAPE, name="prior")
    x = keras.Input(SHAPE)
    posterior = encoder(x)
    parts = posterior if isinstance(posterior, list) else [posterior]
    z = parts[2] if output == "triple" else GaussianSample(seed=8)(posterior)
    z = KLDivergence(prior, beta=0.5)([*parts[:2], z])
    model = keras.Model(x, decoder()(z))
    model.compile("adam", loss=NegativeLogLikelihood(), jit_compile=jit)
    build_optimizer(model)
    return model


class Subclassed(keras.Model):
    """With a train_step of its own, or with `compute_loss` alone."""

    def __init__(self, output: str):
        super().__init__()
        self.encoder, self.decoder = encoder_with(output), decoder()
        self.prior = VampPriorLayer(self.encoder, 4, event_shape=SHAPE, name="prior")
        self.draw = GaussianSample(seed=8)

    def call(self, x):
        return self.decoder(self.draw(self.encoder(x)))

    def negative_elbo(self, x):
        posterior = as_diagonal_gaussian(self.encoder(x))
        z = self.draw(posterior)
        kl = posterior.log_prob(z) - self.prior(z)
        return NegativeLogLikelihood()(x, self.decoder(z)) + tf.reduce_mean(kl)


class WithTrainStep(Subclassed):
    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self.negative_elbo(data[0])
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


class WithComputeLoss(Subclassed):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.negative_elbo(x)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kind", ["functional", "train_step", "compute_loss"])
def test_the_prior_trains_in_every_kind_of_model_with_every_encoder(kind, output, images):
    jit = output == "pair"  # how an encoder's output is read does not depend on it
    if kind == "functional":
        model = functional(output, jit)
    else:
        model = WithTrainStep(output) if kind == "train_step" else WithComputeLoss(output)
        model.compile("adam", jit_compile=jit)
    pseudo_inputs = next(v for v in model.trainable_variables if v.name == "pseudo_inputs")
    before = pseudo_inputs.numpy()
    history = model.fit(images, images, batch_size=4, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert (pseudo_inputs.numpy() != before).all()
    encoder = 6 if output == "distribution" else 4
    assert len({id(v) for v in model.trainable_variables}) == encoder + 2 + 1  # each once


@pytest.mark.parametrize("output", OUTPUTS[1:])
def test_every_encoder_gives_the_same_prior(output, images):
    z = np.linspace(-1, 1, 2 * D, dtype=np.float32).reshape(2, D)
    initial = np.random.default_rng(0).uniform(0.2, 0.8, (4, *SHAPE))
    pair, other = encoder_with("pair"), encoder_with(output)
    expected = VampPriorLayer(pair, 4, initial=initial)(z)
    np.testing.assert_allclose(VampPriorLayer(other, 4, initial=initial)(z), expected, rtol=1e-6)
    loc, log_variance = (part.numpy() for part in pair(initial.astype(np.float32)))
    np.testing.assert_allclose(expected, twins.mixture_log_prob(z, np.zeros(4), loc, log_variance), rtol=1e-5)


@pytest.mark.parametrize(
    "output, described",
    [
        (np.zeros((2, 5), np.float32), r"got ndarray \(2, 5\)"),
        (np.zeros((2, 0), np.float32), r"got ndarray \(2, 0\)"),
        ([np.zeros((2, 0)), np.zeros((2, 0))], "got list of"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "got list of"),
        ("mean", "got str"),
        (None, "got NoneType"),
    ],
)
def test_an_encoder_that_cannot_be_read_is_told_what_it_may_return(output, described):
    with pytest.raises(TypeError, match=rf"\[\.\.\., 2 D\]; {described}"):
        as_diagonal_gaussian(output)


def test_an_encoder_that_cannot_be_read_is_told_in_a_functional_model():
    with pytest.raises(TypeError, match=r"must return a diagonal normal.*\(None, 5\)"):
        GaussianSample()(keras.Input((5,)))


def test_gaussian_sample_equals_its_formula_and_counts_its_calls(tmp_path):
    loc, log_variance = np.full((4, D), 2.0, np.float32), np.full((4, D), -1.0, np.float32)
    layer = GaussianSample(seed=5)
    draws = [layer([loc, log_variance]).numpy() for _ in range(2)]
    for call, draw in enumerate(draws):
        seed = seeds.fold_in(seeds.stateless(5, "GaussianSample"), call)
        noise = seeds.normal([4, D], seed)
        np.testing.assert_allclose(draw, loc + math.exp(-0.5) * noise, rtol=1e-6)
    again = GaussianSample(seed=5)
    np.testing.assert_array_equal(again([loc, log_variance]), draws[0])
    assert np.abs(GaussianSample(seed=6)([loc, log_variance]) - draws[0]).min() > 0
    keras.utils.set_random_seed(1)
    assert len({GaussianSample().seed for _ in range(20)}) == 20


def test_noise_goes_on_after_loading(tmp_path):
    x = keras.Input((2 * D,))
    model = keras.Model(x, GaussianSample(seed=5)(x))
    batch = np.ones((4, 2 * D), np.float32)
    model(batch)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(batch), model(batch))


def test_kl_adds_to_the_loss_what_scipy_says_and_passes_z_on():
    rng = np.random.default_rng(0)
    loc, log_variance, z = (rng.normal(size=(5, D)).astype(np.float32) for _ in range(3))
    layer = KLDivergence(StandardNormalPriorLayer(D), beta=0.25)
    np.testing.assert_array_equal(layer([loc, log_variance, z]), z)
    scale = np.exp(0.5 * log_variance.astype(np.float64))
    kl = (scipy.stats.norm.logpdf(z, loc, scale) - scipy.stats.norm.logpdf(z)).sum(axis=-1)
    assert float(layer.losses[0]) == pytest.approx(0.25 * kl.mean(), rel=1e-5)
    assert float(layer.metrics[0].result()) == pytest.approx(kl.mean(), rel=1e-5)
    np.testing.assert_array_equal(layer([DiagonalGaussian(loc, log_variance), z]), z)
    assert float(layer.losses[0]) == pytest.approx(0.25 * kl.mean(), rel=1e-5)


def test_kl_with_samples_is_unbiased_for_the_closed_form():
    loc, log_variance = np.array([0.7, -0.2, 0.0]), np.array([-1.0, 0.5, 0.0])
    exact = 0.5 * (loc**2 + np.exp(log_variance) - 1.0 - log_variance).sum()
    n = 40_000
    rows = [np.tile(part, (n, 1)).astype(np.float32) for part in (loc, log_variance)]
    z = GaussianSample(seed=3)(rows)
    posterior = DiagonalGaussian(*rows)
    terms = (posterior.log_prob(z) - StandardNormalPriorLayer(D)(z)).numpy()
    layer = KLDivergence(StandardNormalPriorLayer(D))
    layer([*rows, z])
    # Two-sided at 4 standard errors: one false alarm in 16,000 seeds.
    assert abs(float(layer.metrics[0].result()) - exact) < 4 * terms.std() / math.sqrt(n)


def test_fit_reports_nll_plus_beta_kl(images, eager):
    model = functional("pair")
    nll = NegativeLogLikelihood()
    model.compile(
        keras.optimizers.SGD(0.0), loss=nll, metrics=[lambda y, logits: nll.negative_log_prob(y, logits)]
    )
    logs = model.evaluate(images, images, batch_size=8, verbose=0, return_dict=True)
    (nll_name,) = set(logs) - {"loss", "kl"}
    assert logs["loss"] == pytest.approx(logs[nll_name] + 0.5 * logs["kl"], rel=1e-5)
    assert logs[nll_name] > 10.0  # 30 pixels near log 2 each, not their mean


@pytest.mark.parametrize(
    "inputs, error, match",
    [
        (lambda: np.zeros((2, 3)), ValueError, r"must be called on \[mean, log_variance, z\]"),
        (lambda: [np.zeros((2, 3), np.float32)] * 2 + [np.zeros((2, 4), np.float32)], ValueError, r"shape \[2, 3\]; got \[2, 4\]"),
        (lambda: [np.zeros((2, 5), np.float32), np.zeros((2, 3), np.float32)], TypeError, "must return a diagonal normal"),
        (lambda: [np.zeros((2, 2), np.float32)] * 3, ValueError, r"\[\.\.\., 3\]; got \[2, 2\]"),
        (lambda: [np.zeros((2, 3), np.float32)] * 2, ValueError, r"z is missing from \[mean, log_variance, z\]"),
        (lambda: [keras.Input((3,)), keras.Input((3,))], ValueError, r"KLDivergence reads .* z is missing"),
        (lambda: [keras.Input((2,)) for _ in range(3)], ValueError, r"the prior of 'kl.*' has 3 latents, and z has 2"),
    ],
)  # fmt: skip
def test_kl_refuses_what_does_not_fit(inputs, error, match):
    with pytest.raises(error, match=match):
        KLDivergence(StandardNormalPriorLayer(D))(inputs())


def test_kl_refuses_priors_and_betas_that_are_none():
    with pytest.raises(TypeError, match="prior must be a prior layer.*got str"):
        KLDivergence("vamp")
    with pytest.raises(ValueError, match="beta must be at least 0; got -1"):
        KLDivergence(StandardNormalPriorLayer(D), beta=-1)


def test_nll_sums_over_the_event_and_averages_over_the_batch(images):
    logits = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    exact = -twins.bernoulli_log_prob(images.reshape(8, -1), logits.reshape(8, -1))
    loss = NegativeLogLikelihood()
    assert float(loss(images, logits)) == pytest.approx(exact.mean(), rel=1e-5)
    assert float(loss(images, logits.astype(np.float16))) == pytest.approx(exact.mean(), rel=1e-3)
    assert float(loss(images, BernoulliLikelihood(SHAPE)(logits.reshape(8, -1)))) == pytest.approx(
        exact.mean(), rel=1e-5
    )
    weight = np.arange(8.0)
    assert float(loss(images, logits, weight)) == pytest.approx((weight * exact).mean(), rel=1e-5)
    restored = NegativeLogLikelihood.from_config(loss.get_config())
    assert float(restored(images, logits)) == pytest.approx(exact.mean(), rel=1e-5)


def test_nll_broadcasts_nothing(images):
    with pytest.raises(ValueError, match=r"prediction's shape \[8, 30\]; got \[8, 6, 5, 1\]"):
        NegativeLogLikelihood()(images, np.zeros((8, 30), np.float32))
    with pytest.raises(ValueError, match=r"got \[1, 6, 5, 1\]"):
        NegativeLogLikelihood()(images[:1], images)
    with pytest.raises(ValueError, match="poisson"):
        NegativeLogLikelihood("poisson")


class Betas(keras.callbacks.Callback):
    """Notes beta in training and in validation."""

    def __init__(self, beta):
        super().__init__()
        self.beta, self.training, self.validation = beta, [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.training.append(float(self.beta.value))

    def on_test_batch_begin(self, batch, logs=None):
        self.validation.append(float(self.beta.value))


@pytest.mark.parametrize("kind", ["functional", "vae"])
def test_warm_up(kind, images, eager):
    model = functional("pair") if kind == "functional" else small_vae("standard")
    final = 0.5 if kind == "functional" else 1.0
    beta = model.get_layer("kl").beta if kind == "functional" else model.beta
    if kind == "vae":
        model.compile("adam")
    betas = Betas(beta)
    model.fit(
        images, images, batch_size=8, epochs=6, validation_data=(images, images), verbose=0, callbacks=[WarmUp(4), betas]
    )  # fmt: skip
    np.testing.assert_allclose(betas.training, [final * f for f in (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)])
    np.testing.assert_allclose(betas.validation, [final] * 6)
    assert float(beta.value) == final


def test_warm_up_without_a_divergence_is_an_error(images, eager):
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.BatchNormalization()])
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="no KLDivergence layer"):
        model.fit(images, images, verbose=0, callbacks=[WarmUp(4)])
    with pytest.raises(ValueError, match="at least 1 epoch; got 0"):
        WarmUp(0)


def scripted(values, warmup, patience, monitor="val_elbo") -> tuple[EarlyStopping, int, float]:
    """The callback fed with values an epoch; the epochs that were run, and the weight it leaves."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    callback = EarlyStopping(patience, warmup, monitor)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        model.weights[0].assign([[epoch + 1.0]])
        callback.on_epoch_end(epoch, {monitor: value})
        if getattr(model, "stop_training", False):
            break
    callback.on_train_end()
    return callback, epoch + 1, float(model.weights[0].numpy()[0, 0])


def test_early_stopping_keeps_the_best_of_the_warm_up_and_counts_after_it():
    elbos = [-9, -5, -6, -7, -8, -8, -8, -8, -8]
    callback, epochs, weight = scripted(elbos, warmup=5, patience=2)
    # Held at 0 in epochs 3 and 4; 5, 6, 7 count 1, 2, 3: 3 exceeds 2.
    assert (epochs, weight, callback.best_epoch) == (7, 2.0, 2)


def test_early_stopping_on_a_loss_and_through_nan():
    _, epochs, weight = scripted(
        [9.0, 5.0, math.nan, 4.0, 6.0, 6.0], warmup=0, patience=1, monitor="val_loss"
    )
    assert (epochs, weight) == (6, 4.0)


def test_early_stopping_in_fit_restores_the_best_weights(images, eager):
    model = functional("pair")
    stopping = EarlyStopping(patience=1, warmup=2)
    history = model.fit(
        images, images, epochs=8, validation_data=(images, images), verbose=0, callbacks=[stopping, WarmUp(2)]
    ).history  # fmt: skip
    assert stopping.best_epoch == 1 + int(np.argmin(history["val_loss"]))
    assert float(model.get_layer("kl").beta.value) == 0.5
    with pytest.raises(ValueError, match=r"'val_elbo', which fit does not report: choose one of kl, loss"):
        model.fit(images, images, verbose=0, callbacks=[EarlyStopping(monitor="val_elbo")])


def test_draw_samples(images, tmp_path, eager):
    model = small_vae("vamp")
    model.compile("adam")
    model.fit(
        images, epochs=4, verbose=0, callbacks=[DrawSamples(tmp_path / "new" / "samples", every=2, n=9)]
    )
    files = sorted((tmp_path / "new" / "samples").iterdir())
    assert [file.name for file in files] == ["epoch-0002.png", "epoch-0004.png"]
    first, last = (matplotlib.image.imread(file) for file in files)
    assert first.shape[:2] == (3 * (3 * 7 + 1), 3 * (3 * 6 + 1)) and (first != last).any()
    prior, decode = model.prior, model.decoder
    DrawSamples(tmp_path, lambda n, seed: decode(prior.sample(n, seed)).mean())
    other = functional("pair")
    with pytest.raises(ValueError, match=r"no method sample\(n, seed\)"):
        other.fit(images, images, verbose=0, callbacks=[DrawSamples(tmp_path)])
    with pytest.raises(ValueError, match=r"\[n, H, W, C\], C = 1 or 3; got \[64, 3\]"):
        other.fit(images, images, verbose=0, callbacks=[DrawSamples(tmp_path, prior.sample, every=1)])


def test_prior_from_a_config_needs_its_encoder():
    encoder = encoder_with("pair")
    prior = VampPriorLayer(encoder, 4)
    with pytest.raises(ValueError, match="VampPriorLayer.from_config"):
        VampPriorLayer.from_config(prior.get_config())
    again = VampPriorLayer.from_config(prior.get_config(), encoder=encoder)
    assert again.encoder is encoder and again.num_components == 4


def test_a_distribution_in_a_functional_model_tells_what_it_is():
    posterior = GaussianPosterior(D)(keras.Input((4,)))
    assert "symbolic DiagonalGaussian" in repr(posterior)
    with pytest.raises(AttributeError, match="is only a placeholder for a layer's output.*GaussianSample"):
        posterior.mean()


def test_a_distribution_as_output_of_a_functional_model(tmp_path):
    keras.utils.set_random_seed(4)
    x = keras.Input((4,))
    model = keras.Model(x, GaussianPosterior(D)(x))
    batch = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    predicted = model.predict(batch, batch_size=4, verbose=0)
    assert isinstance(predicted, DiagonalGaussian) and predicted.batch_shape == (9,)
    np.testing.assert_allclose(predicted.loc, model(batch).loc, rtol=1e-6)
    with pytest.raises(NotImplementedError, match=r"DiagonalGaussian among its outputs.*save its weights"):
        model.save(tmp_path / "model.keras")


def test_a_mixture_travels_too():
    mixture = MixtureOfGaussiansPriorLayer(3, D)()
    parts = keras.tree.flatten(mixture)
    assert len(parts) == 3
    again = keras.tree.pack_sequence_as(mixture, parts)
    np.testing.assert_allclose(
        again.log_prob(np.ones(D, np.float32)), mixture.log_prob(np.ones(D, np.float32))
    )


ANOTHER_KERAS = """
import keras, optree
from tfvamp.layers import DiagonalGaussian, GaussianPosterior
optree.unregister_pytree_node(DiagonalGaussian, namespace="keras")
try:
    GaussianPosterior(3)(keras.Input((4,)))
except NotImplementedError as error:
    print(error)
"""

LOAD = """
import sys, keras
try:
    keras.saving.load_model(sys.argv[1])
except Exception as error:
    print(error)
"""


@pytest.mark.slow
def test_a_keras_that_lets_no_distribution_through_is_named(storm):
    answer = storm(python=ANOTHER_KERAS, eager=False)
    assert answer["status"] == 0, answer["stderr"][-2000:]
    assert f"Keras {keras.__version__} does not let the distribution" in answer["stdout"]


@pytest.mark.slow
def test_loading_without_tfvamp_says_whose_the_class_is(tmp_path):
    small_vae("vamp").save(tmp_path / "vae.keras")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "vae.keras")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "tfvamp" in result.stdout and "VAE" in result.stdout


@pytest.mark.parametrize("policy", ["float64", "mixed_bfloat16"])
def test_other_precisions(policy, images):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        assert np.isfinite(functional("pair").fit(images, images, verbose=0).history["loss"]).all()
    finally:
        keras.config.set_dtype_policy(before)


def test_vae_refuses_sample_weights(images, eager):
    model = small_vae("standard")
    model.compile("adam")
    with pytest.raises(ValueError, match="take no sample_weight"):
        model.fit(images, images, sample_weight=np.ones(8), verbose=0)


@pytest.mark.parametrize("jit", [False, True])
def test_vae_fits_alike_by_fit_and_by_train_step(jit, images):
    """What `fit` does is the train_step that the CLI's loop runs."""
    by_fit, by_hand = small_vae("vamp"), small_vae("vamp")
    for model in (by_fit, by_hand):
        model.compile(keras.optimizers.SGD(1e-2), jit_compile=jit)
    by_fit.fit(images, batch_size=4, epochs=2, shuffle=False, verbose=0)
    for _ in range(2):
        for start in (0, 4):
            by_hand.train_step(tf.constant(images[start : start + 4]))
    for a, b in zip(by_fit.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("prior", tfvamp.models.PRIORS)
def test_vae_clones_and_exports_by_keras(prior, images, tmp_path):
    model = small_vae(prior)
    copy = tfvamp.clone_model(model)
    np.testing.assert_allclose(copy(images), model(images), rtol=1e-6)
    np.testing.assert_allclose(copy.prior(np.ones((1, D))), model.prior(np.ones((1, D))), rtol=1e-6)
    model.export(str(tmp_path / "export"), format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(loaded.serve(images), model(images), rtol=1e-5, atol=1e-6)


def test_vae_under_mixed_precision(images):
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model = small_vae("vamp")
        model.compile("adam", jit_compile=False)
        assert np.isfinite(model.fit(images, epochs=3, verbose=0).history["loss"]).all()
        assert model.encoder(images).dtype == tf.float32 and model.prior().dtype == tf.float32
        assert model.decoder(np.zeros((1, D))).log_prob(images[:1]).dtype == tf.float32
    finally:
        keras.config.set_dtype_policy(policy)


def test_pixels_drawn_under_mixed_precision(images, shallow):
    """Those of the network in its own precision, whether or not Keras's scope of it is open at the first draw."""
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        drawn = small_model(PixelHVAE).sample(3, 1)
        model = small_model(PixelHVAE)
        model(images[:3])  # draws, in a layer's `call`
        np.testing.assert_array_equal(model.sample(3, 1), drawn)
        model.compile("adam", jit_compile=False)
        build_optimizer(model)
        assert np.isfinite(model.fit(images, verbose=0).history["loss"]).all()
    finally:
        keras.config.set_dtype_policy(policy)


REPLICAS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from tests.small import small_vae
from tfvamp import seeds
x = np.random.default_rng(0).integers(0, 2, (8, 6, 5, 1)).astype("float32")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = small_vae("vamp")
    model.compile(keras.optimizers.SGD(0.1))
before = model.get_weights()
model.fit(x, batch_size=8, shuffle=False, verbose=0)
alone = small_vae("vamp")
alone.set_weights(before)
seed = seeds.fold_in(seeds.stateless(0, "train"), 0)
with tf.GradientTape() as tape:
    halves = [alone.elbo(half, seeds.fold_in(seed, i)).bound for i, half in enumerate((x[:4], x[4:]))]
    loss = -tf.reduce_mean(tf.concat(halves, 0))
for variable, gradient, mirrored in zip(
    alone.trainable_variables, tape.gradient(loss, alone.trainable_variables), model.trainable_variables
):
    np.testing.assert_allclose(mirrored.numpy(), variable - 0.1 * gradient, rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_two_replicas_take_the_step_of_the_whole_batch_with_noise_of_their_own(storm):
    answer = storm(python=REPLICAS, eager=False)
    assert answer["status"] == 0, answer["stderr"][-2000:]
