"""The measures of a response: against numpy that starts from probabilities, in identities, and at the extremes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sweetspot.teacher.similarity import ResponseMeasures, measure_response, similarity_entropy


def noise(images: int, classes: int, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (images,), generator=generator)


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return np.asarray(powers / powers.sum())


def entropy(distribution: np.ndarray) -> float:
    positive = distribution[distribution > 0]
    return float(-(positive * np.log(positive)).sum())


def slow_reference(logits: Tensor, labels: Tensor, temperature: float) -> tuple[dict[str, float], np.ndarray]:
    """The definitions read aloud: one image at a time, probabilities first, H(p) from p and not by the chain rule."""
    z, y = logits.double().numpy(), labels.numpy()
    images, classes = z.shape
    uniform = np.log(classes - 1)
    names = ("response_entropy", "similarity_entropy", "delivered_similarity", "target_confidence", "non_target_mass")
    sums = dict.fromkeys((*names, "wrong_class_variance", "accuracy", "nll", "similarity_information"), 0.0)
    q_of_class: dict[int, list[np.ndarray]] = {}
    p_of_class: dict[int, list[np.ndarray]] = {}
    for row, label in zip(z, y, strict=True):
        p = softmax(row / temperature)
        wrong = np.delete(p, label)
        q = wrong / wrong.sum()
        sums["response_entropy"] += entropy(p)
        sums["similarity_entropy"] += wrong.sum() * entropy(q)
        sums["similarity_information"] += uniform - entropy(q)
        sums["delivered_similarity"] += wrong.sum() * (uniform - entropy(q))
        sums["target_confidence"] += p[label]
        sums["non_target_mass"] += wrong.sum()
        sums["wrong_class_variance"] += wrong.var()
        sums["accuracy"] += float(row.argmax() == label)
        sums["nll"] -= np.log(softmax(row)[label])
        q_of_class.setdefault(int(label), []).append(q)
        p_of_class.setdefault(int(label), []).append(p)
    measures = {name: total / images for name, total in sums.items()}
    of_classes = sum(len(qs) * entropy(np.mean(qs, axis=0)) for qs in q_of_class.values()) / images
    measures["class_information"] = uniform - of_classes
    measures["image_information"] = measures["similarity_information"] - measures["class_information"]
    measures["ece"] = slow_ece(z, y)
    matrix = np.full((classes, classes), np.nan)
    for label, ps in p_of_class.items():
        matrix[label] = np.mean(ps, axis=0)
    return measures, matrix


def slow_ece(z: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    tops = np.array([softmax(row).max() for row in z])
    right = z.argmax(axis=1) == y
    error = 0.0
    for index in range(bins):
        inside = (tops > index / bins) & (tops <= (index + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - tops[inside].mean())
    return error


def assert_equals_the_reference(logits: Tensor, labels: Tensor, temperature: float) -> None:
    measured = measure_response(logits, labels, temperature)
    expected, matrix = slow_reference(logits, labels, temperature)
    assert measured.scalars().keys() == expected.keys()
    for name, value in measured.scalars().items():
        assert value == pytest.approx(expected[name], abs=1e-10), name
    np.testing.assert_allclose(measured.class_similarity.numpy(), matrix, atol=1e-12)
    assert measured.class_images.tolist() == np.bincount(labels.numpy(), minlength=logits.shape[1]).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("images", "classes", "scale"), [(1, 3, 1.0), (200, 10, 3.0), (500, 30, 8.0)])
def test_every_measure_equals_a_slow_reference(images: int, classes: int, scale: float, temperature: float) -> None:
    assert_equals_the_reference(*noise(images, classes, scale), temperature)


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 30),
    classes=st.integers(3, 12),
    scale=st.floats(0.0, 8.0),
    temperature=st.floats(0.5, 20.0),
    seed=st.integers(0, 2**31),
)
def test_every_measure_equals_a_slow_reference_on_any_response(
    images: int, classes: int, scale: float, temperature: float, seed: int
) -> None:
    logits, labels = noise(images, classes, scale, seed)
    assert_equals_the_reference(logits + 1e-3 * noise(images, classes, seed=seed + 1)[0], labels, temperature)


def test_a_response_of_many_images_is_measured_in_parts_as_if_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = noise(1000, 10, 3.0)
    whole = measure_response(logits, labels, 4.0)
    monkeypatch.setattr("sweetspot.teacher.similarity._ELEMENTS", 1300)
    parts = measure_response(logits, labels, 4.0)
    assert parts.scalars() == pytest.approx(whole.scalars(), abs=1e-12)
    torch.testing.assert_close(parts.class_similarity, whole.class_similarity)


# -- identities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_the_chain_rule_splits_the_response_entropy(scale: float) -> None:
    logits, labels = noise(300, 10, scale)
    p = torch.softmax(logits / 4, dim=1)
    target = p.gather(1, labels[:, None]).squeeze(1)
    wrong = p.scatter(1, labels[:, None], 0)
    of_label = -torch.xlogy(target, target) - torch.xlogy(wrong.sum(1), wrong.sum(1))
    measured = measure_response(logits, labels, 4.0)
    assert measured.response_entropy == pytest.approx(float(-torch.xlogy(p, p).sum(1).mean()), abs=1e-12)
    assert measured.response_entropy == pytest.approx(float(of_label.mean()) + measured.similarity_entropy, abs=1e-12)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_softness_and_delivered_similarity_share_the_non_target_mass(scale: float) -> None:
    measured = measure_response(*noise(300, 10, scale), 4.0)
    both = measured.similarity_entropy + measured.delivered_similarity
    assert both == pytest.approx(math.log(9) * measured.non_target_mass, abs=1e-13)
    assert measured.target_confidence + measured.non_target_mass == pytest.approx(1, abs=1e-13)


def test_similarity_information_is_that_of_the_class_and_that_of_the_image() -> None:
    measured = measure_response(*noise(300, 10, 3.0), 4.0)
    assert measured.similarity_information == measured.class_information + measured.image_information
    assert measured.class_information > 0
    assert measured.image_information > 0


def test_a_response_that_depends_on_the_class_alone_has_no_image_information() -> None:
    of_class, _ = noise(10, 10, 3.0)
    labels = torch.arange(300) % 10
    measured = measure_response(of_class[labels], labels, 4.0)
    assert measured.image_information == pytest.approx(0, abs=1e-12)
    assert measured.class_information == pytest.approx(measured.similarity_information, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.1, 0.5, 1e-6])
def test_label_smoothing_has_softness_but_no_similarity(smoothing: float) -> None:
    labels = torch.arange(50) % 10
    p = torch.full((50, 10), smoothing / 9, dtype=torch.float64).scatter(1, labels[:, None], 1 - smoothing)
    measured = measure_response(p.log(), labels, 1.0)
    assert measured.similarity_information == pytest.approx(0, abs=1e-14)
    assert measured.delivered_similarity == pytest.approx(0, abs=1e-14)
    assert measured.wrong_class_variance == pytest.approx(0, abs=1e-14)
    assert measured.similarity_entropy == pytest.approx(smoothing * math.log(9), rel=1e-9)


def test_a_one_hot_response_has_neither_softness_nor_delivered_similarity_but_keeps_its_information() -> None:
    logits, labels = noise(50, 10)
    measured = measure_response(logits.scatter(1, labels[:, None], 2000.0), labels, 1.0)
    assert measured.similarity_entropy == 0
    assert measured.delivered_similarity == 0
    assert measured.response_entropy == 0
    assert measured.target_confidence == 1
    assert measured.accuracy == 1
    assert measured.similarity_information > 0.2


def test_renaming_the_classes_changes_nothing() -> None:
    logits, labels = noise(200, 10, 3.0)
    renamed = torch.randperm(10, generator=torch.Generator().manual_seed(1))  # new class i is the old renamed[i]
    before = measure_response(logits, labels, 4.0)
    after = measure_response(logits[:, renamed], renamed.argsort()[labels], 4.0)
    assert after.scalars() == pytest.approx(before.scalars(), abs=1e-12)
    torch.testing.assert_close(after.class_similarity, before.class_similarity[renamed][:, renamed])
    assert torch.equal(after.class_images, before.class_images[renamed])


def test_the_order_of_images_does_not_matter() -> None:
    logits, labels = noise(200, 10, 3.0)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    before = measure_response(logits, labels, 4.0)
    after = measure_response(logits[order], labels[order], 4.0)
    assert after.scalars() == pytest.approx(before.scalars(), abs=1e-12)
    torch.testing.assert_close(after.class_similarity, before.class_similarity)


def test_a_constant_added_to_an_images_logits_changes_nothing() -> None:
    logits, labels = noise(200, 10, 3.0)
    shifted = measure_response(logits + torch.arange(200.0)[:, None], labels, 4.0)
    assert shifted.scalars() == pytest.approx(measure_response(logits, labels, 4.0).scalars(), abs=1e-12)


def test_temperature_divides_the_logits_and_leaves_accuracy_and_likelihood_alone() -> None:
    logits, labels = noise(200, 10, 3.0)
    hot = measure_response(logits, labels, 4.0).scalars()
    divided = measure_response(logits / 4, labels, 1.0).scalars()
    plain = measure_response(logits, labels, 1.0).scalars()
    for name, value in hot.items():
        assert value == pytest.approx((plain if name in {"nll", "ece", "accuracy"} else divided)[name], abs=1e-12), name


def test_pure_noise_has_similarity_information() -> None:
    """At K = 10: 0.37 for normal logits of standard deviation T, 0.48 for 1.18 T."""
    logits, labels = noise(20_000, 10)
    assert measure_response(logits, labels, 1.0).similarity_information == pytest.approx(0.37, abs=0.01)
    measured = measure_response(4 * 1.18 * logits, labels, 4.0)
    assert measured.similarity_information == pytest.approx(0.48, abs=0.01)
    assert measured.class_information < 0.005  # noise says nothing of the class


# -- classes ----------------------------------------------------------------------------------------------------------


def test_an_absent_class_has_a_row_of_nan_and_no_images() -> None:
    logits, labels = noise(100, 5)
    labels[labels == 3] = 1
    measured = measure_response(logits, labels, 4.0)
    assert measured.class_images[3] == 0
    assert measured.class_images.sum() == 100
    assert measured.class_similarity[3].isnan().all()
    present = measured.class_similarity[[0, 1, 2, 4]]
    torch.testing.assert_close(present.sum(1), torch.ones(4, dtype=torch.float64))
    assert measured.class_similarity.dtype == torch.float64
    assert all(math.isfinite(value) for value in measured.scalars().values())


# -- extremes ---------------------------------------------------------------------------------------------------------


def finite(measured: ResponseMeasures) -> bool:
    return all(math.isfinite(value) for value in measured.scalars().values())


def test_a_confidence_that_rounds_to_one_keeps_its_small_rest_exact() -> None:
    logits = torch.tensor([[100.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    measured = measure_response(logits, torch.tensor([0]), 1.0)
    rest = (math.e + 2) * math.exp(-100)
    q = np.array([math.e, 1, 1]) / (math.e + 2)
    assert measured.target_confidence == 1
    assert measured.non_target_mass == pytest.approx(rest, rel=1e-12)
    assert measured.similarity_entropy == pytest.approx(rest * entropy(q), rel=1e-12)
    assert measured.delivered_similarity == pytest.approx(rest * (math.log(3) - entropy(q)), rel=1e-12)
    assert measured.similarity_information == pytest.approx(math.log(3) - entropy(q), rel=1e-12)
    assert measured.response_entropy == pytest.approx(rest * (101 - math.log(math.e + 2) + entropy(q)), rel=1e-2)
    assert measured.nll == pytest.approx(rest, rel=1e-12)


def test_a_label_that_is_all_but_excluded_has_its_likelihood_exact() -> None:
    logits = torch.tensor([[-1000.0, 0.0, 0.0]], dtype=torch.float64)
    measured = measure_response(logits, torch.tensor([0]), 1.0)
    assert measured.nll == pytest.approx(1000 + math.log(2), rel=1e-15)
    assert measured.similarity_entropy == pytest.approx(math.log(2), rel=1e-15)


def test_the_other_classes_are_seen_behind_an_enormous_label() -> None:
    logits = torch.tensor([[1e300, 3.0, 1.0, 2.0]], dtype=torch.float64)
    measured = measure_response(logits, torch.tensor([0]), 1.0)
    expected = math.log(3) - entropy(softmax(np.array([3.0, 1.0, 2.0])))
    assert measured.similarity_information == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 1.0, 1e300])
@pytest.mark.parametrize("size", [1e4, 3e38, 1.7e308])
def test_extreme_logits_stay_finite(size: float, temperature: float) -> None:
    logits, labels = noise(100, 10)
    assert finite(measure_response(logits.sign() * size, labels, temperature))
    assert finite(measure_response((logits.sign() * min(size, 3e38)).float(), labels, temperature))


@pytest.mark.parametrize("value", [0.0, 1e30])
def test_equal_logits_are_uniform(value: float) -> None:
    measured = measure_response(torch.full((50, 10), value), torch.arange(50) % 10, 4.0)
    assert measured.response_entropy == pytest.approx(math.log(10), rel=1e-14)
    assert measured.similarity_entropy == pytest.approx(0.9 * math.log(9), rel=1e-14)
    assert measured.similarity_information == pytest.approx(0, abs=1e-14)
    assert measured.delivered_similarity == pytest.approx(0, abs=1e-14)
    assert measured.accuracy == pytest.approx(0.1)
    assert measured.ece == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_logits_are_measured_as_the_numbers_that_they_are(dtype: torch.dtype) -> None:
    logits, labels = noise(100, 10, 3.0)
    rounded = logits.to(dtype)
    assert measure_response(rounded, labels, 4.0).scalars() == measure_response(rounded.double(), labels, 4.0).scalars()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_may_be_of_any_integer_dtype(dtype: torch.dtype) -> None:
    logits, labels = noise(100, 10, 3.0)
    assert measure_response(logits, labels.to(dtype), 4.0).scalars() == measure_response(logits, labels, 4.0).scalars()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_measures_the_same() -> None:
    logits, labels = noise(300, 10, 3.0)
    here = measure_response(logits, labels, 4.0)
    there = measure_response(logits.cuda(), labels.cuda(), 4.0)
    assert there.scalars() == pytest.approx(here.scalars(), abs=1e-12)
    torch.testing.assert_close(there.class_similarity, here.class_similarity)
    assert torch.equal(there.class_images, here.class_images)


def test_similarity_entropy_alone_is_the_same_number_and_leaves_no_graph() -> None:
    logits, labels = noise(100, 10, 3.0)
    measured = measure_response(logits.requires_grad_(), labels, 4.0)
    assert similarity_entropy(logits, labels, 4.0) == measured.similarity_entropy
    assert not measured.class_similarity.requires_grad


# -- what cannot be measured ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logits", "labels", "temperature", "words"),
    [
        (torch.zeros(5), torch.zeros(5).long(), 1.0, r"logits must be .* found \(5\)"),
        (torch.zeros(2, 5, 5), torch.zeros(2).long(), 1.0, "logits must be"),
        (torch.zeros(2, 5).long(), torch.zeros(2).long(), 1.0, "logits must be floating numbers"),
        (torch.zeros(2, 5), torch.zeros(2), 1.0, "labels must be integers"),
        (torch.zeros(2, 5), torch.zeros(2).bool(), 1.0, "labels must be integers"),
        (torch.zeros(2, 5), torch.zeros(2, 5).long(), 1.0, "labels must be integers of shape"),
        (torch.zeros(2, 5), torch.zeros(3).long(), 1.0, "3 labels for 2 images"),
        (torch.zeros(2, 5), torch.tensor([0, 5]), 1.0, "labels must be from 0 to 4, found 5"),
        (torch.zeros(2, 5), torch.tensor([0, -1]), 1.0, "labels must be from 0 to 4, found -1"),
        (torch.zeros(0, 5), torch.zeros(0).long(), 1.0, "no images"),
        (torch.zeros(2, 2), torch.zeros(2).long(), 1.0, "at least 3 classes are needed, found 2"),
        (torch.tensor([[0.0, 1.0, math.nan]]), torch.tensor([0]), 1.0, "on 1 of 1 images"),
        (torch.tensor([[0.0, 1.0, math.inf]]), torch.tensor([0]), 1.0, "logits must be finite"),
        (torch.tensor([[0.0, 1.0, -math.inf]]), torch.tensor([0]), 1.0, "logits must be finite"),
        (torch.zeros(2, 5), torch.zeros(2).long(), 0.0, "temperature must be"),
        (torch.zeros(2, 5), torch.zeros(2).long(), -1.0, "temperature must be"),
        (torch.zeros(2, 5), torch.zeros(2).long(), math.nan, "temperature must be"),
        (torch.zeros(2, 5), torch.zeros(2).long(), math.inf, "temperature must be"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(
    logits: Tensor, labels: Tensor, temperature: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        measure_response(logits, labels, temperature)
    with pytest.raises(ValueError, match=words):
        similarity_entropy(logits, labels, temperature)
