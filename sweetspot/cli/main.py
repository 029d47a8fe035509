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
_DOCTOR = "sweetspot doctor says what is wrong, and what to do"


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
        if os.environ.get("SWEETSPOT_TRACEBACK"):
            raise
        if (module := _not_imported(error)) is not None:
            return _say(f"{module} cannot be imported ({str(error) or type(error).__name__}): {_DOCTOR}", 2)
        return _say(f"{type(error).__name__}: {error} (SWEETSPOT_TRACEBACK=1 shows where)", 1)


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


def _not_imported(error: BaseException) -> str | None:
    """The package in whose import an error was raised; None for any other error.

    Builds of torch and of its companions that do not fit together raise whatever they like.
    """
    frame, module = error.__traceback__, None
    while frame is not None:
        if frame.tb_frame.f_code.co_name == "<module>":
            module = str(frame.tb_frame.f_globals.get("__name__"))
        frame = frame.tb_next
    if isinstance(error, ImportError) and error.name:
        module = error.name
    return module.partition(".")[0] if module is not None else None


def _say(error: object, code: int) -> int:
    print(f"error: {one_line(str(error))}", file=sys.stderr)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
