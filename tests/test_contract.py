"""What every public layer and model does in Keras: one contract, a table of cases.

A case is a functional model around the layer. A public layer without a case fails the first test.
"""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfvamp
from tests.small import build_optimizer
from tfvamp import layers, models
from tfvamp.networks import conv, levels, mlp, pixelcnn
from tfvamp.networks.conv import ConvDecoder, ConvEncoder, ConvJointDecoder, ConvJointEncoder
from tfvamp.networks.levels import AmortizedVampPrior
from tfvamp.networks.mlp import MLPDecoder, MLPEncoder, MLPJointDecoder, MLPJointEncoder
from tfvamp.networks.pixelcnn import PixelDecoder

B, D, SHAPE = 6, 2, (3, 2, 1)


@pytest.fixture(autouse=True)
def networks(shallow):
    """Each kind of layer has a case of its own; how many a network has shows nothing here."""


@keras.saving.register_keras_serializable(package="tests")
class Moments(keras.layers.Layer):
    """A user's own layer that takes a distribution from a functional model."""

    def call(self, distribution):
        return distribution.mean() + distribution.variance()


@keras.saving.register_keras_serializable(package="tests")
class Mean(keras.layers.Layer):
    """As `Moments`, for a distribution whose variance has no closed form."""

    def call(self, distribution):
        return distribution.mean()


@keras.saving.register_keras_serializable(package="tests")
class LogProb(keras.layers.Layer):
    """A user's own layer around a decoder: a hundredth of log p(x | z) of an image of halves, [B, 1]."""

    def __init__(self, decoder, **kwargs):
        super().__init__(**kwargs)
        self.decoder = decoder

    def call(self, z, training=False):
        likelihood = self.decoder(z, z, training=training)
        return 0.01 * likelihood.log_prob(tf.fill(self.decoder.event_shape, 0.5))[:, None]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1)

    def get_config(self):
        return {**super().get_config(), "decoder": keras.saving.serialize_keras_object(self.decoder)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("decoder")), **config)


def encoder_pair() -> keras.Model:
    """A user's encoder: a functional model to (mean, log-variance)."""
    images = keras.Input(SHAPE)
    h = keras.layers.Dense(5, "tanh")(keras.layers.Flatten()(images))
    return keras.Model(images, [keras.layers.Dense(D)(h), keras.layers.Dense(D)(h)], name="encoder")


def around(layer, shape=(4,), before=None, after=None) -> keras.Model:
    x = keras.Input(shape)
    value = layer(before(x) if before else x)
    return keras.Model(x, after(value) if after else value)


def sample_model() -> keras.Model:
    return around(layers.GaussianSample(seed=5), before=keras.layers.Dense(2 * D))


def kl_model(prior=None) -> keras.Model:
    encoder = encoder_pair()
    prior = prior or layers.VampPriorLayer(
        encoder, 4, initial=keras.initializers.RandomUniform(0.2, 0.8, seed=1)
    )
    x = keras.Input(SHAPE)
    loc, log_variance = encoder(x)
    z = layers.GaussianSample(seed=5)([loc, log_variance])
    z = layers.KLDivergence(prior, beta=0.7)([loc, log_variance, z])
    return keras.Model(x, keras.layers.Dense(3)(z))


def vamp_model(over=lambda prior: prior, kind=None) -> keras.Model:
    encoder = encoder_pair()
    prior = (kind or functools.partial(layers.VampPriorLayer, weighted=True))(
        encoder, 4, initial=keras.initializers.RandomUniform(0.2, 0.8, seed=1), name="prior"
    )
    x = keras.Input(SHAPE)
    return keras.Model(x, over(prior)(0.5 * encoder(x)[0]))  # without 0.5 a bias would move z and prior alike


def flow_model() -> keras.Model:
    """A flow that is not the identity, over a VampPrior."""
    model = vamp_model(
        lambda prior: layers.FlowPriorLayer(prior, num_couplings=2, hidden_units=3, name="prior")
    )
    rng = np.random.default_rng(0)
    for weight in model.get_layer("prior")._networks:
        weight.assign(weight + rng.normal(0.0, 0.05, weight.shape))
    return model


def exemplar_model() -> keras.Model:
    """A prior of four fixed images, which takes the encoder's means alone; the variances are used beside it."""
    encoder, x = encoder_pair(), keras.Input(SHAPE)
    prior = layers.ExemplarPriorLayer(
        encoder, np.random.default_rng(0).uniform(size=(4, *SHAPE)).astype(np.float32), name="prior"
    )
    loc, log_variance = encoder(x)
    return keras.Model(x, prior(0.5 * loc) + 0.01 * keras.ops.sum(log_variance, axis=-1))


def conditional_model() -> keras.Model:
    """A prior whose encoder takes an image and a label: x [B, 9] is six pixels and three labels."""
    image, label = keras.Input(SHAPE, name="image"), keras.Input((3,), name="label")
    h = keras.layers.Concatenate()([keras.layers.Flatten()(image), label])
    h = keras.layers.Dense(5, "tanh")(h)
    encoder = keras.Model(
        {"image": image, "label": label}, [keras.layers.Dense(D)(h), keras.layers.Dense(D)(h)], name="encoder"
    )
    prior = layers.VampPriorLayer(
        encoder,
        4,
        bounds={"image": (0, 1), "label": "softmax"},
        initial={"image": keras.initializers.RandomUniform(0.2, 0.8, seed=1), "label": None},
        name="prior",
    )
    x = keras.Input((9,))
    parts = {"image": keras.layers.Reshape(SHAPE)(x[:, :6]), "label": x[:, 6:]}
    return keras.Model(x, prior(1.5 * encoder(parts)[0]))


def reconstruction_model() -> keras.Model:
    x = keras.Input((4,))
    likelihood = layers.GaussianLikelihood((4,), scale="predicted")(keras.layers.Dense(8)(x))
    return keras.Model(x, layers.ReconstructionLoss()([likelihood, x]))


def joint_encoder_model(kind) -> keras.Model:
    x = keras.Input(SHAPE)
    z2 = keras.layers.Dense(D)(keras.layers.Flatten()(x))
    return keras.Model(x, Moments()(kind(SHAPE, D, 5)(x, z2)))


def decoder_of(kind):
    return kind(layers.BernoulliLikelihood(SHAPE), SHAPE, 4, 5)


def joint_decoder_model(kind) -> keras.Model:
    z = keras.Input((4,))
    return keras.Model(z, Moments()(decoder_of(kind)(keras.layers.Dense(4)(z), z)))


def likelihood_model(layer) -> keras.Model:
    return around(layer, before=keras.layers.Dense(4 * len(layer.heads)), after=Mean())


@dataclasses.dataclass(frozen=True)
class Case:
    layer: type
    make: Callable[[], keras.Model]
    noisy: bool = False


CASES = [
    Case(layers.GatedDense, lambda: around(layers.GatedDense(3))),
    Case(layers.GatedConv2D, lambda: around(layers.GatedConv2D(3, 3, 2), (5, 4, 2))),
    Case(
        layers.MaskedConv2D,
        lambda: around(layers.MaskedConv2D(4, 3, 2, num_conditions=1, use_bias=True), (5, 4, 3)),
    ),
    Case(layers.GaussianPosterior, lambda: around(layers.GaussianPosterior(D), after=Moments())),
    Case(layers.GaussianSample, sample_model, noisy=True),
    Case(layers.KLDivergence, kl_model, noisy=True),
    Case(layers.BernoulliLikelihood, lambda: likelihood_model(layers.BernoulliLikelihood((2, 2, 1)))),
    Case(
        layers.DiscretizedLogisticLikelihood,
        lambda: likelihood_model(layers.DiscretizedLogisticLikelihood((2, 2, 1))),
    ),
    Case(
        layers.GaussianLikelihood,
        lambda: around(layers.GaussianLikelihood((2, 2, 1)), before=keras.layers.Dense(4), after=Moments()),
    ),
    Case(
        layers.GaussianLikelihood,
        lambda: around(
            layers.GaussianLikelihood((4,), "predicted"), before=keras.layers.Dense(8), after=Moments()
        ),
    ),
    Case(layers.ReconstructionLoss, reconstruction_model),
    Case(
        layers.StandardNormalPriorLayer,
        lambda: around(layers.StandardNormalPriorLayer(4), before=keras.layers.Dense(4)),
    ),
    Case(layers.MixtureOfGaussiansPriorLayer, lambda: around(layers.MixtureOfGaussiansPriorLayer(3, 4))),
    Case(layers.VampPriorLayer, vamp_model),
    Case(layers.VampPriorLayer, conditional_model),
    Case(layers.FlowPriorLayer, flow_model),
    Case(layers.ExemplarPriorLayer, exemplar_model),
    Case(layers.VampMixturePriorLayer, lambda: vamp_model(kind=layers.VampMixturePriorLayer)),
    Case(MLPEncoder, lambda: around(MLPEncoder(SHAPE, D, 5), SHAPE, after=Moments())),
    Case(MLPDecoder, lambda: around(decoder_of(MLPDecoder), after=Moments())),
    Case(MLPJointEncoder, lambda: joint_encoder_model(MLPJointEncoder)),
    Case(
        AmortizedVampPrior,
        lambda: around(AmortizedVampPrior(MLPJointEncoder(SHAPE, D, 5), SHAPE, D, 5), (D,), after=Moments()),
    ),
    Case(MLPJointDecoder, lambda: joint_decoder_model(MLPJointDecoder)),
    Case(ConvEncoder, lambda: around(ConvEncoder(SHAPE, D, 5), SHAPE, after=Moments())),
    Case(ConvDecoder, lambda: around(decoder_of(ConvDecoder), after=Moments())),
    Case(ConvJointEncoder, lambda: joint_encoder_model(ConvJointEncoder)),
    Case(ConvJointDecoder, lambda: joint_decoder_model(ConvJointDecoder)),
    Case(PixelDecoder, lambda: around(LogProb(decoder_of(PixelDecoder)))),
]
BASES = {
    layers.DistributionLayer,
    layers.PriorLayer,
    layers.MixturePriorLayer,
    layers.LikelihoodLayer,
    mlp.Network,
    mlp.DecoderNetwork,
}  # abstract: their subclasses have the cases


def fresh(case) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """The same model each time, inputs in [0, 1], and targets."""
    keras.utils.set_random_seed(2)
    model = case.make()
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(B, *model.input_shape[1:])).astype(np.float32)
    return model, x, rng.uniform(size=(B, *model.output_shape[1:])).astype(np.float32)


def settings(model, case) -> dict:
    """The config of the layer without the layers that it owns."""
    layer = next(layer for layer in model._flatten_layers() if isinstance(layer, case.layer))
    return {name: value for name, value in layer.get_config().items() if not isinstance(value, dict)}


def rewind(model) -> None:
    for layer in model._flatten_layers():
        if isinstance(layer, layers.GaussianSample):
            layer.calls.assign(0)


def outputs(model, x) -> np.ndarray:
    rewind(model)
    return np.asarray(model(x))


def identical(model, other, x, **tolerance) -> None:
    np.testing.assert_allclose(
        outputs(other, x), outputs(model, x), **({"rtol": 1e-6, "atol": 1e-6} | tolerance)
    )


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.layer.__name__)


def test_every_public_layer_has_a_case():
    public = {
        value
        for module in (layers, mlp, conv, levels, pixelcnn)
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, keras.layers.Layer)
        and not value.__name__.startswith("_")
    }
    assert public - BASES == {case.layer for case in CASES}


@each_case
def test_registered_under_tfvamp(case):
    assert keras.saving.get_registered_name(case.layer) == f"tfvamp>{case.layer.__name__}"


@each_case
def test_functional_with_a_free_batch(case):
    model, x, _ = fresh(case)
    assert model.output_shape[0] is None
    whole = outputs(model, x)
    assert whole.shape == (B, *model.output_shape[1:]) and np.isfinite(whole).all()
    graph = tf.function(model, input_signature=[tf.TensorSpec([None, *x.shape[1:]])], autograph=False)
    rewind(model)
    np.testing.assert_allclose(graph(x), whole, rtol=1e-5, atol=1e-6)
    if not case.noisy:
        np.testing.assert_allclose(graph(x[2:3]), whole[2:3], rtol=1e-5, atol=1e-6)  # images do not mix
        model.jit_compile = False  # XLA would compile for each of the two sizes
        np.testing.assert_allclose(model.predict(x, batch_size=4, verbose=0), whole, rtol=1e-5, atol=1e-6)


@each_case
def test_every_variable_gets_a_gradient_in_a_custom_train_step(case):
    inner, x, y = fresh(case)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.add_n([tf.reduce_mean((self.inner(x, training=True) - y) ** 2), *self.losses])
            gradients = tape.gradient(loss, self.trainable_variables)
            for variable, gradient in zip(self.trainable_variables, gradients, strict=True):
                tf.debugging.assert_greater(tf.reduce_max(tf.abs(gradient)), 0.0, variable.path)
                tf.debugging.assert_all_finite(gradient, variable.path)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    model = Own()
    model.compile("sgd", run_eagerly=True)
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


@each_case
def test_fit_takes_the_same_steps_with_xla(case):
    weights = []
    for jit in (False, True):
        model, x, y = fresh(case)
        before = model.get_weights()
        model.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit)
        build_optimizer(model)
        # `fit` traces with a free batch; equal batches, since XLA compiles for each size
        history = model.fit(x, y, batch_size=3, epochs=2, shuffle=False, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        weights.append(model.get_weights())
        if before:
            assert any(np.abs(a - b).max() > 1e-6 for a, b in zip(before, weights[-1], strict=True))
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@each_case
def test_mixed_precision(case):
    policy = keras.config.dtype_policy()
    exact, x, y = fresh(case)
    exact = outputs(exact, x)
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model, x, y = fresh(case)
        assert {variable.dtype for variable in model.trainable_variables} <= {"float32"}
        half = outputs(model, x)
        np.testing.assert_allclose(half.astype(np.float32), exact, rtol=2e-2, atol=2e-2)
        if issubclass(case.layer, layers.PriorLayer):
            assert half.dtype == np.float32
        model.compile("sgd", loss="mse", jit_compile=False)
        build_optimizer(model)
        assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()
    finally:
        keras.config.set_dtype_policy(policy)


@each_case
def test_keras_file_and_clone_keep_the_encoder_shared(case, tmp_path):
    model, x, y = fresh(case)
    model.compile("sgd", loss="mse", run_eagerly=True)  # the copies too
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    for other in (keras.saving.load_model(tmp_path / "model.keras"), tfvamp.clone_model(model)):
        assert [v.shape for v in other.trainable_variables] == [v.shape for v in model.trainable_variables]
        assert len(other.variables) == len(model.variables)
        identical(model, other, x)
        assert settings(other, case) == settings(model, case)
        other.fit(x, y, verbose=0)  # the copy trains, and its prior follows its encoder


@each_case
def test_weight_files(case, tmp_path):
    model, x, _ = fresh(case)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.1)
    model.save_weights(tmp_path / "model.weights.h5")
    other = fresh(case)[0]
    other.load_weights(tmp_path / "model.weights.h5")
    identical(model, other, x)


@each_case
def test_clone_by_keras_is_whole_or_refused(case):
    model, _, _ = fresh(case)
    if case.layer in (
        layers.VampPriorLayer,
        layers.VampMixturePriorLayer,
        layers.ExemplarPriorLayer,
        layers.FlowPriorLayer,
        layers.KLDivergence,
    ):
        for copy in (keras.models.clone_model, lambda model: type(model).from_config(model.get_config())):
            with pytest.raises(ValueError, match=r"shares its encoder.*tfvamp\.clone_model"):
                copy(model)
    else:
        assert len(keras.models.clone_model(model).weights) == len(model.weights)


@each_case
def test_export_by_keras(case, tmp_path):
    model, x, _ = fresh(case)
    expected = outputs(model, x)
    rewind(model)
    model.export(str(tmp_path / "export"), format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    np.testing.assert_allclose(loaded.serve(x), expected, rtol=1e-5, atol=1e-6)


MIRRORED = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy as np
from tests.small import build_optimizer, shallow_networks
from tests.test_contract import CASES, fresh
shallow_networks(setattr)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for case in CASES:
    with strategy.scope():
        model, x, y = fresh(case)
        model.compile("sgd", loss="mse", jit_compile=False)
        build_optimizer(model)
    history = model.fit(x, y, batch_size=6, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all(), case
    for variable in model.trainable_variables:
        first, second = (v.numpy() for v in variable.value.values)
        np.testing.assert_array_equal(first, second)
    print(case.layer.__name__)
"""


@pytest.mark.full
def test_two_replicas(storm):
    answer = storm(python=MIRRORED, eager=False)
    assert answer["status"] == 0, answer["stderr"][-2000:]
    assert answer["stdout"].split() == [case.layer.__name__ for case in CASES]


@pytest.mark.parametrize("leading", [(), (5,), (5, 2)])
@pytest.mark.parametrize(
    "kind, count", [(MLPDecoder, 1), (MLPJointDecoder, 2), (ConvDecoder, 1), (ConvJointDecoder, 2)]
)
def test_decoders_take_any_leading_dimensions(leading, kind, count):
    decoder = kind(layers.BernoulliLikelihood(SHAPE), SHAPE, D, 8)
    z = np.random.default_rng(0).normal(size=(*leading, D)).astype(np.float32)
    likelihood = decoder(*[z] * count)
    assert likelihood.batch_shape == leading and likelihood.event_shape == SHAPE
    assert likelihood.log_prob(np.zeros(SHAPE, np.float32)).shape == leading
    assert likelihood.sample(3, seed=(1, 2)).shape == (3, *leading, *SHAPE)


def test_models_are_in_the_registry():
    for kind in models.MODELS.values():
        assert keras.saving.get_registered_name(kind) == f"tfvamp>{kind.__name__}"
