"""Passes over all texts, timed and with a progress bar."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from citadel_client import Citadel
from citadel_client.chunks import Progress
from citadel_client.demo import DemoFailed
from citadel_client.demo.corpus import Doc
from citadel_client.terminal import ProgressBar
from citadel_client.vectors import Embedded

TOLERANCE = 0.01
"""Largest difference of a component between a computed vector and one cached in half precision."""


class Timer:
    """Context manager that measures the seconds of its block."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started


@dataclass(frozen=True, kw_only=True)
class Pass:
    """All texts embedded once.

    Attributes:
        vectors: Vectors of shape (texts, dimensions), in the order of the texts.
        seconds: Duration.
        cache_hits: Number of texts found in the cache.
        tokens: Number of tokens computed.
        model: Name of the model.
    """

    vectors: NDArray[np.float32]
    seconds: float
    cache_hits: int
    tokens: int
    model: str

    @property
    def rate(self) -> float:
        """Texts per second."""
        return len(self.vectors) / self.seconds

    def facts(self) -> dict[str, object]:
        """Return the statistics as JSON."""
        return {
            "seconds": round(self.seconds, 3),
            "texts_per_second": round(self.rate, 1),
            "cache_hits": self.cache_hits,
            "tokens": self.tokens,
        }


def embed_all(citadel: Citadel, docs: Sequence[Doc], label: str) -> Pass:
    """Embed every document.

    Raises:
        DemoFailed: A document has no vector.
    """
    state = Progress()
    found: list[Embedded] = []
    with ProgressBar(label, len(docs)) as bar:

        def on_progress(so_far: Progress) -> None:
            nonlocal state
            state = so_far
            bar.update(so_far.done)

        with Timer() as timer:
            found.extend(citadel.embed_many((doc.text for doc in docs), input_type="document", progress=on_progress))
            vectors = np.stack([_vector(item) for item in found])
    return Pass(
        vectors=vectors, seconds=timer.seconds, cache_hits=state.cache_hits, tokens=state.tokens, model=state.model
    )


def _vector(item: Embedded) -> NDArray[np.float32]:
    if item.error is not None:
        raise DemoFailed(f"{item.text[:60]!r} has no vector: {item.error}")
    return item.array


def check_same(first: Pass, again: Pass) -> None:
    """Check that the cache returned each text's own vector.

    Raises:
        DemoFailed: It did not.
    """
    if not np.allclose(first.vectors, again.vectors, atol=TOLERANCE):
        raise DemoFailed("the cache answered with other vectors than were computed")
