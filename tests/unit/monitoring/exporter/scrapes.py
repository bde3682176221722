"""Scrapes without a socket."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Fixed(Collector):
    """A collector of fixed families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """Return the families."""
        return iter(self._families)


def text_of(families: Iterable[Metric]) -> str:
    """Return families in the text format."""
    registry = CollectorRegistry()
    registry.register(Fixed(families))
    return generate_latest(registry).decode()


def get(app, path: str, **environ: str) -> tuple[str, str]:
    """Return status and body of a request to a WSGI application."""
    statuses = []
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", **environ}
    body = b"".join(app(request, lambda status, _: statuses.append(status)))
    return statuses[0], body.decode()
