"""Collects what is wrong."""

from collections.abc import Sequence

from citadel_common.errors import InvalidDefinition
from citadel_contracts.errors import FieldError, json_pointer

Path = tuple[str | int, ...]


class Problems:
    """The problems found so far, in order, up to a limit; the same one is told once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: dict[FieldError, None] = {}

    def add(self, path: Sequence[str | int], code: str, message: str) -> None:
        """Notes a problem."""
        if len(self._found) < self._limit:
            self._found[FieldError(pointer=_encodable(json_pointer(path)), detail=_encodable(message), code=code)] = (
                None
            )

    @property
    def is_full(self) -> bool:
        """Whether no more are told."""
        return len(self._found) >= self._limit

    def __len__(self) -> int:
        return len(self._found)

    def raise_any(self) -> None:
        """Tells what was found.

        Raises:
            InvalidDefinition: There is at least one problem.
        """
        if not self._found:
            return
        first, *rest = self._found
        more = f" (and {len(rest)} more)" if rest else ""
        raise InvalidDefinition(f"{first.pointer or 'definition'}: {first.detail}{more}", errors=tuple(self._found))


def _encodable(text: str) -> str:
    """Half of a surrogate pair cannot be sent to anybody."""
    return text.encode("utf-8", "replace").decode()
