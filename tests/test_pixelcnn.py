"""PixelHVAE's decoder: what a pixel depends on, and drawing pixel by pixel."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import twins
from tests.small import small_model
from tfvamp import seeds
from tfvamp.layers import MaskedConv2D
from tfvamp.models import PixelHVAE, likelihood_layer
from tfvamp.networks.pixelcnn import NUM_LAYERS, PixelDecoder, _draw, _taps

SHAPES = [(5, 4, 1), (4, 5, 3)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_likelihood = pytest.mark.parametrize("likelihood", ["bernoulli", "logistic"])


def trained(shape, likelihood="bernoulli") -> PixelDecoder:
    """A decoder with batch moments, scales and shifts as after training; D = 3."""
    tf.keras.utils.set_random_seed(1)
    decoder = PixelDecoder(likelihood_layer(likelihood, shape), shape, 3)
    decoder.build((None, 3), (None, 3))
    rng = np.random.default_rng(2)
    for layer in decoder.normalizations:
        size = layer.gamma.shape
        layer.gamma.assign(rng.uniform(0.5, 2.0, size))
        layer.beta.assign(rng.normal(0.5, 0.3, size))
        layer.moving_mean.assign(rng.normal(0.0, 0.1, size))
        layer.moving_variance.assign(rng.uniform(0.02, 0.2, size))
    for layer in (decoder.gated_z1, decoder.gated_z2):
        layer.value_bias.assign(rng.normal(size=layer.value_bias.shape))
    return decoder


def latents(count) -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(size=(count, 3)).astype(np.float32) for i in (3, 4)]


def dependence(shape, of: str) -> np.ndarray:
    """[H W C, ...]: where the raw output of each channel of each pixel has a gradient, in raster order.

    Of images (`of` = "x"), [H W C], or of the conditions, [H, W, N].
    """
    decoder = trained(shape)
    # Without the ReLUs' zeros, and with all weights of one sign, a gradient that may be there is there.
    for layer in (*decoder.convolutions, *decoder.heads):
        layer.kernel.assign(tf.abs(layer.kernel))
    for layer in decoder.normalizations:
        layer.beta.assign(tf.ones_like(layer.beta))
    x = tf.constant(np.random.default_rng(5).uniform(size=(1, *shape)), tf.float32)
    conditions = tf.ones([1, *shape[:2], 2 * shape[2]])
    with tf.GradientTape() as tape:
        tape.watch([x, conditions])
        raw = tf.reshape(decoder.raw(x, conditions)[0], [-1])
    jacobian = tape.jacobian(raw, x if of == "x" else conditions)[:, 0].numpy()
    return jacobian.reshape(len(raw), *((-1,) if of == "x" else jacobian.shape[1:])) != 0


@pytest.mark.parametrize("shape", [*SHAPES, (1, 12, 1), (12, 3, 1), (10, 10, 2)], ids=str)
def test_a_pixel_depends_on_no_later_one_and_on_all_that_it_should(shape):
    """Eight 3x3 layers reach eight rows up, eight columns to the left, and one to the right for each row up."""
    height, width, channels = shape
    found = dependence(shape, "x")
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                expected = np.zeros(shape, bool)
                left = max(0, j - NUM_LAYERS)
                for above in range(max(0, i - NUM_LAYERS), i):
                    expected[above, left : j + i - above + 1] = True
                expected[i, left:j] = True
                expected[i, j, :c] = True
                row = found[(i * width + j) * channels + c].reshape(shape)
                np.testing.assert_array_equal(row, expected, str((i, j, c)))


@each_shape
def test_a_pixel_sees_the_latents_around_it(shape):
    """The first pixel too: nothing of the latents is masked."""
    found = dependence(shape, "conditions")
    assert found[:, 0, 0].any(-1)[0]
    for index, row in enumerate(found.reshape(*shape, *found.shape[1:]).reshape(-1, *found.shape[1:])):
        i, j = divmod(index // shape[2], shape[1])
        assert row[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].all(), (i, j)


@pytest.mark.parametrize("strict", [True, False])
def test_masks_of_channels(strict):
    layer = MaskedConv2D(6, 3, channels=3, strict=strict, num_conditions=1)
    layer.build((None, 4, 4, 4))
    centre = layer.mask[1, 1]
    expected = np.array([[a < b if strict else a <= b for b in (0, 0, 1, 1, 2, 2)] for a in range(3)])
    np.testing.assert_array_equal(centre[:3], expected)
    assert layer.mask[0].all() and layer.mask[1, 0].all() and layer.mask[:, :, 3].all()
    assert not layer.mask[1, 2, :3].any() and not layer.mask[2, :, :3].any()


@pytest.mark.parametrize("size, conditions", [(1, 0), (3, 0), (3, 2), (5, 0)])
def test_rows_that_are_masked_whole_are_left_out_of_the_product_alone(size, conditions):
    """Values and gradients are those of the whole masked kernel."""
    layer = MaskedConv2D(6, size, num_conditions=conditions)
    layer.build((None, 7, 6, 4))
    inputs = tf.constant(np.random.default_rng(0).normal(size=(2, 7, 6, 4)), tf.float32)

    def values_and_gradients(function):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            values = function(inputs)
            total = tf.reduce_sum(values**2)
        return values, *tape.gradient(total, [inputs, layer.kernel.value])

    whole = values_and_gradients(lambda x: tf.nn.conv2d(x, layer.masked_kernel(), 1, "SAME"))
    for found, expected in zip(values_and_gradients(layer), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: MaskedConv2D(4, 2), "kernel_size must be odd; got 2"),
        (lambda: MaskedConv2D(2, 3, channels=3), "each of the 3 channels of an image needs a filter; got 2"),
        (lambda: MaskedConv2D(4, 3, 3, num_conditions=2).build((None, 4, 4, 4)), "got 4 features"),
    ],
)
def test_masks_that_cannot_be(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def draw_naively(decoder, z, uniform) -> tuple[np.ndarray, list[np.ndarray]]:
    """Images by one full pass a pixel and channel; and the raw outputs that each value was drawn from."""
    likelihood = decoder(*z)
    x = np.zeros(uniform.shape, np.float32)
    raw = [np.zeros(uniform.shape, np.float32) for _ in decoder.heads]
    of_pixels = decoder.likelihood.of_pixels

    @tf.function(autograph=False)
    def full_pass(x):
        heads = decoder.raw(x, likelihood.conditions)
        return heads, of_pixels(*heads).at_uniform(uniform)

    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            for c in range(x.shape[3]):
                heads, drawn = full_pass(tf.constant(x))
                x[:, i, j, c] = drawn[:, i, j, c]
                for kept, head in zip(raw, heads, strict=True):
                    kept[:, i, j, c] = head[:, i, j, c]
    return x, raw


@each_shape
@each_likelihood
def test_drawing_equals_one_full_pass_a_pixel(shape, likelihood):
    decoder, z = trained(shape, likelihood), latents(7)
    uniform = np.random.default_rng(6).uniform(size=(7, *shape)).astype(np.float32)
    naive, raw = draw_naively(decoder, z, uniform)
    for jit in (False, True):
        draw = tf.function(lambda *z: decoder(*z).at_uniform(uniform), jit_compile=jit, autograph=False)
        np.testing.assert_array_equal(draw(*z), naive)  # no uniform number here lies within 1e-5 of an edge
    assert len(np.unique(naive)) == 2 if likelihood == "bernoulli" else len(np.unique(naive)) > 20
    on_prefix = decoder.raw(naive, decoder(*z).conditions)  # all at once: each pixel's prefix is the image's
    for head, expected in zip(on_prefix, raw, strict=True):
        np.testing.assert_allclose(head, expected, atol=1e-5, rtol=1e-5)


@each_shape
@each_likelihood
def test_cached_features_give_the_raw_outputs_of_a_full_pass(shape, likelihood):
    """Where the pixels that are drawn are those of given images, so that no draw hides a difference."""
    decoder, z = trained(shape, likelihood), latents(3)
    images = np.random.default_rng(7).uniform(size=(3, *shape)).astype(np.float32)
    found = []

    def pixel(features, given):
        raw = [features @ head.masked_kernel()[0, 0] for head in decoder.heads]
        if likelihood == "bernoulli":  # the heads of grey images have no bias
            raw = [values + head.bias.value for values, head in zip(raw, decoder.heads, strict=True)]
        found.append(raw)
        return given

    layers = list(map(_taps, decoder.convolutions, decoder.normalizations))
    conditions = decoder(*z).conditions
    np.testing.assert_array_equal(_draw(layers, pixel, conditions, tf.constant(images)), images)
    expected = decoder.raw(images, conditions)
    places = itertools.product(*map(range, shape))
    for (i, j, c), heads in zip(places, found, strict=True):
        for head, whole in zip(heads, expected, strict=True):
            np.testing.assert_allclose(head[:, c], whole[:, i, j, c], atol=1e-5, rtol=1e-5)


@each_likelihood
def test_the_density_is_the_product_over_pixels(likelihood):
    decoder, z = trained((3, 2, 1), likelihood), latents(4)
    x = decoder(*z).sample(seed=(1, 2)).numpy()
    expected = np.zeros(4)
    for i in range(3):
        for j in range(2):
            prefix = np.zeros_like(x)
            prefix[:, :i], prefix[:, i, :j] = x[:, :i], x[:, i, :j]
            heads = [head[:, i, j] for head in decoder.raw(prefix, decoder(*z).conditions)]
            expected += decoder.likelihood.of_pixels(*heads).log_prob(x[:, i, j]).numpy()[:, 0]
    np.testing.assert_allclose(decoder(*z).log_prob(x), expected, rtol=2e-6, atol=1e-5)


def test_binary_images_have_probabilities_that_sum_to_one():
    decoder, z = trained((2, 2, 2)), latents(3)
    every = np.array(np.meshgrid(*[[0.0, 1.0]] * 8)).reshape(8, -1).T.reshape(256, 1, 2, 2, 2)
    total = np.exp(decoder(*z).log_prob(every.astype(np.float32)).numpy().astype(np.float64)).sum(0)
    np.testing.assert_allclose(total, 1.0, rtol=2e-5)


def test_draws_have_the_frequencies_of_the_density():
    decoder, z = trained((2, 2, 1)), latents(1)
    every = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T.reshape(16, 1, 2, 2, 1)
    p = np.exp(decoder(*z).log_prob(every.astype(np.float32)).numpy().ravel().astype(np.float64))
    draws = decoder(*z).sample(20_000, seed=(5, 6)).numpy().reshape(-1, 4)
    codes = draws @ [1, 2, 4, 8]
    shares = np.array([(codes == code).mean() for code in every.reshape(16, 4) @ [1, 2, 4, 8]])
    assert (np.abs(shares - p) < 5 * np.sqrt(p * (1 - p) / 20_000) + 1e-4).all()


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_any_leading_dimensions(leading):
    decoder = trained((5, 4, 1))
    z = [np.zeros((*leading, 3), np.float32)] * 2
    likelihood = decoder(*z)
    assert likelihood.batch_shape == leading and likelihood.event_shape == (5, 4, 1)
    assert likelihood.log_prob(np.zeros((5, 4, 1), np.float32)).shape == leading
    assert likelihood.sample(2, seed=(1, 2)).shape == (2, *leading, 5, 4, 1)
    with pytest.raises(NotImplementedError, match="mean is not implemented"):
        likelihood.mean()


def test_the_decoder_in_a_functional_model():
    z = keras.Input((3,))
    with pytest.raises(NotImplementedError, match="holds its network .*call the layer in the `call`"):
        trained((5, 4, 1))(z, z)


def test_batch_normalisation_learns_in_training_alone(images):
    """Evaluation, sampling and pseudo-inputs take the moving moments and leave them as they are."""
    model = small_model(PixelHVAE)
    moments = model.decoder.non_trainable_variables
    assert len(moments) == 2 * NUM_LAYERS

    def values():
        return [variable.numpy() for variable in moments]

    before = values()
    seed = seeds.stateless(1)
    model.elbo(images[:1], seed)
    model.bound(images, seed)
    model.sample(2, 1)
    model.prior()
    model(images)
    for a, b in zip(before, values(), strict=True):
        np.testing.assert_array_equal(a, b)
    # An image's density does not depend on its batch, except for the noise.
    z = [np.ones((8, 3), np.float32)] * 2
    of_all, of_one = (
        model.decoder(*z).log_prob(images),
        model.decoder(*(a[:1] for a in z)).log_prob(images[:1]),
    )
    np.testing.assert_allclose(of_all[:1], of_one, rtol=1e-5)

    model.compile(optimizer="sgd")
    model.train_step(tf.constant(images))
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, values(), strict=True))
    trained_moments = values()
    model.test_step(tf.constant(images))
    for a, b in zip(trained_moments, values(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("leading", [(8,), (2, 8)])
def test_training_takes_the_moments_of_the_batch(leading, images):
    """[B] or [S, B] latents: all rows are one batch, whose moments also move the kept ones by a tenth."""
    decoder = trained((6, 5, 1))
    z = [np.random.default_rng(i).normal(size=(*leading, 3)).astype(np.float32) for i in (7, 8)]
    kept = [(layer.moving_mean.numpy(), layer.moving_variance.numpy()) for layer in decoder.normalizations]
    of_batch = decoder(*z, training=True).log_prob(images)
    moved = [(layer.moving_mean.numpy(), layer.moving_variance.numpy()) for layer in decoder.normalizations]
    conditions = decoder(*z).conditions.numpy().reshape(-1, 6, 5, 2)
    x = np.broadcast_to(images, (*leading, 6, 5, 1)).reshape(-1, 6, 5, 1)
    maps = np.concatenate([x, conditions], axis=-1).astype(np.float64)
    for convolution, layer, old, new in zip(
        decoder.convolutions, decoder.normalizations, kept, moved, strict=True
    ):
        maps = twins.conv2d(maps, convolution.masked_kernel().numpy().astype(np.float64))
        mean, variance = maps.mean(axis=(0, 1, 2)), maps.var(axis=(0, 1, 2))
        np.testing.assert_allclose(new[0], 0.9 * old[0] + 0.1 * mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(new[1], 0.9 * old[1] + 0.1 * variance, rtol=1e-4, atol=1e-5)
        scale = layer.gamma.numpy() / np.sqrt(variance + 1e-5)
        maps = np.maximum((maps - mean) * scale + layer.beta.numpy(), 0.0)
    head = decoder.heads[0]
    logits = twins.conv2d(maps, head.masked_kernel().numpy()) + head.bias.numpy()
    expected = twins.bernoulli_log_prob(x, logits).reshape(leading)
    np.testing.assert_allclose(of_batch, expected, rtol=1e-4)
