"""Versions: of Python and of what the package requires, by its own metadata."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sweetspot.workers.doctor.check import Check, import_error

_PACKAGE = "sweetspot"
_SHOWN = ("torch", "torchvision", "optuna", "optuna-dashboard", "sqlalchemy", "numpy")
"""What has a line of its own; of the others one line says whether they fit."""

_ONE_INDEX = (
    "install both from one index, with one command: uv pip install --reinstall torch torchvision "
    "--torch-backend=auto, or uv sync --reinstall in a clone"
)


def python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    needed = metadata(_PACKAGE)["Requires-Python"]
    if platform.python_version() not in SpecifierSet(needed):
        return Check("python", "wrong", found, f"use Python {needed}")
    return Check("python", "ok", found)


def packages() -> Iterator[Check]:
    """Sweetspot itself, what it requires, and its extras."""
    try:
        yield Check(_PACKAGE, "ok", version(_PACKAGE))
        required = [Requirement(text) for text in requires(_PACKAGE) or []]
    except PackageNotFoundError:
        yield Check(_PACKAGE, "wrong", "not installed as a package", "install it: pip install sweetspot")
        return
    always = {
        each.name.lower(): each for each in required if each.marker is None or each.marker.evaluate({"extra": ""})
    }
    for name in _SHOWN:
        if name in always:
            yield _imported(name, always[name]) if name in ("torch", "torchvision") else _version(always[name])
    yield _others([each for name, each in always.items() if name not in _SHOWN])
    for extra in metadata(_PACKAGE).get_all("Provides-Extra") or []:
        of_extra = [each for each in required if each.marker and each.marker.evaluate({"extra": extra})]
        yield _extra(extra, [each for each in of_extra if each.name.lower() not in always])


def _installed(requirement: Requirement) -> str | None:
    try:
        return version(requirement.name)
    except PackageNotFoundError:
        return None


def _fits(requirement: Requirement, found: str) -> bool:
    return requirement.specifier.contains(found, prereleases=True)


def _version(requirement: Requirement) -> Check:
    found = _installed(requirement)
    if found is None:
        return Check(requirement.name, "wrong", "not installed", f"pip install '{_plain(requirement)}'")
    if not _fits(requirement, found):
        return Check(requirement.name, "wrong", found, f"pip install '{_plain(requirement)}'")
    return Check(requirement.name, "ok", found)


def _plain(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _others(requirements: list[Requirement]) -> Check:
    wrong = [check for check in map(_version, requirements) if check.state != "ok"]
    if wrong:
        found = ", ".join(f"{check.name} {check.found}" for check in wrong)
        missing = " ".join(f"'{_plain(each)}'" for each in requirements if each.name in {c.name for c in wrong})
        return Check("other packages", "wrong", found, f"pip install {missing}")
    return Check("other packages", "ok", f"{len(requirements)} others as required")


def _extra(extra: str, requirements: list[Requirement]) -> Check:
    name = f"extra {extra}"
    checks = [_version(each) for each in requirements]
    missing = [check.name for check in checks if check.found == "not installed"]
    if missing:  # which is as good: nobody needs it who does not ask for it
        return Check(name, "ok", f"not installed; wanted? in a clone: ./uvw sync --extra {extra}")
    if wrong := [check for check in checks if check.state == "wrong"]:
        return Check(name, "wrong", f"{wrong[0].name} {wrong[0].found}", wrong[0].advice)
    return Check(name, "ok", ", ".join(f"{check.name} {check.found}" for check in checks))


def _imported(name: str, requirement: Requirement) -> Check:
    """Torch and torchvision: builds of the right versions may not fit together, and cannot be imported then."""
    check = _version(requirement)
    if check.found == "not installed":
        return Check(name, "wrong", check.found, _ONE_INDEX)
    if (error := import_error(name)) is None:
        return Check(name, check.state, f"{check.found}{_build()}" if name == "torch" else check.found, check.advice)
    if name == "torchvision" and import_error("torch") is None:
        of_torch = version("torch")
        return Check(
            name,
            "wrong",
            f"{check.found} cannot be imported ({error})",
            f"it is no build for torch {of_torch}{_build()}: {_ONE_INDEX}",
        )
    if name == "torchvision":
        return Check(name, "wrong", f"{check.found} cannot be imported, for torch cannot", "see torch")
    return Check(name, "wrong", f"{check.found} cannot be imported ({error})", f"reinstall it: {_ONE_INDEX}")


def _build() -> str:
    """What a torch that can be imported was built for."""
    import torch

    if torch.version.hip:
        return f", for ROCm {torch.version.hip}"
    return f", for CUDA {torch.version.cuda}" if torch.version.cuda else ", for the CPU alone"
