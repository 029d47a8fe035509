"""From a study file and the command line's overrides to a StudyConfig, with errors that name file, key and value."""

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from sweetspot.config import StudyConfig
from sweetspot.errors import UserError, unknown_name

DEFAULT = "default"
"""The study file for data sets that have none of their own."""

_LONGEST = 300
"""Characters of a value that an error shows."""


def studies_folder() -> Path:
    """Where the built-in study files are: in the wheel inside the package, in a checkout beside it."""
    inside = Path(str(files("sweetspot"))) / "studies"
    return inside if inside.is_dir() else inside.parent.parent / "studies"


def built_in() -> dict[str, Path]:
    """The built-in study files by name."""
    return {path.stem: path for path in sorted(studies_folder().glob("*.toml"))}


def headline(path: Path) -> str:
    """The comment on the first line of a study file: what it is."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()


def find(study: str) -> Path:
    """The file of a built-in study, or the file of this path.

    Raises:
        UserError: if there is neither.
    """
    if study in (known := built_in()):
        return known[study]
    if study.endswith(".toml") or "/" in study:
        path = Path(study).expanduser()
        try:
            if path.is_file():
                return path
        except OSError as error:  # a folder that may not be entered, a name that is too long
            raise UserError(f"cannot read the study file {study}: {error.strerror}") from None
        raise UserError(f"there is no study file {study}; built in are {', '.join(known)}")
    raise unknown_name("study", study, known)


def is_study(text: str) -> bool:
    """Whether ``text`` names a study file rather than a data set."""
    return text.endswith(".toml") or text in built_in()


def draft_for(dataset: str | None, study: str | None) -> "Draft":
    """The study file of ``study``, of the data set, or the default one; its data set replaced by ``dataset``.

    Raises:
        UserError: if neither is given, or there is no such study.
    """
    known = built_in()
    if dataset is None and study in (None, DEFAULT):
        names = ", ".join(name for name in known if name != DEFAULT)
        raise UserError(
            f"what is the data? Give --dataset or --study; built in are {names}, "
            "or --dataset imagefolder:PATH or npz:PATH"
        )
    draft = Draft.read(known.get(dataset or "", known[DEFAULT]) if study is None else find(study))
    if dataset is not None:
        draft.set("data.dataset", dataset, "--dataset")
    return draft


def drafted(
    dataset: str | None, study: str | None, assignments: Iterable[str] | None, given: Mapping[str, tuple[str, Any]]
) -> "Draft":
    """The study that a command line asks for.

    Args:
        assignments: of ``--set``.
        given: an option's name and value (None: not given) by key.

    Raises:
        UserError: as :func:`draft_for` and :meth:`Draft.assign`.
    """
    draft = draft_for(dataset, study)
    for assignment in assignments or ():
        draft.assign(assignment)
    for key, (option, value) in given.items():
        if value is not None:
            draft.set(key, value, option)
    return draft


def default_name(dataset: str, study: str | None) -> str:
    """What a study is called that is given no name: after its file, or its data set's last component.

    Raises:
        UserError: if a data set's path has none.
    """
    if study is not None and study != DEFAULT:
        return Path(study).stem
    kind, colon, path = dataset.partition(":")
    if not colon:
        return kind
    last = Path(os.path.expanduser(path)).absolute().name.removesuffix(".npz") if path else ""
    if not last or last == "..":
        raise UserError(
            f"the data set {dataset!r} ends in no name to call the study after: name a file or a folder, or give --name"
        )
    return last


@dataclass
class Draft:
    """A study's values before they are validated, and where each came from.

    Attributes:
        origin: what an error about a value of the file names: the file's path.
    """

    origin: str
    values: dict[str, Any] = field(default_factory=dict)
    _overridden: dict[tuple[str, ...], str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Draft":
        """The values of a TOML file.

        Raises:
            UserError: if it cannot be read or is no TOML.
        """
        try:
            return cls(str(path), tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:  # of the syntax, the encoding, a number too long, a deep nesting
            raise UserError(f"{path} is not a TOML file: {error}") from None

    def set(self, key: str, value: Any, source: str) -> None:
        """Put ``value`` at a dotted key, replacing a whole table; ``source`` is what an error about it names."""
        path = tuple(key.split("."))
        if not all(path):
            raise UserError(f"{source}: {key!r} is no key; write it like teacher.optimizer.lr=0.1")
        table = self.values
        for i, part in enumerate(path[:-1]):
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UserError(f"{source}: {'.'.join(path[: i + 1])} is {json.dumps(inner)}, not a table")
            table = inner
        table[path[-1]] = value
        self._overridden.pop(path, None)  # the last one comes last
        self._overridden[path] = source

    def assign(self, assignment: str) -> None:
        """Apply one ``path=value`` of ``--set``; the value is TOML, or else a string."""
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set {assignment}: write it as path=value, like --set teacher.optimizer.lr=0.1")
        self.set(key.strip(), _toml_value(text.strip()), f"--set {key.strip()}")

    def overridden(self, key: str) -> bool:
        """Whether a value was given for ``key`` beside the file's, by itself or with its table."""
        path = tuple(key.split("."))
        return any(path[: len(given)] == given for given in self._overridden)

    def config(self) -> StudyConfig:
        """The validated configuration.

        Raises:
            UserError: names file (or option), key, value and what is allowed; suggests the nearest for a misspelt key.
        """
        try:
            return StudyConfig.model_validate_json(json.dumps(self.values, default=str), strict=True)
        except ValidationError as error:
            raise self._explained(error) from None
        except (ValueError, TypeError, RecursionError) as error:  # what TOML can say and JSON cannot
            raise UserError(f"{self._said()}: has a value that cannot be stored: {error}") from None

    def _explained(self, error: ValidationError) -> UserError:
        # A misspelt key comes first, for the other errors may only follow from it; then the one that looked deepest,
        # for of a union's members that is the one that was meant; then one whose value is at least of the right type.
        errors = sorted(
            error.errors(), key=lambda e: (e["type"] != "extra_forbidden", -len(e["loc"]), e["type"].endswith("_type"))
        )
        first = errors[0]
        if first["type"] == "json_invalid":  # half a character of UTF-16, or a deep nesting
            return UserError(f"{self._said()}: has a value that cannot be stored: {first['ctx']['error']}")
        if first["type"] == "extra_forbidden":
            return self._unknown_key(first["loc"])
        path, _ = _followed(first["loc"])
        found = _look_up(self.values, path)
        shown = f" = {_shortened(json.dumps(found, default=str))}" if found is not None else ""
        # Where no member of a union has the value's type, each says which type it wants.
        same = [e for e in errors if e["type"].endswith("_type") and len(e["loc"]) == len(first["loc"])]
        same = [e for e in same if _followed(e["loc"])[0] == path] if first in same else [first]
        allowed, *others = dict.fromkeys(map(_allowed, same))
        either = [allowed, *(other.removeprefix("must be ") for other in others)]
        return UserError(f"{self._origin_of(path)}: {'.'.join(path)}{shown}: {' or '.join(either)}")

    def _unknown_key(self, loc: tuple[int | str, ...]) -> UserError:
        *table, last = loc
        path, models = _followed(table)
        key = str(last)
        known = sorted({name for model in models for name in model.model_fields})
        near = get_close_matches(key, known, n=1, cutoff=0.6)
        hint = f"did you mean {'.'.join((*path, near[0]))}? " if near else ""
        where = f"in [{'.'.join(path)}]" if path else "at the top level"
        kind = _kind(models[0]) if len(models) == 1 else None
        of_kind = f' with name = "{kind}"' if kind else ""
        origin = self._origin_of((*path, key))
        return UserError(
            f"{origin}: unknown key {_shortened('.'.join((*path, key)))}: {hint}known {where}{of_kind} are "
            f"{', '.join(known)}"
        )

    def _origin_of(self, path: tuple[str, ...]) -> str:
        for overridden, source in reversed(self._overridden.items()):
            if path[: len(overridden)] == overridden or overridden[: len(path)] == path:
                return source
        return self.origin

    def _said(self) -> str:
        """Where all of the values come from."""
        return ", ".join((self.origin, *map(_shortened, self._overridden.values())))


def _toml_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text  # more keys: it had several lines


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _followed(loc: Iterable[int | str]) -> tuple[tuple[str, ...], list[type[BaseModel]]]:
    """The key of pydantic's location, and the tables that may be there.

    The location names the members of unions (a table's ``name``, or its class) and indices of lists; the key does not.
    """
    path: tuple[str, ...] = ()
    models: list[type[BaseModel]] = [StudyConfig]
    for part in loc:
        if isinstance(part, int):
            continue
        if fields := [model.model_fields[part] for model in models if part in model.model_fields]:
            path = (*path, part)
            models = [inner for each in fields for inner in _models_in(each)]
        else:
            models = [model for model in models if part == _kind(model) or model.__name__ in part]
    return path, models


def _kind(model: type[BaseModel]) -> Any:
    """The one ``name`` that such a table has; None where it may have several, or none."""
    names = get_args(model.model_fields["name"].annotation) if "name" in model.model_fields else ()
    return names[0] if len(names) == 1 else None


def _look_up(values: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return None
        values = values[part]
    return values


_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "missing": "must be given",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


def _allowed(error: Any) -> str:
    """What is allowed, in words, from pydantic's error."""
    if error["type"] == "union_tag_invalid":
        return f"unknown name {error['ctx']['tag']!r}, allowed are {error['ctx']['expected_tags']}"
    if error["type"] in _WORDS:
        return _WORDS[error["type"]]
    message: str = error["msg"]
    return message.removeprefix("Value error, ").replace("Input should be", "must be", 1)


def _models_in(annotated: Any) -> list[type[BaseModel]]:
    annotation = getattr(annotated, "annotation", annotated)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType) or hasattr(annotation, "__metadata__"):
        return [model for inner in get_args(annotation) for model in _models_in(inner)]
    return []
