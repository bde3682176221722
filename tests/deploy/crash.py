"""Ends the first process of a container as a crash would, and nothing else.

`docker kill` counts as a stop, after which nothing restarts; and the kernel keeps a first process from being killed
from inside. So a helper among the host's processes does it. Numbers of processes are used again soon, hence: the
process is held by a descriptor first, then it is made sure that it is the container's, then that one is ended.
"""

from tests.deploy.engine import docker, inspect

PRIVILEGES = ("--pid=host", "--user=0", "--cap-drop=ALL", "--cap-add=KILL", "--network=none", "--read-only")
PROGRAM = """
import os, pathlib, signal, sys
container, pid = sys.argv[1], int(sys.argv[2])
if pid <= 1:
    sys.exit("the container does not run")
held = os.pidfd_open(pid)
if container not in pathlib.Path(f"/proc/{pid}/cgroup").read_text():
    sys.exit("the process is another's by now")
signal.pidfd_send_signal(held, signal.SIGKILL)
"""


def crash(container: str, *, image: str) -> None:
    """Kill a container's first process.

    Args:
        container: The container's whole id.
        image: An image with Python, for the helper.

    Raises:
        CommandFailed: The container does not run (any more); nothing was killed.
    """
    pid = str(inspect(container)[0]["State"]["Pid"])
    docker("run", "--rm", *PRIVILEGES, "--entrypoint=python", image, "-c", PROGRAM, container, pid)
