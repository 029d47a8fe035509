"""Ways of training several students at once, against each other: a step's time, and whether it is the same student.

``python -m benchmarks.students [--cases NAME,NAME] [--students N,N] [--rounds N] [--device DEVICE] [--json FILE]``

- **loop**: one student's step after the other's: what the engine does;
- **stacked**: the students' parameters in one tensor with a dimension more, one forward and backward pass of all under
  ``torch.func.vmap``, one fused optimiser;
- **streams** (CUDA): the loop, each student in a CUDA stream of its own, without graphs.

One process, on a CPU with one thread, as a worker has it. Each student has its own images, which are on the device
already, and responses of a teacher. Milliseconds are per step and student: the median of the rounds, in which the ways
take turns, and the lowest and the highest. ``bit_equal``: whether the first student, after five steps, has exactly the
weights that it has when it is trained alone in the same way, so that what a replicate becomes does not depend on what
else runs; ``bit_equal_to_loop``: whether these are also the loop's.
"""

import argparse
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from benchmarks.arguments import Parser, count, errors_in_one_line
from benchmarks.evidence import evidence, write
from sweetspot.config import SGD, Precision, RunConfig
from sweetspot.models import build
from sweetspot.student.losses import Distillation
from sweetspot.training.device import describe, devices, prepare, resolve_precision
from sweetspot.training.engine import autocast
from sweetspot.training.optimizers import optimizer
from sweetspot.training.steps import Step, step_for

STUDENTS = (1, 2, 4)
ROUNDS = 9
_EQUAL_STEPS = 5
_WARM_STEPS = 2
_ROUND_SECONDS = 0.05
"""A round has as many steps as take about so long, at least one."""
_OPTIMIZER = SGD(lr=0.05)
_LOSS = Distillation(temperature=4.0, alpha=0.9)


def _loss(logits: Tensor, taught: Tensor, labels: Tensor) -> Tensor:
    return _LOSS(logits, taught, labels)["loss"]


@dataclass(frozen=True)
class Case:
    """A network and what it is trained on.

    Attributes:
        precision: "auto": the device's.
    """

    network: str
    batch_size: int
    channels: int
    image_size: int
    classes: int
    precision: Precision

    def students(self, count: int, device: torch.device) -> list[nn.Module]:
        """Freshly initialised; the first is the same for any number."""
        torch.manual_seed(0)
        made = [
            build(self.network, classes=self.classes, channels=self.channels, image_size=self.image_size)
            for _ in range(count)
        ]
        return [model.to(device, memory_format=torch.channels_last).train() for model in made]  # type: ignore[call-overload]

    def batches(self, count: int, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(images, the teacher's logits, labels) of each student; the first's are the same for any number."""
        generator = torch.Generator().manual_seed(1)
        made = []
        for _ in range(count):
            images = torch.randn(
                self.batch_size, self.channels, self.image_size, self.image_size, generator=generator
            ).to(device, memory_format=torch.channels_last)
            logits = torch.randn(self.batch_size, self.classes, generator=generator).to(device)
            labels = torch.randint(self.classes, (self.batch_size,), generator=generator).to(device)
            made.append((images, logits, labels))
        return made


CASES = {
    case.network: case
    for case in (
        Case("mlp", 32, 1, 8, 10, "float32"),
        Case("convnet-narrow", 32, 1, 8, 10, "float32"),
        Case("resnet8", 64, 3, 32, 100, "auto"),
        Case("resnet20", 64, 3, 32, 100, "auto"),
    )
}


class Way(ABC):
    """So many students while they train."""

    def __init__(self, case: Case, count: int, device: torch.device) -> None:
        self.count = count
        self.device = device
        self.precision = resolve_precision(case.precision, str(device))

    def run(self, steps: int) -> None:
        with autocast(self.device, self.precision):
            for _ in range(steps):
                self.step()
        self._finish()

    def seconds(self, steps: int) -> float:
        """That so many steps take."""
        began = time.perf_counter()
        self.run(steps)
        return time.perf_counter() - began

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @abstractmethod
    def step(self) -> None:
        """One step of each student."""

    @abstractmethod
    def first(self) -> dict[str, Tensor]:
        """The first student's parameters by name."""


class Loop(Way):
    """One after the other, each step as the engine takes it."""

    made: Callable[..., Step] = staticmethod(step_for)

    def __init__(self, case: Case, count: int, device: torch.device) -> None:
        super().__init__(case, count, device)
        self.models = case.students(count, device)
        self._batches = case.batches(count, device)
        self._steps = [self.made(model, optimizer(model, _OPTIMIZER), _loss) for model in self.models]

    def step(self) -> None:
        for index in range(self.count):
            self.step_of(index)

    def step_of(self, index: int) -> None:
        images, taught, labels = self._batches[index]
        self._steps[index](images, (taught, labels), _OPTIMIZER.lr)

    def first(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.models[0].named_parameters()}


class Streams(Loop):
    """Each in its own CUDA stream, launched operation by operation."""

    made = Step

    def __init__(self, case: Case, count: int, device: torch.device) -> None:
        super().__init__(case, count, device)
        self._streams = [torch.cuda.Stream(device) for _ in range(count)]

    def step(self) -> None:
        here = torch.cuda.current_stream(self.device)
        for index, stream in enumerate(self._streams):
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                self.step_of(index)
        for stream in self._streams:
            here.wait_stream(stream)


class Stacked(Way):
    """All in one pass, their parameters stacked."""

    def __init__(self, case: Case, count: int, device: torch.device) -> None:
        super().__init__(case, count, device)
        models = case.students(count, device)
        parameters, self._buffers = stack_module_state(models)
        self._parameters = {name: values.detach().requires_grad_() for name, values in parameters.items()}
        self._batch = tuple(torch.stack(each) for each in zip(*case.batches(count, device), strict=True))
        self._optimizer = torch.optim.SGD(
            list(self._parameters.values()),
            lr=_OPTIMIZER.lr,
            momentum=_OPTIMIZER.momentum,
            nesterov=_OPTIMIZER.nesterov,
            weight_decay=_OPTIMIZER.weight_decay,
            fused=True,
        )
        network = models[0]

        def respond(parameters: Any, buffers: Any, images: Tensor) -> Tensor:
            return functional_call(network, (parameters, buffers), (images,))  # type: ignore[no-any-return]

        self._respond = vmap(respond, randomness="different")

    def step(self) -> None:
        images, taught, labels = self._batch
        logits = self._respond(self._parameters, self._buffers, images)
        # Outside of vmap, which has no rule for kl_div; the mean over all images, n times, is the sum of n students'.
        loss = _LOSS(logits.flatten(0, 1), taught.flatten(0, 1), labels.flatten())["loss"] * self.count
        for parameter in self._parameters.values():
            parameter.grad = None
        loss.backward()
        self._optimizer.step()

    def first(self) -> dict[str, Tensor]:
        return {name: values[0].detach() for name, values in self._parameters.items()}


def ways(device: torch.device) -> dict[str, type[Way]]:
    """Those that the device allows, by name."""
    found: dict[str, type[Way]] = {"loop": Loop, "stacked": Stacked}
    return found | {"streams": Streams} if device.type == "cuda" else found


def measure(case: Case, count: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Of each way by name: milliseconds per step and student, and whether the first student is as if alone."""
    alone = {name: way(case, 1, device) for name, way in ways(device).items()}
    for way in alone.values():
        way.run(_EQUAL_STEPS)
    made = {name: way(case, count, device) for name, way in ways(device).items()}
    equal, steps = {}, {}
    for name, way in made.items():
        way.run(_EQUAL_STEPS)
        equal[name] = {
            "bit_equal": _equal(way.first(), alone[name].first()),
            "bit_equal_to_loop": _equal(way.first(), alone["loop"].first()),
        }
        warm = way.seconds(_WARM_STEPS) / _WARM_STEPS
        steps[name] = max(1, round(_ROUND_SECONDS / warm))
    found: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, way in made.items():
            found[name].append(1000 * way.seconds(steps[name]) / steps[name] / count)
    return {
        name: {
            "ms": _rounded(median(times)),
            "ms_spread": (_rounded(min(times)), _rounded(max(times))),
            **equal[name],
        }
        for name, times in found.items()
    }


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def table(case: Case, count: int, found: Mapping[str, Any]) -> str:
    """A line for people."""
    parts = [f"{name} {of['ms']:>8.3f}{' ' if of['bit_equal'] else '*'}" for name, of in found.items()]
    size = f"{case.channels}x{case.image_size}x{case.image_size}"
    return f"{case.network:<15} {size:<8} batch {case.batch_size:<4} students {count}:  {'  '.join(parts)}"


def _counts(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def _cases(text: str) -> list[Case]:
    names = text.split(",")
    for name in names:
        if name not in CASES:
            raise argparse.ArgumentTypeError(f"no case {name!r}; there are {', '.join(CASES)}")
    return [CASES[name] for name in names]


def _run(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    device = prepare(devices(given.device)[0], RunConfig())
    print("milliseconds per step and student; *: not bit for bit the student trained alone")
    cases = []
    for case in given.cases:
        by_count = {}
        for number in given.students:
            by_count[str(number)] = found = measure(case, number, given.rounds, device)
            print(table(case, number, found), flush=True)
        described = {
            "network": case.network,
            "image": (case.channels, case.image_size, case.image_size),
            "batch_size": case.batch_size,
            "precision": resolve_precision(case.precision, str(device)),
        }
        cases.append(described | {"students": by_count})
    if given.json:
        made_by = evidence("benchmarks.students", arguments)
        write(given.json, {"benchmark": "students", **made_by, "device": describe(str(device)), "cases": cases})


def main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="benchmarks.students", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    every = list(CASES.values())
    parser.add_argument("--cases", type=_cases, default=every, metavar="NAME,NAME", help=f"of {', '.join(CASES)} (all)")
    parser.add_argument("--students", type=_counts, default=STUDENTS, metavar="N,N", help="at once (1,2,4)")
    parser.add_argument(
        "--rounds", type=count, default=ROUNDS, metavar="N", help="in which the ways take turns (%(default)s)"
    )
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu or cuda:N (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args(arguments)
    with errors_in_one_line():
        _run(given, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
