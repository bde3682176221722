"""Handles on tasks."""

import httpx
import pytest

from citadel_client import CallTimedOut, TaskFailed, TextsFailed
from tests.unit.client.double import Double, talk_sync, vector_of


def waited(submit, timeout=None):
    """Submit and wait, with the blocking or the asyncio client."""

    def use(client):
        handle = submit(client)
        return handle.wait(timeout) if hasattr(handle, "wait") else _wait(handle, timeout)

    return use


async def _wait(handle, timeout):
    return await (await handle).wait(timeout)


def test_waiting_returns_the_result_of_a_task(talk):
    double = Double()
    found = talk(double, waited(lambda client: client.submit(["one", "bad"], model="m")))
    assert double.polls == 3
    assert double.bodies()[0] == {
        "text": ["one", "bad"],
        "model": "m",
        "cache_enabled": True,
        "encoding_format": "base64",
    }
    assert found.partial == [vector_of("one"), None]
    with pytest.raises(TextsFailed, match="text 1: a bad text"):
        _ = found.vectors


def test_waiting_returns_the_counts_of_a_warming_task(talk):
    found = talk(Double(), waited(lambda client: client.warm(["one"], ["m"])))
    assert (found.warmed, found.skipped, found.errors) == (2, 1, 0)


def test_a_failed_task_raises_its_error(talk):
    double = Double()
    status = {"task_id": "t-1", "status": "failed", "error": {"code": "backend_unavailable", "message": "it is away"}}
    double.task = lambda _request: httpx.Response(200, json=status)
    double.script.extend([double.accept(None), double.task(None)])
    with pytest.raises(TaskFailed, match="it is away") as caught:
        talk(double, waited(lambda client: client.submit("one")))
    assert caught.value.code == "backend_unavailable"


def test_waiting_ends_at_its_timeout(talk):
    double = Double()
    double.polls = -10_000
    with pytest.raises(CallTimedOut, match="t-1"):
        talk(double, waited(lambda client: client.submit("one"), timeout=0.0))


def test_status_and_result_of_a_task_can_be_read():
    def use(client):
        handle = client.submit("one")
        return handle.task_id, handle.status().status, handle.result(), handle.result() is not None

    assert talk_sync(Double(), use) == ("t-1", "running", None, True)
