"""``main``: runs a command and turns what went wrong into one line and an exit status."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer
from typer.main import get_command

from sweetspot.cli.commands import app
from sweetspot.errors import RunError, UserError, one_line

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status.

    0: done; 1: a run that failed; 2: a mistake of the user; 130: interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        if arguments is None:
            _hide_password(given)
        code = get_command(app).main(given or ["--help"], prog_name="sweetspot", standalone_mode=False)
        sys.stdout.flush()
        if code == _INTERRUPTED:  # the parser turns Ctrl-C into this
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _say(error, 2)
    except RunError as error:
        return _say(error, 1)
    except (KeyboardInterrupt, typer.Abort):
        if "SWEETSPOT_SUPERVISOR" in os.environ:  # a worker: its supervisor says it
            return _INTERRUPTED
        return _say("interrupted; the same command continues where it stopped", _INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if hasattr(error, "format_message"):  # the parser's own errors
            return _say(error.format_message() or "see --help", 2)
        if not os.environ.get("SWEETSPOT_TRACEBACK"):
            return _say(f"{type(error).__name__}: {error} (SWEETSPOT_TRACEBACK=1 shows where)", 1)
        raise


def _hide_password(given: list[str]) -> None:
    """Start again with a database URL that has a password in the environment: everybody can read argument lists."""
    for i, argument in enumerate(given):
        option, is_one, url = argument.partition("=")
        if option == "--storage" and (is_one or i + 1 < len(given)):
            from sweetspot.store.url import has_password

            url, after = (url, i + 1) if is_one else (given[i + 1], i + 2)
            if has_password(url) and not any(a.startswith("--storage-file") for a in given):  # which is refused
                os.environ["SWEETSPOT_STORAGE"] = url
                os.environ.pop("SWEETSPOT_STORAGE_FILE", None)  # which counts more than the variable
                os.execv(sys.executable, [sys.executable, "-m", "sweetspot", *given[:i], *given[after:]])


def _say(error: object, code: int) -> int:
    print(f"error: {one_line(str(error))}", file=sys.stderr)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
