"""Pseudo-inputs of any encoder: initial values, bounds, data, several inputs, what cannot be learned."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvamp.layers import GaussianPosterior, KLDivergence, StandardNormalPriorLayer, VampPriorLayer

D, SHAPE = 2, (3, 2, 1)


def encoder(shape=SHAPE) -> keras.Model:
    keras.utils.set_random_seed(1)
    x = keras.Input(shape)
    return keras.Model(x, keras.layers.Dense(2 * D)(keras.layers.Flatten()(x)))


def conditional(container=dict, dtype="float32") -> keras.Model:
    """An encoder of an image and a label, in a list or a dictionary."""
    keras.utils.set_random_seed(1)
    image, label = keras.Input(SHAPE, name="image"), keras.Input((4,), name="label", dtype=dtype)
    h = keras.layers.Concatenate()([keras.layers.Flatten()(image), keras.ops.cast(label, "float32")])
    inputs = {"image": image, "label": label} if container is dict else [image, label]
    return keras.Model(inputs, keras.layers.Dense(2 * D)(h))


# --- initial values ---


@pytest.mark.parametrize(
    "initial, low, high",
    [
        ("random_uniform", None, None),  # Keras: between -0.05 and 0.05
        (keras.initializers.RandomUniform(0.2, 0.4, seed=1), 0.2, 0.4),
        ({"class_name": "RandomUniform", "config": {"minval": 0.5, "maxval": 0.6, "seed": 2}}, 0.5, 0.6),
        (
            lambda shape, dtype=None: (
                tf.fill(shape, tf.cast(0.3, dtype)) + tf.range(5.0)[:, None, None, None] / 10
            ),
            0.3,
            0.7,
        ),
        (np.random.default_rng(0).uniform(0.1, 0.9, (5, *SHAPE)), 0.1, 0.9),
        (None, 0.35, 0.65),
    ],
)
def test_initial_is_what_a_keras_initializer_may_be_or_an_array(initial, low, high):
    if low is None:
        prior = VampPriorLayer(encoder(), 5, initial=initial, bounds=(-0.05, 0.05))
    else:
        prior = VampPriorLayer(encoder(), 5, initial=initial)
        values = prior.pseudo_inputs.numpy()
        assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6
    assert len(np.unique(prior.pseudo_inputs.numpy())) > 1


@pytest.mark.parametrize("initial", ["zeros", 0.5, np.float32(0.5), "ones"])
def test_components_that_start_as_one_are_said(initial):
    with pytest.warns(UserWarning, match="are equal: their gradients are, too"):
        VampPriorLayer(encoder(), 5, initial=initial)
    VampPriorLayer(encoder(), 5, initial=initial, trainable=False)  # nothing is learned, nothing is said


def test_default_initial_values_follow_the_bounds():
    values = VampPriorLayer(encoder(), 400, bounds=(-3.0, 5.0)).pseudo_inputs.numpy()
    assert values.mean() == pytest.approx(1.0, abs=0.05) and values.std() == pytest.approx(0.16, rel=0.1)


@pytest.mark.parametrize(
    "initial, part",
    [
        (keras.initializers.RandomNormal(-0.05, 0.01, seed=1), "100 % of them outside"),
        (keras.initializers.RandomNormal(0.5, 0.3, seed=1), "% of them outside"),
        (np.full((5, *SHAPE), 255.0), "got values from 255 to 255"),
        (np.full((5, *SHAPE), np.nan), "must be finite"),
    ],
)
def test_initial_values_without_a_gradient_are_refused(initial, part):
    with pytest.raises(ValueError, match=part):
        VampPriorLayer(encoder(), 5, initial=initial)
    if "finite" not in part:
        VampPriorLayer(encoder(), 5, initial=initial, bounds=None)


def test_values_at_the_bounds_have_a_gradient():
    initial = np.random.default_rng(0).integers(0, 2, (5, *SHAPE)).astype(np.float32)
    prior = VampPriorLayer(encoder(), 5, initial=initial)
    with tf.GradientTape() as tape:
        log_prob = tf.reduce_sum(prior.log_prob(tf.ones([3, D])))
    assert np.abs(tape.gradient(log_prob, prior.pseudo_inputs.value).numpy()).min() > 0.0


@pytest.mark.parametrize("bounds", [(1, 0), (0, 0), "sigmoid", (0, 1, 2), {"image": (0, 1)}])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(ValueError, match="bounds must"):
        VampPriorLayer(encoder(), 5, bounds=bounds)


# --- data ---


def data(count=50) -> np.ndarray:
    return np.random.default_rng(3).normal(7.0, 2.0, (count, *SHAPE)).astype(np.float32)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return data()[10 * index : 10 * index + 10], np.zeros(10)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        tf.constant,
        lambda x: tf.data.Dataset.from_tensor_slices(x).batch(7),
        lambda x: tf.data.Dataset.from_tensor_slices((x, np.arange(50))).batch(7),
        lambda x: (x[i : i + 10] for i in range(0, 50, 10)),
        lambda x: Batches(),
    ],
)
def test_adapt_starts_at_different_data_points_and_takes_their_range(form):
    prior = VampPriorLayer(encoder(), 20)
    prior.adapt(form(data()), seed=1)
    rows = {row.tobytes() for row in prior.pseudo_inputs.numpy()}
    assert len(rows) == 20 and rows <= {row.tobytes() for row in data()}
    assert prior.bounds == (data().min(), data().max())
    np.testing.assert_array_equal(prior.clipped_pseudo_inputs(), prior.pseudo_inputs.numpy())
    assert VampPriorLayer.from_config(prior.get_config(), encoder=encoder()).bounds == prior.bounds


def test_adapt_chooses_every_data_point_alike():
    prior = VampPriorLayer(encoder((1,)), 2, bounds=None)
    points = np.arange(5, dtype=np.float32)[:, None]
    counts = np.zeros(5)
    for seed in range(400):
        prior.adapt(points, seed)
        counts[prior.pseudo_inputs.numpy()[:, 0].astype(int)] += 1
    assert prior.bounds is None and (np.abs(counts - 160) < 4 * np.sqrt(160 * 0.6)).all()


@pytest.mark.parametrize(
    "bad, part",
    [
        (data(4), "4 data points for 5 pseudo-inputs"),
        (np.zeros((9, 4)), r"must have the shapes.*\[3, 2, 1\]; got \[9, 4\]"),
        (np.full((9, *SHAPE), np.nan), "NaN"),
        (np.full((9, *SHAPE), 2.0), "all values of the data are 2"),
        (tf.data.Dataset.from_tensors(data()).repeat(), "never end"),
        (data()[:0], "0 data points for 5 pseudo-inputs"),
        (np.full((9, *SHAPE), "a"), "must be numbers; got text"),
    ],
)
def test_data_that_do_not_do_are_refused(bad, part):
    with pytest.raises(ValueError, match=part):
        VampPriorLayer(encoder(), 5).adapt(bad)


@pytest.mark.parametrize("lengths", [(9, 8), (1000, 9), (0, 9)])
def test_inputs_of_other_lengths_are_refused(lengths):
    """Whatever rows are drawn."""
    rng = np.random.default_rng(0)
    image, label = rng.uniform(size=(lengths[0], *SHAPE)), rng.uniform(size=(lengths[1], 4))
    with pytest.raises(ValueError, match=f"the same number of data points; got .{lengths[0]}, {lengths[1]}"):
        VampPriorLayer(conditional(list), 5).adapt([image, label])


# --- several inputs ---


@pytest.mark.parametrize("container", [dict, list])
def test_encoders_of_several_inputs(container):
    prior = VampPriorLayer(
        conditional(container),
        5,
        bounds={"image": (0, 1), "label": "softmax"} if container is dict else [(0, 1), "softmax"],
    )
    seen = prior.clipped_pseudo_inputs()
    image, label = (seen["image"], seen["label"]) if container is dict else seen
    assert image.shape == (5, *SHAPE) and label.shape == (5, 4)
    np.testing.assert_allclose(tf.reduce_sum(label, axis=-1), 1.0, rtol=1e-6)
    expected = np.asarray(prior.encoder(seen))
    np.testing.assert_allclose(prior.components().loc, expected[:, :D], rtol=1e-6)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(prior.log_prob(tf.ones([3, D])))
    for gradient in tape.gradient(value, [v.value for v in prior.trainable_variables]):
        assert np.abs(gradient).max() > 0.0
    shapes = {"image": SHAPE, "label": (4,)} if container is dict else [SHAPE, (4,)]
    assert prior.event_shape == shapes and prior.get_config()["event_shape"] == shapes
    assert VampPriorLayer(conditional(container), 5, event_shape=shapes).event_shape == shapes


@pytest.mark.parametrize("shape", [SHAPE, [SHAPE], [SHAPE, (3,)], {"image": SHAPE, "labels": (4,)}])
def test_another_structure_of_shapes_is_refused(shape):
    with pytest.raises(ValueError, match="event_shape must be the encoder's input shape"):
        VampPriorLayer(conditional(), 5, event_shape=shape)


@pytest.mark.parametrize("option", ["initial", "bounds", "trainable"])
def test_another_structure_of_an_option_is_refused(option):
    with pytest.raises(ValueError, match=f"{option} must have the structure.*image, label"):
        VampPriorLayer(conditional(), 5, **{option: {"image": True if option == "trainable" else None}})


def test_labels_that_are_fixed_and_images_that_are_learned():
    labels = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]]
    prior = VampPriorLayer(
        conditional(),
        5,
        initial={"image": None, "label": labels},
        bounds={"image": (0, 1), "label": None},
        trainable={"image": True, "label": False},
    )
    np.testing.assert_array_equal(prior.clipped_pseudo_inputs()["label"], labels)
    assert [v.name for v in prior.trainable_variables if "pseudo" in v.name] == ["pseudo_inputs_image"]
    assert prior.get_config()["trainable"] == {"image": True, "label": False}


def test_adapt_with_several_inputs_keeps_pairs_together():
    rng = np.random.default_rng(0)
    labels = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 40)]
    images = np.broadcast_to(labels.argmax(1)[:, None, None, None], (40, *SHAPE)).astype(np.float32)
    prior = VampPriorLayer(conditional(), 9, bounds={"image": (0, 1), "label": "softmax"})
    prior.adapt({"image": images, "label": labels})
    seen = prior.clipped_pseudo_inputs()
    np.testing.assert_array_equal(np.argmax(seen["label"], 1), seen["image"][:, 0, 0, 0])
    assert np.max(seen["label"], axis=1).min() > 0.99 and prior.bounds == {
        "image": (0.0, 3.0),
        "label": "softmax",
    }
    listed = VampPriorLayer(conditional(list), 9, bounds=[None, "softmax"])
    listed.adapt(tf.data.Dataset.from_tensor_slices(((images, labels), np.zeros(40))).batch(8))
    np.testing.assert_array_equal(
        np.argmax(listed.clipped_pseudo_inputs()[1], 1), listed.clipped_pseudo_inputs()[0][:, 0, 0, 0]
    )


def test_deeper_structures_are_named():
    with pytest.raises(ValueError, match="event_shape must be the shape of one input"):
        VampPriorLayer(encoder(), 5, event_shape=[[SHAPE], SHAPE])


# --- what cannot be learned ---


def test_integer_inputs_are_named_and_may_be_fixed():
    with pytest.raises(
        ValueError, match=r"input 'label' is of int32: integers have no gradient.*softmax.*trainable=False"
    ):
        VampPriorLayer(conditional(dtype="int32"), 5)
    labels = np.eye(4, dtype=np.int32)[[0, 1, 2, 3, 0]]
    prior = VampPriorLayer(
        conditional(dtype="int32"),
        5,
        initial={"image": None, "label": labels},
        trainable={"image": True, "label": False},
    )
    np.testing.assert_array_equal(prior.clipped_pseudo_inputs()["label"], labels)
    assert prior.log_prob(tf.zeros([2, D])).shape == (2,)


@pytest.mark.parametrize("through", [keras.layers.Embedding(9, 3), keras.layers.Lambda(tf.round)])
def test_encoders_without_a_gradient_are_named(through):
    x = keras.Input((6,))
    own = keras.Model(x, keras.layers.Dense(2 * D)(keras.layers.Flatten()(through(x))))
    with pytest.raises(ValueError, match="no gradient with respect to its pseudo-inputs, which could never"):
        VampPriorLayer(own, 5)
    initial = np.random.default_rng(0).integers(0, 9, (5, 6))
    prior = VampPriorLayer(own, 5, initial=initial, bounds=None, trainable=False)
    assert prior.log_prob(tf.zeros([2, D])).shape == (2,)


def test_an_encoder_that_knows_nothing_yet_is_told_what_helps():
    own = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2 * D)])
    with pytest.raises(ValueError, match="does not tell the shape of its inputs yet: pass event_shape"):
        VampPriorLayer(own, 5)
    assert VampPriorLayer(own, 5, event_shape=SHAPE).log_prob(tf.zeros([2, D])).shape == (2,)


# --- outputs of encoders, seeds, names ---


@pytest.mark.parametrize("loc", ["mean", "mu", "loc", "z_mean"])
@pytest.mark.parametrize("spread", ["log_variance", "log_var", "logvar", "z_log_var", "scale", "std"])
def test_encoders_that_return_a_dictionary(loc, spread):
    x = keras.Input((4,))
    own = keras.Model(x, {loc: x[:, :2], spread: 1.0 + keras.ops.square(x[:, 2:]), "extra": x})
    inputs = tf.random.stateless_normal([3, 4], [1, 2])
    prior = VampPriorLayer(own, 3, initial=inputs, bounds=None)
    components = prior.components()
    np.testing.assert_allclose(components.loc, inputs[:, :2], rtol=1e-6)
    value = 1.0 + inputs[:, 2:] ** 2
    expected = 2 * np.log(value) if spread in ("scale", "std") else value
    np.testing.assert_allclose(components.log_variance, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "names", [("mean",), ("a", "b"), ("mean", "mu", "log_var"), ("mean", "log_var", "std")]
)
def test_dictionaries_that_do_not_tell_are_named(names):
    x = keras.Input((4,))
    own = keras.Model(x, dict.fromkeys(names, x[:, :2]))
    with pytest.raises(TypeError, match=f"a dictionary with the keys.*{names[0]}"):
        VampPriorLayer(own, 3, bounds=None).components()


def test_seeds_of_every_kind():
    prior = VampPriorLayer(encoder(), 5)

    def draw(seed):
        return prior.sample(4, seed).numpy()

    np.testing.assert_array_equal(draw(3), draw(3))
    np.testing.assert_array_equal(draw((3, 4)), draw(tf.constant([3, 4])))
    assert not np.array_equal(draw(3), draw((3, 4)))
    first, second = keras.random.SeedGenerator(7), keras.random.SeedGenerator(7)
    np.testing.assert_array_equal([draw(first), draw(first)], [draw(second), draw(second)])
    assert not np.array_equal(draw(first), draw(first))
    keras.utils.set_random_seed(5)
    once = [prior.sample(4).numpy(), prior.sample(4).numpy()]
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(once, [prior.sample(4).numpy(), prior.sample(4).numpy()])
    assert not np.array_equal(*once)
    compiled = tf.function(lambda: prior.sample(4))
    assert not np.array_equal(compiled(), compiled())


def test_log_prob_is_the_layer_itself():
    prior = VampPriorLayer(encoder(), 5)
    z = tf.random.stateless_normal([7, D], [1, 2])
    np.testing.assert_array_equal(prior.log_prob(z), prior(z))
    symbolic = keras.Input((D,))
    np.testing.assert_allclose(keras.Model(symbolic, prior.log_prob(symbolic))(z), prior(z), rtol=1e-6)


def two_divergences(in_turn: bool) -> keras.Model:
    x = keras.Input(SHAPE)
    h = keras.layers.Flatten()(x)
    loc, log_variance = keras.layers.Dense(D)(h), keras.layers.Dense(D)(h)
    prior = StandardNormalPriorLayer(D)
    z = KLDivergence(prior)([loc, log_variance, loc])
    other = KLDivergence(prior)([loc, log_variance, z if in_turn else loc])
    model = keras.Model(x, other if in_turn else keras.layers.Add()([z, other]))
    model.compile("sgd", loss="mse", run_eagerly=True)
    return model


@pytest.mark.parametrize("in_turn", [True, False])
def test_divergences_of_a_model_number_themselves(in_turn, tmp_path):
    for _ in range(2):  # whatever else there is in the process
        model = two_divergences(in_turn)
        history = model.fit(np.zeros((4, *SHAPE)), np.zeros((4, D)), verbose=0).history
        assert {"kl", "kl_1"} <= set(history) and "kl_2" not in history
        assert model.get_layer("kl") is not model.get_layer("kl_1")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    prior = StandardNormalPriorLayer(D)
    assert KLDivergence(prior, name="own").name == "own"
    assert KLDivergence(prior).name != KLDivergence(prior).name


def test_a_posterior_layer_still_makes_the_encoder():
    x = keras.Input(SHAPE)
    own = keras.Model(x, GaussianPosterior(D)(keras.layers.Flatten()(x)))
    assert VampPriorLayer(own, 3).components().batch_shape == (3,)
