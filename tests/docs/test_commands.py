"""Every command and every Python program that the README and the pages show is run, in the page's order, made small.

What is made small: the study (two batches, two epochs, the smallest networks), and the images that would be downloaded.
Workers, dashboards and whatever else is a process of its own is a fork of this one, which spares it its imports.
"""

import ast
import io
import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from tiny_study import TINY, toml_settings
from typer.main import get_command

import sweetspot
from sweetspot.cli import main
from sweetspot.cli.commands import app
from sweetspot.models import build
from sweetspot.study import estimate
from sweetspot.study_file import Draft, find
from sweetspot.workers import supervisor

ROOT = Path(__file__).parents[2]
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}

NOT_RUN = {
    r"docker ": "tests/deploy/test_compose.py runs the commands of its services; Docker would have to be there",
    r"cp deploy/example.env": "tests/deploy/test_compose.py reads that file",
    r"kubectl ": "tests/deploy/test_kubernetes.py validates the files; a cluster would have to be there",
    r"cp deploy/kubernetes/secret.yaml.example": "tests/deploy/test_kubernetes.py reads that file",
    r"sbatch ": "tests/deploy/test_slurm.py runs the script, with a stand-in for Slurm's commands",
    r"pip install ./stripes": "tests/docs/test_extending.py installs it, without asking an index for setuptools",
    r"\./uvw pip install ./stripes": "tests/docs/test_extending.py installs it into a folder of its own",
    r"pip install '\.\[": "tests/test_wheel.py builds the wheel; what the extras need would be downloaded",
    r"\./uvw sync --extra": "downloads",
    r"\./uvw run pytest": "are the tests themselves",
    r"\.ci/run": "runs the tests themselves",
    r"umask 077; echo": "tests/cli/test_storage_file.py reads such a file",
    r"export SWEETSPOT_": "tests/cli/test_storage_file.py sets these variables",
    r"python -m benchmarks.reuse": "tests/benchmarks/test_benchmark_reuse.py is a short form of it",
    r"python -m benchmarks.search": "tests/benchmarks/test_benchmark_search.py runs it on small tables",
    r"python -m benchmarks.calibration": "tests/study/test_calibration.py is a short form of it",
    r"python -m benchmarks.ordering": "tests/benchmarks/test_benchmark_ordering.py is a short form of it",
    r"python -m benchmarks.fleet": "tests/benchmarks/test_benchmark_fleet.py is a short form of it",
    r"python -m benchmarks.report": "tests/benchmarks/test_benchmark_report.py makes the same report",
    r"python -m benchmarks.chaos": "tests/workers/test_chaos.py is a short form of it",
    r"python -m benchmarks.throughput": "tests/benchmarks/test_benchmark_throughput.py runs its quick form",
    r"python -m benchmarks.students": "tests/benchmarks/test_benchmark_students.py is a short form of it",
    r"python -m benchmarks.step_profile": "tests/benchmarks/test_benchmark_step_profile.py is a short form of it",
    r"python -m benchmarks.overhead": "tests/benchmarks/test_benchmark_overhead.py is a short form of it",
}
"""The other lines for a shell, by how they begin: the test that covers them, or why none can."""

ABBREVIATED = {
    "optimize … --dry-run": "optimize --dataset digits --dry-run",
    "optimize … --profile DIR": "optimize --dataset digits --profile profile",
    "export --json": "export digits -o digits-networks --json",
    "teacher add FILE": "teacher add mine.safetensors --model resnet56 --dataset cifar100 --epochs 240",
}
"""What a page names by a part of its arguments, as it is said elsewhere on the pages."""

FILLED = {
    "--data DIR": "--data sets",
    "DIR": "digits-networks",
    "NAME": "digits",
    "STUDY": "digits",
    "FIGURE": "map",
    "FILE.html": "page.html",
}
"""What stands for the placeholders of a form, in the folder where it is run."""

SMALL = {
    "data.validation": 200,
    "search.batch_size": [64],
    "search.epochs": [1, 2],
    "search.trials": 2,
    "student.epochs": 1,
}
SMALLEST_NETWORKS = {"teacher.model": "mlp", "student.model": "mlp-8"}

# -- what is on the pages ---------------------------------------------------------------------------------------------


COMMAND_LINE = get_command(app)


def named(words: Sequence[str]) -> int:
    """How many of the words name a command of the command line."""
    command: Any = COMMAND_LINE
    for i, word in enumerate(words):
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            return i
    return len(words)


def said_with(command: str, further: str) -> str:
    """A command that a sentence names after another, like the ``verify`` of "`sweetspot snapshots ls`, `verify`"."""
    words = command.split()
    if further.startswith("-"):
        return " ".join((*words[:-1], further))
    inner = [*words[: named(words) - 1], further]
    return " ".join(inner) if named(" ".join(inner).split()) == len(words[: named(words)]) else further


class Shown(NamedTuple):
    """What a page shows: a "command" of sweetspot, a line for the "shell", or a "program" in Python."""

    kind: str
    text: str


def shown(page: str) -> Iterator[Shown]:
    """What a page shows, in its order."""
    fence = r"^```(?P<language>\w*)\n(?P<block>.*?)^```"
    inline = r"`(?P<first>sweetspot [^`\n]+)`(?P<further>(?:(?:,| and| or|, and) `[^`\n]+`)+)|`(?P<other>[^`\n]+)`"
    for found in re.finditer(f"{fence}|{inline}", page, re.S | re.M):
        if found["language"] == "python":
            yield Shown("program", found["block"])
        elif found["language"] in ("bash", "text"):
            lines = found["block"].replace("\\\n", " ").splitlines()
            prompts = found["language"] == "text"  # where the output is shown, too
            lines = [line.removeprefix("$ ") for line in lines if not prompts or re.match(r"\$ |sweetspot ", line)]
            yield from filter(None, (of_line(re.sub(r"\s+#.*", "", line).strip()) for line in lines))
        elif (named_here := found["first"] or found["other"]) and (first := of_line(named_here)):
            yield first
            command = first.text
            for further in re.findall(r"`([^`]+)`", found["further"] or ""):
                command = said_with(command, further)
                yield Shown("command", command)


def of_line(line: str) -> Shown | None:
    """What a line is for; None: it is none for a shell."""
    if command := re.fullmatch(r"(?:\./uvw run )?sweetspot (?!…)(.+)", line):
        return Shown("command", command[1])
    is_shell = re.match(r"(\./uvw|docker|kubectl|sbatch|pip|cp|umask|export|python|\.ci/run)\b", line)
    return Shown("shell", line) if is_shell and "sweetspot …" not in line else None


def forms(page: str) -> list[Shown]:
    """What of a page is to be run, each once, complete and without placeholders."""
    every = [text for text in PAGES.values() for kind, text in shown(text) if kind == "command"]
    found = []
    for kind, text in shown(page):
        if kind == "command":
            is_name = named(text.split()) == len(text.split())
            if is_name and any(other.startswith(f"{text} ") for other in every):
                continue  # named here, and shown with its arguments elsewhere
            text = ABBREVIATED.get(text, text)
            text = text if "=[" in text else text.replace("[", "").replace("]", "")  # what may be left out is given
            for placeholder, value in FILLED.items():
                text = re.sub(rf"(?<![\w-]){re.escape(placeholder)}(?![\w.])", value, text)
        found.append(Shown(kind, text))
    return list(dict.fromkeys(found))


# -- where it is run --------------------------------------------------------------------------------------------------

FORKS = str(Path(__file__).with_name("forks.py"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def processes() -> "Iterator[Processes]":
    with tempfile.TemporaryDirectory(prefix="sweetspot-") as place:  # the path of a socket may be 107 bytes long
        started = Processes(Path(place, "forks"))
        yield started
        started.end()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: "Processes") -> Path:
    """A home, and the current folder with the files that the commands name, smaller than the real ones."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * 15).astype(np.uint8)
    for name, images in (("part-0.npz", pixels), ("cifar100.npz", 255 - pixels)):
        np.savez(tmp_path / name, train_x=images[:900], train_y=labels[:900], test_x=images[900:], test_y=labels[900:])
    raw = tmp_path / "sets" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    large = np.stack([np.asarray(Image.fromarray(image).resize((28, 28))) for image in pixels[:600]])
    for prefix, part in (("train", slice(0, 500)), ("t10k", slice(500, 600))):
        for kind, values in (("images-idx3", large[part]), ("labels-idx1", labels[part].astype(np.uint8))):
            head = struct.pack(f">{1 + values.ndim}i", 8 << 8 | values.ndim, *values.shape)
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(head + values.tobytes())
    torch.manual_seed(0)
    save_file(build("resnet56", classes=10, channels=1, image_size=8).state_dict(), tmp_path / "mine.safetensors")
    draft = Draft.read(find("digits"))
    for key, value in (TINY | SMALL | SMALLEST_NETWORKS).items():
        draft.set(key, value, key)
    for name in ("digits.toml", "study.toml"):
        (tmp_path / name).write_text(tomli_w.dumps(draft.values))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEETSPOT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(estimate, "_MEASURE_SECONDS", 0.0)  # one step of each: the figures do not matter here
    monkeypatch.setattr(supervisor.subprocess, "Popen", processes)
    return tmp_path


Process = subprocess.Popen


class Processes:
    """Starts ``python -m sweetspot …`` as forks of a process that has imported everything."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self._forks = Process([sys.executable, FORKS, self._socket], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        assert self._forks.stdout is not None
        assert self._forks.stdout.readline() == "ready\n"

    def __call__(self, command: list[str], **given: Any) -> "Process[str]":
        if command[1:3] == ["-m", "sweetspot"]:
            command = [sys.executable, "-IS", FORKS, self._socket, *command[3:]]
        return Process(command, **given)

    def end(self) -> None:
        self._forks.kill()
        self._forks.communicate()


class Runner:
    """Runs what a page shows."""

    def __init__(
        self, processes: Processes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._processes = processes
        self._capsys = capsys
        self._patch = monkeypatch
        self._values: dict[str, Any] = {
            "labels": torch.arange(8) % 3,
            **{name: torch.randn(8, 3) for name in ("logits", "student_logits", "teacher_logits")},
        }
        self._workers: list[Process[str]] = []
        self._serving: list[str] = []
        self.run_already: set[tuple[str, ...]] = set()

    def program(self, code: str) -> None:
        exec(compile(ast.fix_missing_locations(Shrunk().visit(ast.parse(code))), "page", "exec"), self._values)

    def command(self, command: str) -> None:
        command, _, into = (part.strip() for part in command.partition(">>"))
        arguments = shrunk(shlex.split(command))
        if arguments[:2] == ["workers", "drain"]:
            self._drain(arguments)
        elif tuple(arguments) in self.run_already:
            return
        elif "--forever" in arguments:
            self._start_worker(arguments)
        elif arguments[0] == "dashboard" and "--hash-password" not in arguments:
            self._serve(arguments)
        else:
            said = self._here(arguments)
            if into:
                Path(into).touch(0o600)
                Path(into).write_text(said)
        self.run_already.add(tuple(arguments))

    def _here(self, arguments: list[str]) -> str:
        self._patch.setattr(sys, "stdin", io.StringIO("y\n" if arguments[0] == "delete" else "correct horse battery\n"))
        self._capsys.readouterr()
        status = main(arguments)
        said = self._capsys.readouterr()
        assert status == 0, f"sweetspot {shlex.join(arguments)}: {said.err}"
        return said.out

    def _process(self, arguments: list[str]) -> "Process[str]":
        return self._processes(
            [sys.executable, "-m", "sweetspot", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=dict(os.environ),
        )  # fmt: skip

    # -- what does not end by itself --------------------------------------------------------------------------------

    def _start_worker(self, arguments: list[str]) -> None:
        before = len(self._living())
        self._workers.append(self._process(arguments))
        self._serving = arguments
        deadline = time.monotonic() + 60
        while len(self._living()) == before:
            assert self._workers[-1].poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _living(self) -> list[str]:
        return [worker["name"] for worker in json.loads(self._here(["workers", "--json"]))]

    def _drain(self, arguments: list[str]) -> None:
        if not self._workers:
            self._start_worker(self._serving or ["worker", "--forever", "--device", "cpu"])
        self._here([*arguments[:2], *(self._living()[:1] if "--all" not in arguments else ["--all"])])
        gone = [self._workers.pop(0)] if "--all" not in arguments else self._workers
        for worker in gone:
            assert worker.wait(60) == 0
        if "--all" in arguments:
            self._workers = []

    def _serve(self, arguments: list[str]) -> None:
        with self._process([*arguments, "--port", "0"]) as process:
            assert process.stdout is not None
            port = re.match(r"http://[^ ]*:(\d+)/", process.stdout.readline())
            assert port, arguments
            expected = 401 if "--auth-file" in arguments else 200
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/dashboard", timeout=30) as answer:
                    status = answer.status
            except urllib.error.HTTPError as error:
                status = error.code
            assert status == expected, arguments
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0

    def end(self) -> None:
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0


def shrunk(arguments: list[str]) -> list[str]:
    """The arguments, with data that are at hand instead of what is downloaded, on the CPU, and made small."""
    arguments = ["npz:cifar100.npz" if part == "cifar100" else part for part in arguments]
    arguments = ["cpu" if part == "cuda:0" else part for part in arguments]
    if arguments[0] not in ("optimize", "entropy") and not (arguments[0] == "grid" and "--dataset" in arguments):
        return arguments
    for option in ("--teachers", "--replicates"):
        if option in arguments:
            arguments[arguments.index(option) + 1] = "2"
    if "--trials" in arguments:
        arguments[arguments.index("--trials") + 1] = "2"
    small = SMALL if "--teacher" in arguments else SMALL | SMALLEST_NETWORKS
    arguments += toml_settings(**small)
    if arguments[0] in ("optimize", "grid") and "--workers" not in arguments:
        arguments += ["--workers", "1"]
    return arguments


class Shrunk(ast.NodeTransformer):
    """A program whose study is the small one."""

    def visit_Call(self, call: ast.Call) -> ast.Call:
        self.generic_visit(call)
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("optimize", "Objective"):
            for argument in call.args:
                if isinstance(argument, ast.Constant):
                    argument.value = f"{argument.value}.toml"
            for keyword in call.keywords:
                keyword.value = ast.Constant(2)
        return call


# -- running it -------------------------------------------------------------------------------------------------------

ON_ITS_OWN = "extending.md"
"""The page that needs its own package, which tests/docs/test_extending.py installs."""


@pytest.mark.ci
@pytest.mark.parametrize("page", sorted(PAGES.keys() - {ON_ITS_OWN}))
def test_what_a_page_shows_is_run(
    page: str,
    folder: Path,
    processes: Processes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_imagenet(folder / "home" / "data")
    runner = Runner(processes, capsys, monkeypatch)
    everything = forms(PAGES[page])
    first = next((text for kind, text in everything if kind == "command" and re.search(r"^\w+ .*\bdigits\b", text)), "")
    if first and not first.startswith(("optimize", "grid")):
        runner.command("optimize --dataset digits")  # which the page takes for granted
    for kind, text in everything:
        if kind == "command":
            runner.command(text)
        elif kind == "program":
            runner.program(text)
    runner.end()
    if any("photos" in text for _, text in everything[1:2]):  # named by a path that is relative
        result = sweetspot.load_result("photos")
        assert result.config.data.dataset == f"imagefolder:{folder / 'photos'}"
        assert result.confirmation is not None
    for _, text in everything:
        for file in re.findall(r" -o (\S+\.\w+)$", text):
            assert (folder / file).stat().st_size > 1000, text


def test_every_line_for_a_shell_that_is_not_run_is_known() -> None:
    lines = {text for page in PAGES.values() for kind, text in shown(page) if kind == "shell"}
    reasons = {line: [why for start, why in NOT_RUN.items() if re.match(start, line)] for line in lines}
    assert not [line for line, why in reasons.items() if len(why) != 1]
    assert {why for (why,) in reasons.values()} == set(NOT_RUN.values())
    for why in NOT_RUN.values():
        assert all((ROOT / test).is_file() for test in re.findall(r"tests/\S+\.py", why)), why


def test_the_pages_show_what_there_is() -> None:
    """Every command is on a page."""
    every = [text.split() for page in PAGES.values() for kind, text in forms(page) if kind == "command"]
    assert len(every) > 50
    on_pages = {" ".join(words[: named(words)]) for words in every}
    for name, command in COMMAND_LINE.commands.items():  # type: ignore[attr-defined]
        inner = [f"{name} {part}" for part in getattr(command, "commands", {})]
        assert name in on_pages or all(part in on_pages for part in inner), name


def tiny_imagenet(root: Path) -> None:
    """Three classes of it, as it is published."""
    place = root / "tiny-imagenet-200"
    numbers = ("n01", "n02", "n03")
    for i, number in enumerate(numbers):
        (place / "train" / number / "images").mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (64, 64), (80 * i, 99, k)).save(place / "train" / number / "images" / f"{k}.JPEG")
    (place / "wnids.txt").write_text("\n".join(numbers))
