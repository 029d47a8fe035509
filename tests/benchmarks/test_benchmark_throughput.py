"""The benchmark of throughput: its reference is faithful, its figures follow from the rounds, and it runs."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.throughput import PAIRS, STUDENTS, Rounds, distillation_summary, main, table, teacher_summary
from benchmarks.throughput_arms import Arm, Maker, Span, rate
from benchmarks.throughput_engine import EngineDistillation, EngineTeacher, study
from benchmarks.throughput_job import ALPHA, SHAPE, TEMPERATURE, Job, network, sample, untrained_teacher
from benchmarks.throughput_limit import flops, matmul_rate
from benchmarks.throughput_reference import MEAN, STD, Pictures, distillation_steps, kd_loss, sgd, teacher_steps
from sweetspot.data.study_data import StudyData
from sweetspot.errors import RunError, UserError
from sweetspot.student.losses import Distillation

CPU = torch.device("cpu")
JOB = Job("resnet14", "resnet8", 64, 128, None, "cpu", 1, 1.0)
FIGURES = ("reference", "one_student", "four_students", "ratio_one", "ratio_four", "limit_share")


def batch(images: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(images, *SHAPE, generator=generator), torch.randint(100, (images,), generator=generator)


# -- the reference ----------------------------------------------------------------------------------------------------


def test_the_reference_starts_with_the_loss_that_the_engine_minimises() -> None:
    images, labels = batch()
    teacher, student = untrained_teacher("resnet8", 100), network("resnet8", 100, seed=1)
    with torch.no_grad():
        expected = Distillation(TEMPERATURE, ALPHA)(student.train()(images), teacher(images), labels)["loss"]
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    first, second = distillation_steps([(images, labels)] * 2, student, teacher, sgd(student))
    assert first == pytest.approx(float(expected), rel=1e-5)
    assert second != first
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_the_reference_weighs_teacher_and_labels_as_published() -> None:
    student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    p, q = (torch.softmax(logits / 4, 1) for logits in (teacher, student))
    expected = -0.1 * torch.log_softmax(student, 1)[0, 0] + 0.9 * 16 * (p * (p / q).log()).sum()
    assert kd_loss(student, teacher, torch.tensor([0])) == pytest.approx(float(expected))


def test_the_reference_trains_teachers_on_cross_entropy() -> None:
    images, labels = batch()
    model = network("resnet8", 100, seed=0)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model.train()(images), labels)
    (loss,) = teacher_steps([(images, labels)], model, sgd(model))
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_the_reference_shows_crops_and_flips_of_the_images_that_the_engine_shows() -> None:
    found = sample(None, 100)
    pictures = Pictures(found.training_images)
    engine = StudyData(found, study(JOB, 100), CPU)
    assert len(pictures) == engine.train_images == 100
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in (STD, MEAN))
    original = found.training_images.images[3].float()
    padded = torch.nn.functional.pad(original, (4, 4, 4, 4))
    seen = set()
    for _ in range(20):
        view, label = pictures[3]
        pixels = ((view * scale + shift) * 255).round()
        at = [
            (top, left, mirrored)
            for mirrored in (False, True)
            for top in range(9)
            for left in range(9)
            if torch.equal(pixels.flip(-1) if mirrored else pixels, padded[:, top : top + 32, left : left + 32])
        ]
        assert len(at) == 1
        assert label == engine.labels[3]
        seen.add(at[0])
    assert len({mirrored for _, _, mirrored in seen}) == 2
    assert len(seen) > 10


# -- what is given to all arms ----------------------------------------------------------------------------------------


def test_a_sample_has_the_first_images_of_each_class_in_turn(tmp_path: Path) -> None:
    labels = np.array([0, 0, 0, 1, 2, 1, 2, 2, 1, 0])
    pixels = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 32, 32, 3))
    np.savez(tmp_path / "a.npz", train_x=pixels, train_y=labels, test_x=pixels, test_y=labels)
    found = sample(tmp_path / "a.npz", 4)
    assert found.train().labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert found.train().images[:, 0, 0, 0].tolist() == [0, 3, 4, 1, 5, 6, 2]
    assert len(found.training_images) == 4
    with pytest.raises(UserError, match=r"10 images; needed are 11: lower --images"):
        sample(tmp_path / "a.npz", 8)


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    pixels, labels = np.zeros((9, 28, 28), np.uint8), np.arange(9) % 3
    np.savez(tmp_path / "a.npz", train_x=pixels, train_y=labels, test_x=pixels, test_y=labels)
    with pytest.raises(UserError, match=r"shape \(1, 28, 28\); needed are \(3, 32, 32\)"):
        sample(tmp_path / "a.npz", 4)


def test_an_untrained_teacher_says_different_things_of_different_images() -> None:
    with torch.no_grad():
        logits = untrained_teacher("resnet56", 100)(batch()[0])
    assert logits.isfinite().all()
    assert 0.01 < logits.std(0).mean() < 100


# -- the engine's arms ------------------------------------------------------------------------------------------------


def test_the_engine_counts_an_image_once_for_each_student() -> None:
    one = EngineDistillation(JOB, 0, students=1).run(1)
    assert one.images == 128
    assert one.end > one.begin
    assert EngineDistillation(JOB, 1, students=2).run(2).images == 2 * 2 * 128


def test_a_teacher_is_trained_on_and_on() -> None:
    training = EngineTeacher(JOB, 0)
    assert [training.run(epochs).images for epochs in (1, 2)] == [128, 256]
    assert training._training.epoch == 3


# -- processes --------------------------------------------------------------------------------------------------------


def test_processes_of_an_arm_run_together_or_the_first_one_alone() -> None:
    with Arm(Maker("counting_runner:Counting", 2), JOB) as arm:
        arm.wait_until_ready()
        warm, memory = arm.warm_up()
        assert warm == 30
        assert memory >= 0
        assert arm.run(2) == 60
        assert arm.run(1, processes=1) == 10


@pytest.mark.ci
@pytest.mark.parametrize(
    ("fails", "error", "words"),
    [
        ("making", UserError, "no such thing"),
        ("running", RunError, "ZeroDivisionError: nothing there"),
        ("dying", RunError, "was killed"),
    ],
)
def test_what_a_process_fails_of_is_said(fails: str, error: type[Exception], words: str) -> None:
    def start_and_run() -> None:
        with Arm(Maker("counting_runner:Counting", 1, options={"fails": fails}), JOB) as arm:
            arm.wait_until_ready()
            arm.run()

    with pytest.raises(error, match=words):
        start_and_run()


def test_a_rate_counts_until_the_last_process_has_ended() -> None:
    assert rate([Span(10.0, 12.0, 100, 0), Span(10.5, 15.0, 100, 0)]) == 40


# -- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "products"), [("resnet20", 40.8e6), ("resnet56", 125.8e6), ("wrn-16-2", 101.3e6), ("resnet8x4", 177.3e6)]
)
def test_counted_operations_are_those_of_the_papers(name: str, products: float) -> None:
    """Multiplications and additions of a pass; a step is three passes, less the gradient of the images."""
    found = flops(name)
    assert found.forward == pytest.approx(2 * products, rel=0.01)
    assert 2.9 * found.forward < found.training < 3 * found.forward


def test_a_matmul_rate_is_a_number_of_operations() -> None:
    assert 1e8 < matmul_rate(CPU, "float32", 0.01) < 1e15


def rounds() -> Rounds:
    rates = {
        "reference": [100.0, 200.0, 100.0],
        "one_student": [300.0, 500.0, 310.0],
        "four_students": [450.0, 1000.0, 480.0],
        "engine": [200.0, 200.0, 200.0],
    }
    return Rounds(rates, [1e12, 2e12, 1e12], 170.0, dict.fromkeys(rates, 10**9))


def test_a_ratio_is_the_median_of_paired_rounds() -> None:
    assert rounds().ratio("one_student") == (3.0, (2.5, 3.1))
    assert rounds().ratio("four_students") == (4.8, (4.5, 5.0))
    assert rounds().rate("one_student") == 310
    assert rounds().share("four_students", 1e9) == 0.48


def test_the_report_of_a_pair_has_every_figure() -> None:
    job = replace(JOB, teacher="resnet56", student="resnet20")
    found = distillation_summary(job, rounds())
    assert [found[key] for key in FIGURES[:5]] == [100, 310, 480, 3.0, 4.8]
    student, teacher = flops("resnet20").training, flops("resnet56").forward
    assert found["limit_share"] == pytest.approx(480 * (student + teacher / STUDENTS) / 1e12, rel=1e-3)
    assert found["limit_share_one"] == pytest.approx(300 * (student + teacher) / 1e12, rel=1e-3)
    found["teacher"] = {"resnet56": teacher_summary(job, rounds())}
    assert found["teacher"]["resnet56"]["ratio"] == 2
    text = table("resnet56-resnet20-64", found)
    assert "3.00      (2.50 - 3.10)" in text
    assert "resnet56 from labels at batch size 64" in text
    json.dumps(found, allow_nan=False)


def test_the_pairs_are_those_of_the_published_numbers() -> None:
    assert list(PAIRS) == [
        "resnet56-resnet20-64",
        "resnet56-resnet20-512",
        "resnet32x4-resnet8x4-64",
        "wrn-40-2-wrn-16-2-64",
    ]
    for pair in PAIRS.values():
        assert pair.images % pair.batch_size == 0
        assert pair.images >= 3 * pair.batch_size


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pairs", "resnet56"], "no pair 'resnet56'; there are resnet56-resnet20-64, "),
        (["--rounds", "0"], "'0' is not a whole number of at least 1"),
        (["--seconds", "inf"], "'inf' is not a number of seconds above 0"),
        (["--images", "100"], "needs two batches, 128"),
        (["--quick", "--data", "nowhere.npz"], "nowhere.npz: no such file"),
        (["--device", "tpu"], "give auto, cpu, cuda"),
    ],
)
def test_bad_arguments_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert words in said.err
    assert said.err.count("\n") == 1


@pytest.mark.ci
@pytest.mark.timeout(900)
def test_the_quick_benchmark_runs() -> None:
    """That it does; how fast says nothing here, where other tests run beside it."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--quick", "--json"]
    # Threads that wait for each other must not spin on the cores that the other tests have.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"command", "machine", "versions", "device", "precision", "images"} <= result.keys()
    assert 0 <= result["cores_busy_with_other_work"] <= result["machine"]["cores"]
    pair = result["resnet56-resnet20-64"]
    assert all(math.isfinite(pair[key]) and pair[key] > 0 for key in FIGURES)
    assert pair["memory"].keys() == {"reference", "one_student", "four_students"}
    assert min(pair["memory"].values()) > 0
    assert pair["alone"] > 0
    for arm in ("reference", "one_student", "four_students", "limit"):
        assert len(pair["rounds"][arm]) == 3
    assert pair["ratio_one_spread"][0] <= pair["ratio_one"] <= pair["ratio_one_spread"][1]
