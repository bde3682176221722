"""Errors of Qdrant's client as errors of Citadel."""

import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import UnexpectedResponse

from citadel_common.errors import CitadelError, Conflict, NotFound, VectorStoreRefused, VectorStoreUnavailable
from citadel_common.outages import Outage
from citadel_common.outbound import reason
from citadel_common.text import printable
from citadel_contracts.outbound import is_untrusted
from citadel_orchestration.vectors.spaces import wrong_dimension

LONGEST = 500
"""Characters of the store's message that an error quotes."""

_HELD = "already accessed by another instance"
_DIMENSIONS = re.compile(r"expected dim: (\d{1,9}), got (\d{1,9})")
_SHAPES = re.compile(r"shapes \(\d+,(\d+)\) and \((\d+),\) not aligned")
_LASTING = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Errors of a connection that a wait does not mend."""
_UNSENT = (ValidationError, PydanticSerializationError, TypeError)
"""Errors of arguments that the client cannot write as a request."""
_AWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


def no_collection(collection: str) -> NotFound:
    """Return the error for a collection that does not exist."""
    return NotFound.at("collection", f"there is no {collection!r} in the vector store")


def from_server(error: Exception, collection: str) -> CitadelError | Outage:
    """Return the error for a failed call to a server; an Outage if the server is away."""
    if isinstance(error, UnexpectedResponse):
        return _from_status(error.status_code or 0, _words(error.content), collection)
    if isinstance(error, ResourceExhaustedResponse):
        return VectorStoreUnavailable(
            "the vector store limits the rate of calls; try again later", retry_after=max(0, error.retry_after_s)
        )
    source = getattr(error, "source", None)
    if isinstance(source, httpx.TransportError):
        unavailable = no_answer(source)
        return unavailable if isinstance(source, _LASTING) or is_untrusted(source) else Outage(unavailable)
    if isinstance(error, _UNSENT):
        return VectorStoreRefused(f"the request cannot be sent to the vector store: {error}"[:LONGEST])
    return VectorStoreUnavailable("the vector store's answer cannot be read; is CITADEL_QDRANT__URL a Qdrant?")


def no_answer(error: httpx.HTTPError) -> VectorStoreUnavailable:
    """Return the error for a call that got no answer, with the reason where the server is there but not trusted."""
    if is_untrusted(error):
        return VectorStoreUnavailable(f"the vector store does not answer: {reason(error)}")
    remedy = "check that Qdrant runs and that CITADEL_QDRANT__URL is right"
    return VectorStoreUnavailable(f"the vector store does not answer ({type(error).__name__}); {remedy}")


def from_embedded(error: Exception, collection: str) -> CitadelError:
    """Return the error for a failed call to the embedded engine."""
    words = str(error.args[0] if error.args else error)[:LONGEST]
    if isinstance(error, OSError | RuntimeError):
        return VectorStoreUnavailable(f"the embedded vector store fails: {words}")
    if words.startswith("Collection ") and words.endswith(" not found"):
        return no_collection(collection)
    return _refusal(words, collection)


def from_opening(error: Exception, path: Path) -> CitadelError | Outage:
    """Return the error for a directory that the embedded engine does not open; an Outage if another process has it."""
    if _HELD in str(error):
        return held(path)
    return VectorStoreUnavailable(f"the embedded vector store cannot open {path}: {error}")


def held(path: Path) -> Outage:
    """Return the outage of a directory that another process has open."""
    return Outage(
        VectorStoreUnavailable(
            f"the embedded vector store in {path} is open in another process, and one at a time may: "
            "for more of them run a Qdrant server and set CITADEL_QDRANT__URL"
        )
    )


def _from_status(status: int, words: str, collection: str) -> CitadelError | Outage:
    if status in _AWAY:
        return Outage(VectorStoreUnavailable(f"the vector store fails with status {status}: {words}"))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
        return VectorStoreUnavailable(f"the vector store fails with status {status}: {words}")
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return VectorStoreRefused("the vector store refuses the API key; check CITADEL_QDRANT__API_KEY")
    if status == HTTPStatus.NOT_FOUND:
        return no_collection(collection) if "doesn't exist" in words else _refusal(words, collection)
    return _refusal(words, collection)


def _refusal(words: str, collection: str) -> CitadelError:
    if found := _DIMENSIONS.search(words) or _SHAPES.search(words):
        return wrong_dimension(collection, int(found[1]), int(found[2]))
    if "already exists" in words:
        return Conflict.at("collection", f"{collection!r} exists already")
    return VectorStoreRefused(f"the vector store refuses the request: {words}")


def _words(content: bytes) -> str:
    """Return the message in a server's `{"status": {"error": …}}`, or all that it wrote, as text that can be shown."""
    try:
        document: Any = json.loads(content)
        words = str(document["status"]["error"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        words = content.decode(errors="replace")
    return printable(words, LONGEST)
