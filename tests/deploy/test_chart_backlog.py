"""The query by which KEDA scales, asked of Prometheus' own engine."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.required import program
from tests.unit.k8s.rendering import rendered

READY = 'citadel_queue_ready_messages{{queue="{queue}",namespace="{namespace}",lane="{lane}",instance="{instance}"}}'
UNACKED = 'citadel_queue_unacked_messages{{queue="{queue}",namespace="{namespace}",instance="{instance}"}}'
MINE = {"queue": "embeddings", "namespace": "citadel", "lane": "batch", "instance": "one"}


@pytest.fixture(scope="module")
def promtool() -> str:
    """Return the path of the program."""
    return program("promtool", hint="it is in Debian's package prometheus")


def series(template: str, value: int, **changes: str) -> dict[str, str]:
    return {"series": template.format(**MINE | changes), "values": str(value)}


@pytest.mark.parametrize(
    ("inputs", "backlog"),
    [
        pytest.param([series(READY, 0), series(UNACKED, 4)], 4, id="an empty queue and busy workers"),
        pytest.param(
            [series(READY, 10), series(READY, 3, lane="standard"), series(UNACKED, 4)], 17, id="lanes are added up"
        ),
        pytest.param(
            [
                series(READY, 10),
                series(READY, 10, instance="two"),
                series(UNACKED, 4),
                series(UNACKED, 4, instance="two"),
            ],
            14,
            id="two exporters tell the same",
        ),
        pytest.param(
            [
                series(READY, 1),
                series(READY, 9, namespace="other"),
                series(READY, 9, queue="monitoring"),
                series(UNACKED, 0),
            ],
            1,
            id="other queues and releases do not count",
        ),
        pytest.param([series(READY, 5)], None, id="half a figure is none"),
        pytest.param([], None, id="no figure is none"),
    ],
)
def test_the_backlog_counts_waiting_and_running_messages(
    promtool: str, tmp_path: Path, inputs: list[dict[str, str]], backlog: int | None
) -> None:
    query = rendered("keda").of("ScaledObject")["embeddings"]["spec"]["triggers"][0]["metadata"]["query"]
    samples = [] if backlog is None else [{"labels": "{}", "value": backlog}]
    case = {
        "interval": "1m",
        "input_series": inputs,
        "promql_expr_test": [{"expr": query, "eval_time": "0m", "exp_samples": samples}],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"tests": [case]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
