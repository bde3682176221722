"""Export of spans from the tests' processes: to a receiver that searches them, unless a test names another."""

import functools
import os

from tests.doubles.otlp.receiver import OtlpReceiver
from tests.support.planted import RECEIVER_KEY

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def exports() -> dict[str, str]:
    """Return the variables of a process whose spans are searched."""
    secret = {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization={RECEIVER_KEY}"}
    if any(os.environ.get(name) for name in VARIABLES):
        return secret
    # most processes are killed in the end: their spans must be sent by then
    return secret | {"OTEL_EXPORTER_OTLP_ENDPOINT": _searching().endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}


@functools.cache
def _searching() -> OtlpReceiver:
    """Return the receiver of this test process; its thread ends with the process."""
    receiver = OtlpReceiver()
    receiver.mode = "searching"
    return receiver
