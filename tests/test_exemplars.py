"""The exemplar prior: its density with each image left out, random parts of it, and the indices that training brings."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfvamp
from tests import twins
from tests.small import build_optimizer, small_hvae, small_vae
from tfvamp import datasets, objectives, seeds, training
from tfvamp.config import TrainConfig
from tfvamp.errors import UsageError
from tfvamp.layers import ExemplarPriorLayer, FlowPriorLayer, KLDivergence, exemplar_prior
from tfvamp.models import VAE
from tfvamp.runs import Run, building

LATENTS = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)  # [S, B, D]
INDICES = np.array([0, 3, -1, 4])  # of the images of the batch; the third one is no exemplar


def twin(prior, without: int = -1) -> np.ndarray:
    """log p(z) [S, B] of the layer's exemplars except one, in float64."""
    kept = [n for n in range(prior.num_components) if n != without]
    loc = prior.encoder(prior.pseudo_inputs.numpy()[kept]).loc.numpy()
    log_variance = np.full(loc.shape, prior.log_variance.numpy())
    flat = twins.mixture_log_prob(LATENTS.reshape(-1, 3), np.zeros(len(kept)), loc, log_variance)
    return flat.reshape(LATENTS.shape[:2])


@pytest.fixture
def prior() -> ExemplarPriorLayer:
    prior = small_vae("exemplar").prior
    prior.log_variance.assign(-1.0)
    return prior


def test_the_density_is_that_of_the_means_with_one_variance(prior):
    np.testing.assert_allclose(prior.log_prob(LATENTS), twin(prior), rtol=1e-5)
    assert prior.log_variance.shape == () and not prior.pseudo_inputs.trainable
    assert [weight.name for weight in prior.weights if weight.trainable][:1] == ["log_variance"]
    prior.log_variance.assign(-30.0)  # clipped, as all log-variances of normals are
    np.testing.assert_allclose(prior.components().log_variance, -6.0)


def test_each_image_is_left_out_of_its_own_prior(prior):
    expected = np.stack([twin(prior, without=n)[:, b] for b, n in enumerate(INDICES)], axis=1)
    found = prior.leaving_out(prior(), INDICES).log_prob(LATENTS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    others = np.array([0, 1, 3])
    assert np.all(found.numpy()[:, others] != prior(LATENTS).numpy()[:, others])


def test_a_random_part_without_the_image_estimates_the_density_without_it(prior):
    """Over many choices of 3 of 5 exemplars the mean of the estimate is the density of the others, whether the image was among the 3 or not."""
    exact = np.stack([twin(prior, without=n)[:, b] for b, n in enumerate(INDICES)], axis=1)
    estimate = tf.function(lambda seed: prior.leaving_out(prior.of_some(3, seed), INDICES).log_prob(LATENTS))
    ratio = np.exp([estimate(seeds.stateless(choice)).numpy() - exact for choice in range(400)])
    error = ratio.std(axis=0, ddof=1) / np.sqrt(len(ratio))
    assert np.all(np.abs(ratio.mean(axis=0) - 1.0) < 4.0 * error) and np.all(error > 0.0)
    whole = prior.leaving_out(prior.of_some(9, seeds.stateless(0)), INDICES)  # there are no 9
    np.testing.assert_allclose(whole.log_prob(LATENTS), exact, rtol=1e-5)


def test_the_nearest_exemplars_of_each_image_bound_its_density(prior):
    """By hand for two of five; never above the density without the image; and that density itself for all four others."""
    indices = np.array([0, 3, 1, 4])
    loc, near = prior.components().loc.numpy().astype(np.float64), prior.neighbours(2)
    parts = [
        [twins.diagonal_gaussian_log_prob(LATENTS[:, b], loc[k], np.full(3, -1.0)) for k in near[n]]
        for b, n in enumerate(indices)
    ]
    by_hand = np.logaddexp.reduce(np.array(parts), axis=1).T - np.log(4.0)
    found = prior.of_neighbours(2, tf.constant(indices)).log_prob(LATENTS)
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    exact = prior.leaving_out(prior(), indices).log_prob(LATENTS)
    assert np.all(found <= exact + 1e-5) and np.any(found < exact - 1e-3)
    in_a_graph = tf.function(lambda indices: prior.of_neighbours(4, indices).log_prob(LATENTS))
    np.testing.assert_allclose(in_a_graph(tf.constant(indices)), exact, rtol=1e-5)


@pytest.mark.parametrize("at_once", [2**24, 100])
def test_nearest_others(at_once, monkeypatch):
    """In blocks of 50 rows and of two; two rows that are equal are each other's nearest."""
    monkeypatch.setattr(exemplar_prior, "AT_ONCE", at_once)
    rows = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    rows[31] = rows[4]
    distance = ((rows[:, None].astype(np.float64) - rows) ** 2).sum(axis=-1) + np.diag(np.full(50, np.inf))
    found = exemplar_prior.nearest_others(rows, 6)
    near = np.take_along_axis(distance, found, axis=1)
    np.testing.assert_allclose(near, np.sort(distance, axis=1)[:, :6], rtol=1e-5)
    assert all(len(set(of_one)) == 6 for of_one in found)
    assert found[31, 0] == 4 and found[4, 0] == 31 and found.dtype == np.int32


@pytest.mark.parametrize("count", [0, 5])
def test_there_are_no_more_neighbours_than_other_exemplars(prior, count):
    with pytest.raises(UsageError, match=rf"at least 1 and below the number of exemplars, 5; got {count}"):
        prior.of_neighbours(count, tf.constant([0]))


def test_settings_of_neighbours():
    with pytest.raises(UsageError, match="neighbours_per_step goes without components_per_step"):
        TrainConfig(prior="exemplar", components_per_step=10, neighbours_per_step=3)
    assert TrainConfig(neighbours_per_step=3).without_effect() == [
        "neighbours_per_step: the prior vamp has no exemplars"
    ]
    assert TrainConfig(prior="flow", flow_base="exemplar", neighbours_per_step=3).without_effect() == []
    for settings in ({"neighbours_per_step": 0}, {"neighbours_per_step": 2, "components_per_step": 3}):
        with pytest.raises(UsageError, match="at least 1, and goes without components_per_step"):
            small_vae("exemplar", **settings)


def test_two_exemplars_are_the_fewest_that_can_leave_one_out():
    few = ExemplarPriorLayer(small_vae().encoder, np.zeros((1, 6, 5, 1)), initial_variance=0.2)
    alone = np.asarray(few(LATENTS))  # N = 1: one normal around the encoder's mean
    mean = few.encoder(np.zeros((1, 6, 5, 1))).loc.numpy()
    expected = twins.diagonal_gaussian_log_prob(LATENTS, mean, np.log(0.2))
    np.testing.assert_allclose(alone, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="a prior of one exemplar cannot leave out an image"):
        few.leaving_out(few(), INDICES)
    with pytest.raises(ValueError, match=r"needs exemplars, an array \[N, \*event\], or num_components"):
        ExemplarPriorLayer(few.encoder)
    with pytest.raises(ValueError, match="initial_variance must lie between 0.0025 and 7.39; got 0"):
        ExemplarPriorLayer(few.encoder, np.zeros((2, 6, 5, 1)), initial_variance=0)
    with pytest.raises(UsageError, match=r"the prior exemplar needs pseudo_inputs: all training images"):
        VAE((6, 5, 1), prior="exemplar")
    with pytest.raises(UsageError, match="components_per_step must be at least 2 with the prior exemplar"):
        TrainConfig(prior="exemplar", components_per_step=1)


def test_fit_takes_images_with_their_indices(images):
    """The loss of a step is the ELBO by hand with each image left out; without indices there is one line that says what to do."""
    model = small_vae("exemplar")
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    build_optimizer(model)
    seed = model.step_seed()
    posterior = model.posterior(images)
    noise = objectives.noise(posterior, (), seed, 1)
    z = posterior.at(noise[0])
    indices = np.array([0, 1, 2, 3, 4, -1, -1, -1])  # the last three are no exemplars
    kl = posterior.log_prob(z) - model.prior.leaving_out(model.prior(), indices).log_prob(z)
    by_hand = model.decoder(z).log_prob(images) - kl
    data = {"image": images, "index": indices}
    history = model.fit(data, batch_size=8, shuffle=False, verbose=0).history
    assert history["elbo"][0] == pytest.approx(float(tf.reduce_mean(by_hand)), rel=1e-5)
    batches = tf.data.Dataset.from_tensor_slices(data).batch(4)
    assert np.isfinite(model.fit(batches, validation_data=images, verbose=0).history["val_elbo"][0])
    with pytest.raises(UsageError, match=r'batches .*\{"image": images, "index": numbers of the images'):
        model.fit(images, verbose=0)
    assert np.isfinite(model.evaluate(images, verbose=0)[0])  # no image is left out there


WRONG_INDICES = {
    "a column": (
        np.arange(8)[:, np.newaxis] % 5,
        r"whole numbers of shape \[8\], one per image; got int64 of shape \[8, 1\]",
    ),
    "too few": (np.arange(5), r"of shape \[8\], one per image; got int64 of shape \[5\]"),
    "halves": (np.arange(8) / 2, "must be whole numbers.*; got float64"),
    "texts": (np.array(["a"] * 8), "must be whole numbers.*; got string"),
    "of other images": (
        np.arange(8),
        r"must lie between -1 \(-1: the image is no exemplar\) and 4.*; got values from 0 to 7",
    ),
    "below": (np.arange(8) - 4, "got values from -4 to 3"),
    "unsigned": (np.arange(8, dtype=np.uint8), "got values from 0 to 7"),
}


@pytest.mark.parametrize("case", WRONG_INDICES)
def test_wrong_indices_are_refused(case, images):
    """In arrays, in data sets and in a bound of your own: they would leave out other images, or none."""
    model = small_vae("exemplar")
    model.compile("sgd", jit_compile=False)
    data = {"image": images, "index": WRONG_INDICES[case][0]}
    with pytest.raises(UsageError, match=WRONG_INDICES[case][1]):
        model.fit(data, verbose=0)
    with pytest.raises(UsageError, match=WRONG_INDICES[case][1]):
        model.train_on_batch(data)
    if case != "too few":
        batches = tf.data.Dataset.from_tensor_slices(data).batch(8, drop_remainder=True)
        with pytest.raises(UsageError, match=WRONG_INDICES[case][1]):
            model.fit(batches, verbose=0)
        with pytest.raises(UsageError, match=WRONG_INDICES[case][1].replace("[8\\]", "[B\\]")):
            model.bound(data, seeds.stateless(0), training=True)
    assert np.isfinite(model.evaluate(data, verbose=0)[0])  # leaves nothing out, and looks at no index


def test_neighbours_need_the_index_of_an_exemplar(images):
    model = small_vae("exemplar", neighbours_per_step=2)
    model.compile("sgd", jit_compile=False)
    with pytest.raises(UsageError, match="must lie between 0 and 4, .*; got values from -1 to 6"):
        model.fit({"image": images, "index": np.arange(8) - 1}, verbose=0)


def test_neighbours_follow_the_exemplars(images, tmp_path):
    """Also in the step that `fit` has compiled, when other weights are loaded."""
    one, other = (
        VAE((6, 5, 1), 3, 8, prior="exemplar", pseudo_inputs=chosen, neighbours_per_step=2)
        for chosen in (images, images[::-1].copy())
    )
    data = {"image": images, "index": np.arange(8)}
    one.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    one.fit(data, verbose=0)
    assert np.any(one.prior.neighbours(2) != other.prior.neighbours(2))
    other.save_weights(tmp_path / "other.weights.h5")
    one.load_weights(tmp_path / "other.weights.h5")
    np.testing.assert_array_equal(one.prior.neighbours(2), other.prior.neighbours(2))
    other.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    losses = []
    for model in (one, other):
        build_optimizer(model)
        model.optimizer.iterations.assign(7)  # the step's seed
        losses.append(model.fit(data, batch_size=8, shuffle=False, verbose=0).history["loss"][0])
    assert losses[0] == losses[1]


def test_what_cannot_leave_an_image_out(images):
    with pytest.warns(UserWarning, match="the ExemplarPriorLayer does not leave them out"):
        KLDivergence(small_vae("exemplar").prior)
    with pytest.raises(UsageError, match="components_per_step must be at least 2"):
        small_vae("exemplar", components_per_step=1)
    config = TrainConfig(dataset="mnist5k", prior="exemplar")
    with pytest.raises(UsageError, match="needs two images: choose a larger --limit"):
        building.check_pseudo_inputs(config, 1)


def test_a_flow_over_exemplars_leaves_images_out(images):
    model = small_vae("flow", flow_base="exemplar")
    flow, rng = model.prior, np.random.default_rng(0)
    assert isinstance(flow, FlowPriorLayer) and flow.uses_indices and flow.num_components == 5
    for weight in flow._networks:
        weight.assign(weight + rng.normal(0.0, 0.2, weight.shape))
    e, log_det = flow().to_base(LATENTS)
    expected = flow.base.leaving_out(flow.base(), INDICES).log_prob(e) + log_det
    np.testing.assert_allclose(flow.leaving_out(flow(), INDICES).log_prob(LATENTS), expected, rtol=1e-5)

    near = flow.base.of_neighbours(2, np.array([0, 3, 1, 4])).log_prob(e) + log_det
    np.testing.assert_allclose(
        flow.of_neighbours(2, np.array([0, 3, 1, 4])).log_prob(LATENTS), near, rtol=1e-5
    )


@pytest.mark.parametrize(
    "settings", [{}, {"components_per_step": 3}, {"neighbours_per_step": 2}], ids=["all", "some", "near"]
)
def test_the_gradient_in_parts_is_that_of_the_whole_batch(settings, images):
    model = small_hvae("exemplar", **settings)
    model.compile("sgd")
    build_optimizer(model)
    batch = {"image": tf.constant(images), "index": tf.range(8) % 5}
    loss, expected, _ = model.gradients(batch, seeds.stateless(5), 8)
    model.images_at_a_time = 3
    in_parts, found, _ = model.gradients(batch, seeds.stateless(5), 8)
    assert float(in_parts) == pytest.approx(float(loss), rel=1e-6)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("at_a_time", [None, 3])
def test_a_prior_can_add_to_the_loss(images, at_a_time):
    """`penalty` is in the loss once per image, with its gradient, for the whole batch and for parts of it."""

    class Pulled(tfvamp.layers.MixtureOfGaussiansPriorLayer):
        def penalty(self):
            return 2.0 * tf.reduce_sum(self.loc**2)

    def gradients(kind):
        keras.utils.set_random_seed(0)
        model = VAE((6, 5, 1), 3, 8, prior=lambda encoder: kind(5, 3))
        model.compile("sgd")
        build_optimizer(model)
        model.images_at_a_time = at_a_time
        loss, found, _ = model.gradients(tf.constant(images), seeds.stateless(5), 8)
        names = [one.path.partition("/")[2] for one in model.trainable_variables]
        return float(loss), dict(zip(names, found, strict=True)), model.prior.loc.numpy()

    plain, expected, loc = gradients(tfvamp.layers.MixtureOfGaussiansPriorLayer)
    loss, found, _ = gradients(Pulled)
    assert loss == pytest.approx(plain + 2.0 * float((loc**2).sum()), rel=1e-5)
    for name, gradient in found.items():
        own = (
            4.0 * loc if name == "loc" else 0.0
        )  # of the prior; those of networks have their names before it
        np.testing.assert_allclose(gradient - expected[name], own * np.ones_like(gradient), atol=1e-3)


def test_batches_say_which_training_images_they_have(data_dir):
    data = datasets.load("mnist5k", data_dir, limit=30)  # grey images, binarised at random for each batch
    plain = list(data.training_batches(8, seed=1, epoch=2))
    seen = []
    for images, batch in zip(plain, data.training_batches(8, seed=1, epoch=2, with_index=True), strict=True):
        np.testing.assert_array_equal(batch["image"], images)
        grey = data.train.at(batch["index"]).numpy()
        assert np.all(grey[images == 1] > 0.0) and np.all(grey[images == 0] < 1.0)
        seen += batch["index"].numpy().tolist()
    assert sorted(seen) == list(range(30))


@pytest.mark.usefixtures("eager")
def test_a_run_keeps_all_training_images(small_config, tmp_path):
    """Training on all neighbours is training on all exemplars. Resumed, it goes on as if unbroken; and other numbers of components are refused."""
    config = dataclasses.replace(small_config, prior="exemplar", components=None, epochs=2)
    training.train(dataclasses.replace(config, neighbours_per_step=59), tmp_path / "whole")  # all others
    training.train(dataclasses.replace(config, epochs=1), tmp_path / "first")
    (near,), (far,) = Run(tmp_path / "whole").rows()[:1], Run(tmp_path / "first").rows()
    for name in set(near) - {"seconds"}:
        assert near[name] == pytest.approx(far[name], rel=1e-5), name
    training.train(dataclasses.replace(config, neighbours_per_step=59, epochs=1), tmp_path / "run")
    training.resume(tmp_path / "run", epochs=2)
    whole, run = Run(tmp_path / "whole"), Run(tmp_path / "run")
    for a, b in zip(whole.rows(), run.rows(), strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}
    model = run.model()
    assert run.config.components == model.prior.num_components == 60
    np.testing.assert_array_equal(model.prior.pseudo_inputs, run.dataset().train.array()[0])
    with pytest.raises(UsageError, match="60 neighbours of each image cannot be found among 60 training"):
        training.train(dataclasses.replace(config, neighbours_per_step=60), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(UsageError, match="has a component for each of the 60 training images"):
        training.train(dataclasses.replace(config, components=7), tmp_path / "other")
