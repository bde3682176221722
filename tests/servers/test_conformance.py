"""The conformance run: the same table for a double and for the server that it stands for."""

from citadel_client.conformance.run import check
from citadel_client.conformance.server import MOST_CALLS, Server
from citadel_common.settings.common import load
from citadel_embeddings.settings import EmbeddingsSettings
from citadel_orchestration.settings import EngineSettings

EMBEDS = {
    "models": "listed",
    "vectors": "one for each text",
    "length": "1",
    "usage": "counted",
    "order": "kept",
    "batch": "as alone",
    "duplicates": "the same vector",
    "large batch": "32 texts",
    "empty text": "a vector",
    "Unicode": "a vector each",
    "at once": "8 of 8",
    "authorization": "no key was given",
}
OLLAMA = EMBEDS | {
    "versions": "digest",
    "too long, truncate false": "refused with 400",
    "too long, truncate true": "cut without a word",
    "dimensions": "honoured",
    "unknown model": "refused with 404",
    "bad input": "refused with 400",
    "error form": "Ollama's",
}
LLAMA = EMBEDS | {
    "versions": "none",
    "too long": "refused with 500",
    "dimensions": "ignored",
    "base64": "honoured",
    "token arrays": "a vector",
    "unknown model": "answered all the same",
    "bad input": "refused with 500",
    "error form": "OpenAI's",
}
LLM = {
    "models": "listed",
    "versions": "none",
    "answer": "words",
    "finish reason": "given",
    "usage": "counted",
    "token limit": "honoured",
    "reasoning": "none seen",
    "stream": "in pieces",
    "end of the stream": "marked",
    "usage in the stream": "counted",
    "JSON mode": "honoured",
    "JSON schema": "honoured",
    "too long": "refused with 400",
    "at once": "8 of 8",
    "unknown model": "answered all the same",
    "bad input": "refused with 400",
    "error form": "OpenAI's",
    "authorization": "no key was given",
}


def checked(server):
    """The report on a server."""
    subject = Server(server.url, key=None, timeout=60)
    try:
        return check(subject, model=server.model)
    finally:
        subject.close()


def variables(report):
    """The settings as the environment has them."""
    lines = [line for line in report.settings if not line.startswith("#")]
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


def test_ollama_embeds_as_its_double_does(ollama_server, monkeypatch):
    report = checked(ollama_server)
    assert report.table() == OLLAMA
    assert (report.style, report.kind, report.fits) == ("ollama", "embedding", True)
    for name, value in variables(report).items():
        monkeypatch.setenv(name, value)
    backend = load(EmbeddingsSettings).embeddings.backends["main"]
    assert (backend.kind, backend.urls) == ("ollama", [ollama_server.url])


def test_llama_server_embeds_as_its_double_does(openai_server, monkeypatch):
    report = checked(openai_server)
    assert report.table() == LLAMA
    for name, value in variables(report).items():
        monkeypatch.setenv(name, value)
    embeddings = load(EmbeddingsSettings).embeddings
    assert embeddings.backends["main"].revision == "1"
    assert embeddings.profiles[openai_server.model].dimensions == 384
    assert embeddings.profiles[openai_server.model].max_tokens in {256, 512}


def test_llama_server_answers_as_its_double_does(llm_server, monkeypatch):
    report = checked(llm_server)
    assert report.table() == LLM
    for name, value in variables(report).items():
        monkeypatch.setenv(name, value)
    endpoint = load(EngineSettings).llm.endpoints["main"]
    assert (endpoint.url, endpoint.model, endpoint.json_mode, endpoint.stream) == (
        llm_server.url, llm_server.model, "schema", True,
    )  # fmt: skip
    assert len(report.calls) < MOST_CALLS
