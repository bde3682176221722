"""`citadel dev` in the foreground: start, say so, wait for a signal, end in order."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from citadel_client.dev.stack import DevStack


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; `nohup` still protects from SIGHUP."""
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
    """Run the stack until a signal; the exit code.

    Raises:
        KeyboardInterrupt: Interrupted before it was ready.
        DevError: It cannot run.
    """
    stack = DevStack(home, port, start_timeout=start_timeout, say=say, show=show)
    with signals_interrupt():
        say(f"starting Citadel on {stack.home.path} ...")
        with stack:
            if stack.missing:
                say(f"ready without: {', '.join(stack.missing)}")
            announce(stack.env)
            if "exporter" in stack.pids:
                say(f"figures for Prometheus: {stack.exporter_url}/metrics")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
            say("stopping; Ctrl-C again ends everything at once")
    return 0
