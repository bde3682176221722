"""Load on an HTTP server from a process of its own: raw connections, one request under way on each.

Reads a job as a line of JSON from standard input, writes one line with the count of answers and the seconds.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import uvloop


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to send: the bodies in turn, posted to one path."""

    port: int
    path: str
    bodies: list[str]
    seconds: float
    connections: int = 32


@dataclass
class Tally:
    """What came back."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One connection: sends the next request as soon as an answer is complete."""

    def __init__(self, requests: Iterator[bytes], tally: Tally) -> None:
        self._requests = requests
        self._tally = tally
        self._received = bytearray()
        self._expected: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the first request."""
        self._transport = cast("asyncio.WriteTransport", transport)  # by type uvloop's is none
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        """Takes what is there of an answer."""
        self._received += data
        if self._expected is None:
            self._read_head()
        if self._expected is not None and len(self._received) >= self._expected:
            self._tally.answers += 1
            self._received.clear()
            self._expected = None
            self._transport.write(next(self._requests))

    def _read_head(self) -> None:
        head, separator, _ = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        if b" 200 " not in head[:16]:
            self._tally.failures.append(self._received[:300].decode("latin-1"))
        length = head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0]
        self._expected = len(head) + len(separator) + int(length)


def _request(job: Job, body: str) -> bytes:
    content = body.encode()
    head = (
        f"POST {job.path} HTTP/1.1\r\nhost: 127.0.0.1:{job.port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def run(job: Job) -> tuple[Tally, float]:
    """Keeps all connections busy for the job's seconds."""
    tally = Tally()
    requests = itertools.cycle([_request(job, body) for body in job.bodies])
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: Client(requests, tally), "127.0.0.1", job.port)
        for _ in range(job.connections)
    ]
    tally.answers, started = 0, time.perf_counter()
    await asyncio.sleep(job.seconds)
    seconds = time.perf_counter() - started
    for transport, _ in opened:
        transport.abort()
    return tally, seconds


def main() -> None:
    """One job."""
    tally, seconds = uvloop.run(run(Job(**json.loads(sys.stdin.readline()))))
    print(json.dumps({"answers": tally.answers, "failures": tally.failures[:3], "seconds": seconds}))


if __name__ == "__main__":
    main()
