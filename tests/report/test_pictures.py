"""Pictures of a trial: what they show is looked at by people; here, that any data can be drawn."""

import io

import numpy as np
import pytest
from PIL import Image

from sweetspot.report.pictures import curves_picture, similar_order, similarity_picture
from sweetspot.store import ClassSimilarity, Student


def similarity(classes: int) -> ClassSimilarity:
    """Of classes that lie on a line, each like its neighbours."""
    place = np.arange(classes)
    response = np.exp(-np.abs(place[:, None] - place[None]) / 2.0)
    matrix = (response / response.sum(1, keepdims=True)).astype(np.float32)
    return ClassSimilarity(matrix, np.full(classes, 100))


def test_classes_that_are_taken_for_each_other_stand_side_by_side() -> None:
    shuffled = np.random.default_rng(0).permutation(12)
    matrix = similarity(12).matrix[np.ix_(shuffled, shuffled)]
    places = [int(shuffled[k]) for k in similar_order(matrix)]
    assert places in (list(range(12)), list(range(11, -1, -1)))


def test_classes_without_images_come_last() -> None:
    matrix = similarity(5).matrix.copy()
    matrix[1] = np.nan
    assert similar_order(matrix)[-1] == 1
    assert sorted(similar_order(matrix)) == list(range(5))
    assert similar_order(np.full((3, 3), np.nan)) == [0, 1, 2]


@pytest.mark.parametrize("classes", [3, 61, 200])
def test_any_number_of_classes_is_drawn_in_a_small_file(classes: int) -> None:
    names = ["$x^$ <b>", "雪 \n \ud800 \u202e", "n" * 500, "", *map(str, range(classes))][:classes]
    found = similarity(classes)
    found.images[0] = 3
    content = similarity_picture(found, names, 4.0)
    width, height = Image.open(io.BytesIO(content)).size
    assert max(width, height) <= 1400
    assert len(content) < 150_000


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_matrix_that_says_nothing_is_drawn_too(value: float) -> None:
    empty = ClassSimilarity(np.full((3, 3), value, np.float32), np.zeros(3, int))
    assert similarity_picture(empty, ("a", "b", "c"), 1.0).startswith(b"\x89PNG")


@pytest.mark.parametrize(("students", "epochs"), [(1, 1), (3, 40), (20, 5), (1, 0)])
def test_students_curves_are_drawn(students: int, epochs: int) -> None:
    curve = {"loss": [1.0 + e for e in range(epochs)], "accuracy": [0.5] * epochs}
    rows = [Student("d", "search", i, "n", 0.5, curve, 1.0, "") for i in range(students)]
    assert len(curves_picture(rows)) < 50_000
