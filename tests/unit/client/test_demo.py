"""Parts of the demo: texts, ranking, explanations."""

import numpy as np
import pytest

from citadel_client.demo import DemoFailed
from citadel_client.demo.answers import Outcome, ask, collection_of, has_workflows, is_stored, store
from citadel_client.demo.corpus import Doc, collect
from citadel_client.demo.passes import Pass, check_same, embed_all
from citadel_client.demo.ranking import best
from citadel_client.demo.report import about_llm, explanation, workflow_durations
from tests.unit.client.double import Double, problem, talk_sync
from tests.unit.client.run_double import RunDouble, accepted, answer, run_view


def one_pass(hits, total=4, seconds=1.0):
    return Pass(vectors=np.eye(total, dtype=np.float32), seconds=seconds, cache_hits=hits, tokens=0, model="m")


@pytest.fixture(scope="module")
def docs():
    return collect()


def test_the_corpus_is_large_distinct_and_short(docs):
    assert len(docs) == len({doc.text for doc in docs}) >= 2000
    assert max(len(doc.text) for doc in docs) < 500


def test_the_corpus_has_every_module(docs):
    assert {"argparse", "bz2", "csv", "gzip", "lzma", "tempfile", "zlib"} <= {doc.name for doc in docs if doc.is_module}


def test_the_corpus_leaves_out_tests_and_private_names(docs):
    assert not [doc.name for doc in docs if doc.name.startswith(("test.", "idlelib.")) or "._" in doc.name]


def test_documents_are_ranked_by_cosine():
    names = [Doc(name=name, text=f"{name}: What it is. More.", is_module=True) for name in "abc"]
    vectors = np.array([[1, 0], [10, 10], [0, 1]], dtype=np.float32)
    hits = best(np.array([[2, 1.9]], dtype=np.float32), vectors, names, 2)[0]
    assert [hit.doc.name for hit in hits] == ["b", "a"]
    assert hits[0].doc.summary == "What it is"


def test_a_cold_run_and_its_repetition_are_explained():
    (line,) = explanation(one_pass(0, seconds=10.0), one_pass(4, seconds=0.1))
    assert "100 times faster" in line
    assert "4 of 4 texts were found in the cache" in line


def test_a_second_run_says_why_it_is_faster():
    (line,) = explanation(one_pass(3), one_pass(4))
    assert "3 of 4 texts were found in the cache" in line
    assert "computed 1" in line


def test_wrong_vectors_from_the_cache_fail_the_demo():
    with pytest.raises(DemoFailed):
        check_same(
            one_pass(0), Pass(vectors=np.zeros((4, 4), np.float32), seconds=1, cache_hits=4, tokens=0, model="m")
        )


def test_a_text_without_vector_fails_the_demo():
    bad = [Doc(name="bad", text="bad: text", is_module=True)]
    with pytest.raises(DemoFailed, match="no vector"):
        talk_sync(Double(), lambda client: embed_all(client, bad, "embedding"))


DOCS = [Doc(name=name, text=f"{name}: What it is. More.", is_module=True) for name in "abcd"]
FOUND = {"name": "d", "text": DOCS[-1].text, "is_module": True}


def test_documents_are_stored_with_their_vectors_under_ids_that_stay(capsys):
    stored = (answer({"upserted": 4, "ids": list(range(4))}) for _ in range(2))
    double = RunDouble(*stored)
    for _ in range(2):
        talk_sync(double, lambda client: store(client, "c", DOCS, one_pass(0)))
    first, again = double.bodies()
    assert first == again
    points = first["points"]
    assert [point["embedding"].index(1) for point in points] == [0, 1, 2, 3]
    assert [point["payload"]["name"] for point in points] == list("abcd")
    assert len({point["id"] for point in points}) == 4


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer({"hits": [{"id": 1, "score": 1.0, "payload": FOUND}]}), True),
        (answer({"hits": [{"id": 1, "score": 1.0, "payload": FOUND | {"text": "other"}}]}), False),
        (answer({"hits": []}), False),
        (problem(404, "not_found"), False),
    ],
)
def test_documents_of_an_earlier_run_are_recognised_by_the_last_one(reply, expected):
    stored = talk_sync(RunDouble(reply), lambda client: is_stored(client, "c", DOCS, one_pass(0)))
    assert stored is expected


def test_each_set_of_documents_and_model_has_its_own_collection():
    assert collection_of(DOCS, one_pass(0)) == collection_of(DOCS, one_pass(4))
    assert collection_of(DOCS, one_pass(0)) != collection_of(DOCS[:3], one_pass(0))
    assert collection_of(DOCS, one_pass(0)) != collection_of(DOCS, one_pass(0, total=5))


def answered(**answer_step):
    """A server with one run, which has ended with that step `answer`."""
    view = run_view(output=[{"id": 1, "score": 0.5, "payload": FOUND}])
    step = {"step_id": "answer", "type": "llm_query", "attempt": 1} | answer_step
    return RunDouble(accepted(), answer(view), answer(view), answer(step))


def asking(client):
    return ask(client, "c", ["How?"], "m", 3)


def test_questions_are_asked_by_workflows_and_answered_by_an_llm_if_there_is_one():
    double = answered(status="succeeded", output={"text": "So."})
    asked = talk_sync(double, asking)
    assert [[hit.doc.name for hit in hits] for hits in asked.hits] == [["d"]]
    assert (asked.texts, asked.llm) == (["So."], True)
    submitted = double.bodies()[0]
    assert [step["type"] for step in submitted["steps"]] == ["embedding", "vector_search", "llm_query"]
    assert "1 of 1 questions" in about_llm(Outcome(hits=asked.hits, texts=asked.texts, llm=True))


@pytest.mark.parametrize(
    ("error", "llm"),
    [
        ({"code": "invalid_input", "message": "endpoint: none is configured", "field": "endpoint"}, False),
        ({"code": "llm_unavailable", "message": "it does not answer"}, True),
    ],
)
def test_a_missing_llm_is_distinguished_from_one_that_fails(error, llm):
    asked = talk_sync(answered(status="failed", error=error), asking)
    assert (asked.texts, asked.llm) == ([None], llm)


def test_answers_without_an_llm_are_explained():
    assert about_llm(Outcome(hits=[])).startswith("No LLM is configured, so the answers are the documents themselves.")


def test_documents_stored_already_are_mentioned():
    (line,) = workflow_durations(4, Outcome(hits=[], already_stored=True))
    assert line == "The 4 points were in Qdrant already, stored by an earlier run."
    lines = workflow_durations(4, Outcome(hits=[[]], stored_s=0.5, asked_s=0.25))
    assert lines[0] == "Stored 4 points in Qdrant in 0.50 s, 8 a second."
    assert "1 questions by workflows" in lines[1]


def queue(workers):
    return answer({"queues": [{"name": "orchestration", "lanes": {}, "ready": 0, "unacked": 0, "workers": workers}]})


def test_a_worker_that_still_starts_is_waited_for():
    assert talk_sync(RunDouble(queue(0), queue(1)), has_workflows)
    assert not talk_sync(RunDouble(queue(0)), lambda client: has_workflows(client, patience=0.0))
