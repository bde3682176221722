"""Work of every kind that the API accepts, and what has to become of it.

Much of it goes to the double, whose vectors are known; each run asks every server that the stack has.
"""

import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from citadel_client import Citadel, Run, TaskHandle
from tests.deploy.stack import EMBEDDING_MODEL, LONG
from tests.doubles.ollama.vectors import expected_vector

MODEL = "nomic-embed-text"
"""The double's."""
COLLECTION = "docs"
DOCUMENTS = (
    "Tables of comma separated values are read and written with csv.",
    "The arguments of a command line are parsed by argparse.",
    "With zlib, data take less space on the disk.",
)
TEXTS = 400
RUNS = 12


@dataclass(kw_only=True)
class Load:
    """Work that was accepted."""

    batch: Run
    texts: list[str]
    runs: list[Run] = field(default_factory=list)
    tasks: dict[str, TaskHandle[Any]] = field(default_factory=dict)


def store_documents(citadel: Citadel) -> None:
    """Embed the documents with the real model and store them in Qdrant."""
    points = [{"id": number, "text": text, "payload": {"text": text}} for number, text in enumerate(DOCUMENTS)]
    citadel.collections.store(COLLECTION, points, model=EMBEDDING_MODEL)


def accepted(citadel: Citadel) -> Load:
    """Submit a batch, runs of several steps, and tasks."""
    texts = [f"load {uuid.uuid4()}" for _ in range(TEXTS)]
    load = Load(batch=citadel.batches.submit(texts, model=MODEL), texts=texts)
    for number in range(RUNS):
        load.runs.append(citadel.workflows.submit(workflow(f"question {number} {uuid.uuid4()}", wait="2s")))
        text = f"task {uuid.uuid4()}"
        load.tasks[text] = citadel.submit(text, model=MODEL)
    return load


def workflow(question: str, *, wait: str = "0s") -> dict[str, Any]:
    """Return a workflow that finds documents and asks the LLM about them."""
    find = {"collection": COLLECTION, "text": "${{ context.question }}", "model": EMBEDDING_MODEL, "limit": 2}
    ask = {"query": "${{ context.question }} ${{ steps.found.output.hits }}"}
    return {
        "workflow_id": "load",
        "context": {"question": question},
        "steps": [
            {"step_id": "found", "type": "vector_search", "parameters": find},
            {"step_id": "wait", "type": "wait", "parameters": {"duration": wait}},
            {"step_id": "answer", "type": "llm_query", "parameters": ask},
        ],
        "defaults": {"retry": {"max_attempts": 8}},
        "output": {"hits": "${{ steps.found.output.hits }}", "answer": "${{ steps.answer.output }}"},
    }


def assert_all_done(load: Load) -> None:
    """Every run, vector and task is there, and right."""
    answers = list(load.batch.results(timeout=LONG))
    assert len(answers) == len(load.texts)
    for text, answer in zip(load.texts, answers, strict=True):
        assert np.allclose(answer.embeddings.array[0], expected_vector(MODEL, text), atol=1e-6)
    assert {run.wait(LONG).status for run in load.runs} == {"succeeded"}
    for text, task in load.tasks.items():
        assert np.allclose(task.wait(LONG).array[0], expected_vector(MODEL, text), atol=1e-6)
