"""The command: its subcommands, and how errors end it."""

import os
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from citadel_client.cli import (
    backends,
    batch,
    cache,
    collections,
    dead_letters,
    dev,
    embed,
    operations,
    runs,
    top,
    workflow,
)
from citadel_client.cli.options import ExitCode, UsageError, describe, exit_code_of
from citadel_client.demo import DemoFailed
from citadel_client.dev import DevError
from citadel_client.errors import CitadelApiError
from citadel_client.terminal import say

HELP = """Embed texts, run workflows, and operate a Citadel server.

Exit codes:

 0 success; for `dev`: stopped by a signal

 1 the command, the run, or some items failed

 2 wrong usage, or a workflow that is not valid

 3 no server answers

 4 the server answers that it is down

 130 interrupted

Environment: CITADEL_API_URL (server), CITADEL_API_KEY (its key), CITADEL_HOME (data of `dev` and `demo`), NO_COLOR.
"""

app = typer.Typer(name="citadel", help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.command()(dev.dev)
app.command()(dev.demo)
app.command()(embed.embed)
app.command()(batch.batch)
app.add_typer(workflow.app, name="workflow")
app.add_typer(runs.app, name="runs")
app.add_typer(collections.app, name="collections")
app.add_typer(cache.app, name="cache")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(backends.app, name="backends")
app.command()(operations.health)
app.command()(operations.models)
app.command()(operations.queues)
app.command()(operations.workers)
app.command()(top.top)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("citadel-client"))
        raise typer.Exit


@app.callback()
def citadel(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options of all commands; the application's own help stands in for this."""


def main() -> NoReturn:
    """Run the command; an error ends it with a line and an exit code, not with a traceback."""
    sys.exit(_run())


def _run() -> int:
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.FAILED
    except BrokenPipeError:
        _discard_output()
        return ExitCode.FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return ExitCode.INTERRUPTED
    except (CitadelApiError, DemoFailed, DevError, UsageError, OSError) as error:
        say(f"citadel: {describe(error)}")
        return exit_code_of(error)
    return ExitCode.OK


def _discard_output() -> None:
    """Replace standard output, whose reader is gone: the interpreter flushes it at exit and would report an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
