"""Run a command that is killed when its parent ends, however that one ends.

A launcher instead of `preexec_fn`, of which Python warns in a process with threads. It is run as
`python -S -E -c TEXT PROGRAM ARGUMENT...`: another user, as whom it may run, need not be able to read this file.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
SIGKILL = 9

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])
