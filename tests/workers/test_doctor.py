"""Doctor: each check for itself, on what is really there, and without making anything."""

import struct
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from rich.console import Console
from sqlalchemy import create_engine, text
from tiny_study import tiny_config

from sweetspot.errors import UserError
from sweetspot.report.doctor import checks_text
from sweetspot.store import Store
from sweetspot.store.inspection import inspect_database
from sweetspot.store.schema import VERSION
from sweetspot.store.url import database_url
from sweetspot.workers.doctor import Check, examine, machine, versions
from sweetspot.workers.doctor.check import import_error, looked_at
from sweetspot.workers.doctor.machine import cpu_quota, precision, usable_cores

Checks = Callable[..., dict[str, Check]]


@pytest.fixture
def checks() -> Checks:
    """What the doctor finds, by the names of the checks; the last where several have the same."""
    return lambda **given: {check.name: check for check in examine(**given)}


def everything_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# -- checks in general ------------------------------------------------------------------------------------------------


def test_a_look_that_fails_is_a_check_of_its_own_and_hides_no_other() -> None:
    def look() -> list[Check]:
        raise ZeroDivisionError("by\nzero")

    def refuse() -> list[Check]:
        raise UserError("--x: give y")

    assert list(looked_at("it", look)) == [
        Check("it", "wrong", "looking at it failed: ZeroDivisionError: by zero", "mend this first: it")
    ]
    assert list(looked_at("it", refuse)) == [Check("it", "wrong", "it cannot be used as asked", "--x: give y")]


def test_text_fits_80_columns_and_names_what_is_wrong() -> None:
    found = [
        Check("torch", "ok", "2.15.0"),
        Check("database", "wrong", f"postgresql://{'x' * 200}: no answer", "start it " * 20),
        Check("data", "advice", "[bold]\x1b[31m no markup", "give --data"),
    ]
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(checks_text(found))
    shown = console.export_text()
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].strip() == "1 of 3 checks found something wrong: database"
    assert r"[bold]\x1b[31m no markup" in shown


# -- versions ---------------------------------------------------------------------------------------------------------


def test_versions_are_compared_with_what_the_package_requires(checks: Checks) -> None:
    found = checks()
    for name in ("torchvision", "optuna", "optuna-dashboard", "sqlalchemy", "numpy"):
        assert found[name] == Check(name, "ok", version(name))
    assert found["torch"].found.startswith(version("torch"))
    assert found["other packages"].state == found["python"].state == "ok"


@pytest.mark.parametrize(
    ("required", "name", "advice"),
    [
        ("numpy>=99", "numpy", "pip install 'numpy>=99'"),
        ("optuna-dashboard>=99", "optuna-dashboard", "pip install 'optuna-dashboard>=99'"),
        ("no-such-package[x]>=2; python_version > '3'", "other packages", "pip install 'no-such-package[x]>=2'"),
    ],
)
def test_what_is_too_old_or_missing_is_wrong(
    monkeypatch: pytest.MonkeyPatch, required: str, name: str, advice: str
) -> None:
    monkeypatch.setattr(versions, "requires", lambda package: [required])
    (wrong,) = [check for check in versions.packages() if check.state != "ok"]
    assert (wrong.name, wrong.state, wrong.advice) == (name, "wrong", advice)


def test_an_extra_that_is_not_installed_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "requires", lambda package: ["no-such-package>=1; extra == 'timm'"])
    (extra,) = [check for check in versions.packages() if check.name == "extra timm"]
    assert extra == Check("extra timm", "ok", "not installed; wanted? in a clone: ./uvw sync --extra timm")


def test_what_does_not_import_is_said_in_one_line() -> None:
    assert import_error("json") is None
    assert import_error("no_such_module") == "ModuleNotFoundError: No module named 'no_such_module'"


# -- the machine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "files", "quota"),
    [
        ("0::/", {}, None),
        ("0::/", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),
        ("0::/../..", {"cpu.max": "200000 100000\n"}, 2.0),
        (
            "4:memory:/m\n3:cpu,cpuacct:/c",
            {"cpu/c/cpu.cfs_quota_us": "50000", "cpu/c/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("nonsense", {"cpu.max": "nonsense"}, None),
    ],
)
def test_the_quota_of_a_container_is_read(
    tmp_path: Path, group: str, files: dict[str, str], quota: float | None
) -> None:
    (tmp_path / "own").write_text(group)
    for name, content in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(content)
    assert cpu_quota(tmp_path / "own", tmp_path / "root") == quota
    assert cpu_quota(tmp_path / "not there") is None
    assert usable_cores() >= 1


def test_a_device_that_is_not_there_is_said_once(checks: Checks) -> None:
    found = checks(device="cuda:77")
    assert found["device"].state == "wrong"
    assert "--device cuda:77" in str(found["device"].advice)
    assert found["cpu"].state == "ok"
    assert list(precision("cuda:77")) == []
    assert '"auto" is ' in checks(device="cpu")["precision"].found


def test_a_driver_whose_gpu_torch_cannot_see_is_worth_a_word(
    checks: Checks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_DRIVER", tmp_path)
    unseen = checks(device="cpu").get("gpu")
    assert (unseen is None) == torch.cuda.is_available()
    assert unseen is None or unseen.state == "advice"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_computed_on(checks: Checks) -> None:
    found = checks(device="cuda:0")["cuda:0"]
    assert found.found.startswith(torch.cuda.get_device_name(0))
    assert found.state in ("ok", "advice")


# -- the database -----------------------------------------------------------------------------------------------------


def test_where_nothing_is_yet_nothing_is_made(checks: Checks, tmp_path: Path) -> None:
    found = checks(storage=f"sqlite:///{tmp_path}/study.db", data=tmp_path / "data")
    assert all(check.state == "ok" for check in found.values())
    assert found["database"].found == f"sqlite:///{tmp_path}/study.db will be made by the first run"
    assert found["artifacts"].found == f"{tmp_path}/artifacts will be made by the first run"
    assert everything_under(tmp_path) == set()


def test_a_database_with_a_study_is_described(checks: Checks, storage: str, tmp_path: Path) -> None:
    with Store(storage, str(tmp_path / "artifacts")) as store:
        store.studies.add("tiny", tiny_config(), "hash")
        before = everything_under(tmp_path / "artifacts")
    found = checks(storage=storage, artifacts=str(tmp_path / "artifacts"))
    assert found["database"].state == "ok"
    assert f", schema {VERSION}, 1 study" in found["database"].found
    assert " ms" in found["database"].found
    assert ("clock" in found["database"].found) == storage.startswith("postgresql")
    assert found["artifacts"].state == "ok"
    assert found["artifacts"].found.endswith("GB free, they belong to the database")
    assert everything_under(tmp_path / "artifacts") == before


def test_an_empty_database_stays_empty(checks: Checks, postgresql: str, tmp_path: Path) -> None:
    found = checks(storage=postgresql, artifacts=str(tmp_path))
    assert (found["database"].state, "no tables yet" in found["database"].found) == ("ok", True)
    engine = create_engine(database_url(postgresql))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) == 0
    engine.dispose()


@pytest.mark.parametrize(
    ("schema", "state", "words"),
    [(VERSION + 1, "wrong", "update sweetspot"), (VERSION - 1, "advice", "sweetspot init")],
)
def test_a_schema_of_another_version(checks: Checks, tmp_path: Path, schema: int, state: str, words: str) -> None:
    address = f"sqlite:///{tmp_path}/study.db"
    with Store(address) as store, store.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE sweetspot_schema SET version = {schema}"))
    found = checks(storage=address)["database"]
    assert (found.state, words in str(found.advice)) == (state, True)
    assert inspect_database(database_url(address)).schema == schema


def test_tables_of_another_optuna_are_wrong(checks: Checks, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/study.db"
    with Store(address) as store, store.database.engine.begin() as connection:
        connection.execute(text("UPDATE version_info SET schema_version = 7"))
        connection.execute(text("UPDATE alembic_version SET version_num = 'v99.0.0.a'"))
    found = checks(storage=address)["database"]
    assert found.state == "wrong"
    assert "Optuna refuses its tables" in str(found.advice)


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("postgresql://ann:hunter2@127.0.0.1:1/x", "is the server running"),
        ("postgresql://ann:hun@ter2@127.0.0.1:1/x", "write it as %40"),
        ("oracle://ann:hunter2@db/x", "unknown database 'oracle'"),
        ("nonsense", "is not a database URL"),
        ("sqlite:////no/such/folder/study.db", "mkdir -p /no/such/folder"),
        ("sqlite:////dev/null/study.db", "mkdir -p /dev/null"),
    ],
)
def test_a_database_that_is_not_to_be_had(checks: Checks, storage: str, words: str) -> None:
    found = checks(storage=storage)
    assert found["database"].state == "wrong"
    assert words in str(found["database"].advice)
    assert not any("hunter2" in f"{check.found}{check.advice}" for check in found.values())
    assert found["threads"].state == found["data"].state == "ok"


def test_a_file_that_is_no_database(checks: Checks, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database" * 1000)
    found = checks(storage=f"sqlite:///{tmp_path}/study.db")["database"]
    assert (found.state, "not a database" in str(found.advice)) == ("wrong", True)


# -- the artifacts ----------------------------------------------------------------------------------------------------


def test_artifacts_of_another_database_are_wrong(checks: Checks, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Store(f"sqlite:///{tmp_path}/{name}.db", str(tmp_path / name)).close()
    found = checks(storage=f"sqlite:///{tmp_path}/a.db", artifacts=str(tmp_path / "b"))["artifacts"]
    assert (found.state, "belong to another database" in str(found.advice)) == ("wrong", True)


@pytest.mark.parametrize(
    ("address", "words"),
    [("foo://x", "give --artifacts a folder"), ("/dev/null/x", "give --artifacts a place that you may write to")],
)
def test_artifacts_that_are_not_to_be_had(checks: Checks, tmp_path: Path, address: str, words: str) -> None:
    found = checks(storage=f"sqlite:///{tmp_path}/study.db", artifacts=address)["artifacts"]
    assert (found.state, words in str(found.advice)) == ("wrong", True)


# -- home and data ----------------------------------------------------------------------------------------------------


def test_a_home_that_cannot_be_made_matters_only_where_it_is_needed(
    checks: Checks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SWEETSPOT_HOME", "/dev/null/x")
    found = checks()
    assert (found["home"].state, found["database"].state, found["artifacts"].state) == ("wrong", "wrong", "wrong")
    assert found["home"].advice == "set SWEETSPOT_HOME to a folder that you may write in"
    found = checks(storage=f"sqlite:///{tmp_path}/study.db", data=tmp_path)
    assert found["home"].state == "ok"


def test_data_that_is_there_is_named_and_nothing_is_downloaded(checks: Checks, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 20), ("t10k", 10)):
        images = struct.pack(">4i", 0x803, count, 28, 28) + bytes(count * 784)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + bytes(count))
    before = everything_under(tmp_path)
    found = checks(data=tmp_path, dataset="cifar10")
    assert found["data"] == Check("data", "ok", f"{tmp_path} has mnist")
    assert found["data set"].found == f"cifar10: not in {tmp_path} yet: the first run downloads it"
    assert checks(data=tmp_path, dataset="mnist")["data set"].found == (
        "mnist: 10 classes, 20 training images, 28x28 grey"
    )
    (raw / "train-images-idx3-ubyte").write_bytes(b"no images")
    assert checks(data=tmp_path)["data set"].state == "advice"
    assert checks(data=tmp_path, dataset="mnist")["data set"].state == "wrong"
    assert everything_under(tmp_path) == before


@pytest.mark.parametrize(
    ("dataset", "state", "words"),
    [
        ("digits", "ok", "digits: 10 classes, 1,397 training images, 8x8 grey"),
        ("digitz", "wrong", "did you mean 'digits'?"),
        ("npz:nowhere.npz", "wrong", "nowhere.npz"),
        ("cifar10", "wrong", "give --data a folder that you may write in"),
    ],
)
def test_a_data_set_is_opened(checks: Checks, dataset: str, state: str, words: str) -> None:
    found = checks(dataset=dataset, data=Path("/dev/null/x"))["data set"]
    assert found.state == state
    assert words in f"{found.found} {found.advice}"
