"""What is particular to the embedded engine."""

import asyncio
import threading

import pytest

from citadel_common.errors import VectorStoreUnavailable
from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.vectors.embedded import EmbeddedConnection
from citadel_orchestration.vectors.points import Point
from tests.integration.vectors.conftest import open_store

POINTS = [Point(id=1, vector=[1.0, 0.0])]


class Held(EmbeddedConnection):
    """An engine that is busy until it is let go."""

    def __init__(self, path):
        super().__init__(path)
        self.let_go = threading.Event()
        self.begun = []

    def _run(self, method, collection, arguments):
        self.begun.append(method)
        assert self.let_go.wait(60)
        return super()._run(method, collection, arguments)


@pytest.fixture
def settings(tmp_path):
    return QdrantSettings(path=tmp_path / "deep" / "qdrant")


def test_a_second_process_is_refused_with_advice(settings):
    async def work():
        async with open_store(settings) as first, open_store(settings) as second:
            await first.upsert("docs", POINTS)
            with pytest.raises(VectorStoreUnavailable, match="run a Qdrant server and set CITADEL_QDRANT__URL"):
                await second.health()
            await first.aclose()
            return await second.collections()

    assert asyncio.run(work()) == {"docs": {"": 2}}


def test_a_directory_that_cannot_be_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("in the way")

    async def work():
        async with open_store(QdrantSettings(path=tmp_path / "file" / "qdrant")) as store:
            await store.health()

    with pytest.raises(VectorStoreUnavailable, match="cannot open"):
        asyncio.run(work())


def test_the_loop_goes_on_while_the_engine_works(tmp_path):
    async def work():
        engine = Held(tmp_path)
        call = asyncio.ensure_future(engine.call("get_collections", timeout=60))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not call.done()
        engine.let_go.set()
        answer = await call
        await engine.aclose()
        return answer.collections

    assert asyncio.run(work()) == []


def test_an_engine_that_does_not_finish_is_given_up(tmp_path):
    async def work():
        engine = Held(tmp_path)
        with pytest.raises(VectorStoreUnavailable, match="did not finish"):
            await engine.call("get_collections", timeout=0.05)
        engine.let_go.set()
        answer = await engine.call("get_collections", timeout=60)
        await engine.aclose()
        return answer.collections

    assert asyncio.run(work()) == []


def test_a_call_whose_caller_has_gone_is_not_begun(tmp_path):
    """A queue of given-up work must not keep the next caller waiting."""

    async def work():
        engine = Held(tmp_path)
        begun = asyncio.ensure_future(engine.call("get_collections", timeout=60))
        await asyncio.sleep(0)
        with pytest.raises(VectorStoreUnavailable):
            await engine.call("delete_collection", collection="docs", timeout=0.05)
        engine.let_go.set()
        await begun
        await engine.call("get_collections", timeout=60)
        await engine.aclose()
        return engine.begun

    assert asyncio.run(work()) == ["get_collections", "get_collections"]
