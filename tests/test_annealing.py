"""Annealed importance sampling and the bracket, against models whose evidence has a closed form."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from click.testing import CliRunner

import tfvamp
from tests.oracles import LinearGaussian, TwoLayers
from tfvamp.errors import UsageError
from tfvamp.evaluation import annealing, bracket
from tfvamp.evaluation.likelihood import simulated
from tfvamp_cli.main import main

SHORT = {"chains": 4, "steps": 60, "leapfrogs": 4}  # as many chains as learn the steps: traced once
WIDEST = {"encoder": 0.1, "prior": 0.2}  # nats that so short chains may be off


def test_the_schedule_goes_from_nought_to_one_in_small_steps_at_both_ends():
    betas = annealing.schedule(100)
    assert betas[0] == 0.0 and betas[-1] == 1.0 and (np.diff(betas) > 0).all()
    np.testing.assert_allclose(betas, 1.0 - betas[::-1], atol=1e-12)
    assert np.diff(betas)[0] < 0.2 * np.diff(betas)[50]
    np.testing.assert_array_equal(annealing.schedule(1), [0.0, 1.0])


def test_a_move_keeps_its_distribution():
    """Chains that start in N(0, 1 / (1 + beta a)), which p_0 w^beta is for w = exp(-a u^2 / 2), stay in it."""
    slope, beta, count = 3.0, 0.7, 4000

    def densities(u):
        square = tf.reduce_sum(u[0] ** 2, axis=-1)
        return -0.5 * square, -0.5 * slope * square

    path = annealing.Path(None, densities, None)
    scale = (1.0 + beta * slope) ** -0.5
    rng = np.random.default_rng(0)
    state = annealing.seen(path, [tf.constant(scale * rng.normal(size=(count, 1, 2)), tf.float32)])
    accepted = []
    for _ in range(3):
        momenta = [tf.constant(rng.normal(size=(count, 1, 2)), tf.float32)]
        uniform = tf.constant(rng.uniform(size=(2, count, 1)), tf.float32)
        state, probability = annealing.move(path, state, beta, tf.constant([1.0]), momenta, uniform, 3)
        accepted.append(probability.numpy().mean())
    u = state.at[0].numpy().reshape(-1) / scale
    assert 0.3 < np.mean(accepted) < 0.95  # a step as coarse as this needs the correction
    assert scipy.stats.kstest(u, "norm").pvalue > 1e-3
    np.testing.assert_allclose(state.log_ratio, densities(state.at)[1], rtol=1e-6)


@pytest.mark.parametrize("kind", [LinearGaussian, TwoLayers])
@pytest.mark.parametrize("proposal", ["encoder", "prior"])
def test_chains_give_the_evidence(kind, proposal):
    """Within four errors of the closed form, at two seeds, and closer than importance sampling with as many samples."""
    model = kind(components=4)
    x = model.draw(40)
    evidence = model.evidence(x)
    for seed in (0, 1):
        result = tfvamp.log_likelihood(model, x, estimator="ais", proposal=proposal, seed=seed, **SHORT)
        error = (result.per_example - evidence).mean()
        assert abs(error) < 4 * result.monte_carlo_error < 4 * WIDEST[proposal]
    plain = tfvamp.log_likelihood(model, x, 4, jit=False)
    if proposal == "encoder":
        assert result.monte_carlo_error < 0.6 * plain.monte_carlo_error
    assert (result.num_samples, result.estimator, result.kl) == (4, "ais", None)


@pytest.mark.parametrize("kind", [LinearGaussian, TwoLayers])
@pytest.mark.parametrize("proposal", ["encoder", "prior"])
def test_the_bracket_contains_the_evidence(kind, proposal):
    model = kind(components=4)
    found = bracket(model, 60, proposal=proposal, seed=2, **SHORT)
    evidence = model.evidence(found.images)
    count = len(evidence)
    below, above = found.lower.per_example - evidence, found.upper - evidence
    for differences in (below, -above):  # lower on average, within the error of the mean
        assert differences.mean() < 3 * differences.std(ddof=1) / np.sqrt(count)
    assert max(abs(below.mean()), abs(above.mean())) < 2 * WIDEST[proposal]
    # Single chains bound from both sides, too, and their weights are unbiased for p(x) and 1 / p(x).
    ratios = np.exp(found.chains + evidence).mean(axis=0)
    assert abs(ratios.mean() - 1.0) < 4 * ratios.std(ddof=1) / np.sqrt(count)
    assert found.gap == pytest.approx((above - below).mean(), abs=1e-6)
    assert found.gap_error < 0.2


def test_images_of_the_model_have_its_moments():
    model = TwoLayers(components=3)
    latents, x = simulated(model, model.prior(), 4000, 0)
    own = model.draw(4000, seed=5)
    np.testing.assert_allclose(x.numpy().mean(0), own.mean(0), atol=0.15)
    np.testing.assert_allclose(np.cov(x.numpy().T), np.cov(own.T), atol=0.25)
    assert [of_layer.shape for of_layer in latents] == [(4000, 3), (4000, 3)]


@pytest.mark.parametrize("proposal", ["encoder", "refined", "prior"])
def test_the_other_images_change_nothing(proposal, monkeypatch):
    """Whatever block an image is in; to rounding, which grows along a chain."""
    monkeypatch.setattr(annealing, "AT_ONCE", 4)
    monkeypatch.setattr(annealing, "SETTLING", 1)
    model = TwoLayers(components=3)
    x = model.draw(7)
    how = SHORT | {"proposal": proposal, "estimator": "ais", "steps": 12}
    how |= {"refine_steps": 5} if proposal == "refined" else {}
    whole = tfvamp.log_likelihood(model, x, **how).per_example
    for count in (1, 5):
        part = tfvamp.log_likelihood(model, x[:count], **how).per_example
        np.testing.assert_allclose(part, whole[:count], rtol=1e-4)


def test_one_temperature_is_importance_sampling():
    """From the same noise: chains that do not move have the weights of their starts."""
    model = LinearGaussian(components=3)
    x = model.draw(5)
    how = SHORT | {"chains": 400, "steps": 1}
    result = tfvamp.log_likelihood(model, x, estimator="ais", **how)
    plain = tfvamp.log_likelihood(model, x, 400, jit=False)
    errors = np.sqrt(1 / result.effective_sample_size + 1 / plain.effective_sample_size)
    assert (np.abs(result.per_example - plain.per_example) < 5 * errors).all()
    np.testing.assert_allclose(result.elbo, plain.elbo, atol=1.0)


def test_what_no_chain_can_have_is_refused():
    model = LinearGaussian()
    x = model.draw(2)
    with pytest.raises(UsageError, match="chains must be at least 1; got 0"):
        tfvamp.log_likelihood(model, x, estimator="ais", chains=0)
    with pytest.raises(UsageError, match="steps must be at most 1000000"):
        tfvamp.log_likelihood(model, x, estimator="ais", steps=10**7)
    with pytest.raises(UsageError, match="prior goes with the estimators ais and bdmc"):
        tfvamp.log_likelihood(model, x, proposal="prior")
    with pytest.raises(UsageError, match=r"makes its own images: tfvamp.evaluation.bracket"):
        tfvamp.log_likelihood(model, x, estimator="bdmc")
    with pytest.raises(UsageError, match="number of images must be at least 1"):
        bracket(model, 0)


@pytest.mark.usefixtures("eager")
def test_from_the_command_line(run, monkeypatch):
    """Chains of a trained model on test images, and the bracket; both are kept beside the evaluation that was there."""
    monkeypatch.setattr(annealing, "SETTLING", 1)
    short = ["--chains", "2", "--steps", "3", "--leapfrogs", "2", "--limit", "4"]
    plain = tfvamp.evaluate(run, 10, limit=4, proposal="encoder")
    result = CliRunner().invoke(main, ["evaluate", str(run), "--estimator", "ais", "--samples", "10", *short])
    assert result.exit_code == 0, result.stderr
    assert "log-likelihood, AIS" in result.stdout and "2 chains each" in result.stdout
    opened = tfvamp.Run(run)
    document = opened.evaluation()
    assert document["estimator"] == "ais" and document["num_samples"] == 2 and document["kl"] is None
    assert document["encoder"]["log_likelihood"] == pytest.approx(plain["log_likelihood"])
    arrays = opened.evaluated_arrays()
    assert arrays["log_likelihood"].mean() == pytest.approx(document["log_likelihood"])
    assert arrays["encoder_log_likelihood"].shape == (4,)

    info = CliRunner().invoke(main, ["info", str(run)]).stdout
    assert f"{document['log_likelihood']:.3f} nats (2 chains from the encoder q, 4 images)" in info
    (row,) = tfvamp.find_runs(run).to_dict("records")
    assert (row["estimator"], row["proposal"], row["num_examples"]) == ("ais", "encoder", 4)

    result = CliRunner().invoke(main, ["evaluate", str(run), "--estimator", "bdmc", *short])
    assert result.exit_code == 0, result.stderr
    bounds = opened.evaluation("simulated")
    assert bounds["warning"] is None
    assert bounds["gap"] == pytest.approx(bounds["upper_bound"] - bounds["log_likelihood"], abs=1e-6)
    assert bounds["gap_median"] <= bounds["gap_largest"] >= bounds["gap"]
    assert f"median {bounds['gap_median']:.3f}, largest {bounds['gap_largest']:.3f}" in result.stdout
    assert opened.evaluation()["estimator"] == "ais" and len(list((run / "evaluations").iterdir())) == 3


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--chains", "3"], "--chains goes with --estimator ais or bdmc"),
        (["--estimator", "ais", "--refine-steps", "3"], "--refine-steps goes with --proposal refined"),
        (["--estimator", "bdmc", "--samples", "3"], "--samples goes with --estimator importance or ais"),
        (["--estimator", "bdmc", "--split", "train"], "--split has no effect"),
        (["--estimator", "aiss"], "unknown estimator 'aiss'. Did you mean 'ais'"),
        (["--estimator", "ais", "--leapfrogs", "0"], "leapfrogs must be at least 1; got 0"),
    ],
)
def test_options_without_effect_are_refused(trained, words, problem):
    result = CliRunner().invoke(main, ["evaluate", str(trained), *words])
    assert result.exit_code == 2 and problem in result.stderr
