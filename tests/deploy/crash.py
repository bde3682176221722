"""A crash of the first process of a container.

`docker kill` counts as a stop, after which nothing restarts, and the kernel does not let a first process be killed from
inside its container. So a helper in the host's process namespace kills it.
"""

from tests.deploy.engine import docker, inspect, program

PRIVILEGES = ("--pid=host", "--user=0", "--cap-drop=ALL", "--cap-add=KILL", "--network=none", "--read-only")


def crash(container: str, *, image: str) -> None:
    """Kill the first process of a container.

    Args:
        container: The full id of the container.
        image: An image with Python, for the helper.

    Raises:
        CommandFailed: The container does not run, or not any more; nothing was killed.
    """
    pid = str(inspect(container)[0]["State"]["Pid"])
    docker("run", "--rm", *PRIVILEGES, "--entrypoint=python", image, "-c", program("kill_process"), container, pid)
