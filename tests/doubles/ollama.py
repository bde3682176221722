"""Run the double as a server: `python -m tests.doubles.ollama --port 0 --slots 4 --request-ms 3 --text-ms 4`.

When it accepts connections it prints one line of JSON, `{"port": …, "pid": …}`.
"""

import argparse
import asyncio
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.doubles.app import OllamaDouble
from tests.doubles.models import KNOWN, canonical
from tests.doubles.settings import Settings

# a Go server keeps idle connections for good
KEEP_ALIVE_S = 3600


class _Protocol(HttpToolsProtocol):
    """Hands its connection to the application, so that it can hang up, and the time of each arrival."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {"transport": transport}
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.app_state["arrival"] = time.monotonic()
        super().data_received(data)


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        port = sockets[0].getsockname()[1] if sockets else None
        sys.stdout.write(orjson.dumps({"port": port, "pid": os.getpid()}).decode() + "\n")
        sys.stdout.flush()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.doubles.ollama", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--exit-with-stdin", action="store_true", help="exit when standard input closes")
    for item in fields(Settings):
        kind: Any = _names if isinstance(item.default, tuple) else type(item.default)
        flag = f"--{item.name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=item.default, help=item.metadata["help"])
    return parser


def _names(value: str) -> tuple[str, ...]:
    names = tuple(name for name in value.split(",") if name)
    unknown = [name for name in names if canonical(name) not in KNOWN]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown models {unknown}; known are {list(KNOWN)}")
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop."""
    given = vars(_parser().parse_args(arguments))
    host, port, exit_with_stdin = given.pop("host"), given.pop("port"), given.pop("exit_with_stdin")
    app = OllamaDouble(Settings(**given))
    if exit_with_stdin:
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    config = uvicorn.Config(
        app,
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
    _Server(config).run(sockets=[_listen(host, port)])


if __name__ == "__main__":
    main()
