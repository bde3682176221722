"""Doubles of the servers that Citadel talks to; they speak the real wire protocols, errors included.

`base` has what all doubles share: the server, faults that are switched at run time, and the record of requests. Each
folder is a double, which `python -m tests.doubles.NAME` runs; `process` starts them as child processes.
"""
