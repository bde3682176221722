"""How tests ask."""

import asyncio
import contextlib

from citadel_common.deadline import Deadline
from citadel_common.settings.llm import EndpointSettings, LlmSettings
from citadel_orchestration.llm.client import LlmClients
from citadel_orchestration.llm.question import Message, Question

MODEL = "tiny-llm"


def llm_settings(url, **fields):
    """Settings with one endpoint, `main`, whose outages are not waited out."""
    return LlmSettings(endpoints={"main": EndpointSettings(**{"url": url, "model": MODEL, "patience": 0, **fields})})


@contextlib.asynccontextmanager
async def opened(url, **fields):
    """Clients of that endpoint."""
    clients = LlmClients(llm_settings(url, **fields))
    try:
        yield clients
    finally:
        await clients.aclose()


def question(prompt="How are you?", **fields):
    """A question of one message."""
    return Question(messages=(Message(role="user", content=prompt),), **fields)


def soon(seconds=30.0):
    """A deadline that is not meant to pass."""
    return Deadline.after(seconds)


def ask(url, asked=None, *, endpoint=None, deadline=None, **fields):
    """One answer, in an event loop of its own."""

    async def run():
        async with opened(url, **fields) as clients:
            return await clients.ask(endpoint, asked or question(), deadline or soon())

    return asyncio.run(run())
