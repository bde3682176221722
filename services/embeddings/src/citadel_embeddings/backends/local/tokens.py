"""Texts as BERT's word pieces, cut to what the model reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SEPARATOR = 102  # [SEP], which ends every sequence
LONGEST_WORD = 100  # word pieces of one word at most; BERT reads a longer word as one [UNK]

# Characters that are looked at, first and at most. Prose needs 5 characters per piece; what does not yield its
# pieces in the first window (long words, long runs of blanks) gets the second, and that bounds the work.
WINDOW = 2048
LAST_WINDOW = 65536


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """One text's word pieces, special ones included."""

    ids: list[int]  # before truncation, except that a text's end may not have been looked at
    unread: bool  # whether the text goes on after what the ids stand for

    def count(self, limit: int) -> int:
        """Word pieces before truncation; more than ``limit`` for certain where the text's end is unread."""
        return max(len(self.ids), limit + 1) if self.unread else len(self.ids)

    def cut(self, limit: int) -> list[int]:
        """The first ``limit`` word pieces, the last of which is the separator."""
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
        """Each text's word pieces; the first ``limit`` of them do not depend on how much was looked at.

        Raises:
            ValueError: A text cannot be UTF-8 (a lone surrogate); the message names its index.
        """
        stripped = [_checked(index, text).strip() for index, text in enumerate(texts)]
        pieces = self._read(stripped, WINDOW)
        short = [i for i, piece in enumerate(pieces) if piece.unread and not self._is_settled(piece)]
        for i, piece in zip(short, self._read([stripped[i] for i in short], LAST_WINDOW), strict=True):
            pieces[i] = piece
        return pieces

    def _read(self, texts: list[str], window: int) -> list[Pieces]:
        encodings = self._tokenizer.encode_batch_fast([text[:window] for text in texts])
        return [
            Pieces(ids=encoding.ids, unread=len(text) > window) for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _is_settled(self, piece: Pieces) -> bool:
        # the window may have cut a word in two: what it yields may be wrong, and is no longer than this
        return len(piece.ids) >= self._limit + LONGEST_WORD


def _checked(index: int, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text {index} is not valid Unicode: {error.reason} at character {error.start}") from None
    return text
