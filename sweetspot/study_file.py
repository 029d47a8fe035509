"""From a study file and the command line's overrides to a StudyConfig, with errors that name file, key and value."""

import json
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
        if not path.is_file():
            raise UserError(f"there is no study file {study}; built in are {', '.join(known)}")
        return path
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
        raise UserError(f"what is the data? Give --dataset or --study; built in are {names}, or --dataset npz:PATH")
    draft = Draft.read(find(study)) if study else Draft.read(known.get(dataset or "", known[DEFAULT]))
    if dataset is not None:
        draft.set("data.dataset", dataset, "--dataset")
    return draft


def default_name(dataset: str, study: str | None) -> str:
    """What a study is called that is given no name: after its file, or its data set's last component."""
    if study is not None and study != DEFAULT:
        return Path(study).stem
    kind, colon, path = dataset.partition(":")
    return Path(path.rstrip("/")).stem if colon else kind


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
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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

    def _explained(self, error: ValidationError) -> UserError:
        # A misspelt key comes first, for the other errors may only follow from it; then the one that looked deepest,
        # for of a union's members that is the one that was meant.
        errors = sorted(error.errors(), key=lambda e: (e["type"] != "extra_forbidden", -len(e["loc"])))
        first = errors[0]
        path = _key_path(first["loc"])
        origin = self._origin_of(path)
        key = ".".join(path)
        if first["type"] == "extra_forbidden":
            known = _keys_at(path[:-1])
            near = get_close_matches(path[-1], known, n=1, cutoff=0.6)
            hint = f"did you mean {'.'.join((*path[:-1], near[0]))}? " if near else ""
            where = f"in [{'.'.join(path[:-1])}]" if path[:-1] else "at the top level"
            return UserError(f"{origin}: unknown key {key}: {hint}known {where} are {', '.join(sorted(known))}")
        found = _look_up(self.values, path)
        shown = f" = {json.dumps(found, default=str)}" if found is not None else ""
        # Where no member of a union has the value's type, each says which type it wants.
        same = [e for e in errors if first["type"].endswith("_type") and _key_path(e["loc"]) == path] or [first]
        return UserError(f"{origin}: {key}{shown}: {' or '.join(dict.fromkeys(map(_allowed, same)))}")

    def _origin_of(self, path: tuple[str, ...]) -> str:
        for overridden, source in self._overridden.items():
            if path[: len(overridden)] == overridden or overridden[: len(path)] == path:
                return source
        return self.origin


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _key_path(loc: Iterable[int | str]) -> tuple[str, ...]:
    """The dotted key of pydantic's location, without the names of union members and the indices of lists."""
    *inner, last = loc
    path: list[str] = []
    for part in inner:
        if part in _keys_at(tuple(path)):
            path.append(str(part))
    # The last part may be a key that is not known; a union's member, or an index, is none.
    known = _keys_at(tuple(path))
    if known and (last in known or not _is_member(last)):
        path.append(str(last))
    return tuple(path)


def _is_member(part: int | str) -> bool:
    return isinstance(part, int) or "[" in part or "-" in part or part in ("int", "float") or part[:1].isupper()


def _look_up(values: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return None
        values = values[part]
    return values


_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
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


def _keys_at(path: tuple[str, ...]) -> set[str]:
    """The keys that the table at ``path`` may have; none where there is no table."""
    models: list[type[BaseModel]] = [StudyConfig]
    for part in path:
        models = [m for model in models if part in model.model_fields for m in _models_in(model.model_fields[part])]
    return {name for model in models for name in model.model_fields}


def _models_in(annotated: Any) -> list[type[BaseModel]]:
    annotation = getattr(annotated, "annotation", annotated)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType) or hasattr(annotation, "__metadata__"):
        return [model for inner in get_args(annotation) for model in _models_in(inner)]
    return []
