"""Writes log lines as a service does, some of them with secrets."""

import logging

import structlog

from citadel_common import logs
from citadel_common.settings.common import LogSettings

logs.configure(LogSettings(format="json"), service="test", secrets=['the-key-"-1', "pass-word"])
logs.bind(task_id="t1")
log = structlog.get_logger("mine")
log.info("hello", url="redis://user:geheim@host:6379/0")
logging.getLogger("theirs").warning("connect to %s", "amqp://user:geheim@host")
try:
    secret = "geheim"
    raise ExceptionGroup("wrong", [ValueError("bad row\nDETAIL: (geheim)")])  # noqa: TRY301  (an exception to be logged)
except ExceptionGroup:
    log.exception("crashed")
try:
    raise ValueError('refused: the-key-"-1')  # noqa: TRY301  (an exception to be logged)
except ValueError:
    log.exception("crashed", nested={"told": ['the-key-"-1']})
logging.getLogger("theirs").warning("they say %s", {"pass": "pass-word"}, extra={"data": {"kwargs": "geheim"}})
logs.bind(task_id="t2")
log.info("text with \n lines and \ud800")
log.debug("not shown")
