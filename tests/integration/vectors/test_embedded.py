"""What is particular to the embedded engine."""

import asyncio
import gc
import threading

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import VectorStoreUnavailable
from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.vectors import embedded
from citadel_orchestration.vectors.embedded import EmbeddedConnection
from citadel_orchestration.vectors.points import Point
from citadel_orchestration.vectors.store import VectorStore
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


async def refusal_of(store):
    with pytest.raises(VectorStoreUnavailable) as caught:
        await store.health()
    return caught.value.message


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


# the engine leaves its lock file open when it finds the lock taken
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("is_seen_late", [False, True], ids=["held before", "taken while it is opened"])
def test_a_directory_that_another_process_lets_go_is_waited_for(settings, monkeypatch, is_seen_late):
    """As after an update: the old worker still ends its work."""
    if is_seen_late:
        monkeypatch.setattr(embedded, "_require_free", bool)

    async def work():
        async with open_store(settings) as first, open_store(settings) as second:
            await first.upsert("docs", POINTS)
            waiting = asyncio.ensure_future(second.search("docs", [1.0, 0.0]))
            refused = asyncio.ensure_future(refusal_of(second))
            assert "is open in another process" in await refused
            assert not waiting.done()
            await first.aclose()
            return [hit.id for hit in await waiting]

    assert asyncio.run(work()) == [1]
    gc.collect()


def test_a_directory_that_another_process_keeps_fails_the_call_with_advice(settings):
    impatient = settings.model_copy(update={"patience": 0.5})

    async def work():
        async with open_store(settings) as first, open_store(impatient) as second:
            await first.upsert("docs", POINTS)
            with pytest.raises(VectorStoreUnavailable, match=r"is open in another process.*set CITADEL_QDRANT__URL"):
                await second.search("docs", [1.0, 0.0])
            patient = VectorStore(settings)
            with pytest.raises(VectorStoreUnavailable, match="is open in another process"):
                await patient.search("docs", [1.0, 0.0], deadline=Deadline.after(0.5))
            await patient.aclose()

    asyncio.run(work())


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
