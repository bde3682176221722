"""Texts by their tokens: token ids become ordinary texts, and texts are cut to a number of tokens.

Clients of OpenAI send the ids of OpenAI's vocabularies unless they are told not to. To any other model those mean
something else, so ids count only if the model's tokenizer knows each of them and makes the same ids of their text.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from citadel_common.deadline import Deadline
from citadel_common.embeddings.requests import SEND_TEXTS, index_in, no_tokenizer
from citadel_common.errors import BackendUnavailable, InvalidInput
from citadel_contracts.embeddings import Texts
from citadel_embeddings.backends.base import NoTokenizer, Tokenizer, UnknownIds

T = TypeVar("T")
CALL_TIMEOUT = 10.0
"""Seconds that one call of a tokenizer may take."""
AT_ONCE = 8
"""Texts of one request that are tokenized at once."""
ENOUGH_IDS = 8
"""Ids in a request that fit a vocabulary by chance only if they are of it. Common words of a sentence do not: they have
small ids in OpenAI's vocabularies, where others have bytes and unused places."""


@dataclass(frozen=True, kw_only=True)
class ModelTokens:
    """The tokenizer of one model; each call goes to the first server that answers.

    Attributes:
        model: Name of the model.
        tokenizers: One per server that may have one.
        deadline: When the caller waits no longer.
    """

    model: str
    tokenizers: Sequence[Tokenizer]
    deadline: Deadline

    async def texts_of(self, arrays: Sequence[Sequence[int]], text: Texts) -> list[str]:
        """Return the texts of token arrays.

        Args:
            arrays: The ids of each text.
            text: Form of the request: a list, or one text that stands alone.

        Raises:
            InvalidInput: There is no tokenizer at hand, or the ids are not this model's.
        """
        try:
            around = await self._around()
            inner = [_inner(list(array), *around) for array in arrays]
            if not _is_evident(arrays, inner):
                raise InvalidInput.at("text", self._too_few(around))
            found = await _each(lambda index: self._decoded(inner[index]), len(arrays))
        except NoTokenizer:
            raise no_tokenizer(self.model) from None
        texts = [decoded for decoded in found if decoded is not None]
        if len(texts) < len(found):
            problem = f"holds token ids that are not of {self.model!r}'s vocabulary; {SEND_TEXTS}"
            raise InvalidInput.at("text", problem, index_in(text, found.index(None)))
        return texts

    def _too_few(self, around: tuple[list[int], list[int]]) -> str:
        before, after = around
        whole = f" or put them between {before} and {after}, as the tokenizer of {self.model!r} does" * bool(before)
        return f"holds too few token ids to tell whose they are: {SEND_TEXTS},{whole}".removesuffix(",")

    async def cut(
        self, texts: Sequence[str], prefix: str, most: int, *, start: bool
    ) -> tuple[list[str], frozenset[int]]:
        """Return the texts, each with at most `most` tokens, and the indices of those that became shorter.

        Args:
            texts: The texts.
            prefix: What the model reads before each of them; its tokens count.
            most: Tokens, special ones included.
            start: Cut the beginning instead of the end.

        Raises:
            InvalidInput: There is no tokenizer at hand, or not even a part of a text fits.
        """
        try:
            found = await _each(lambda index: self._part(texts[index], prefix, most, start=start), len(texts))
        except NoTokenizer:
            problem = f"cannot be kept: the tokenizer of {self.model!r} is not at hand; the end can be cut by -1"
            raise InvalidInput.at("truncate" if start else "truncate_prompt_tokens", problem) from None
        return found, frozenset(index for index, text in enumerate(texts) if len(found[index]) < len(text))

    async def _part(self, text: str, prefix: str, most: int, *, start: bool) -> str:
        count = await self._count(prefix + text)
        if count <= most:
            return text
        fits, too_many, probe = 0, len(text), len(text) * most // count
        while too_many - fits > 1:
            probe = min(max(probe, fits + 1), too_many - 1)
            part = text[len(text) - probe :] if start else text[:probe]
            fits, too_many = (probe, too_many) if await self._count(prefix + part) <= most else (fits, probe)
            probe = (fits + too_many) // 2
        if not fits:
            raise InvalidInput.at("truncate_prompt_tokens", f"leaves no room for a text: {most} tokens")
        return text[len(text) - fits :] if start else text[:fits]

    async def _count(self, text: str) -> int:
        return len(await self._encoded(text, special=True))

    async def _around(self) -> tuple[list[int], list[int]]:
        """Return the special tokens before and after a text."""
        plain, whole = await self._encoded("a", special=False), await self._encoded("a", special=True)
        places = [place for place in range(len(whole)) if whole[place : place + len(plain)] == plain]
        place = places[0] if places else 0
        return (whole[:place], whole[place + len(plain) :]) if places else ([], [])

    async def _decoded(self, ids: list[int]) -> str | None:
        """Return the text of ids; None if they are not this tokenizer's."""
        if not ids:
            return ""
        try:
            text = await self._ask(lambda each, timeout: each.decode(ids, timeout=timeout))
        except UnknownIds:
            return None
        for candidate in dict.fromkeys((text.strip(), text)):  # decoders of word pieces put a blank first
            if await self._encoded(candidate, special=False) == ids:
                return candidate
        return None

    async def _encoded(self, text: str, *, special: bool) -> list[int]:
        return await self._ask(lambda each, timeout: each.encode(text, special=special, timeout=timeout))

    async def _ask(self, call: Callable[[Tokenizer, float], Awaitable[T]]) -> T:
        failure: BackendUnavailable | None = None
        for tokenizer in self.tokenizers:
            try:
                return await call(tokenizer, self.deadline.timeout(CALL_TIMEOUT))
            except NoTokenizer:
                continue
            except BackendUnavailable as error:
                failure = error
        if failure is not None:
            raise failure
        raise NoTokenizer


def _is_evident(arrays: Sequence[Sequence[int]], inner: Sequence[list[int]]) -> bool:
    """Return whether ids that fit a vocabulary are certainly of it: two common words of another may fit as well.

    The model's own special tokens around one array tell it, and so does the number of ids.
    """
    wrapped = any(len(ids) < len(array) for ids, array in zip(inner, arrays, strict=True))
    return wrapped or sum(map(len, inner)) >= ENOUGH_IDS


def _inner(ids: list[int], before: list[int], after: list[int]) -> list[int]:
    """Return the ids without the special tokens around them, if they have these."""
    end = len(ids) - len(after)
    return ids[len(before) : end] if ids[: len(before)] == before and ids[end:] == after else ids


async def _each(call: Callable[[int], Awaitable[T]], count: int) -> list[T]:
    """Return the results for 0 to `count` - 1, a few at once; raises the error of the first that has one."""
    room = asyncio.Semaphore(AT_ONCE)

    async def bounded(index: int) -> T:
        async with room:
            return await call(index)

    results = await asyncio.gather(*map(bounded, range(count)), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
