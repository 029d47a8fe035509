"""``sweetspot dashboard``: optuna-dashboard on the storage, for those who may see it."""

import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from sweetspot.cli.options import Artifacts, Storage


def dashboard(
    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", show_default="all studies", help="Show this study alone."),
    ] = None,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on; 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0: one that is free.")] = 8080,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse every change.")] = False,
    auth_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="nobody is asked",
            help="Ask for user and password: lines of user:bcrypt-hash. Wanted for any host but this machine's own.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in who can reach the host, without a password.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default="none",
            help="A further name it is reached by, as behind a proxy; may be repeated.",
        ),
    ] = None,
    hash_password: Annotated[
        bool, typer.Option("--hash-password", help="Ask for a password, print its line of FILE, and do nothing else.")
    ] = False,
    user: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default="yours", help="User in the line of --hash-password."),
    ] = None,
    storage: Storage = None,
    artifacts: Artifacts = None,
) -> None:
    """Look at studies in a browser, with optuna-dashboard. On this machine only, unless told otherwise."""
    from sweetspot.errors import UserError

    if hash_password:
        if study is not None:
            raise UserError(f"--hash-password goes without {study!r}: a user is given as --user {study}")
        _print_hash(user)
        return
    if user is not None:
        raise UserError("--user goes with --hash-password only; who may come in is in --auth-file")
    if insecure and auth_file is not None:
        raise UserError("--insecure and --auth-file are opposites: leave one of them out")

    from sweetspot.report.dashboard.hosts import is_loopback, listen, own_names
    from sweetspot.report.dashboard.passwords import is_readable_by_others, read_auth_file

    is_private = is_loopback(host)
    if not is_private and auth_file is None and not insecure:
        raise UserError(
            f"--host {host} can be reached from other machines: give --auth-file FILE (sweetspot dashboard "
            "--hash-password prints its lines), or --insecure to let everybody in"
        )
    hosts = own_names(host, allow_host or ())
    users = None if auth_file is None else read_auth_file(auth_file)

    from sweetspot.report.dashboard.contents import bring_up_to_date
    from sweetspot.report.dashboard.server import application, server_for, study_page
    from sweetspot.store import Store

    with Store(storage, artifacts) as store:
        page = study_page(store, study)
        app = application(store, hosts, study=study, users=users, read_only=read_only)
        listener = listen(host, port)
        if auth_file is not None and is_readable_by_others(auth_file):
            _warn(f"every user of this machine may read {auth_file}: chmod 600 {auth_file}")
        if not is_private:
            _warn("what it sends goes unencrypted, passwords too: put a proxy that speaks TLS before it")
        print(f"{listener.address}{page}  (Ctrl-C ends it)", flush=True)
        if not read_only:
            threading.Thread(target=bring_up_to_date, args=(store, study), daemon=True).start()
        server_for(app, listener).run()


def _print_hash(user: str | None) -> None:
    import getpass

    from sweetspot.errors import UserError
    from sweetspot.report.dashboard.passwords import hash_line

    if user is None:
        try:
            user = getpass.getuser()
        except (ImportError, KeyError, OSError):
            raise UserError("--hash-password: whose password? give --user NAME") from None
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {user}: ")
        if getpass.getpass("Once more: ") != password:
            raise UserError("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    print(hash_line(user, password))


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)
