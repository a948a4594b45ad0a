"""tfvamp diagnose."""

from __future__ import annotations

import click

from tfvamp_cli import light, options, output

SETTINGS = ("refine_steps", "refine_step_size", "refine_samples", "max_memory")


@click.command("diagnose")
@options.run
@click.option(
    "--samples",
    type=int,
    metavar="S",
    default=500,
    show_default=True,
    help="Number of importance samples per image.",
)
@options.of_settings(SETTINGS, light.config.Estimation)
@click.option(
    "--limit",
    type=int,
    metavar="N",
    default=200,
    show_default=True,
    help="Number of training and of test images, chosen at random, whose log-likelihood is estimated.",
)
@options.seed
@options.of_data
@options.device
@click.pass_context
def command(ctx, run, samples, limit, seed, dataset, data_dir, raw_dir, device, **settings):
    """Say what the prior, the latents and the decoder of a run have learned.

    Measures how much the encoder and the decoder overfit, which latents and components are
    in use, what of the KL a better prior could gain, and whether samples are like test images
    or copies of training images. Writes diagnosis.json and pictures into the run folder.

    \b
    Examples:
      tfvamp diagnose runs/first
      tfvamp diagnose runs/first --limit 50 --refine-steps 100
    """
    from tfvamp import devices, runs
    from tfvamp.files import shown

    with output.counter(ctx, "diagnosing") as (say, advance), devices.on(device):
        opened = runs.Run(run)
        result = runs.diagnose(
            opened, samples, limit, seed, dataset, data_dir, raw_dir, say, advance, **settings
        )
    epoch = "" if result["epoch"] is None else f", weights of epoch {result['epoch']}"
    numbers = result["num_images"]
    output.table(
        f"{run}: {numbers['train']} training and {numbers['test']} test images, {samples} samples each, seed {seed}"
        f"{epoch}",
        _rows(result),
    )
    for text in result["findings"]:
        click.echo(f"- {text}")
    click.echo(f"wrote {shown(opened.folder.file('diagnosis.json'))} and {shown(opened.folder.figures)}")


def _rows(result) -> dict[str, str]:
    fit, rows = result["fit"], {}
    for name in ("train", "test"):
        of_split = fit[name]
        rows[f"log p(x), {name}"] = (
            f"{of_split['refined_log_likelihood']:.2f} +- {of_split['standard_error']:.2f} nats refined, "
            f"{of_split['log_likelihood']:.2f} from the encoder's q"
        )
        rows[f"ELBO, {name}"] = (
            f"{of_split['elbo']:.2f} nats; refined {of_split['refined_elbo']:.2f}, amortisation gap "
            f"{of_split['amortisation_gap']:.2f}"
        )
    rows["train - test"] = (
        f"{fit['gap']:.2f} +- {fit['gap_error']:.2f} nats of ELBO: encoder {fit['gap_of_encoder']:.2f}, decoder and prior "
        f"{fit['gap_of_decoder']:.2f}"
    )
    for name, layer in result["layers"].items():
        rows[f"layer {name}"] = (
            f"KL {layer['kl']:.2f} nats, {layer['active_units']} of {layer['latent_dims']} latents active"
        )
    surgery = result["surgery"]["test"]
    rows["KL in two parts"] = (
        f"{surgery['average_kl']:.2f} nats = I(x; z) {surgery['mutual_information']:.2f} + KL(q(z) || p(z)) "
        f"{surgery['marginal_kl']:.2f} +- {surgery['monte_carlo_error']:.2f}; I is at most log N = "
        f"{surgery['ceiling']:.2f}"
    )
    components = result["components"]
    if components is not None:
        rows["components"] = (
            f"{components['effective']:.1f} of {components['number']} count, {components['dead']} dead, entropy "
            f"{components['entropy']:.2f} nats for one latent"
        )
    samples = result["samples"]
    rows["samples"] = (
        f"told from test images {samples['two_samples']['accuracy']:.0%} of the time by nearest neighbours; "
        f"{samples['nearer_than_test']:.0%} nearer to a training image than 95% of the test images"
    )
    if "pseudo_inputs" in result:
        rows["pseudo-inputs"] = (
            f"{result['pseudo_inputs']['median_distance']:.3f} from the nearest training image in the median (root "
            f"mean squared difference of pixels); test images {samples['median_distance_of_test']:.3f}"
        )
    if result["clusters"] is not None:
        clusters = result["clusters"]
        rows["components and labels"] = (
            f"accuracy {clusters['accuracy']:.1%}, normalised mutual information "
            f"{clusters['normalised_mutual_information']:.3f}, adjusted Rand index {clusters['adjusted_rand_index']:.3f}"
        )
    if result["probes"] is not None:
        probes = result["probes"]
        rows["representation"] = (
            f"labels of test images from z: 5 nearest {probes['nearest_neighbours']:.1%}, linear {probes['linear']:.1%}"
        )
    return rows
