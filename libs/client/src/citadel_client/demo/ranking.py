"""Which documents answer a question best, by cosine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citadel_client.demo.corpus import Doc

Matrix = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One document and its cosine with the question."""

    doc: Doc
    score: float


def best(questions: Matrix, vectors: Matrix, docs: Sequence[Doc], limit: int) -> list[list[Hit]]:
    """The best documents for each question, best first.

    Args:
        questions: Shape (questions, dimensions).
        vectors: Shape (documents, dimensions).
        docs: In the order of `vectors`.
        limit: Hits per question.
    """
    scores = _unit(questions) @ _unit(vectors).T
    order = np.argsort(-scores, axis=1)[:, :limit]
    return [
        [Hit(doc=docs[place], score=float(row[place])) for place in places]
        for row, places in zip(scores, order, strict=True)
    ]


def _unit(vectors: Matrix) -> Matrix:
    lengths: Matrix = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths)
