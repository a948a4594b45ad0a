"""tfvamp sample."""

from __future__ import annotations

import click

from tfvamp_cli import light, options, output


@click.command("sample")
@options.run
@click.option("-n", "--number", type=int, default=64, show_default=True, help="Number of images.")
@options.seed
@click.option(
    "--output",
    "path",
    required=True,
    metavar="FILE",
    help="Output file: a grid as .png, .pdf or .svg, or the array `images` [n, H, W, C] as .npz.",
)
@click.option(
    "--format",
    "file_format",
    metavar="NAME",
    help=f"Format of a grid: {light.config.listed(light.config.FORMATS)}.  [default: the ending of FILE]",
)
@options.dpi
@options.columns
@options.no_title
@click.option(
    "--component",
    type=int,
    metavar="K",
    help="Generate only from component K of the prior, counted from 0.",
)
@click.option("--draw", is_flag=True, help="Draw the pixels instead of showing the means of p(x | z).")
@options.device
@click.pass_context
def command(ctx, run, number, seed, path, file_format, dpi, columns, no_title, component, draw, device):
    """Generate images from a run.

    For each image, a component is drawn from the prior, then a latent, then the image.

    \b
    Examples:
      tfvamp sample runs/first -n 64 --seed 7 --output samples.png
      tfvamp sample runs/first -n 16 --component 3 --output component3.png
      tfvamp sample runs/first -n 1000 --draw --output samples.npz
      tfvamp sample runs/first -n 64 --columns 16 --no-title --output samples.pdf
    """
    ending = path.rpartition(".")[2]
    if file_format is not None:
        light.errors.check_choice("format", file_format, light.config.FORMATS)
        if ending in (*light.config.FORMATS, "npz") and ending != file_format:
            raise click.UsageError(f"--format {file_format} does not go with {path}")
        ending, path = file_format, path if ending == file_format else f"{path}.{file_format}"
    if ending not in (*light.config.FORMATS, "npz") or not path.endswith(f".{ending}"):
        allowed = light.config.listed(f".{name}" for name in (*light.config.FORMATS, "npz"))
        raise click.UsageError(f"--output must end with one of {allowed}; got {path}")
    typed = options.given(ctx, {"dpi": dpi, "columns": columns, "no_title": no_title})
    if ending == "npz" and typed:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in typed)
        output.say(ctx)(f"{named}: no effect on arrays")
    options.check_runs(run)
    from tfvamp import arrays, devices, plots, runs
    from tfvamp.files import expanded, replace_file, shown

    look = plots.Look(light.config.FORMATS[0] if ending == "npz" else ending, dpi, columns, not no_title)
    with devices.on(device):
        model = runs.load(run)
        if draw and not model.has_mean:
            output.say(ctx)(f"--draw has no effect: {model.name} always draws the pixels")
        images = model.sample(number, seed, component, draw).numpy()
    if ending == "npz":
        arrays.write_npz(path, images=images)
    elif no_title:
        replace_file(expanded(path), plots.bare_grid(images, look=look))
    else:
        of = "" if component is None else f" of component {component}"
        replace_file(expanded(path), plots.grid(images, f"{number} samples{of}, seed {seed}", look))
    click.echo(f"wrote {light.files.counted(number, 'image')} to {shown(path)}")
