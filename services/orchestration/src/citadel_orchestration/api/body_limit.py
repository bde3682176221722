"""The limit on request bodies: refused by their declared length, or while they stream in."""

from typing import Any

from citadel_orchestration.api.errors import BodyTooLarge


class BodyLimit:
    """Refuses bodies of more than `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def guard(self, scope: Any, receive: Any) -> Any:
        """`receive`, counting where the length is not declared.

        Raises:
            BodyTooLarge: The declared length is over the limit.
        """
        if scope["method"] == "GET":
            return receive
        for name, value in scope["headers"]:
            # The server reads no more than was declared, so a declared length needs no counting.
            if name == b"content-length" and value.isdigit():
                if int(value) > self._max_bytes:
                    raise self._too_large()
                return receive
        return self._counting(receive)

    def _counting(self, receive: Any) -> Any:
        received = 0

        async def bounded() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body has more than {self._max_bytes} bytes, the limit")
