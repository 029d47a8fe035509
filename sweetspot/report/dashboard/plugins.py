"""What of optuna-dashboard is done otherwise here, as bottle plugins."""

from collections.abc import Callable, Mapping
from typing import Any

from bottle import HTTPError, HTTPResponse

from sweetspot.report.dashboard.contents import FIGURE_NAMES, figure_id
from sweetspot.report.dashboard.storage import ServedStudies

_HEIGHTS = {"map": 560, "entropy": 760, "tradeoff": 620, "steps": 560, "cost": 720, "confirm": 520}
_FIGURE = '[id^="user-defined-plot:sweetspot-"]'
_STYLE = (
    f".MuiGrid-root:has(> .MuiCard-root > .MuiCardContent-root > {_FIGURE})"
    "{flex-basis: 100%; max-width: 100%; padding: 16px 0 0 16px}"
    + "".join(
        f'[id="user-defined-plot:{figure_id(name)}"]{{height: {height}px !important}}'
        for name, height in _HEIGHTS.items()
    )
)


class NoRenaming:
    """Studies keep their names: optuna-dashboard copies and deletes, and the networks go with what is deleted."""

    name = "no-renaming"
    api = 2

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        return _refuse_renaming if route.rule.endswith("/rename") else callback


class WideFigures:
    """Our figures across the page, and high enough: optuna-dashboard makes them half as wide, and 450 high."""

    name = "wide-figures"
    api = 2

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        return _styled(callback) if route.rule.startswith("/dashboard") else callback


def _styled(callback: Callable[..., Any]) -> Callable[..., Any]:
    def styled(**arguments: Any) -> Any:
        page = callback(**arguments)
        if page.status_code != 200 or not hasattr(page.body, "read"):
            return page
        with page.body as file:
            body = file.read().replace(b"</head>", f"<style>{_STYLE}</style></head>".encode(), 1)
        headers = {name: page.headers[name] for name in ("Content-Type", "Content-Security-Policy")}
        return HTTPResponse(body, 200, headers)  # without the file's date and length, which are not this page's

    return styled


class Details:
    """What a study's page asks for: its figures in order, and the notes of its trials, which the storage leaves out.

    optuna-dashboard gives the figures in an order that changes with every start.
    """

    name = "details"
    api = 2

    def __init__(self, storage: ServedStudies) -> None:
        self._storage = storage

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        if (route.method, route.rule) != ("GET", "/api/studies/<study_id:int>"):
            return callback

        def detailed(study_id: int) -> Any:
            answer = callback(study_id=study_id)
            if isinstance(answer, dict) and "trials" in answer:
                self._complete(study_id, answer)
            return answer

        return detailed

    def _complete(self, study_id: int, answer: dict[str, Any]) -> None:
        answer["plotly_graph_objects"].sort(key=_place_of_figure)
        trials = [*answer["trials"], *answer["best_trials"]]
        notes = self._storage.trial_notes(study_id, {trial["trial_id"] for trial in trials})
        for trial in trials:
            trial["note"] = notes.get(trial["trial_id"], trial["note"])


def _place_of_figure(figure: Mapping[str, str]) -> tuple[int, str]:
    """Ours first, as they follow from each other; then those that people have added, by name."""
    ours = [figure_id(name) for name in FIGURE_NAMES]
    return ours.index(figure["id"]) if figure["id"] in ours else len(ours), figure["id"]


def _refuse_renaming(**arguments: Any) -> Any:
    raise HTTPError(403, "a study cannot be renamed: its workers and its networks know it by its name")
