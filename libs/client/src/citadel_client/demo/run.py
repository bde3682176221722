"""`citadel demo` from beginning to end."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from citadel_client import Citadel
from citadel_client.demo.answers import Outcome, ask, collection_of, has_workflows, is_stored, store
from citadel_client.demo.corpus import Doc, collect
from citadel_client.demo.passes import Pass, check_same, embed_all
from citadel_client.demo.ranking import best
from citadel_client.demo.report import print_answers, print_rates, summary
from citadel_client.demo.server import server
from citadel_client.dev.run import signals_interrupt
from citadel_client.terminal import ProgressBar, print_json, say

QUESTIONS = (
    "How do I compress a file?",
    "How do I parse command line arguments?",
    "How do I read a CSV file?",
    "How can I run a function in another process?",
    "How do I make a temporary file?",
)
HITS = 3
PATIENCE_S = 300.0


def run(home: Path, *, json_: bool, show: Callable[[str, str], None] | None) -> None:
    """Embed all texts twice, store them, answer questions by workflows, and print the outcome.

    Raises:
        DevError: There is no server, and none can be started.
        CitadelApiError: The server fails.
        DemoFailed: Texts have no vectors, or the cache returned wrong ones.
    """
    with signals_interrupt():
        docs = _docs()
        with server(home, say, show) as url, Citadel(url, timeout=PATIENCE_S) as citadel:
            first = embed_all(citadel, docs, "embedding")
            again = embed_all(citadel, docs, "once more")
            check_same(first, again)
            outcome = _answered(citadel, docs, first)
    if json_:
        print_json(summary(url, QUESTIONS, outcome, first, again))
        return
    print_answers(QUESTIONS, outcome)
    print_rates(first, again, outcome)


def _answered(citadel: Citadel, docs: Sequence[Doc], first: Pass) -> Outcome:
    """Answer the questions by workflows on Qdrant, or here if the server has no workers for workflows."""
    if not has_workflows(citadel):
        say("the orchestration queue has no workers: the questions are answered here, without Qdrant and workflows")
        questions = citadel.embed(QUESTIONS, input_type="query")
        return Outcome(hits=best(questions.array, first.vectors, docs, HITS))
    collection = collection_of(docs, first)
    already = is_stored(citadel, collection, docs, first)
    stored_s = None if already else store(citadel, collection, docs, first)
    outcome = ask(citadel, collection, QUESTIONS, first.model, HITS)
    return replace(outcome, already_stored=already, stored_s=stored_s)


def _docs() -> list[Doc]:
    with ProgressBar("reading Python's documentation", None) as bar:
        docs = collect(progress=bar.update)
    say(f"{len(docs)} distinct docstrings of the standard library")
    return docs
