"""Structured logs: an event name and fields; JSON lines, or readable in a terminal.

Records of libraries (Celery, uvicorn, gunicorn) have the same form, without their extra fields: Celery puts a task's
arguments there. Ids of a task or a request are bound once with `structlog.contextvars`. No line contains a secret that
the process was given, whoever writes it.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from citadel_common.settings.common import LogSettings
from citadel_common.telemetry import tracing

FIELDS = {
    "event": "What happened, as a name; lines of libraries have their message here",
    "timestamp": "ISO 8601, UTC",
    "level": "debug, info, warning, error, critical",
    "logger": "The module",
    "service": "The process's service: api, beat, or the queue of a worker",
    "trace_id": "Trace of the span in which the line was written; of the request, where the API is not traced",
    "span_id": "That span",
    "task_id": "Celery's id of the task that runs",
    "task": "Its name",
    "queue": "The queue from which it came",
    "run_id": "The run, where the line is about one",
    "step_id": "The step, where the line is about one",
    "error": "What went wrong, or the class of the exception",
    "exception": "Its traceback, without the values of variables; of messages the first line",
}
"""Fields of log lines; events have more of their own."""
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@\"]+@")
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    # Values of variables would put texts and secrets into the logs.
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
)
_QUIET = ("celery.app.trace", "celery.worker.strategy", "httpx", "httpcore", "kombu", "opentelemetry", "urllib3")
"""Loggers with a line per task or call: only their warnings are shown."""
_SILENT = ("urllib3.connectionpool", "opentelemetry.exporter")
"""Loggers with a line per attempt to reach a receiver of spans: `spans_not_exported` and the metrics say it."""


def configure(settings: LogSettings, *, service: str, secrets: Iterable[str] = ()) -> None:
    """Route every log record of the process to standard output.

    Args:
        settings: Level and form.
        service: Bound to each line as `service`.
        secrets: Texts that become `***` wherever they would appear; see `citadel_common.redaction`.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _place_in_trace,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _service(service),
        _redact,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_rendering(settings),
            _hiding(secrets),
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _rendering(settings: LogSettings) -> list[Processor]:
    console = settings.format == "console" or (settings.format == "auto" and sys.stdout.isatty())
    if console:
        return [
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    return [_TRACEBACKS, _first_lines, structlog.processors.JSONRenderer()]


def _first_lines(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Keep the first line of each exception's message: PostgreSQL and pydantic quote values after it.

    Nothing is cut within a line: half a secret would not be recognised and hidden.
    """
    _shorten(event.get("exception", ()))
    return event


def _shorten(stacks: Iterable[dict[str, Any]]) -> None:
    for stack in stacks:
        stack["exc_value"] = stack["exc_value"].partition("\n")[0]
        for group in stack["exceptions"]:
            _shorten(group)


def _service(name: str) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("service", name)
        return event

    return add


def _place_in_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add trace and span of the line, if there is a span."""
    context = tracing.current()
    if context.is_valid:
        event["trace_id"], event["span_id"] = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    return event


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace user and password of any URL with `***`."""
    for key, value in event.items():
        if isinstance(value, str) and "://" in value:
            event[key] = _CREDENTIALS.sub("***@", value)
    return event


def _hiding(secrets: Iterable[str]) -> Processor:
    """Return the last step, which hides secrets in whole lines, tracebacks and messages of libraries included."""
    known = sorted({form for secret in secrets for form in (secret, json.dumps(secret)[1:-1])}, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, known)) or r"(?!)")

    def hide(_: WrappedLogger, __: str, line: Any) -> str:
        return pattern.sub("***", _CREDENTIALS.sub("***@", line))

    return hide


def bind(**fields: Any) -> None:
    """Bind fields to every further line of this task or request."""
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**fields)
