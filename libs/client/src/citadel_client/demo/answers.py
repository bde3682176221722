"""The demo's questions, answered by workflows: embedding, vector search, and an LLM if the server has one."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from citadel_client import Citadel
from citadel_client.demo.corpus import Doc
from citadel_client.demo.passes import Pass, Timer
from citadel_client.demo.ranking import Hit
from citadel_client.errors import NotFound
from citadel_client.terminal import ProgressBar

LLM_TIMEOUT = "60s"
PATIENCE_S = 90.0
WORKER_PATIENCE_S = 10.0
WORKER_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of the demo.

    Attributes:
        hits: Hits per question, best first.
        texts: Answer of the LLM per question.
        llm: Whether an LLM was asked.
        already_stored: Whether an earlier run had stored the documents.
        stored_s: Seconds that storing took; None if nothing was stored.
        asked_s: Seconds that the workflows took; None if there were none.
    """

    hits: Sequence[Sequence[Hit]]
    texts: Sequence[str | None] = ()
    llm: bool = False
    already_stored: bool = False
    stored_s: float | None = None
    asked_s: float | None = None


def has_workflows(citadel: Citadel, patience: float = WORKER_PATIENCE_S) -> bool:
    """Return whether the server has workers that execute workflows; wait some seconds for one that still starts."""
    deadline = time.monotonic() + patience
    while not any(queue.name == "orchestration" and queue.workers for queue in citadel.queues()):
        if time.monotonic() >= deadline:
            return False
        time.sleep(WORKER_POLL_S)
    return True


def collection_of(docs: Sequence[Doc], found: Pass) -> str:
    """Return the name of a collection for these documents and this model."""
    digest = hashlib.blake2b("\0".join(doc.text for doc in docs).encode(), digest_size=4).hexdigest()
    model = "".join(sign if sign.isalnum() else "-" for sign in found.model)
    return f"citadel-demo-{model}-{found.vectors.shape[1]}-{digest}"


def is_stored(citadel: Citadel, collection: str, docs: Sequence[Doc], found: Pass) -> bool:
    """Return whether an earlier run has stored the documents: they are stored in order, so the last one decides."""
    try:
        hits = citadel.collections.search(collection, embedding=found.vectors[-1].tolist(), limit=1)
    except NotFound:
        return False
    return bool(hits) and (hits[0].payload or {}).get("text") == docs[-1].text


def store(citadel: Citadel, collection: str, docs: Sequence[Doc], found: Pass) -> float:
    """Store the documents with their vectors; return the seconds that it took."""
    with ProgressBar("storing in Qdrant", len(docs)) as bar, Timer() as timer:
        citadel.collections.store(collection, _points(docs, found), progress=bar.update)
    return timer.seconds


def _points(docs: Sequence[Doc], found: Pass) -> Iterator[dict[str, Any]]:
    for doc, vector in zip(docs, found.vectors, strict=True):
        digest = hashlib.blake2b(doc.text.encode(), digest_size=16).hexdigest()
        payload = {"name": doc.name, "text": doc.text, "is_module": doc.is_module}
        yield {"id": digest, "embedding": vector, "payload": payload}


def ask(citadel: Citadel, collection: str, questions: Sequence[str], model: str, limit: int) -> Outcome:
    """Submit a workflow per question, all at once, and return their answers.

    Raises:
        RunFailed: A workflow failed.
    """
    with ProgressBar("asking", len(questions)) as bar, Timer() as timer:
        runs = [citadel.workflows.submit(definition(collection, question, model, limit)) for question in questions]
        hits, answers = [], []
        for done, run in enumerate(runs, start=1):
            hits.append([_hit(hit) for hit in run.wait(PATIENCE_S).output])
            answers.append(run.step("answer"))
            bar.update(done)
    # without an LLM, or a default one, the step names its endpoint as what is wrong
    llm = not any(answer.error is not None and answer.error.field == "endpoint" for answer in answers)
    texts = [_text(answer.output) for answer in answers]
    return Outcome(hits=hits, texts=texts, llm=llm, asked_s=timer.seconds)


def definition(collection: str, question: str, model: str, limit: int) -> dict[str, Any]:
    """Return the workflow of one question."""
    search = {"collection": collection, "embedding": "${{ steps.q.output.embedding }}", "limit": limit}
    text = {"text": "${{ context.question }}", "model": model, "input_type": "query"}
    steps = [
        {"step_id": "q", "type": "embedding", "parameters": text},
        {"step_id": "docs", "type": "vector_search", "parameters": search},
        {
            "step_id": "answer",
            "type": "llm_query",
            "on_error": "continue",
            "timeout": LLM_TIMEOUT,
            "retry": {"max_attempts": 1},
            "parameters": {
                "query": "Answer in one sentence, from the context only: ${{ context.question }}",
                "context": "${{ steps.docs.output.hits }}",
            },
        },
    ]
    return {
        "workflow_id": "citadel-demo",
        "context": {"question": question},
        "steps": steps,
        "output": "${{ steps.docs.output.hits }}",
    }


def _hit(hit: dict[str, Any]) -> Hit:
    payload = hit["payload"]
    doc = Doc(name=payload["name"], text=payload["text"], is_module=payload["is_module"])
    return Hit(doc=doc, score=hit["score"])


def _text(output: Any) -> str | None:
    return output.get("text") if isinstance(output, dict) else None
