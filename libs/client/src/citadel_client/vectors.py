"""Vectors in the form in which they were sent, decoded when they are used."""

import base64
import sys
from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from citadel_client.errors import CitadelApiError, TextsFailed
from citadel_contracts.embeddings import ItemError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Encoded = str | list[float]
"""One vector: base64 of little-endian float32, or the numbers."""


def unpack(encoded: Encoded) -> list[float]:
    """Return the numbers of a vector."""
    if not isinstance(encoded, str):
        return encoded
    numbers = array("f")
    numbers.frombytes(base64.b64decode(encoded))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def unpack_array(encoded: Encoded) -> "NDArray[np.float32]":
    """Return a vector as a NumPy array."""
    import numpy as np

    if isinstance(encoded, str):
        return np.frombuffer(base64.b64decode(encoded), dtype="<f4").astype(np.float32, copy=False)
    return np.asarray(encoded, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Vectors of a list of texts: vector i belongs to text i.

    Attributes:
        encoded: The vectors as they were sent; None for a text that failed.
        model: Name of the model.
        cache_hits: Number of texts found in the cache; None if the server does not say.
        truncated: Positions of texts that the model truncated.
        tokens: Number of tokens computed.
        errors: Errors of single texts; only the result of a task or batch has any.
    """

    encoded: tuple[Encoded | None, ...]
    model: str
    cache_hits: int | None = None
    truncated: tuple[int, ...] = ()
    tokens: int = 0
    errors: tuple[ItemError, ...] = ()

    def __len__(self) -> int:
        return len(self.encoded)

    @cached_property
    def partial(self) -> list[list[float] | None]:
        """The vectors; None for a text that failed."""
        return [None if vector is None else unpack(vector) for vector in self.encoded]

    @cached_property
    def vectors(self) -> list[list[float]]:
        """All vectors.

        Raises:
            TextsFailed: Some texts have none.
        """
        return [unpack(vector) for vector in self._all()]

    @cached_property
    def array(self) -> "NDArray[np.float32]":
        """All vectors, as an array of shape (texts, dimensions).

        Raises:
            TextsFailed: Some texts have none.
        """
        import numpy as np

        return np.stack([unpack_array(vector) for vector in self._all()])

    def _all(self) -> list[Encoded]:
        found = [vector for vector in self.encoded if vector is not None]
        if len(found) < len(self.encoded):
            named = "; ".join(f"text {error['index']}: {error['message']}" for error in self.errors[:3])
            raise TextsFailed(f"{len(self.encoded) - len(found)} texts have no vector ({named})")
        return found


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """One text of a stream, with its vector or its error.

    Attributes:
        index: Position in the stream.
        text: The text.
        encoded: The vector as it was sent; None if the text failed.
        error: Why the text failed.
        truncated: Whether the model truncated the text.
    """

    index: int
    text: str
    encoded: Encoded | None = None
    error: CitadelApiError | None = None
    truncated: bool = False

    @property
    def vector(self) -> list[float]:
        """The vector.

        Raises:
            CitadelApiError: The text failed.
        """
        return unpack(self._found())

    @property
    def array(self) -> "NDArray[np.float32]":
        """The vector, as a NumPy array.

        Raises:
            CitadelApiError: The text failed.
        """
        return unpack_array(self._found())

    def _found(self) -> Encoded:
        if self.encoded is None:
            raise self.error or TextsFailed()
        return self.encoded
