"""The group of commands: loaded one by one, errors in one line, TensorFlow's chatter out of sight."""

from __future__ import annotations

import importlib
import importlib.metadata
import signal
import sys

import click

from tfvamp_cli import chatter

COMMANDS = {
    "train": "Train a model and its prior into a run folder.",
    "evaluate": "Estimate the log-likelihood of a run by importance sampling.",
    "sample": "Generate images from a run.",
    "encode": "Write the latent means and log-variances of a data set.",
    "export": "Write a run as a SavedModel, which needs TensorFlow alone.",
    "plot": "Draw curves, samples, reconstructions, pseudo-inputs, the likelihood's histogram.",
    "datasets": "List, show and prepare data sets.",
    "info": "Show what a run is and how far it got.",
    "doctor": "Show versions, devices and data folders.",
}


LONGEST_ERROR = 2000  # letters: a file may hold names of any length


class LazyGroup(click.Group):
    """Imports the module of a command when the command is used."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"tfvamp_cli.{name}").command

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx):
        """Runs a command; what goes wrong becomes one line and an exit code."""
        debug = ctx.params["debug"]
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            with chatter.held_back(debug):
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            _fail(ctx, "interrupted", 1)
        except Exception as error:
            if debug:
                raise
            exit_code = getattr(error, "exit_code", None)
            if exit_code is None:
                text = f"{type(error).__name__}: {str(error)[:300]}"
                _fail(ctx, f"{text} (unexpected; tfvamp --debug shows the traceback)", 1)
            else:
                _fail(ctx, str(error), exit_code)


def _fail(ctx, text: str, exit_code: int):
    from tfvamp.errors import printable  # not at the top: it is in a package that imports TensorFlow

    click.echo(f"tfvamp: {printable(text)[:LONGEST_ERROR]}", err=True)
    ctx.exit(exit_code)


def _interrupt(*_):
    raise KeyboardInterrupt


def _version(ctx, _, value):
    if value:
        click.echo(f"tfvamp {importlib.metadata.version('tfvamp')}")
        ctx.exit()


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.option("--quiet", is_flag=True, help="Show nothing but results and errors.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@click.pass_context
def main(ctx, debug, quiet):
    """Variational auto-encoders with a VampPrior (Tomczak and Welling 2018).

    \b
    A first run, some minutes on a CPU:
      tfvamp train --epochs 60 --warmup 20 --run-dir runs/first
      tfvamp evaluate runs/first --samples 500
      tfvamp plot runs/first
    """
    ctx.obj = {"quiet": quiet}


if __name__ == "__main__":
    sys.exit(main())
