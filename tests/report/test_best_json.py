"""What programs are told of a confirmation, of every claim, by studies that were written and not trained."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from tiny_study import tiny_config

from benchmarks.large_study import large_config, write_large_study
from sweetspot.config import StudyConfig
from sweetspot.report.arms import arm_summaries
from sweetspot.report.figures.catalogue import FIGURES
from sweetspot.report.page.contents import read_report
from sweetspot.report.page.evidence import confirmation
from sweetspot.report.page.numbers import numbers
from sweetspot.report.result import StudyResult, read_result
from sweetspot.report.sentences import economy, finalists, further
from sweetspot.store import ExternalTeacher, Store
from sweetspot.study.arms import ACCURATE, ACCURATE_T, ALONE, ARMS, BEST, BEST_T, ECONOMY, LONGEST, SMOOTHED
from sweetspot.study.search import load
from sweetspot.study.verdict import Economy
from sweetspot.workers.export import chosen_student

Write = Callable[..., StudyResult]


def config_of(**confirm: Any) -> StudyConfig:
    """Of every arm, without a temperature that is searched."""
    config = large_config(60)
    search = config.search.model_copy(
        update={"student": config.search.student.model_copy(update={"temperature": None})}
    )
    changed = config.confirm.model_copy(update=confirm)
    return config.model_copy(update={"search": search, "confirm": changed})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


@pytest.fixture
def write(store: Store) -> Write:
    def write(confirmed: bool = True, **confirm: Any) -> StudyResult:
        write_large_study(store, "s", trials=60, config=config_of(**confirm), confirmed=confirmed)
        return read_result(store, "s")

    return write


def test_every_arm_is_told_with_what_was_chosen_for_it(write: Write) -> None:
    answer = write().to_dict()
    baselines = answer["baselines"]
    assert list(baselines) == list(ARMS[1:])
    assert baselines[SMOOTHED]["amount"] == 0.05
    assert baselines[BEST_T]["temperature"] == baselines[ACCURATE_T]["temperature"] == 2.0
    assert {"amount", "temperature"}.isdisjoint(baselines[ACCURATE])
    assert {"batch_size", "epochs"}.isdisjoint(baselines[ALONE])
    assert list(answer["gain"]) == [f"over_{arm}" for arm in ARMS[1:]]
    assert all(gain["low"] <= gain["mean"] <= gain["high"] for gain in answer["gain"].values())
    at_own = baselines[BEST_T]["mean"] - baselines[ACCURATE_T]["mean"]
    assert answer["gain"][f"over_{ACCURATE_T}"]["mean"] == pytest.approx(at_own)
    assert answer["pairing_correlation"].keys() <= set(ARMS[1:])
    assert all(-1 <= value <= 1 for value in answer["pairing_correlation"].values())
    assert (answer["claim"], answer["look"], answer["test_looks"]) == ("this teacher", 1, 1)
    assert (answer["teachers"], answer["seeds"]) == (0, 5)
    assert answer["verdict"].startswith(answer["verdict_kind"])
    assert (answer["left_out"], answer["failed_arms"], answer["stale"]) == ([], {}, False)
    assert {"finalists", "lr_check"}.isdisjoint(answer)


def test_before_a_confirmation_the_keys_are_there_and_the_economy_is_the_rankings(write: Write) -> None:
    result = write(confirmed=False)
    answer = result.to_dict()
    for key in ("claim", "verdict_kind", "look", "confirmed", "test_accuracy"):
        assert answer[key] is None
    assert set(answer["baselines"].values()) == set(answer["gain"].values()) == {None}
    assert answer["test_looks"] == 0
    told, best = answer["economy"], result.best
    assert best is not None
    assert (told["test_accuracy"], told["confirmed"]) == (None, None)
    (cheap,) = [
        r for r in result.ranked if (r.point.batch_size, r.point.epochs) == (told["batch_size"], told["epochs"])
    ]
    assert best.shrunken - cheap.shrunken <= result.config.confirm.margin
    assert told["accuracy"]["mean"] == pytest.approx(sum(cheap.accuracies) / 3)
    as_good = [r for r in result.ranked if best.shrunken - r.shrunken <= 0.005 and not r.is_under_trained]
    assert cheap.point.epochs == min(r.point.epochs for r in as_good), "an epoch takes as long at every batch size here"
    assert told["cost_ratio"] == pytest.approx(cheap.point.epochs / best.point.epochs)
    assert (economy(result) or "").startswith("As good so far, at ")


def test_a_best_point_that_is_the_cheapest_is_its_own_economy(write: Write) -> None:
    result = write(margin=0.0)
    told, answer = result.to_dict()["economy"], result.to_dict()
    assert (told["batch_size"], told["epochs"]) == (answer["batch_size"], answer["epochs"])
    assert (told["accuracy"], told["test_accuracy"]) == (answer["accuracy"], answer["test_accuracy"])
    assert (told["cost_ratio"], told["confirmed"]) == (1.0, None)
    assert (economy(result) or "").startswith("No cheaper teacher was found")


@pytest.mark.parametrize(
    ("confirmed", "words"),
    [(True, "As good, at "), (None, "Perhaps as good, at "), (False, "Cheaper, at ")],
)
def test_the_economy_is_what_the_confirmation_found(write: Write, confirmed: bool | None, words: str) -> None:
    result = write()
    assert result.confirmation is not None
    assert result.to_dict()["economy"]["test_accuracy"]["mean"] == pytest.approx(
        sum(result.confirmation.accuracies[ECONOMY]) / 5
    )
    changed = replace(result.confirmation, economy=Economy(confirmed, "so"))
    result = replace(result, confirmation=changed)
    assert result.to_dict()["economy"]["confirmed"] is confirmed
    assert (economy(result) or "").startswith(words)
    assert economy(result) in further(result)


def test_a_claim_about_the_point_counts_teachers(write: Write, store: Store) -> None:
    result = write(teachers=5, seeds=2)
    answer = result.to_dict()
    assert (answer["claim"], answer["teachers"], answer["seeds"]) == ("this point", 5, 2)
    assert answer["test_accuracy"]["replicates"] == 10
    assert answer["verdict_kind"] != "confirmed for this teacher"
    assert "fresh teachers of the point (5 x 2 students)" in answer["verdict"]
    assert result.best is not None
    exported = chosen_student(store, result, result.best)
    assert exported.purpose == "search", "the teacher that is exported has taught none of the fresh ones"
    figure = FIGURES["confirm"](result)
    assert "5 fresh teachers x 2 students each. It is about the point" in figure.subtitle[0]
    assert "5 fresh teachers x 2 students each" in " ".join(confirmation(read_report(store, "s")))


def test_what_is_left_out_is_named_and_has_no_numbers(write: Write) -> None:
    answer = write(arms=("student_alone", "most_accurate_teacher")).to_dict()
    assert answer["left_out"] == ["label_smoothing", "temperature", "longest_teacher", "economy"]
    assert {arm for arm, told in answer["baselines"].items() if told} == {ALONE, ACCURATE}
    assert "Left out: " in answer["verdict"]
    assert answer["economy"]["test_accuracy"] is None
    assert answer["economy"]["accuracy"]["split"] == "validation"


def test_several_finalists_are_told_each_with_its_verdict(write: Write) -> None:
    result = write(finalists=3)
    found = result.to_dict()["finalists"]
    assert [each["arm"] for each in found] == [BEST, "finalist_2", "finalist_3"]
    assert result.confirmation is not None
    assert [each["verdict"] for each in found] == [v.words for v in result.confirmation.verdicts]
    places = [(each["batch_size"], each["epochs"]) for each in found]
    assert places == [(r.point.batch_size, r.point.epochs) for r in result.ranked[:3]]
    assert "finalist_2" not in result.to_dict()["baselines"]
    second, third = finalists(result)
    assert second.startswith(f"Finalist 2 ({result.ranked[1].point}): ")
    assert third.startswith(f"Finalist 3 ({result.ranked[2].point}): ")


def test_the_check_of_the_learning_rate_is_told_where_it_was_asked_for(write: Write) -> None:
    result = write(lr_check=True)
    told = result.to_dict()["lr_check"]
    assert result.best is not None
    assert told["batch_sizes"][0] == result.best.point.batch_size
    assert [each["factor"] for each in told["accuracies"]] == [0.5, 1.0, 2.0]
    assert [each["best"] for each in told["accuracies"] if each["factor"] != 1] == pytest.approx([0.7, 0.7])
    (said,) = [text for text in further(result) if text.startswith("Batch ")]
    assert "at half the learning rate 70.00 % against 70.00 %" in said
    assert said.endswith("which is ahead depends on the learning rate.")


def test_a_study_that_has_gone_on_and_would_compare_otherwise_is_stale(write: Write, store: Store) -> None:
    before = write()
    assert not before.is_stale
    assert before.confirmation is not None
    store.external_teachers.add(ExternalTeacher("a" * 64, before.record.data_hash, "convnet", "mine", 9))
    after = read_result(store, "s")
    answer = after.to_dict()
    assert (answer["stale"], answer["confirmed"], answer["economy"]["confirmed"]) == (True, None, None)
    assert answer["verdict"].startswith("out of date: ")
    assert answer["verdict"].endswith(before.verdict)
    assert answer["test_accuracy"] == before.to_dict()["test_accuracy"], "what was found is still told"
    assert numbers(read_report(store, "s"))["answer"]["standing"] == "not confirmed"


def test_looks_of_other_studies_on_the_data_count_without_a_confirmation(write: Write, store: Store) -> None:
    result = write(confirmed=False)
    store.studies.add("grid", result.config, result.record.data_hash)
    store.studies.add("elsewhere", result.config, "e" * 64)
    for name in ("grid", "grid", "elsewhere"):
        store.studies.count_test_look(name)
    assert read_result(store, "s").to_dict()["test_looks"] == 2


def test_a_confirmation_that_is_not_complete_is_said_to_go_on(write: Write, store: Store) -> None:
    result = write()
    assert result.plan is not None
    seeds = replace(result.plan, seeds=6)
    load(store, "s/confirm").set_user_attr("plan", seeds.to_json())
    said = read_result(store, "s").verdict
    assert said == "not confirmed yet: a confirmation was begun and is not complete; the same command goes on with it"


def test_a_confirmation_of_an_earlier_version_is_said_to_be(write: Write, store: Store) -> None:
    write()
    load(store, "s/confirm").set_user_attr("plan", '{"arms": []}')
    result = read_result(store, "s")
    assert (result.plan, result.confirmed, result.to_dict()["claim"]) == (None, None, None)
    assert result.verdict == (
        "not confirmed: the confirmation was made by an earlier version; the same command makes another"
    )
    left_out = result.config.model_copy(update={"confirm": result.config.confirm.model_copy(update={"seeds": 0})})
    store.studies.set_config("s", left_out)
    assert read_result(store, "s").verdict.startswith("not confirmed: the confirmation was left out")


def test_a_trial_that_comes_after_a_confirmation_makes_it_stale_only_if_it_changes_the_arms(
    write: Write, store: Store
) -> None:
    result = write()
    seen = next(t for t in result.trials if t.state == TrialState.COMPLETE and t.params["epochs"] > 50)
    load(store, "s").add_trial(of_now(seen))
    again = read_result(store, "s")
    assert len(again.trials) == 61
    assert not again.is_stale


def of_now(trial: Any) -> Any:
    made = copy.copy(trial)
    made.datetime_start = made.datetime_complete = datetime.now()
    return made


def test_an_arm_that_is_another_one_says_so(write: Write) -> None:
    result = write()
    confirmed = result.confirmation
    assert confirmed is not None
    arms = dict(confirmed.plan.arms)
    arms |= {LONGEST: arms[BEST], ECONOMY: arms[ACCURATE], ACCURATE_T: arms[ACCURATE]}
    changed = replace(confirmed, plan=replace(confirmed.plan, arms=arms))
    told = {each.arm: each for each in arm_summaries(result.config, changed)}
    assert (told[LONGEST].same_as, told[LONGEST].gain) == (BEST, None)
    assert (told[ECONOMY].same_as, told[BEST_T].same_as) == (ACCURATE, None)
    assert told[ACCURATE_T].same_as is None, (
        "the same students, but the gain is of the best point at its own temperature"
    )
    answer = replace(result, confirmation=changed).to_dict()
    assert answer["gain"][f"over_{LONGEST}"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert answer["baselines"][ECONOMY]["same_as"] == ACCURATE


def test_a_report_of_a_study_without_a_trial_has_the_same_keys(store: Store) -> None:
    write_large_study(store, "s", trials=60, config=config_of())
    write_large_study(store, "empty", trials=0, config=tiny_config(), confirmed=False)
    assert numbers(read_report(store, "empty")).keys() == numbers(read_report(store, "s")).keys()
