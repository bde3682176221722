"""Streams of texts: cut into chunks of one request each, and put together again; a bad text fails alone."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from citadel_client.errors import INPUT, CitadelApiError, InvalidRequest
from citadel_client.vectors import Embedded, Embeddings

TextSource = Iterable[str]
AsyncTextSource = Iterable[str] | AsyncIterable[str]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Consecutive texts of a stream, the first at position `start`."""

    start: int
    texts: tuple[str, ...]

    def without(self, places: Iterable[int]) -> "Chunk":
        """Return the chunk without the texts at these places; its positions begin at 0."""
        left_out = frozenset(places)
        return Chunk(start=0, texts=tuple(text for i, text in enumerate(self.texts) if i not in left_out))

    def halves(self) -> "tuple[Chunk, Chunk]":
        """Return both halves of the chunk."""
        middle = len(self.texts) // 2
        second = Chunk(start=self.start + middle, texts=self.texts[middle:])
        return replace(self, texts=self.texts[:middle]), second


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Counters of a stream of texts.

    Attributes:
        done: Texts answered, failed ones included.
        failed: Texts without a vector.
        cache_hits: Texts found in the cache.
        tokens: Tokens of the texts that were computed.
        model: Model that answered; empty before the first answer.
    """

    done: int = 0
    failed: int = 0
    cache_hits: int = 0
    tokens: int = 0
    model: str = ""

    def __add__(self, other: "Progress") -> "Progress":
        return Progress(
            done=self.done + other.done,
            failed=self.failed + other.failed,
            cache_hits=self.cache_hits + other.cache_hits,
            tokens=self.tokens + other.tokens,
            model=other.model or self.model,
        )


@dataclass(frozen=True, kw_only=True)
class ChunkResult:
    """Results of a chunk's texts, in order."""

    items: tuple[Embedded, ...] = ()
    progress: Progress = Progress()

    def __add__(self, other: "ChunkResult") -> "ChunkResult":
        return ChunkResult(items=self.items + other.items, progress=self.progress + other.progress)


def cut(texts: TextSource, size: int) -> Iterator[Chunk]:
    """Cut a stream into chunks, reading no further than needed.

    Raises:
        ValueError: The size is not positive.
    """
    _check_size(size)
    source, start = iter(texts), 0
    while found := tuple(islice(source, size)):
        yield Chunk(start=start, texts=found)
        start += len(found)


async def cut_async(texts: AsyncTextSource, size: int) -> AsyncIterator[Chunk]:
    """Cut a stream into chunks, reading no further than needed.

    Raises:
        ValueError: The size is not positive.
    """
    if not isinstance(texts, AsyncIterable):
        for chunk in cut(texts, size):
            yield chunk
        return
    _check_size(size)
    start, pending = 0, list[str]()
    async for text in texts:
        pending.append(text)
        if len(pending) == size:
            yield Chunk(start=start, texts=tuple(pending))
            start, pending = start + size, []
    if pending:
        yield Chunk(start=start, texts=tuple(pending))


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError("chunk_size must be at least 1")


def answered(chunk: Chunk, found: Embeddings) -> ChunkResult:
    """Return the results of a chunk whose texts all have vectors."""
    truncated = frozenset(found.truncated)
    items = tuple(
        Embedded(index=chunk.start + i, text=text, encoded=vector, truncated=i in truncated)
        for i, (text, vector) in enumerate(zip(chunk.texts, found.encoded, strict=True))
    )
    hits = found.cache_hits or 0
    progress = Progress(done=len(items), cache_hits=hits, tokens=found.tokens, model=found.model)
    return ChunkResult(items=items, progress=progress)


def failed(chunk: Chunk, reasons: dict[int, str], error: CitadelApiError) -> ChunkResult:
    """Return the results of the texts that an error names, by their place in the chunk."""
    items = tuple(
        Embedded(index=chunk.start + i, text=chunk.texts[i], error=_about_one(error, reason))
        for i, reason in sorted(reasons.items())
    )
    return ChunkResult(items=items, progress=Progress(done=len(items), failed=len(items)))


def _about_one(error: CitadelApiError, reason: str) -> CitadelApiError:
    kind = type(error) if isinstance(error, InvalidRequest) else CitadelApiError
    facts = {name: getattr(error, name) for name in ("status", "code", "retryable", "retry_after", "trace_id")}
    return kind(reason, field=INPUT, **facts)


def merged(chunk: Chunk, bad: ChunkResult, good: ChunkResult) -> ChunkResult:
    """Return the results of a chunk: the bad texts' at their positions, the good texts' at the others."""
    by_index = {item.index: item for item in bad.items}
    others = iter(good.items)
    places = range(chunk.start, chunk.start + len(chunk.texts))
    items = tuple(by_index[place] if place in by_index else replace(next(others), index=place) for place in places)
    return ChunkResult(items=items, progress=bad.progress + good.progress)
