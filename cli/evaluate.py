"""tfvamp evaluate."""

from __future__ import annotations

import click

from tfvamp_cli import light, options, output


@click.command("evaluate")
@options.run
@click.option(
    "--samples",
    type=int,
    metavar="S",
    default=light.config.EVALUATION_SAMPLES,
    show_default=True,
    help="Number of importance samples per image.",
)
@options.split
@options.limit
@options.seed
@options.of_data
@options.device
@click.pass_context
def command(ctx, run, samples, split, limit, seed, dataset, data_dir, raw_dir, device):
    """Estimate the log-likelihood of a run by importance sampling.

    Writes evaluation.json and, image by image, log_likelihood.npz into the run folder
    (evaluation-SPLIT.json and so on for another split than test). Earlier evaluations stay
    in its folder evaluations.

    \b
    Examples:
      tfvamp evaluate runs/first
      tfvamp evaluate runs/first --samples 500 --limit 100 --split validation
    """
    light.errors.check_choice("split", split, light.config.SPLITS)
    from tfvamp import devices, runs
    from tfvamp.catalog import VERIFIED
    from tfvamp.files import shown

    with output.counter(ctx, "evaluating") as (say, advance), devices.on(device):
        opened = runs.Run(run)
        result = runs.evaluate(opened, samples, split, limit, seed, dataset, data_dir, raw_dir, say, advance)
    ess = result["effective_sample_size"]
    monte_carlo = result["monte_carlo_error"]
    unknown = "" if monte_carlo is None else f", +- {monte_carlo:.3f} Monte Carlo"
    error = "" if result["standard_error"] is None else f" +- {result['standard_error']:.2f} over images"
    epoch = "" if result["epoch"] is None else f", weights of epoch {result['epoch']}"
    output.table(
        f"{run}: {result['dataset']}, {split}, {result['num_examples']} images, {samples} samples each{epoch}",
        {
            "log-likelihood": f"{result['log_likelihood']:.3f} nats{error}{unknown}",
            "bits per dimension": f"{result['bits_per_dim']:.4f}",
            "ELBO": f"{result['elbo']:.3f} nats = {result['reconstruction']:.3f} - {result['kl']:.3f}",
            "effective sample size": f"{ess['mean']:.1f} on average, {ess['min']:.1f} at least, of {samples}",
            **_by_layer(result),
            "data verified": VERIFIED[result["dataset_verified"]],
        },
    )
    files = (opened.folder.evaluation_file(split), opened.folder.log_likelihood_file(split))
    click.echo(f"wrote {shown(files[0])} and {shown(files[1])}")


def _by_layer(result) -> dict[str, str]:
    """Active units, and the KL where there are several stochastic layers."""
    active = result["active_units"]
    if not isinstance(active, dict):
        return {"active units": str(active)}
    return {
        "KL by layer": ", ".join(f"{name} {result[f'kl_{name}']:.3f}" for name in active) + " nats",
        "active units": ", ".join(f"{name} {count}" for name, count in active.items()),
    }
