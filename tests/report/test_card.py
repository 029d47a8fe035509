"""The model card: for people, complete, and with nobody's names taken for markup."""

from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from sweetspot.report.card import card, yaml_string
from sweetspot.report.sentences import without_path

HOSTILE = (
    "<script>alert(1)</script>",
    "</code><img src=x onerror=alert(1)>",
    "`</code>`` ``` <b>",
    "[click](javascript:alert(1))",
    "| a | b |\n\n# heading\n---\n",
    '": [\\"x\ttab\x07\u2028\x85',
    "http://evil.example www.evil.example",
    " ",
)


def about(name: str = "digits", **changes: Any) -> dict[str, Any]:
    """The values of an export that was confirmed; everybody's names are ``name``."""
    accuracy = {"value": 0.95, "low": 0.93, "high": 0.97, "images": 300, "split": "validation"}
    mean = {"mean": 0.9412, "low": 0.92, "high": 0.96, "std": 0.01, "replicates": 10}
    network = {"model": name, "parameters": 1234, "precision": "float32", "sha256": "0" * 64, "bytes": 5000}
    values = {
        "optimizer": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": "wsd"},
        "precision": "float32",
        "data": {"augmentation": ["crop"]},
    }
    return {
        "format_version": 1,
        "study": name,
        "exported": "2026-01-02T03:04:05+00:00",
        "dataset": {"name": name, "hash": "a" * 64, "train_images": 1097, "validation_images": 300},
        "images": {"classes": [name] * 30, "channels": 1, "size": 8},
        "teacher": {**network, "accuracy": accuracy},
        "student": {
            **network, "purpose": "confirm", "replicate": 3, "chosen_among": 10, "accuracy": accuracy,
            "test_accuracy": accuracy | {"value": 0.9475, "images": 400},
        },
        "point": {
            "batch_size": 64, "epochs": 32, "parameters": {"teacher.model": name, "student.temperature": 2.5},
            "steps": 2176, "epochs_mean": "truncated", "meaning": "a longer run stopped there",
        },
        "recipe": {"hash": "b" * 64, "values": values},
        "distillation": {"temperature": 4.0, "alpha": 0.9, "epochs": 20, "batch_size": 32, **values},
        "students": {"validation": mean | {"mean": 0.9467, "replicates": 3}, "test": mean},
        "comparison": [
            {"arm": "best_point", "batch_size": 64, "epochs": 32, "name": None, "model": name, "same_as_best": False,
             "accuracy": mean, "gain_of_best": None},
            {"arm": "label_smoothing", "batch_size": None, "epochs": None, "name": None, "model": None, "amount": 0.05,
             "same_as_best": False, "accuracy": mean, "gain_of_best": {"mean": 0.01, "low": 0.0, "high": 0.02}},
            {"arm": "most_accurate_teacher", "batch_size": 64, "epochs": 16, "name": None, "model": name,
             "same_as_best": False, "accuracy": mean, "gain_of_best": {"mean": 0.01, "low": 0.0, "high": 0.02}},
            {"arm": "longest_teacher", "batch_size": 64, "epochs": 16, "name": None, "model": name,
             "same_as": "most_accurate_teacher", "same_as_best": False, "accuracy": mean,
             "gain_of_best": {"mean": 0.01, "low": 0.0, "high": 0.02}},
            {"arm": "your_teacher", "batch_size": None, "epochs": 9, "name": name, "model": name, "same_as_best": False,
             "accuracy": mean, "gain_of_best": {"mean": 0.0253, "low": 0.008, "high": 0.044}},
        ],
        "claim": "this teacher", "teachers": 0, "seeds": 10, "look": 1,
        "further": ["As good, at 33 % of the teacher's training: batch 64, 8 epochs (confirmed)."],
        "confirmed": None,
        "verdict": "undecided: more [confirm] seeds would narrow it.",
        "test_looks": 1,
        "notes": ["It needs 3 students."],
        "versions": {"sweetspot": "0.1.0"},
        **changes,
    }  # fmt: skip


def rendered(text: str) -> str:
    body = text.split("---\n", 2)[2]
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(body))


def test_it_says_what_was_found_with_intervals() -> None:
    text = card(about())
    for words in (
        "**batch size 64, 32 epochs** (2,176 steps; epochs are truncated: a longer run stopped there)",
        "**Verdict:** Undecided: more \\[confirm\\] seeds would narrow it.",
        "- It needs 3 students.",
        "| the best point | 64 x 32 | 94.12 [92.0, 96.0] |  |",
        "| +2.53 [+0.8, +4.4] |",
        "| label smoothing (0.05) |  | 94.12 [92.0, 96.0] | +1.00 [+0.0, +2.0] |",
        "| longest teacher | 64 x 16 | 94.12 [92.0, 96.0] | as most accurate teacher |",
        "Test accuracy of 10 fresh students each, in per cent with 95 % intervals over students and images",
        "- As good, at 33 % of the teacher's training: batch 64, 8 epochs (confirmed).",
        "the confirmation's fresh 10 students (replicate 3)",
        "Its own test accuracy is 94.75 % (95 % interval 93.00 % to 97.00 %) over 400 images",
        "the mean of all, 94.12 % (95 % interval 92.00 % to 96.00 %)",
        "The test split has had 1 look, this confirmation included.",
        "1,097 training and 300 validation images, grey 8x8, 30 classes",
        " and 10 more, which config.json names",
    ):
        assert words in text


def test_a_claim_about_the_point_is_told_as_one() -> None:
    text = card(about(claim="this point", teachers=10, seeds=6, look=2, test_looks=3))
    assert (
        "Test accuracy of 10 fresh teachers x 6 students each, in per cent with 95 % intervals over teachers," in text
    )
    assert "what to expect of a student of a teacher like this is the mean of all" in text
    assert "The test split has had 3 looks, 2 of them by this study, this confirmation included." in text


def test_an_export_without_a_confirmation_claims_no_test_accuracy() -> None:
    students = {"validation": {"mean": 0.9, "low": None, "high": None, "replicates": 1}, "test": None}
    student = about()["student"] | {"purpose": "search", "test_accuracy": None, "chosen_among": 1}
    text = card(about(comparison=[], students=students, student=student, test_looks=0))
    assert "Its own test accuracy is not known." in text
    assert "one of the search's 1 student (replicate 3)" in text
    assert "by the validation accuracy of 1 student: 90.00 %. Chosen" in text
    assert "looks" not in text


def test_the_front_matter_is_what_hubs_read() -> None:
    front = yaml.safe_load(card(about("timm:resnet18")).split("---\n")[1])
    assert front == {
        "license": "unknown",
        "library_name": "sweetspot",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "knowledge-distillation", "sweetspot", "timm:resnet18"],
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_names_do_nothing(name: str) -> None:
    text, harmless = card(about(name)), card(about("harmless"))
    front = text.split("---\n", 2)[1]
    assert yaml.safe_load(front)["tags"][-1] == name
    assert yaml.safe_load(f"x: {yaml_string(name)}") == {"x": name}
    page = rendered(text)
    for tag in ("<script", "<img", "<a ", "<b>", "<hr"):
        assert tag not in page
    # The same page, but for what stands in code spans.
    assert [line.count("<") for line in page.splitlines()] == [
        line.count("<") for line in rendered(harmless).splitlines()
    ]


def test_a_data_set_that_is_given_by_its_path_is_called_by_its_last_part() -> None:
    assert without_path("npz:/home/ann/data/part-0.npz") == "npz:part-0.npz"
    assert without_path("imagefolder:/srv/birds/") == "imagefolder:birds"
    assert without_path("cifar100") == "cifar100"
