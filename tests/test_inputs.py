"""The door of whole models: what is taken, what is cast and reshaped, what is refused, everywhere alike."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfvamp
from tests.small import small_model, small_vae
from tfvamp.errors import UsageError
from tfvamp.layers import BernoulliLikelihood, DiscretizedLogisticLikelihood, GaussianLikelihood
from tfvamp.models import VAE, ConvHVAE, ConvVAE, PixelHVAE
from tfvamp.networks.images import as_images

B, H, W = 4, 6, 5


def binary(shape=(B, H, W, 1)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)


@pytest.fixture(scope="module")
def vae() -> VAE:
    model = small_vae()
    model.compile("adam", run_eagerly=True)
    return model


# What a caller can do with images; each looks at them.
DOORS = {
    "fit": lambda model, x: model.fit(x, verbose=0),
    "evaluate": lambda model, x: model.evaluate(x, verbose=0),
    "predict": lambda model, x: model.predict(x, verbose=0),
    "validation": lambda model, x: model.fit(binary(), validation_data=(x, None), verbose=0),
    "train_on_batch": lambda model, x: model.train_on_batch(x),
    "test_on_batch": lambda model, x: model.test_on_batch(x),
    "predict_on_batch": lambda model, x: model.predict_on_batch(x),
    "call": lambda model, x: model(x),
    "elbo": lambda model, x: model.elbo(x, tf.constant([1, 2])),
    "bound": lambda model, x: model.bound(x, tf.constant([1, 2])),
    "encoder": lambda model, x: model.encoder(x),
    "posterior": lambda model, x: model.posterior(x),
    "reconstruct": lambda model, x: model.reconstruct(x, 3),
    "log_likelihood": lambda model, x: tfvamp.log_likelihood(model, x, num_samples=2),
}
each_door = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


@each_door
@pytest.mark.parametrize(
    "bad, parts",
    [
        (binary((B, 1, H, W)), ["[B, 6, 5, 1]; got [4, 1, 6, 5]", "channels first", "tf.transpose(images, [0, 2, 3, 1])"]),
        (binary((B, H, W, 3)), ["[B, 6, 5, 1]; got [4, 6, 5, 3]"]),
        (binary((B, W, H, 1)), ["[B, 6, 5, 1]; got [4, 5, 6, 1]", "event_shape"]),
        (binary((B, H * W + 1)), ["got [4, 31]"]),
        (255 * binary(), ["from 0 to 255. Divide by 255"]),
        ((65535 * binary()).astype(np.int32), ["from 0 to 65535. Divide by 65535"]),
        (2 * binary() - 1, ["from -1 to 1. Take (images + 1) / 2"]),
        (5 * binary() - 2, ["from -2 to 3. Bring them into [0, 1]", "GaussianLikelihood"]),
        (np.where(binary() > 0, np.nan, 0).astype(np.float32), ["got NaN"]),
        (np.where(binary() > 0, np.inf, 0).astype(np.float32), ["to inf"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_at_every_door(vae, door, bad, parts):
    before = [weight.numpy().copy() for weight in vae.trainable_weights]
    with pytest.raises(UsageError) as refused:
        door(vae, bad)
    assert all(part in str(refused.value) for part in parts), refused.value
    for weight, old in zip(vae.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)


@each_door
@pytest.mark.parametrize(
    "form",
    [
        lambda x: x.astype(np.uint8),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(bool),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float16),
        lambda x: x[..., 0],
        lambda x: x.reshape(B, -1),
        lambda x: {"image": x.astype(np.uint8), "label": np.arange(B)},
        lambda x: {"x": x},
        lambda x: {"pixels": x},
        tf.constant,
    ],
)
def test_what_fits_is_taken_at_every_door(vae, door, form):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        door(vae, form(binary()))


def test_every_form_is_the_same_images(vae):
    seed = tf.constant([1, 2])
    expected = vae.elbo(binary(), seed).bound
    for form in (binary().astype(np.uint8), binary()[..., 0], binary().reshape(B, -1), {"image": binary()}):
        np.testing.assert_array_equal(vae.elbo(form, seed).bound, expected)
        np.testing.assert_array_equal(vae.predict(form, verbose=0), vae.predict(binary(), verbose=0))


def batches(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(2)


class Own(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.x[2 * index : 2 * index + 2]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("source", [batches, lambda x: (x[i : i + 2] for i in (0, 2)), Own])
def test_compiled_steps_refuse_what_a_pipeline_gives(source, jit):
    """XLA leaves assertions out of a step: the pipeline looks."""
    model = small_vae("standard")
    model.compile("adam", jit_compile=jit)
    with pytest.raises(UsageError, match=r"values from 0 to 255\. Divide by 255"):
        model.fit(source(255 * binary()), verbose=0)
    with pytest.raises(UsageError, match="channels first"):
        model.fit(source(binary((B, 1, H, W))), verbose=0)


def test_datasets_of_every_element_are_taken(eager):
    model = small_vae("standard")
    model.compile("adam")
    expected = model.evaluate(binary(), batch_size=2, verbose=0, return_dict=True)
    x = binary().astype(np.uint8)
    for data in (
        batches(x),
        batches({"image": x, "label": np.arange(B)}),
        batches((x, x)),
        Own(x),
        (x[i : i + 2] for i in (0, 2)),
    ):
        assert model.evaluate(data, verbose=0, return_dict=True) == expected
    with pytest.warns(UserWarning, match="the targets y have no effect"):
        model.evaluate(batches((x, np.arange(B))), verbose=0)
    with pytest.warns(UserWarning, match="the targets y have no effect"):
        model.fit(x, np.arange(B), verbose=0)


def test_a_graph_asserts_unless_it_is_told_not_to(vae):
    elbo = tf.function(lambda x: vae.elbo(x, tf.constant([1, 2])).bound)
    assert np.isfinite(elbo(binary())).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must lie in \[0, 1\]"):
        elbo(255 * binary())
    trusting = small_vae("standard", check_inputs=False)
    assert trusting.elbo(255 * binary(), tf.constant([1, 2])).bound.shape == (B,)
    assert trusting.encoder(255 * binary()).batch_shape == (B,)
    with pytest.raises(UsageError, match="channels first"):
        trusting.elbo(binary((B, 1, H, W)), tf.constant([1, 2]))
    assert VAE.from_config(trusting.get_config()).check_inputs is False


def test_colour_images_keep_their_axes():
    model = small_model(VAE, "standard", event_shape=(H, W, 3))
    assert model.elbo(binary((B, H, W, 3)), tf.constant([1, 2])).bound.shape == (B,)
    with pytest.raises(UsageError, match=r"channels first.*\[0, 2, 3, 1\]"):
        model.elbo(binary((B, 3, H, W)), tf.constant([1, 2]))
    with pytest.raises(UsageError, match=r"got \[4, 6, 5\]"):
        model.elbo(binary((B, H, W)), tf.constant([1, 2]))


@pytest.mark.parametrize(
    "bad, part",
    [
        (binary((H, W, 1)), r"one image without the axis of the batch. Add it: images\[tf.newaxis\]"),
        (binary((H, W)), r"one image without the axis of the batch"),
        (np.array([["a"]]), "got "),
        (None, "got None"),
        ([[1.0], [1.0, 2.0]], "cannot read"),
        ({"a": 1, "b": 2}, "under 'image'; got the keys 'a', 'b'"),
        (binary().astype(np.complex64), "must be numbers; got complex64"),
    ],
)
def test_what_is_no_batch_of_images(bad, part):
    with pytest.raises(UsageError, match=part):
        as_images(bad, (H, W, 1))


def test_rounding_and_empty_batches_are_no_error(vae):
    assert as_images(binary() * np.float32(1.000001), (H, W, 1)).shape == (B, H, W, 1)
    assert as_images(binary()[:0], (H, W, 1)).shape == (0, H, W, 1)
    assert tf.function(lambda x: as_images(x, (H, W, 1)))(binary()[:0]).shape == (0, H, W, 1)


@pytest.mark.parametrize("kind", [VAE, ConvVAE, ConvHVAE, PixelHVAE])
def test_every_kind_of_model_has_the_door(kind, shallow):
    model = small_model(kind, "standard")
    expected = model.elbo(binary(), tf.constant([1, 2])).bound
    np.testing.assert_array_equal(model.elbo(binary()[..., 0], tf.constant([1, 2])).bound, expected)
    for bad in (binary((B, 1, H, W)), 255 * binary()):
        for door in ("elbo", "encoder", "fit", "predict"):
            model.compile("adam", run_eagerly=True)
            with pytest.raises(UsageError):
                DOORS[door](model, bad)


@pytest.mark.parametrize(
    "layer, raw",
    [
        (BernoulliLikelihood((H, W, 1)), 30),
        (DiscretizedLogisticLikelihood((H, W, 1)), 60),
        (GaussianLikelihood((H, W, 1)), 30),
    ],
)
@pytest.mark.parametrize("shape", [(B, 1, H, W), (B, H, W), (B, 1, 1, 1), (B, H * W), (H,)])
def test_no_image_likelihood_broadcasts(layer, raw, shape):
    likelihood = layer(tf.zeros([B, raw]))
    with pytest.raises(
        ValueError, match=r"must have the shape \[..., 6, 5, 1\] of the distribution's events"
    ):
        likelihood.log_prob(binary(shape))
    assert likelihood.log_prob(binary()).shape == (B,)
    assert layer(tf.zeros([3, B, raw])).log_prob(binary()).shape == (3, B)  # samples of latents, as ever


def test_losses_and_metrics_of_a_compile_are_refused():
    model = small_vae("standard")
    for options in ({"loss": "mse"}, {"metrics": ["mse"]}, {"loss": tfvamp.losses.NegativeLogLikelihood()}):
        with pytest.raises(UsageError, match="a VAE maximises a bound of its own, and shows loss, elbo"):
            model.compile("adam", **options)


FLOATX = """
import keras, numpy as np, tensorflow as tf
keras.config.set_floatx("float64")
import tfvamp
from tests.small import shallow_networks, small_model
from tfvamp import export, layers, models
from tfvamp.evaluation import annealing, images, importance, needs
from tfvamp.losses import NegativeLogLikelihood
shallow_networks(setattr)
x = np.random.default_rng(0).integers(0, 2, (4, 3, 2, 1))
annealing.SETTLING = 0
for module in (images, importance, needs):
    setattr(module, "AT_ONCE" if hasattr(module, "AT_ONCE") else "WEIGHED", 1)
for kind, prior, likelihood in (
    (models.VAE, "mog", "logistic"), (models.HVAE, "vamp-weighted", "bernoulli"), (models.PixelHVAE, "vamp", "bernoulli"),
):
    model = small_model(kind, prior, likelihood=likelihood, event_shape=(3, 2, 1))
    assert {v.dtype for v in model.trainable_variables} == {"float64"}
    bound = model.elbo(x, tf.constant([1, 2]))
    assert bound.bound.dtype == bound.kl.dtype == tf.float64
    assert model.prior(tf.zeros([2, 3], tf.float64)).dtype == tf.float64
    assert model.sample(2, 3).shape == (2, 3, 2, 1)
    if kind is models.HVAE:
        model.compile("adam", run_eagerly=True)
        assert np.isfinite(model.fit(x, verbose=0).history["loss"]).all()
        assert model.predict(x, verbose=0).shape == x.shape
        for how in ({}, {"proposal": "refined", "refine_steps": 2}, {"estimator": "ais", "chains": 2, "steps": 2, "leapfrogs": 1}):
            samples = {} if "estimator" in how else {"num_samples": 3}
            assert np.isfinite(tfvamp.log_likelihood(model, x[:1], **samples, **how).mean)
        exported = export.saved_model(model)
        seed = tf.constant([1, 0])
        expected = tfvamp.log_likelihood(model, x, num_samples=3, seed=1).per_example
        np.testing.assert_allclose(exported.log_likelihood(x.astype("float32"), 3, seed)["log_likelihood"], expected, rtol=1e-5)
        loc = exported.encode(x.astype("float32"))["loc"]
        assert exported.decode(loc)["images"].dtype == loc.dtype == tf.float32
event = keras.Input((6,))
encoder = keras.Model(event, layers.GaussianPosterior(2)(keras.layers.Dense(4)(event)))
for likelihood in (None, layers.GaussianLikelihood((6,), "predicted"), layers.GaussianLikelihood((6,), "learned")):
    prior = layers.VampPriorLayer(encoder, 3, weighted=True)
    posterior = encoder(event)
    z = layers.KLDivergence(prior)([posterior, layers.GaussianSample(seed=1)(posterior)])
    raw = keras.layers.Dense(6 * (len(likelihood.heads) if likelihood else 1))(z)
    data = np.random.default_rng(1).integers(0, 2, (8, 6))
    if likelihood is None:
        vae = keras.Model(event, raw)
        vae.compile("adam", loss=NegativeLogLikelihood(), run_eagerly=True)
        history = vae.fit(data, data, verbose=0).history
    else:
        vae = keras.Model(event, layers.ReconstructionLoss()([likelihood(raw), event]))
        vae.compile("adam", run_eagerly=True)
        history = vae.fit(data, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert prior.log_prob(prior.sample(4)).dtype == tf.float64
print("done")
"""


def test_float64_throughout(storm):
    answer = storm(python=FLOATX, eager=True)
    assert answer["stdout"].split() == ["done"], answer["stderr"][-3000:]
