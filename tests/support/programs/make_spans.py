"""Make spans as a process does, by the standard variables: `python -m tests.support.programs.make_spans COUNT`.

Prints JSON: whether tracing is on, the seconds per span, and the seconds until the end of telemetry.
"""

import json
import sys
import time

from citadel_common.settings.common import TelemetrySettings
from citadel_common.telemetry import messages, tracing
from citadel_common.telemetry.pipeline import process_telemetry

if __name__ == "__main__":
    count = int(sys.argv[1])
    with process_telemetry(TelemetrySettings(), service="test"):
        is_on = tracing.is_on()
        began = time.perf_counter()
        for _ in range(count):
            with messages.sending("q"):
                pass
        each = (time.perf_counter() - began) / count
        began = time.perf_counter()
    print(json.dumps({"on": is_on, "each": each, "stop": time.perf_counter() - began}))
