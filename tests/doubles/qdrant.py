"""Run the Qdrant double as a server: `python -m tests.doubles.qdrant --port 0`.

When it accepts connections it prints one line of JSON, `{"port": …, "pid": …}`.
"""

import argparse
import threading
from collections.abc import Sequence

import uvicorn

from tests.doubles.ollama import _exit_with_parent, _listen, _Protocol, _Server
from tests.doubles.qdrant_app import QdrantDouble

# actix, which Qdrant stands on, closes idle connections after so long
KEEP_ALIVE_S = 5


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.doubles.qdrant", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--api-key", default="", help="key demanded in the api-key header; empty demands none")
    parser.add_argument("--exit-with-stdin", action="store_true", help="exit when standard input closes")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop."""
    given = _parser().parse_args(arguments)
    if given.exit_with_stdin:
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    config = uvicorn.Config(
        QdrantDouble(given.api_key),
        http=_Protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    _Server(config).run(sockets=[_listen(given.host, given.port)])


if __name__ == "__main__":
    main()
