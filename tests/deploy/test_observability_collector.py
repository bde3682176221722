"""The collector's own program with our configuration: which traces it keeps, and what becomes of log lines."""

import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.child import free_port, spawn
from tests.support.polling import eventually
from tests.support.required import optional_program
from tests.unit.observability.files import STACK

WAIT = "2s"
"""The collector's decision_wait in these tests."""
TIMEOUT = 30


@dataclass
class Sink:
    """Double of Tempo and Loki: keeps the OTLP/JSON that is exported to it."""

    requests: list[dict[str, Any]] = field(default_factory=list)

    def spans(self) -> set[str]:
        """Names of the spans so far."""
        return {
            span["name"]
            for request in self.requests
            for resource in request.get("resourceSpans", ())
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        }

    def logs(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Resource attributes and record of each log line so far."""
        return [
            ({entry["key"]: entry["value"]["stringValue"] for entry in resource["resource"].get("attributes", ())}, log)
            for request in self.requests
            for resource in request.get("resourceLogs", ())
            for scope in resource["scopeLogs"]
            for log in scope["logRecords"]
        ]


@dataclass(frozen=True, kw_only=True)
class Collector:
    """A running collector.

    Attributes:
        receiver: URL of its OTLP/HTTP receiver.
        metrics: URL of its own metrics.
        sink: What it exports to.
        lines: The container's log file that it watches.
    """

    receiver: str
    metrics: str
    sink: Sink
    lines: Path

    def send(self, *spans: dict[str, Any]) -> None:
        """Send spans."""
        body = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": spans}]}]}
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.receiver}/v1/traces", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT):
            pass

    def print_line(self, line: str) -> None:
        """Write a line to a log file as Docker does."""
        entry = {"log": line + "\n", "stream": "stdout", "time": "2026-11-01T10:00:00.000000000Z"}
        with self.lines.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def span(trace: int, name: str, *, seconds: float = 0.1, failed: bool = False, **attributes: str | int) -> dict:
    """Return a span that has just ended; `__` in names of attributes is a dot."""
    end = time.time_ns()
    return {
        "traceId": f"{trace:032x}",
        "spanId": f"{abs(hash(name)) & (2**63 - 1) or 1:016x}",
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(end - int(seconds * 1e9)),
        "endTimeUnixNano": str(end),
        "status": {"code": 2} if failed else {},
        "attributes": [
            {
                "key": key.replace("__", "."),
                "value": {"intValue": value} if isinstance(value, int) else {"stringValue": value},
            }
            for key, value in attributes.items()
        ],
    }


@pytest.fixture
def sink() -> Iterator[tuple[Sink, str]]:
    """Run a sink; give it and its URL."""
    kept = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """No lines."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield kept, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def collector(sink, tmp_path) -> Iterator[Collector]:
    program = optional_program("otelcol-contrib", "otelcol")
    kept, url = sink
    lines = tmp_path / "containers" / "abc" / "abc-json.log"
    lines.parent.mkdir(parents=True)
    lines.write_text("")
    ports = {name: free_port() for name in ("grpc", "http", "own", "host", "health")}
    override = tmp_path / "override.yaml"
    override.write_text(yaml.safe_dump(_override(ports, url, lines)))
    command = [program, "--config", str(STACK / "collector.yaml"), "--config", str(override)]
    environment = os.environ | {"CITADEL_TRACE_WAIT": WAIT, "CITADEL_TRACE_PERCENT": "0"}
    with (tmp_path / "collector.log").open("wb") as log:
        process = spawn(command, output=log, env=environment)
    try:
        eventually(lambda: _answers(f"http://127.0.0.1:{ports['health']}/"), timeout=TIMEOUT)
        yield Collector(
            receiver=f"http://127.0.0.1:{ports['http']}",
            metrics=f"http://127.0.0.1:{ports['own']}/metrics",
            sink=kept,
            lines=lines,
        )
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def _override(ports: dict[str, int], sink: str, lines: Path) -> dict[str, Any]:
    """Ports that are free, and the sink instead of Tempo and Loki; all else is as it is shipped."""
    reader = {"host": "127.0.0.1", "port": ports["own"], "without_type_suffix": False}
    as_json = {"endpoint": sink, "encoding": "json", "compression": "none"}
    return {
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{ports['health']}"}},
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": f"127.0.0.1:{ports['grpc']}"},
                    "http": {"endpoint": f"127.0.0.1:{ports['http']}"},
                }
            },
            "file_log": {"include": [str(lines)], "start_at": "beginning"},
        },
        "exporters": {
            "otlp_http/traces": as_json,
            "otlp_http/loki": as_json,
            "prometheus": {"endpoint": f"127.0.0.1:{ports['host']}"},
        },
        "service": {
            "telemetry": {"metrics": {"readers": [{"pull": {"exporter": {"prometheus": reader}}}]}},
            "pipelines": {"traces": {"exporters": ["otlp_http/traces"]}},
        },
    }


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def test_failed_slow_and_unfinished_traces_are_kept(collector):
    run = {"citadel__task__name": "citadel.run_step"}
    end = {"citadel__run__id": "r", "citadel__run__status": "succeeded"}
    collector.send(
        span(1, "quick"),
        span(2, "failed", failed=True),
        span(3, "slow", seconds=20),
        span(4, "step of a run that goes on", **run),
        span(5, "step of a quick run", **run),
        span(5, "the quick run", **end),
        span(6, "accepted", http__route="/v1/workflows", http__response__status_code=202),
        span(7, "refused", http__route="/v1/workflows", http__response__status_code=422),
        span(8, "embedding", citadel__task__name="generate_embedding"),
    )
    kept = {"failed", "slow", "step of a run that goes on", "accepted"}
    eventually(lambda: kept <= collector.sink.spans(), timeout=TIMEOUT)
    # A span that comes late follows its trace, whatever it is itself.
    collector.send(span(8, "late, of a trace that was not kept"), span(4, "the end of the long run", **end))
    eventually(lambda: "the end of the long run" in collector.sink.spans(), timeout=TIMEOUT)
    assert collector.sink.spans() == kept | {"the end of the long run"}


def test_log_lines_carry_service_severity_and_trace(collector):
    line = {
        "event": "task_failed",
        "level": "warning",
        "service": "embeddings",
        "trace_id": "7" * 32,
        "span_id": "9" * 16,
    }
    for text in (json.dumps(line), "a plain line", "{no json}"):
        collector.print_line(text)
    logs = eventually(lambda: len(collector.sink.logs()) == 3 and collector.sink.logs(), timeout=TIMEOUT)
    by_text = {log["body"]["stringValue"].strip(): (resource, log) for resource, log in logs}
    resource, log = by_text[json.dumps(line)]
    assert resource == {"service.name": "citadel-embeddings"}
    assert (log["traceId"], log["spanId"], log["severityText"]) == ("7" * 32, "9" * 16, "warning")
    assert by_text["a plain line"]
    assert by_text["{no json}"]


def test_the_collectors_counters_have_the_names_that_queries_use(collector):
    collector.send(span(1, "any"))

    def scraped() -> str:
        with urllib.request.urlopen(collector.metrics, timeout=TIMEOUT) as answer:
            return answer.read().decode()

    for name in (
        "otelcol_receiver_accepted_spans_total",
        "otelcol_receiver_refused_spans_total",
        "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total",
        "otelcol_process_cpu_seconds_total",
    ):
        eventually(lambda name=name: f"\n{name}" in scraped(), timeout=TIMEOUT)
