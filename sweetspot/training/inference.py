"""Networks that only respond: the same answers from fewer operations."""

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_TOLERANCE = 1e-3


@torch.no_grad()
def folded(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy of ``network`` for responses, with each BatchNorm that follows a convolution folded into it.

    A network that torch.fx cannot trace, or that answers otherwise once it is traced, is returned as it is.

    Args:
        network: in evaluation mode.
        images: some that it has sense for, float32 (B, C, H, W), on which both are compared in float32.
    """
    try:
        traced = fx.symbolic_trace(copy.deepcopy(network))
        _fold(traced)
        same = torch.allclose(traced(images), network(images), rtol=_TOLERANCE, atol=_TOLERANCE)
    except Exception:  # tracing runs a foreign network's Python on stand-ins for tensors: anything may be raised
        return network
    return traced if same else network


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
