"""How often a confirmation is right, on simulated studies whose truth is known.

``python -m benchmarks.calibration [--studies N] [--json FILE]``, about 3 minutes

Students are right about an image where a latent normal variable is above zero, which has a part of the image, of the
image in this arm, of the teacher, of the teacher and the image, of the student, and the rest. A part's scale is chosen
so that teachers differ by 0.75 points and students of one teacher by 0.5 points in their true accuracy, as measured on
digits; chance on 600 test images comes on top. The truth, over all images, teachers and students, is known exactly.

Every study goes the whole way: what students are right about, intervals, verdict. Reported are

- how often the 95 % interval of a difference holds the truth, its half-width, and how often equal points are
  "confirmed" different (students without a teacher being 4 points worse, so that only the comparison of the two points
  decides), once and over five looks with more teachers each time, with error spending and without;
- how often something is denied of a best point that is better than each of four rivals by just the margin ("no better
  than", "distillation does not help", "temperature does it"): the worst case for saying no;
- with a true difference of 1 point, the power that is claimed and the share of studies that found it: in that one
  comparison, and in a verdict that needs two (students without a teacher being 1 point worse, too);
- how often a confirmation with as many seeds as a small one asked for settles that difference: 80 % is claimed.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist, fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.arguments import Parser, count, errors_in_one_line
from benchmarks.evidence import evidence, write
from sweetspot.study.arms import ACCURATE, ACCURATE_T, ALONE, BEST, BEST_T, SMOOTHED
from sweetspot.study.comparisons import Comparisons, gains_of
from sweetspot.study.inference import (
    ERROR,
    Claim,
    Components,
    Interval,
    Noise,
    Outcomes,
    look_level,
    seeds_needed,
)
from sweetspot.study.verdict import verdict

STUDIES = 2_000
MARGIN = 0.002
DIFFERENCE = 0.01
LOOKS = (5, 6, 8, 10, 13)
"""Teachers at each of five looks."""
LOOKS_STUDENTS = 2
PILOT = (5, 4)
"""Teachers and students of the confirmation that says how many it needs."""
_DIGITS = 5


@dataclass(frozen=True)
class Design:
    """Fresh teachers of each arm (0: the claim is about this teacher), and fresh students of each."""

    teachers: int
    students: int

    @property
    def claim(self) -> Claim:
        return "this point" if self.teachers else "this teacher"


DESIGNS = (Design(3, 20), Design(5, 12), Design(10, 6), Design(0, 5), Design(0, 20))


@dataclass(frozen=True)
class World:
    """Where simulated studies happen.

    Attributes:
        images: of the test split.
        accuracy: at which the standard deviations are as given.
        teacher_sd: of teachers' true accuracies, as a fraction.
        student_sd: of students' of one teacher.
    """

    images: int = 600
    accuracy: float = 0.9
    teacher_sd: float = 0.0075
    student_sd: float = 0.005

    # standard deviations of the latent parts
    image: float = 1.5
    arm_image: float = 0.1
    teacher_image: float = 0.25
    rest: float = 0.3

    @property
    def _spread(self) -> float:
        """Of the latent variable, but for teachers and students, whose part is tiny."""
        return math.hypot(self.image, self.arm_image, self.teacher_image, self.rest)

    def study(self, truth: Mapping[str, float], design: Design, rng: np.random.Generator) -> dict[str, Outcomes]:
        """One study's arms, of the given true accuracies; students from labels alone have no teacher."""
        image = self.image * _normal(rng, self.images)
        return {
            arm: self._arm(accuracy, image, _without_teachers(design) if arm in (ALONE, SMOOTHED) else design, rng)
            for arm, accuracy in truth.items()
        }

    def _arm(self, accuracy: float, image: NDArray[np.float32], design: Design, rng: np.random.Generator) -> Outcomes:
        normal = NormalDist()
        a_point = self._spread / normal.pdf(normal.inv_cdf(self.accuracy))  # of latent units for accuracy 1
        teacher, student = a_point * self.teacher_sd, a_point * self.student_sd
        teachers = max(design.teachers, 1)
        if not design.teachers:
            teacher = 0.0  # it is what the claim is about
        level = math.hypot(self._spread, teacher, student) * normal.inv_cdf(accuracy)
        latent = self.arm_image * _normal(rng, self.images) + image + np.float32(level)
        latent = latent + self.teacher_image * _normal(rng, teachers, self.images) + teacher * _normal(rng, teachers, 1)
        latent = np.repeat(latent, design.students, axis=0)
        latent += student * _normal(rng, len(latent), 1)
        latent += self.rest * _normal(rng, len(latent), self.images)
        units = np.arange(len(latent)) // (design.students if design.teachers else 1)
        return Outcomes(latent > 0, units)


def _normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32)


def _without_teachers(design: Design) -> Design:
    return Design(0, max(design.teachers, 1) * design.students)


# -- one study --------------------------------------------------------------------------------------------------------


def judged(outcomes: Mapping[str, Outcomes], design: Design, look: int = 1) -> Comparisons:
    """The comparisons of a simulated study."""
    images = outcomes[BEST].correct.shape[1]
    return Comparisons(design.claim, gains_of(outcomes), design.teachers, design.students, images, MARGIN, look)


def first_units(outcomes: Mapping[str, Outcomes], teachers: int, students: int) -> dict[str, Outcomes]:
    """The same study with the first of its teachers only."""
    most = teachers * students
    return {arm: Outcomes(each.correct[:most], each.units[:most]) for arm, each in outcomes.items()}


EQUAL = {BEST: 0.9, ACCURATE: 0.9, ALONE: 0.86}
BETTER = {BEST: 0.9 + DIFFERENCE, ACCURATE: 0.9, ALONE: 0.9}

JUST_THE_MARGIN = dict.fromkeys((BEST, BEST_T), 0.9 + MARGIN) | dict.fromkeys(
    (ALONE, SMOOTHED, ACCURATE, ACCURATE_T), 0.9
)


def studies(
    world: World, truth: Mapping[str, float], design: Design, count: int, seed: int
) -> Iterator[dict[str, Outcomes]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield world.study(truth, design, rng)


# -- many studies -----------------------------------------------------------------------------------------------------


def false_confirmations(world: World, design: Design, count: int, seed: int) -> tuple[int, list[Interval]]:
    """Of studies whose two points are equal: how many confirm, and the finalist's gains over the other point."""
    found = [judged(outcomes, design) for outcomes in studies(world, EQUAL, design, count, seed)]
    return sum(verdict(each).confirmed is True for each in found), [each.gains[ACCURATE] for each in found]


def false_denials(world: World, design: Design, count: int, seed: int) -> int:
    """Of studies whose best point is better than four rivals by the margin, how many deny that of any of them."""
    found = (judged(outcomes, design) for outcomes in studies(world, JUST_THE_MARGIN, design, count, seed))
    return sum(verdict(each).confirmed is False for each in found)


def looked_again(world: World, count: int, seed: int) -> tuple[int, int]:
    """Of studies whose two points are equal, looked at five times with more and more teachers: how many ever confirm,
    with error spending, and with 5 % at each look."""
    spent = naive = 0
    last = Design(LOOKS[-1], LOOKS_STUDENTS)
    for outcomes in studies(world, EQUAL, last, count, seed):
        seen = [
            judged(first_units(outcomes, teachers, LOOKS_STUDENTS), Design(teachers, LOOKS_STUDENTS), look)
            for look, teachers in enumerate(LOOKS, start=1)
        ]
        spent += any(verdict(each).confirmed is True for each in seen)
        naive += any(each.p_value < ERROR for each in seen)
    return spent, naive


@dataclass(frozen=True)
class Power:
    """Of studies with a true difference: what share finds it.

    Attributes:
        claimed: what `Noise.power` says of the true variances, which are the mean of all studies'.
        by_each: what it says from what each study knows of them, on the average.
        found: by the comparison with the other point.
        confirmed: by the verdict, for which students alone, as much worse, must be beaten as well.
    """

    claimed: float
    by_each: float
    found: float
    confirmed: float


def measure_power(world: World, design: Design, count: int, seed: int) -> Power:
    level = look_level(1)
    noises, found, confirmed = [], 0, 0
    for outcomes in studies(world, BETTER, design, count, seed):
        noises.append(Noise.of(outcomes[BEST], outcomes[ACCURATE]))
        comparisons = judged(outcomes, design)
        found += comparisons.gains[ACCURATE].p_above() < level
        confirmed += verdict(comparisons).confirmed is True

    def claimed(noise: Noise) -> float:
        return noise.power(DIFFERENCE, design.teachers, design.students, level=level)

    return Power(claimed(mean_noise(noises)), fmean(map(claimed, noises)), found / count, confirmed / count)


def mean_noise(noises: Sequence[Noise]) -> Noise:
    """The mean variances of many studies, taken for the true ones."""

    def mean(components: Sequence[Components]) -> Components:
        teachers, students = fmean(c.teachers for c in components), fmean(c.students for c in components)
        return Components(teachers, students, components[0].nested)

    arms = mean([noise.a for noise in noises]), mean([noise.b for noise in noises])
    return replace(noises[0], a=arms[0], b=arms[1], by_image=fmean(noise.by_image for noise in noises))


@dataclass(frozen=True)
class Planned:
    """Studies with a true difference that were planned by small ones.

    Attributes:
        settled: the share of plans that find it.
        hopeless: the share of small ones that call the test split too small.
        teachers, students: of the plans, medians; 0 without any.
    """

    settled: float
    hopeless: float
    teachers: float
    students: float


def follow_plans(world: World, count: int, seed: int) -> Planned:
    """Small confirmations say how many seeds would settle the true difference; as many, fresh ones, are then taken."""
    level, rng, plans, settled = look_level(1), np.random.default_rng(seed), [], 0
    truth = {arm: BETTER[arm] for arm in (BEST, ACCURATE)}
    for _ in range(count):
        small = world.study(truth, Design(*PILOT), rng)
        plan = seeds_needed(small[BEST], small[ACCURATE], detectable=DIFFERENCE, claim="this point", level=level)
        if plan is not None:
            plans.append(plan)
            settled += gains_of(world.study(truth, Design(*plan), rng))[ACCURATE].p_above() < level
    if not plans:
        return Planned(0.0, 1.0, 0.0, 0.0)
    teachers, each = zip(*plans, strict=True)
    return Planned(settled / len(plans), 1 - len(plans) / count, median(teachers), median(each))


# -- the benchmark ----------------------------------------------------------------------------------------------------


def measure_design(world: World, design: Design, count: int) -> dict[str, Any]:
    confirmed, gains = false_confirmations(world, design, count, seed=1)
    found = measure_power(world, design, count, seed=2)
    return {
        "claim": design.claim,
        "teachers": design.teachers,
        "students": design.students,
        "half_width_points": round(100 * fmean(gain.high - gain.mean for gain in gains), 3),
        "coverage": round(fmean(gain.low <= 0 <= gain.high for gain in gains), _DIGITS),
        "false_one_sided": round(fmean(gain.lower_one_sided > 0 for gain in gains), _DIGITS),
        "false_confirmed": round(confirmed / count, _DIGITS),
        "false_denied": round(false_denials(world, design, count, seed=5) / count, _DIGITS),
        "power": {name: round(value, _DIGITS) for name, value in vars(found).items()},
    }


def table(designs: Sequence[Mapping[str, Any]]) -> str:
    """A line for each design, for people."""
    lines = [
        f"{'design':<14} {'half-width':<11} {'coverage':<9} {'false':<7} {'denied':<7} power: claimed, by each, found, "
        "confirmed"
    ]
    for row in designs:
        name = f"{row['teachers'] or 'this'} x {row['students']}"
        share = ", ".join(f"{100 * value:.1f} %" for value in row["power"].values())
        lines.append(
            f"{name:<10} {row['half_width_points']:<11.2f} {100 * row['coverage']:<9.1f} "
            f"{100 * row['false_confirmed']:<7.1f} {100 * row['false_denied']:<7.1f} {share}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="benchmarks.calibration",
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--studies", type=count, default=STUDIES, metavar="N", help="simulated for each figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args(arguments)
    world = World()
    designs = [measure_design(world, design, given.studies) for design in DESIGNS]
    print(table(designs))
    spent, naive = (found / given.studies for found in looked_again(world, given.studies, seed=3))
    print(f"five looks: {100 * spent:.1f} % confirmed, without spending {100 * naive:.1f} %")
    planned = follow_plans(world, given.studies, seed=4)
    print(f"as planned: {100 * planned.settled:.1f} % settled, {planned.teachers:g} x {planned.students:g}")
    if given.json:
        result = {
            "benchmark": "calibration",
            **evidence("benchmarks.calibration", arguments),
            "studies": given.studies,
            "world": vars(world),
            "designs": designs,
            "five_looks": {
                "teachers": list(LOOKS),
                "students": LOOKS_STUDENTS,
                "false_confirmed": round(spent, _DIGITS),
                "false_without_spending": round(naive, _DIGITS),
            },
            "planned": {"pilot": list(PILOT), **{name: round(value, _DIGITS) for name, value in vars(planned).items()}},
        }
        write(given.json, result)


if __name__ == "__main__":
    with errors_in_one_line():
        main(sys.argv[1:])
