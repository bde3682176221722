"""`citadel top`: the live status of the server."""

import time
from dataclasses import replace
from typing import Annotated

import typer
from rich.live import Live

from citadel_client import NEVER
from citadel_client.cli.dashboard import frame
from citadel_client.cli.options import ExitCode, Json, Url, connect
from citadel_client.cli.server_status import ServerStatus, StatusReader
from citadel_client.dev.run import signals_interrupt
from citadel_client.terminal import out, print_json, widened

Interval = Annotated[float, typer.Option("--interval", "-i", min=0.2, help="Seconds between refreshes.")]
Once = Annotated[bool, typer.Option("--once", help="Print once and exit; the default if there is no terminal.")]
PATIENCE_S = 10.0
"""Seconds one request may take."""


def top(interval: Interval = 2.0, once: Once = False, url: Url = None, json_: Json = False) -> None:
    """Show queues, workers, runs and errors, live; Ctrl-C ends it.

    --json prints one document. With --json or --once it exits with 3 if no server answers.
    """
    with connect(url, PATIENCE_S, NEVER) as citadel:
        reader = StatusReader(citadel)
        if json_ or once or not out.is_terminal:
            _show_once(reader.read(), citadel.base_url, json_=json_)
        else:
            _watch(reader, citadel.base_url, interval)


def _show_once(status: ServerStatus, url: str, *, json_: bool) -> None:
    if json_:
        names = {"dead_letters": "letters"}  # the name in documents
        print_json({"url": url} | {names.get(name, name): value for name, value in vars(status).items()})
    else:
        widened(out).print(frame(status, url))
    if not status.reachable:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _watch(reader: StatusReader, url: str, interval: float) -> None:
    """Redraw until interrupted; while the server is away, the last numbers stay."""
    last = ServerStatus(at=time.time())
    try:
        with signals_interrupt(), Live(console=out, screen=True, auto_refresh=False) as live:
            while True:
                now = reader.read()
                last = now if now.reachable else replace(last, at=now.at, reachable=False, problems=now.problems)
                live.update(frame(last, url), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return
