"""What the demo tells."""

from collections.abc import Sequence

from citadel_client.cli.console import out, print_table
from citadel_client.demo.passes import Pass
from citadel_client.demo.ranking import Hit

SHOWN_CHARS = 72


def print_answers(questions: Sequence[str], answers: Sequence[Sequence[Hit]]) -> None:
    """The questions and what answers them."""
    rows = [
        (question if rank == 0 else "", f"{hit.score:.2f}", hit.doc.name, _shortened(hit.doc.summary))
        for question, hits in zip(questions, answers, strict=True)
        for rank, hit in enumerate(hits)
    ]
    print_table(("question", "cosine", "found", "what it says"), rows, "Python's documentation, asked")


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def print_rates(first: Pass, again: Pass) -> None:
    """How fast it was, and why."""
    rows = [_row("first pass", first), _row("second pass", again)]
    print_table(("", "texts", "seconds", "texts/s", "found in the cache"), rows, f"Rates, model {first.model}")
    for line in explanation(first, again):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _row(name: str, done: Pass) -> tuple[object, ...]:
    return name, len(done.vectors), f"{done.seconds:.2f}", f"{done.rate:,.0f}", done.cache_hits


def explanation(first: Pass, again: Pass) -> list[str]:
    """Why the passes took what they took."""
    total = len(first.vectors)
    lines = []
    if first.cache_hits:
        lines.append(
            f"The first pass was faster than a cold one: {first.cache_hits} of {total} texts were found in the cache, "
            f"where an earlier run had left them; the model computed {total - first.cache_hits}."
        )
    if again.cache_hits == total and not first.cache_hits:
        lines.append(
            f"The second pass was {first.seconds / again.seconds:,.0f} times faster: "
            f"{again.cache_hits} of {total} texts were found in the cache. Run the demo again to see it start there."
        )
    if again.cache_hits < total:
        lines.append(f"Only {again.cache_hits} of {total} texts were found in the cache the second time; is it off?")
    return lines


def summary(
    url: str, questions: Sequence[str], answers: Sequence[Sequence[Hit]], first: Pass, again: Pass
) -> dict[str, object]:
    """The same for programs."""
    return {
        "server": url,
        "model": first.model,
        "texts": len(first.vectors),
        "first": first.facts(),
        "second": again.facts(),
        "explanation": explanation(first, again),
        "answers": [
            {
                "question": question,
                "hits": [{"name": hit.doc.name, "score": round(hit.score, 4), "text": hit.doc.text} for hit in hits],
            }
            for question, hits in zip(questions, answers, strict=True)
        ],
    }
