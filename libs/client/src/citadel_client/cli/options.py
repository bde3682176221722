"""Options that commands share, and the client they make."""

from typing import Annotated, Any, Literal

import typer

from citadel_client import Citadel, EmbedOptions, RetryPolicy
from citadel_client.cli.exits import UsageError

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="CITADEL_API_URL", help="The server.", show_default="http://127.0.0.1:8080"),
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
Parallel = Annotated[int, typer.Option("--parallel", min=1, max=64, help="Requests at once.")]


BRIEF = RetryPolicy(attempts=3)
"""For commands that somebody waits for."""


def connect(url: str | None, timeout: float, retry: RetryPolicy = BRIEF) -> Citadel:
    """A client for the options given; the key is CITADEL_API_KEY's.

    Raises:
        UsageError: The URL is none.
    """
    try:
        return Citadel(url, timeout=timeout, retry=retry)
    except ValueError as error:
        raise UsageError(str(error)) from error


def embed_options(model: str | None, dimensions: int | None, input_type: Any, no_cache: bool) -> EmbedOptions:
    """The options that the SDK takes."""
    return {"model": model, "dimensions": dimensions, "input_type": input_type, "cache_enabled": not no_cache}
