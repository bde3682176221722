"""The exporter's HTTP server: `/metrics`, and `/livez`, which reads no store."""

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
    """Handler of one request per connection; a client that is silent for `timeout` seconds is disconnected."""

    timeout = 10

    def address_string(self) -> str:
        """Return the client's address without asking a name server."""
        return str(self.client_address[0])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the standard library's name)
        """Log nothing."""


class _Server(ThreadingWSGIServer):
    """Server that asks no name server for its own name, and reports to the service manager."""

    supervisor = NULL_SUPERVISOR

    def service_actions(self) -> None:
        """Report, at each turn of the loop, that the server still accepts requests."""
        super().service_actions()
        self.supervisor.alive()

    def server_bind(self) -> None:
        """Bind the socket, without the standard library's look-up of the host's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


def application(*collectors: Collector) -> Application:
    """Return the WSGI application that serves the metrics of collectors."""
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
    """Return a server that listens and does not serve yet.

    Raises:
        OSError: The address is taken or does not exist.
    """
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    kind = type("Server", (_Server,), {"address_family": family, "supervisor": supervisor})
    server: ThreadingWSGIServer = make_server(host, port, application(*collectors), kind, handler_class=_Handler)
    return server
