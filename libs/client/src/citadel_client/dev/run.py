"""`citadel dev` in the foreground: start, announce, wait for a signal, stop in order."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from citadel_client.dev.stack import DevStack


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does; a SIGHUP that `nohup` ignores stays ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(
    home: Path,
    port: int,
    start_timeout: float,
    announce: Callable[[dict[str, str]], None],
    say: Callable[[str], None],
    show: Callable[[str, str], None] | None,
) -> int:
    """Run the stack until a signal; return the exit code.

    Raises:
        KeyboardInterrupt: A signal came before the stack was ready.
        DevError: The stack cannot run.
    """
    stack = DevStack(home, port, start_timeout=start_timeout, say=say, show=show)
    with signals_interrupt():
        say(f"starting Citadel on {stack.home.path} ...")
        with stack:
            if stack.missing:
                say(f"ready without: {', '.join(stack.missing)}")
            announce(stack.env)
            if "exporter" in stack.pids:
                say(f"metrics for Prometheus: {stack.exporter_url}/metrics")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
            say("stopping; Ctrl-C again kills everything at once")
    return 0
