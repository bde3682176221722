"""The server of the demo: one that runs already, or one started for the demo."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from citadel_client import NEVER, Citadel
from citadel_client.dev import DevStack
from citadel_client.dev.errors import AlreadyRunning
from citadel_client.errors import CallTimedOut, ServerUnreachable

PROBE_TIMEOUT_S = 10.0


@contextmanager
def server(home: Path, say: Callable[[str], None], show: Callable[[str, str], None] | None = None) -> Iterator[str]:
    """Yield the URL of a server: CITADEL_API_URL's if it answers, else the one of this home, started if necessary."""
    named = os.environ.get("CITADEL_API_URL")
    if named and _answers(named):
        say(f"using the server at {named}")
        yield named
        return
    if named:
        say(f"no server answers at {named} (CITADEL_API_URL)")
    stack = DevStack(home, 0, say=say, show=show)
    say(f"starting Redis, PostgreSQL, the workers and the API on {stack.home.path} ...")
    try:
        stack.start()
    except AlreadyRunning as running:
        if not running.url:
            raise
        say(f"using the server of the `citadel dev` that runs there, at {running.url}")
        yield running.url
        return
    try:
        yield stack.api_url
    finally:
        say("stopping the server")
        stack.stop()


def _answers(url: str) -> bool:
    with Citadel(url, timeout=PROBE_TIMEOUT_S, retry=NEVER) as citadel:
        try:
            citadel.health()
        except (ServerUnreachable, CallTimedOut):
            return False
    return True
