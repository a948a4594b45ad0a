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
    """Show what the prior, the latents and the decoder of a run have learned.

    Measures how much the encoder and the decoder overfit, which latents and components are
    used, how much of the KL a better prior could save, and whether samples are like test images
    or copies of training images. Writes diagnosis.json and pictures into the run folder.

    \b
    Examples:
      tfvamp diagnose runs/first
      tfvamp diagnose runs/first --limit 50 --refine-steps 100
    """
    options.check_runs(run)
    from tfvamp import devices, runs
    from tfvamp.files import shown
    from tfvamp.runs.diagnosis import described

    with output.counter(ctx, "diagnosing") as (say, advance), devices.on(device):
        opened = runs.Run(run)
        result = runs.diagnose(
            opened, samples, limit, seed, dataset, data_dir, raw_dir, say, advance, **settings
        )
    epoch = "" if result["epoch"] is None else f", weights of epoch {result['epoch']}"
    numbers = result["num_images"]
    output.table(
        f"{run}: {numbers['train']} training and {numbers['test']} test images, {light.files.counted(samples, 'sample')} each, seed {seed}"
        f"{epoch}",
        described(result),
    )
    for text in result["findings"]:
        click.echo(f"- {text}")
    click.echo(f"wrote {shown(opened.folder.file('diagnosis.json'))} and {shown(opened.folder.figures)}")
