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
@click.option(
    "--proposal",
    metavar="NAME",
    default=light.config.PROPOSALS[0],
    show_default=True,
    help=f"What the samples come from: {light.config.listed(light.config.PROPOSALS)}. Refined ones are fitted to each "
    "image by gradient steps; both estimates are shown.",
)
@click.option(
    "--refine-steps",
    type=int,
    metavar="N",
    default=light.config.REFINE_STEPS,
    show_default=True,
    help="Number of gradient steps that refine a proposal.",
)
@click.option(
    "--refine-step-size",
    type=float,
    metavar="RATE",
    default=light.config.REFINE_STEP_SIZE,
    show_default=True,
    help="Step size of Adam in the refinement.",
)
@click.option(
    "--refine-samples",
    type=int,
    metavar="N",
    default=light.config.REFINE_SAMPLES,
    show_default=True,
    help="Number of latents per image and gradient step.",
)
@options.split
@options.limit
@options.seed
@options.of_data
@options.device
@click.pass_context
def command(
    ctx,
    run,
    samples,
    proposal,
    refine_steps,
    refine_step_size,
    refine_samples,
    split,
    limit,
    seed,
    dataset,
    data_dir,
    raw_dir,
    device,
):
    """Estimate the log-likelihood of a run by importance sampling.

    The estimate with the encoder's q(z | x) is what papers print. It is too low where the
    encoder fits test images badly; --proposal refined measures by how much.

    Writes evaluation.json and, image by image, log_likelihood.npz into the run folder
    (evaluation-SPLIT.json and so on for another split than test). Earlier evaluations stay
    in its folder evaluations.

    \b
    Examples:
      tfvamp evaluate runs/first
      tfvamp evaluate runs/first --samples 500 --limit 100 --split validation
      tfvamp evaluate runs/first --proposal refined
    """
    light.errors.check_choice("split", split, light.config.SPLITS)
    light.errors.check_choice("proposal", proposal, light.config.PROPOSALS)
    typed = [name for name in options.given(ctx, ctx.params) if name.startswith("refine_")]
    if typed and proposal != "refined":
        raise click.UsageError(f"--{typed[0].replace('_', '-')} goes with --proposal refined")
    from tfvamp import devices, runs
    from tfvamp.catalog import VERIFIED
    from tfvamp.files import shown

    with output.counter(ctx, "evaluating") as (say, advance), devices.on(device):
        opened = runs.Run(run)
        result = runs.evaluate(
            opened,
            samples,
            split,
            limit,
            seed,
            dataset,
            data_dir,
            raw_dir,
            say,
            advance,
            proposal,
            refine_steps=refine_steps,
            refine_step_size=refine_step_size,
            refine_samples=refine_samples,
        )
    epoch = "" if result["epoch"] is None else f", weights of epoch {result['epoch']}"
    rows = _rows(result)
    own = result.get("encoder")
    if own is not None:
        rows = {
            **{f"{name}, refined": text for name, text in rows.items()},
            **{f"{name}, encoder": text for name, text in _rows(own).items()},
            "amortisation gap": f"{result['amortisation_gap']:.3f} nats: ELBO refined minus encoder",
        }
    output.table(
        f"{run}: {result['dataset']}, {split}, {result['num_examples']} images, {samples} samples each, seed {seed}"
        f"{epoch}",
        {**rows, **_by_layer(result), "data verified": VERIFIED[result["dataset_verified"]]},
    )
    if result["warning"]:
        click.echo(f"warning: {result['warning']}", err=True)
    files = (opened.folder.evaluation_file(split), opened.folder.log_likelihood_file(split))
    click.echo(f"wrote {shown(files[0])} and {shown(files[1])}")


def _rows(result) -> dict[str, str]:
    """The numbers of one estimate."""
    ess, heavy = result["effective_sample_size"], result["pareto_k"]["above_0.7"]
    monte_carlo, error = result["monte_carlo_error"], result["standard_error"]
    unknown = "" if monte_carlo is None else f", +- {monte_carlo:.3f} Monte Carlo"
    spread = "" if error is None else f" +- {error:.2f} over images"
    curve = ", ".join(f"{point['mean']:.2f} (S = {point['num_samples']})" for point in result["curve"])
    rows = {
        "log-likelihood": f"{result['log_likelihood']:.3f} nats{spread}{unknown}",
        "with fewer samples": curve,
        "bits per dimension": f"{result['bits_per_dim']:.4f}",
        "ELBO": f"{result['elbo']:.3f} nats = {result['reconstruction']:.3f} - {result['kl']:.3f}",
        "effective sample size": f"median {ess['median']:.1f}, mean {ess['mean']:.1f}, 5 % of the images below "
        f"{ess['quantile_5']:.1f}, of {result['num_samples']}",
    }
    if heavy is not None:
        rows["heavy tails"] = f"Pareto k above 0.7 for {100 * heavy:.0f} % of the images"
    return rows


def _by_layer(result) -> dict[str, str]:
    """Active units, and the KL where there are several stochastic layers."""
    active = result["active_units"]
    if not isinstance(active, dict):
        return {"active units": str(active)}
    return {
        "KL by layer": ", ".join(f"{name} {result[f'kl_{name}']:.3f}" for name in active) + " nats",
        "active units": ", ".join(f"{name} {count}" for name, count in active.items()),
    }
