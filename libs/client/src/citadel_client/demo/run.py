"""`citadel demo` from beginning to end."""

from collections.abc import Callable
from pathlib import Path

from citadel_client.cli.console import print_json, progress, say
from citadel_client.client import Citadel
from citadel_client.demo.corpus import Doc, collect
from citadel_client.demo.passes import check_same, embed_all
from citadel_client.demo.ranking import best
from citadel_client.demo.report import print_answers, print_rates, summary
from citadel_client.demo.server import server
from citadel_client.dev.run import signals_interrupt

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
    """Embed, ask, embed again from the cache; print what came of it.

    Raises:
        DevError: There is no server, and none can be started.
        CitadelApiError: The server fails.
        DemoFailed: Texts have no vectors, or wrong ones.
    """
    with signals_interrupt():
        docs = _docs()
        with server(home, say, show) as url, Citadel(url, timeout=PATIENCE_S) as citadel:
            first = embed_all(citadel, docs, "embedding")
            again = embed_all(citadel, docs, "once more")
            check_same(first, again)
            questions = citadel.embed(QUESTIONS, input_type="query")
            answers = best(questions.array, first.vectors, docs, HITS)
    if json_:
        print_json(summary(url, QUESTIONS, answers, first, again))
        return
    print_answers(QUESTIONS, answers)
    print_rates(first, again)


def _docs() -> list[Doc]:
    with progress("reading Python's documentation", None) as bar:
        docs = collect(progress=bar.of)
    say(f"{len(docs)} distinct docstrings of the standard library")
    return docs
