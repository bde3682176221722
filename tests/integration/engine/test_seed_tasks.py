"""The orchestration tasks, as a Celery client sees them that knows a broker URL and the tasks' names."""

from datetime import UTC, datetime, timedelta

import pytest

EXECUTED = {
    "success", "workflow_id", "task_id", "steps_executed", "workflow_results", "final_context", "timestamp",
}  # fmt: skip
POINTS = [{"id": n, "text": f"fact {n}", "payload": {"n": n}} for n in range(4)]
RAG = {
    "workflow_id": "rag-42",
    "context": {"question": "fact 2"},
    "deadline": "120s",
    "defaults": {"timeout": "30s", "retry": {"max_attempts": 4, "delay": "500ms", "factor": 2, "max_delay": "20s"}},
    "steps": [
        {
            "step_id": "q",
            "type": "embedding",
            "parameters": {"text": "${{ context.question }}", "model": "bge-m3", "input_type": "query"},
        },
        {
            "step_id": "docs",
            "type": "vector_search",
            "depends_on": ["q"],
            "parameters": {"collection": "docs", "embedding": "${{ steps.q.output.embedding }}", "limit": 5},
        },
        {
            "step_id": "faq",
            "type": "vector_search",
            "depends_on": ["q"],
            "on_error": "continue",
            "parameters": {"collection": "faq", "embedding": "${{ steps.q.output.embedding }}"},
        },
        {
            "step_id": "answer",
            "type": "llm_query",
            "depends_on": ["docs", "faq"],
            "when": "size(steps.docs.output.hits) > 0",
            "parameters": {
                "query": "Context: ${{ steps.docs.output.hits }}\nQuestion: ${{ context.question }} [[say four]]"
            },
        },
    ],
    "output": "${{ steps.answer.output.text }}",
}


def assert_now(timestamp):
    moment = datetime.fromisoformat(timestamp)
    assert moment.utcoffset() == timedelta(0)
    assert timedelta(0) <= datetime.now(UTC) - moment < timedelta(minutes=2)


def minimal(*steps, **others):
    return {"workflow_id": "w", "context": {"question": "why?"}, "steps": list(steps)} | others


def ask(step_id, query, **others):
    return {"step_id": step_id, "type": "llm_query", "parameters": {"query": query}} | others


@pytest.fixture
def docs(workers):
    """A collection with some points."""
    stored = workers.call("upsert_vectors", collection="docs", points=POINTS, model="bge-m3")
    assert stored["success"], stored
    return stored


class TestExecuteWorkflow:
    def test_the_result_of_a_minimal_workflow_has_all_keys(self, workers):
        steps = [
            {"step_id": "e", "type": "embedding", "parameters": {"text": "hello", "model": "nomic-embed-text"}},
            ask("a", "say it [[say hello]]"),
        ]
        task = workers.send("execute_workflow", minimal(*steps))
        result = task.get(timeout=60)
        assert result.keys() >= EXECUTED
        assert result["success"] is True
        assert (result["workflow_id"], result["task_id"], result["steps_executed"]) == ("w", task.id, 2)
        first, second = result["workflow_results"]
        assert (first["step_id"], first["step_type"], len(first["result"]["embedding"])) == ("e", "embedding", 768)
        assert (second["step_id"], second["step_type"], second["result"]["text"]) == ("a", "llm_query", "hello")
        assert result["final_context"].keys() == {"question", "e", "a"}
        for timestamp in (result["timestamp"], first["timestamp"]):
            assert_now(timestamp)

    def test_the_definition_may_be_a_keyword_argument(self, workers):
        result = workers.call("execute_workflow", workflow_definition=minimal(ask("a", "hi")))
        assert result["success"]

    def test_a_workflow_without_an_id_gets_the_tasks_id(self, workers):
        definition = minimal(ask("a", "hi"))
        del definition["workflow_id"]
        task = workers.send("execute_workflow", definition)
        assert task.get(timeout=60)["workflow_id"] == task.id

    def test_a_failed_step_fails_the_result_and_later_steps_never_start(self, workers):
        result = workers.execute(minimal(ask("a", "fine"), ask("b", "no [[bad400]]"), ask("c", "never")))
        assert result.keys() >= EXECUTED
        assert (result["success"], result["status"], result["steps_executed"]) == (False, "failed", 1)
        assert "max_tokens" in result["error"]
        assert [step["step_id"] for step in result["workflow_results"]] == ["a"]
        assert not [prompt for prompt in workers.doubles.llm.stats()["prompt_counts"] if "never" in prompt]

    def test_an_invalid_definition_fails_the_result_at_once(self, workers):
        task = workers.send("execute_workflow", {"workflow_id": "w", "steps": [{"type": "nonsense"}]})
        result = task.get(timeout=60)
        assert result.keys() >= EXECUTED
        assert (result["success"], result["workflow_id"], result["task_id"]) == (False, "w", task.id)
        assert result["error"].startswith("/steps/0/step_id: ")

    @pytest.mark.usefixtures("docs")
    def test_a_rag_workflow_succeeds(self, workers):
        result = workers.execute(RAG)
        assert result["success"], result
        assert result["output"] == "four"
        found = {step["step_id"]: step["result"] for step in result["workflow_results"]}
        assert found["docs"]["hits"][0]["payload"]["n"] == 2
        assert "faq" not in found
        assert result["final_context"]["answer"]["text"] == "four"

    def test_an_idempotent_submission_runs_once_and_answers_each_task(self, workers):
        definition = minimal(ask("a", "only once"), idempotency_key="key-1")
        tasks = [workers.send("execute_workflow", definition) for _ in range(3)]
        results = [task.get(timeout=60) for task in tasks]
        assert len({result["run_id"] for result in results}) == 1
        assert [result["task_id"] for result in results] == [task.id for task in tasks]
        assert workers.doubles.llm.stats()["prompt_counts"] == {"only once": 1}
        late = workers.send("execute_workflow", definition)
        assert late.get(timeout=60)["run_id"] == results[0]["run_id"]

    def test_an_idempotency_key_used_for_another_workflow_fails_the_result(self, workers):
        assert workers.execute(minimal(ask("a", "one"), idempotency_key="key-2"))["success"]
        result = workers.execute(minimal(ask("a", "two"), idempotency_key="key-2"))
        assert not result["success"]
        assert "idempotency_key" in result["error"]

    def test_data_of_an_output_is_merged_into_the_context(self, workers):
        run_id = workers.begin(
            minimal({"step_id": "s", "type": "wait", "parameters": {"signal": "go"}}, ask("a", "n is ${{ context.n }}"))
        )
        workers.db.commands.signal(run_id, "go", {"data": {"n": 7}})
        assert workers.db.ended(run_id) == "succeeded"
        assert "n is 7" in workers.doubles.llm.stats()["prompt_counts"]


class TestSingleSteps:
    def test_query_llm_service_returns_the_text(self, workers):
        task = workers.send("query_llm_service", "why? [[say so]]", {"sky": "blue"})
        result = task.get(timeout=60)
        assert (result["success"], result["task_id"], result["text"]) == (True, task.id, "so")
        assert_now(result["timestamp"])

    def test_the_refusal_of_an_llm_fails_the_result(self, workers):
        result = workers.call("query_llm_service", "no [[bad400]]")
        assert result["success"] is False
        assert "max_tokens" in result["error"]

    def test_an_endpoint_that_is_not_configured_fails_the_result(self, workers):
        result = workers.call("query_llm_service", "hi", service_endpoint="http://elsewhere.example")
        assert result["success"] is False
        assert "elsewhere.example" in result["error"]

    @pytest.mark.usefixtures("docs")
    def test_a_search_by_text_finds_the_nearest_points(self, workers):
        result = workers.call("vector_similarity_search", collection="docs", text="fact 3", model="bge-m3", limit=2)
        assert result["success"], result
        assert len(result["hits"]) == 2
        assert result["hits"][0]["payload"]["n"] == 3

    @pytest.mark.usefixtures("docs")
    def test_a_search_by_vector_finds_the_nearest_point(self, workers):
        vector = workers.plain.call("generate_embedding", "fact 1", "bge-m3")["embeddings"]
        result = workers.call("vector_similarity_search", vector[0], "docs")
        assert result["hits"][0]["payload"]["n"] == 1

    def test_a_search_in_an_unknown_collection_fails_the_result(self, workers):
        result = workers.call("vector_similarity_search", [0.1] * 768, "nowhere")
        assert result["success"] is False
        assert "nowhere" in result["error"]

    def test_many_vectors_are_upserted(self, workers):
        points = [{"id": n, "embedding": [0.123456789012 + n] * 768} for n in range(150)]
        result = workers.call("upsert_vectors", "large", points)
        assert (result["success"], result["upserted"]) == (True, 150), result
