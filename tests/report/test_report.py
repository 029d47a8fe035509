"""Reports: what they say of a study however it stands, as a page, as markdown and as numbers; names do nothing."""

import base64
import copy
import hashlib
import json
import math
import platform
import re
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from sqlalchemy.engine import make_url
from tiny_study import tiny_config

from benchmarks.large_study import CLASSES, large_config, write_large_study
from sweetspot.config import StudyConfig
from sweetspot.report.notes import study_note
from sweetspot.report.page import evidence, spending
from sweetspot.report.page.answer import answer as answer_of
from sweetspot.report.page.contents import Report, read_report
from sweetspot.report.page.files import content, default_name
from sweetspot.report.page.html import page
from sweetspot.report.page.markdown import markdown
from sweetspot.report.page.method import how_found
from sweetspot.report.page.numbers import numbers
from sweetspot.report.page.provenance import repeating
from sweetspot.report.page.tables import points_table, text_map, trials_table
from sweetspot.report.page.toml import study_file
from sweetspot.report.sentences import headline
from sweetspot.store import ClassSimilarity, Store
from sweetspot.store.schema import ClassSimilarityRow
from sweetspot.study.arms import ACCURATE, ACCURATE_T, ALONE, ARMS, BEST, SMOOTHED
from sweetspot.study.comparisons import Comparisons
from sweetspot.study.inference import Interval
from sweetspot.study.space import Point
from sweetspot.study.verdict import verdict
from sweetspot.study.visit import recipe_at
from sweetspot.study_file import Draft, built_in

MARKUP = """<img src=x onerror="window.pwned=1"> '|` *a* _b_ [c](d) $e$ # & \\ {{ 7*7 }} ~~f~~"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path_factory.mktemp('report')}/study.db") as store:
        write_large_study(store, "done", trials=60)
        yield store


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Report:
    with Store(f"sqlite:///{tmp_path_factory.mktemp('report')}/study.db") as store:
        write_large_study(store, "open", trials=24, confirmed=False, config=large_config(100))
        return read_report(store, None)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Report:
    with Store(f"sqlite:///{tmp_path_factory.mktemp('report')}/study.db") as store:
        write_large_study(store, "empty", trials=0, confirmed=False, config=large_config(2000))
        return read_report(store, None)


@pytest.fixture(scope="module")
def done(store: Store) -> Report:
    return read_report(store, "done")


@pytest.fixture(scope="module")
def page_of_done(store: Store) -> str:
    return page(with_similarity(read_report(store, "done")))


def with_similarity(report: Report) -> Report:
    """Of ten classes, two of them alike, one without images."""
    matrix = np.full((10, 10), 0.01, np.float32)
    np.fill_diagonal(matrix, 0.9)
    matrix[2, 7], matrix[7, 2], matrix[4] = 0.3, 0.2, np.nan
    images = np.array([100, 100, 100, 100, 0, 100, 100, 30, 100, 100])
    return replace(report, similarity=ClassSimilarity(matrix, images))


def hostile(report: Report) -> Report:
    """With markup for every name that comes from outside."""
    result = report.result
    config = result.config.model_copy(
        update={
            "data": result.config.data.model_copy(update={"dataset": f"npz:folder/{MARKUP}"}),
            "teacher": result.config.teacher.model_copy(update={"model": MARKUP}),
        }
    )
    attrs = {"error": f"RuntimeError: {MARKUP}", "device": MARKUP, "worker": MARKUP}
    trials = tuple(t if t.number != 7 else _with_attributes(t, attrs) for t in result.trials)
    named = replace(
        result,
        record=replace(result.record, name=MARKUP, config=config, ended=MARKUP),
        classes=tuple(f"{MARKUP}\n{k}" for k in range(10)),
        trials=trials,
    )
    machine = f"{MARKUP}: Linux"
    return with_similarity(replace(report, result=named, machine=machine, builds=(MARKUP,)))


def _with_attributes(trial: Any, attrs: dict[str, Any]) -> Any:
    changed = copy.copy(trial)
    changed.user_attrs = trial.user_attrs | attrs
    return changed


# -- the answer -----------------------------------------------------------------------------------------------------


def interval(mean: float, half: float) -> Interval:
    return Interval(mean, half / 1.959964, math.inf)


VERDICTS = {
    "Confirmed for this teacher": ({ALONE: 0.03, ACCURATE: 0.02}, "confirmed"),
    "Undecided": ({ALONE: 0.03, ACCURATE: 0.001}, "undecided"),
    "Distillation does not help here": ({ALONE: -0.03, ACCURATE: 0.0}, "decided against"),
    "No better than the student with label smoothing": (
        {ALONE: 0.03, SMOOTHED: -0.02, ACCURATE: 0.02}, "decided against",
    ),
    "No better than the most accurate teacher": ({ALONE: 0.03, ACCURATE: -0.02}, "decided against"),
    "Temperature does it": ({ALONE: 0.03, ACCURATE: 0.02, ACCURATE_T: -0.02}, "decided against"),
    "The most accurate teacher is the best point": ({ALONE: 0.03}, "decided against"),
}  # fmt: skip


@pytest.mark.parametrize("lead", VERDICTS)
def test_the_answer_is_one_sentence_with_its_interval_whatever_the_verdict(done: Report, lead: str) -> None:
    means, standing = VERDICTS[lead]
    confirmed = done.result.confirmation
    assert confirmed is not None
    arms = dict(confirmed.plan.arms)
    gains = {arm: interval(mean, 0.005) for arm, mean in means.items()}
    same = frozenset({ACCURATE} - means.keys())
    if same:
        arms[ACCURATE] = arms[BEST]
    said = verdict(Comparisons("this teacher", gains, 0, 5, images=2000, margin=0.002, look=1, same=same))
    changed = replace(
        confirmed,
        plan=replace(confirmed.plan, arms=arms),
        intervals={**confirmed.intervals, BEST: interval(0.9412, 0.01)},
        gains={**confirmed.gains, **gains},
        verdicts=(said,),
    )
    answer = answer_of(replace(done, result=replace(done.result, confirmation=changed)))
    assert (answer.lead, answer.standing) == (lead, standing)
    assert "reach 94.12\u00a0% on the test split (95\u00a0% interval 93.1 to 95.1\u00a0%)" in answer.rest
    sign = "+" if means[ALONE] > 0 else "−"
    assert f"{sign}3.00 points (95\u00a0% interval" in answer.rest
    assert ("against the most accurate teacher" in answer.rest) == (not same)
    assert answer.sentence.count(". ") == 0
    assert answer.sentence.endswith(".")
    assert "not about the point in general" in " ".join(answer.remarks)


def test_the_answer_of_a_search_that_goes_on_is_the_best_so_far_with_its_interval(unfinished: Report) -> None:
    answer = answer_of(unfinished)
    assert answer.standing == "not confirmed"
    assert answer.lead == "Not confirmed yet"
    best = unfinished.best
    assert best is not None
    assert best.low is not None
    assert f"at {100 * (best.mean or 0):.2f}\u00a0% on the validation split" in answer.rest
    assert f"(95\u00a0% interval {100 * best.low:.1f} to" in answer.rest
    assert "partly luck" in answer.rest
    assert any(remark.startswith("The search is at 23 of 100 trials") for remark in answer.remarks)


def test_a_best_point_of_one_student_has_no_interval(unfinished: Report) -> None:
    ranked = [replace(r, students=r.students[:1], is_settled=False) for r in unfinished.result.ranked]
    answer = answer_of(replace(unfinished, result=replace(unfinished.result, ranked=tuple(ranked))))
    assert "(one student, and so no interval; chosen" in answer.rest
    assert "It has 1 student, and needs 3 before it can be called best." in answer.remarks


def test_before_a_trial_has_finished_there_is_no_answer_and_the_report_is_whole(empty: Report) -> None:
    answer = answer_of(empty)
    assert answer.sentence == "No answer yet: no trial has finished (0 of 2,000 trials: 0 complete, 0 pruned)."
    assert "There is no trial yet." in page(empty)
    assert "No point has been visited yet." in markdown(empty)


# -- the sections ---------------------------------------------------------------------------------------------------


def test_how_it_was_found_says_what_was_searched_and_what_epochs_mean(done: Report) -> None:
    facts = {fact.what: fact.text for fact in how_found(done)}
    assert facts["Searched"].startswith("batch size 16, 32, 64, 128, 256, 512; epochs geometric rungs 2, 3, 5,")
    assert facts["Searched"].endswith("the students' temperature 1 to 10.")
    assert facts["Epochs"].startswith("truncated: a teacher of so many epochs is a longer run stopped there.")
    assert "57 of 60 trials: 45 complete, 12 pruned, 3 failed. They have visited 60 points." in facts["Trials"]
    assert facts["Workers"] == "1 worker, on cuda:0"
    assert "45,000 training images" in facts["Data"]


def test_when_it_was_is_told_in_utc_wherever_it_is_read(done: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = copy.copy(done.result.trials[0])
    trial.datetime_start, trial.datetime_complete = datetime(2026, 7, 1, 23, 30), datetime(2026, 7, 2, 1, 45)
    report = replace(done, result=replace(done.result, trials=(trial,)))
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")  # five and a half hours before UTC: Optuna's times are local
        time.tzset()
        said = how_found(report)[-1].text
    time.tzset()
    assert said == "2026-07-01 18:00 to 2026-07-01 20:15 UTC (the search)"


def test_a_network_that_is_searched_is_told_of_the_point_and_of_the_study(done: Report) -> None:
    config = tiny_config(search__teacher={"model": ["resnet8", "convnet"]})
    best = done.result.ranked[0]
    ranked = (replace(best, point=Point(64, 2, (("teacher.model", "convnet"),))), *done.result.ranked[1:])
    searched = replace(done.result.record, config=config)
    report = replace(done, result=replace(done.result, record=searched, ranked=ranked))
    assert headline(report.result) == "done: resnet8 or convnet teaches mlp on digits"
    assert "students of the convnet teacher at" in answer_of(report).rest
    assert {fact.what: fact.text for fact in how_found(report)}["Teacher"].startswith("resnet8 or convnet; ")


def test_what_was_pruned_is_counted_alike_everywhere(done: Report) -> None:
    assert (done.result.pruned, done.result.infeasible) == (9, 3)
    assert done.result.pruned + done.result.infeasible == done.result.counts.pruned
    pruning = {"pruned": 9, "infeasible": 3}
    assert numbers(done)["pruning"].items() >= pruning.items()
    note = study_note(done.result, make_url("sqlite:////x.db"), "/x", datetime.now(UTC))
    for text in (" ".join(spending.pruned(done)), note):
        assert "9 trials of 57 were pruned on similarity entropy" in text
        assert "3 trials could not be run" in text


@pytest.mark.parametrize(
    ("name", "mean", "sharing"),
    [
        (
            "constant",
            "truncated: a teacher of so many epochs is a longer run stopped there.",
            "Shorter teachers lie on",
        ),
        ("wsd", "annealed: a teacher of so many epochs is a run whose schedule ends there.", "Runs of one batch size"),
        ("cosine", "annealed: a teacher of so many epochs is a run whose schedule ends there.", "Each length is a run"),
    ],
)
def test_what_epochs_mean_follows_from_the_schedule(done: Report, name: str, mean: str, sharing: str) -> None:
    config = tiny_config(teacher__schedule={"name": name}, search__epochs=[10, 20])
    changed = replace(done, result=replace(done.result, record=replace(done.result.record, config=config)))
    assert how_found(changed)[1].text.startswith(f"{mean} {sharing}")


def test_what_was_pruned_comes_with_the_observed_rate_of_false_prunes(done: Report, empty: Report) -> None:
    said = spending.pruned(done)
    assert said[0].startswith("9 trials of 57 were pruned on similarity entropy")
    assert re.search(
        r"Of 3 trials that the pruner would have stopped but let run, \d came within .* of \d+\u00a0%", said[1]
    )
    assert said[2:] == ["3 trials could not be run: the loss was not finite, or memory ran out.", "3 trials failed."]
    assert {point.state for point in spending.set_aside(done)} == {"pruned", "infeasible", "failed"}
    assert "is not known" in spending.pruned(empty)[1]


def test_classes_that_are_taken_for_each_other_are_named_and_small_ones_flagged(done: Report) -> None:
    said = evidence.likeness(with_similarity(done))
    assert f"most alike: {CLASSES[2]} and {CLASSES[7]} (25.00\u00a0%), " in said[0]
    assert said[1].endswith(f"images in this probe: {CLASSES[4]} (0), {CLASSES[7]} (30).")
    assert CLASSES[4] not in said[0]
    assert evidence.likeness(done) == []


def test_tables_have_every_point_and_trial_and_no_column_that_is_empty(done: Report) -> None:
    points, trials = points_table(done), trials_table(done)
    assert (len(points.rows), len(trials.rows)) == (60, 60)
    assert [row.mark for row in points.rows].index("best") == 0
    for table in (points, trials):
        assert all(len(row.cells) == len(table.columns) for row in table.rows)
        assert all(any(row.cells[i].text for row in table.rows) for i in range(len(table.columns)))
    assert len(text_map(done).rows) == 6


# -- the configuration ----------------------------------------------------------------------------------------------


FULL = tiny_config(
    data__dataset='npz:a "quoted"\\path = [',
    data__validation=0.25,
    teacher__optimizer={"name": "adamw", "lr": 1e-5},
    teacher__schedule={"name": "multistep", "milestones": [0.5, 0.75], "gamma": 0.1},
    search__student={"alpha": {"low": 0.1, "high": 1.0, "log": True}},
    search__teacher={"model": ["resnet20", "a,b"]},
    pruner={"name": "similarity-entropy", "low": 0.1, "high": 2.0},
)


@pytest.mark.parametrize("config", [*(Draft.read(path).config() for path in built_in().values()), FULL])
def test_the_configuration_repeats_the_study(config: StudyConfig, tmp_path: Path) -> None:
    file = tmp_path / "again.toml"
    file.write_text(study_file(config), encoding="utf-8")
    again = Draft.read(file).config()
    assert again == config
    assert again.identity() == config.identity()


def test_a_report_tells_neither_a_path_nor_a_host_and_its_configuration_is_the_same_study(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "node", lambda: "secret-host")
    done = read_report(store, "done")
    config = tiny_config(data__dataset="npz:/home/ann/secret/birds.npz")
    report = replace(done, result=replace(done.result, record=replace(done.result.record, config=config)))
    for text in (page(report), markdown(report), json.dumps(numbers(report))):
        assert "npz:birds.npz" in text
        assert "secret" not in text
    assert "run it where birds.npz is, or add --dataset npz:PATH." in page(report)
    again = Draft("again.toml", tomllib.loads(numbers(report)["config_toml"])).config()
    assert again.identity() == config.identity()
    assert "PATH" not in page(done)


def test_the_command_that_repeats_it_quotes_what_a_shell_would_read(done: Report) -> None:
    assert repeating(done) == "sweetspot optimize --study done.toml"
    named = replace(done, result=replace(done.result, record=replace(done.result.record, name="a; rm -rf ~")))
    assert repeating(named) == "sweetspot optimize --study a-rm-rf.toml --name 'a; rm -rf ~'"
    assert default_name(named) == "a-rm-rf-report.html"


# -- the page -------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.data.append(data)


def test_a_page_is_one_file_whose_one_script_is_allowed_by_its_hash(page_of_done: str) -> None:
    text = page_of_done
    tags = Tags(text)
    links = [v for _, attrs in tags.all for k, v in attrs.items() if k in ("src", "href", "xlink:href")]
    assert links
    assert all(link is not None and link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not re.search(r"url\((?!#)", text)
    (policy,) = (attrs["content"] for tag, attrs in tags.all if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert not any(name.startswith("on") for _, attrs in tags.all for name in attrs)


def test_ids_of_a_page_are_unique_and_its_links_lead_somewhere(page_of_done: str) -> None:
    tags = Tags(page_of_done).all
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"] for tag, attrs in tags if tag == "a"} <= {f"#{name}" for name in ids}


def test_names_with_markup_do_nothing_in_a_page(done: Report, page_of_done: str) -> None:
    harmless, bad = Tags(page_of_done), Tags(page(hostile(done)))
    count = [tag for tag, _ in bad.all if tag in ("img", "script")]
    assert sorted(count) == sorted(tag for tag, _ in harmless.all if tag in ("img", "script"))
    assert not any(name.startswith("on") for _, attrs in bad.all for name in attrs)
    assert any(MARKUP in data for data in bad.data)


# -- markdown -------------------------------------------------------------------------------------------------------


def rendered(text: str) -> Tags:
    return Tags(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))


def test_markdown_has_the_same_sections_and_whole_tables(done: Report) -> None:
    found = rendered(markdown(with_similarity(done)))
    kinds = [tag for tag, _ in found.all]
    assert kinds.count("h2") == 8
    assert kinds.count("table") == 5
    assert kinds.count("tr") == 5 + len(text_map(done).rows) + len(ARMS) + len(spending.set_aside(done)) + 60 + 60
    assert {"p", "ul", "strong", "pre"} <= set(kinds)


def test_names_with_markup_do_nothing_in_markdown(done: Report) -> None:
    harmless, bad = rendered(markdown(with_similarity(done))), rendered(markdown(hostile(done)))
    assert [tag for tag, _ in bad.all] == [tag for tag, _ in harmless.all]
    assert any(MARKUP in data for data in bad.data)


# -- numbers --------------------------------------------------------------------------------------------------------


def refuse(name: str) -> None:
    raise AssertionError(name)


def test_numbers_are_finite_and_a_superset_of_the_answer_for_programs(done: Report) -> None:
    found = json.loads(content(with_similarity(done), ".json"), parse_constant=refuse)
    assert found.items() >= json.loads(json.dumps(done.result.to_dict())).items()
    assert len(found["points"]) == len(found["all_trials"]) == 60
    assert (
        found["answer"]["accuracy"]["low"] < found["answer"]["accuracy"]["mean"] < found["answer"]["accuracy"]["high"]
    )
    assert list(found["arms"]) == list(ARMS)
    assert len(found["arms"][BEST]["accuracies"]) == 5
    assert found["class_similarity"]["matrix"][4] == [None] * 10
    assert found["class_similarity"]["alike"][0] == {"one": CLASSES[2], "other": CLASSES[7], "response": 0.25}
    assert found["pruning"] == {"pruned": 9, "infeasible": 3, "let_run": 3, "wrong": found["pruning"]["wrong"]}
    assert {curve["batch_size"] for curve in found["curves"]} == {16, 32, 64, 128, 256, 512}
    assert StudyConfig.model_validate(found["config"]) == done.result.config
    assert found["versions"].keys() >= {"sweetspot", "python", "torch", "optuna"}


def test_numbers_have_the_same_keys_however_a_study_stands(done: Report, unfinished: Report, empty: Report) -> None:
    keys = numbers(done).keys()
    # What is searched besides batch size and epochs is told of a best point alone.
    assert numbers(unfinished).keys() == keys
    assert numbers(empty).keys() == keys - {"parameters"}
    assert numbers(empty)["answer"]["accuracy"] is None


def test_the_store_is_asked_for_the_similarity_of_the_best_teacher(store: Store, done: Report) -> None:
    best = done.result.best
    assert best is not None
    recipe = recipe_at(done.result.config, done.result.record.data_hash, best.point)
    matrix = np.eye(3, dtype=np.float32)
    row = ClassSimilarityRow(
        recipe=recipe.hash, branch=0, epoch=best.point.epochs, temperature=4.0, classes=3,
        content=ClassSimilarity(matrix, np.array([5, 6, 7])).to_bytes(),
    )  # fmt: skip
    with store.database.session.begin() as session:
        session.add(row)
    again = read_report(store, "done")
    assert again.similarity is not None
    assert again.similarity.images.tolist() == [5, 6, 7]
    assert again.classes == tuple(CLASSES[:3])
    with store.database.session.begin() as session:
        session.delete(session.merge(row))
