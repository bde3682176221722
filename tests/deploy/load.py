"""Work of every kind that the API accepts, and what has to become of it."""

import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from citadel_client import Citadel, Run, TaskHandle
from tests.deploy.stack import LONG
from tests.doubles.ollama.vectors import expected_vector

MODEL = "nomic-embed-text"
TEXTS = 400
RUNS = 12


@dataclass(kw_only=True)
class Load:
    """Work that was accepted."""

    batch: Run
    texts: list[str]
    runs: list[Run] = field(default_factory=list)
    tasks: dict[str, TaskHandle[Any]] = field(default_factory=dict)


def accepted(citadel: Citadel) -> Load:
    """Submit a batch, runs of several steps, and tasks."""
    texts = [f"load {uuid.uuid4()}" for _ in range(TEXTS)]
    load = Load(batch=citadel.batches.submit(texts, model=MODEL), texts=texts)
    for number in range(RUNS):
        load.runs.append(citadel.workflows.submit(workflow(f"question {number} {uuid.uuid4()}")))
        text = f"task {uuid.uuid4()}"
        load.tasks[text] = citadel.submit(text, model=MODEL)
    return load


def workflow(question: str) -> dict[str, Any]:
    wait = {"step_id": "wait", "type": "wait", "parameters": {"duration": "2s"}}
    embed = {"step_id": "q", "type": "embedding", "parameters": {"text": question, "model": MODEL}}
    llm = {"step_id": "answer", "type": "llm_query", "parameters": {"query": question}}
    return {"workflow_id": "load", "steps": [embed, wait, llm], "defaults": {"retry": {"max_attempts": 8}}}


def assert_all_done(load: Load) -> None:
    """Every run, vector and task is there, and right."""
    answers = list(load.batch.results(timeout=LONG))
    assert len(answers) == len(load.texts)
    for text, answer in zip(load.texts, answers, strict=True):
        assert np.allclose(answer.embeddings.array[0], expected_vector(MODEL, text), atol=1e-6)
    assert {run.wait(LONG).status for run in load.runs} == {"succeeded"}
    for text, task in load.tasks.items():
        assert np.allclose(task.wait(LONG).array[0], expected_vector(MODEL, text), atol=1e-6)
