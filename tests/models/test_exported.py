"""What ``sweetspot export`` has written is loaded from its folder alone; whatever is wrong with it is one line."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from sweetspot.errors import UserError
from sweetspot.models import build
from sweetspot.models.exported import CONFIG, distribution_of, is_export, load_student, load_teacher

SIZES = {"classes": 3, "channels": 2, "image_size": 8}
MEAN, STD = (0.3052773718876794, 0.5), (0.3759070952806601, 0.25)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an export of two fresh networks; values of ``config.json`` by dotted key."""

    def write(model: str = "mlp-8", **changes: Any) -> Path:
        folder = tmp_path / "export"
        folder.mkdir(exist_ok=True)
        networks = {}
        for seed, kind in enumerate(("teacher", "student")):
            torch.manual_seed(seed)
            content = save({k: v.contiguous() for k, v in build(model, **SIZES).state_dict().items()})
            (folder / f"{kind}.safetensors").write_bytes(content)
            networks[kind] = {
                "model": model,
                "distribution": distribution_of(model).model_dump(),
                "precision": "float32",
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
            }
        images = {"classes": ["a", "b", "c"], "channels": 2, "size": 8, "mean": MEAN, "std": STD}
        values: dict[str, Any] = {"format": "sweetspot-export", "format_version": 1, "images": images, **networks}
        for key, value in changes.items():
            *path, last = key.split("__")
            table = values
            for part in path:
                table = table[part]
            table[last] = value
        (folder / CONFIG).write_text(json.dumps(values))
        return folder

    return write


def pixels(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 2, 8, 8), dtype=torch.uint8, generator=generator)


def test_it_normalises_as_torchvision_does_and_gives_the_networks_logits(write: Write) -> None:
    student = load_student(write())
    torch.manual_seed(1)
    network = build("mlp-8", **SIZES).eval()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
    logits = student(pixels())
    torch.testing.assert_close(logits, network((pixels() / 255 - mean) / std))
    assert logits.shape == (4, 3)
    assert student.classes == ("a", "b", "c")
    assert not student.training


def test_bytes_and_fractions_are_the_same_images(write: Write) -> None:
    student = load_student(write("convnet-narrow"))
    assert torch.equal(student(pixels()), student(pixels() / 255))


def test_teacher_and_student_are_not_mixed_up(write: Write) -> None:
    folder = write()
    assert not torch.equal(load_teacher(folder)(pixels()), load_student(folder)(pixels()))


def test_the_bare_network_can_be_trained_on(write: Write) -> None:
    student = load_student(str(write()))
    assert {name.removeprefix("network.") for name in student.state_dict()} == set(student.network.state_dict())
    student.network.train()
    student(pixels()).sum().backward()
    assert all(p.grad is not None for p in student.parameters())


def test_loading_draws_no_random_numbers(write: Write) -> None:
    folder = write()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_student(folder)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(1, 1, 8, 8), r"images must be \(N, 2, 8, 8\), found \(1, 1, 8, 8\)"),
        (torch.zeros(2, 8, 8), r"images must be \(N, 2, 8, 8\), found \(2, 8, 8\)"),
        (torch.zeros(1, 2, 8, 8, dtype=torch.int64), "images must be uint8, or float from 0 to 1; found torch.int64"),
    ],
)
def test_other_images_are_refused(write: Write, images: torch.Tensor, words: str) -> None:
    student = load_student(write())
    with pytest.raises(ValueError, match=words):
        student(images)


def test_a_fresh_process_loads_it_without_a_database(write: Write, tmp_path: Path) -> None:
    code = f"""
import os, sys
os.environ["SWEETSPOT_HOME"] = {str(tmp_path / "nowhere")!r}
from sweetspot.models.exported import load_student
print(load_student({str(write())!r}).classes, {{"optuna", "sqlalchemy"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "('a', 'b', 'c') set()\n"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("model", ["torchvision:squeezenet1_1", "timm:resnet10t"])
def test_networks_of_the_libraries_are_loaded_by_name(write: Write, model: str) -> None:
    folder = write(model)
    assert load_student(folder)(pixels()).shape == (4, 3)
    config = json.loads((folder / CONFIG).read_text())
    assert config["student"]["distribution"]["name"] == model.partition(":")[0]


# -- what may be wrong ------------------------------------------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load_student(folder)
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "somebody-else's"}, "is not one that sweetspot export has written"),
        ({"format_version": 2}, "has format_version 2, and Sweetspot "),
        ({"student__model": "resnet7"}, "'resnet7' of "),
        ({"student__model": 3}, "is damaged (student.model: "),
        ({"student__model": "mlp"}, "do not fit the network 'mlp' as it is built by sweetspot "),
        ({"student__precision": "int8"}, "is damaged (student.precision: "),
        ({"student__bytes": 17}, "bytes where 17 were exported: export again"),
        ({"student__sha256": "0" * 64}, "is not what was exported (another SHA-256"),
        ({"student__sha256": "../../secret"}, "is damaged (student.sha256: "),
        ({"images__classes": []}, "is damaged (images.classes: "),
        ({"images__classes": ["a", "b"]}, "do not fit the network 'mlp-8'"),
        ({"images__channels": 3}, "is damaged (images: "),
        ({"images__size": 10**9}, "is damaged (images.size: "),
        ({"images__std": [0.0, 1.0]}, "is damaged (images.std.0: "),
        ({"images__mean": [float("nan"), 1.0]}, "is damaged (images.mean.0: "),
        ({"images": None}, "is damaged (images: "),
    ],
)
def test_a_config_that_is_wrong(write: Write, changes: dict[str, Any], words: str) -> None:
    assert words in refused(write(**changes))


def test_a_plug_in_that_is_not_installed_is_named(write: Write) -> None:
    wanted = {"name": "sweetspot-plugin", "version": "0.3"}
    folder = write(student__model="their-net", student__distribution=wanted)
    assert refused(folder).endswith("the export was made with sweetspot-plugin 0.3: install that")


@pytest.mark.parametrize("name", ["config.json", "student.safetensors"])
def test_a_file_that_is_missing(write: Write, name: str) -> None:
    folder = write()
    (folder / name).unlink()
    assert refused(folder) == f"{folder / name} is missing: export again with sweetspot export"
    (folder / name).mkdir()
    assert f"{folder / name} " in refused(folder)


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").startswith(f"there is no folder {tmp_path / 'none'}: ")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 10**5, b"3"])
def test_a_config_that_is_no_json(write: Write, content: bytes) -> None:
    folder = write()
    (folder / CONFIG).write_bytes(content)
    assert refused(folder).startswith(f"{folder / CONFIG} is no")
    assert not is_export(folder)


@pytest.mark.parametrize("where", [0, 20, -1])
def test_weights_of_which_a_byte_was_changed(write: Write, where: int) -> None:
    folder = write()
    content = bytearray((folder / "student.safetensors").read_bytes())
    content[where] ^= 1
    (folder / "student.safetensors").write_bytes(content)
    assert "another SHA-256" in refused(folder)
    load_teacher(folder)


def test_weights_that_are_no_safetensors(write: Write) -> None:
    content = b"\x80\x04 a pickle, say"
    folder = write(student__bytes=len(content), student__sha256=hashlib.sha256(content).hexdigest())
    (folder / "student.safetensors").write_bytes(content)
    assert "is no safetensors file" in refused(folder)


def test_a_folder_with_anything_else_in_it_is_no_export(write: Write) -> None:
    folder = write()
    assert is_export(folder)
    (folder / "notes.txt").touch()
    assert not is_export(folder)
