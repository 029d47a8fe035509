import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import update

from sweetspot.store import Store
from sweetspot.store.schema import WorkerRow, now
from sweetspot.store.workers import boot_id

_STAT = Path("/proc/self/stat")


def _alter(store: Store, worker: str, **values: Any) -> None:
    """Write what another process would have written."""
    with store.database.session.begin() as session:
        session.execute(update(WorkerRow).where(WorkerRow.id == worker).values(**values))


def _start_of(process: psutil.Process) -> float:
    return float(process.create_time() - psutil.boot_time())


def test_this_process_lives(store: Store) -> None:
    worker = store.workers.register("cpu")
    store.workers.update(worker, study="digits")
    assert not store.workers.has_ended(worker)
    (record,) = store.workers.of_study("digits")
    assert (record.id, record.host, record.pid) == (worker, socket.gethostname(), os.getpid())
    assert (record.device, record.phase, record.detail, record.trial) == ("cpu", "starting", {}, None)
    assert not record.ended


def test_every_registration_is_a_worker_of_its_own(store: Store) -> None:
    assert store.workers.register("cuda:0") != store.workers.register("cuda:1")


def test_a_worker_says_what_it_does(store: Store) -> None:
    worker = store.workers.register("cuda:0")
    _alter(store, worker, last_seen=now() - timedelta(hours=1))
    detail = {"batch_size": 128, "epochs": 30, "epoch": 7, "similarity_entropy": 1.25}
    store.workers.update(worker, study="digits", trial=3, phase="teacher", detail=detail)
    (record,) = store.workers.of_study("digits")
    assert (record.study, record.trial, record.phase, record.detail) == ("digits", 3, "teacher", detail)
    assert now() - record.last_seen < timedelta(minutes=30)


def test_a_workers_update_leaves_the_others_alone(store: Store) -> None:
    first, second = store.workers.register("cuda:0"), store.workers.register("cuda:1")
    store.workers.update(first, study="digits", phase="teacher")
    store.workers.update(second, study="digits", phase="student")
    assert [r.phase for r in store.workers.of_study("digits")] == ["teacher", "student"]


# -- found dead -------------------------------------------------------------------------------------------------------


@pytest.fixture
def process() -> Any:
    """A process of this machine that does nothing until its input ends."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.communicate()


def test_a_process_that_has_ended_is_known_to_have(store: Store, process: subprocess.Popen[bytes]) -> None:
    worker = store.workers.register("cpu")
    _alter(store, worker, study="digits", pid=process.pid, process_start=_start_of(psutil.Process(process.pid)))
    assert not store.workers.has_ended(worker)
    process.communicate()
    assert store.workers.has_ended(worker)
    (record,) = store.workers.of_study("digits")
    assert record.ended


def test_a_process_that_has_ended_but_was_not_yet_waited_for_has_ended(
    store: Store, process: subprocess.Popen[bytes]
) -> None:
    worker = store.workers.register("cpu")
    _alter(store, worker, pid=process.pid, process_start=_start_of(psutil.Process(process.pid)))
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    assert store.workers.has_ended(worker)
    process.stdin = None


def test_a_process_id_that_another_process_has_by_now_is_not_the_worker(store: Store) -> None:
    worker = store.workers.register("cpu")
    _alter(store, worker, process_start=_start_of(psutil.Process()) - 60)
    assert store.workers.has_ended(worker)


@pytest.mark.skipif(not _STAT.exists(), reason="only Linux says it in /proc")
def test_a_process_is_known_by_the_time_since_boot_which_a_step_of_the_clock_does_not_change(store: Store) -> None:
    worker = store.workers.register("cpu")
    with store.database.session() as session:
        row = session.get_one(WorkerRow, worker)
    ticks = int(_STAT.read_text().rpartition(")")[2].split()[19])
    assert row.process_start == pytest.approx(ticks / os.sysconf("SC_CLK_TCK"), abs=2)


def test_of_another_machines_process_nothing_is_known(store: Store, process: subprocess.Popen[bytes]) -> None:
    process.communicate()
    worker = store.workers.register("cpu")
    _alter(store, worker, host="elsewhere", pid=process.pid, boot_id="its own")
    assert not store.workers.has_ended(worker)


def test_no_process_outlives_a_restart_of_its_machine(store: Store) -> None:
    worker = store.workers.register("cpu")
    _alter(store, worker, boot_id="the boot before", last_seen=now() - timedelta(minutes=2))
    assert store.workers.has_ended(worker)


def test_a_machine_of_the_same_name_is_not_taken_for_this_one_before_its_restart(store: Store) -> None:
    worker = store.workers.register("cpu")
    _alter(store, worker, boot_id="another machine's", last_seen=now() - timedelta(seconds=5))
    assert not store.workers.has_ended(worker)


def test_the_boot_is_the_same_in_every_process() -> None:
    program = "from sweetspot.store.workers import boot_id; print(boot_id())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == boot_id() != ""


def test_a_worker_that_has_unregistered_has_ended(store: Store) -> None:
    worker = store.workers.register("cpu")
    store.workers.unregister(worker)
    store.workers.unregister(worker)
    assert store.workers.has_ended(worker)
    assert store.workers.has_ended("never heard of")


def test_of_another_containers_processes_nothing_is_known(store: Store) -> None:
    """The same host name, the same machine, process ids of their own: the number means another process here."""
    worker = store.workers.register("cpu")
    boot, namespace = boot_id().split()
    _alter(store, worker, boot_id=f"{boot} {int(namespace) + 1}", pid=2**22 + 1, last_seen=now() - timedelta(hours=1))
    assert not store.workers.has_ended(worker)
    _alter(store, worker, boot_id=boot_id())
    assert store.workers.has_ended(worker)


def test_rows_of_long_ago_are_swept(store: Store) -> None:
    old, silent = store.workers.register("cpu"), store.workers.register("cpu")
    for worker, days in ((old, 2.1), (silent, 1.9)):
        _alter(store, worker, study="digits", last_seen=now() - timedelta(days=days))
    store.workers.register("cpu")
    assert [r.id for r in store.workers.of_study("digits")] == [silent]


# -- of a study -------------------------------------------------------------------------------------------------------


def test_a_studys_workers_are_those_at_it_and_at_its_companions_oldest_first(store: Store) -> None:
    at = ["my_study/confirm", "my_study", "my_study2", "myXstudy/confirm", "My_Study/confirm", "My_Study", None]
    workers = {study: store.workers.register("cpu") for study in at}
    for age, (study, worker) in enumerate(workers.items()):
        _alter(store, worker, study=study, started=now() + timedelta(seconds=age))
    assert [r.study for r in store.workers.of_study("my_study")] == ["my_study/confirm", "my_study"]
