"""Send a signal to all processes of a container but its first and this one: `python signal_others.py SIGNAME`."""

import os
import signal
import sys
from pathlib import Path

for path in Path("/proc").iterdir():
    if path.name.isdecimal() and int(path.name) not in (1, os.getpid()):
        os.kill(int(path.name), signal.Signals[sys.argv[1]])
