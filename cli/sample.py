"""tfvamp sample."""

from __future__ import annotations

import pathlib

import click

from tfvamp_cli import options


@click.command("sample")
@options.run
@click.option("-n", "--number", type=int, default=64, show_default=True, help="How many images.")
@options.seed
@click.option(
    "--output",
    required=True,
    metavar="FILE",
    help="FILE.png, a grid; or FILE.npz, the array `images` [n, H, W, C].",
)
@click.option(
    "--component",
    type=int,
    metavar="K",
    help="Generate from component K of the prior alone (from 0): what one pseudo-input stands for.",
)
@click.option("--draw", is_flag=True, help="Draw the pixels instead of showing the means of p(x | z).")
def command(run, number, seed, output, component, draw):
    """Generate images from a run.

    A component is drawn from the prior for each image, then a latent, then the image.

    \b
    Examples:
      tfvamp sample runs/first -n 64 --seed 7 --output samples.png
      tfvamp sample runs/first -n 16 --component 3 --output component3.png
      tfvamp sample runs/first -n 1000 --draw --output samples.npz
    """
    path = pathlib.Path(output)
    if path.suffix not in (".png", ".npz"):
        raise click.UsageError(f"--output must end with .png or .npz; got {output}")
    from tfvamp import plots, runs
    from tfvamp.training.run_folder import replace_file

    images = runs.load(run).sample(number, seed, component, draw).numpy()
    if path.suffix == ".png":
        replace_file(path, plots.bare_grid(images))
    else:
        runs.save_npz(path, images=images)
    click.echo(f"wrote {number} images to {path}")
