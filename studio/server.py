"""The web server: Gradio's page behind a guard, and the files that its player asks for."""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import fastapi
import gradio as gr
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from gradio import route_utils, routes
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from errors import UserError
from studio import page
from studio.guard import Guard, Password
from studio.rollouts import Rollouts
from studio.runs import Runs, preview_file
from studio.storage import Storage

MAX_UPLOAD = 64 << 20  # bytes
STALLED = 60.0  # s without a new sample after which a stream is given up
HEADER = 44  # bytes of a WAV file before its samples
CHUNK = 1 << 16
# Gradio keeps a copy of the page's components, 0.2 MB, for each session, and 10,000 sessions unless it is told
# otherwise. Those that were used last are kept; an open page uses its own every few seconds.
MAX_SESSIONS = 100
ICON = Path(__file__).with_name("icon.png")
FORMS = {"wav": "audio/wav", "flac": "audio/flac", "mid": "audio/midi"}


def build(runs: Runs, storage: Storage, rollouts: Rollouts, password: Password | None) -> Guard:
    """The application, as ASGI."""

    @asynccontextmanager
    async def lifespan(app):
        yield
        rollouts.close()
        storage.close()

    app = fastapi.FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, runs, storage, rollouts)

    async def login(name: str, word: str) -> bool:
        if password.fits(name, word):
            return True
        await asyncio.sleep(1)  # guessing takes its time
        return False

    blocks = page.build(runs, storage, rollouts)
    blocks.queue(max_size=page.MAX_WAITING, default_concurrency_limit=None, api_open=False)
    blocks.state_session_capacity = MAX_SESSIONS  # an argument of Gradio's launch() only
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth=login if password else None,
        auth_message="nextframe studio",
        allowed_paths=[],
        favicon_path=str(ICON),
        show_error=False,  # but for sentences; nobody needs those of Gradio's insides
        max_file_size=MAX_UPLOAD,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=True,
        mcp_server=False,
        run_history=False,
        footer_links=[],
        theme=page.theme(),
        css=page.STYLE.read_text(),
        head=page.HEAD,
    )
    inner = app.routes[-1].app

    def logged_in(scope) -> bool:
        cookies = Request(scope).cookies
        names = (f"access-token-{inner.cookie_id}", f"access-token-unsecure-{inner.cookie_id}")
        return any(cookies.get(name) in inner.tokens for name in names if cookies.get(name))

    functions = blocks.fns.values()
    n_values = {key: len(fn.inputs) for fn in functions for key in (fn._id, fn.api_name) if isinstance(key, (int, str))}
    names = {
        name.strip("/"): {value["parameter_name"]: value["parameter_has_default"] for value in endpoint["parameters"]}
        for name, endpoint in blocks.get_api_info()["named_endpoints"].items()
    }
    return Guard(app, storage.root, password is None, logged_in if password else None, MAX_UPLOAD, n_values, names)


def add_routes(app: fastapi.FastAPI, runs: Runs, storage: Storage, rollouts: Rollouts):
    """Uploads under random names, previews, results. None of them takes a path from a visitor."""

    @app.post("/gradio_api/upload")
    async def upload(request: Request, upload_id: str | None = None):
        try:
            storage.check_room()
        except UserError as error:
            return PlainTextResponse(str(error), 507)
        try:
            files, _, _ = await route_utils.upload_fn(
                request,
                str(storage.new_upload()),
                MAX_UPLOAD,
                upload_id,
                upload_progress=routes.file_upload_statuses if upload_id else None,
            )
        except route_utils.MultiPartException as error:
            large = "maximum allowed size" in error.message
            text = (
                f"Larger than {MAX_UPLOAD >> 20} MB; give a smaller file." if large else "No upload that can be read."
            )
            return PlainTextResponse(text, 413 if large else 400)
        return JSONResponse(files) if files else PlainTextResponse("No upload that can be read.", 400)

    @app.get("/previews/{name}/{file}")
    def preview(name: str, file: str):
        run, (stem, _, suffix) = runs.get(name), file.partition(".")
        if run is None or run.preview_folder is None or suffix not in ("wav", "png") or not stem.isdecimal():
            return missing()
        path = preview_file(run.preview_folder, int(stem[:12]), f".{suffix}")
        if not path.is_file():
            return missing()
        return FileResponse(path, media_type="image/png" if suffix == "png" else "audio/wav", headers=CACHED)

    @app.get("/results/{token}/{file}")
    @app.head("/results/{token}/{file}")
    async def play(request: Request, token: str, file: str):
        folder, (number, _, kind) = storage.result(token), file.partition(".")
        if folder is None or kind not in ("wav", "png") or not number.isdecimal():
            return missing()
        if kind == "png":
            results = read_json(folder / "results.json") or []
            if not 1 <= int(number[:3]) <= len(results):
                return missing()
            return FileResponse((folder / results[int(number) - 1]["file"]).with_suffix(".png"), headers=CACHED)
        return await stream(request, folder, int(number[:3]))

    @app.get("/results/{token}/{number}/{form}")
    async def download(token: str, number: str, form: str):
        folder = storage.result(token)
        results = read_json(folder / "results.json") if folder else None
        if not results or form not in FORMS or not number.isdecimal() or not 1 <= int(number[:3]) <= len(results):
            return missing()
        index = int(number) - 1
        path = folder / results[index]["file"]
        try:
            if form != "wav":
                path = folder / await run_in_threadpool(rollouts.render, folder, index, form)
        except UserError as error:
            return PlainTextResponse(str(error), 422)
        return FileResponse(path, media_type=FORMS[form], filename=results[index]["download"] + path.suffix)


CACHED = {"Cache-Control": "private, max-age=3600"}


def missing() -> PlainTextResponse:
    return PlainTextResponse("There is nothing here any more.", 404)


def read_json(path: Path):
    """What a file of the worker says; None where it has not said it yet."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


async def stream(request: Request, folder: Path, number: int):
    """A continuation as a WAV file that can be played while it is being made: its length is known from the start,
    and what is not there yet is waited for."""
    live, path = read_json(folder / "live.json"), folder / f"{number}.pcm"
    if live is None or not path.is_file():
        return missing()
    width = 2 * live["channels"]
    total = HEADER + width * live["n_samples"]
    span = parse_range(request.headers.get("range"), total)
    if span is None:
        return PlainTextResponse("No such range.", 416, {"Content-Range": f"bytes */{total}"})
    first, last = span
    headers = {"Accept-Ranges": "bytes", "Content-Length": str(last - first + 1), "Cache-Control": "no-store"}
    partial = request.headers.get("range") is not None
    if partial:
        headers["Content-Range"] = f"bytes {first}-{last}/{total}"
    body = follow(path, wav_header(**live), first, last) if request.method == "GET" else iter(())
    return StreamingResponse(body, 206 if partial else 200, headers, "audio/wav")


async def follow(path: Path, header: bytes, first: int, last: int) -> AsyncIterator[bytes]:
    """The bytes from ``first`` to ``last`` of header and samples, as they come."""
    if first < HEADER:
        yield header[first : last + 1]
        first = HEADER
    waited = 0.0
    with open(path, "rb") as file:
        file.seek(first - HEADER)
        while first <= last and waited < STALLED:
            block = file.read(min(CHUNK, last - first + 1))
            if block:
                first, waited = first + len(block), 0.0
                yield block
            elif (path.parent / "results.json").exists() and os.fstat(file.fileno()).st_size <= first - HEADER:
                return  # it has been stopped before its end
            else:
                await asyncio.sleep(0.1)
                waited += 0.1


def parse_range(text: str | None, total: int) -> tuple[int, int] | None:
    """First and last byte of an HTTP range of one part; all of it without one, None where there is no such part."""
    if text is None:
        return 0, total - 1
    start, dash, stop = text.removeprefix("bytes=").partition("-")
    if not dash or not (start + stop).isdecimal():
        return None
    first, last = (int(start), int(stop or total - 1)) if start else (total - int(stop), total - 1)
    first, last = max(0, first), min(last, total - 1)
    return (first, last) if first <= last else None


def wav_header(sample_rate: int, channels: int, n_samples: int) -> bytes:
    """Of a WAV file of 16 bits."""
    width = 2 * channels
    size = width * n_samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, sample_rate, sample_rate * width, width, 16)
    return struct.pack("<4sI4s", b"RIFF", HEADER - 8 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size)
