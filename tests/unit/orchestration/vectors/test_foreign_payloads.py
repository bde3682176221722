"""Payloads that others have stored, up to the output of the step that finds them."""

import asyncio

import httpx
import pytest

from citadel_common.errors import CitadelError, InvalidInput
from citadel_orchestration.engine.outputs import encoded_output
from tests.unit.orchestration.vectors.test_fuzzed_answers import INFO, store_of

FOUND = '{"result": {"points": [{"id": 1, "version": 1, "score": 0.5, "payload": {"a": %s}}]}, "time": 0}'


def output(payload):
    """Return the output of a search that finds a point with that payload."""

    def answer(request):
        if request.url.path.endswith("/points/query"):
            return httpx.Response(200, content=FOUND % payload)
        return httpx.Response(200, json={"result": INFO, "status": "ok", "time": 0})

    async def search():
        store = await store_of(httpx.MockTransport(answer))
        try:
            return await store.search("docs", [1.0, 0.0])
        finally:
            await store.aclose()

    return encoded_output({"hits": [hit.document() for hit in asyncio.run(search())]})[0]


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ("NaN", "is not a finite number"),
        ('{"b": [-Infinity]}', "is not a finite number"),
        ("1e999", "is not a finite number"),
    ],
)
def test_a_number_that_cannot_be_kept_is_refused_with_its_place(payload, problem):
    with pytest.raises(InvalidInput, match=f"/hits/0/payload/a.*{problem}"):
        output(payload)


@pytest.mark.parametrize("levels", [300, 5000])
def test_a_payload_that_is_nested_too_deeply_is_a_plain_error(levels):
    with pytest.raises(CitadelError, match=r"nested more than|cannot be read"):
        output("[" * levels + "]" * levels)


@pytest.mark.parametrize(("payload", "kept"), [(str(2**64 - 1), 2**64 - 1), (r'{"\u0000": "x"}', {"\ufffd": "x"})])
def test_what_is_within_the_limits_is_kept(payload, kept):
    assert output(payload)["hits"][0]["payload"]["a"] == kept
