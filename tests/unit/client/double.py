"""Double of the HTTP API, in process: scripted answers first, then regular ones."""

import asyncio
import base64
import inspect
import json
from collections import deque
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np

from citadel_client import AsyncCitadel, Citadel, RetryPolicy

AT_ONCE = RetryPolicy(attempts=4, base=0.0)
Scripted = httpx.Response | BaseException


def vector_of(text: str) -> list[float]:
    """Return a vector from which the text can be recognised."""
    return [float(len(text)), float(sum(text.encode())), 1.0]


def encoded(text: str) -> str:
    return base64.b64encode(np.array(vector_of(text), dtype="<f4").tobytes()).decode()


def problem(status: int, code: str = "invalid_input", headers: dict[str, str] | None = None, **more: Any):
    body = {"title": "No", "status": status, "detail": "it is no good", "code": code, "trace_id": "t1", **more}
    return httpx.Response(status, json=body, headers=headers)


def openai_error(status: int, message: str, param: str | None = None, code: str = "invalid_input"):
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code, "trace_id": "t2"}
    return httpx.Response(status, json={"error": error})


class Double:
    """Server that refuses texts that start with `bad`, and names them if `names_texts`."""

    def __init__(self, *script: Scripted, names_texts: bool = True) -> None:
        self.script = deque(script)
        self.names_texts = names_texts
        self.requests: list[httpx.Request] = []
        self.polls = 0

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests if request.content]

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.script:
            answer = self.script.popleft()
            if isinstance(answer, BaseException):
                raise answer
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)
        return ROUTES[request.method, request.url.path.replace("/t-1", "/{id}")](self, request)

    def embeddings(self, request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["input"]
        bad = [place for place, text in enumerate(texts) if text.startswith("bad")]
        if bad and self.names_texts:
            return openai_error(400, f"input[{bad[0]}]: a bad text", "input")
        if bad:
            return openai_error(422, "the backend refuses a text", code="text_rejected")
        data = [{"index": i, "object": "embedding", "embedding": encoded(text)} for i, text in enumerate(texts)]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        extra = {"cache_hits": sum(text.startswith("hit") for text in texts), "truncated": [0]}
        data.reverse()
        return httpx.Response(200, json={"data": data, "model": "m", "usage": usage, "citadel": extra})

    def accept(self, _request: httpx.Request) -> httpx.Response:
        return httpx.Response(202, json={"task_id": "t-1", "status": "queued", "queue": "embeddings"})

    def task(self, _request: httpx.Request) -> httpx.Response:
        self.polls += 1
        if self.polls < 3:
            return httpx.Response(200, json={"task_id": "t-1", "status": "running"})
        result = {
            "success": False,
            "task_id": "t-1",
            "embeddings": [encoded("one"), None],
            "model_used": "m",
            "dimensions": 3,
            "cache_hits": 1,
            "errors": [{"index": 1, "code": "text_rejected", "message": "a bad text"}],
            "cache_warming_results": {"warmed": 2, "skipped": 1, "errors": 0},
        }
        return httpx.Response(200, json={"task_id": "t-1", "status": "succeeded", "result": result})


ROUTES: dict[tuple[str, str], Callable[[Double, httpx.Request], httpx.Response]] = {
    ("POST", "/v1/embeddings"): Double.embeddings,
    ("POST", "/v1/embeddings/tasks"): Double.accept,
    ("POST", "/v1/cache/warm"): Double.accept,
    ("GET", "/v1/tasks/{id}"): Double.task,
    ("GET", "/v1/health"): lambda *_: httpx.Response(503, json={"status": "down", "version": "1", "components": {}}),
    ("GET", "/v1/queues"): lambda *_: httpx.Response(
        200, json={"queues": [{"name": "embeddings", "lanes": {}, "ready": 1, "unacked": 2, "workers": 3, "new": 1}]}
    ),
    ("GET", "/v1/workers"): lambda *_: httpx.Response(200, json={"workers": []}),
    ("GET", "/v1/models"): lambda *_: httpx.Response(
        200, json={"data": [{"id": "m", "owned_by": "b", "citadel": {"name": "m", "identity": "m@1", "backend": "b"}}]}
    ),
    ("GET", "/v1/cache"): lambda *_: httpx.Response(
        200,
        json={
            "available": True,
            "entries": 1,
            "hits": 2,
            "misses": 2,
            "hit_rate": 0.5,
            "memory_bytes": 10,
            "memory_limit_bytes": 0,
            "evicted": 0,
        },
    ),
}


def talk_sync(double: Double, use: Callable[[Any], Any], **options: Any) -> Any:
    options.setdefault("retry", AT_ONCE)
    with Citadel("http://api.test", transport=httpx.MockTransport(double.handle), **options) as citadel:
        found = use(citadel)
        return list(found) if inspect.isgenerator(found) else found


def talk_async(double: Double, use: Callable[[Any], Any], **options: Any) -> Any:
    options.setdefault("retry", AT_ONCE)

    async def run() -> Any:
        async with AsyncCitadel("http://api.test", transport=httpx.MockTransport(double.handle), **options) as citadel:
            found = use(citadel)
            return [item async for item in found] if hasattr(found, "__aiter__") else await found

    return asyncio.run(run())
