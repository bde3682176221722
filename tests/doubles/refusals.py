"""The errors the double answers with, in the words of the real servers."""

from dataclasses import dataclass

BUSY = "server busy, please try again.  maximum pending requests exceeded"
NAN = "failed to encode response: json: unsupported value: NaN"
TOO_LONG = "the input length exceeds the context length"
RUNNER_GONE = 'do embedding request: Post "http://127.0.0.1:35221/embedding": EOF'
RUNNER_DEAD = "llama runner process has terminated: exit status 2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """An error answer; `code` is OpenAI's, `retry_after_s` becomes the Retry-After header, `html` a proxy's page."""

    status: int
    message: str
    retry_after_s: float | None = None
    code: str | None = None
    html: bool = False


class RefusalError(Exception):
    """The request is answered with an error."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class HangUpError(Exception):
    """The connection is closed without an answer."""


class CallerGoneError(Exception):
    """The client hung up before its answer was ready."""


def refuse(status: int, message: str) -> RefusalError:
    """Return the error to raise for a status and a message."""
    return RefusalError(Refusal(status=status, message=message))


def model_missing(name: str) -> RefusalError:
    """Return Ollama's answer for a model that is not installed."""
    return refuse(404, f'model "{name}" not found, try pulling it first')


BY_MODE = {
    "nan": Refusal(status=400, message=NAN),
    "runner400": Refusal(status=400, message=RUNNER_GONE),
    "too_long400": Refusal(status=400, message="Please shorten your input", code="context_length_exceeded"),
    "auth401": Refusal(status=401, message="Incorrect API key provided"),
    "not_found404": Refusal(status=404, message="model not found, try pulling it first"),
    "rate429": Refusal(status=429, message="Rate limit reached for requests", retry_after_s=1.0),
    "error500": Refusal(status=500, message=RUNNER_DEAD),
    "html502": Refusal(status=502, message="502 Bad Gateway", html=True),
    "busy503": Refusal(status=503, message=BUSY),
}
