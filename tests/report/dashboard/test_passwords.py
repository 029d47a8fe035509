"""The auth file, and whether a password is right."""

from pathlib import Path

import bcrypt
import pytest

from sweetspot.errors import UserError
from sweetspot.report.dashboard.passwords import Passwords, hash_line, read_auth_file

HASH = bcrypt.hashpw(b"secret", b"$2b$04$abcdefghijklmnopqrstuu").decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.touch(0o600)
    return path


def test_a_line_that_is_printed_can_be_read_back(file: Path) -> None:
    file.write_text(hash_line("ann", "pässword") + "\n")
    passwords = Passwords(read_auth_file(file))
    assert passwords.are_right("ann", "pässword".encode())
    assert not passwords.are_right("ann", b"password")


def test_comments_blank_lines_and_the_hashes_of_other_tools(file: Path) -> None:
    other = HASH.replace("$2b$", "$2y$")  # htpasswd -B
    file.write_text(f"# who may look\n\n  ann:{HASH}  \r\nbob:{other}\n")
    users = read_auth_file(file)
    assert list(users) == ["ann", "bob"]
    assert Passwords(users).are_right("bob", b"secret")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no user: sweetspot dashboard --hash-password"),
        ("# nobody\n", "has no user"),
        (f"ann:{HASH}\nbob:hunter2\n", "line 2 of "),
        ("hunter2\n", "line 1 of "),
        (f":{HASH}\n", "line 1 of "),
        (f"ann:{HASH[:-1]}\n", "line 1 of "),
        (f"ann:{HASH}x\n", "line 1 of "),
        ("ann:" + HASH.replace("$04$", "$31$"), "cost 4 to 16"),
        (f"ann:{HASH}\nann:{HASH}\n", "line 2 of .* has the user 'ann' for the second time"),
        ("ann:$apr1$abc$def\n", "--hash-password prints such lines"),
    ],
)
def test_what_is_no_auth_file(file: Path, content: str, words: str) -> None:
    file.write_text(content)
    with pytest.raises(UserError, match=words) as raised:
        read_auth_file(file)
    assert "hunter2" not in str(raised.value)
    assert "$" not in str(raised.value)


def test_files_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .* \(No such file or directory\)"):
        read_auth_file(file.with_name("nowhere"))
    with pytest.raises(UserError, match="cannot read"):
        read_auth_file(file.parent)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is no text file"):
        read_auth_file(file)


def test_a_file_that_everybody_may_change(file: Path) -> None:
    file.write_text(f"ann:{HASH}\n")
    file.chmod(0o666)
    with pytest.raises(UserError, match="chmod 600"):
        read_auth_file(file)


def test_what_was_right_is_known_without_asking_again() -> None:
    passwords = Passwords({"ann": HASH.encode()})
    assert not passwords.are_proven("ann", b"secret")
    assert passwords.are_right("ann", b"secret")
    assert passwords.are_proven("ann", b"secret")
    assert not passwords.are_proven("ann", b"wrong")
    assert not passwords.are_proven("bob", b"secret")
    assert not passwords.are_right("ann", b"wrong")
    assert not passwords.are_proven("ann", b"wrong")


def test_an_unknown_user_is_checked_like_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords({"ann": HASH.encode(), "bob": HASH.replace("$04$", "$07$").encode()})
    asked: list[bytes] = []
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, hashed: asked.append(hashed) or True)
    assert not passwords.are_right("nobody", b"secret")
    assert [hashed[:7] for hashed in asked] == [b"$2b$07$"]
    monkeypatch.undo()
    assert not passwords.are_right("nobody", b"secret")


@pytest.mark.parametrize("user", ["", " ", "a:b", "#ann", "ann ", "a\nb"])
def test_what_is_no_user(user: str) -> None:
    with pytest.raises(UserError, match="--user"):
        hash_line(user, "secret")


@pytest.mark.parametrize("password", ["", "x" * 73, "ä" * 37, "a\0b", "a\tb", "\udcff"])
def test_what_is_no_password(password: str) -> None:
    with pytest.raises(UserError) as raised:
        hash_line("ann", password)
    assert "x" * 73 not in str(raised.value)


def test_a_password_of_72_bytes_is_read_whole() -> None:
    line = hash_line("ann", "x" * 72)
    assert not Passwords({"ann": line.partition(":")[2].encode()}).are_right("ann", b"x" * 71)
