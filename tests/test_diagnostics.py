"""What the latents and the prior do: against cases with exact answers, and of a trained run."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from tensorflow_probability import distributions as tfd

import tfvamp
from tests.small import small_vae
from tfvamp.errors import UsageError
from tfvamp.evaluation import diagnostics
from tfvamp.layers import DiagonalGaussian, DiagonalGaussianMixture
from tfvamp.runs.diagnose import findings
from tfvamp_cli.main import main


def gaussian(loc, variance) -> DiagonalGaussian:
    loc = np.asarray(loc, np.float32)
    return DiagonalGaussian(loc, np.full(loc.shape, math.log(variance), np.float32))


def mixture(loc, variance, weights) -> DiagonalGaussianMixture:
    return DiagonalGaussianMixture(
        tfd.Categorical(probs=np.asarray(weights, np.float32)), gaussian(loc, variance)
    )


# --- the KL in two parts ---


def test_posteriors_that_do_not_overlap_tell_everything():
    """Eight images, each with latents of its own: I = log 8, and the rest is the prior's."""
    loc = np.array([[i, j, k] for i in (-3, 3) for j in (-3, 3) for k in (-3, 3)])
    found = diagnostics.surgery(gaussian(loc, 0.01), gaussian(np.zeros(3), 1.0))
    exact = 0.5 * 3 * (0.01 + 9.0 - 1.0 - math.log(0.01))
    assert found.mutual_information == pytest.approx(math.log(8), abs=1e-5) and found.ceiling == math.log(8)
    assert found.average_kl == pytest.approx(exact, abs=5 * found.monte_carlo_error)
    assert found.marginal_kl == pytest.approx(exact - math.log(8), abs=5 * found.monte_carlo_error)
    assert 0.0 < found.monte_carlo_error < 0.2


def test_equal_posteriors_tell_nothing():
    found = diagnostics.surgery(gaussian(np.ones((50, 2)), 0.25), gaussian(np.zeros(2), 1.0), draws=40)
    exact = 0.5 * 2 * (0.25 + 1.0 - 1.0 - math.log(0.25))
    assert found.mutual_information == pytest.approx(0.0, abs=1e-5)
    assert found.marginal_kl == pytest.approx(exact, abs=5 * found.monte_carlo_error)


def test_posteriors_of_a_linear_gaussian_model():
    """Means N(0, 0.8), variances 0.2: z is N(0, 1), so KL(q(z) || p(z)) = 0 and I = -log(0.2) / 2 a dimension."""
    means = math.sqrt(0.8) * np.random.default_rng(0).normal(size=(4000, 1))
    found = diagnostics.surgery(gaussian(means, 0.2), gaussian(np.zeros(1), 1.0), draws=20)
    assert found.mutual_information == pytest.approx(-0.5 * math.log(0.2), abs=0.02)
    assert found.marginal_kl == pytest.approx(0.0, abs=0.02)
    with pytest.raises(ValueError, match="at least 2 draws"):
        diagnostics.surgery(gaussian(means, 0.2), gaussian(np.zeros(1), 1.0), draws=1)


def test_the_monte_carlo_error_of_the_parts_is_their_spread():
    means = np.random.default_rng(1).normal(size=(30, 2))
    results = [
        diagnostics.surgery(gaussian(means, 0.3), gaussian(np.zeros(2), 1.0), draws=4, seed=seed)
        for seed in range(60)
    ]
    spread = max(
        np.std([one.mutual_information for one in results]), np.std([one.marginal_kl for one in results])
    )
    stated = np.mean([one.monte_carlo_error for one in results])
    assert spread == pytest.approx(stated, rel=0.3)  # 60 runs give a standard deviation to 9 %


def test_images_chosen_at_random_give_the_parts_of_all(monkeypatch):
    """Within four errors of the exact numbers, which here are those of the images themselves: one component each."""
    loc = 10.0 * np.arange(60.0)[:, np.newaxis]
    posterior, prior = gaussian(loc, 0.01), gaussian(np.zeros(1), 100.0**2)
    whole = diagnostics.surgery(posterior, prior)
    monkeypatch.setattr(diagnostics, "MOST_DRAWN", 20)
    found = diagnostics.surgery(posterior, prior)
    assert found.mutual_information == pytest.approx(math.log(60), abs=1e-4)
    assert found.marginal_kl != whole.marginal_kl
    assert found.marginal_kl == pytest.approx(whole.marginal_kl, abs=4 * found.monte_carlo_error)
    assert found.monte_carlo_error > 20 * whole.monte_carlo_error  # the choice, not the draws


# --- components, neighbours, samples ---


def test_the_use_of_components():
    """Latents at two of three components, three times as often at the first."""
    prior = mixture([[0.0], [10.0], [50.0]], 0.01, [0.2, 0.3, 0.5])
    used = diagnostics.usage(gaussian([[0.0], [0.0], [0.0], [10.0]], 1e-4), prior)
    np.testing.assert_allclose(used.shares, [0.75, 0.25, 0.0], atol=1e-6)
    assert used.dead == 1 and used.entropy == pytest.approx(0.0, abs=1e-6)
    assert used.effective == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_equal_components_share_by_their_weights():
    prior = mixture(np.zeros((2, 3)), 1.0, [0.3, 0.7])
    used = diagnostics.usage(gaussian(np.random.default_rng(0).normal(size=(20, 3)), 0.5), prior)
    np.testing.assert_allclose(used.shares, [0.3, 0.7], atol=1e-5)
    assert used.entropy == pytest.approx(-0.3 * math.log(0.3) - 0.7 * math.log(0.7), abs=1e-5)


def test_nearest_images_are_those_of_all_differences(monkeypatch):
    monkeypatch.setattr(diagnostics, "AT_ONCE", 30)  # blocks
    rng = np.random.default_rng(2)
    x, among = rng.uniform(size=(11, 4, 3, 1)), rng.uniform(size=(9, 4, 3, 1))
    distances = np.sqrt(((x[:, None] - among[None]) ** 2).mean(axis=(2, 3, 4)))
    index, distance = diagnostics.nearest(x, among)
    np.testing.assert_array_equal(index, distances.argmin(axis=1))
    np.testing.assert_allclose(distance, distances.min(axis=1))
    index, distance = diagnostics.nearest(x, x, but_itself=True)
    assert (index != np.arange(11)).all() and (distance > 0).all()


def test_two_samples_of_one_distribution_and_of_two():
    rng = np.random.default_rng(3)

    def draw(shift):
        return rng.normal(size=(400, 3, 2, 1)) + shift

    same = diagnostics.two_samples(draw(0.0), draw(0.0)).accuracy
    assert abs(same - 0.5) < 4 * 0.5 / math.sqrt(800) * math.sqrt(
        2
    )  # pairs of neighbours are not independent
    assert diagnostics.two_samples(draw(0.0), draw(3.0)) == (1.0, 1.0, 1.0)
    first = draw(0.0)
    assert diagnostics.two_samples(first, first + 1e-6).accuracy == 0.0  # copies
    with pytest.raises(ValueError, match="same size"):
        diagnostics.two_samples(first, first[:-1])


def test_components_that_are_classes_agree_with_labels():
    """Three far normals and their labels; then labels that have nothing to do with them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    means = (10.0 * np.eye(3)[labels] + rng.normal(size=(400, 3))).astype(np.float32)
    loc = 10.0 * np.eye(3, dtype=np.float32)[[2, 0, 1, 1]]
    loc[3] += 30.0  # far from all latents
    components = DiagonalGaussian(loc, np.zeros((4, 3), np.float32))
    prior = DiagonalGaussianMixture(tfd.Categorical(logits=np.zeros(4, np.float32)), components)
    found = diagnostics.components_of(prior, means)
    np.testing.assert_array_equal(found, np.array([1, 2, 0])[labels])
    assert diagnostics.clusters(found[:200], labels[:200], found[200:], labels[200:]) == {
        "accuracy": 1.0,
        "normalised_mutual_information": pytest.approx(1.0),
        "adjusted_rand_index": pytest.approx(1.0),
    }
    unrelated = rng.permutation(labels)
    chance = diagnostics.clusters(found[:200], unrelated[:200], found[200:], unrelated[200:])
    assert chance["accuracy"] < 0.5
    assert chance["normalised_mutual_information"] < 0.1 and abs(chance["adjusted_rand_index"]) < 0.05
    # Any whole numbers are labels.
    renamed = np.array([-1, 10**12, 4])[labels]
    assert diagnostics.clusters(found[:200], renamed[:200], found[200:], renamed[200:])["accuracy"] == 1.0
    assert diagnostics.clusters(found[:200], renamed[:200], np.full(9, 3), np.full(9, -1))["accuracy"] == 0.0
    # A component that no training image has gives no right answer.
    assert diagnostics.clusters(found[:200], labels[:200], np.full(200, 3), labels[200:])["accuracy"] == 0.0


def test_probes_find_labels_that_are_there():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 300)
    means = np.eye(3)[labels] * 4 + rng.normal(size=(300, 3))
    found = diagnostics.probes(means[:200], labels[:200], means[200:], labels[200:])
    assert min(found.values()) > 0.9
    shuffled = diagnostics.probes(means[:200], rng.permutation(labels[:200]), means[200:], labels[200:])
    assert max(shuffled.values()) < 0.6


def test_the_plane_is_that_of_the_largest_variances():
    rng = np.random.default_rng(5)
    means = rng.normal(size=(500, 4)) * [5.0, 0.1, 3.0, 0.2] + 1.0
    axes, centre = diagnostics.plane(means)
    assert np.abs(axes[[0, 2], [0, 1]]).min() > 0.99
    np.testing.assert_allclose(centre, means.mean(axis=0))
    axes, _ = diagnostics.plane(means[:, :1])  # one latent: no second axis
    np.testing.assert_array_equal(np.abs(axes), [[1.0, 0.0]])


# --- of a run ---


def healthy() -> dict:
    """The numbers of a model that nothing is wrong with."""
    of_split = {"elbo": -90.0, "refined_elbo": -89.5, "amortisation_gap": 0.5}
    return {
        "layers": {"z": {"kl": 20.0, "active_units": 40, "latent_dims": 40}},
        "fit": {
            "train": of_split,
            "test": of_split,
            "gap": 0.4,
            "gap_error": 0.3,
            "gap_of_encoder": 0.2,
            "gap_of_decoder": 0.2,
        },
        "surgery": {
            "test": {"average_kl": 20.0, "mutual_information": 18.0, "marginal_kl": 2.0, "ceiling": 30.0}
        },
        "components": {"dead": 0, "number": 500, "effective": 400.0},
        "samples": {"nearer_than_test": 0.05, "two_samples": {"accuracy": 0.52}},
    }


@pytest.mark.parametrize(
    "path, value, words",
    [
        (("layers", "z", "kl"), 0.02, "z has collapsed: its posteriors are the prior (KL 0.02 nats"),
        (("layers", "z", "active_units"), 0, "z has collapsed"),
        (("layers", "z", "active_units"), 12, "z uses 12 of 40 latents"),
        (("fit", "gap"), 17.0, "The ELBO is 17.0 +- 0.3 nats higher on training than on test images"),
        (
            ("fit", "test", "amortisation_gap"),
            9.0,
            "The encoder costs 9.0 nats of ELBO on test images and 0.5 on training images",
        ),
        (("surgery", "test", "mutual_information"), 29.9, "at its ceiling log N = 30.00 nats"),
        (("surgery", "test", "marginal_kl"), 15.0, "15.0 of 20.0 nats of KL come from a prior"),
        (("components", "dead"), 66, "66 of 500 components are dead"),
        (("samples", "nearer_than_test"), 0.4, "40% of the samples are nearer to a training image"),
        (("samples", "two_samples", "accuracy"), 0.9, "can be told apart"),
    ],
)
def test_findings_say_what_is_wrong_and_nothing_else(path, value, words):
    document = json.loads(json.dumps(healthy()))
    assert findings(document) == []
    at = document
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    found = findings(document)
    assert len(found) == 1 and words in found[0]


def test_a_gap_that_other_images_may_close_is_not_said():
    document = healthy()
    document["fit"] |= {"gap": 14.9, "gap_error": 7.6}
    assert findings(document) == []


@pytest.mark.usefixtures("eager")
def test_a_run_is_diagnosed(run):
    pytest.importorskip("sklearn")
    arguments = ["diagnose", str(run), "--limit", "12", "--samples", "20", "--refine-steps", "3"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    assert "KL in two parts" in result.stdout and "of 7 count" in result.stdout
    document = json.loads((run / "diagnosis.json").read_text())
    fit = document["fit"]
    assert fit["gap"] == pytest.approx(fit["gap_of_encoder"] + fit["gap_of_decoder"])
    assert fit["test"]["amortisation_gap"] == pytest.approx(fit["test"]["refined_elbo"] - fit["test"]["elbo"])
    x = tfvamp.Run(run).dataset().test.array()[0]
    assert len(x) > 12  # so that the images are chosen at random
    rng = np.random.default_rng(0)
    rng.choice(60, 12, replace=False)  # the training images come first
    chosen = x[np.sort(rng.choice(len(x), 12, replace=False))]
    own = tfvamp.log_likelihood(tfvamp.load(run), chosen, 20, jit=False)
    assert fit["test"]["log_likelihood"] == pytest.approx(own.mean, rel=1e-5)
    assert document["weights_sha256"] == tfvamp.Run(run).weights_sha256
    assert sum(document["components"]["shares"]) == pytest.approx(1.0)
    assert set(document["probes"]) == {"nearest_neighbours", "linear"}
    assert set(document["clusters"]) == {"accuracy", "normalised_mutual_information", "adjusted_rand_index"}
    assert document["findings"] == findings(document)
    names = {path.name for path in (run / "figures").iterdir()}
    parts = (
        "best",
        "components",
        "curve",
        "histogram",
        "latents",
        "map",
        "pseudo_inputs",
        "samples",
        "worst",
    )
    assert names == {f"diagnosis_{part}.png" for part in parts}


def test_what_cannot_be_diagnosed_is_refused(trained):
    with pytest.raises(UsageError, match="at least 2; got 1"):
        tfvamp.diagnose(trained, limit=1)
    with pytest.raises(UsageError, match="refine_steps must be at least 1"):
        tfvamp.diagnose(trained, refine_steps=0)


@pytest.mark.usefixtures("eager")
def test_a_split_of_one_image_is_refused(tmp_path):
    x = np.random.default_rng(0).integers(0, 2, (10, 4, 3)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", train=x, validation=x, test=x[:1])
    config = tfvamp.TrainConfig(
        dataset=f"npz:{tmp_path}/x.npz", prior="standard", hidden_units=3, epochs=1, warmup=1, jit=False
    )
    tfvamp.train(config, tmp_path / "run")
    with pytest.raises(UsageError, match="fewer than two training or test images"):
        tfvamp.diagnose(tmp_path / "run")


def test_a_prior_without_components_has_none():
    from tfvamp.runs.diagnose import _components

    model = small_vae("standard")
    assert _components(model, gaussian(np.zeros((2, 3)), 1.0), 0) is None
    assert _components(small_vae("mog"), gaussian(np.zeros((2, 3)), 1.0), 0)["number"] == 5
