"""The export of spans: by the standard variables, in a process of its own, whatever the receiver does."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from citadel_common.settings.common import CommonSettings
from citadel_common.tasks.app import create_app
from citadel_common.telemetry import tracing
from tests.doubles.otlp.receiver import OtlpReceiver
from tests.doubles.otlp.spans import ReceivedSpan
from tests.support.child import ROOT, free_port
from tests.support.spans_in_memory import spans_in_memory


def run(endpoint: str = "", count: int = 10, **variables: str) -> dict[str, Any]:
    """Make spans in another process; return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    seen = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if endpoint else {}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.programs.make_spans", str(count)],
        cwd=ROOT,
        env=inherited | seen | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def received(**variables: str) -> list[ReceivedSpan]:
    """Return the spans that a receiver gets from such a process."""
    with OtlpReceiver() as receiver:
        run(receiver.endpoint, **variables)
        return receiver.spans


def test_spans_still_queued_are_sent_at_a_graceful_stop() -> None:
    spans = received()
    assert len(spans) == 10
    assert {(span.name, span.service) for span in spans} == {("send q", "citadel-test")}


def test_without_an_endpoint_no_span_is_made() -> None:
    assert run()["on"] is False


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier pigeon"},
    ],
)
def test_tracing_can_be_turned_off_by_each_standard_variable(variables: dict[str, str]) -> None:
    assert received(**variables) == []


def test_the_sampler_is_the_one_of_the_environment() -> None:
    assert received(OTEL_TRACES_SAMPLER="always_off") == []


def test_the_environment_names_the_service() -> None:
    assert {span.service for span in received(OTEL_SERVICE_NAME="mine")} == {"mine"}
    assert {span.service for span in received(OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=x")} == {
        "citadel-test"
    }


def test_a_full_queue_drops() -> None:
    with OtlpReceiver() as receiver:
        receiver.mode = "hanging"
        run(receiver.endpoint, 5000, OTEL_BSP_MAX_QUEUE_SIZE="100", OTEL_EXPORTER_OTLP_TIMEOUT="1")
        assert receiver.spans == []


@pytest.mark.parametrize("mode", ["hanging", "refusing", "dead"])
def test_a_receiver_that_fails_holds_nothing_up(mode: Any) -> None:
    """The process ends by itself, though its receiver never answers."""
    with OtlpReceiver() as receiver:
        receiver.mode = mode if mode != "dead" else "ok"
        endpoint = receiver.endpoint if mode != "dead" else f"http://127.0.0.1:{free_port()}"
        assert run(endpoint, 2000)["on"] is True
        assert receiver.spans == []


def test_spans_go_by_grpc_too() -> None:
    grpc = pytest.importorskip("grpc")
    from concurrent import futures

    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def __init__(self) -> None:
            self.count = 0

        def Export(self, request: Any, _: Any) -> Any:  # noqa: N802  (the protocol's name)
            self.count += sum(len(scope.spans) for r in request.resource_spans for scope in r.scope_spans)
            return trace_service_pb2.ExportTraceServiceResponse()

    service = Service()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        run(f"http://127.0.0.1:{port}", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    finally:
        server.stop(None).wait()
    assert service.count == 10


def test_a_publish_that_fails_leaves_no_span_current_and_is_marked() -> None:
    app = create_app(CommonSettings(broker_url=SecretStr(f"redis://127.0.0.1:{free_port()}/0")))
    app.conf.result_backend = "disabled://"
    with spans_in_memory() as made:
        for _ in range(3):
            with pytest.raises(OperationalError):
                app.send_task("generate_embedding", args=["text"])
            assert not tracing.current().is_valid
    app.close()
    spans = made.get_finished_spans()
    assert [span.name for span in spans] == ["send embeddings"] * 3
    assert {span.parent for span in spans} == {None}
    assert {span.status.status_code.name for span in spans} == {"ERROR"}
