"""Networks that only respond: the same answers from fewer operations."""

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sweetspot.config import Precision

_TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 0.05}
"""Of the largest logit. In bfloat16 both are rounded, each after other operations."""


@torch.no_grad()
def folded(network: nn.Module, images: Tensor, precision: Precision) -> nn.Module:
    """A copy of ``network`` for responses, with each BatchNorm that follows a convolution folded into it.

    A network that torch.fx cannot trace, or that answers otherwise once it is traced, is returned as it is.

    Args:
        network: in evaluation mode.
        images: some that it has sense for, float32 (B, C, H, W), on which both are compared.
        precision: in which it will respond.
    """
    try:
        traced = fx.symbolic_trace(copy.deepcopy(network))
        _fold(traced)
        exact = _agree(traced, network, images, "float32")
        same = exact and (precision == "float32" or _agree(traced, network, images, precision))
    except Exception:  # tracing runs a foreign network's Python on stand-ins for tensors: anything may be raised
        return network
    return traced if same else network


def _agree(traced: nn.Module, network: nn.Module, images: Tensor, precision: Precision) -> bool:
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        found, expected = traced(images).float(), network(images).float()
    return bool((found - expected).abs().max() <= _TOLERANCE[precision] * expected.abs().max())


def _fold(traced: fx.GraphModule) -> None:
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        is_convolution = before.op == "call_module" and isinstance(modules[before.target], nn.Conv2d)
        if not is_convolution or len(before.users) > 1 or calls[node.target] > 1 or calls[before.target] > 1:
            continue
        traced.set_submodule(before.target, fuse_conv_bn_eval(modules[before.target], modules[node.target]))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
