"""An endpoint whose server is a function, in process."""

import asyncio

import httpx

from citadel_common.deadline import Deadline
from citadel_common.outages import Outages
from citadel_common.settings.llm import EndpointSettings
from citadel_common.telemetry import NULL_METRICS
from citadel_orchestration.llm.endpoint import Endpoint
from citadel_orchestration.llm.question import Message, Question


def question(**fields):
    """A question of one message."""
    return Question(messages=(Message(role="user", content="Hi"),), **fields)


def endpoint(handler, **fields):
    """An endpoint with that server, whose outages are not waited out."""
    settings = EndpointSettings(**{"url": "http://llm.example", "model": "m", "patience": 0, **fields})
    made = Endpoint("main", settings, Outages(), NULL_METRICS)
    made._http = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    return made


def response(body, status=200, headers=None, *, size=None):
    """A response with that body, in chunks of `size` bytes where that is given."""
    data = body.encode() if isinstance(body, str) else body

    async def chunks():
        for start in range(0, len(data), size):
            yield data[start : start + size]

    return httpx.Response(status, headers=headers, content=chunks() if size else data)


def ask(handler, asked=None, *, deadline=None, **fields):
    """The answer to one question."""

    async def run():
        return await endpoint(handler, **fields).ask(asked or question(), deadline or Deadline.after(30), lambda: None)

    return asyncio.run(run())


def answer_to(body, *, size=None, status=200, headers=None, **fields):
    """The answer that a body is read as."""
    return ask(lambda _: response(body, status, headers, size=size), **fields)
