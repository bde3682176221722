"""Run the LLM double as a server: `python -m tests.doubles.llm --port 0 --models tiny-llm,other`.

When it accepts connections it prints one line of JSON, `{"port": …, "pid": …}`.
"""

import argparse
import threading
from collections.abc import Sequence
from dataclasses import fields

import uvicorn

from tests.doubles.llm_app import LlmDouble
from tests.doubles.llm_settings import LlmDoubleSettings
from tests.doubles.ollama import KEEP_ALIVE_S, _exit_with_parent, _listen, _Protocol, _Server


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.doubles.llm", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--exit-with-stdin", action="store_true", help="exit when standard input closes")
    for item in fields(LlmDoubleSettings):
        flag = f"--{item.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(item.default), default=item.default, help=item.metadata["help"])
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop."""
    given = vars(_parser().parse_args(arguments))
    host, port, exit_with_stdin = given.pop("host"), given.pop("port"), given.pop("exit_with_stdin")
    if exit_with_stdin:
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    config = uvicorn.Config(
        LlmDouble(LlmDoubleSettings(**given)),
        http=_Protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    _Server(config).run(sockets=[_listen(host, port)])


if __name__ == "__main__":
    main()
