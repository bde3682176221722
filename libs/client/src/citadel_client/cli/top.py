"""`citadel top`: the server, live."""

import time
from dataclasses import replace
from typing import Annotated

import typer
from rich.live import Live

from citadel_client import NEVER
from citadel_client.cli.dashboard import frame
from citadel_client.cli.exits import ExitCode
from citadel_client.cli.options import Json, Url, connect
from citadel_client.cli.snapshots import Observer, Snapshot
from citadel_client.dev.run import signals_interrupt
from citadel_client.terminal import out, print_json, widened

Interval = Annotated[float, typer.Option("--interval", "-i", min=0.2, help="Seconds between refreshes.")]
Once = Annotated[bool, typer.Option("--once", help="Print one frame; so it does where there is no terminal.")]
PATIENCE_S = 10.0
"""Seconds one request may take."""


def top(interval: Interval = 2.0, once: Once = False, url: Url = None, json_: Json = False) -> None:
    """Watch queues, workers, runs and errors; Ctrl-C ends it.

    --json prints one document. One frame or document exits with 3 when no server answers.
    """
    with connect(url, PATIENCE_S, NEVER) as citadel:
        observer = Observer(citadel)
        if json_ or once or not out.is_terminal:
            _show_once(observer.look(), citadel.base_url, json_=json_)
        else:
            _watch(observer, citadel.base_url, interval)


def _show_once(snapshot: Snapshot, url: str, *, json_: bool) -> None:
    if json_:
        print_json({"url": url, **vars(snapshot)})
    else:
        widened(out).print(frame(snapshot, url))
    if not snapshot.reachable:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _watch(observer: Observer, url: str, interval: float) -> None:
    """Draw until interrupted; the last figures stay while the server is away."""
    last = Snapshot(at=time.time())
    try:
        with signals_interrupt(), Live(console=out, screen=True, auto_refresh=False) as live:
            while True:
                now = observer.look()
                last = now if now.reachable else replace(last, at=now.at, reachable=False, problems=now.problems)
                live.update(frame(last, url), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return
