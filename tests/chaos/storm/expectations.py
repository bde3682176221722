"""What right results are: vectors as functions of their texts, answers as functions of their prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.doubles.llm.requests import expected_answer
from tests.doubles.ollama.vectors import expected_vector

MODEL = "all-minilm"
COLLECTION = "storm"
TOLERANCE = 1e-5


def vectors_problem(found: Any, texts: Sequence[str]) -> str:
    """Return what is wrong with the vectors of texts; empty if each is that of its text."""
    if not isinstance(found, list) or len(found) != len(texts):
        return f"{len(texts)} texts have {len(found) if isinstance(found, list) else type(found).__name__} vectors"
    for index, (vector, text) in enumerate(zip(found, texts, strict=True)):
        right = expected_vector(MODEL, text)
        if vector is None or len(vector) != len(right) or not np.allclose(vector, right, rtol=0, atol=TOLERANCE):
            return f"vector {index} is not that of {text!r}"
    return ""


def prompt(workflow: str, step_id: str, item: int = -1) -> str:
    """Return the prompt of a step, which no other step has."""
    return f"[{workflow}/{step_id}/{item}]"


def answer_problem(found: Any, asked: str) -> str:
    """Return what is wrong with an LLM's answer to a prompt; empty if nothing is."""
    return "" if found == expected_answer(asked) else f"the answer is not that to {asked!r}: {str(found)[:200]!r}"
