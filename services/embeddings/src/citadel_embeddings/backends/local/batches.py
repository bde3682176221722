"""Batches of token sequences for the network, and the pooling of its output to one vector per text."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def by_length(lengths: Sequence[int], *, budget: int) -> Iterator[list[int]]:
    """Group sequences of similar length, so that little is spent on padding.

    Args:
        lengths: Tokens per sequence.
        budget: Tokens per batch at most, padding included; a longer sequence goes alone.

    Yields:
        The indices of one batch. Every index comes once, the longest sequences first.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded(sequences: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Return the token ids as one array, (texts, longest), filled up with 0 on the right."""
    ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int32)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    return ids


def pooled(hidden: Floats, lengths: Sequence[int]) -> Floats:
    """Return the vector of each text: the mean over its own tokens, scaled to length 1.

    Args:
        hidden: The last hidden states, (texts, longest, dimensions); padding may hold anything.
        lengths: Tokens per text.

    Returns:
        (texts, dimensions), L2-normalised.
    """
    means: Floats = np.stack([states[:length].mean(axis=0) for states, length in zip(hidden, lengths, strict=True)])
    vectors: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
    return vectors
