from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from sweetspot.errors import UserError
from sweetspot.store.url import artifacts_url, data_folder, database_url, full, home, shown, writable_home

# -- the folder of its own --------------------------------------------------------------------------------------------


def test_home_is_what_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_HOME", str(tmp_path / "mine"))
    assert home() == tmp_path / "mine"
    assert data_folder() == tmp_path / "mine" / "data"
    assert not home().exists()
    assert writable_home().is_dir()
    assert list(home().iterdir()) == []


def test_home_is_the_platforms_data_folder_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEETSPOT_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home().name == "sweetspot"
    assert home().is_relative_to(tmp_path)


def test_a_home_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWEETSPOT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(UserError, match="set SWEETSPOT_HOME to a folder that you may write in") as caught:
        database_url(None)
    assert str(tmp_path / "file" / "home") in str(caught.value)
    assert "\n" not in str(caught.value)


# -- the database -----------------------------------------------------------------------------------------------------


def test_with_no_options_the_database_is_an_sqlite_file_at_home() -> None:
    url = database_url(None)
    assert url.drivername == "sqlite"
    assert url.database == str(home() / "sweetspot.db")
    assert home().is_dir()


def test_the_environment_names_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_STORAGE", "postgresql://lab/studies")
    assert database_url(None).host == "lab"


def test_an_option_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_STORAGE", "postgresql://lab/studies")
    assert database_url(f"{tmp_path}/study.db").database == f"{tmp_path}/study.db"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_read_as_psycopg_3(scheme: str) -> None:
    url = database_url(f"{scheme}://ann:secret@db.lab:5433/studies?sslmode=require")
    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.password, url.host, url.port) == ("ann", "secret", "db.lab", 5433)
    assert url.query == {"sslmode": "require"}


@pytest.mark.parametrize("name", ["study.db", "deep/study.sqlite", "study.sqlite3", "with a space.db"])
def test_a_path_with_a_databases_ending_is_an_sqlite_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = database_url(name)
    assert url.drivername == "sqlite"
    assert url.database == str(tmp_path / name)


def test_a_relative_sqlite_url_is_made_absolute_so_that_workers_elsewhere_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert database_url("sqlite:///study.db").database == str(tmp_path / "study.db")


def test_a_tilde_is_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert database_url("~/study.db").database == str(tmp_path / "study.db")
    assert artifacts_url("~/blobs", database_url("~/study.db")) == str(tmp_path / "blobs")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?cache=shared&uri=true",
        "sqlite:///file:shared?mode=memory&cache=shared&uri=true",
    ],
)
def test_a_database_in_memory_is_refused_because_workers_cannot_share_it(url: str) -> None:
    with pytest.raises(UserError, match="in memory cannot be shared by workers; name a file"):
        database_url(url)


@pytest.mark.parametrize("text", ["nonsense", "/some/folder", "postgresql://host:port/db", "://", "two\nlines"])
def test_what_is_no_url_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match="is not a database URL: a database URL looks like sqlite:///study") as caught:
        database_url(text)
    assert "\n" not in str(caught.value)


def test_an_unknown_database_is_named() -> None:
    with pytest.raises(UserError, match="unknown database 'redis'") as caught:
        database_url("redis://:hunter2@lab/0")
    assert "hunter2" not in str(caught.value)


def test_a_password_with_a_bare_at_sign_is_refused_before_a_part_of_it_is_taken_for_the_host() -> None:
    with pytest.raises(UserError, match="write it as %40") as caught:
        database_url("postgresql://ann:hunter@2@lab/studies")
    assert "hunter" not in str(caught.value)


# -- the artifacts ----------------------------------------------------------------------------------------------------


def test_with_no_options_the_artifacts_are_a_folder_at_home() -> None:
    assert artifacts_url(None, database_url(None)) == str(home() / "artifacts")


def test_artifacts_lie_beside_an_sqlite_file(tmp_path: Path) -> None:
    assert artifacts_url(None, database_url(f"{tmp_path}/study.db")) == str(tmp_path / "artifacts")


def test_a_servers_artifacts_are_at_home_unless_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    server = database_url("postgresql://lab/studies")
    assert artifacts_url(None, server) == str(home() / "artifacts")
    monkeypatch.setenv("SWEETSPOT_ARTIFACTS", "s3://bucket/blobs")
    assert artifacts_url(None, server) == "s3://bucket/blobs"
    assert artifacts_url("gs://other", server) == "gs://other"


def test_a_relative_artifact_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert artifacts_url("blobs", database_url("study.db")) == str(tmp_path / "blobs")


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:hunter2@lab/studies",
        "postgresql://:hunter2@lab/studies",
        "postgresql://ann:hunter2@/studies?host=/run/lab",
        "postgresql://ann:%40hunter2%3A%2F@lab:5432/studies",
        "postgresql://ann:hunter2:hunter2@lab/studies",
        "postgresql://lab/studies?user=ann&password=hunter2",
        "postgresql://lab/studies?sslpassword=hunter2&sslmode=require",
        "postgresql://lab/studies?PassWord=hunter2",
        "mysql://lab/studies?passwd=hunter2",
    ],
)
def test_a_password_is_never_shown(text: str) -> None:
    assert "hunter2" in full(make_url(text))
    for address in (shown(make_url(text)), shown(text)):
        assert "hunter2" not in address
        assert "***" in address
        assert "studies" in address
        assert "lab" in address


@pytest.mark.parametrize("password", ["hun@ter2", "hun/ter2", "hun:ter2", "/hun@ter2/", "hun?ter2", "5?ter2"])
def test_no_part_of_a_password_that_should_have_been_quoted_is_shown(password: str) -> None:
    assert shown(f"postgresql://ann:{password}@lab/studies") == "postgresql://ann:***@lab/studies"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann@lab/studies",
        "postgresql://lab:5432/studies",
        "postgresql://lab:5432/s?user=a@b",
        "sqlite:////data/key=3/study.db",
        "/data/a@b:c",
    ],
)
def test_an_address_without_a_secret_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_artifact_credentials_are_not_shown() -> None:
    assert shown("s3://AKIA:hunter2@bucket/blobs") == "s3://AKIA:***@bucket/blobs"


def test_the_full_address_keeps_the_password_for_the_workers() -> None:
    url = database_url("postgresql://ann:p%40ss%2Fw%7Brd@lab/studies")
    assert url.password == "p@ss/w{rd"
    assert make_url(full(url)) == url
