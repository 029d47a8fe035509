"""The losses of the student: the formula, its gradients, its scale, and what is refused."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sweetspot.student.losses import CrossEntropy, Distillation, StudentLoss, distillation_loss


def batch(images: int = 16, classes: int = 10, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(images, classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.to(dtype), teacher.to(dtype), torch.randint(classes, (images,), generator=generator)


def slow_formula(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float) -> float:
    total = 0.0
    for z_s, z_t, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        hot_s, hot_t = (
            [math.exp(z / temperature) / sum(math.exp(other / temperature) for other in row) for z in row]
            for row in (z_s, z_t)
        )
        cross_entropy = -math.log(math.exp(z_s[label]) / sum(math.exp(z) for z in z_s))
        divergence = sum(t * math.log(t / s) for s, t in zip(hot_s, hot_t, strict=True))
        total += (1 - alpha) * cross_entropy + alpha * temperature**2 * divergence
    return total / len(labels)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_the_loss_is_the_papers_formula(temperature: float, alpha: float) -> None:
    student, teacher, labels = batch()
    loss = distillation_loss(student, teacher, labels, temperature=temperature, alpha=alpha)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(slow_formula(student, teacher, labels, temperature, alpha), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_the_gradient_is_that_of_finite_differences(alpha: float) -> None:
    student, teacher, labels = batch(images=4, classes=5)
    assert torch.autograd.gradcheck(
        lambda z: distillation_loss(z, teacher, labels, temperature=4.0, alpha=alpha), student.requires_grad_()
    )


@pytest.mark.parametrize("loss", [Distillation(4.0, 0.9), Distillation(1.0, 0.5), Distillation(4.0, 1.0)])
def test_the_terms_add_up_to_the_loss(loss: Distillation) -> None:
    student, teacher, labels = batch()
    terms = loss(student, teacher, labels)
    assert terms.keys() == {"labels", "teacher", "loss"}
    total = (1 - loss.alpha) * terms["labels"] + loss.alpha * terms["teacher"]
    torch.testing.assert_close(terms["loss"], total)
    torch.testing.assert_close(terms["labels"], F.cross_entropy(student, labels))
    alone = distillation_loss(student, teacher, labels, temperature=loss.temperature, alpha=loss.alpha)
    assert torch.equal(terms["loss"], alone)


def test_a_student_that_answers_like_its_teacher_has_no_divergence_from_it() -> None:
    student, _, labels = batch()
    assert Distillation(4.0, 0.9)(student, student + 7, labels)["teacher"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("temperature", [100.0, 1000.0])
def test_at_high_temperature_the_gradient_is_the_centred_difference_of_logits(temperature: float) -> None:
    """Hinton et al., section 2.1: (z_s - z_t) / (N K), each row of logits centred, whatever T is."""
    student, teacher, labels = batch()
    loss = distillation_loss(student.requires_grad_(), teacher, labels, temperature=temperature, alpha=1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    difference = (student - teacher).detach()
    expected = (difference - difference.mean(1, keepdim=True)) / student.numel()
    torch.testing.assert_close(gradient, expected, atol=0.2 / temperature, rtol=0)


def test_the_divergence_is_averaged_over_images_and_not_over_classes() -> None:
    student, teacher, labels = batch()
    trap = F.kl_div(F.log_softmax(student / 4, 1), F.softmax(teacher / 4, 1), reduction="none").mean()
    loss = distillation_loss(student, teacher, labels, temperature=4.0, alpha=1.0)
    torch.testing.assert_close(loss, 10 * 16 * trap)  # K times T^2 times


def test_a_loss_does_not_depend_on_how_often_the_batch_is_repeated() -> None:
    student, teacher, labels = batch()
    once = distillation_loss(student, teacher, labels, temperature=4.0, alpha=0.9)
    thrice = distillation_loss(student.repeat(3, 1), teacher.repeat(3, 1), labels.repeat(3), temperature=4.0, alpha=0.9)
    torch.testing.assert_close(once, thrice)


def test_the_teacher_is_constant() -> None:
    student, teacher, labels = batch()
    Distillation(4.0, 0.9)(student.requires_grad_(), teacher.requires_grad_(), labels)["loss"].backward()
    assert student.grad is not None
    assert teacher.grad is None


# -- the student alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [CrossEntropy(), Distillation(4.0, 0.0)])
def test_the_student_alone_needs_no_teacher(loss: StudentLoss) -> None:
    student, teacher, labels = batch()
    assert not loss.needs_teacher
    terms = loss(student, None, labels)
    assert terms.keys() == {"labels", "loss"}
    assert torch.equal(terms["loss"], F.cross_entropy(student, labels))
    assert torch.equal(loss(student, torch.full_like(teacher, math.nan), labels)["loss"], terms["loss"])


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    student, _, labels = batch()
    log_p = F.log_softmax(student, 1)
    expected = 0.8 * F.nll_loss(log_p, labels) - 0.2 * log_p.mean()
    torch.testing.assert_close(CrossEntropy(0.2)(student, None, labels)["loss"], expected)


def test_a_missing_teacher_is_missed() -> None:
    student, _, labels = batch()
    assert Distillation(4.0, 0.9).needs_teacher
    with pytest.raises(ValueError, match="teacher's logits are missing"):
        Distillation(4.0, 0.9)(student, None, labels)


# -- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [Distillation(4.0, 0.9), CrossEntropy(0.1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_with_in_float32(loss: StudentLoss, dtype: torch.dtype) -> None:
    student, teacher, labels = batch(dtype=dtype)
    terms = loss(student.requires_grad_(), teacher, labels)
    assert terms["loss"].dtype == torch.float32
    assert torch.equal(terms["loss"], loss(student.float(), teacher.float(), labels)["loss"])
    assert torch.autograd.grad(terms["loss"], student)[0].dtype == dtype


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", [Distillation(4.0, 0.9), CrossEntropy(0.1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_autocast_changes_nothing(loss: StudentLoss, dtype: torch.dtype, device: str) -> None:
    student, teacher, labels = (part.to(device) for part in batch(dtype=dtype))
    plain = loss(student.requires_grad_(), teacher, labels)["loss"]
    with torch.autocast(device, dtype=torch.bfloat16):
        cast = loss(student, teacher, labels)["loss"]
    assert cast.dtype == plain.dtype
    assert torch.equal(cast, plain)
    assert torch.equal(torch.autograd.grad(cast, student)[0], torch.autograd.grad(plain, student)[0])


@pytest.mark.parametrize("loss", [Distillation(4.0, 0.9), CrossEntropy()])
def test_large_logits_stay_finite(loss: StudentLoss) -> None:
    student, teacher, labels = batch(dtype=torch.float32)
    terms = loss((1e4 * student).requires_grad_(), -1e4 * teacher, labels)
    assert all(term.isfinite() for term in terms.values())


def test_labels_may_be_of_any_integer_dtype() -> None:
    student, teacher, labels = batch()
    loss = Distillation(4.0, 0.9)
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(loss(student, teacher, labels.to(dtype))["loss"], loss(student, teacher, labels)["loss"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("loss", [Distillation(4.0, 0.9), CrossEntropy(0.1)])
def test_nothing_waits_for_the_device(loss: StudentLoss) -> None:
    student, teacher, labels = (part.cuda() for part in batch())
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(student.requires_grad_(), teacher, labels)["loss"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# -- what is refused --------------------------------------------------------------------------------------------------

BAD_BATCHES = [
    (torch.zeros(5), torch.zeros(5).long(), "logits must be"),
    (torch.zeros(2, 5, 5), torch.zeros(2).long(), "logits must be"),
    (torch.zeros(2, 5).long(), torch.zeros(2).long(), "logits must be floating numbers"),
    (torch.zeros(0, 5), torch.zeros(0).long(), "must have images"),
    (torch.zeros(2, 2), torch.zeros(2).long(), "at least 3 classes are needed, found 2"),
    (torch.zeros(2, 5), torch.zeros(3).long(), "labels must be 2 integers"),
    (torch.zeros(2, 5), torch.zeros(2, 5).long(), "labels must be 2 integers"),
    (torch.zeros(2, 5), torch.zeros(2), "labels must be 2 integers"),
    (torch.zeros(2, 5), torch.zeros(2).bool(), "labels must be 2 integers"),
    (torch.zeros(2, 5), torch.tensor([0, 5]), "labels must be from 0 to 4"),
    (torch.zeros(2, 5), torch.tensor([0, -1]), "labels must be from 0 to 4"),
    (torch.zeros(2, 5), torch.tensor([0, -100]), "labels must be from 0 to 4"),  # cross_entropy's own "no label"
]


@pytest.mark.parametrize(("student", "labels", "words"), BAD_BATCHES)
@pytest.mark.parametrize("loss", [Distillation(4.0, 0.9), CrossEntropy(), CrossEntropy(0.1)])
def test_a_batch_that_makes_no_sense_is_refused(loss: StudentLoss, student: Tensor, labels: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loss(student, student, labels)


@pytest.mark.parametrize(("student", "labels", "words"), BAD_BATCHES)
def test_the_function_refuses_what_its_value_refuses(student: Tensor, labels: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        distillation_loss(student, student, labels, temperature=4.0, alpha=0.9)


@pytest.mark.parametrize("alpha", [0.0, 0.9])
@pytest.mark.parametrize("teacher", [torch.zeros(2, 6), torch.zeros(3, 5), torch.zeros(5), torch.zeros(2, 5).long()])
def test_a_teacher_of_another_shape_is_refused(teacher: Tensor, alpha: float) -> None:
    with pytest.raises(ValueError, match="the teacher's logits must be"):
        distillation_loss(torch.zeros(2, 5), teacher, torch.zeros(2).long(), temperature=4.0, alpha=alpha)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *((lambda t=t: Distillation(t, 0.9), "temperature must be") for t in (0.0, -1.0, math.nan, math.inf)),
        *((lambda a=a: Distillation(4.0, a), "alpha, .* must be") for a in (-0.1, 1.1, math.nan)),
        *((lambda s=s: CrossEntropy(s), "label smoothing must be") for s in (-0.1, 1.0, math.nan)),
    ],
)
def test_a_loss_that_makes_no_sense_is_refused(make: Callable[[], StudentLoss], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
