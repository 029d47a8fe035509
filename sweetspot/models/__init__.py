"""Names to networks: what is there, and how to build it. Importing this package does not import torch."""

from sweetspot.models.registry import build, count_parameters, describe, names

__all__ = ["build", "count_parameters", "describe", "names"]
