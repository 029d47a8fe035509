"""docker-compose.yml, without Docker: what it says, and a study that its services' own commands carry out.

Each service runs as a process with the command, the environment and the folders that the file gives its container. Only
the database is another one: a real PostgreSQL in the place of the service ``db``.
"""

import base64
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from sqlalchemy.engine import make_url
from tiny_study import TINY

import sweetspot
from sweetspot.cli import main
from sweetspot.store import Leases, Store
from sweetspot.study.claim import claim_lease
from sweetspot.workers import drain, supervisor

ROOT = Path(__file__).parents[2]
FILES = "docker-compose.yml", "docker-compose.cpu.yml"
PASSWORD = "it's $HOME & 100 %"  # any characters
SETTINGS = {"POSTGRES_PASSWORD": PASSWORD}
PINNED = re.compile(r"[a-z]+:\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}")
HOME = "/var/lib/sweetspot"
WORKERS = 2

Mapping = dict[str, Any]


# -- reading the files as Compose does --------------------------------------------------------------------------------

RESET = object()


class Loader(yaml.SafeLoader):
    """Reads Compose's tag for what an override takes away."""


Loader.add_constructor("!reset", lambda loader, node: RESET)


class MissingError(Exception):
    """A variable that must be set is not."""


def compose(*files: str, **settings: str) -> Mapping:
    """The files merged and with their variables filled in."""
    merged: Mapping = {}
    for file in files:
        merged = merge(merged, yaml.load((ROOT / file).read_text(), Loader))  # noqa: S506 (a safe one)
    found: Mapping = filled_in({key: value for key, value in merged.items() if not key.startswith("x-")}, settings)
    return found


def merge(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        assert not isinstance(over, list), "lists are appended, which nobody here does"
        return over
    merged = base | {key: merge(base.get(key), value) for key, value in over.items()}
    return {key: value for key, value in merged.items() if value is not RESET}


def filled_in(value: Any, settings: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: filled_in(item, settings) for key, item in value.items()}
    if isinstance(value, list):
        return [filled_in(item, settings) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name, kind, text = match.groups()
        if not settings.get(name) and kind == ":?":
            raise MissingError(f"required variable {name} is missing a value: {text}")
        return settings.get(name) or text or ""

    return re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", fill, value)


def seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)([sm])", text)
    assert match
    return int(match[1]) * {"s": 1, "m": 60}[match[2]]


def dockerfile() -> list[list[str]]:
    """The instructions of the Dockerfile: the first word, and the rest."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]


def last(instruction: str) -> str:
    return [rest for name, rest in dockerfile() if name == instruction][-1]


WHOLE = compose(*FILES[:1], **SETTINGS)
SERVICES: Mapping = WHOLE["services"]
OURS = sorted(SERVICES.keys() - {"db"})


# -- what the files say -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"POSTGRES_PASSWORD": ""}])
def test_without_a_password_nothing_starts(settings: dict[str, str]) -> None:
    with pytest.raises(MissingError, match=r"POSTGRES_PASSWORD.*Copy deploy/example\.env to \.env and put a password"):
        compose(FILES[0], **settings)


def test_no_password_is_committed() -> None:
    lines = (ROOT / "deploy/example.env").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["POSTGRES_PASSWORD="]
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_what_there_is() -> None:
    assert {"db", "init", "dashboard", "worker", "optimize"} == set(SERVICES)
    assert [name for name in SERVICES if "profiles" in SERVICES[name]] == ["optimize"]


@pytest.mark.parametrize("name", OURS)
def test_a_service_waits_for_what_it_needs(name: str) -> None:
    wanted = {"db": {"condition": "service_healthy"}}
    if name != "init":
        wanted["init"] = {"condition": "service_completed_successfully"}
    assert SERVICES[name]["depends_on"] == wanted


def test_the_database_keeps_what_it_has_and_is_for_the_services_alone() -> None:
    database = SERVICES["db"]
    assert "ports" not in database
    assert [WHOLE["networks"][name] for name in database["networks"]] == [{"internal": True}]
    assert "database:/var/lib/postgresql/data" in database["volumes"]
    assert database["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    assert database["environment"]["POSTGRES_PASSWORD"] == PASSWORD


def test_what_is_published_is_published_on_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8080:8080"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_container_has_no_rights_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == ("postgres" if name == "db" else "10001:10001")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name == "db" or (service["read_only"], service["tmpfs"]) == (True, ["/tmp"])
    # With one of these, two workers would have one host name, or the host's.
    assert not {"hostname", "container_name", "network_mode", "pid", "privileged", "uts"} & set(service)


@pytest.mark.parametrize("name", ["worker", "optimize"])
def test_a_service_that_trains_has_gpus_and_time_to_stop(name: str) -> None:
    service = SERVICES[name]
    longest = max(drain._STEP_SECONDS + drain._LAST_SECONDS, supervisor._DRAIN_SECONDS + 1)
    assert seconds(service["stop_grace_period"]) > longest
    (reserved,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert reserved["capabilities"] == ["gpu"]
    assert service["entrypoint"][0] == "one-gpu"
    assert "deploy" not in compose(*FILES, **SETTINGS)["services"][name]


def test_the_override_for_the_cpu_changes_nothing_else() -> None:
    for service in (with_gpu := compose(FILES[0], **SETTINGS))["services"].values():
        service.pop("deploy", None)
    assert compose(*FILES, **SETTINGS) == with_gpu


def test_a_drained_worker_stays_away() -> None:
    assert SERVICES["worker"]["restart"] == "on-failure"


def test_images_are_pinned() -> None:
    assert PINNED.fullmatch(SERVICES["db"]["image"])
    assert {SERVICES[name]["image"] for name in OURS} == {f"sweetspot:{sweetspot.__version__}"}
    bases = [rest.split()[0] for name, rest in dockerfile() if name == "FROM"]
    assert len(bases) == 2
    assert all(PINNED.fullmatch(base) for base in bases)
    assert re.search(r"\buv==\d+\.\d+\.\d+$", next(rest for name, rest in dockerfile() if name == "RUN"))


def test_the_image_runs_as_the_same_user_everywhere() -> None:
    assert last("USER") == "10001:10001"
    assert last("STOPSIGNAL") == "SIGTERM"
    assert json.loads(last("ENTRYPOINT")) == ["sweetspot"]


def test_volumes_are_declared_and_belong_to_the_user() -> None:
    made = next(rest for name, rest in dockerfile() if name == "RUN" and "install --directory" in rest).split()
    for name in OURS:
        for mount in SERVICES[name]["volumes"]:
            volume, target, *_ = mount.split(":")
            assert volume in WHOLE["volumes"]
            assert target.removeprefix("/var/lib/") in made, "a new volume has the owner of the image's folder"
        assert f"artifacts:{SERVICES[name]['environment']['SWEETSPOT_ARTIFACTS']}" in SERVICES[name]["volumes"]


def test_what_the_build_copies_is_there_and_nothing_else_is_sent() -> None:
    copied = [word for name, rest in dockerfile() if name == "COPY" and "--from" not in rest
              for word in rest.split()[:-1] if not word.startswith("--")]  # fmt: skip
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert sorted(copied) == sorted(line.removeprefix("!") for line in lines if line.startswith("!"))
    assert all((ROOT / path).exists() for path in copied)


# -- one-gpu ----------------------------------------------------------------------------------------------------------


class Dealt:
    """A command under one-gpu: it says which GPU it has, and waits."""

    def __init__(self, folder: Path) -> None:
        command = 'echo "GPU ${CUDA_VISIBLE_DEVICES-none}"; exec sleep 600'
        environment = {"PATH": f"{folder}:/usr/bin:/bin", "SWEETSPOT_HOME": str(folder)}
        self.process = subprocess.Popen(
            ["/bin/sh", str(ROOT / "deploy/one-gpu"), "/bin/sh", "-c", command],
            env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout
        self.gpu = self.process.stdout.readline().strip().removeprefix("GPU ")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[int], list[Dealt]]]:
    """Starts commands on a machine with the GPUs A and B, one after the other."""
    (tmp_path / "gpus").mkdir()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf 'GPU-A\\nGPU-B\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    started: list[Dealt] = []

    def start(number: int) -> list[Dealt]:
        new = [Dealt(tmp_path) for _ in range(number)]
        started.extend(new)
        return new

    yield start
    for dealt in started:
        dealt.end()


def test_every_worker_has_a_gpu_of_its_own_while_there_are_enough(machine: Callable[[int], list[Dealt]]) -> None:
    first, second, third, fourth = machine(4)
    assert {first.gpu, second.gpu} == {third.gpu, fourth.gpu} == {"GPU-A", "GPU-B"}
    second.end()
    (again,) = machine(1)
    assert again.gpu == second.gpu


# -- a study ----------------------------------------------------------------------------------------------------------


def command_of(service: Mapping, *arguments: str) -> list[str]:
    """What the container runs; arguments take the command's place, as those of ``docker compose run`` do."""
    entrypoint = service.get("entrypoint") or json.loads(last("ENTRYPOINT"))
    return [*entrypoint, *(arguments or service["command"])]


class Host:
    """Runs the services of the compose file as processes.

    Each has folders of its own in the place of its image's, and the volumes' in that of what is mounted there.
    """

    def __init__(self, folder: Path, database: str) -> None:
        self.services: Mapping = compose(*FILES, **SETTINGS)["services"]
        self.volumes = folder / "volumes"
        self._folder = folder
        self._database = database
        self._started: list[subprocess.Popen[str]] = []
        self._bin = folder / "bin"
        self._bin.mkdir()
        (self._bin / "sweetspot").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sweetspot "$@"\n')
        (self._bin / "sweetspot").chmod(0o755)
        (self._bin / "one-gpu").symlink_to(ROOT / "deploy/one-gpu")

    def start(self, name: str, *arguments: str) -> "subprocess.Popen[str]":
        service = self.services[name]
        container = self._folder / f"container-{len(self._started)}"
        (container / f"{HOME[1:]}/gpus").parent.mkdir(parents=True)
        (container / "tmp").mkdir()
        for mount in service["volumes"]:
            volume, target, *_ = mount.split(":")
            (self.volumes / volume).mkdir(parents=True, exist_ok=True)
            (container / target[1:]).symlink_to(self.volumes / volume)
        image = dict(word.split("=", 1) for word in last("ENV").split())
        given = image | service["environment"] | {"SWEETSPOT_STORAGE": self._storage(service["environment"])}
        environment = {key: self._inside(container, value) for key, value in given.items()}
        # No GPU is reserved, so that the container sees none.
        environment |= {"PATH": str(self._bin), "CUDA_VISIBLE_DEVICES": "", "LANG": "C.UTF-8"}
        with open(container / "stderr", "w") as stderr:
            process = subprocess.Popen(
                [self._inside(container, word) for word in command_of(service, *arguments)],
                executable=self._bin / command_of(service)[0], env=environment, cwd=container / HOME[1:],
                stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def _storage(self, environment: Mapping) -> str:
        url = make_url(environment["SWEETSPOT_STORAGE"])
        server = self.services["db"]["environment"]
        assert (url.host, url.username, url.database) == ("db", server["POSTGRES_USER"], server["POSTGRES_DB"])
        assert (url.password, environment["PGPASSWORD"]) == (None, server["POSTGRES_PASSWORD"])
        return self._database

    def _inside(self, container: Path, text: str) -> str:
        return f"{container}{text}" if text.startswith(("/tmp", HOME)) else text

    def said(self) -> str:
        """What all of them wrote to stderr."""
        return "\n".join(file.read_text() for file in sorted(self._folder.glob("container-*/stderr")))

    def written_elsewhere(self) -> list[Path]:
        """Files that no container could have written, with its read-only file system."""
        allowed = ("tmp", "stderr")
        return [
            path
            for container in self._folder.glob("container-*")
            for path in container.rglob("*")
            if path.is_file() and path.relative_to(container).parts[0] not in allowed and not self._is_mounted(path)
        ]

    def _is_mounted(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.volumes.resolve())

    def kill(self) -> None:
        for process in self._started:
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()


@pytest.fixture
def host(tmp_path: Path, postgresql: str) -> Iterator[Host]:
    running = Host(tmp_path, postgresql)
    yield running
    running.kill()


def ask(address: str, password: str | None) -> tuple[int, str]:
    request = urllib.request.Request(address)
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"ann:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def hash_line(password: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{password}\n"))
    assert main(["dashboard", "--hash-password", "--user", "ann"]) == 0
    return capsys.readouterr().out


@pytest.mark.ci
def test_a_study_from_init_to_its_end(
    host: Host, postgresql: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    init = host.start("init")
    out, _ = init.communicate(timeout=120)
    assert (init.returncode, host.said()) == (0, "")
    assert out.startswith("ready: ")
    with psycopg.connect(postgresql) as connection:
        assert connection.execute("SELECT count(*) FROM sweetspot_study").fetchone() == (0,)

    users = host.volumes / "dashboard/users"
    users.touch(0o600)
    users.write_text(hash_line("secret", monkeypatch, capsys))
    port = host.services["dashboard"]["command"].index("--port") + 1
    host.services["dashboard"]["command"][port] = "0"  # 8080 may be taken here
    dashboard = host.start("dashboard")
    workers = [host.start("worker") for _ in range(WORKERS)]

    with Store(postgresql, str(host.volumes / "artifacts")) as store:
        # Until all are there, this process has the claim to itself: nobody is done before the others have begun.
        starter = Leases(store.database, store.workers.register("cpu"), 60.0)
        claim = starter.acquire(claim_lease("digits"))
        assert claim is not None
        starter.keep_renewing(1.0)
        changes = [f"{key}={json.dumps(value)}" for key, value in TINY.items() if not isinstance(value, dict)]
        changes += ["student.replicates={ min = 1, max = 1 }", "confirm.seeds=0"]
        optimize = host.start("optimize", "--dataset", "digits", *(word for c in changes for word in ("--set", c)))
        while len(at_work := store.workers.of_study("digits")) < WORKERS + 1:
            assert all(process.poll() is None for process in (optimize, dashboard, *workers)), host.said()
            time.sleep(0.05)
        pids = {worker.id: worker.pid for worker in at_work}
        claim.release()
        starter.stop_renewing()
        store.workers.unregister(starter.owner)

    out, _ = optimize.communicate(timeout=120)
    assert optimize.returncode == 0, host.said()
    assert "Best point" in out
    with psycopg.connect(postgresql) as connection:
        trials = connection.execute(
            "SELECT trials.state::text, value_json FROM trials LEFT JOIN trial_user_attributes AS attributes"
            " ON attributes.trial_id = trials.trial_id AND attributes.key = 'worker'"
        ).fetchall()
    assert [state for state, _ in trials] == ["COMPLETE"] * TINY["search.trials"]
    at_it = {pids[json.loads(worker)] for _, worker in trials}
    assert at_it & {process.pid for process in workers}, "the services have taken none of the trials"

    assert dashboard.stdout
    address = f"http://127.0.0.1:{dashboard.stdout.readline().split()[0].split(':')[2].split('/')[0]}"
    assert ask(f"{address}/api/studies", None)[0] == 401
    assert ask(f"{address}/api/studies", "guess")[0] == 401
    status, studies = ask(f"{address}/api/studies", "secret")
    assert status == 200
    assert "digits" in studies

    for process in (*workers, dashboard):
        process.send_signal(signal.SIGTERM)
    assert [process.wait(60) for process in (*workers, dashboard)] == [0] * (WORKERS + 1), host.said()
    assert host.written_elsewhere() == []
    assert os.listdir(host.volumes / "artifacts") != []
