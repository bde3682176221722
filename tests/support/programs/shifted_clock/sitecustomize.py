"""The wall clock of a process of which a test says how far it is off; Python imports this at its start.

It is on where PYTHONPATH has this directory, and SHIFTED_CLOCK names a file with the seconds, eight bytes that the test
may change at any time (`tests.support.host_clock`). The monotonic clock is the machine's.
"""

import datetime as dt
import mmap
import os
import struct
import time
from pathlib import Path

_real_time, _real_time_ns, _Real = time.time, time.time_ns, dt.datetime
with Path(os.environ["SHIFTED_CLOCK"]).open("rb") as _file:
    _seconds = mmap.mmap(_file.fileno(), 8, prot=mmap.PROT_READ)


def _offset():
    return struct.unpack("d", _seconds[:8])[0]


def _time():
    return _real_time() + _offset()


def _time_ns():
    return _real_time_ns() + round(_offset() * 1e9)


class _Kind(type):
    def __instancecheck__(cls, instance):
        return isinstance(instance, _Real)

    def __subclasscheck__(cls, subclass):
        return issubclass(subclass, _Real)


class _Shifted(_Real, metaclass=_Kind):
    """The class `datetime`, which makes instances of the real one."""

    def __new__(cls, *args, **kwargs):
        return _Real(*args, **kwargs)

    @classmethod
    def now(cls, tz=None):
        return _Real.fromtimestamp(_time(), tz)

    @classmethod
    def utcnow(cls):
        return _Real.fromtimestamp(_time(), dt.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls):
        return cls.now()


time.time, time.time_ns, dt.datetime = _time, _time_ns, _Shifted
