"""Transport of the OTLP exporter's requests over the HTTP client of all other calls, which bounds the answers."""

import io
import time
from typing import Any

import httpx
import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from requests.adapters import BaseAdapter

from citadel_common.outbound import Route, client_options, reason
from citadel_common.settings.server import ServerSettings

LONGEST = 64 * 1024
"""Bytes of an answer that are read: a receiver that took the spans has next to nothing to say."""
PAGES = ("text/html", "application/xhtml")
"""Content types of a proxy's or a login's page, which a receiver does not send."""


class HttpAdapter(BaseAdapter):
    """Sends the requests of a session; the route's proxy and certificates count, not the session's.

    Args:
        route: The receiver.
        settings: Its certificates.

    Attributes:
        failure: Why the last request failed; None if it did not, or if the answer is not that of a receiver.
    """

    def __init__(self, route: Route, settings: ServerSettings) -> None:
        super().__init__()
        self._route = route
        self._client = httpx.Client(**client_options(route, settings))
        self._rejected = 0
        self.failure: str | None = None

    def session(self) -> requests.Session:
        """Return a session that takes nothing from the environment."""
        session = requests.Session()
        session.trust_env = False
        for scheme in ("http://", "https://"):
            session.mount(scheme, self)
        return session

    def send(self, request: requests.PreparedRequest, *_: Any, timeout: Any = None, **__: Any) -> requests.Response:
        """Send a request.

        Raises:
            requests.ConnectionError: There was no answer; another attempt may have one.
            requests.exceptions.InvalidURL: The answer is not that of a receiver.
        """
        seconds = max(float(timeout or 0), 0.001)
        headers = {name: str(value) for name, value in request.headers.items()} | self._route.headers
        try:
            with self._client.stream(
                "POST", self._route.url, content=_bytes(request.body), headers=headers, timeout=seconds
            ) as answer:
                response = _read(answer, time.monotonic() + seconds)
        except httpx.TransportError as error:
            self.failure = f"{self._route.place}: {reason(error)}"
            raise requests.ConnectionError(self.failure) from None
        self.failure = None if response.ok else f"{self._route.place} answers with status {response.status_code}"
        if response.ok:
            self._rejected = _rejected_in(response.content)
        return response

    def take_rejected(self) -> int:
        """Return how many spans of the last request were rejected, once."""
        rejected, self._rejected = self._rejected, 0
        return rejected

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else str(body or "").encode()


def _read(answer: httpx.Response, deadline: float) -> requests.Response:
    """Return status, headers and the beginning of an answer; what comes later than the deadline is left out."""
    kind = answer.headers.get("content-type", "")
    if answer.is_redirect or (answer.is_success and kind.startswith(PAGES)):
        raise requests.exceptions.InvalidURL(f"status {answer.status_code} with {kind or 'no body'}: no OTLP receiver")
    body = bytearray()
    for piece in answer.iter_raw():
        body += piece[: LONGEST - len(body)]
        if len(body) >= LONGEST or time.monotonic() > deadline:
            break
    response = requests.Response()
    response.status_code, response.reason = answer.status_code, answer.reason_phrase
    response.headers.update(answer.headers)
    response.raw = io.BytesIO(body)
    return response


def _rejected_in(content: bytes) -> int:
    try:
        parsed = ExportTraceServiceResponse.FromString(content)
    except DecodeError:
        return 0
    return max(0, int(parsed.partial_success.rejected_spans))
