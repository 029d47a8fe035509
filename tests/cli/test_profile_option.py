"""``optimize --profile``, as far as it goes before the work begins."""

from collections.abc import Callable
from pathlib import Path

from tiny_study import toml_settings

OPTIMIZE = ("optimize", "--dataset", "digits", "--device", "cpu", "--workers", "1", *toml_settings())


def test_a_folder_that_cannot_be_written_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(*OPTIMIZE, "--profile", str(tmp_path / "file")) == (
        f"--profile {tmp_path}/file is a file: name a folder"
    )
    assert refused(*OPTIMIZE, "--profile", str(tmp_path / "file" / "in-it")) == (
        f"--profile {tmp_path}/file/in-it: Not a directory: name a folder that you may write in"
    )


def test_a_run_that_is_refused_says_nothing_of_an_earlier_profile(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "profile-1.json").write_text("{}")
    assert "unknown" in refused(*OPTIMIZE, "--teacher", "no-such-network", "--profile", str(tmp_path))
    assert (tmp_path / "profile-1.json").exists()  # nor is it lost


def test_a_dry_run_makes_no_folder(command: Callable[..., object], tmp_path: Path) -> None:
    command(*OPTIMIZE, "--dry-run", "--profile", str(tmp_path / "profile"))
    assert not (tmp_path / "profile").exists()
