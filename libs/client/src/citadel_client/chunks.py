"""Many texts: cut into chunks, each embedded by one call; a bad text never fails its neighbours."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from citadel_client import calls
from citadel_client.calls import EmbedOptions
from citadel_client.errors import INPUT, CitadelApiError, InvalidRequest
from citadel_client.flow import Flow, Terms, exchange
from citadel_client.vectors import Embedded, Embeddings


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Neighbouring texts of a stream, the first at position `start`."""

    start: int
    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stream has come.

    Attributes:
        done: Texts answered, failed ones included.
        failed: Texts without a vector.
        cache_hits: Texts that were found in the cache.
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
    """What became of a chunk, in its order."""

    items: tuple[Embedded, ...]
    progress: Progress


def cut(texts: Iterable[str], size: int) -> Iterator[Chunk]:
    """Cut a stream into chunks, reading no further than asked.

    Raises:
        ValueError: The size is not positive.
    """
    if size < 1:
        raise ValueError("chunk_size must be at least 1")
    source, start = iter(texts), 0
    while found := tuple(islice(source, size)):
        yield Chunk(start=start, texts=found)
        start += len(found)


def embedded(chunk: Chunk, options: EmbedOptions, terms: Terms) -> Flow[ChunkResult]:
    """Embed a chunk; where the server refuses texts, embed the others.

    Raises:
        CitadelApiError: The failure has nothing to do with the texts.
    """
    try:
        found = yield from exchange(calls.embed(chunk.texts, **options), terms)
    except CitadelApiError as error:
        if not error.concerns_texts:
            raise
        return (yield from _narrowed(chunk, error, options, terms))
    return _answered(chunk, found)


def _answered(chunk: Chunk, found: Embeddings) -> ChunkResult:
    cut_off = frozenset(found.truncated)
    items = tuple(
        Embedded(index=chunk.start + i, text=text, encoded=vector, truncated=i in cut_off)
        for i, (text, vector) in enumerate(zip(chunk.texts, found.encoded, strict=True))
    )
    hits = found.cache_hits or 0
    return ChunkResult(
        items=items, progress=Progress(done=len(items), cache_hits=hits, tokens=found.tokens, model=found.model)
    )


def _narrowed(chunk: Chunk, error: CitadelApiError, options: EmbedOptions, terms: Terms) -> Flow[ChunkResult]:
    """Leave out the texts that were named; where none was, try each half alone."""
    named = {i: why for i, why in error.bad_items.items() if i < len(chunk.texts)}
    if len(chunk.texts) == 1:
        return _failed(chunk, {0: named.get(0, error.message)}, error)
    if named:
        rest = tuple(text for i, text in enumerate(chunk.texts) if i not in named)
        good = yield from embedded(Chunk(start=0, texts=rest), options, terms) if rest else _nothing()
        return _merged(chunk, _failed(chunk, named, error), good)
    middle = len(chunk.texts) // 2
    first = yield from embedded(replace(chunk, texts=chunk.texts[:middle]), options, terms)
    second = yield from embedded(Chunk(start=chunk.start + middle, texts=chunk.texts[middle:]), options, terms)
    return ChunkResult(items=first.items + second.items, progress=first.progress + second.progress)


def _nothing() -> Flow[ChunkResult]:
    yield from ()
    return ChunkResult(items=(), progress=Progress())


def _failed(chunk: Chunk, reasons: dict[int, str], error: CitadelApiError) -> ChunkResult:
    items = tuple(
        Embedded(index=chunk.start + i, text=chunk.texts[i], error=_about_one(error, why))
        for i, why in sorted(reasons.items())
    )
    return ChunkResult(items=items, progress=Progress(done=len(items), failed=len(items)))


def _about_one(error: CitadelApiError, why: str) -> CitadelApiError:
    kind = type(error) if isinstance(error, InvalidRequest) else CitadelApiError
    facts = {name: getattr(error, name) for name in ("status", "code", "retryable", "retry_after", "trace_id")}
    return kind(why, field=INPUT, **facts)


def _merged(chunk: Chunk, bad: ChunkResult, good: ChunkResult) -> ChunkResult:
    """Put the answers for the texts that were left into their places."""
    failed = {item.index: item for item in bad.items}
    others = iter(good.items)
    places = range(chunk.start, chunk.start + len(chunk.texts))
    items = tuple(failed[place] if place in failed else replace(next(others), index=place) for place in places)
    return ChunkResult(items=items, progress=bad.progress + good.progress)
