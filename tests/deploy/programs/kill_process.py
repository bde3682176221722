"""Kill the process PID of the host, if it belongs to a container: `python kill_process.py CONTAINER PID`."""

import os
import pathlib
import signal
import sys

container, pid = sys.argv[1], int(sys.argv[2])
if pid <= 1:
    sys.exit("the container does not run")
# Process ids are reused soon: hold the process first, check that it is the container's, then kill what is held.
held = os.pidfd_open(pid)
if container not in pathlib.Path(f"/proc/{pid}/cgroup").read_text():
    sys.exit("the process belongs to another container by now")
signal.pidfd_send_signal(held, signal.SIGKILL)
