"""Where a student's step and its teacher's response spend their time, by kind of operator, in one process."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import profile

from benchmarks.arguments import Parser, count, errors_in_one_line
from benchmarks.evidence import evidence, write
from sweetspot import config
from sweetspot.models import build
from sweetspot.student.losses import Distillation
from sweetspot.training.device import devices, prepare, resolve_precision
from sweetspot.training.engine import autocast, evaluation_batch, respond
from sweetspot.training.inference import folded
from sweetspot.training.optimizers import optimizer
from sweetspot.training.steps import Step

CLASSES, SIZE = 100, 32

_KINDS = {
    "convolutions": ("aten::mkldnn_convolution", "aten::cudnn_convolution", "aten::_convolution"),
    "convolutions, backward": ("aten::convolution_backward",),
    "BatchNorm": ("aten::native_batch_norm", "aten::cudnn_batch_norm"),
    "BatchNorm, backward": ("aten::native_batch_norm_backward", "aten::cudnn_batch_norm_backward"),
    "ReLU": ("aten::clamp_min", "aten::clamp_min_", "aten::relu", "aten::threshold_backward"),
    "additions": ("aten::add", "aten::add_"),
    "copies and casts": ("aten::copy_",),
    "optimiser": ("aten::_fused_sgd_", "Optimizer.step#SGD.step"),
}
REST = "the rest: loss, Python, launching"


def shares(seconds: dict[str, float]) -> dict[str, float]:
    """The share of each kind in the operators' own seconds, the largest first; what has no kind is the rest."""
    found: dict[str, float] = defaultdict(float)
    for name, own in seconds.items():
        kind = next((kind for kind, names in _KINDS.items() if name in names), REST)
        found[kind] += own / sum(seconds.values())
    return {kind: round(share, 4) for kind, share in sorted(found.items(), key=lambda item: -item[1])}


def profiled(work: Callable[[], object], device: torch.device, times: int) -> dict[str, Any]:
    """Milliseconds of ``work``, which is done once before, in the median of some without the profiler; its shares."""
    on_gpu = device.type == "cuda"

    def done() -> float:
        began = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    done()
    seconds = median(done() for _ in range(times))
    with profile(use_kineto=True, use_device="cuda" if on_gpu else None) as seen:
        for _ in range(times):
            done()
    # On a GPU what operators have launched; kernels have rows of their own beside them.
    rows = [row for row in seen.key_averages() if row.device_type.name == "CPU"]
    own = {row.key: row.self_device_time_total if on_gpu else row.self_cpu_time_total for row in rows}
    return {"milliseconds": round(1e3 * seconds, 2), "shares": shares(own)}


def measure(teacher: str, student: str, batch_size: int, device: torch.device, steps: int) -> dict[str, Any]:
    """Shares of a student's step, and of a teacher's response to one large batch."""
    precision = resolve_precision("auto", str(device))
    torch.manual_seed(0)
    built = {}
    for name in (teacher, student):
        network = build(name, classes=CLASSES, channels=3, image_size=SIZE)
        built[name] = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(batch_size, 3, SIZE, SIZE, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device) % CLASSES
    taught = torch.randn(batch_size, CLASSES, device=device)
    kd = Distillation(4.0, 0.9)

    def loss(logits: Tensor, labels: Tensor, taught: Tensor) -> Tensor:
        return kd(logits, taught, labels)["loss"]

    step = Step(built[student].train(), optimizer(built[student], config.SGD()), loss)

    def take() -> None:
        with autocast(device, precision):
            step(images, (labels, taught), 0.01)

    many = images[:1].expand(evaluation_batch(images), -1, -1, -1).contiguous(memory_format=torch.channels_last)
    quick = folded(built[teacher].eval(), images[:8], precision)
    return {
        "precision": precision,
        "response_images": len(many),
        "student_step": profiled(take, device, steps),
        "teacher_response": profiled(lambda: respond(quick, many, precision), device, 3),
    }


def main(arguments: Sequence[str]) -> None:
    parser = Parser(prog="benchmarks.step_profile", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--teacher", default="resnet56", metavar="MODEL", help="(%(default)s)")
    parser.add_argument("--student", default="resnet20", metavar="MODEL", help="(%(default)s)")
    parser.add_argument("--batch-size", type=count, default=64, metavar="N", help="of the student (%(default)s)")
    parser.add_argument("--steps", type=count, default=20, metavar="N", help="that are profiled (%(default)s)")
    parser.add_argument(
        "--plain-allocator", action="store_true", help="leave the C library's allocator as a worker finds it"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    given = parser.parse_args(arguments)
    with errors_in_one_line():
        device = torch.device(devices("auto")[0])
        torch.set_num_threads(1)
        if not given.plain_allocator:
            prepare(str(device), config.RunConfig())
        found = measure(given.teacher, given.student, given.batch_size, device, given.steps)
    titles = f"a step of {given.student}", f"{given.teacher} on {found['response_images']} images"
    for title, key in zip(titles, ("student_step", "teacher_response"), strict=True):
        print(f"{title}, {found['precision']}: {found[key]['milliseconds']:.1f} ms")
        for kind, share in found[key]["shares"].items():
            print(f"  {share:6.1%}  {kind}")
    if given.json:
        write(given.json, evidence("benchmarks.step_profile", arguments) | found)


if __name__ == "__main__":
    main(sys.argv[1:])
