"""Settings that fit a server, as lines of an environment file."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping

from citadel_client.conformance.detection import Subject, bare
from citadel_client.conformance.findings import Finding

_LIMIT = re.compile(
    r"(?:maximum context length is|batch size:|maximum (?:input )?length (?:is|of)|less than|context size \()"
    r"\s*(\d{2,7})"
)
KEY_FILE = "/run/secrets/NAME"


def settings_for(subject: Subject, findings: Mapping[str, Finding], *, size: int, name: str) -> list[str]:
    """Return the lines for a backend or endpoint of that name; a key is a file's name, never the key."""
    if subject.kind == "llm":
        return list(_of_endpoint(subject, findings, name))
    return list(_of_backend(subject, findings, name, size))


def _of_backend(subject: Subject, findings: Mapping[str, Finding], name: str, size: int) -> Iterator[str]:
    prefix = f"CITADEL_EMBEDDINGS__BACKENDS__{name}__"
    yield f"{prefix}KIND={subject.wire.style}"
    yield f"{prefix}URLS={subject.server.pasted}"
    yield from _key(subject, prefix)
    if findings["models"].result != "listed":
        yield f"{prefix}MODELS={shlex.quote(subject.model)}"
    if _result(findings, "large batch").startswith("refused"):
        yield f"{prefix}MAX_BATCH_TEXTS=8"
    if subject.wire.style == "openai":
        yield "# The server names no versions: change this when another model gets the same name."
        yield f"{prefix}REVISION=1"
    profile: dict[str, object] = {"dimensions": size}
    if limit := _token_limit(subject, findings):
        profile["max_tokens"] = limit
    yield "# Not needed for a model that Citadel knows."
    yield f"CITADEL_EMBEDDINGS__PROFILES={shlex.quote(json.dumps({bare(subject.model): profile}))}"


def _of_endpoint(subject: Subject, findings: Mapping[str, Finding], name: str) -> Iterator[str]:
    prefix = f"CITADEL_LLM__ENDPOINTS__{name}__"
    yield f"{prefix}URL={subject.server.pasted}"
    yield f"{prefix}STYLE={subject.wire.style}"
    yield f"{prefix}MODEL={shlex.quote(subject.model)}"
    yield from _key(subject, prefix)
    if _result(findings, "stream") not in {"in pieces", ""}:
        yield f"{prefix}STREAM=false"
    if _result(findings, "usage in the stream") == "missing" and subject.wire.style == "openai":
        yield f"{prefix}STREAM_USAGE=false"
    if _result(findings, "JSON schema") != "honoured":
        mode = "object" if _result(findings, "JSON mode") == "honoured" else "prompt"
        yield f"{prefix}JSON_MODE={mode}"


def _key(subject: Subject, prefix: str) -> Iterator[str]:
    if subject.server.has_secrets_in_url:
        yield "# The URL above lacks its user, password or query, which may be secret: add them."
    key = subject.server.key
    if key is None:
        return
    header = "API_KEY" if key[0].lower() == "authorization" else f"HEADERS__{key[0].upper().replace('-', '_')}"
    yield f"{prefix}{header}_FILE={KEY_FILE}"


def _result(findings: Mapping[str, Finding], check: str) -> str:
    return findings[check].result if check in findings else ""


def _token_limit(subject: Subject, findings: Mapping[str, Finding]) -> int | None:
    """Return the model's tokens: the smaller of what the list says and what the refusal of a long text says."""
    said = [_LIMIT.search(found.detail.lower()) for check, found in findings.items() if check.startswith("too long")]
    numbers = [int(match[1]) for match in said if match]
    listed = subject.entry.get("max_tokens")
    return min([*numbers, *([listed] if isinstance(listed, int) and listed > 0 else [])], default=None)
