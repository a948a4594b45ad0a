"""The group of commands: loaded one by one, errors in one line, TensorFlow's chatter out of sight."""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.metadata
import os
import signal
import sys

import click

from tfvamp_cli import chatter, light
from tfvamp_cli.groups import SuggestingGroup

# TensorFlow's million objects live as long as the program: looking for garbage among them, again and again while they are
# imported and once more at the end, would cost each command two seconds.
gc.set_threshold(10_000, 10, 10)
atexit.register(gc.freeze)

COMMANDS = {
    "train": "Train a model and its prior into a run folder.",
    "sweep": "Train and evaluate many runs from a file of settings.",
    "reproduce": "Run what a table or figure of the paper needs, and show it beside the published numbers.",
    "evaluate": "Estimate the log-likelihood of a run.",
    "diagnose": "Show what the prior, the latents and the decoder of a run have learned.",
    "compare": "List runs side by side, with paired differences.",
    "report": "Write an HTML report about one or several runs.",
    "rate-distortion": "List the rate and distortion of evaluated runs.",
    "sample": "Generate images from a run.",
    "encode": "Write the latent means and log-variances of a data set.",
    "export": "Export a run as a SavedModel, which needs only TensorFlow.",
    "serve": "Serve an export over HTTP, with a page to explore the model.",
    "plot": "Draw curves, samples, reconstructions, pseudo-inputs, latents, and a histogram.",
    "datasets": "List, show and prepare data sets.",
    "info": "Show what a run is and how far it got.",
    "doctor": "Show versions, devices and data folders.",
}
LONGEST_ERROR = 2000  # letters: a file may hold names of any length


class Signalled(KeyboardInterrupt):
    """A signal ended a command.

    Attributes:
      number: number of the signal.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number


class LazyGroup(SuggestingGroup):
    """Imports the module of a command when the command is used."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"tfvamp_cli.{name.replace('-', '_')}").command

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx):
        """Runs a command; an error becomes one line and an exit code."""
        debug = ctx.params["debug"]
        for number in (signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, _raise)
        try:
            with chatter.held_back(debug):
                if "KERAS_BACKEND" in os.environ:
                    light.backend.check_backend()
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as error:
            _fail(ctx, "interrupted", 128 + getattr(error, "number", signal.SIGINT))
        except BrokenPipeError:  # such as `| head`, which has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except Exception as error:
            if debug:
                raise
            _fail(ctx, *_explained(error))


def _explained(error: Exception) -> tuple[str, int]:
    """Returns the line for an error, and the exit code."""
    if (exit_code := getattr(error, "exit_code", None)) is not None:
        return str(error), exit_code
    if isinstance(error, ImportError):
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        known = "tfvamp" in text
        more = "" if known else ": install tfvamp and TensorFlow again, or see tfvamp --debug"
        return f"{text}{more}" if known else f"cannot import what tfvamp needs ({text[:300]}){more}", 1
    if isinstance(error, MemoryError):
        return "not enough memory: choose smaller settings", 1
    if isinstance(error, OSError) and error.filename is not None:
        return f"{light.files.shown(os.fsdecode(error.filename))}: {light.files.reason(error)}", 1
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}", 1
    text = f"{type(error).__name__}: {str(error)[:300]}"
    return f"{text} (unexpected; tfvamp --debug shows the traceback)", 1


def _fail(ctx, text: str, exit_code: int):
    click.echo(f"tfvamp: {light.files.printable(text)[:LONGEST_ERROR]}", err=True)
    ctx.exit(exit_code)


def _raise(number, _):
    raise Signalled(number)


def _version(ctx, _, value):
    if value:
        click.echo(f"tfvamp {importlib.metadata.version('tfvamp')}")
        ctx.exit()


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.option("--quiet", is_flag=True, help="Show only results and errors.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
@click.pass_context
def main(ctx, debug, quiet):
    """Variational auto-encoders with a VampPrior (Tomczak and Welling 2018).

    \b
    A first run, a few minutes on a CPU:
      tfvamp train --epochs 60 --warmup 20 --run-dir runs/first
      tfvamp evaluate runs/first --samples 500
      tfvamp plot runs/first
    """
    ctx.obj = {"quiet": quiet}


if __name__ == "__main__":
    sys.exit(main())
