"""Images that are too many for a device are refused before they are put there."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from rich.console import Console

from sweetspot.config import StudyConfig
from sweetspot.data.images import DataSet, Images
from sweetspot.data.memory import check_memory, container_memory, device_memory, needed_bytes
from sweetspot.data.study_data import StudyData
from sweetspot.errors import UserError
from sweetspot.study_file import draft_for
from sweetspot.workers.optimize import Run, plan, run_study

CPU = torch.device("cpu")
GPU = torch.device("cuda:0")  # a name; nothing is put there


class Blank(DataSet):
    """100 black images of 8x8 in three classes, and a count of the times that they were read."""

    name = "blank"
    classes = ("a", "b", "c")

    def __init__(self, known: tuple[int, int] = (0, 0)) -> None:
        self.known = known
        self.read = 0

    def train(self) -> Images:
        self.read += 1
        return Images(torch.zeros(100, 3, 8, 8, dtype=torch.uint8), torch.arange(100) % 3)

    def test(self) -> Images:
        raise AssertionError

    def at_least(self) -> tuple[int, int]:
        return self.known


CONFIG = StudyConfig.model_validate(
    {"data": {"dataset": "digits", "validation": 20}, "search": {"batch_size": [8]}, "student": {"batch_size": 8}}
)
IMAGES = 80 * 3 * 10 * 10 + 20 * 192
"""All images in uint8, those of training with a border of a pixel."""
NEEDED = IMAGES + 2 * 4 * 20 * 192
"""These, and the two probes in float32."""


def load(workers: dict[torch.device, int], there: int, blank: Blank | None = None) -> StudyData:
    """Data that this process looks at on the CPU, for such workers, where every device has so much memory."""
    return StudyData(blank or Blank(), CONFIG, CPU, workers, lambda device: there)


def test_what_is_needed_is_all_images_and_the_probes() -> None:
    assert needed_bytes(80, 20, 3 * 8 * 8, 3 * 10 * 10) == NEEDED
    data = StudyData(Blank(), CONFIG, CPU)
    held = data.views(0, 0).padded, data.train_probe.images, data.validation.images
    assert len(data.validation) * 192 + sum(t.numel() * t.element_size() for t in held) == NEEDED


def test_without_crops_images_have_no_border() -> None:
    config = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"augmentation": ("flip",)})})
    assert StudyData(Blank(), config, CPU).views(0, 0).padded.shape == (80, 3, 8, 8)


def test_half_of_the_memory_may_be_used_and_no_more() -> None:
    StudyData(Blank(), CONFIG, CPU, memory=lambda device: 2 * NEEDED)
    with pytest.raises(UserError, match="the images of blank need"):
        StudyData(Blank(), CONFIG, CPU, memory=lambda device: 2 * NEEDED - 1)


@pytest.mark.parametrize("device", [CPU, GPU])
def test_every_worker_of_a_device_has_its_own(device: torch.device) -> None:
    assert load({device: 3}, 6 * NEEDED).train_images == 80
    with pytest.raises(UserError, match=r"for each of 3 workers, and .*, fewer workers, or a device of"):
        load({device: 3}, 6 * NEEDED - 1)


def test_who_only_looks_at_the_images_needs_no_probes() -> None:
    def memory(device: torch.device) -> int:
        return 2 * IMAGES if device == CPU else 4 * NEEDED

    StudyData(Blank(), CONFIG, CPU, {GPU: 2}, memory)
    with pytest.raises(UserError, match="the images alone"):
        StudyData(Blank(), CONFIG, CPU, {GPU: 2}, lambda device: memory(device) - (device == CPU))


def test_the_error_has_the_figures_and_says_what_to_do() -> None:
    with pytest.raises(UserError) as error:
        check_memory(
            "imagefolder:photos", 90_000, 10_000, 3 * 64**2, 3 * 80**2, CPU, {GPU: 1}, lambda device: 4_000_000_000
        )
    assert str(error.value) == (
        "the images of imagefolder:photos need 2.9 GB (the images, and the probes in float32), and cuda:0 has 4.0 GB, "
        "of which half may be used: lower data.image_size (imagefolder:PATH), use fewer images, or a device of 5.7 GB "
        "or more"
    )


def test_images_whose_number_is_known_are_refused_before_they_are_read() -> None:
    blank = Blank((100, 192))
    without_border = NEEDED - 80 * 3 * (10 * 10 - 8 * 8)
    with pytest.raises(UserError, match="the images of blank need"):
        load({GPU: 2}, 4 * without_border - 1, blank)
    assert blank.read == 0
    with pytest.raises(UserError, match="the images of blank need"):
        load({GPU: 2}, 4 * NEEDED - 1, blank)
    assert blank.read == 1
    load({GPU: 2}, 4 * NEEDED, blank)
    assert blank.read == 2


@pytest.mark.parametrize("dataset", ["cifar100", "digits"])
def test_a_dry_run_of_a_built_in_set_is_refused_like_the_study(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SimpleNamespace(total=1_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    config = draft_for(dataset, None).config()
    run = Run("mine", data=Path("nowhere"), workers=3)
    with pytest.raises(UserError, match=f"the images of {dataset} need .* for each of 3 workers, and this machine has"):
        plan(config, run)
    if dataset == "digits":
        with pytest.raises(UserError, match=r"the images of digits need .* for each of 3 workers"):
            run_study(config, run, Console(), quiet=True)


def test_a_processors_memory_is_the_machines_or_less() -> None:
    assert 0 < device_memory(CPU) <= psutil.virtual_memory().total


# -- containers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    files = {
        "memory.max": "max\n",
        "pod/memory.max": "4000\n",
        "pod/inner/memory.max": "max\n",
        "memory/memory.limit_in_bytes": "9000\n",
        "memory/job/memory.limit_in_bytes": "7000\n",
    }
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "cgroup"


@pytest.mark.parametrize(
    ("groups", "limit"),
    [
        ("0::/pod/inner\n", 4000),
        ("0::/pod\n", 4000),
        ("0::/\n", 2**63),
        ("0::/elsewhere\n", 2**63),
        ("5:cpu,cpuacct:/job\n4:memory:/job\n", 7000),
        ("4:memory:/elsewhere\n0::/pod\n", 4000),
        ("", 2**63),
    ],
)
def test_a_container_may_have_less_than_the_machine(mount: Path, tmp_path: Path, groups: str, limit: int) -> None:
    (tmp_path / "groups").write_text(groups)
    assert container_memory(tmp_path / "groups", mount) == limit


def test_where_there_are_no_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert container_memory(tmp_path / "nowhere", tmp_path) == 2**63
