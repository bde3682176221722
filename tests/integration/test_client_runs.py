"""The SDK's workflows, runs, batches and collections against the real API and workers."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from citadel_client import AsyncCitadel, Citadel, Conflict, InvalidRequest, NotFound, RunFailed
from tests.doubles.ollama.vectors import expected_vector
from tests.integration.api.stack import Stack, open_stack
from tests.support.fixtures import require_redis
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.relay import Relay

MODEL = "nomic-embed-text"
PATIENCE = 30.0
WAITING = {"steps": [{"step_id": "w", "type": "wait", "parameters": {"signal": "go", "timeout": "60s"}}]}


def searching(collection: str) -> dict:
    text = {"text": "${{ context.question }}", "model": MODEL, "input_type": "document"}
    search = {"collection": collection, "embedding": "${{ steps.q.output.embedding }}", "limit": 1}
    return {
        "context": {"question": "doc 3"},
        "steps": [
            {"step_id": "q", "type": "embedding", "parameters": text},
            {"step_id": "docs", "type": "vector_search", "parameters": search},
        ],
        "output": "${{ steps.docs.output.hits[0].payload.text }}",
    }


@pytest.fixture(scope="module")
def stack(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    require_redis()
    with open_stack(postgres_server, tmp_path_factory.mktemp("api") / "log") as stack:
        yield stack


@pytest.fixture
def citadel(stack: Stack) -> Iterator[Citadel]:
    with Citadel(stack.api.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def relay(stack: Stack) -> Iterator[Relay]:
    with Relay(stack.api.port) as relay:
        yield relay


def test_stored_points_are_found_by_a_workflow(citadel: Citadel) -> None:
    points = ({"id": n, "text": f"doc {n}", "payload": {"n": n}} for n in range(250))
    stored = citadel.collections.store("library", points, model=MODEL, group=100)
    assert stored.upserted == 250
    assert stored.ids == list(range(250))
    run = citadel.workflows.submit(searching("library"), context={"question": "doc 77"})
    events = list(run.events(timeout=PATIENCE))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type == "run_succeeded"
    view = run.wait(PATIENCE)
    assert view.output == "doc 77"
    assert [step.status for step in run.steps()] == ["succeeded", "succeeded"]
    assert run.step("docs").output["hits"][0]["id"] == 77
    assert "flowchart" in run.graph()
    assert list(run.history()) == events
    vector = expected_vector(MODEL, "search_document: doc 8").tolist()
    (hit,) = citadel.collections.search("library", embedding=vector, limit=1, filter={"n": 8})
    assert hit.payload == {"text": "doc 8", "n": 8}


def test_every_problem_of_a_definition_is_returned(citadel: Citadel) -> None:
    wrong = {"steps": [{"step_id": "a", "type": "x"}, {"step_id": "b", "type": "embedding", "parameters": {}}]}
    pointers = ["/steps/0/type", "/steps/1/parameters/text"]
    with pytest.raises(InvalidRequest) as refused:
        citadel.workflows.submit(wrong)
    assert [error.pointer for error in refused.value.errors] == pointers
    assert [problem.pointer for problem in citadel.workflows.validate(wrong).problems] == pointers
    assert citadel.workflows.validate(searching("any")).ok
    assert citadel.workflows.plan(searching("any")).order == [["q"], ["docs"]]


def test_a_retry_runs_from_the_failed_step(citadel: Citadel) -> None:
    run = citadel.workflows.submit(searching("later"))
    with pytest.raises(RunFailed) as failed:
        run.wait(PATIENCE)
    assert failed.value.code == "not_found"
    assert failed.value.run.error is not None
    assert failed.value.run.error.step_id == "docs"
    citadel.collections.store("later", [{"id": 1, "text": "doc 3"}], model=MODEL)
    citadel.runs.retry(run.run_id)
    assert run.wait(PATIENCE).output == "doc 3"
    started = [event.step_id for event in run.history() if event.type == "step_started"]
    assert started.count("q") == 1
    assert started.count("docs") > 1


def test_runs_are_paused_resumed_cancelled_and_signalled(citadel: Citadel) -> None:
    labelled = WAITING | {"labels": {"of": "commands"}}
    run, other = (citadel.workflows.submit(labelled) for _ in range(2))
    assert citadel.runs.pause(run.run_id) == "paused"
    assert citadel.runs.resume(run.run_id) == "running"
    assert other.cancel() == "cancelled"
    assert other.wait(PATIENCE, check=False).status == "cancelled"
    with pytest.raises(Conflict):
        other.pause()
    run.signal("go", {"data": {"seen": True}})
    assert run.wait(PATIENCE).final_context is not None
    found = {summary.run_id: summary.status for summary in citadel.runs.list(labels={"of": "commands"})}
    assert found == {run.run_id: "succeeded", other.run_id: "cancelled"}
    with pytest.raises(NotFound):
        citadel.runs.get("no-such-run")


def test_lists_of_runs_fetch_all_pages(citadel: Citadel) -> None:
    submitted = [citadel.workflows.submit(WAITING | {"workflow_id": "many"}) for _ in range(105)]
    newest_first = [run.run_id for run in reversed(submitted)]
    assert [run.run_id for run in citadel.runs.list(workflow_id="many")] == newest_first
    assert [run.run_id for run in citadel.runs.list(workflow_id="many", limit=101)] == newest_first[:101]
    for run in submitted:
        run.cancel()


def test_events_are_complete_over_cut_connections(stack: Stack, relay: Relay, citadel: Citadel) -> None:
    steps = [
        {"step_id": f"w{n}", "type": "wait", "parameters": {"signal": f"go{n}", "timeout": "60s"}} for n in range(4)
    ]
    run = citadel.workflows.submit({"steps": steps})
    seen: list[int] = []

    def follow() -> None:
        with Citadel(relay.url) as far:
            seen.extend(event.seq for event in far.runs.handle(run.run_id).events(timeout=PATIENCE))

    follower = threading.Thread(target=follow)
    follower.start()
    for number in range(4):
        eventually(lambda number=number: relay.connections > number)
        relay.cut()
        run.signal(f"go{number}")
    follower.join(PATIENCE)
    history = [event.seq for event in run.history()]
    assert seen == history == list(range(1, len(history) + 1))
    assert relay.connections >= 5


def test_a_batch_streams_in_and_out_in_order(citadel: Citadel) -> None:
    read = 0

    def requests() -> Iterator[dict]:
        nonlocal read
        for read in range(1, 301):
            yield {"text": "" if read == 0 else f"batch {read}", "request_id": f"id {read}"}

    run = citadel.batches.submit(requests(), model=MODEL, labels={"of": "batches"})
    answers = list(run.results(timeout=PATIENCE))
    assert read == 300
    assert [answer.request_id for answer in answers] == [f"id {n}" for n in range(1, 301)]
    assert answers[41].embeddings.vectors[0] == pytest.approx(expected_vector(MODEL, "batch 42"), abs=1e-6)
    assert run.wait(PATIENCE).kind == "batch"
    assert [found.run_id for found in citadel.runs.list(labels={"of": "batches"})] == [run.run_id]


def test_two_submissions_with_one_key_are_one_batch(citadel: Citadel) -> None:
    first, second = (citadel.batches.submit(["one", "two"], model=MODEL, idempotency_key="k") for _ in range(2))
    assert first.run_id == second.run_id
    with pytest.raises(Conflict):
        citadel.batches.submit(["other"], model=MODEL, idempotency_key="k")


def test_a_bad_request_of_a_batch_is_named(citadel: Citadel) -> None:
    with pytest.raises(InvalidRequest, match=r"requests\[1\]"):
        citadel.batches.submit(["good", {"text": "x", "nonsense": 1}, "good"], model=MODEL)
    run = citadel.batches.submit(["good", "bad [[nan]]"], model=MODEL)
    assert [answer.failed for answer in run.results(timeout=PATIENCE)] == [False, True]


def test_results_are_complete_over_a_cut_connection(relay: Relay, citadel: Citadel) -> None:
    run = citadel.batches.submit((f"cut {n}" for n in range(200)), model=MODEL)
    run.wait(PATIENCE)
    relay.cut_next_after(300_000)
    with Citadel(relay.url) as far:
        answers = list(far.runs.handle(run.run_id).results(timeout=PATIENCE))
    assert [answer.index for answer in answers] == list(range(200))
    assert relay.connections == 2


def test_results_of_a_workflow_are_refused(citadel: Citadel) -> None:
    run = citadel.workflows.submit(WAITING)
    with pytest.raises(InvalidRequest, match="not a batch"):
        list(run.results())
    run.cancel()


def test_the_asyncio_client_does_the_same(stack: Stack) -> None:
    async def use() -> None:
        async def requests():
            for number in range(5):
                yield f"async {number}"

        async with AsyncCitadel(stack.api.url, timeout=PATIENCE) as citadel:
            await citadel.collections.store("awaited", [{"id": 1, "text": "doc 3"}], model=MODEL)
            run = await citadel.workflows.submit(searching("awaited"))
            events = [event.type async for event in run.events(timeout=PATIENCE)]
            assert events[-1] == "run_succeeded"
            assert (await run.wait(PATIENCE)).output == "doc 3"
            batch = await citadel.batches.submit(requests(), model=MODEL)
            answers = [answer.index async for answer in batch.results(timeout=PATIENCE)]
            assert answers == list(range(5))
            listed = [found.run_id async for found in citadel.runs.list(limit=2)]
            assert listed == [batch.run_id, run.run_id]
            waiting = await citadel.workflows.submit(WAITING)
            await waiting.signal("go", {"n": 1})
            assert (await waiting.wait(PATIENCE)).status == "succeeded"

    asyncio.run(use())
