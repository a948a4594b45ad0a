"""tfvamp evaluate."""

from __future__ import annotations

import click

from tfvamp_cli import light, options, output


@click.command("evaluate")
@options.run
@options.of_settings(settings=light.config.Estimation)
@options.split
@options.limit
@options.seed
@options.of_data
@options.device
@click.option(
    "--share",
    metavar="I/N",
    help="Compute the I-th of N shares of the images; the process with I = 1 waits for the others and writes the results.",
)
@click.pass_context
def command(ctx, run, split, limit, seed, dataset, data_dir, raw_dir, device, share, **settings):
    """Estimate the log-likelihood of a run.

    Papers report importance sampling from the encoder's q(z | x). It is too low if the encoder
    fits test images badly. Models without convolutions are therefore also evaluated with a
    normal that is fitted to each image, and both numbers are shown; --proposal encoder leaves
    the fit out, and --proposal refined asks for it. --estimator ais (annealed importance
    sampling) checks the result, at a few seconds per image; --estimator bdmc bounds log p(x)
    from both sides, for images that the model generates.

    Several processes, on one machine or on several that see the run folder, divide the images:
    start the same command N times, with --share 1/N to --share N/N.

    Writes evaluation.json and, with the numbers of each image, log_likelihood.npz into the run
    folder (evaluation-SPLIT.json and so on for a split other than test). Earlier evaluations
    stay in its folder evaluations.

    \b
    Examples:
      tfvamp evaluate runs/first
      tfvamp evaluate runs/first --samples 500 --limit 100 --split validation
      tfvamp evaluate runs/first --proposal encoder
      tfvamp evaluate runs/first --estimator ais --limit 100
      tfvamp evaluate runs/first --estimator bdmc --limit 20
    """
    light.errors.check_choice("split", split, light.config.SPLITS)
    settings = {name: settings[name] for name in options.given(ctx, settings)}
    how = light.config.Estimation(**settings)
    how.check_effect(settings, options=True)
    if how.estimator == "bdmc" and "split" in options.given(ctx, ctx.params):
        raise click.UsageError("--split has no effect with --estimator bdmc: the model makes the images")
    options.check_runs(run)
    from tfvamp import devices, runs
    from tfvamp.catalog import VERIFIED
    from tfvamp.files import shown

    samples = settings.pop("samples", how.samples)
    with output.counter(ctx, "evaluating") as (say, advance), devices.on(device):
        opened = runs.Run(run)
        result = runs.evaluate(
            opened, samples, split, limit, seed, dataset, data_dir, raw_dir, say, advance, share, **settings
        )
    if result is None:
        click.echo(f"share {share} of {run} is computed: --share 1/{share.partition('/')[2]} collects it")
        return
    split = result["split"]
    epoch = "" if result["epoch"] is None else f", weights of epoch {result['epoch']}"
    number = f"{light.files.counted(result['num_samples'], 'sample' if result['estimator'] == 'importance' else 'chain')} each"
    images = f"{light.files.counted(result['num_examples'], 'image')}, {number}, seed {seed}{epoch}"
    if how.estimator == "bdmc":
        output.table(f"{run}: simulated by the model, {images}", _bounds(result))
    else:
        rows, own = _rows(result), result.get("encoder")
        if own is not None:
            name = "AIS" if how.estimator == "ais" else result["proposal"]
            rows = {f"{title}, {name}": text for title, text in rows.items()}
            rows |= {f"{title}, encoder": text for title, text in _rows(own).items()}
        if "amortisation_gap" in result:
            rows["amortisation gap"] = f"{result['amortisation_gap']:.3f} nats: ELBO refined minus encoder"
        output.table(
            f"{run}: {result['dataset']}, {split}, {images}",
            {
                **rows,
                **_by_layer(result),
                "density of the prior": result["prior_density"],
                "data verified": VERIFIED[result["dataset_verified"]],
            },
        )
    if result["warning"]:
        click.echo(f"warning: {result['warning']}", err=True)
    files = (opened.folder.evaluation_file(split), opened.folder.log_likelihood_file(split))
    click.echo(f"wrote {shown(files[0])} and {shown(files[1])}")


def _rows(result) -> dict[str, str]:
    """Returns the numbers of one estimate."""
    ess, heavy = result["effective_sample_size"], result["pareto_k"]["above_0.7"]
    monte_carlo, error = result["monte_carlo_error"], result["standard_error"]
    unknown = "" if monte_carlo is None else f", +- {monte_carlo:.3f} Monte Carlo"
    spread = "" if error is None else f" +- {error:.2f} over images"
    rows = {
        "log-likelihood": f"{result['log_likelihood']:.3f} nats{spread}{unknown}",
        "bits per dimension": f"{result['bits_per_dim']:.4f}",
    }
    if result["estimator"] == "importance":
        curve = ", ".join(f"{point['mean']:.2f} (S = {point['num_samples']})" for point in result["curve"])
        rows["with fewer samples"] = curve
        rows["ELBO"] = f"{result['elbo']:.3f} nats = {result['reconstruction']:.3f} - {result['kl']:.3f}"
    else:
        rows["single chains"] = f"{result['elbo']:.3f} nats on average"
    rows["effective sample size"] = (
        f"median {ess['median']:.1f}, mean {ess['mean']:.1f}, 5 % of the images below {ess['quantile_5']:.1f}, of "
        f"{result['num_samples']}"
    )
    if heavy is not None:
        rows["heavy tails"] = f"Pareto k above 0.7 for {100 * heavy:.0f} % of the images"
    return rows


def _bounds(result) -> dict[str, str]:
    """Returns the two bounds, and how far apart they are."""
    error = "" if result["gap_error"] is None else f" +- {result['gap_error']:.3f}"
    return {
        "lower bound": f"{result['log_likelihood']:.3f} nats",
        "upper bound": f"{result['upper_bound']:.3f} nats",
        "gap": f"{result['gap']:.3f} nats{error} over images; median {result['gap_median']:.3f}, largest "
        f"{result['gap_largest']:.3f}",
        "effective sample size": f"median {result['effective_sample_size']['median']:.1f} of {result['num_samples']} "
        "chains",
    }


def _by_layer(result) -> dict[str, str]:
    """Returns the active units, and the KL if there are several stochastic layers."""
    active = result["active_units"]
    own = result.get("encoder", result)
    if not isinstance(active, dict):
        return {"active units": str(active)}
    return {
        "KL by layer": ", ".join(f"{name} {own[f'kl_{name}']:.3f}" for name in active) + " nats",
        "active units": ", ".join(f"{name} {count}" for name, count in active.items()),
    }
