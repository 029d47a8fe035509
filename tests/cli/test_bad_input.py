"""A user's mistake costs one line that says what to do, exit status 2, and leaves nothing behind."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_study import tiny_config

from sweetspot.store import Store

Refused = Callable[..., str]
Command = Callable[..., Any]
Create = Callable[..., None]
DIGITS = ("optimize", "--dataset", "digits")


def line_of(said: Any, status: int = 2) -> str:
    """What a command that must fail says in its one line, where studies are there or a status cannot be had."""
    assert (said.status, said.out) == (status, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return str(said.err.removeprefix("error: ").rstrip("\n"))


# -- names ----------------------------------------------------------------------------------------------------------


def test_without_data_the_line_names_what_is_built_in(refused: Refused) -> None:
    line = refused("optimize")
    assert "Give --dataset or --study; built in are " in line
    assert "digits" in line
    assert "imagefolder:PATH or npz:PATH" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("optimise",), "Did you mean 'optimize'?"),
        (("nonsense",), "No such command 'nonsense'"),
        (("optimize", "--datset", "digits"), "--dataset"),
        (("optimize", "digits"), "unexpected extra argument"),
        (("optimize", "--dataset"), "requires an argument"),
        (("delete",), "STUDY"),
        (("optimize", "--dataset", "digit"), "unknown data set 'digit': did you mean 'digits'? known are "),
        (("optimize", "--dataset", ""), "must not be empty"),
        (("optimize", "--dataset", "ünïcödé 名 \x1b[31m\n"), r"unknown data set 'ünïcödé 名 \x1b[31m\n'"),
        (("optimize", "--dataset", "\udcff"), "has a value that cannot be stored"),
        (("optimize", "--dataset", "zip:/tmp"), "the forms with a colon are imagefolder:PATH (your own image files"),
        (("optimize", "--dataset", "imagefolder:"), "name a file or a folder, or give --name"),
        (("optimize", "--dataset", "imagefolder:", "--name", "mine"), "imagefolder: is followed by a path"),
        (
            ("optimize", "--dataset", "imagefolder:/nowhere/x"),
            "/nowhere/x: no such folder; imagefolder:PATH is a folder",
        ),
        (
            ("entropy", "--dataset", "imagefolder:/nowhere/x"),
            "/nowhere/x: no such folder; imagefolder:PATH is a folder",
        ),
        ((*DIGITS, "--set", "data.image_size=32"), "those of digits have their own size"),
        (("optimize", "--dataset", "tiny_imagenet"), "tiny_imagenet is not downloaded by itself: get http"),
        (("optimize", "--dataset", "digits", "--dataset", "digitz"), "unknown data set 'digitz'"),
        (("optimize", "--study", "digts"), "unknown study 'digts': did you mean 'digits'? known are "),
        (("optimize", "--study", ""), "unknown study ''"),
        (("optimize", "--study", "nowhere.toml"), "there is no study file nowhere.toml; built in are "),
        (("optimize", "--study", "/"), "there is no study file /"),
        (("optimize", "--study", "x" * 5000 + ".toml"), "cannot read the study file"),
        (("optimize", "--study", "digits", "--dataset", "digitz"), "unknown data set 'digitz'"),
        ((*DIGITS, "--teacher", "resnet57"), "unknown model 'resnet57': did you mean 'resnet56'? known are "),
        ((*DIGITS, "--student", "mpl"), "unknown model 'mpl': did you mean 'mlp'?"),
        ((*DIGITS, "--teacher", ""), "--teacher: teacher.model"),
        ((*DIGITS, "--set", "search.teacher.model=['mlp', 'x']"), "unknown model 'x'"),
        ((*DIGITS, "--set", "search.sampler=bayes"), "must be 'cost-aware', 'gp', 'tpe', 'random' or 'grid'"),
        ((*DIGITS, "--name", ""), "a study's name has 1 to 200 printable characters and no '/'"),
        ((*DIGITS, "--name", "  "), "a study's name has 1 to 200 printable characters and no '/'"),
        ((*DIGITS, "--name", "a/b"), "a study's name has 1 to 200 printable characters and no '/'"),
        ((*DIGITS, "--name", "x" * 201), "a study's name has 1 to 200 printable characters and no '/'"),
    ],
)
def test_a_wrong_name(refused: Refused, arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*arguments)


# -- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "search"), "write it as path=value"),
        (("--set", ""), "write it as path=value"),
        (("--set", "=3"), "'' is no key"),
        (("--set", "teacher.optimiser.lr=0.1"), "did you mean teacher.optimizer?"),
        (("--set", "a.b.c=1"), "unknown key a"),
        (("--set", "x\n[y]=1"), r"unknown key x [y]"),
        (("--set", "seed=3\ntrials=4"), "must be a whole number"),
        (("--set", "." + "a." * 3000 + "b=1"), "is no key"),
        (("--set", "a." * 3000 + "b=1"), "cannot be stored"),
        (("--set", "student.epochs=3.5"), "student.epochs = 3.5: must be a whole number"),
        (("--set", "student.epochs='5'"), 'student.epochs = "5": must be a whole number'),
        (("--set", "student.epochs=true"), "student.epochs = true: must be a whole number"),
        (("--set", "student.epochs=" + "9" * 5000), "must be a whole number"),
        (("--set", "student.epochs=0x" + "f" * 5000), "cannot be stored"),
        (("--set", "student.epochs=" + "[" * 5000), "must be a whole number"),
        (("--set", "student.epochs=1979-05-27"), "must be a whole number"),
        (("--set", "teacher.optimizer.lr=1e400"), "must be a finite number"),
        (("--set", "teacher.optimizer.lr=nan"), "must be a finite number"),
        (("--set", "data.validation=1.0"), "a fraction above 0 and below 1"),
        (("--set", "data.validation=0.9999"), "holds out 1397 of 1397 training images: allowed are 10"),
        (("--set", "data.validation=1396"), "holds out 1396 of 1397 training images: allowed are 10"),
        (("--set", "data.validation=1"), "holds out 1 of 1397 training images: allowed are 10"),
        (("--set", "search.batch_size=[64, 1098]"), "batch size 1098 is above the 1097 training images of digits"),
        (("--set", "student.batch_size=1098"), "batch size 1098 is above the 1097 training images of digits"),
        (("--trials", "0"), "--trials"),
        (("--trials", "x"), "--trials"),
        (("--workers", "0"), "--workers 0: give a number of 1 or more, or auto"),
        (("--workers", "x"), "--workers x: give a number of 1 or more, or auto"),
        (("--workers", "²"), "--workers ²: give a number of 1 or more, or auto"),
        (("--seed", "-1"), "--seed"),
        (("--seed", "2147483648"), "--seed: seed = 2147483648: must be less than 2147483648"),
        (("--timeout", "-1"), "--timeout"),
        (("--timeout", "x"), "--timeout"),
        (("--device", "tpu"), "--device 'tpu': give auto, cpu, cuda or cuda:0,cuda:1,…"),
        (("--device", ""), "give auto, cpu, cuda"),
        (("--device", "cpu:1"), "give auto, cpu, cuda"),
        (("--device", "cuda:x"), "give auto, cpu, cuda"),
        (("--device", "cuda:4095"), "--device cuda:4095: "),
    ],
)
def test_a_wrong_value(refused: Refused, arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*DIGITS, *arguments)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cpu,cuda:0"])
def test_a_gpu_where_there_is_none(refused: Refused, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch sees no CUDA device here; use --device auto or --device cpu" in refused(*DIGITS, "--device", device)


def test_a_study_file_is_named_with_the_key_that_is_wrong_in_it(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[data]\ndataset = "digits"\n[student]\nepoch = 3\n')
    assert refused("optimize", "--study", str(path)).startswith(
        f"{path}: unknown key student.epoch: did you mean student.epochs? "
    )
    path.write_text("[data\n")
    assert refused("optimize", "--study", str(path)).startswith(f"{path} is not a TOML file: ")


def test_a_study_that_does_not_fit_the_data_set_that_replaces_its_own(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[data]\ndataset = "cifar100"\nvalidation = 5000\n')
    line = refused("optimize", "--study", str(path), "--dataset", "digits")
    assert "validation = 5000 holds out 5000 of 1397 training images" in line


# -- data -----------------------------------------------------------------------------------------------------------


def arrays(**changed: Any) -> dict[str, Any]:
    """The arrays of a good npz file, some of them replaced; None: left out."""
    rng = np.random.default_rng(0)
    good: dict[str, Any] = {
        "train_x": rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8),
        "train_y": np.arange(60) % 3,
        "test_x": rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8),
        "test_y": np.arange(30) % 3,
    }
    return {key: value for key, value in (good | changed).items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train_y": np.arange(60) % 2, "test_y": np.arange(30) % 2}, "2 classes; allowed are 3 or more"),
        ({"train_x": None, "images": np.zeros(3)}, "no training images; found train_y, test_x, test_y, images"),
        ({"test_y": None}, "no test_y; found"),
        ({"train_y": np.arange(59) % 3}, "train_x has 60 images, train_y 59 labels"),
        ({"train_x": np.zeros((60, 8, 9, 1), np.uint8)}, "uint8 of shape (60, 8, 9, 1); allowed is"),
        ({"train_x": np.zeros((60, 8, 8, 4), np.uint8)}, "uint8 of shape (60, 8, 8, 4); allowed is"),
        ({"train_x": np.zeros((60, 64), np.uint8)}, "uint8 of shape (60, 64); allowed is"),
        ({"train_x": np.zeros((0, 8, 8), np.uint8), "train_y": np.zeros(0, int)}, "N of at least 1"),
        ({"test_x": np.zeros((30, 9, 9, 1), np.uint8)}, "test_x has 9x9x1 images, train_x 8x8x1"),
        ({"train_x": np.zeros((60, 8, 8, 1))}, "float64 of shape (60, 8, 8, 1); allowed is uint8"),
        ({"train_y": np.arange(60) % 3 / 1}, "train_y is float64"),
        ({"train_y": np.arange(60) % 4 - 1}, "train_y has labels from -1 to 2"),
        ({"train_y": np.arange(60) + 1}, "labels up to 60 for 60 training images"),
        ({"classes": np.array(["a", "b", "c"]), "train_y": np.arange(60) % 4}, "train_y has labels from 0 to 3"),
        ({"train_x": np.full(60, None, dtype=object)}, "pickled objects"),
        ({"train_y": np.full(60, None, dtype=object)}, "pickled objects"),
        ({"classes": np.full(3, None, dtype=object)}, "pickled objects"),
    ],
)
def test_an_npz_file_that_is_not_as_it_must_be(
    refused: Refused, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays(**changed))
    line = refused("optimize", "--dataset", f"npz:{path}")
    assert str(path) in line
    assert words in line


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"], ids=["empty", "text", "cut off"])
def test_a_file_that_is_no_npz(refused: Refused, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    assert refused("optimize", "--dataset", f"npz:{path}").startswith(f"{path}: cannot be read as a .npz file")


def test_an_npz_path_that_names_nothing(refused: Refused, tmp_path: Path) -> None:
    assert "name a file or a folder" in refused("optimize", "--dataset", "npz:")
    assert "npz: is followed by a path" in refused("optimize", "--dataset", "npz:", "--name", "mine")
    assert "no such file" in refused("optimize", "--dataset", "npz:~/nowhere/x")
    assert "no .npz file in this folder" in refused("optimize", "--dataset", f"npz:{tmp_path}")


def test_a_folder_of_parts_that_do_not_agree(refused: Refused, tmp_path: Path) -> None:
    np.savez(tmp_path / "part-0.npz", **arrays())
    np.savez(tmp_path / "part-1.npz", **arrays(classes=np.array(["a", "b", "c"])))
    assert "parts must agree" in refused("optimize", "--dataset", f"npz:{tmp_path}")


def test_a_model_that_needs_larger_images(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays(train_x=np.zeros((60, 4, 4), np.uint8), test_x=np.zeros((30, 4, 4), np.uint8)))
    sizes = ("--set", "search.batch_size=[8]", "--set", "student.batch_size=8")
    assert "needs images of at least" in refused("optimize", "--dataset", f"npz:{path}", *sizes)


@pytest.mark.parametrize(("dataset", "file"), [("cifar10", "cifar-10-python.tar.gz"), ("mnist", "train-images-idx3")])
def test_data_that_cannot_be_downloaded_says_where_to_put_its_files(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, file: str
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    line = refused("optimize", "--dataset", dataset, "--data", str(tmp_path))
    assert line.startswith(f"{dataset} could not be downloaded")
    assert file in line
    assert f"under {tmp_path}" in line
    assert list(tmp_path.iterdir()) == []


# -- storage and artifacts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("nonsense", "is not a database URL: a database URL looks like sqlite:///study.db or postgresql://"),
        ("://", "is not a database URL"),
        ("foo://x", "unknown database 'foo'"),
        ("redis://:geheim@localhost/0", "unknown database 'redis'"),
        ("sqlite://", "in memory cannot be shared by workers; name a file"),
        ("sqlite:///:memory:", "in memory cannot be shared by workers; name a file"),
        ("sqlite:///file::memory:?cache=shared&uri=true", "in memory cannot be shared by workers; name a file"),
        ("sqlite:////nowhere/x.db", "there is no folder /nowhere"),
        ("sqlite:////", "cannot open the database"),
        ("postgresql://me:geheim@127.0.0.1:1/x", "me:***@127.0.0.1:1/x"),
        ("postgresql://127.0.0.1:1/x?user=me&password=geheim", "is the server running"),
        ("postgresql://me:geheim@127.0.0.1:port/x", "is not a database URL"),
        ("postgresql://me:ge%40geheim@127.0.0.1:1/x", "is the server running"),
        ("postgresql://me:ge@geheim@127.0.0.1:1/x", "%40"),
        ("mysql+nodriver://me:geheim@127.0.0.1:1/x", "driver that is not installed"),
    ],
)
def test_a_storage_that_is_not_to_be_had(refused: Refused, command: Command, storage: str, words: str) -> None:
    line = refused(*DIGITS, "--storage", storage)
    assert words in line
    assert "geheim" not in line
    for name in ("status", "best", "trials", "worker"):
        assert line_of(command(name, "--storage", storage)) == line
    assert line_of(command("delete", "digits", "--storage", storage)) == line


def test_a_password_in_the_environment_is_not_printed_either(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_STORAGE", "postgresql://me:geheim@127.0.0.1:1/x")
    for arguments in (DIGITS, ("status",), ("best", "--json"), ("worker", "--name", "digits")):
        assert "geheim" not in line_of(command(*arguments))


def test_a_file_that_is_no_database(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are notes, and no database\n" * 100)
    assert "file is not a database" in refused(*DIGITS, "--storage", f"sqlite:///{path}")


@pytest.mark.parametrize("artifacts", ["nosuch://bucket", "/dev/null/x", "nosuch://key:geheim@bucket/x"])
def test_artifacts_that_are_not_to_be_had(refused: Refused, artifacts: str) -> None:
    line = refused(*DIGITS, "--artifacts", artifacts)
    assert "give --artifacts a folder that you may write in" in line
    assert "geheim" not in line


@pytest.mark.parametrize("home", ["/dev/null/x", "/proc/nowhere"])
def test_a_home_that_cannot_be_written(command: Command, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("SWEETSPOT_HOME", home)
    for arguments in (DIGITS, ("status",), ("status", "--json"), ("best",), ("trials",), ("worker",)):
        line = line_of(command(*arguments))
        assert line.startswith(f"cannot write in {home}")
        assert "set SWEETSPOT_HOME to a folder that you may write in" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_is_read_only(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("SWEETSPOT_HOME", str(tmp_path))
    assert line_of(command(*DIGITS)).startswith(f"cannot write in {tmp_path} (Permission denied)")


# -- studies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nothere", "", "𝕊tüdy\n\x1b[31m", "x" * 10_000])
def test_a_study_that_is_not_there(refused: Refused, name: str) -> None:
    for arguments in (("status",), ("best",), ("best", "--json"), ("trials",), ("delete", "--yes")):
        assert refused(*arguments, "--", name).startswith("there is no study ")


def test_a_worker_of_a_study_that_is_not_there(refused: Refused) -> None:
    assert refused("worker", "--name", "nothere").startswith("there is no study 'nothere' in ")


def test_a_misspelt_study_suggests_the_nearest(command: Command, create: Create) -> None:
    create(tiny_config())
    for arguments in (("status", "digit"), ("best", "digit"), ("delete", "digit"), ("worker", "--name", "digit")):
        assert "unknown study 'digit': did you mean 'digits'? known are digits" in line_of(command(*arguments))


def test_a_name_left_out_where_there_is_no_study(refused: Refused) -> None:
    for name in ("best", "trials"):
        assert "start one with sweetspot optimize" in refused(name)


def test_a_name_left_out_where_there_are_several_studies(command: Command, create: Create) -> None:
    create(tiny_config(), "one")
    create(tiny_config(), "two")
    for name in ("best", "trials"):
        line = line_of(command(name))
        assert line.startswith("which study? ")
        assert line.endswith(" has one, two")


def test_a_name_left_out_where_there_is_one_study_is_that_study(command: Command, create: Create) -> None:
    create(tiny_config())
    said = command("trials", "--json")
    assert (said.status, said.out, said.err) == (0, "[]\n", "")


def test_best_of_a_study_without_a_finished_trial_is_a_failure_but_no_mistake(command: Command, create: Create) -> None:
    create(tiny_config())
    for arguments in (("best",), ("best", "digits"), ("best", "--json")):
        assert line_of(command(*arguments), status=1).startswith("the study 'digits' has no finished trial yet")


def test_a_study_of_that_name_with_another_configuration(command: Command, create: Create) -> None:
    config = tiny_config()
    create(config)
    line = line_of(command(*DIGITS, "--set", "student.epochs=3", "--teacher", "mlp", "--device", "cpu"))
    assert line.startswith("the study 'digits' exists with another configuration: ")
    assert "student.epochs (2 is stored, 3 is asked for)" in line
    assert 'teacher.model ("convnet" is stored, "mlp" is asked for)' in line
    assert "run." not in line
    assert "confirm." not in line
    assert "search.trials" not in line
    with Store() as store:
        record = store.studies.get("digits")
        assert record is not None
        assert record.config == config, "the stored one stays as it was"


def test_a_study_of_that_name_with_other_images(command: Command, create: Create, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    sizes = {"search__batch_size": [8], "student__batch_size": 8, "data__dataset": f"npz:{path}", "data__validation": 9}
    np.savez(path, **arrays())
    create(tiny_config(**sizes), "mine")
    np.savez(path, **arrays(train_x=np.zeros((60, 8, 8, 1), np.uint8)))
    study = tmp_path / "mine.toml"
    config = tiny_config(**sizes).model_dump(mode="json", exclude_none=True)
    study.write_text("\n".join(f"{key} = {toml(value)}" for key, value in config.items()))
    assert line_of(command("optimize", "--study", str(study))).startswith("the study 'mine' was made with other images")


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)
