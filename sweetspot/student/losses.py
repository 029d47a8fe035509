"""What a student is trained on: values that are called with its logits, the teacher's and the labels.

A loss returns its named terms, of which "loss" is the one to differentiate, so that each can be logged without being
computed twice. All is computed in float32 (float64 inputs stay float64) from logits, and nothing waits for the device.
Autocast changes nothing here: the logits are upcast first, and none of the functions used is one it casts down.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# cross_entropy skips the labels that equal this; its default of -100 would hide a wrong label
_NO_LABEL = torch.iinfo(torch.int64).min


class StudentLoss(Protocol):
    """A loss of the student."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's logits are used; where not, they may be None and the teacher need not run."""

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
        """The named terms, each a scalar in nats.

        Args:
            student_logits: (images, K), floating, K >= 3.
            teacher_logits: the like, treated as constant; or None where `needs_teacher` is false.
            labels: (images,) of an integer dtype, from 0 to K - 1.

        Raises:
            ValueError: other shapes or dtypes, no images, K < 3, a missing teacher; on the CPU also a label that is
                out of range (a GPU reports that as a device-side assertion, later).
        """


@dataclass(frozen=True)
class CrossEntropy:
    """The student alone: cross-entropy with the labels. Terms: "labels" and "loss", which are equal."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label smoothing must be at least 0 and less than 1, found {self.label_smoothing}")

    @property
    def needs_teacher(self) -> bool:
        return False

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
        _check(student_logits, labels)
        loss = _cross_entropy(_upcast(student_logits), labels, self.label_smoothing)
        return {"labels": loss, "loss": loss}


@dataclass(frozen=True)
class Distillation:
    """Hinton, Vinyals & Dean 2015 (arXiv 1503.02531): for logits z_s of the student and z_t of the teacher

        loss = (1 - alpha) * CE(z_s, labels) + alpha * T^2 * KL(softmax(z_t / T) || softmax(z_s / T)),

    each averaged over images. T^2 keeps the teacher's gradient at the labels' scale whatever T is. Terms: "labels"
    (CE), "teacher" (T^2 * KL; absent at alpha = 0, where the teacher is not used) and "loss".
    """

    temperature: float
    alpha: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"the temperature must be a finite number above 0, found {self.temperature}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha, the teacher's share of the loss, must be from 0 to 1, found {self.alpha}")

    @property
    def needs_teacher(self) -> bool:
        return self.alpha > 0

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
        _check(student_logits, labels)
        student = _upcast(student_logits)
        of_labels = _cross_entropy(student, labels)
        if self.alpha == 0:
            return {"labels": of_labels, "loss": of_labels}
        if teacher_logits is None:
            raise ValueError(f"the teacher's logits are missing: alpha is {self.alpha}")
        _check_teacher(student_logits, teacher_logits)
        of_teacher = _softened_divergence(student, _upcast(teacher_logits.detach()), self.temperature)
        # lerp(a, b, alpha) is (1 - alpha) * a + alpha * b, in one kernel
        return {"labels": of_labels, "teacher": of_teacher, "loss": torch.lerp(of_labels, of_teacher, self.alpha)}


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, alpha: float
) -> Tensor:
    """The loss of `Distillation(temperature, alpha)`: a scalar in nats.

    Raises:
        ValueError: what `StudentLoss` raises it for, a temperature that is not finite and above 0, an alpha that is
            not from 0 to 1.
    """
    loss = Distillation(temperature, alpha)
    _check_teacher(student_logits, teacher_logits)  # at alpha = 0 too
    return loss(student_logits, teacher_logits, labels)["loss"]


def _softened_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over images."""
    softened_student = F.log_softmax(student / temperature, dim=1)
    softened_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(softened_student, softened_teacher, reduction="sum", log_target=True)
    # divided by the images alone ("batchmean"): F.kl_div's default, "mean", also divides by K
    return divergence * (temperature**2 / len(student))


def _cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    try:
        return F.cross_entropy(logits, labels.long(), ignore_index=_NO_LABEL, label_smoothing=label_smoothing)
    except IndexError as error:
        raise ValueError(f"labels must be from 0 to {logits.shape[1] - 1}: {error}") from error


def _upcast(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _check(logits: Tensor, labels: Tensor) -> None:
    """Checks what is known without waiting for the device."""
    shape = logits.shape
    if len(shape) != 2 or not logits.dtype.is_floating_point:
        raise ValueError(f"logits must be floating numbers of shape (images, classes), found {_kind(logits)}")
    if shape[0] == 0:
        raise ValueError("a batch must have images, found none")
    if shape[1] < 3:
        raise ValueError(f"at least 3 classes are needed, found {shape[1]}")
    dtype = labels.dtype
    if labels.shape != shape[:1] or dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise ValueError(f"labels must be {shape[0]} integers, one for each image, found {_kind(labels)}")


def _check_teacher(student_logits: Tensor, teacher_logits: Tensor) -> None:
    if teacher_logits.shape != student_logits.shape or not teacher_logits.dtype.is_floating_point:
        raise ValueError(
            "the teacher's logits must be floating numbers of the student's shape, "
            f"found {_kind(teacher_logits)} for {_kind(student_logits)}"
        )


def _kind(tensor: Tensor) -> str:
    return f"({', '.join(str(size) for size in tensor.shape)}) {tensor.dtype}"
