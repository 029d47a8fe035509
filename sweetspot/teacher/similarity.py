"""What a teacher's response says, of the label and of the other classes.

For logits `z` of an image with label `y`: `p = softmax(z / T)`, and `q_j = p_j / (1 - p_y)` for `j != y` is the
distribution over the K - 1 other classes. Every measure is an average over images, in nats where it is an entropy.

How they are computed: with `w` the logsumexp of the other classes' `z / T`, the log-odds of the label are
`a = z_y / T - w`; then `p_y = sigmoid(a)`, `log(1 - p_y) = log sigmoid(-a)` and `q = exp(z / T - w)`. Nothing is got by
subtracting from 1, so that a teacher whose p_y rounds to 1 still has its q, and its 1 - p_y to full precision.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

CALIBRATION_BINS = 15
_ELEMENTS = 2**22  # worked on at once: 32 MiB for each temporary in float64, whatever the number of images


@dataclass(frozen=True, eq=False)
class ResponseMeasures:
    """The measures of one response at one temperature; nats, fractions and probabilities."""

    response_entropy: float
    """`mean H(p)`."""
    similarity_entropy: float
    """S = `mean (1 - p_y) H(q)`: the part of the response entropy that the other classes carry."""
    similarity_information: float
    """N = `log(K-1) - mean H(q)` = C + I: how far the other classes are from uniform, whatever their mass."""
    class_information: float
    """C = `log(K-1) - mean H(q averaged over the class)`, the mean over classes weighted by their images."""
    image_information: float
    """I = N - C: what q says of the image beyond its class."""
    delivered_similarity: float
    """M = `mean (1 - p_y) (log(K-1) - H(q))`, so that S + M = log(K-1) * non_target_mass."""
    target_confidence: float
    """`mean p_y`."""
    non_target_mass: float
    """`mean (1 - p_y)`."""
    wrong_class_variance: float
    """The mean over images of the variance of the K - 1 probabilities `p_j`, `j != y`, about their own mean
    `(1 - p_y) / (K - 1)`; the population's variance, divided by K - 1."""
    accuracy: float
    """The fraction of images whose largest logit is the label's; of equal largest logits one counts."""
    nll: float
    """`mean -log p_y` at T = 1."""
    ece: float
    """Expected calibration error at T = 1: 15 bins of equal width of the top probability."""
    class_similarity: Tensor
    """(K, K) float64 on the CPU: row k is the mean p of the images of class k; NaN where there are none."""
    class_images: Tensor
    """(K,) int64 on the CPU: the images of each class."""

    def scalars(self) -> dict[str, float]:
        """All measures that are one number, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, float)}


def similarity_entropy(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """S, the similarity entropy in nats; arguments and errors are those of `measure_response`."""
    return measure_response(logits, labels, temperature).similarity_entropy


@torch.no_grad()
def measure_response(logits: Tensor, labels: Tensor, temperature: float) -> ResponseMeasures:
    """Measures a response.

    Args:
        logits: (images, K) of any floating dtype on any device, K >= 3, finite. Computed with in float64 (float32 on
            MPS, which has no float64).
        labels: (images,) of any integer dtype.
        temperature: T > 0. All measures but accuracy, nll and ece depend on it.

    Raises:
        ValueError: anything else, in words.
    """
    logits, labels = _checked(logits, labels, temperature)
    images, classes = logits.shape
    uniform = math.log(classes - 1)
    wide = _wide(logits)

    columns = []  # of the per-image values
    p_sums, q_sums = (torch.zeros(classes, classes, dtype=wide, device=logits.device) for _ in range(2))
    bins = torch.zeros(CALIBRATION_BINS, dtype=wide, device=logits.device)  # sums of (correct - confidence)
    rows = max(1, _ELEMENTS // classes)
    for z, y in zip(torch.split(logits, rows), torch.split(labels, rows), strict=True):
        z = z.to(wide)
        y_column = y.unsqueeze(1)
        log_odds, q, q_entropy = _split(z, y_column, temperature)
        target, rest = log_odds.sigmoid(), log_odds.neg().sigmoid()
        label_entropy = -(target * logsigmoid(log_odds) + rest * logsigmoid(-log_odds))
        deviation = (q - 1 / (classes - 1)).scatter_(1, y_column, 0)
        variance = rest.square() * deviation.square().sum(1) / (classes - 1)
        q_sums.index_add_(0, y, q)
        p_sums.index_add_(0, y, (rest.unsqueeze(1) * q).scatter_(1, y_column, target.unsqueeze(1)))

        plain_log_odds, _, _ = _split(z, y_column, 1.0)
        top, prediction = z.max(1)
        confidence = 1 / (z - top.unsqueeze(1)).exp().sum(1)
        correct = (prediction == y).to(wide)
        # bins are closed above, as in Guo et al. 2017 (arXiv 1706.04599); a confidence is never under 1 / K > 0
        bin_of = (confidence * CALIBRATION_BINS).ceil().long().sub(1).clamp(0, CALIBRATION_BINS - 1)
        bins.index_add_(0, bin_of, correct - confidence)

        other_entropy = rest * q_entropy
        delivered = rest * (uniform - q_entropy).clamp(min=0)
        columns.append(
            torch.stack(
                [
                    label_entropy + other_entropy,
                    other_entropy,
                    q_entropy,
                    delivered,
                    target,
                    rest,
                    variance,
                    correct,
                    -logsigmoid(plain_log_odds),
                ]
            )
        )

    class_images = labels.bincount(minlength=classes)
    weights = class_images.to(wide).unsqueeze(1)
    q_means = q_sums / weights.clamp(min=1)
    class_entropy = -(weights / images * torch.xlogy(q_means, q_means)).sum()
    means = torch.cat(columns, dim=1).mean(1)
    numbers = torch.cat([means, class_entropy.unsqueeze(0), bins.abs().sum(0, keepdim=True) / images])
    # the one wait for the device
    entropy, similarity, q_entropy_mean, delivered_mean, confident, mass, spread, accuracy, nll, of_classes, ece = (
        numbers.tolist()
    )
    # neither part can be negative (Jensen); what rounding leaves under zero is zero
    class_information = max(0.0, uniform - of_classes)
    image_information = max(0.0, of_classes - q_entropy_mean)
    return ResponseMeasures(
        response_entropy=entropy,
        similarity_entropy=similarity,
        similarity_information=class_information + image_information,
        class_information=class_information,
        image_information=image_information,
        delivered_similarity=delivered_mean,
        target_confidence=confident,
        non_target_mass=mass,
        wrong_class_variance=spread,
        accuracy=accuracy,
        nll=nll,
        ece=ece,
        class_similarity=(p_sums / weights).cpu().double(),  # 0 / 0 is the NaN of a class without images
        class_images=class_images.cpu(),
    )


def _split(z: Tensor, y_column: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The log-odds of the label (images,), q (images, K; zero at the label) and H(q) (images,).

    Differences are taken before the division, and kept finite: `0 * finite` is 0 where `0 * inf` would be NaN.
    """
    edge = torch.finfo(z.dtype).max * 1e-8  # room to sum over a hundred million images
    others = z.scatter(1, y_column, -math.inf)
    top = others.amax(1, keepdim=True)
    shifted = ((others - top) / temperature).clamp_(min=-edge)  # at most 0, and 0 for the top one
    q = shifted.exp()
    total = q.sum(1, keepdim=True)
    q /= total
    log_total = total.log()
    entropy = log_total.squeeze(1) - (q * shifted).sum(1)  # two terms that are not negative: nothing cancels
    log_odds = ((z.gather(1, y_column) - top) / temperature).clamp_(-edge, edge) - log_total
    return log_odds.squeeze(1), q, entropy


def _wide(logits: Tensor) -> torch.dtype:
    return torch.float32 if logits.device.type == "mps" else torch.float64


def _checked(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The arguments, the labels as int64 beside the logits; raises ValueError for what cannot be measured."""
    if not isinstance(logits, Tensor) or not isinstance(labels, Tensor):
        raise ValueError(f"logits and labels must be tensors, found {type(logits).__name__}, {type(labels).__name__}")
    if not isinstance(temperature, int | float):
        raise ValueError(f"the temperature must be a number, found {temperature!r}")
    if logits.ndim != 2 or not logits.is_floating_point():
        found = f"{_shape(logits)} {logits.dtype}"
        raise ValueError(f"logits must be floating numbers of shape (images, classes), found {found}")
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        found = f"{_shape(labels)} {labels.dtype}"
        raise ValueError(f"labels must be integers of shape (images,), found {found}")
    images, classes = logits.shape
    if len(labels) != images:
        raise ValueError(f"there must be a label for each image, found {len(labels)} labels for {images} images")
    if images == 0:
        raise ValueError("a response on no images cannot be measured")
    if classes < 3:
        raise ValueError(f"similarity is about the other classes: at least 3 classes are needed, found {classes}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"the temperature must be a finite number above 0, found {temperature}")
    labels = labels.to(logits.device, torch.int64)
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be from 0 to {classes - 1}, found {low if low < 0 else high}")
    broken = int((~logits.to(_wide(logits)).isfinite()).any(1).sum())
    if broken:
        raise ValueError(f"logits must be finite, found NaN or infinity on {broken} of {images} images")
    return logits, labels


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(str(size) for size in tensor.shape)})"
