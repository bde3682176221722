"""Who is to blame for a failed call: the server, or the texts that it was sent.

A server may answer 500, hang up or time out because of one text. A harmless text tells: if the server has a vector for
that, the others are the reason, and neither the server's breaker nor its limit may suffer for them.
"""

import orjson

from citadel_common.embeddings.vectors import checked_rows
from citadel_common.errors import BackendUnavailable, BadVector, CitadelError, UnknownModel
from citadel_embeddings.backends.base import Backend, Blame, EmbedCall, ServerFailed
from citadel_embeddings.items import BatchKey

CONTROL = "ok"
"""The harmless text."""
CONTROL_TIMEOUT = 5.0
"""Seconds that a server has for it."""


async def find_blame(backend: Backend, url: str, key: BatchKey, *, timeout: float) -> Blame:
    """Return who is to blame for a call that has just failed at a server; `key` says how it was made."""
    call = EmbedCall(
        model=key.model, texts=[CONTROL], size=key.own_dimensions, options=orjson.loads(key.options), max_tokens=None
    )
    try:
        reply = await backend.embed(url, call, timeout=min(timeout, CONTROL_TIMEOUT))
    except ServerFailed:
        return "server"
    except BackendUnavailable as error:
        return "server" if error.retry_after is not None else "crash"
    except UnknownModel:
        return "server"
    except CitadelError:
        return "texts"  # whatever it refuses, it is alive
    rows = checked_rows(reply.rows, dimensions=key.own_dimensions)
    return "texts" if len(rows) == 1 and not isinstance(rows[0], BadVector) else "server"
