"""How fast networks are trained: this engine, and a reference loop as distillation code is usually written.

``python -m benchmarks.throughput [--quick] [--pairs NAME,NAME] [--rounds N] [--data PATH] [--device DEVICE]
[--json [FILE]]``

For each pair of networks and batch size, on the same images of CIFAR-100's shape (``--data``: an ``.npz`` file;
otherwise noise), three arms:

- **reference**: PIL transforms, a DataLoader with as many workers as there are cores, float32, NCHW, the teacher in
  the loop, ``.item()`` at every step; one process, all cores (:mod:`benchmarks.throughput_reference`);
- **one student**: the engine with one student at a time. On a CPU a Sweetspot worker has one thread, and there is one
  worker per core: so many processes, each of which distills a student of its own. On a GPU: one process;
- **four students**: likewise, with four students in each process, which share each pass of their teacher.

And for the training of teachers from labels two, **reference** and **engine**: of the pair's teacher, and of its
student's network as if it were one.

All figures are images per second *of the whole machine*, where an image counts once for each student that is trained
on it; so that a ratio of two says how much sooner the same students are there. The students of the engine are
evaluated on one image of each class after each epoch, which is in their time. Networks are untrained, which makes no
difference to the time.

The processes of all arms stand ready, and the arms take turns: in each round every arm runs once while the others
wait. All have run once before the first round. A rate is the median of the rounds, a ratio the median of the rounds'
ratios, with the lowest and the highest. The reference is timed from the end of its first step, when its loader is
under way; on a GPU the engine from the end of its first epoch, when its kernels are chosen.

**limit share** is the floating-point operations that an arm does in a second, over those that all cores do in matrix
products of the engine's precision, measured at both ends of the round, of which the faster counts. What counts are
convolutions and matrix products as torch's FlopCounterMode counts them: the student's forward and backward pass, and
the teacher's pass, once for each view that it is shown.

Where something else runs, the reference suffers most, since its threads wait for one another: such figures say nothing,
and ``cores_busy_with_other_work`` tells.

JSON, of each pair:

- ``reference``, ``one_student``, ``four_students``: images per second, as above;
- ``ratio_one``, ``ratio_four``: to the reference; ``…_spread``: the lowest and the highest of the rounds;
- ``limit_share`` (of four students), ``limit_share_one``; ``limit``: FLOP per second of the matrix products;
- ``alone``: images per second of one process with one student, once, while the other cores rest;
- ``processes`` of the engine, with one or four students each;
- ``memory``: the highest number of bytes of each arm; on a CPU of all its processes, the loader's included, where what
  several share counts once;
- ``flops``: of an image: the student's step, and the teacher's pass;
- ``rounds``: all figures;
- ``teacher`` (not with ``--quick``): by network ``reference``, ``engine``, ``ratio``, and as above.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.arguments import Parser, count, errors_in_one_line, seconds
from benchmarks.evidence import evidence, write
from benchmarks.throughput_arms import Arm, Maker
from benchmarks.throughput_job import Job, sample
from benchmarks.throughput_limit import flops
from benchmarks.watch import Beside
from sweetspot.errors import UserError
from sweetspot.training.device import describe, devices, resolve_precision
from sweetspot.workers.machine import machine

ROUNDS, QUICK_ROUNDS = 7, 3
SECONDS = 5.0
STUDENTS = 4
_LIMIT_SECONDS = 0.5
_CUDA_IMAGES, _CUDA_NOISE = 12_288, 49_152
"""Of an epoch: what half of CIFAR-100's half has, and what all of CIFAR-100 has, in whole batches of 512."""
_DIGITS = 4


@dataclass(frozen=True)
class Pair:
    """A teacher, a student, and how they are trained.

    Attributes:
        images: of an epoch on a CPU; so many that a round takes a few seconds.
    """

    teacher: str
    student: str
    batch_size: int
    images: int

    @property
    def name(self) -> str:
        return f"{self.teacher}-{self.student}-{self.batch_size}"


QUICK = Pair("resnet56", "resnet20", 64, 512)
PAIRS = {
    pair.name: pair
    for pair in (
        replace(QUICK, images=1024),
        Pair("resnet56", "resnet20", 512, 1536),
        Pair("resnet32x4", "resnet8x4", 64, 384),
        Pair("wrn-40-2", "wrn-16-2", 64, 512),
    )
}


@dataclass(frozen=True)
class Rounds:
    """What was found, one number per round of each arm.

    Attributes:
        rates: images per second, by the arm's name.
        limits: FLOP per second of matrix products.
        alone: images per second of one process of the engine, once, while all others rest.
        memory: the highest number of bytes of each arm.
    """

    rates: Mapping[str, Sequence[float]]
    limits: Sequence[float]
    alone: float
    memory: Mapping[str, int]

    def rate(self, arm: str) -> float:
        return _rounded(median(self.rates[arm]))

    def ratio(self, arm: str) -> tuple[float, tuple[float, float]]:
        """Of the arm to the reference: the median of the rounds' ratios, and the lowest and the highest of them."""
        ratios = [a / b for a, b in zip(self.rates[arm], self.rates["reference"], strict=True)]
        return _rounded(median(ratios)), (_rounded(min(ratios)), _rounded(max(ratios)))

    def share(self, arm: str, flops_per_image: float) -> float:
        """The median of the rounds' shares of the limit."""
        shares = [rate * flops_per_image / limit for rate, limit in zip(self.rates[arm], self.limits, strict=True)]
        return _rounded(median(shares))

    def common(self) -> dict[str, Any]:
        """What is said of every job."""
        rates = {arm: [_rounded(rate) for rate in rates] for arm, rates in self.rates.items()}
        return {
            "alone": _rounded(self.alone),
            "limit": _rounded(median(self.limits)),
            "memory": dict(self.memory),
            "rounds": rates | {"limit": [_rounded(limit) for limit in self.limits]},
        }


def _rounded(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.{_DIGITS}g}")


def measure(job: Job, makers: Mapping[str, Maker], rounds: int, alone: str) -> Rounds:
    """Let arms take turns.

    Args:
        makers: by the arm's name.
        alone: the arm of which one process also runs by itself, once, and whose processes measure the limit.

    Raises:
        UserError, RunError: what a process failed of.
    """
    with ExitStack() as stack:
        arms = {name: stack.enter_context(Arm(make, job)) for name, make in makers.items()}
        for arm in arms.values():
            arm.wait_until_ready()
        epochs, memory = {}, {}
        for name, arm in arms.items():
            warm, memory[name] = arm.warm_up()
            images = job.images * makers[name].students
            epochs[name] = max(1, math.ceil(job.seconds * warm / images)) if job.is_cuda else 1
        by_itself = arms[alone].run(epochs[alone], processes=1)
        found: dict[str, list[float]] = {name: [] for name in arms}
        limits = []
        for _ in range(rounds):
            before = arms[alone].limit(_LIMIT_SECONDS)
            for name, arm in arms.items():
                found[name].append(arm.run(epochs[name]))
            limits.append(max(before, arms[alone].limit(_LIMIT_SECONDS)))
    return Rounds(found, limits, by_itself, memory)


def distillation(job: Job, rounds: int) -> dict[str, Any]:
    """The figures of one pair, without those of its teachers' training."""
    makers = {
        "reference": Maker("benchmarks.throughput_reference:ReferenceDistillation", 1),
        "one_student": _distilling(job, 1),
        "four_students": _distilling(job, STUDENTS),
    }
    return distillation_summary(job, measure(job, makers, rounds, "one_student"))


def _distilling(job: Job, students: int) -> Maker:
    source = "benchmarks.throughput_engine:EngineDistillation"
    return Maker(source, job.workers, students, {"students": students})


def distillation_summary(job: Job, found: Rounds) -> dict[str, Any]:
    student, teacher = flops(job.student).training, flops(job.teacher).forward
    one, one_spread = found.ratio("one_student")
    four, four_spread = found.ratio("four_students")
    return {
        **{arm: found.rate(arm) for arm in ("reference", "one_student", "four_students")},
        "ratio_one": one,
        "ratio_four": four,
        "limit_share": found.share("four_students", student + teacher / STUDENTS),
        "ratio_one_spread": one_spread,
        "ratio_four_spread": four_spread,
        "limit_share_one": found.share("one_student", student + teacher),
        "processes": job.workers,
        "images": job.images,
        "flops": {"student": student, "teacher": teacher},
        **found.common(),
    }


def teacher_training(job: Job, rounds: int) -> dict[str, Any]:
    """The figures of the training of ``job.teacher`` from labels."""
    makers = {
        "reference": Maker("benchmarks.throughput_reference:ReferenceTeacher", 1),
        "engine": Maker("benchmarks.throughput_engine:EngineTeacher", job.workers),
    }
    return teacher_summary(job, measure(job, makers, rounds, "engine"))


def teacher_summary(job: Job, found: Rounds) -> dict[str, Any]:
    ratio, spread = found.ratio("engine")
    each = flops(job.teacher).training
    return {
        "reference": found.rate("reference"),
        "engine": found.rate("engine"),
        "ratio": ratio,
        "limit_share": found.share("engine", each),
        "ratio_spread": spread,
        "images": job.images,
        "flops": each,
        **found.common(),
    }


_HEADER = f"{'':<32} {'images/s':>9} {'ratio':>6} {'(lowest - highest)':>18} {'limit':>6} {'memory':>9}"


def table(name: str, found: Mapping[str, Any]) -> str:
    """A pair's figures, a line for each arm, for people."""
    lines = [f"{name}, distillation; images count once for each student"]
    rows = [("reference", None, None), ("one_student", "ratio_one", "limit_share_one")]
    lines += [_line(found, *row) for row in (*rows, ("four_students", "ratio_four", "limit_share"))]
    lines.append(f"  {'one process alone, one student':<30} {found['alone']:>9,.1f}")
    for network, of in found.get("teacher", {}).items():
        lines.append(f"{network} from labels at batch size {name.rpartition('-')[2]}")
        lines += [_line(of, *row) for row in (("reference", None, None), ("engine", "ratio", "limit_share"))]
        lines.append(f"  {'one process alone':<30} {of['alone']:>9,.1f}")
    return "\n".join(lines)


def _line(found: Mapping[str, Any], arm: str, ratio: str | None, share: str | None) -> str:
    beside = " " * 32
    if ratio is not None and share is not None:
        low, high = found[f"{ratio}_spread"]
        beside = f"{found[ratio]:>6.2f} {f'({low:.2f} - {high:.2f})':>18} {found[share]:>6.1%}"
    label = arm.replace("_", " ") + (" per process" if "student" in arm else "")
    return f"  {label:<30} {found[arm]:>9,.1f} {beside} {found['memory'][arm] / 1e9:>6.2f} GB"


def _pairs(text: str) -> list[Pair]:
    names = text.split(",")
    for name in names:
        if name not in PAIRS:
            raise argparse.ArgumentTypeError(f"no pair {name!r}; there are {', '.join(PAIRS)}")
    return [PAIRS[name] for name in names]


def _parser() -> Parser:
    parser = Parser(prog="benchmarks.throughput", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    quick = f"{QUICK.name} alone, {QUICK_ROUNDS} rounds, distillation only: a minute on two cores"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--pairs", type=_pairs, metavar="NAME,NAME", help=f"of {', '.join(PAIRS)} (all)")
    parser.add_argument("--rounds", type=count, metavar="N", help=f"in which every arm runs once ({ROUNDS})")
    parser.add_argument("--images", type=count, metavar="N", help="of an epoch (as many as take a few seconds)")
    lasting = f"that a round of the reference takes at most, and on a GPU about every arm's ({SECONDS:g})"
    parser.add_argument("--seconds", type=seconds, default=SECONDS, metavar="S", help=lasting)
    parser.add_argument("--data", type=Path, metavar="PATH", help="an .npz file as for npz:PATH (noise)")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu or cuda:N (auto)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write the result there; without FILE print it alone"
    )
    return parser


def _job(pair: Pair, given: argparse.Namespace, device: str) -> Job:
    """
    Raises:
        UserError: an epoch has too few images.
    """
    on_cuda = _CUDA_NOISE if given.data is None else _CUDA_IMAGES
    images = given.images or (pair.images if device == "cpu" else on_cuda)
    if images < 2 * pair.batch_size:
        raise UserError(f"--images {images}: {pair.name} needs two batches, {2 * pair.batch_size}")
    return Job(
        pair.teacher, pair.student, pair.batch_size, images, given.data, device, machine()["cores"], given.seconds
    )


def _run(given: argparse.Namespace, arguments: Sequence[str]) -> None:
    device = devices(given.device)[0]
    pairs = given.pairs or ([QUICK] if given.quick else list(PAIRS.values()))
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    jobs = {pair.name: _job(pair, given, device) for pair in pairs}
    sample(given.data, max(job.images for job in jobs.values()))  # refuses a wrong file before anything is started
    to_stdout = given.json == "-"
    images = "noise of CIFAR-100's shape" if given.data is None else given.data.name
    if not to_stdout:
        print(f"images: {images}\n{_HEADER}", flush=True)
    beside, began, before = Beside(), time.monotonic(), _seconds_of_children()
    found = {}
    for name, job in jobs.items():
        found[name] = distillation(job, rounds)
        if not given.quick:
            networks = (job.teacher, job.student)
            found[name]["teacher"] = {
                network: teacher_training(replace(job, teacher=network), rounds) for network in networks
            }
        if not to_stdout:
            print(table(name, found[name]), flush=True)
    ours = (_seconds_of_children() - before) / (time.monotonic() - began)
    others = round(max(0.0, beside.cores() - ours), 2)
    if not to_stdout:
        print(f"cores busy with other work: {others}")
    without_path = [a.replace(str(given.data), "PATH") if given.data else a for a in arguments]
    result = {
        "benchmark": "throughput",
        **evidence("benchmarks.throughput", without_path),
        "device": describe(device),
        "precision": resolve_precision("auto", device),
        "images": images,
        "cores_busy_with_other_work": others,
        **found,
    }
    if to_stdout:
        print(json.dumps(result, indent=2, allow_nan=False))
    elif given.json:
        write(Path(given.json), result)


def _seconds_of_children() -> float:
    """CPU seconds of the processes that this one has started and that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def main(arguments: Sequence[str]) -> None:
    given = _parser().parse_args(arguments)
    with errors_in_one_line():
        _run(given, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
