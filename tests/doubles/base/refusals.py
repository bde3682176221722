"""Errors that doubles answer with, in the words of the real servers, and the ends of requests without an answer."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """An error answer.

    Attributes:
        status: HTTP status.
        message: The server's words.
        retry_after_s: Value of the Retry-After header.
        html: True for a proxy's page.
        code: Error code in OpenAI's form; None is that of the status.
    """

    status: int
    message: str
    retry_after_s: float | None = None
    html: bool = False
    code: str | None = None


class RefusalError(Exception):
    """The request is answered with an error."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class HangUpError(Exception):
    """The connection is closed without a complete answer."""


class CallerGoneError(Exception):
    """The client hung up before its answer was ready."""


def refuse(status: int, message: str) -> RefusalError:
    """Return the error to raise for a status and a message."""
    return RefusalError(Refusal(status=status, message=message))


COMMON = {
    "auth401": Refusal(status=401, message="Incorrect API key provided"),
    "rate429": Refusal(status=429, message="Rate limit reached for requests", retry_after_s=1.0),
    "error500": Refusal(status=500, message="llama runner process has terminated: exit status 2"),
    "html502": Refusal(status=502, message="502 Bad Gateway", html=True),
    "busy503": Refusal(status=503, message="server busy, please try again.  maximum pending requests exceeded"),
}
"""Errors of the modes that the Ollama and LLM doubles share."""
