"""Servers of doubles: as the program `python -m tests.doubles.NAME`, or in a thread of this process."""

import argparse
import asyncio
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.doubles.base.application import Double
from tests.doubles.base.settings import add_flags

KEEP_ALIVE_S = 3600
"""Seconds that a Go server keeps an idle connection: for good."""


class _Protocol(HttpToolsProtocol):
    """Hands its connection to the application, so that it can hang up, and the time of each arrival."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {"transport": transport}
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.app_state["arrival"] = time.monotonic()
        super().data_received(data)


class _Server(uvicorn.Server):
    """Tells when it is up, and ends its connections at once when it is forced to exit."""

    def __init__(self, config: uvicorn.Config, up: Callable[[], None]) -> None:
        super().__init__(config)
        self._up = up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.force_exit:
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        await super().shutdown(sockets)


def _server(app: Double, keep_alive_s: int, up: Callable[[], None], **options: Any) -> _Server:
    config = uvicorn.Config(
        app,
        http=_Protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=1,
        **options,
    )
    return _Server(config, up)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


class ServerThread:
    """A double in a thread of this process; it listens when the constructor returns.

    Args:
        app: The double.
        host: Address to listen on.
        port: Port; 0 lets the system choose.
        options: Options of uvicorn, such as those of TLS.
    """

    def __init__(self, app: Double, host: str = "127.0.0.1", port: int = 0, **options: Any) -> None:
        listener = _listen(host, port)
        self.port: int = listener.getsockname()[1]
        up = threading.Event()
        self._server = _server(app, KEEP_ALIVE_S, up.set, log_config=None, **options)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        up.wait()

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it, connections and all."""
        self._server.force_exit = self._server.should_exit = True
        self._thread.join()


def main(build: Callable[[Any], Double], settings: Any, doc: str | None, *, keep_alive_s: int = KEEP_ALIVE_S) -> None:
    """Serve a double until told to stop.

    When it accepts connections it prints one line of JSON, `{"port": …, "pid": …}`.

    Args:
        build: Return the double for its settings.
        settings: Class of the settings, whose fields are flags.
        doc: Description in the help.
        keep_alive_s: Seconds after which an idle connection is closed.
    """
    parser = _parser(build.__module__.rpartition(".")[0], settings, doc)
    given = vars(parser.parse_args())
    host, port, exit_with_stdin = given.pop("host"), given.pop("port"), given.pop("exit_with_stdin")
    try:
        app = build(settings(**given))
    except ValueError as error:
        parser.error(str(error))
    if exit_with_stdin:
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    listener = _listen(host, port)
    up = {"port": listener.getsockname()[1], "pid": os.getpid()}
    _server(app, keep_alive_s, lambda: _announce(up), log_level="warning").run(sockets=[listener])


def _parser(module: str, settings: Any, doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=doc)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--exit-with-stdin", action="store_true", help="exit when standard input closes")
    add_flags(parser, settings)
    return parser


def _announce(up: dict[str, Any]) -> None:
    # the garbage collector would stop a double under load for what lives as long as the process
    gc.collect()
    gc.freeze()
    sys.stdout.write(orjson.dumps(up).decode() + "\n")
    sys.stdout.flush()


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)
