"""all-MiniLM-L6-v2: normalised vectors of texts."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from citadel_embeddings.backends.local.batches import Floats, by_length, padded, pooled
from citadel_embeddings.backends.local.convert import converted_model
from citadel_embeddings.backends.local.tokens import WordPieces
from citadel_embeddings.backends.local.weights import INSTALL_HINT, TOKENIZER, WEIGHTS, LocalModelUnavailable

SHARED_CORES = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Environment of the library, read when it is loaded: threads that spin at barriers slow a busy machine down
up to eight times."""
TOKENS_PER_BATCH = 2048
"""Measured optimum: smaller batches cost more calls, larger ones fall out of the processor's cache (a third slower)."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Vectors of texts; entry i of each attribute belongs to text i.

    Attributes:
        vectors: (texts, 384), L2-normalised.
        tokens: Tokens used per text after truncation, special ones included.
        truncated: Whether the end of the text was left out.
    """

    vectors: Floats
    tokens: list[int]
    truncated: list[bool]


class LocalModel:
    """all-MiniLM-L6-v2 in float32 on the CPU; thread-safe.

    Calls from several threads queue up: each uses all of the model's own threads in turn.
    """

    NAME: ClassVar[str] = "all-minilm"
    DIMENSIONS: ClassVar[int] = 384
    MAX_TOKENS: ClassVar[int] = 256

    # only vectors of one identity may be compared
    identity: ClassVar[str] = f"{NAME}@{WEIGHTS.sha256[:12]}"

    def __init__(self, encoder: Any, pieces: WordPieces) -> None:
        """Wrap a loaded encoder; `load` is the usual constructor.

        Args:
            encoder: A `ctranslate2.Encoder`.
            pieces: The tokenizer.
        """
        self._encoder = encoder
        self._pieces = pieces

    @classmethod
    def load(cls, *, cache_dir: Path, threads: int = 0) -> Self:
        """Load the model; blocking, about a second the first time. Call it after a fork, not before.

        Args:
            cache_dir: Where the weights are kept in CTranslate2's format, 90 MB; processes may share the directory.
            threads: Threads that compute; 0 means one for each core this process may run on.

        Raises:
            LocalModelUnavailable: A package is missing, the weights differ from the published ones, or `cache_dir` is
                not writable.
        """
        for name, value in SHARED_CORES.items():
            os.environ.setdefault(name, value)
        try:
            import ctranslate2

            pieces = WordPieces(TOKENIZER.verified(), limit=cls.MAX_TOKENS)
        except ImportError as error:
            raise LocalModelUnavailable(f"the built-in model cannot be imported: {error}; {INSTALL_HINT}") from error
        directory = converted_model(cache_dir)
        encoder = ctranslate2.Encoder(
            str(directory), device="cpu", compute_type="float32", intra_threads=threads or _cores()
        )
        return cls(encoder, pieces)

    @property
    def pieces(self) -> WordPieces:
        """The tokenizer."""
        return self._pieces

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Embed texts; blocking.

        Args:
            texts: Any number, of any length; the first 256 tokens of each count. No prefix is needed.

        Raises:
            ValueError: A text is not valid Unicode; the message names its index. Nothing was embedded.
            LocalModelUnavailable: The model was closed.
        """
        encoder = self._open_encoder()
        pieces = self._pieces.split(texts)
        ids = [piece.cut(self.MAX_TOKENS) for piece in pieces]
        return Encoded(
            vectors=self._embed(encoder, ids),
            tokens=[len(sequence) for sequence in ids],
            truncated=[piece.count(self.MAX_TOKENS) > self.MAX_TOKENS for piece in pieces],
        )

    def close(self) -> None:
        """Give the memory back once running calls have ended; later calls of `encode` are refused."""
        self._encoder = None

    def _open_encoder(self) -> Any:
        if self._encoder is None:
            raise LocalModelUnavailable("the built-in model was closed; load it again")
        return self._encoder

    def _embed(self, encoder: Any, ids: list[list[int]]) -> Floats:
        vectors: Floats = np.empty((len(ids), self.DIMENSIONS), dtype=np.float32)
        for rows in by_length([len(sequence) for sequence in ids], budget=TOKENS_PER_BATCH):
            vectors[rows] = _forward(encoder, [ids[row] for row in rows])
        return vectors


def _forward(encoder: Any, ids: list[list[int]]) -> Floats:
    from ctranslate2 import StorageView

    lengths = [len(sequence) for sequence in ids]
    output = encoder.forward_batch(
        StorageView.from_array(padded(ids)), StorageView.from_array(np.array(lengths, dtype=np.int32))
    )
    return pooled(np.asarray(output.last_hidden_state), lengths)


def _cores() -> int:
    """Return how many cores this process may run on, by its CPU affinity where the system has one."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
