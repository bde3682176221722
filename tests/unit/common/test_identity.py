"""Whether a process of this machine still lives."""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from citadel_common.delivery.worker_registry import WorkerIdentity, surely_dead
from tests.support.polling import eventually

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def dead(identity):
    return surely_dead(machine=identity.machine, pid=identity.pid, born=identity.born)


def test_the_own_process_is_not_dead():
    identity = WorkerIdentity.of_this_process("embeddings")
    assert identity.pid == os.getpid()
    assert not dead(identity)


def test_a_reused_pid_is_recognised():
    assert dead(replace(WorkerIdentity.of_this_process("embeddings"), born="1"))


def test_another_machine_is_not_judged():
    identity = replace(WorkerIdentity.of_this_process("embeddings"), born="1")
    assert not dead(replace(identity, machine="elsewhere"))
    assert not dead(replace(identity, machine=""))


def test_zombies_without_threads_are_dead():
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.support.programs.print_identity"], stdout=subprocess.PIPE, text=True
    )
    pid, born = child.stdout.readline().split()
    child.stdout.read()
    machine = WorkerIdentity.of_this_process("q").machine
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert surely_dead(machine=machine, pid=int(pid), born=born)
    child.wait()
    child.stdout.close()
    assert surely_dead(machine=machine, pid=int(pid), born=born)


def test_a_process_lives_until_its_last_thread_has_ended():
    exit_thread = {"x86_64": 60, "aarch64": 93}[platform.machine()]  # the system call that ends one thread only
    program = [sys.executable, "-m", "tests.support.programs.end_main_thread", str(exit_thread)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        identity = replace(WorkerIdentity.of_this_process("q"), pid=child.pid, born=child.stdout.readline().strip())
        eventually(lambda: ") Z " in Path(f"/proc/{child.pid}/stat").read_text())
        assert not dead(identity)
        child.kill()
    assert dead(identity)


def test_ids_are_unique():
    assert len({WorkerIdentity.of_this_process("q").id for _ in range(100)}) == 100
