"""HTTP calls of a conformance run: bounded in number, time and size, and all of them noted."""

import json
import threading
import time
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from citadel_client.conformance.findings import Call
from citadel_client.options import CONNECT_TIMEOUT_S, network_options
from citadel_contracts.base_urls import http_url
from citadel_contracts.outbound import is_untrusted, query_secrets, shown, without_credentials

MOST_CALLS = 80
LONGEST = 32 * 2**20
"""Bytes of an answer."""
WORDS = 160
"""Characters of a server's words that are shown."""


Key = tuple[str, str] | bool | None
"""Name and value of a header, True for the server's own key, None for none."""


class NoAnswer(Exception):
    """The server cannot be reached, or the run has used up its calls."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer; `status` is 0 where none came in time.

    Attributes:
        status: HTTP status.
        kind: Content type.
        text: The body.
        body: Its JSON; None if it is not JSON.
    """

    status: int
    kind: str = ""
    text: str = ""
    body: Any = field(default=None)

    @property
    def ok(self) -> bool:
        """Whether it succeeded with JSON, or with a stream."""
        return self.status == httpx.codes.OK

    @property
    def refused(self) -> str:
        """The refusal in a few words."""
        return f"refused with {self.status}" if self.status else "no answer in time"

    @property
    def words(self) -> str:
        """The server's own words about an error."""
        error = self.body.get("error", self.body.get("message", "")) if isinstance(self.body, dict) else self.text
        said = error.get("message", "") if isinstance(error, dict) else error
        return " ".join("".join(sign if sign.isprintable() else " " for sign in str(said)).split())[:WORDS]

    @property
    def error_form(self) -> str:
        """Whose form the error has."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        if isinstance(error, dict) and "message" in error:
            return "OpenAI's"
        return "Ollama's" if isinstance(error, str) else "its own"


class Server:
    """The server under test.

    Args:
        url: Base URL, perhaps with credentials.
        key: Name and value of the header that carries the API key, if there is one.
        timeout: Seconds that one call may take.

    Raises:
        ValueError: The URL, or a proxy of the environment, cannot be used.
    """

    def __init__(self, url: str, *, key: tuple[str, str] | None, timeout: float) -> None:
        self.url, authorization = without_credentials(http_url(url))
        if key and authorization and key[0].lower() == "authorization":
            raise ValueError("an API key and a user in the URL exclude each other: give one")
        self.key = key
        self._headers = {"authorization": authorization} if authorization else {}
        self._secrets = [text for text in (_secret(key[1] if key else ""), *_secrets_of(authorization, url)) if text]
        self._timeout = timeout
        limits = httpx.Timeout(timeout, connect=min(CONNECT_TIMEOUT_S, timeout))
        self._http = httpx.Client(timeout=limits, headers={"user-agent": "citadel-check"}, **network_options(self.url))
        self._lock = threading.Lock()
        self.calls: list[Call] = []

    @property
    def shown(self) -> str:
        """The URL for messages and settings, without secrets."""
        return shown(self.url)

    @property
    def pasted(self) -> str:
        """The URL for settings: with its query if that is but a version, without user and password."""
        query = urlsplit(self.url).query
        return self.url if query.startswith("api-version=") and "&" not in query else self.shown

    @property
    def has_secrets_in_url(self) -> bool:
        """Whether the URL that was given says more than the one for settings."""
        return self.pasted != self.url or bool(self._headers)

    def get(self, url: str, purpose: str, *, key: Key = True) -> Reply:
        """Get a URL; see `post`."""
        return self._send("GET", url, None, purpose, key)

    def post(self, url: str, body: Any, purpose: str, *, key: Key = True) -> Reply:
        """Post JSON and return the answer, whatever its status.

        Args:
            url: The URL.
            body: The JSON.
            purpose: Why, for the list of calls.
            key: True for the server's key, None for none, or another one.

        Raises:
            NoAnswer: No connection could be opened, or the run has used up its calls.
        """
        return self._send("POST", url, body, purpose, key)

    def _send(self, method: str, url: str, body: Any, purpose: str, key: Key) -> Reply:
        if len(self.calls) >= MOST_CALLS:
            raise NoAnswer(f"the run has used up its {MOST_CALLS} calls")
        chosen = self.key if key is True else key or None
        headers = self._headers | (dict([chosen]) if chosen else {})
        began = time.monotonic()
        reply = self._exchange(method, url, body, headers)
        took = round(1000 * (time.monotonic() - began))
        with self._lock:
            path = urlsplit(url).path
            self.calls.append(
                Call(purpose=purpose, method=method, path=path, status=reply.status or None, milliseconds=took)
            )
        return reply

    def _exchange(self, method: str, url: str, body: Any, headers: dict[str, str]) -> Reply:
        deadline = time.monotonic() + self._timeout
        try:
            with self._http.stream(method, url, json=body, headers=headers) as answer:
                return self._read(answer, deadline)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            remedy = ": name its authority's certificate in SSL_CERT_FILE" if is_untrusted(error) else ""
            raise NoAnswer(self.hidden(f"{self.shown} does not answer: {error}{remedy}")) from None
        except httpx.HTTPError as error:
            return Reply(status=0, text=self.hidden(f"{type(error).__name__}: {error}"))

    def _read(self, answer: httpx.Response, deadline: float) -> Reply:
        content = bytearray()
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > LONGEST or time.monotonic() > deadline:
                return Reply(status=0, text=f"no end of its answer within {self._timeout:g} s or {LONGEST} bytes")
        text = self.hidden(content.decode("utf-8", "replace"))
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        return Reply(status=answer.status_code, kind=answer.headers.get("content-type", ""), text=text, body=body)

    def hidden(self, text: str) -> str:
        """Return a text with stars for the key and the password, which some servers repeat."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _secret(value: str) -> str:
    return value.rpartition(" ")[2]


def _secrets_of(authorization: str | None, url: str) -> list[str]:
    """Return the password of a URL in each form, and the values of its query but for a version."""
    if authorization is None:
        return [*query_secrets(url)]
    encoded, written = _secret(authorization), urlsplit(url.strip()).password or ""
    return [*query_secrets(url), encoded, b64decode(encoded).decode().partition(":")[2], written, unquote(written)]
