"""tfvamp serve."""

from __future__ import annotations

import socket

import click

from tfvamp_cli import light, options
from tfvamp_cli.serving import exports, limits


@click.command("serve")
@click.argument("export", metavar="EXPORT")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on; 0.0.0.0 for all.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8501,
    show_default=True,
    metavar="N",
    help="Port to listen on; 0 for any free port.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="A host name besides localhost that requests may use, with a local --host.",
)
@click.option("--name", default="tfvamp", show_default=True, help="Name of the model in the addresses.")
@options.of_settings(limits.OPTIONS, limits.Limits)
@click.pass_context
def command(ctx, export, host, port, allow_host, name, **settings):
    """Serve an export over HTTP, with a page to explore the model.

    EXPORT is a folder that tfvamp export wrote, or one with numbered exports, of which the
    highest is served. It has TensorFlow Serving's REST interface. There are no
    passwords: put a proxy in front before you listen on other addresses.

    \b
    Examples:
      tfvamp export runs/first --output export/digits/1
      tfvamp serve export/digits
      curl -d '{"inputs": {"n": 4, "seed": [7, 0]}}' localhost:8501/v1/models/tfvamp:predict
    """
    if not name or len(name) > 100 or not all(c.isalnum() or c in "-_." for c in name):
        raise light.errors.UsageError("--name must be letters, digits, '-', '_' and '.', at most 100")
    folder, chosen = light.files.expanded(export), limits.Limits(**settings)
    listening = _listen(host, port)
    exports.newest_version(folder)  # raises its error before TensorFlow is imported
    try:
        import uvicorn

        from tfvamp_cli.serving import app, protocol, served
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("uvicorn", "starlette", "orjson", "h11"):
            raise
        raise light.errors.UsageError(
            "tfvamp serve needs more packages: pip install 'tfvamp[serve]'"
        ) from error
    model = served.ServedModel(folder, chosen)
    if model.problem and not ctx.obj["quiet"]:
        click.echo(f"warning: {model.problem}", err=True)
    address, bound = listening.getsockname()[:2]
    local = address.startswith("127.") or address == "::1"
    hosts = {"localhost", "127.0.0.1", "[::1]", host.lower(), *map(str.lower, allow_host)}
    application = app.build_app(model, name, sorted(hosts) if local else None)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            log_level="error",
            http=protocol.patient(chosen),
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=5,
        )
    )
    shown = f"[{address}]" if ":" in address else address
    if not ctx.obj["quiet"]:
        click.echo(
            f"serving {light.files.shown(model.folder)} as {name}, version {model.version}: open http://{shown}:{bound}/ "
            "(Ctrl+C stops)"
        )
    try:
        server.run(sockets=[listening])
    finally:
        application.state.desk.close()


def _listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket, before the model is loaded, so that a port that is taken is reported at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except (OSError, UnicodeError) as error:
        raise light.errors.UsageError(
            f"cannot listen on {light.files.printable(host)[:100]}, port {port} ({light.files.reason(error)}): choose "
            "another --host or --port"
        ) from error
    return listening
