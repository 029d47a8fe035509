"""The figures of a study: what stands in them, drawn as pictures and as pages, for small studies and for large ones."""

import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TypeVar, get_args
from xml.etree import ElementTree

import numpy as np
import pytest
from optuna.trial import TrialState
from PIL import Image
from tiny_study import tiny_config

from benchmarks.large_study import large_config, write_large_study
from sweetspot.config import ConfirmArm, SimilarityEntropyRule
from sweetspot.report.arms import arm_summaries
from sweetspot.report.figures.catalogue import FIGURES
from sweetspot.report.figures.matplotlib import picture, svg_file
from sweetspot.report.figures.plotly import page, plotly_figure, plotly_json, plotly_values
from sweetspot.report.figures.scheme import DARK, LIGHT, on_map, text_on, variables
from sweetspot.report.figures.spec import (
    Band,
    Cells,
    ColourScale,
    Figure,
    Intervals,
    Line,
    NothingToShow,
    Points,
    Region,
    Rule,
)
from sweetspot.report.figures.steps import explained
from sweetspot.report.result import StudyResult, read_result
from sweetspot.store import Store
from sweetspot.study.pruner import SIMILARITY_ENTROPY, LearnedRule, lessons_of
from sweetspot.study.search import Counts

T = TypeVar("T")
NAMES = list(FIGURES)
SMALL = tiny_config(
    search__batch_size=[64, 128, 256],
    search__epochs=[1, 3, 10, 30, 100],
    search__trials=60,
    search__min_steps=1000,
    pruner={"name": "similarity-entropy", "margin": 0.0},
    student__replicates={"min": 3, "max": 3},
    confirm__seeds=5,
    confirm__arms=list(get_args(ConfirmArm)),
)
MARKUP = "a <b>bold</b> study of $x^2$ & more"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """Of sixty trials of every kind, with a confirmation."""
    with Store(f"sqlite:///{tmp_path_factory.mktemp('small')}/study.db") as store:
        write_large_study(store, MARKUP, trials=60, config=SMALL)
        return read_result(store, MARKUP, with_curves=True)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """Of two thousand trials that search the temperature, too."""
    with Store(f"sqlite:///{tmp_path_factory.mktemp('large')}/study.db") as store:
        write_large_study(store, "large", config=large_config())
        return read_result(store, "large", with_curves=True)


def layers(figure: Figure, kind: type[T]) -> list[T]:
    return [layer for panel in figure.panels for layer in panel.layers if isinstance(layer, kind)]


def empty(result: StudyResult) -> StudyResult:
    return replace(result, trials=(), ranked=(), confirmation=None, curves=(), confirming=())


# -- drawn ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn_for_browsers_and_for_pages(small: StudyResult, name: str) -> None:
    figure = FIGURES[name](small)
    assert MARKUP in figure.title
    assert "convnet → mlp" in figure.title
    values = json.loads(plotly_figure(figure).to_json())
    assert "<b>bold</b>" not in values["layout"]["title"]["text"]
    assert "&lt;b&gt;bold&lt;/b&gt;" in values["layout"]["title"]["text"]
    drawing = picture(figure, "svg").decode()
    root = ElementTree.fromstring(drawing)
    assert root.get("aria-label") == figure.title
    assert "<b>" not in drawing
    names = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(each is not None and each.startswith(f"{figure.name}-") for each in names)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_without_plotly_is_what_plotly_would_write(small: StudyResult, name: str) -> None:
    """Its own objects check every key and value."""
    figure = FIGURES[name](small)
    text = plotly_json(plotly_values(figure))
    assert json.loads(text) == json.loads(plotly_figure(figure).to_json())
    assert not set("<>/") & set(text)


def test_drawings_for_pages_take_every_colour_of_theirs_from_the_page(small: StudyResult) -> None:
    drawing = picture(FIGURES["steps"](small), "svg").decode()
    assert "#01f" not in drawing  # no placeholder is left
    used = dict(re.findall(r"var\((--[a-z0-9-]+), (#[0-9a-f]{6})\)", drawing))
    assert {"--ink", "--muted", "--grid", "--accent", "--map-0", "--map-20"} <= used.keys()
    assert used.items() <= variables(LIGHT).items()
    assert variables(DARK).keys() == variables(LIGHT).keys()


def test_drawings_for_files_have_plain_colours_on_white(small: StudyResult) -> None:
    drawing = svg_file(FIGURES["map"](small)).decode()
    assert drawing.startswith("<?xml")
    assert "var(" not in drawing
    ElementTree.fromstring(drawing)


@pytest.mark.parametrize("name", ["map", "entropy"])
def test_pictures_decode(small: StudyResult, name: str) -> None:
    with Image.open(io.BytesIO(picture(FIGURES[name](small), "png"))) as image:
        image.load()
        assert (image.format, image.width) == ("PNG", 1800)
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))


def test_a_page_asks_nothing_of_the_network_and_has_both_schemes(small: StudyResult) -> None:
    text = page(FIGURES["map"](small))
    tags = Tags()
    tags.feed(text)
    assert [attributes for _, attributes in tags.all if {"src", "href"} & attributes.keys()] == []
    assert "b" not in {tag for tag, _ in tags.all}
    (policy,) = (a["content"] for tag, a in tags.all if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    start = text.index("const figures = ") + len("const figures = ")
    figures, _ = json.JSONDecoder().raw_decode(text, start)
    pages = {name: figure["layout"]["paper_bgcolor"] for name, figure in figures.items()}
    assert pages == {"light": LIGHT.page, "dark": DARK.page}


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_of_two_thousand_trials_is_small(large: StudyResult, name: str) -> None:
    assert len(plotly_figure(FIGURES[name](large)).to_json().encode()) < 200_000


@pytest.mark.parametrize("name", NAMES)
def test_a_study_that_has_just_begun_has_nothing_to_show(small: StudyResult, name: str) -> None:
    with pytest.raises(NothingToShow, match="study 'a <b>bold"):
        FIGURES[name](empty(small))


@pytest.mark.parametrize("name", NAMES)
def test_a_study_whose_trials_all_came_to_nothing(small: StudyResult, name: str) -> None:
    trials = tuple(t for t in small.trials if t.state != TrialState.COMPLETE)
    failed = replace(small, trials=trials, ranked=(), confirmation=None, curves=(), confirming=())
    if name in ("map", "cost"):
        assert plotly_figure(FIGURES[name](failed)).to_json()
        assert picture(FIGURES[name](failed), "svg")
    else:
        with pytest.raises(NothingToShow):
            FIGURES[name](failed)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "confirm"])
def test_one_point_of_one_student_can_be_drawn(small: StudyResult, name: str) -> None:
    first = next(t for t in small.trials if t.state == TrialState.COMPLETE)
    ranked = next(r for r in small.ranked if r.point.params == first.params)
    one = replace(
        small, trials=(first,), ranked=(replace(ranked, students=ranked.students[:1]),), confirmation=None, curves=(),
        confirming=(),
    )  # fmt: skip
    figure = FIGURES[name](one)
    assert plotly_figure(figure).to_json()
    assert picture(figure, "svg")


# -- colours --------------------------------------------------------------------------------------------------------


def test_the_map_of_colours_goes_from_dark_to_light() -> None:
    greys = [sum(int(on_map(i / 20)[j : j + 2], 16) * w for j, w in ((1, 0.3), (3, 0.6), (5, 0.1))) for i in range(21)]
    assert greys == sorted(greys)
    assert (on_map(-1), on_map(2)) == ("#440154", "#fde725")
    assert (text_on(on_map(0)), text_on(on_map(1))) == ("#ffffff", "#000000")


def test_ticks_of_a_scale_are_round_and_its_low_end_stands_for_what_is_lower() -> None:
    scale = ColourScale("%", 56.07, 72.3, is_clipped=True)
    assert scale.ticks() == (56.07, 60, 65, 70)
    assert [scale.tick_label(tick) for tick in scale.ticks()] == ["≤ 56.07", "60", "65", "70"]


# -- the map --------------------------------------------------------------------------------------------------------


def test_the_map_has_a_cell_for_each_point_with_students(small: StudyResult) -> None:
    figure = FIGURES["map"](small)
    (cells,) = layers(figure, Cells)
    there = {
        (SMALL.search.ladder.index(p.point.epochs), SMALL.search.batch_size.index(p.point.batch_size)): p
        for p in small.points
    }
    drawn = dict(zip(zip(cells.x, cells.y, strict=True), zip(cells.values, cells.texts, strict=True), strict=True))
    assert drawn.keys() == {at for at, p in there.items() if p.mean is not None}
    for at, (value, text) in drawn.items():
        point = there[at]
        assert value == pytest.approx(100 * (point.mean or 0.0))
        assert point.uncertainty is not None
        assert text == f"{value:.2f}\n± {100 * point.uncertainty:.2f}\nn = {len(point.accuracies)}"


def test_the_map_marks_the_best_the_under_trained_and_what_has_no_students(small: StudyResult) -> None:
    marks = {layer.symbol: layer for layer in layers(FIGURES["map"](small), Points)}
    best = next(p for p in small.points if p.is_best)
    star = marks["star"]
    assert (round(star.x[0] - 0.385), round(star.y[0] - 0.4)) == (
        SMALL.search.ladder.index(best.point.epochs),
        SMALL.search.batch_size.index(best.point.batch_size),
    )
    states = {"x": "pruned", "triangle": "infeasible", "plus": "failed"}
    for symbol, state in states.items():
        reasons = [p.reason for p in small.points if p.state == state]
        if reasons:
            assert sum(f"{state}: {reason}" in text for reason in reasons for text in marks[symbol].hover) >= len(
                reasons
            )  # type: ignore[index]
    under = [p for p in small.points if p.is_under_trained and p.mean is not None]
    assert under
    assert len(marks["down"].x) == len(under)


@pytest.mark.parametrize(
    ("confirmed", "words"),
    [(True, "confirmed with fresh students"), (False, "decided against it"), (None, "is undecided")],
)
def test_the_map_says_whether_the_best_is_confirmed(small: StudyResult, confirmed: bool | None, words: str) -> None:
    assert small.confirmation is not None
    verdict = replace(small.confirmation.verdict, confirmed=confirmed)
    result = replace(small, confirmation=replace(small.confirmation, verdicts=(verdict,)))
    stale = FIGURES["map"](replace(result, is_stale=True))
    assert stale.legends[0].keys[0].label == "best point; its confirmation is out of date"
    assert words in FIGURES["map"](result).legends[0].keys[0].label
    alone = FIGURES["map"](replace(small, confirmation=None))
    assert alone.legends[0].keys[0].label == "best point so far, not confirmed"


def test_of_several_points_in_a_cell_the_map_shows_the_best(large: StudyResult) -> None:
    figure = FIGURES["map"](large)
    (cells,) = layers(figure, Cells)
    ladder, sizes = large.config.search.ladder, large.config.search.batch_size
    i = cells.values.index(max(cells.values))
    here = [
        p for p in large.points
        if (p.point.epochs, p.point.batch_size) == (ladder[int(cells.x[i])], sizes[int(cells.y[i])])
    ]  # fmt: skip
    assert cells.values[i] == pytest.approx(100 * max(p.mean or 0.0 for p in here), abs=0.3)
    assert cells.texts[i].endswith(f"of {len(here)}")
    assert f"the best of {len(here)} points here" in cells.hover[i]
    assert "student.temperature" in figure.subtitle[-1]


# -- entropy --------------------------------------------------------------------------------------------------------


def test_curves_are_those_of_the_store(small: StudyResult) -> None:
    figure = FIGURES["entropy"](small)
    assert [curve.batch_size for curve in small.curves] == [64, 128, 256]
    marks = [layer for layer in figure.panels[0].layers if isinstance(layer, Points)]
    for curve, layer in zip(small.curves, marks, strict=True):
        assert layer.x == tuple(p.epochs for p in curve.teachers)
        assert layer.y == tuple(p.similarity_entropy for p in curve.teachers)
    trunks = [layer for layer in figure.panels[1].layers if isinstance(layer, Line) and layer.is_faint]
    assert [len(layer.x) for layer in trunks] == [len(curve.trunk) for curve in small.curves]


def test_without_curves_the_trials_own_measures_stand_in(small: StudyResult) -> None:
    figure = FIGURES["entropy"](replace(small, curves=()))
    marks = [layer for layer in figure.panels[0].layers if isinstance(layer, Points)]
    there = {(p.point.batch_size, p.point.epochs) for p in small.points if p.teacher_accuracy is not None}
    assert sum(len(layer.x) for layer in marks) == len(there)


def test_what_would_be_pruned_is_what_the_pruner_would_prune(small: StudyResult) -> None:
    rule = small.config.pruner
    assert isinstance(rule, SimilarityEntropyRule)
    panel = FIGURES["entropy"](small).panels[-1]
    regions = [layer for layer in panel.layers if isinstance(layer, Region)]
    lessons = lessons_of(small.trials)
    learned = LearnedRule.of(lessons, (SIMILARITY_ENTROPY,))
    entropies = [lesson.measurements[SIMILARITY_ENTROPY] for lesson in lessons]
    for entropy in np.linspace(min(entropies), max(entropies), 57)[1:-1]:
        inside = any(region.low <= entropy <= region.high for region in regions)
        near = any(abs(entropy - end) < 0.02 for region in regions for end in (region.low, region.high))
        assert near or inside == (learned.chance([entropy], rule.margin) < rule.p)
    assert regions
    pruned = next(layer for layer in panel.layers if isinstance(layer, Points) and layer.symbol == "x")
    assert len(pruned.x) == sum("pruned_at" in t.user_attrs for t in small.trials)
    (band,) = (layer for layer in panel.layers if isinstance(layer, Band))
    assert all(low < high for low, high in zip(band.low, band.high, strict=True))


def test_before_the_pruner_has_learned_the_figure_says_so(small: StudyResult) -> None:
    some = tuple(t for t in small.trials if t.state == TrialState.COMPLETE)[:5]
    figure = FIGURES["entropy"](replace(small, trials=some))
    assert "the pruner learns from 6 completed trials on; 5 so far." in figure.subtitle[-1]
    assert layers(figure, Region) == []


# -- the others -----------------------------------------------------------------------------------------------------


def test_bars_are_the_points_intervals(small: StudyResult) -> None:
    points = {100 * (p.mean or 0.0): p for p in small.points if p.mean is not None}
    for name in ("tradeoff", "steps"):
        drawn = [(y, low, high) for layer in layers(FIGURES[name](small), Points)
                 for y, low, high in zip(layer.y, layer.low, layer.high, strict=False)]  # fmt: skip
        assert drawn
        for y, low, high in drawn:
            assert low == pytest.approx(100 * (points[y].low or math.nan))
            assert high == pytest.approx(100 * (points[y].high or math.nan))


def test_many_points_have_no_bars_and_few_words(large: StudyResult) -> None:
    for layer in layers(FIGURES["tradeoff"](large), Points):
        assert layer.low == ()
        assert all(len(text) < 20 for text in layer.hover)


def test_points_far_below_the_others_are_said_not_drawn(small: StudyResult) -> None:
    bad = replace(small.ranked[-1], students=tuple(replace(s, accuracy=0.1) for s in small.ranked[-1].students))
    figure = FIGURES["steps"](replace(small, ranked=(*small.ranked[:-1], bad)))
    assert "below the panel, down to 10.0 %." in figure.subtitle[-1]
    assert min(y for layer in layers(figure, Points) for y in layer.y) > 20


def test_too_few_steps_are_marked(small: StudyResult) -> None:
    (rule,) = layers(FIGURES["steps"](small), Rule)
    assert (rule.axis, rule.at) == ("x", 1000)


def test_what_steps_explain_and_what_batch_size_adds() -> None:
    rng = np.random.default_rng(0)
    sizes = np.tile([16.0, 64.0, 256.0], 8)
    counts = np.repeat(np.geomspace(100, 10_000, 8), 3)
    by_steps = 0.9 - 0.01 * (np.log(counts) - 8) ** 2 + rng.normal(0, 0.001, 24)
    found = explained(counts, sizes, by_steps)
    assert found is not None
    assert found.steps > 0.95
    assert not found.is_beyond_chance
    found = explained(counts, sizes, by_steps + 0.02 * np.log(sizes))
    assert found is not None
    assert found.batch_size > 0.2
    assert found.is_beyond_chance
    assert explained(counts[:9], sizes[:9], by_steps[:9]) is None
    assert explained(counts, np.full(24, 64.0), by_steps) is None


def test_sums_end_at_what_the_study_has_cost(small: StudyResult) -> None:
    asked, trained, students = (layer.y[-1] for layer in layers(FIGURES["cost"](small), Line))
    assert (asked, trained) == (small.cost.teacher_epochs_requested, small.cost.teacher_epochs_trained)
    assert students == small.cost.student_epochs
    ended = Counts.of(small.trials)
    assert layers(FIGURES["cost"](small), Rule)[0].at == ended.finished + ended.failed + 0.5


def test_the_confirmation_shows_each_arm_and_each_gain(small: StudyResult) -> None:
    confirmed = small.confirmation
    assert confirmed is not None
    figure = FIGURES["confirm"](small)
    arms, gains = ([layer for layer in panel.layers if isinstance(layer, Intervals)] for panel in figure.panels)
    shown = [each for each in reversed(arm_summaries(small.config, confirmed)) if each.same_as is None]
    assert [layer.x[0] for layer in arms] == pytest.approx([100 * confirmed.intervals[each.arm].mean for each in shown])
    assert [tick.label for tick in figure.panels[0].y.ticks] == [each.name for each in shown]
    there = [each.gain for each in shown if each.gain is not None]
    assert len(there) == len(shown) - 1
    assert [layer.low[0] for layer in gains] == pytest.approx([100 * gain.low for gain in there])
    assert "5 fresh students each. It is about this teacher" in figure.subtitle[0]
    assert "1 look" in figure.subtitle[-1]


def test_an_arm_that_is_another_one_is_told_and_not_drawn_twice(small: StudyResult) -> None:
    confirmed = small.confirmation
    assert confirmed is not None
    arms = dict(confirmed.plan.arms)
    arms |= {"longest_teacher": arms["best_point"], "label_smoothing": arms["student_alone"]}
    same = replace(small, confirmation=replace(confirmed, plan=replace(confirmed.plan, arms=arms)))
    figure = FIGURES["confirm"](same)
    assert "The best point is also the longest teacher" in " ".join(figure.subtitle)
    assert "No teacher is also the label smoothing" in " ".join(figure.subtitle)
    rows = len(set(arms.values()))
    assert len([layer for layer in figure.panels[0].layers if isinstance(layer, Intervals)]) == rows
    assert len([layer for layer in figure.panels[1].layers if isinstance(layer, Intervals)]) == rows - 1
    assert all("label smoothing" not in tick.label for tick in figure.panels[0].y.ticks)
