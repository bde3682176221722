"""The server under test, faults that it can be brought into, and the snippets of the documentation."""

import itertools
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/clients.md"
ADDRESS = re.compile(r"http://127\.0\.0\.1:8080(?:/v1)?")
KEY = "YOUR-KEY"
"""Address and key in the documentation's snippets."""
MODEL = "nomic-embed-text"
STRICT_MODEL = "bge-m3"
"""A model whose server refuses a text that is too long."""
LOCAL_MODEL = "all-minilm"
"""A model whose tokenizer the server has."""
TEXTS = ["A man is eating food.", "Grüße, 世界 🌍", "  two\nlines "]
NEW = itertools.count()
"""Numbers that make texts new, so that no cache has them."""
MARGIN_S = 3
"""Seconds of the server's minute that must be left for a request that shall be refused in it."""


@dataclass(frozen=True, kw_only=True)
class Citadel:
    """Addresses of the API servers, each ending in `/v1`, and what is behind them.

    Attributes:
        main: With API keys and an origin whose pages may call it.
        keyless: Without keys; takes bodies of up to 100 kB.
        limited: Without keys; takes one request a minute.
        key: A key that may do all that clients do.
        reader_key: A key that may read, not embed.
        double: The double of Ollama, which serves all models but `all-minilm`.
    """

    main: str
    keyless: str
    limited: str
    key: str
    reader_key: str
    origin: str
    double: str

    def vectors(self, texts: str | Sequence[str], model: str = MODEL, **fields: Any) -> Any:
        """Return the vectors of texts by a plain request, as an array of float32."""
        answer = self.post({"input": texts, "model": model, "encoding_format": "float"} | fields)
        return np.float32([item["embedding"] for item in answer.raise_for_status().json()["data"]])

    def post(self, body: dict[str, Any], url: str = "") -> httpx.Response:
        """Return the answer to a plain request for embeddings."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.post(f"{url or self.main}/embeddings", json=body, headers=headers, timeout=30)

    def behave(self, mode: str) -> None:
        """Switch the behaviour of the double; `ok` also resets what is counted."""
        httpx.post(f"{self.double}/_double/reset").raise_for_status()
        httpx.post(f"{self.double}/_double/behaviour", json={"mode": mode}).raise_for_status()

    def recover(self) -> None:
        """Make the double healthy, and wait until texts are embedded again."""
        self.behave("ok")
        while self.post({"input": "well again", "model": MODEL, "cache_enabled": False}).status_code != 200:
            pass


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call: what a client is given, and after how many seconds it shall give up; `name` is the fault's."""

    name: str = ""
    url: str
    key: str
    model: str = MODEL
    texts: Sequence[str] = ("a text",)
    timeout: float = 20.0


def wrong_key(citadel: Citadel) -> Call:
    return Call(url=citadel.main, key="wrong")


def forbidden(citadel: Citadel) -> Call:
    return Call(url=citadel.main, key=citadel.reader_key)


def unknown_model(citadel: Citadel) -> Call:
    return Call(url=citadel.main, key=citadel.key, model="unknown")


def empty_text(citadel: Citadel) -> Call:
    return Call(url=citadel.main, key=citadel.key, model=STRICT_MODEL, texts=("fine", ""))


def too_long(citadel: Citadel) -> Call:
    return Call(url=citadel.main, key=citadel.key, model=STRICT_MODEL, texts=("fine", "[[too_long400]]"))


def body_too_large(citadel: Citadel) -> Call:
    return Call(url=citadel.keyless, key="none", texts=("long " * 40_000,))


def rate_limited(citadel: Citadel) -> Call:
    """Use up the minute's only request, in a minute that is not about to end."""
    waits = 0
    while waits <= MARGIN_S:
        waits = int(citadel.post({"input": "x", "model": MODEL}, citadel.limited).headers.get("retry-after", 0))
    return Call(url=citadel.limited, key="none")


def unavailable(citadel: Citadel) -> Call:
    citadel.behave("busy503")
    return Call(url=citadel.main, key=citadel.key, texts=(f"new {next(NEW)}",))


def failing(citadel: Citadel) -> Call:
    citadel.behave("garbage_json")
    return Call(url=citadel.main, key=citadel.key, texts=(f"new {next(NEW)}",))


def server_timeout(citadel: Citadel) -> Call:
    citadel.behave("hang")
    return Call(url=citadel.main, key=citadel.key, texts=(f"new {next(NEW)}",))


def client_timeout(citadel: Citadel) -> Call:
    citadel.behave("hang")
    return Call(url=citadel.main, key=citadel.key, texts=(f"new {next(NEW)}",), timeout=0.3)


FAULTS: dict[str, Callable[[Citadel], Call]] = {
    fault.__name__: fault
    for fault in (
        wrong_key,
        forbidden,
        unknown_model,
        empty_text,
        too_long,
        body_too_large,
        rate_limited,
        unavailable,
        failing,
        server_timeout,
        client_timeout,
    )
}
OPENAI_ERRORS = {
    "wrong_key": (openai.AuthenticationError, "unauthorized"),
    "forbidden": (openai.PermissionDeniedError, "forbidden"),
    "unknown_model": (openai.NotFoundError, "model_not_found"),
    "empty_text": (openai.BadRequestError, "invalid_input"),
    "too_long": (openai.BadRequestError, "text_too_long"),
    "body_too_large": (openai.APIStatusError, "body_too_large"),
    "rate_limited": (openai.RateLimitError, "rate_limited"),
    "unavailable": (openai.InternalServerError, "backend_unavailable"),
    "failing": (openai.InternalServerError, "backend_failed"),
    "server_timeout": (openai.InternalServerError, "backend_timed_out"),
    "client_timeout": (openai.APITimeoutError, None),
}
"""Class and code of each fault for clients that are built on the `openai` package."""


@cache
def blocks(language: str) -> dict[str, str]:
    """Return the first snippet of each section of the documentation by the section's title."""
    sections = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    block = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    found = {section.partition("\n")[0]: block.search(section) for section in sections}
    return {title: match[1] for title, match in found.items() if match}


def snippet(title: str, url: str, key: str, language: str = "python") -> str:
    """Return a section's snippet for a server and a key."""
    text = blocks(language)[title]
    assert KEY in text, f"the snippet of {title} names no key"
    assert ADDRESS.search(text), f"the snippet of {title} names no address"
    return ADDRESS.sub(url, text).replace(KEY, key)


def documented(title: str, url: str, key: str) -> dict[str, Any]:
    """Run a section's Python snippet; return its variables."""
    names: dict[str, Any] = {}
    exec(compile(snippet(title, url, key), f"{PAGE}: {title}", "exec"), names)
    return names


def lacking(reason: str) -> None:
    """Skip the test with a reason; in CI, where nothing may be missing, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def serving() -> "subprocess.Popen[str]":
    """Start the server under test, in the project's own environment."""
    command = [os.environ["CITADEL_PYTHON"], "-m", "tests.clients.serve"]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
