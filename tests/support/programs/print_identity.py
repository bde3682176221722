"""Prints the process's id and start time, as the worker registry knows them."""

from citadel_common.delivery.worker_registry import WorkerIdentity

identity = WorkerIdentity.of_this_process("q")
print(identity.pid, identity.born)
