"""Run one Citadel that all foreign clients call; print its addresses as one line of JSON, serve until stdin closes.

Runs in the project's own environment. `nomic-embed-text` comes from a double of Ollama, which has faults on demand,
`bge-m3` from the same by OpenAI's protocol; `all-minilm` is the local model. Exits with 1 if a process wrote a secret
or a text to its log, metrics or spans.
"""

import hashlib
import json
import sys
import tempfile
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

import httpx

from tests.doubles.process import OllamaProcess
from tests.integration.api.servers import Api, RedisServer
from tests.support.disclosure import DISCLOSURES
from tests.support.planted import BEARER, planted
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.worker import BACKEND, WorkerProcess

READER = planted("reader-key")
ORIGIN = "https://app.example"
"""The origin whose pages may call the API."""
MODELS = ("nomic-embed-text", "bge-m3")
"""Models of the double."""
WORKER = {
    f"{BACKEND}MODELS": "nomic-embed-text",
    f"{BACKEND}TIMEOUT": "1",
    "EMBEDDINGS__BACKENDS__remote__KIND": "openai",
    "EMBEDDINGS__BACKENDS__remote__MODELS": "bge-m3",
    "EMBEDDINGS__BACKENDS__builtin__KIND": "local",
    "EMBEDDINGS__LOCAL_THREADS": "1",
    "EMBEDDINGS__PATIENCE": "1",
}
KEYS = [
    {"name": name, "hash": hashlib.sha256(secret.encode()).hexdigest(), "scopes": scopes}
    for name, secret, scopes in (("all", BEARER, ["read", "submit"]), ("reader", READER, ["read"]))
]
APIS = {
    "main": {"KEYS": json.dumps(KEYS), "CORS_ORIGINS": json.dumps([ORIGIN])},
    "keyless": {"MAX_BODY_BYTES": "100000"},
    "limited": {"RATE_PER_MINUTE": "1"},
}
"""The API servers and their settings."""


def serve(stack: ExitStack, directory: Path) -> dict[str, str]:
    """Start all processes; return their addresses and the keys."""
    redis = stack.enter_context(RedisServer())
    dsn = stack.enter_context(stack.enter_context(PostgresProcess()).database())
    double = stack.enter_context(OllamaProcess(slots=4, models=MODELS))
    stack.enter_context(WorkerProcess(redis.url, double.url, EMBEDDINGS__BACKENDS__remote__URLS=double.url, **WORKER))
    addresses = {"double": double.url, "key": BEARER, "reader_key": READER, "origin": ORIGIN}
    stores = {"CITADEL_BROKER_URL": redis.url, "CITADEL_POSTGRES_DSN": dsn, "CITADEL_API__WORKERS": "1"}
    for name, settings in APIS.items():
        api = Api(stores | {f"CITADEL_API__{key}": value for key, value in settings.items()}, directory / name)
        stack.callback(api.kill_all)
        addresses[name] = f"{api.url}/v1"
    models = {"url": f"{addresses['main']}/models", "headers": {"authorization": f"Bearer {BEARER}"}}
    eventually(lambda: len(httpx.get(**models).json()["data"]) > len(MODELS))
    return addresses


def main() -> int:
    """Serve until stdin closes; return the exit code."""
    output = sys.stdout
    # what the processes' helpers print is not for the reader of the addresses
    with tempfile.TemporaryDirectory() as directory, redirect_stdout(sys.stderr):
        with ExitStack() as stack:
            print(json.dumps(serve(stack, Path(directory))), file=output, flush=True)
            sys.stdin.read()
        found = DISCLOSURES.taken()
    print(*found, sep="\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
