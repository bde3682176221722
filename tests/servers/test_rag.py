"""Retrieval and answer with all servers at once: doubles of all, or the real ones of all."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import pytest

from tests.doubles.otlp.receiver import OtlpReceiver
from tests.integration.api.servers import Api
from tests.support import servers
from tests.support.orchestration import OrchestrationProcess
from tests.support.planted import CREDENTIALS
from tests.support.polling import eventually
from tests.support.servers import Server, address, double_or_real
from tests.support.worker import WorkerProcess, variables

CALLED = {"citadel-api", "citadel-orchestration", "citadel-embeddings"}
TEXTS = [
    "The cat sleeps on the sofa and purrs.",
    "Interest rates rose by half a percent in March.",
    "The volcano threw ash over the whole island.",
]
ENDPOINT = "LLM__ENDPOINTS__main__"


@dataclass(frozen=True, kw_only=True)
class Around:
    """The servers that Citadel calls.

    Attributes:
        traces: Endpoint for spans.
        services_of: Returns the services that have spans in the traces of a run, by trace.
    """

    ollama: Server
    llm: Server
    qdrant: Server
    traces: str
    services_of: Callable[[str], dict[str, set[str]]]

    @property
    def settings(self) -> dict[str, str]:
        """Settings of processes that call the LLM and Qdrant."""
        return {
            f"{ENDPOINT}URL": self.llm.url,
            f"{ENDPOINT}MODEL": self.llm.model,
            "QDRANT__URL": self.qdrant.url,
            "QDRANT__API_KEY": self.qdrant.api_key or "",
        }


@contextmanager
def doubles() -> Iterator[Around]:
    """Run a double of each server."""
    with (
        servers.ollama_double() as ollama,
        servers.llm_double() as llm,
        servers.qdrant_double() as qdrant,
        OtlpReceiver() as receiver,
    ):

        def services_of(run_id: str) -> dict[str, set[str]]:
            spans = receiver.spans
            traces = {span.trace_id for span in spans if span.attributes.get("citadel.run.id") == run_id}
            return {trace: {span.service for span in spans if span.trace_id == trace} for trace in traces}

        yield Around(ollama=ollama, llm=llm, qdrant=qdrant, traces=receiver.endpoint, services_of=services_of)


@contextmanager
def real() -> Iterator[Around]:
    """Return the real servers."""
    tempo = address("CITADEL_REAL_TEMPO")

    def services_of(run_id: str) -> dict[str, set[str]]:
        found = httpx.get(f"{tempo}/api/search", params={"q": f'{{ span.citadel.run.id = "{run_id}" }}'}).json()
        return {each["traceID"]: set(each.get("serviceStats", {})) for each in found["traces"]}

    with servers.ollama_real() as ollama, servers.llm_real() as llm, servers.qdrant_real() as qdrant:
        yield Around(
            ollama=ollama, llm=llm, qdrant=qdrant, traces=address("CITADEL_REAL_OTLP"), services_of=services_of
        )


@pytest.fixture(scope="module", params=double_or_real(doubles, real))
def around(request):
    """Doubles of all servers, or all real ones."""
    with request.param() as around:
        yield around


@pytest.fixture(scope="module")
def api(around, redis_url, postgres_server, tmp_path_factory):
    """A client of an API with a worker of each kind."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", around.traces)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        dsn = stack.enter_context(postgres_server.database())
        stack.enter_context(WorkerProcess(redis_url, around.ollama.url))
        stack.enter_context(OrchestrationProcess(redis_url, dsn, around.settings))
        shared = {"BROKER_URL": redis_url, "POSTGRES_DSN": dsn, "API__WORKERS": "1"} | around.settings
        environment = {name: value for name, value in variables(shared).items() if name not in os.environ}
        process = Api(environment, tmp_path_factory.mktemp("api") / "log")
        stack.callback(process.kill_all)
        yield stack.enter_context(httpx.Client(base_url=process.url, timeout=60, headers=CREDENTIALS))


@pytest.fixture(scope="module")
def collection(around, api):
    """A collection of the texts, deleted at the end."""
    name = f"rag-{uuid.uuid4().hex}"
    points = [{"id": number, "text": text, "payload": {"text": text}} for number, text in enumerate(TEXTS)]
    stored = api.post(f"/v1/collections/{name}/points", json={"points": points, "model": around.ollama.model})
    assert stored.status_code == 200, stored.text
    yield name
    httpx.delete(f"{around.qdrant.url}/collections/{name}", headers={"api-key": around.qdrant.api_key})


@pytest.fixture
def asked(around, api, collection):
    """Ask a question about the texts; return the run that has ended."""

    def ask(question):
        definition = {
            "workflow_id": "rag",
            "context": {"question": question},
            "steps": [
                {
                    "step_id": "found",
                    "type": "vector_search",
                    "parameters": {
                        "collection": collection,
                        "text": "${{ context.question }}",
                        "model": around.ollama.model,
                        "limit": 2,
                    },
                },
                {
                    "step_id": "answer",
                    "type": "llm_query",
                    "parameters": {
                        "query": "Context: ${{ steps.found.output.hits }}\nQuestion: ${{ context.question }}",
                        "options": {"max_tokens": 16},
                    },
                },
            ],
            "output": {"hits": "${{ steps.found.output.hits }}", "answer": "${{ steps.answer.output }}"},
        }
        accepted = api.post("/v1/workflows", json=definition)
        assert accepted.status_code == 202, accepted.text
        path = accepted.headers["location"]
        run = eventually(lambda: (run := api.get(path).json())["finished_at"] and run)
        assert run["status"] == "succeeded", run
        return run

    return ask


def test_a_question_finds_its_text_and_gets_an_answer(around, asked):
    output = asked(TEXTS[1])["output"]
    assert output["hits"][0]["id"] == 1
    assert len(output["hits"]) == 2
    answer = output["answer"]
    assert answer["model"] == around.llm.model
    assert answer["usage"]["prompt_tokens"] > 0
    assert answer["usage"]["completion_tokens"] > 0


def test_a_run_is_one_trace_through_all_services(around, asked):
    run_id = asked("Which text is this?")["run_id"]

    def complete():
        traces = around.services_of(run_id)
        return traces if any(services >= CALLED for services in traces.values()) else None

    assert len(eventually(complete)) == 1


# the vectors of the double have no meaning
@pytest.mark.parametrize("around", [pytest.param(real, id="real", marks=pytest.mark.real)], indirect=True)
def test_texts_are_found_by_meaning(asked):
    assert asked("Which pet is at rest?")["output"]["hits"][0]["id"] == 0
