"""A client of the double in this process, without a socket."""

import asyncio

import httpx
import numpy as np

from tests.doubles.ollama.app import OllamaDouble
from tests.doubles.ollama.settings import OllamaSettings

MODEL = "nomic-embed-text"


class Client:
    """Asks an application in this process, without a socket."""

    def __init__(self, **settings):
        self.app = OllamaDouble(OllamaSettings(**settings))

    async def send(self, method, path, **request):
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://double") as client:
            return await client.request(method, path, **request)

    def get(self, path, **request):
        return asyncio.run(self.send("GET", path, **request))

    def post(self, path, data=None, **request):
        return asyncio.run(self.send("POST", path, json=data, **request))

    def embed(self, texts, **fields):
        return self.post("/api/embed", {"model": MODEL, "input": texts, **fields})

    def openai(self, texts, **fields):
        return self.post("/v1/embeddings", {"model": MODEL, "input": texts, **fields})

    def behaviour(self, mode, **parameters):
        answer = self.post("/_double/behaviour", {"mode": mode, **parameters})
        assert answer.status_code == 200, answer.text

    def stats(self):
        return self.get("/_double/stats").json()


def floats(vectors):
    """Return vectors as the double computes them."""
    return np.asarray(vectors, dtype=np.float32)


def gathered(double, count):
    """Ask several times at once; return the sorted statuses."""

    async def ask():
        request = {"model": MODEL, "input": "a"}
        return await asyncio.gather(*(double.send("POST", "/api/embed", json=request) for _ in range(count)))

    return sorted(answer.status_code for answer in asyncio.run(ask()))
