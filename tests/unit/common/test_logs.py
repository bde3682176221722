"""Logs: one JSON object per line, with the service's name and without credentials."""

import json
import subprocess
import sys

CODE = """
import logging
import structlog
from citadel_common import logs
from citadel_common.settings.common import LogSettings

logs.configure(LogSettings(format="json"), service="test", secrets=["the-key-\\"-1", "pass-word"])
logs.bind(task_id="t1")
log = structlog.get_logger("mine")
log.info("hello", url="redis://user:geheim@host:6379/0")
logging.getLogger("theirs").warning("connect to %s", "amqp://user:geheim@host")
try:
    secret = "geheim"
    raise ExceptionGroup("wrong", [ValueError("bad row\\nDETAIL: (geheim)")])
except ExceptionGroup:
    log.exception("crashed")
try:
    raise ValueError("refused: the-key-\\"-1")
except ValueError:
    log.exception("crashed", nested={"told": ["the-key-\\"-1"]})
logging.getLogger("theirs").warning("they say %s", {"pass": "pass-word"}, extra={"data": {"kwargs": "geheim"}})
logs.bind(task_id="t2")
log.info("text with \\n lines and \\ud800")
log.debug("not shown")
"""


def test_each_line_is_a_json_object_with_its_bound_fields():
    output = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
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
