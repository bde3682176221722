"""The commands of Celery's remote control that a worker answers, and those that it refuses.

It answers what looks, and revokes. It refuses what would change the worker: its threads, queue and limits come from its
settings, and its end from the supervisor. No answer has arguments of tasks, which are texts of users, or secrets.
"""

import os
import platform
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import structlog
from celery.worker import state as worker_state

from citadel_common.delivery.entries import is_task_id
from citadel_common.delivery.revoked import as_list, stamp_of
from citadel_common.stores.redis import redacted
from citadel_common.tasks.app import HIDDEN
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.worker.revocations import Revocations, known_requests, snapshot

log = structlog.get_logger(__name__)
MOST_REVOKED = 10_000
"""Revoked ids in one answer, the newest."""
REFUSED: Mapping[str, str] = {
    "pool_grow": "set CITADEL_WORKER__CONCURRENCY, or start further workers",
    "pool_shrink": "set CITADEL_WORKER__CONCURRENCY, or stop workers",
    "pool_restart": "restart the worker by its supervisor",
    "autoscale": "start and stop workers, as Kubernetes' autoscaler does",
    "shutdown": "send SIGTERM to the process, by its supervisor",
    "add_consumer": "each worker serves the queue of its service",
    "cancel_consumer": "stop the worker: it hands its tasks back",
    "rate_limit": "limits are those of the API and of the endpoints",
    "time_limit": "limits are part of each task's contract",
    "election": "workers hold no elections",
    "objgraph": "memory is seen by the metrics of the process",
    "memsample": "memory is seen by the metrics of the process",
    "memdump": "memory is seen by the metrics of the process",
}
"""Commands that are refused, and what to do instead."""
SHOWN_SETTINGS = (
    "accept_content",
    "result_accept_content",
    "result_expires",
    "result_serializer",
    "task_acks_late",
    "task_create_missing_queues",
    "task_default_exchange_type",
    "task_default_priority",
    "task_default_queue",
    "task_ignore_result",
    "task_reject_on_worker_lost",
    "task_routes",
    "task_serializer",
    "task_track_started",
    "timezone",
    "worker_concurrency",
    "worker_pool",
    "worker_prefetch_multiplier",
    "worker_send_task_events",
)
"""Celery's settings that `conf` shows: none of them holds a secret."""
TASK_ATTRIBUTES = ("exchange", "routing_key", "rate_limit", "max_retries", "ignore_result", "track_started")
"""Attributes of tasks that `registered` shows where they are asked for and set."""


class Panel:
    """The commands of one worker.

    Args:
        runtime: Of the worker.
        revocations: Carries revokes out.
        send_heartbeat: Sends the worker's event at once.
        prefetch: Returns the messages that the worker may hold.
    """

    def __init__(
        self,
        runtime: TaskRuntime,
        revocations: Revocations,
        send_heartbeat: Callable[[], None],
        prefetch: Callable[[], int],
    ) -> None:
        self._runtime = runtime
        self._revocations = revocations
        self._send_heartbeat = send_heartbeat
        self._prefetch = prefetch
        self._started = time.monotonic()
        self._commands: Mapping[str, Callable[..., Any]] = {
            "ping": self._ping,
            "hello": self._hello,
            "clock": self._clock,
            "stats": self._stats,
            "report": self._report,
            "conf": self._conf,
            "active": self._active,
            "reserved": self._reserved,
            "scheduled": self._scheduled,
            "revoked": self._revoked,
            "registered": self._registered,
            "active_queues": self._active_queues,
            "query_task": self._query_task,
            "revoke": self._revoke,
            "terminate": self._revoke,
            "revoke_by_stamped_headers": self._revoke_by_stamped_headers,
            "enable_events": self._enable_events,
            "disable_events": self._disable_events,
            "heartbeat": self._heartbeat,
        }

    def answer(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """Carry out a command; return its answer, a mapping with `error` where it is refused."""
        name = _OLD_NAMES.get(method, method)
        command = self._commands.get(name)
        if command is None:
            instead = REFUSED.get(name)
            log.warning("control_refused", command=method[:100])
            return _error("there is no such command" if instead is None else f"{name} is refused here: {instead}")
        try:
            return command(**arguments)
        except TypeError as error:
            log.warning("control_refused", command=name, error=type(error).__name__)
            return _error(f"the arguments of {name} are wrong")

    def _ping(self, **_: Any) -> Any:
        return _ok("pong")

    def _hello(self, **_: Any) -> Any:
        """Answer a worker that starts; revokes are not exchanged this way."""
        return {"revoked": [], "clock": self._runtime.app.clock.forward()}

    def _clock(self, **_: Any) -> Any:
        return {"clock": self._runtime.app.clock.value}

    def _stats(self, **_: Any) -> Any:
        settings = self._runtime.settings
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "total": dict(worker_state.total_count),
            "pid": os.getpid(),
            "clock": str(self._runtime.app.clock),
            "uptime": round(time.monotonic() - self._started),
            "pool": {
                "implementation": "celery.concurrency.thread:TaskPool",
                "max-concurrency": settings.worker.concurrency,
                "threads": len(self._runtime.running.tasks()),
            },
            "prefetch_count": self._prefetch(),
            "broker": {"transport": "redis", "hostname": redacted(settings.broker_url)},
            "rusage": {name: getattr(usage, f"ru_{name}") for name in ("utime", "stime", "maxrss")},
        }

    def _report(self, **_: Any) -> Any:
        packages = ("citadel-common", "celery", "kombu", "redis")
        software = " ".join(f"{name}:{version(name)}" for name in packages)
        return _ok(f"software -> {software} py:{platform.python_version()}\nplatform -> system:{platform.system()}")

    def _conf(self, **_: Any) -> Any:
        conf, settings = self._runtime.app.conf, self._runtime.settings
        shown = {name: conf[name] for name in SHOWN_SETTINGS}
        return shown | {"broker_url": redacted(settings.broker_url), "result_backend": redacted(settings.results)}

    def _active(self, **_: Any) -> Any:
        return [_info(request) for request in snapshot(lambda: worker_state.active_requests)]

    def _reserved(self, **_: Any) -> Any:
        active = set(snapshot(lambda: worker_state.active_requests))
        waiting = snapshot(lambda: worker_state.reserved_requests)
        return [_info(request) for request in waiting if request not in active]

    def _scheduled(self, **_: Any) -> Any:
        """Return nothing: tasks whose time has not come wait in the broker, and in no worker."""
        return []

    def _revoked(self, **_: Any) -> Any:
        return self._runtime.revoked.ids.newest(MOST_REVOKED)

    def _registered(self, taskinfoitems: Any = None, **_: Any) -> Any:
        asked = [name for name in as_list(taskinfoitems) if name in TASK_ATTRIBUTES]
        tasks = self._runtime.app.tasks
        return [_described(tasks[name], asked) for name in sorted(tasks) if not name.startswith("celery.")]

    def _active_queues(self, **_: Any) -> Any:
        return [queue.as_dict(recurse=True) for queue in self._runtime.app.conf.task_queues]

    def _query_task(self, ids: Any = None, **_: Any) -> Any:
        wanted = set(task_ids_in(ids))
        found = (request for request in known_requests() if request.id in wanted)
        return {request.id: [_state_of(request), _info(request)] for request in found}

    def _revoke(self, task_id: Any = None, **_: Any) -> Any:
        """Revoke tasks. Threads cannot be killed: `terminate` and `signal` change nothing."""
        task_ids = task_ids_in(task_id)
        if not task_ids:
            return _error("no id of a task was given")
        self._revocations.revoke(task_ids)
        log.info("tasks_revoked", tasks=len(task_ids), first=task_ids[0])
        return _ok(f"tasks {', '.join(task_ids[:10])}{' ...' * (len(task_ids) > 10)} flagged as revoked")

    def _revoke_by_stamped_headers(self, headers: Any = None, **_: Any) -> Any:
        stamps = stamps_of(headers)
        if not stamps:
            return _error("no stamped headers were given")
        self._revocations.revoke_stamps(stamps)
        log.info("stamps_revoked", stamps=len(stamps))
        return _ok(f"{len(stamps)} stamps flagged as revoked")

    def _enable_events(self, **_: Any) -> Any:
        if self._runtime.settings.worker.task_events:
            return _ok("task events already enabled")
        return _error("task events are off, as they cost throughput: set CITADEL_WORKER__TASK_EVENTS=true")

    def _disable_events(self, **_: Any) -> Any:
        if not self._runtime.settings.worker.task_events:
            return _ok("task events already disabled")
        return _error("task events are on by a setting: set CITADEL_WORKER__TASK_EVENTS=false")

    def _heartbeat(self, **_: Any) -> None:
        self._send_heartbeat()


_OLD_NAMES = {
    "dump_active": "active",
    "dump_conf": "conf",
    "dump_reserved": "reserved",
    "dump_revoked": "revoked",
    "dump_schedule": "scheduled",
    "dump_tasks": "registered",
}


def task_ids_in(given: object) -> list[str]:
    """Return the ids in the argument of a command, each once; what cannot be an id is left out."""
    return list(dict.fromkeys(task_id for task_id in as_list(given) if is_task_id(task_id)))


def stamps_of(headers: object) -> list[str]:
    """Return the stamps in the argument of a command: a mapping of values, or a list of `header=value`."""
    if not isinstance(headers, dict):
        texts = (text for text in as_list(headers) if isinstance(text, str) and "=" in text)
        return [stamp_of(*text.split("=", 1)) for text in texts]
    return [stamp_of(header, value) for header, values in headers.items() for value in as_list(values)]


def _ok(value: str) -> dict[str, str]:
    return {"ok": value}


def _error(problem: str) -> dict[str, str]:
    return {"error": problem}


def _info(request: Any) -> dict[str, Any]:
    """Return Celery's description of a task here, without its arguments."""
    return {
        "id": request.id,
        "name": request.name,
        "args": HIDDEN,
        "kwargs": HIDDEN,
        "type": request.type,
        "hostname": request.hostname,
        "time_start": request.time_start,
        "acknowledged": request.acknowledged,
        "delivery_info": request.delivery_info,
        "worker_pid": request.worker_pid,
    }


def _state_of(request: Any) -> str:
    return "active" if request in worker_state.active_requests else "reserved"


def _described(task: Any, attributes: Sequence[str]) -> str:
    found = [f"{name}={value}" for name in attributes if (value := getattr(task, name, None)) is not None]
    return f"{task.name} [{' '.join(found)}]" if found else str(task.name)
