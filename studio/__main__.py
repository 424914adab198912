"""``python -m studio``: a page on this machine that shows runs while they train, and plays their models."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import sys
from pathlib import Path

from errors import UserError, exit_status
from terminal import Output, interruptible

SECRET = "NEXTFRAME_AUTH"
MIN_PASSWORD = 8  # characters


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="studio", description="Show runs while they train, and play what their models make, on a web page."
    )
    add = parser.add_argument
    add(
        "--metadata",
        type=Path,
        default=Path("metadata"),
        metavar="FOLDER",
        help="of metadata files (default: metadata)",
    )
    add("--host", default="127.0.0.1", help="address to answer at (default: 127.0.0.1, this machine only)")
    add("--port", type=int, default=7860, help="default: 7860")
    add(
        "--auth",
        type=Path,
        metavar="FILE",
        help=f"its first line is NAME:PASSWORD; or the variable {SECRET} is; needed where --host is another address",
    )
    return parser.parse_args(argv)


def read_password(path: Path | None, environment) -> tuple[str, str] | None:
    """Name and password out of a file or the environment; None without either.

    Raises:
        UserError: the file cannot be read, or what stands there is no ``NAME:PASSWORD``.
    """
    if path is None:
        line, where = environment.get(SECRET, ""), SECRET
        if not line:
            return None
    else:
        where = str(path)
        try:
            with open(path, encoding="utf-8") as file:
                line = file.readline(1000)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise UserError(f"{path}: cannot be read ({reason}); write NAME:PASSWORD in its first line") from None
    name, colon, password = line.strip().partition(":")
    if not colon or not name:
        raise UserError(f"{where}: holds no NAME:PASSWORD; write one, in one line")
    if len(password) < MIN_PASSWORD:
        raise UserError(f"{where}: the password is shorter than {MIN_PASSWORD} characters; take a longer one")
    return name, password


def check(arguments: argparse.Namespace) -> tuple[str, str] | None:
    """Everything that can be said before anything heavy is loaded; the name and password, if there are any."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("Gradio is not installed; pip install -r requirements-studio.txt")
    if not arguments.metadata.is_dir():
        raise UserError(f"{arguments.metadata}: no such folder; train first, or give the folder of metadata files")
    if not 0 < arguments.port < 65536:
        raise UserError(f"--port {arguments.port}: must be 1 to 65535")
    password = read_password(arguments.auth, os.environ)
    if password is None and not is_local(arguments.host):
        raise UserError(f"--host {arguments.host}: others can reach it; give a password by --auth FILE or {SECRET}")
    return password


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    from studio.guard import LOOPBACK

    return bool(LOOPBACK.fullmatch(host))


def listen(host: str, port: int) -> socket.socket:
    """A socket at the address.

    Raises:
        UserError: it is taken, or there is no such address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror}; choose another --port") from None
    return found


def run(arguments: argparse.Namespace) -> int:
    password = check(arguments)
    bound = listen(arguments.host, arguments.port)
    from studio.rollouts import Rollouts
    from studio.runs import Runs
    from studio.storage import Storage

    # Nothing of this is for anybody else; read by Gradio when it is imported.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    storage, rollouts = Storage(), Rollouts()
    try:
        os.environ["GRADIO_TEMP_DIR"] = str(storage.root)
        import uvicorn

        from studio.guard import Password
        from studio.server import build

        app = build(Runs(arguments.metadata), storage, rollouts, Password(*password) if password else None)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
            limit_concurrency=400,
        )
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(f"the studio: http://{host}:{arguments.port}", flush=True)
        uvicorn.Server(config).run(sockets=[bound])
    finally:
        rollouts.close()
        storage.close()
    return 0


def main(argv=None) -> int:
    with Output("studio") as output:
        arguments = parse_arguments(argv)
        with interruptible():
            status = exit_status("studio", lambda: run(arguments), "nothing is left behind")
        return output.status(status)


if __name__ == "__main__":
    sys.exit(main())
