"""Load on an HTTP server from a process of its own: raw connections, one request under way on each.

Reads a job as a line of JSON from standard input, writes one line with the count of answers and the seconds.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import cast

import uvloop


@dataclass(frozen=True, kw_only=True)
class Job:
    """Requests to send: the bodies in turn, posted to one path."""

    port: int
    path: str
    bodies: list[str]
    seconds: float
    connections: int = 32


@dataclass
class Answers:
    """Number of answers, and descriptions of failures."""

    count: int = 0
    failures: list[str] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One connection, with one request under way at any time."""

    def __init__(self, requests: Iterator[bytes], answers: Answers) -> None:
        self._requests = requests
        self._answers = answers
        self._received = bytearray()
        self._expected: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's transports are not subclasses of it
        self._transport.write(next(self._requests))

    def connection_lost(self, exc: Exception | None) -> None:
        """Record a failure; connections that the load itself ends come too late to be counted."""
        self._answers.failures.append(f"the server ended a connection: {exc or 'closed'}")

    def data_received(self, data: bytes) -> None:
        """Collect an answer; send the next request once it is complete."""
        self._received += data
        if self._expected is None:
            self._read_head()
        if self._expected is not None and len(self._received) >= self._expected:
            self._answers.count += 1
            self._received.clear()
            self._expected = None
            self._transport.write(next(self._requests))

    def _read_head(self) -> None:
        head, separator, _ = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        if b" 200 " not in head[:16]:
            self._answers.failures.append(self._received[:300].decode("latin-1"))
        length = head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0]
        self._expected = len(head) + len(separator) + int(length)


def _request(job: Job, body: str) -> bytes:
    content = body.encode()
    head = (
        f"POST {job.path} HTTP/1.1\r\nhost: 127.0.0.1:{job.port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def run(job: Job) -> tuple[Answers, float]:
    """Keep all connections busy for the job's seconds; return the answers and the seconds that it took."""
    answers = Answers()
    requests = itertools.cycle([_request(job, body) for body in job.bodies])
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: Client(requests, answers), "127.0.0.1", job.port)
        for _ in range(job.connections)
    ]
    answers.count, started = 0, time.perf_counter()
    await asyncio.sleep(job.seconds)
    seconds = time.perf_counter() - started
    found = replace(answers, failures=list(answers.failures))
    for transport, _ in opened:
        transport.abort()
    return found, seconds


def main() -> None:
    """Run one job."""
    answers, seconds = uvloop.run(run(Job(**json.loads(sys.stdin.readline()))))
    print(json.dumps({"answers": answers.count, "failures": answers.failures[:3], "seconds": seconds}))


if __name__ == "__main__":
    main()
