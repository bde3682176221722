"""The load of a storm: threads that send work at a steady rate, whatever happens, and write down what was accepted."""

import itertools
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import httpx
from celery import Celery, chain
from kombu.exceptions import OperationalError
from redis import RedisError

from tests.chaos.storm.definitions import SHAPES, SIGNAL, Workflow
from tests.chaos.storm.expectations import MODEL, vectors_problem
from tests.chaos.storm.ledger import Entry, Fate, Kind, Ledger

REFUSALS = frozenset({429, 502, 503, 504})
"""Answers by which a server says that it takes nothing now."""
HTTP_S = 15.0
BATCH_SIZE = 20
PRODUCER = {"socket_timeout": 5, "socket_connect_timeout": 2, "socket_keepalive": True}
SIGNAL_ATTEMPTS = 600


class Load:
    """Sends work of each kind; each method sends one piece and returns its entry.

    Args:
        ledger: Where it is written down.
        url: The API's.
        broker: The broker's URL for plain Celery tasks, and the transport options that belong to it.
        seed: Seed of what is random in the work.
    """

    def __init__(self, ledger: Ledger, url: str, broker: tuple[str, dict[str, Any]], seed: int) -> None:
        self.ledger = ledger
        self._random = Random(seed)
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
        self._http = httpx.Client(base_url=url, timeout=HTTP_S, limits=limits)
        self._celery = Celery("storm", broker=broker[0], backend="disabled://", set_as_current=False)
        # without a pool: what has become of idle connections during a fault is not the server's healing
        self._celery.conf.update(
            broker_transport_options=PRODUCER | broker[1], task_publish_retry=False, broker_pool_limit=0
        )
        self._over = threading.Event()

    def embedding(self) -> Entry:
        """Ask for vectors and wait for them."""
        entry = self.ledger.offer(Kind.EMBEDDING)
        texts = [f"text {index} of {entry.name}" for index in range(1 + entry.number % 3)]
        with self.ledger.refusing(entry, httpx.TransportError):
            answer = self._http.post("/v1/embeddings", json={"input": texts, "model": MODEL})
            if self._is_taken(entry, answer, 200):
                found = [item["embedding"] for item in answer.json()["data"]]
                problem = vectors_problem(found, texts)
                self.ledger.end(entry, Fate.WRONG if problem else Fate.FINISHED, problem)
        return entry

    def task(self) -> Entry:
        """Hand in a task."""
        entry = self.ledger.offer(Kind.TASK)
        entry.expected = [f"text {index} of {entry.name}" for index in range(2)]
        with self.ledger.refusing(entry, httpx.TransportError):
            answer = self._http.post("/v1/embeddings/tasks", json={"text": entry.expected, "model": MODEL})
            if self._is_taken(entry, answer, 202):
                self.ledger.accept(entry, answer.json()["task_id"])
        return entry

    def batch(self) -> Entry:
        """Hand in a batch, again with the same key where it is not known whether it was accepted."""
        entry = self.ledger.offer(Kind.BATCH)
        entry.expected = [f"request {index} of {entry.name}" for index in range(BATCH_SIZE)]
        requests = [{"text": text, "model": MODEL, "request_id": text} for text in entry.expected]
        self._submit(entry, "/v1/embeddings/batches", {"requests": requests, "idempotency_key": entry.name})
        return entry

    def workflow(self, shape: Callable[[str, int], Workflow] | None = None) -> Entry:
        """Hand in a workflow, and send it the signal that it waits for."""
        entry = self.ledger.offer(Kind.WORKFLOW)
        wanted = (shape or SHAPES[entry.number % len(SHAPES)])(entry.name, entry.number)
        entry.expected = wanted.problem
        self._submit(entry, "/v1/workflows", wanted.definition)
        if wanted.signals and entry.fate is Fate.OPEN:
            self._signal(entry)
        return entry

    def plain(self) -> Entry:
        """Send a task straight to the broker."""
        entry = self.ledger.offer(Kind.PLAIN)
        entry.expected = [f"text {index} of {entry.name}" for index in range(2)]
        return self._send(entry, "generate_embedding", (entry.expected, MODEL), queue="embeddings")

    def countdown(self) -> Entry:
        """Send a task straight to the broker that is due in some seconds."""
        entry = self.ledger.offer(Kind.COUNTDOWN)
        entry.expected = [f"text of {entry.name}"]
        entry.delay = self._random.uniform(1, 6)
        options = {"queue": "embeddings", "countdown": entry.delay, "priority": 3}
        return self._send(entry, "generate_embedding", (entry.expected, MODEL), **options)

    def plain_workflow(self) -> Entry:
        """Start a run by a task straight to the broker."""
        entry = self.ledger.offer(Kind.PLAIN_WORKFLOW)
        wanted = SHAPES[0](entry.name, entry.number)
        entry.expected = wanted.problem
        return self._send(entry, "execute_workflow", (wanted.definition,), queue="orchestration", priority=3)

    def canvas(self) -> Entry:
        """Send a chain straight to the broker; its end is that of its last task."""
        entry = self.ledger.offer(Kind.CANVAS)
        entry.expected = [f"last text of {entry.name}"]
        entry.handle = str(uuid.uuid4())
        links = [f"link {index} of {entry.name}" for index in range(2)]
        tasks = [self._signature(text) for text in links] + [self._signature(entry.expected, task_id=entry.handle)]
        return self._publish(entry, chain(*tasks).apply_async)

    def _signature(self, texts: Any, **options: Any) -> Any:
        wanted = {"queue": "embeddings", "priority": 3} | options
        return self._celery.signature("generate_embedding", args=(texts, MODEL), immutable=True, options=wanted)

    def _is_taken(self, entry: Entry, answer: httpx.Response, status: int) -> bool:
        """Return whether the answer has the status; else record the refusal, or the wrong answer."""
        if answer.status_code != status:
            fate = Fate.REFUSED if answer.status_code in REFUSALS else Fate.WRONG
            self.ledger.end(entry, fate, f"{answer.status_code} {answer.text[:300]}")
        return answer.status_code == status

    def _submit(self, entry: Entry, path: str, body: dict[str, Any]) -> None:
        for attempt in itertools.count(1):
            try:
                answer = self._http.post(path, json=body)
            except httpx.TransportError as error:
                # it may have been accepted: the key tells, and only the answer to it makes it count
                if attempt == 3:
                    self.ledger.end(entry, Fate.REFUSED, f"no answer: {type(error).__name__}")
                    return
                self._over.wait(0.5)
            else:
                if self._is_taken(entry, answer, 202):
                    self.ledger.accept(entry, answer.json()["run_id"])
                return

    def _signal(self, entry: Entry) -> None:
        """Send the signal until it is accepted; sent twice it is kept twice, which the run does not see."""
        for _ in range(SIGNAL_ATTEMPTS):
            with suppress(httpx.TransportError):
                answer = self._http.post(f"/v1/runs/{entry.handle}/signals/{SIGNAL}", json={"name": entry.name})
                if answer.status_code not in REFUSALS:
                    if answer.status_code not in {202, 409}:  # 409: it has ended, by a signal that got no answer
                        self.ledger.end(entry, Fate.WRONG, f"the signal: {answer.status_code} {answer.text[:300]}")
                    return
            if self._over.wait(0.2):
                return

    def _send(self, entry: Entry, name: str, args: tuple[Any, ...], **options: Any) -> Entry:
        entry.handle = str(uuid.uuid4())
        return self._publish(entry, lambda: self._celery.send_task(name, args=args, task_id=entry.handle, **options))

    def _publish(self, entry: Entry, publish: Callable[[], object]) -> Entry:
        try:
            publish()
        except (OperationalError, OSError, RedisError) as error:
            entry.reason = type(error).__name__
            self.ledger.accept(entry, entry.handle, Fate.UNCERTAIN)
        else:
            self.ledger.accept(entry, entry.handle)
        return entry

    def give_up(self) -> None:
        """Wait for no acceptance any more."""
        self._over.set()

    def close(self) -> None:
        """Close all connections."""
        self.give_up()
        self._http.close()
        self._celery.close()


class Senders:
    """Threads that send work at steady rates until they are stopped.

    Args:
        sends: A way to send a piece of work, and its pieces per second.
        threads: Threads for each, so that one piece that waits does not hold up the next.
    """

    def __init__(self, sends: dict[Callable[[], Any], float], *, threads: int) -> None:
        self._over = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(send, threads / rate, index / rate), daemon=True)
            for send, rate in sends.items()
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, send: Callable[[], Any], period: float, first: float) -> None:
        due = time.monotonic() + first
        while not self._over.wait(max(0.0, due - time.monotonic())):
            # what is late is not made up for: the load stays steady after an outage
            due = max(due + period, time.monotonic())
            try:
                send()
            except BaseException as error:
                self._errors.append(error)
                raise

    def stop(self) -> None:
        """Send nothing more, and wait for what is being sent.

        Raises:
            ExceptionGroup: Senders have failed, by faults of their own.
        """
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise BaseExceptionGroup("senders have failed", self._errors)
