"""Output of the demo."""

from collections.abc import Sequence

from citadel_client.demo.answers import Outcome
from citadel_client.demo.passes import Pass
from citadel_client.terminal import out, print_table

SHOWN_CHARS = 72


def print_answers(questions: Sequence[str], outcome: Outcome) -> None:
    """Print each question with its answers."""
    rows = [
        (question if rank == 0 else "", f"{hit.score:.2f}", hit.doc.name, _shortened(hit.doc.summary))
        for question, hits in zip(questions, outcome.hits, strict=True)
        for rank, hit in enumerate(hits)
    ]
    print_table(("question", "cosine", "found", "summary"), rows, "Answers from Python's documentation")
    for question, text in zip(questions, outcome.texts, strict=False):
        if text:
            _print(f"{question} {text.strip()}")
    _print(about_llm(outcome))


def about_llm(outcome: Outcome) -> str:
    """Return a sentence that says where the answers are from."""
    if not outcome.llm:
        return (
            "No LLM is configured, so the answers are the documents themselves. "
            "Set CITADEL_LLM__ENDPOINTS__<NAME>__URL to use one."
        )
    silent = sum(text is None for text in outcome.texts)
    return f"An LLM answered {len(outcome.texts) - silent} of {len(outcome.texts)} questions from these documents."


def _print(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def print_rates(first: Pass, again: Pass, outcome: Outcome) -> None:
    """Print how fast each pass was, and why."""
    rows = [_row("first pass", first), _row("second pass", again)]
    print_table(("", "texts", "seconds", "texts/s", "found in the cache"), rows, f"Rates, model {first.model}")
    for line in (*explanation(first, again), *workflow_durations(len(first.vectors), outcome)):
        _print(line)


def workflow_durations(texts: int, outcome: Outcome) -> list[str]:
    """Return sentences about the duration of storing and of the workflows."""
    lines = []
    if outcome.already_stored:
        lines.append(f"The {texts} points were in Qdrant already, stored by an earlier run.")
    if outcome.stored_s is not None:
        lines.append(
            f"Stored {texts} points in Qdrant in {outcome.stored_s:.2f} s, {texts / outcome.stored_s:,.0f} a second."
        )
    if outcome.asked_s is not None:
        count = len(outcome.hits)
        lines.append(f"Answered {count} questions by workflows (embedding, vector search) in {outcome.asked_s:.2f} s.")
    return lines


def _row(name: str, done: Pass) -> tuple[object, ...]:
    return name, len(done.vectors), f"{done.seconds:.2f}", f"{done.rate:,.0f}", done.cache_hits


def explanation(first: Pass, again: Pass) -> list[str]:
    """Return sentences that explain the durations of the passes."""
    total = len(first.vectors)
    lines = []
    if first.cache_hits:
        lines.append(
            f"The first pass was faster than a cold one: {first.cache_hits} of {total} texts were found in the cache, "
            f"stored by an earlier run; the model computed {total - first.cache_hits}."
        )
    if again.cache_hits == total and not first.cache_hits:
        lines.append(
            f"The second pass was {first.seconds / again.seconds:,.0f} times faster: "
            f"{again.cache_hits} of {total} texts were found in the cache. Run the demo again: its first pass uses it."
        )
    if again.cache_hits < total:
        lines.append(f"The second pass found only {again.cache_hits} of {total} texts in the cache; is it disabled?")
    return lines


def summary(url: str, questions: Sequence[str], outcome: Outcome, first: Pass, again: Pass) -> dict[str, object]:
    """Return the whole output as JSON."""
    return {
        "server": url,
        "model": first.model,
        "texts": len(first.vectors),
        "first": first.facts(),
        "second": again.facts(),
        "explanation": explanation(first, again),
        "already_stored": outcome.already_stored,
        "stored_seconds": outcome.stored_s,
        "asked_seconds": outcome.asked_s,
        "llm": outcome.llm,
        "about_llm": about_llm(outcome),
        "answers": [
            {
                "question": question,
                "hits": [{"name": hit.doc.name, "score": round(hit.score, 4), "text": hit.doc.text} for hit in hits],
            }
            for question, hits in zip(questions, outcome.hits, strict=True)
        ],
    }
