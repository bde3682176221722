"""Assertions about results."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tests.doubles.ollama.vectors import expected_vector

MODEL = "nomic-embed-text"


def assert_vectors(
    result: Mapping[str, Any], texts: Sequence[str], model: str = MODEL, dimensions: int | None = None
) -> None:
    """Vector i is the one of text i."""
    assert len(result["embeddings"]) == len(texts)
    for vector, text in zip(result["embeddings"], texts, strict=True):
        assert np.allclose(vector, expected_vector(model, text, dimensions), rtol=0, atol=1e-6)


def assert_good_but(result: Mapping[str, Any], texts: Sequence[str], bad: Iterable[int], model: str = MODEL) -> None:
    """Each text has its vector, except the bad ones, which are named."""
    bad = set(bad)
    assert {error["index"] for error in result["errors"]} == bad
    assert result["success"] == (not bad)
    for index, (vector, text) in enumerate(zip(result["embeddings"], texts, strict=True)):
        if index in bad:
            assert vector is None
        else:
            assert np.allclose(vector, expected_vector(model, text), rtol=0, atol=1e-6)
