"""tfvamp export."""

from __future__ import annotations

import click

from tfvamp_cli import options


@click.command("export")
@options.run
@click.option("--output", required=True, metavar="DIR", help="Folder of the SavedModel, which is created.")
@click.option("--overwrite", is_flag=True, help="Replace an existing SavedModel.")
@click.option(
    "--onnx",
    is_flag=True,
    help="Also write encode.onnx and, except for pixelhvae, decode.onnx into DIR/assets.extra.",
)
def command(run, output, overwrite, onnx):
    """Export a run as a SavedModel, which needs only TensorFlow.

    Its functions are sample, encode, decode, reconstruct and log_likelihood, with
    sample_component for a mixture prior and pseudo_inputs for a VampPrior.
    DIR/assets.extra/tfvamp.json describes their arguments and results.

    \b
    Examples:
      tfvamp export runs/first --output export/tfvamp/1
      tfvamp export runs/first --output export/tfvamp/1 --overwrite --onnx
    """
    options.check_runs(run)
    from tfvamp import export
    from tfvamp.files import expanded, shown

    document = export.export_run(run, output, overwrite, onnx)
    extra = expanded(output) / "assets.extra"
    written = [name for name in ("encode.onnx", "decode.onnx") if onnx and (extra / name).is_file()]
    more = "".join(f", {name}" for name in written)
    click.echo(
        f"wrote {shown(output)} ({', '.join(document['signatures'])}{more}). "
        f"Next: tfvamp serve {shown(expanded(output))}"
    )
