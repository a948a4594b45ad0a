"""Groups of commands that suggest the nearest name for one that is mistyped."""

from __future__ import annotations

import click

from tfvamp_cli import light


class SuggestingGroup(click.Group):
    """A group whose error for an unknown command names the nearest one."""

    def resolve_command(self, ctx, args):
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            name = light.files.printable(args[0])
            ctx.fail(f"No such command {name!r}.{light.errors.hint(args[0], known)}")
        return super().resolve_command(ctx, args)
