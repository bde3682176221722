"""Options that commands share, the client that they make, and exit codes."""

from enum import IntEnum
from typing import Annotated, Any, Literal

import typer

from citadel_client import Citadel, EmbedOptions, RetryPolicy
from citadel_client.errors import CallTimedOut, CitadelApiError, ServerUnreachable
from citadel_contracts import json_text

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="CITADEL_API_URL", help="URL of the server.", show_default="http://127.0.0.1:8080"),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds one request may take, retries included.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Model name.", show_default="the server's default")]
Dimensions = Annotated[int | None, typer.Option("--dimensions", min=1, help="Length of the vectors.")]
InputType = Annotated[
    Literal["query", "document"] | None, typer.Option("--input-type", help="Add the model's prefix for this use.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor write the cache.")]
ChunkSize = Annotated[int, typer.Option("--chunk-size", min=1, max=2048, help="Texts per request.")]
Parallel = Annotated[int, typer.Option("--parallel", min=1, max=64, help="Number of requests at once.")]
Encoding = Literal["float", "base64"]
EncodingOption = Annotated[Encoding, typer.Option("--encoding", help="Numbers, or base64 of little-endian float32.")]

BRIEF = RetryPolicy(attempts=3)
"""Retries of commands that print one answer."""


class ExitCode(IntEnum):
    """Exit codes, documented by `citadel --help`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    UNHEALTHY = 4
    INTERRUPTED = 130


class UsageError(Exception):
    """The arguments are not valid."""


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code for an error."""
    if isinstance(error, UsageError):
        return ExitCode.USAGE
    return ExitCode.UNREACHABLE if isinstance(error, ServerUnreachable | CallTimedOut) else ExitCode.FAILED


def describe(error: Exception) -> str:
    """Return the message of an error; status and trace id only if a server answered."""
    if isinstance(error, CitadelApiError) and error.status is None:
        return error.message
    return str(error)


def connect(url: str | None, timeout: float, retry: RetryPolicy = BRIEF) -> Citadel:
    """Return a client for the options given; its key is CITADEL_API_KEY's.

    Raises:
        UsageError: The URL is not valid.
    """
    try:
        return Citadel(url, timeout=timeout, retry=retry)
    except ValueError as error:
        raise UsageError(str(error)) from error


def embed_options(model: str | None, dimensions: int | None, input_type: Any, no_cache: bool) -> EmbedOptions:
    """Return the options that the SDK takes."""
    return {"model": model, "dimensions": dimensions, "input_type": input_type, "cache_enabled": not no_cache}


def parse_json(text: str | bytes, name: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        UsageError: It is not JSON; the message calls it `name`.
    """
    try:
        return json_text.loads(text.encode() if isinstance(text, str) else text)
    except json_text.NotJson as error:
        raise UsageError(f"{name} is not JSON: {error}") from error
    except json_text.UnusableValue as error:
        raise UsageError(f"{name}: {error}") from error
