"""What a server is: its protocol, the model to ask, and whether it embeds or answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from citadel_client.conformance.findings import Finding
from citadel_client.conformance.protocols import WIRES, Style, Wire
from citadel_client.conformance.server import Reply, Server
from citadel_contracts.base_urls import ollama_base

Kind = Literal["embedding", "llm"]
_EMBEDS = re.compile(r"embed|minilm|bge|(^|[/-])e5|gte|mxbai|nomic|jina|arctic")
SHOWN = 8
"""Names of models that a message lists."""


class Undetected(Exception):
    """The run cannot tell what to ask; the message names the option that says it."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is under test.

    Attributes:
        server: Its HTTP side.
        wire: Its protocol.
        kind: What it does.
        model: The model.
        listed: The listed models; None if there is no list.
        findings: Of the list of models.
    """

    server: Server
    wire: Wire
    kind: Kind
    model: str
    listed: Sequence[dict[str, Any]] | None
    findings: Sequence[Finding]

    @property
    def entry(self) -> dict[str, Any]:
        """The model's entry in the list; empty if it is not listed."""
        return next((found for found in self.listed or () if found["name"] == bare(self.model)), {})


def bare(model: str) -> str:
    """Return the name of a model without the tag of the newest."""
    return model.removesuffix(":latest")


def subject(server: Server, *, style: Style | None, kind: Kind | None, model: str | None) -> Subject:
    """Return what is under test; what is not given is found out.

    Raises:
        NoAnswer: The server cannot be reached.
        Undetected: It cannot be found out.
    """
    wire = WIRES[style or _style(server)]
    reply = server.get(wire.models_url(server.url), "models")
    listed = _listed(wire, reply)
    chosen = model or _chosen(listed, kind, reply)
    found = kind or _kind(server, wire, chosen)
    return Subject(
        server=server,
        wire=wire,
        kind=found,
        model=chosen,
        listed=listed,
        findings=_of_list(wire, reply, listed, chosen),
    )


def _style(server: Server) -> Style:
    """Return the protocol: Ollama's if its version is there, unless the URL ends with OpenAI's `/v1`."""
    if urlsplit(server.url).path.endswith("/v1"):
        return "openai"
    reply = server.get(ollama_base(server.url).route("/api/version"), "protocol")
    return "ollama" if reply.ok and isinstance(reply.body, dict) and "version" in reply.body else "openai"


def _listed(wire: Wire, reply: Reply) -> list[dict[str, Any]] | None:
    return [entry | {"name": bare(entry["name"])} for entry in wire.models(reply)] if reply.ok else None


def _chosen(listed: Sequence[dict[str, Any]] | None, kind: Kind | None, reply: Reply) -> str:
    """Return the only model, or the first whose name suits the kind."""
    if reply.status in {401, 403}:
        raise Undetected(f"the server refuses the credentials ({reply.refused}): give --api-key-file or --api-key-env")
    names = [str(entry["name"]) for entry in listed or ()]
    if kind is not None and len(names) > 1:
        names = [name for name in names if bool(_EMBEDS.search(name.lower())) == (kind == "embedding")] or names
    if len(names) == 1:
        return names[0]
    raise Undetected(f"name a model with --model; the server lists {', '.join(names[:SHOWN]) or 'none'}")


def _kind(server: Server, wire: Wire, model: str) -> Kind:
    reply = server.post(wire.embed_url(server.url), {"model": model, "input": ["a"]}, "kind")
    if reply.ok and any(vector is not None for vector in wire.vectors(reply)):
        return "embedding"
    asked = server.post(wire.chat_url(server.url), wire.question(model, "Hi", 1), "kind")
    if asked.ok:
        return "llm"
    for refused in (reply, asked):
        if refused.status in {401, 403}:
            raise Undetected(f"the server refuses the credentials ({refused.refused}): check the API key")
    raise Undetected(
        f"{model!r} neither embeds ({reply.refused}: {reply.words}) nor answers ({asked.refused}: {asked.words}); "
        "check --model and the URL, or say --kind"
    )


def _of_list(wire: Wire, reply: Reply, listed: Sequence[dict[str, Any]] | None, model: str) -> tuple[Finding, Finding]:
    names = [entry["name"] for entry in listed or ()]
    if listed is None:
        result = "no such route" if reply.status in {404, 405} else reply.refused
        models = Finding(check="models", result=result, grade="note", detail=reply.words)
    elif bare(model) in names:
        models = Finding(check="models", result="listed", detail=f"{len(names)} models")
    else:
        models = Finding(check="models", result="not among them", grade="note", detail=", ".join(names[:SHOWN]))
    digests = [entry["digest"] for entry in listed or () if entry["name"] == bare(model) and entry.get("digest")]
    versions = (
        Finding(check="versions", result="digest", detail=str(digests[0])[:19])
        if digests
        else Finding(check="versions", result="none", grade="note", detail=f"{wire.style} lists no digest")
    )
    return models, versions
