"""The built-in model as a backend: one call at a time, in a thread, on the CPU of this machine."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from citadel_common.errors import BackendRefused, BackendUnavailable, TextRejected
from citadel_embeddings.backends.base import BackendModel, EmbedCall, EmbedReply, Tokenizer
from citadel_embeddings.backends.local import LocalModel, LocalModelUnavailable
from citadel_embeddings.backends.local.tokens import WordPieces

T = TypeVar("T")
URL = "local"
"""Placeholder for the URL of this backend."""
LOAD_TIMEOUT = 60.0
"""Seconds in which the model must load; it is converted the first time."""


class LocalBackend:
    """all-MiniLM-L6-v2 in this process."""

    kind = "local"
    accepts_empty = True
    cuts = True

    def __init__(self, *, cache_dir: Path, threads: int) -> None:
        self._cache_dir = cache_dir
        self._threads = threads
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-model")
        self._model: LocalModel | None = None

    async def embed(self, url: str, call: EmbedCall, *, timeout: float) -> EmbedReply:
        """Embed; `timeout` bounds the wait, but a computation that has begun cannot be stopped."""
        del url
        try:
            encoded = await self._run(lambda: self._loaded().encode(call.texts), "answer", timeout)
        except ValueError as error:
            raise TextRejected(str(error)) from None
        return EmbedReply(rows=list(encoded.vectors), tokens=sum(encoded.tokens), truncated=encoded.truncated)

    async def models(self, url: str, *, timeout: float) -> Sequence[BackendModel]:
        """Return the one model; the first call loads it."""
        del url
        model = await self._run(self._loaded, "load", max(timeout, LOAD_TIMEOUT))
        return [
            BackendModel(
                name=model.NAME,
                version=model.identity.partition("@")[2],
                dimensions=model.DIMENSIONS,
                max_tokens=model.MAX_TOKENS,
            )
        ]

    def tokenizer(self, url: str, model: str) -> Tokenizer:
        """Return the model's own tokenizer."""
        del url, model
        return LocalTokenizer(self)

    async def tokenize(self, work: Callable[[WordPieces], T], timeout: float) -> T:
        """Return what the tokenizer gives; it waits for computations under way."""
        return await self._run(lambda: work(self._loaded().pieces), "tokenize", timeout)

    async def _run(self, work: Callable[[], T], action: str, timeout: float) -> T:
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except TimeoutError:
            raise BackendUnavailable(f"the local model did not {action} in time; the machine is overloaded") from None
        except LocalModelUnavailable as error:
            raise BackendRefused(str(error)) from None

    def _loaded(self) -> LocalModel:
        if self._model is None:
            self._model = LocalModel.load(cache_dir=self._cache_dir.expanduser(), threads=self._threads)
        return self._model

    async def aclose(self) -> None:
        """Free the model."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._model is not None:
            self._model.close()


class LocalTokenizer:
    """Tokenizer of the built-in model."""

    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend

    async def encode(self, text: str, *, special: bool, timeout: float) -> list[int]:
        """Return the tokens of a text."""
        return await self._backend.tokenize(lambda pieces: pieces.encode(text, special=special), timeout)

    async def decode(self, ids: Sequence[int], *, timeout: float) -> str:
        """Return the text of tokens."""
        return await self._backend.tokenize(lambda pieces: pieces.decode(ids), timeout)
