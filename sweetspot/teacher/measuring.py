"""What a teacher's response is measured on, and as which network: as it would teach."""

import torch
from torch import nn

from sweetspot.data.seeding import seed_of
from sweetspot.data.study_data import StudyData
from sweetspot.store.trajectories import ClassSimilarity, Measurement, Probe
from sweetspot.teacher.recipe import Recipe
from sweetspot.teacher.similarity import ResponseMeasures, measure_response
from sweetspot.timing import span
from sweetspot.training.engine import DivergedError, epoch_order, recompute_batchnorm, respond

PROBES: tuple[Probe, ...] = ("train", "validation")


def as_teacher(model: nn.Module, recipe: Recipe, data: StudyData, device: torch.device) -> nn.Module:
    """``model`` itself with BatchNorm recomputed on views fixed by the seed, in evaluation mode."""
    seed = seed_of(recipe.config.seed, "batchnorm")
    # Mixed: a data set may be sorted by class, and the statistics are those of its first 100 batches.
    order = epoch_order(data.train_images, recipe.batch_size, seed, 0, device)
    with span("batchnorm"):
        recompute_batchnorm(model, data.views(seed, 0), order, recipe.batch_size, recipe.config.teacher.precision)
    return model.requires_grad_(False)


def measure(
    model: nn.Module,
    recipe: Recipe,
    data: StudyData,
    epoch: int,
    temperature: float,
    *,
    recomputed: bool,
    train_loss: float | None = None,
    seconds: float | None = None,
) -> list[Measurement]:
    """Measurements on training views and on validation, in this order.

    Raises:
        DivergedError: if the response is not finite.
    """
    rows = []
    for probe in PROBES:
        images = data.train_probe if probe == "train" else data.validation
        with span("measuring"):
            logits = respond(model, images.images, recipe.config.teacher.precision)
            if not bool(logits.isfinite().all()):
                raise DivergedError(epoch, recipe.lr, "response")
            measured = measure_response(logits, images.labels, temperature)
        similarity = _class_similarity(measured) if recomputed and probe == "train" else None
        rows.append(
            Measurement(epoch, temperature, probe, recomputed, measured.scalars(), train_loss, seconds, similarity)
        )
    return rows


def _class_similarity(measured: ResponseMeasures) -> ClassSimilarity:
    return ClassSimilarity(measured.class_similarity.float().numpy(), measured.class_images.numpy())
