"""Logs: one JSON object per line, with the service's name and without credentials."""

import json
import subprocess
import sys


def test_each_line_is_a_json_object_with_its_bound_fields():
    output = subprocess.run(
        [sys.executable, "-m", "tests.support.programs.write_logs"], capture_output=True, text=True, check=True
    ).stdout
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "error", "error", "warning", "info"]
    assert lines[0]["url"] == "redis://***@host:6379/0"
    assert lines[1]["event"] == "connect to amqp://***@host"
    assert [line["task_id"] for line in lines] == [*["t1"] * 5, "t2"]
    assert {line["service"] for line in lines} == {"test"}
    assert lines[2]["exception"][0]["exc_value"] == "wrong (1 sub-exception)"
    assert lines[2]["exception"][0]["exceptions"][0][0]["exc_value"] == "bad row"
    assert "geheim" not in output
    assert lines[3]["exception"][0]["exc_value"] == "refused: ***"
    assert lines[3]["nested"] == {"told": ["***"]}
    assert lines[4]["event"] == "they say {'pass': '***'}"
    assert "the-key" not in output
