"""Ranking of documents by cosine similarity, for servers without workers for workflows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citadel_client.demo.corpus import Doc

Matrix = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A document and its cosine similarity to the question."""

    doc: Doc
    score: float


def best(questions: Matrix, vectors: Matrix, docs: Sequence[Doc], limit: int) -> list[list[Hit]]:
    """Return the nearest documents of each question, best first.

    Args:
        questions: Vectors of shape (questions, dimensions).
        vectors: Vectors of shape (documents, dimensions).
        docs: Documents in the order of `vectors`.
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
