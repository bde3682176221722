"""The exporter's HTTP server: `/metrics`, and `/livez`, which asks no store."""

import socket
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from citadel_common.supervisor import NULL_SUPERVISOR, Supervisor

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_PLAIN = [("Content-Type", "text/plain; charset=utf-8")]


class _Handler(WSGIRequestHandler):
    """One request per connection; a client that is silent for `timeout` seconds is let go."""

    timeout = 10

    def address_string(self) -> str:
        """The client's address, without asking a name server."""
        return str(self.client_address[0])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the standard library's name)
        """No line per scrape."""


class _Server(ThreadingWSGIServer):
    """Binds the family that the host's address is of, and asks no name server for the host's name."""

    supervisor = NULL_SUPERVISOR

    def service_actions(self) -> None:
        """The loop's hook, at each of its turns: it still accepts."""
        super().service_actions()
        self.supervisor.alive()

    def server_bind(self) -> None:
        """Binds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


def application(*collectors: Collector) -> Application:
    """The WSGI application that tells the metrics of collectors."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    metrics: Application = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return metrics(environ, start_response)
            case "/livez":
                start_response("200 OK", _PLAIN)
                return [b"ok\n"]
        start_response("404 Not Found", _PLAIN)
        return [b"/metrics or /livez\n"]

    return app


def listen(
    host: str, port: int, *collectors: Collector, supervisor: Supervisor = NULL_SUPERVISOR
) -> ThreadingWSGIServer:
    """A server that listens and does not serve yet; once it does, `supervisor` hears of it at each turn of its loop.

    Raises:
        OSError: The address cannot be had.
    """
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    kind = type("Server", (_Server,), {"address_family": family, "supervisor": supervisor})
    server: ThreadingWSGIServer = make_server(host, port, application(*collectors), kind, handler_class=_Handler)
    return server
