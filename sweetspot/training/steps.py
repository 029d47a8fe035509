"""A training step: launched operation by operation, or recorded once as a CUDA graph and replayed."""

import logging
import random
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)

Loss = Callable[..., Tensor]
"""(logits of a batch, *what belongs to its images) -> scalar loss."""

_WARM_UP = 3
"""Steps before a capture: the optimiser makes its state in the first, and cuDNN tries its algorithms."""


class Step:
    """One step after another of a network's training, each launched operation by operation.

    Args:
        model: in training mode at each call.
        optimizer: of the model's parameters.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> None:
        self._model = model
        self._optimizer = optimizer
        self._loss = loss
        self._parameters = list(model.parameters())

    def __call__(self, images: Tensor, targets: Sequence[Tensor], lr: float) -> Tensor:
        """Take the step; its loss, a detached scalar that is good until the next step."""
        self._set_lr(lr)
        return self._take(images, targets)

    def _set_lr(self, lr: float | Tensor) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def _take(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor:
        loss = self._loss(self._model(images), *targets)
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()
        self._optimizer.step()
        return loss.detach()


class GraphedStep(Step):
    """The same on a GPU, where a small network's step takes longer to launch than to compute.

    Its first steps are launched as those of :class:`Step` are. Once they have taken as long as a capture does (measured
    at the last one in this process), the next is recorded as a CUDA graph, and from then on replayed: whatever the
    length of a run, it costs at most twice what the better way would have. A network that cannot be captured goes on as
    it began: one that waits for the device within its pass, or draws random numbers on the host, which a replay would
    not. Weights and optimiser state are loaded before the first step; a replay writes where they were captured.
    """

    _capture_seconds = 0.3
    """What a capture takes: a guess before the first."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> None:
        super().__init__(model, optimizer, loss)
        self._lr = torch.zeros((), device=self._parameters[0].device)
        self._steps = 0
        self._seconds = 0.0
        self._is_captured: bool | None = None

    def __call__(self, images: Tensor, targets: Sequence[Tensor], lr: float) -> Tensor:
        self._lr.fill_(lr)
        self._set_lr(self._lr)
        if self._is_captured is None and self._steps >= _WARM_UP and self._seconds >= self._capture_seconds:
            self._is_captured = self._capture(images, targets)
        if self._is_captured:
            return self._replay(images, targets)
        began = time.perf_counter()
        loss = self._take(images, targets)
        self._seconds += time.perf_counter() - began
        self._steps += 1
        return loss

    def _capture(self, images: Tensor, targets: Sequence[Tensor]) -> bool:
        """Record a step on tensors of these shapes; nothing is computed."""
        began = time.perf_counter()
        stream, draws = torch.cuda.current_stream(), (random.getstate(), torch.get_rng_state())
        graph = torch.cuda.CUDAGraph()
        try:
            static = images.clone(), [target.clone() for target in targets]
            self._let_capture(True)
            with torch.cuda.graph(graph):
                loss = self._take(*static)
        except RuntimeError as error:
            torch.cuda.set_stream(stream)  # which an error at the beginning of a capture does not do
            return self._refuse((str(error).splitlines() or ["it cannot be captured"])[0])
        finally:
            self._let_capture(False)
            for parameter in self._parameters:
                parameter.grad = None  # each replay writes its own
        if (random.getstate(), torch.get_rng_state().tolist()) != (draws[0], draws[1].tolist()):
            random.setstate(draws[0])
            torch.set_rng_state(draws[1])
            return self._refuse("the network draws random numbers on the host")
        self._graph, self._static, self._captured_loss = graph, static, loss
        type(self)._capture_seconds = time.perf_counter() - began
        return True

    def _let_capture(self, capturable: bool) -> None:
        for group in self._optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = capturable

    def _refuse(self, why: str) -> bool:
        _log.warning("training without a CUDA graph: %s", why)
        return False

    def _replay(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor:
        static_images, static_targets = self._static
        static_images.copy_(images)
        for static, target in zip(static_targets, targets, strict=True):
            static.copy_(target)
        self._graph.replay()
        return self._captured_loss


def step_for(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> Step:
    """The kind of step that is fastest where the model is."""
    on_gpu = next(model.parameters()).is_cuda
    return (GraphedStep if on_gpu else Step)(model, optimizer, loss)
