"""Processes of sweetspot without the seconds of their imports: forks of one process that has imported everything.

Run as a script, this is that process (``forks.py SOCKET``), or the process that stands for one fork
(``forks.py SOCKET ARGUMENT …``): it lends the fork its streams, passes signals on to it, and ends with its status.
"""

import json
import os
import signal
import socket
import sys


def stand_for(path: str, arguments: list[str]) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        task = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
        socket.send_fds(connection, [json.dumps(task).encode()], [0, 1, 2])
        answers = connection.makefile()
        pid = int(answers.readline())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: os.kill(pid, number))
        os._exit(int(answers.readline() or 1))


def serve(path: str) -> None:
    # What a worker and a dashboard import, at once or when it is needed.
    import alembic.command  # noqa: F401
    import matplotlib.backends.backend_agg
    import matplotlib.backends.backend_svg  # noqa: F401
    import plotly.graph_objects  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torchvision.datasets  # noqa: F401

    import sweetspot.cli
    import sweetspot.report.dashboard.contents
    import sweetspot.report.dashboard.server
    import sweetspot.report.figures.catalogue
    import sweetspot.report.figures.matplotlib
    import sweetspot.report.figures.plotly
    import sweetspot.workers.worker  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                if os.fork() == 0:
                    server.close()
                    start(connection)


def start(connection: socket.socket) -> None:
    """In a fork of its own: another one that runs the command, and what has become of it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, *_ = socket.recv_fds(connection, 2**20, 3)
    task = json.loads(message)
    if (pid := os.fork()) == 0:
        run(task, streams)
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{pid}\n".encode())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255
    connection.sendall(f"{status}\n".encode())
    os._exit(0)


def run(task: dict, streams: list[int]) -> None:  # type: ignore[type-arg]
    from sweetspot.cli import main

    status = 1
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(task["folder"])
        os.environ.clear()
        os.environ.update(task["environment"])
        if "SWEETSPOT_SUPERVISOR" in os.environ:  # which a worker knows by being its child
            os.environ["SWEETSPOT_SUPERVISOR"] = str(os.getppid())
        status = main(task["arguments"])
        sys.stdout.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    if sys.argv[2:]:
        stand_for(sys.argv[1], sys.argv[2:])
    else:
        serve(sys.argv[1])
