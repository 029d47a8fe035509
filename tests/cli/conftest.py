"""The command line, run in this process."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from sweetspot.cli import main
from sweetspot.config import StudyConfig
from sweetspot.data.study_data import load_study_data
from sweetspot.store import Store
from sweetspot.store.url import data_folder
from sweetspot.study.search import create_or_continue


@dataclass(frozen=True)
class Said:
    """What a command said, and the exit status that it ended with."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``sweetspot`` with these arguments."""

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        status = main(arguments)
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return run


@pytest.fixture
def create() -> Callable[..., None]:
    """Creates a study in the home, without a trial."""

    def create(config: StudyConfig, name: str = "digits") -> None:
        with Store() as store:
            create_or_continue(store, name, config, load_study_data(config, data_folder(), torch.device("cpu")))

    return create


@pytest.fixture
def refused(command: Command) -> Callable[..., str]:
    """Runs a command that must fail with one line, and leave no study behind; that line, without its ``error: ``."""

    def run(*arguments: str, status: int = 2) -> str:
        said = command(*arguments)
        assert (said.status, said.out) == (status, "")
        assert said.err.startswith("error: ")
        assert said.err.endswith("\n")
        line = said.err.removeprefix("error: ").removesuffix("\n")
        assert line.isprintable()
        assert command("status", "--json") == Said(0, "[]\n", "")
        return line

    return run
