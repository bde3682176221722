"""Double of the run routes: scripted answers and streams."""

import json
from collections import deque
from collections.abc import AsyncIterator, Iterator

import httpx

NOW = "2026-01-01T00:00:00Z"


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Body in pieces of a given size, which may break off."""

    def __init__(self, body: bytes, size: int, breaks: httpx.TransportError | None) -> None:
        self._pieces = [body[at : at + size] for at in range(0, len(body), size)]
        self._breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._breaks:
            raise self._breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def streamed(body: str, *, size: int = 7, breaks: httpx.TransportError | None = None) -> httpx.Response:
    return httpx.Response(200, stream=Pieces(body.encode(), size, breaks))


def dropped(body: str, size: int = 7) -> httpx.Response:
    return streamed(body, size=size, breaks=httpx.ReadError("gone"))


def event(seq: int, kind: str = "step_succeeded", **more: object) -> str:
    body = {"seq": seq, "at": NOW, "type": kind, **more}
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(body)}\n\n"


END = "event: end\ndata: {}\n\n"


def result(index: int, **more: object) -> str:
    return (
        json.dumps({"index": index, "request_id": f"r{index}", "embeddings": [[1.0, 2.0]], "model": "m", **more}) + "\n"
    )


def run_view(status: str = "succeeded", **more: object) -> dict[str, object]:
    head = {"run_id": "r-1", "workflow_id": "w", "kind": "workflow", "status": status, "created_at": NOW}
    return {**head, "steps": [], "output": None, **more}


def failed_view() -> dict[str, object]:
    return run_view("failed", error={"code": "not_found", "message": "nothing there", "step_id": "docs"})


class RunDouble:
    """Server that gives scripted answers, in order."""

    def __init__(self, *script: httpx.Response | BaseException) -> None:
        self.script = deque(script)
        self.requests: list[httpx.Request] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.script.popleft()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def headers(self, header: str) -> list[str | None]:
        return [request.headers.get(header) for request in self.requests]

    def bodies(self) -> list[dict[str, object]]:
        return [json.loads(request.content) for request in self.requests if request.content]


def answer(body: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


def accepted() -> httpx.Response:
    return answer({"run_id": "r-1", "workflow_id": "w", "status": "queued"}, 202)
