"""Tokenizer: texts as BERT's word pieces, cut to the length that the model reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from citadel_embeddings.backends.base import UnknownIds

SEPARATOR = 102  # [SEP], which ends every sequence
UNKNOWN = 100  # [UNK]
LONGEST_WORD = 100  # word pieces of one word at most; BERT reads a longer word as one [UNK]

WINDOW = 2048
LAST_WINDOW = 65536
"""Characters of a text that are read at first, and at most.

Prose has 5 characters per piece. Texts that do not yield enough pieces in the first window (long words, long runs of
blanks) are read again up to the last, which bounds the work.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """Word pieces of one text, special ones included.

    Attributes:
        ids: Before truncation; the end of a long text may be missing.
        unread: Whether the end of the text is missing.
    """

    ids: list[int]
    unread: bool

    def count(self, limit: int) -> int:
        """Return the number of word pieces before truncation; any number over `limit` if the end is unread."""
        return max(len(self.ids), limit + 1) if self.unread else len(self.ids)

    def cut(self, limit: int) -> list[int]:
        """Return the first `limit` word pieces, the last of which is the separator."""
        return self.ids if len(self.ids) <= limit else [*self.ids[: limit - 1], SEPARATOR]


class WordPieces:
    """The published tokenizer; thread-safe."""

    def __init__(self, path: Path, *, limit: int) -> None:
        """Load it.

        Args:
            path: The published tokenizer.json.
            limit: Word pieces the model reads per text, special ones included.
        """
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))
        # the file asks for 128 pieces, padded to 128
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._limit = limit

    def split(self, texts: Sequence[str]) -> list[Pieces]:
        """Return the word pieces of each text; the first `limit` of them do not depend on how much was read.

        Raises:
            ValueError: A text has a lone surrogate, so it cannot be UTF-8; the message names its index.
        """
        stripped = [_checked(index, text).strip() for index, text in enumerate(texts)]
        pieces = self._read(stripped, WINDOW)
        short = [i for i, piece in enumerate(pieces) if piece.unread and not self._is_settled(piece)]
        for i, piece in zip(short, self._read([stripped[i] for i in short], LAST_WINDOW), strict=True):
            pieces[i] = piece
        return pieces

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Return the ids of a whole text; `special` adds the first and the separator."""
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; `[UNK]` stands for a word that the vocabulary lacks, and is read as one again.

        Raises:
            UnknownIds: The vocabulary lacks one of them, or one is special and stands for no text.
        """
        special = self._tokenizer.get_added_tokens_decoder().keys() - {UNKNOWN}
        if any(id_ in special or not 0 <= id_ < self._tokenizer.get_vocab_size() for id_ in ids):
            raise UnknownIds
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _read(self, texts: list[str], window: int) -> list[Pieces]:
        encodings = self._tokenizer.encode_batch_fast([text[:window] for text in texts])
        return [
            Pieces(ids=encoding.ids, unread=len(text) > window) for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _is_settled(self, piece: Pieces) -> bool:
        # the window may have cut its last word in two: up to LONGEST_WORD pieces at the end may be wrong
        return len(piece.ids) >= self._limit + LONGEST_WORD


def _checked(index: int, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text {index} is not valid Unicode: {error.reason} at character {error.start}") from None
    return text
