"""Embed all texts, with a clock and a progress bar."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citadel_client import Citadel
from citadel_client.chunks import Progress
from citadel_client.demo import DemoFailed
from citadel_client.demo.corpus import Doc
from citadel_client.terminal import ProgressBar
from citadel_client.vectors import Embedded

TOLERANCE = 0.01
"""Difference in any component that a cache of half precision may make."""


class Clock:
    """Seconds from its making until it is stopped."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.seconds = 0.0

    def stop(self) -> None:
        """Take the time."""
        self.seconds = time.perf_counter() - self._began


@contextmanager
def clocked() -> Iterator[Clock]:
    """A clock that has the block's time when that has ended."""
    clock = Clock()
    yield clock
    clock.stop()


@dataclass(frozen=True, kw_only=True)
class Pass:
    """All texts embedded once.

    Attributes:
        vectors: Shape (texts, dimensions), in the order of the texts.
        seconds: Time it took.
        cache_hits: Texts found in the cache.
        tokens: Tokens computed.
        model: The model.
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
        """Its figures."""
        return {
            "seconds": round(self.seconds, 3),
            "texts_per_second": round(self.rate, 1),
            "cache_hits": self.cache_hits,
            "tokens": self.tokens,
        }


def embed_all(citadel: Citadel, docs: Sequence[Doc], label: str) -> Pass:
    """Embed every document.

    Raises:
        DemoFailed: One of them has no vector.
    """
    state = Progress()
    found: list[Embedded] = []
    with ProgressBar(label, len(docs)) as bar:

        def on_progress(so_far: Progress) -> None:
            nonlocal state
            state = so_far
            bar.update(so_far.done)

        with clocked() as clock:
            found.extend(citadel.embed_many((doc.text for doc in docs), input_type="document", progress=on_progress))
            vectors = np.stack([_vector(item) for item in found])
    return Pass(
        vectors=vectors, seconds=clock.seconds, cache_hits=state.cache_hits, tokens=state.tokens, model=state.model
    )


def _vector(item: Embedded) -> NDArray[np.float32]:
    if item.error is not None:
        raise DemoFailed(f"{item.text[:60]!r} has no vector: {item.error}")
    return item.array


def check_same(first: Pass, again: Pass) -> None:
    """Make sure that the cache gave each text its own vector.

    Raises:
        DemoFailed: It did not.
    """
    if not np.allclose(first.vectors, again.vectors, atol=TOLERANCE):
        raise DemoFailed("the cache answered with other vectors than were computed")
