"""An OTLP/HTTP receiver: takes real protobuf, keeps the spans, and can hang or refuse."""

import gzip
import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.doubles.base.answers import Answer, json_answer, text_answer
from tests.doubles.base.application import Double
from tests.doubles.base.behaviour import Behaviour
from tests.doubles.base.caller import Caller
from tests.doubles.base.recording import Recording
from tests.doubles.base.server import ServerThread
from tests.doubles.base.settings import NoSettings
from tests.doubles.otlp.spans import ReceivedSpan, spans_of
from tests.support.disclosure import DISCLOSURES

TRACES = "/v1/traces"
PROTOBUF = b"application/x-protobuf"


@dataclass(frozen=True, kw_only=True)
class OtlpBehaviour(Behaviour):
    """Faults of the receiver.

    Modes:
        ok          searches requests for what spans must not hold, and keeps their spans
        searching   searches them, and keeps nothing
        counting    does not look into them: for benchmarks, whose processors it shares
        hanging     never answers; ends when the client hangs up
        refusing    answers 503
    """

    MODES: ClassVar = frozenset({"ok", "searching", "counting", "hanging", "refusing"})


class OtlpDouble(Double):
    """The receiver; `GET /` tells by trace how many spans of each service came."""

    BEHAVIOUR = OtlpBehaviour
    MAIN: ClassVar = frozenset({TRACES})

    def __init__(self, _settings: NoSettings | None = None) -> None:
        super().__init__(Recording())
        self._spans: list[ReceivedSpan] = []
        self._lock = threading.Lock()
        self.routes |= {("POST", TRACES): self._export, ("GET", "/"): self._services}

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All spans so far."""
        with self._lock:
            return list(self._spans)

    def services(self) -> dict[str, dict[str, int]]:
        """Return the number of spans of each service, by trace."""
        found: dict[str, Counter[str]] = {}
        for span in self.spans:
            found.setdefault(span.trace_id, Counter())[span.service] += 1
        return {trace: dict(counts) for trace, counts in found.items()}

    async def _export(self, caller: Caller) -> Answer:
        kind = caller.header(b"content-type")
        if kind != PROTOBUF:
            return text_answer(b"415 unsupported media type, supported: [application/x-protobuf]", 415)
        body = await caller.body()
        if caller.header(b"content-encoding") == b"gzip":
            body = gzip.decompress(body)
        mode = self.switch.behaviour.mode
        if mode == "hanging":
            await caller.hang()
        if mode in {"ok", "searching"}:
            DISCLOSURES.search("spans", body)
        try:
            if mode == "ok":
                self._keep(body)
        except DecodeError as error:
            return text_answer(str(error).encode(), 400, PROTOBUF)
        answer = ExportTraceServiceResponse().SerializeToString()
        return text_answer(answer, 503 if mode == "refusing" else 200, PROTOBUF)

    def _keep(self, body: bytes) -> None:
        found = list(spans_of(body))
        with self._lock:
            self._spans.extend(found)

    async def _services(self, _caller: Caller) -> Answer:
        return json_answer(self.services())


class OtlpReceiver(OtlpDouble):
    """The receiver in a thread of this process; it listens when the constructor returns."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = ServerThread(self)

    @property
    def endpoint(self) -> str:
        """The value for `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return self._thread.url

    @property
    def requests(self) -> int:
        """Export requests so far."""
        count: int = self.recording.requests
        return count

    @property
    def mode(self) -> str:
        """The mode in force; see `OtlpBehaviour`."""
        mode: str = self.switch.behaviour.mode
        return mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self.set_behaviour(OtlpBehaviour(mode=mode))

    def of_trace(self, trace_id: str) -> list[ReceivedSpan]:
        """Return the spans of one trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.stop()
