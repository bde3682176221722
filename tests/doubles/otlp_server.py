"""Run the OTLP receiver as a server: `python -m tests.doubles.otlp_server --host 0.0.0.0 --port 4318`.

`GET /` tells what came: by trace, how many spans of each service.
"""

import argparse
import signal
import threading
from collections.abc import Sequence

from tests.doubles.otlp import OtlpReceiver


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m tests.doubles.otlp_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4318)
    given = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with OtlpReceiver(given.host, given.port):
        stop.wait()


if __name__ == "__main__":
    main()
