from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sweetspot.config import SearchConfig, StudyConfig
from sweetspot.store import Store, StudyRecord

CONFIG = StudyConfig(seed=7)
DATA = "d" * 64


def test_a_study_comes_back_as_it_was_recorded(store: Store, open_store: Callable[[], Store]) -> None:
    assert store.studies.add("digits", CONFIG, DATA)
    assert open_store().studies.get("digits") == StudyRecord("digits", CONFIG, DATA, ended=None, test_looks=0)
    assert store.studies.get("other") is None


def test_a_name_is_given_once_and_the_first_study_keeps_it(store: Store) -> None:
    assert store.studies.add("digits", CONFIG, DATA)
    assert not store.studies.add("digits", StudyConfig(seed=8), "e" * 64)
    assert store.studies.get("digits") == StudyRecord("digits", CONFIG, DATA, None, 0)


def test_of_many_workers_that_start_a_study_one_makes_it(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda store: store.studies.add("digits", CONFIG, DATA), stores))
    assert sorted(made) == [False, False, False, True]


def test_names_that_differ_in_case_are_two_studies(store: Store) -> None:
    assert store.studies.add("digits", CONFIG, DATA)
    assert store.studies.add("Digits", CONFIG, DATA)


def test_studies_are_listed_by_creation(store: Store) -> None:
    for name in ("zebra", "ant", "mole"):
        store.studies.add(name, CONFIG, DATA)
    assert [record.name for record in store.studies.all()] == ["zebra", "ant", "mole"]


def test_a_continued_study_stores_its_new_values(store: Store) -> None:
    store.studies.add("digits", CONFIG, DATA)
    store.studies.add("other", CONFIG, DATA)
    longer = CONFIG.model_copy(update={"search": SearchConfig(trials=80)})
    store.studies.set_config("digits", longer)
    assert [record.config for record in store.studies.all()] == [longer, CONFIG]


def test_a_search_that_ended_says_why_until_it_goes_on(store: Store) -> None:
    store.studies.add("digits", CONFIG, DATA)
    store.studies.set_ended("digits", "every point has been visited")
    assert [record.ended for record in store.studies.all()] == ["every point has been visited"]
    store.studies.set_ended("digits", None)
    assert [record.ended for record in store.studies.all()] == [None]


def test_looks_at_a_test_split_are_counted_over_all_studies_of_its_data(store: Store) -> None:
    for name, data in (("first", DATA), ("second", DATA), ("other data", "e" * 64)):
        store.studies.add(name, CONFIG, data)
    assert store.studies.count_test_look("first") == 1
    assert store.studies.count_test_look("second") == 2
    assert store.studies.count_test_look("other data") == 1
    assert store.studies.count_test_look("first") == 3
    assert [record.test_looks for record in store.studies.all()] == [2, 1, 1]


def test_a_test_split_remembers_the_looks_of_studies_that_were_deleted(store: Store) -> None:
    for name, data in (("first", DATA), ("second", DATA), ("other data", "f" * 64)):
        store.studies.add(name, CONFIG, data)
    for name in ("first", "first", "other data"):
        store.studies.count_test_look(name)
    for name in ("first", "second"):
        store.studies.delete(name)
    assert store.studies.test_looks(DATA) == 2
    store.studies.add("first", CONFIG, DATA)
    assert store.studies.count_test_look("first") == 3
    assert store.studies.test_looks("f" * 64) == 1


def test_looks_at_the_same_moment_are_all_counted(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    stores[0].studies.add("digits", CONFIG, DATA)
    with ThreadPoolExecutor(4) as threads:
        looks = list(threads.map(lambda store: store.studies.count_test_look("digits"), stores * 3))
    assert sorted(looks) == list(range(1, 13))


def test_a_deleted_study_is_gone_and_its_name_free(store: Store) -> None:
    store.studies.add("digits", CONFIG, DATA)
    store.studies.add("other", CONFIG, DATA)
    store.studies.delete("digits")
    store.studies.delete("digits")
    assert [record.name for record in store.studies.all()] == ["other"]
    assert store.studies.add("digits", CONFIG, DATA)
