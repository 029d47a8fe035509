"""The command line: parse, delegate, print. No logic, and no torch before a command needs it."""

from sweetspot.cli.main import main

__all__ = ["main"]
