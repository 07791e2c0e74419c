"""A command is imported when it is called or listed. One whose packages are not installed says what to install."""

from __future__ import annotations

import gc
from functools import cache
from importlib import import_module

import click

__all__ = ["imported"]


@cache
def imported(module: str, name: str, *, extra: str) -> click.Command:
    """Return the command `name` of a module of `dutchdoor.server.commands`, which needs an `extra`."""
    gc.disable()  # an import drops next to nothing: looking for that in between would take a quarter of each start
    try:
        found: click.Command = getattr(import_module(f"dutchdoor.server.commands.{module}"), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("dutchdoor"):
            raise
        return _Lacking(name, exc.name, extra)
    finally:
        gc.freeze()  # nor will the collections of a server, and the last one at the exit, look at what stays
        gc.enable()
    _show_whole(found)
    return found


def _show_whole(command: click.Command) -> None:
    """Keep click from cutting the first sentence of a command in a list, and from wrapping an example, which a person
    copies.
    """
    command.short_help = command.get_short_help_str(limit=1000)
    title, _, examples = (command.epilog or "").partition(": ")
    if title in {"Example", "Examples"}:
        command.epilog = "\n".join(["\b", f"{title}:", *(f"  {each}" for each in examples.split("; "))])
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _show_whole(inner)


class _Lacking(click.Command):
    """Stands for a command whose packages are not installed."""

    def __init__(self, name: str, package: str, extra: str) -> None:
        super().__init__(name, short_help=f"(needs dutchdoor[{extra}])", add_help_option=False)
        self._why = f"{package} is not installed: pip install 'dutchdoor[{extra}]'"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:  # noqa: ARG002
        raise click.ClickException(f"dutchdoor {self.name}: {self._why}")
