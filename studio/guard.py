"""What the server refuses before anything else sees it."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import regex
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

LOOPBACK = regex.compile(r"localhost|127(\.\d{1,3}){3}|\[?::1\]?")
MAX_BODY = 1 << 20  # bytes of a request that is no upload

# Gradio answers at many more addresses; these are what the page and its clients need.
_OPEN = regex.compile(r"/|/(config|theme\.css|robots\.txt|manifest\.json|favicon\.ico|login|logout)/?|/pwa_icon(/\d+)?")
_ASSETS = regex.compile(r"/(static|assets|svelte)/[\w./@+-]+")
_API = regex.compile(
    r"/gradio_api/(info|openapi\.json|user|login_check|app_id|startup-events|theme\.css|queue/(join|data|status)|reset"
    r"|cancel|upload|upload_progress|heartbeat/\w+|run/predict|(call|call/v2|run|api)/(continue|runs)(/\w+)?)/?"
)
_CALL = regex.compile(r"/gradio_api/(?:queue/join|run/predict|(?:call|run|api)/(\w+))/?")
_NAMED_CALL = regex.compile(r"/gradio_api/call/v2/(\w+)/?")
_OWN = regex.compile(r"/(results|previews)/[^/]+/[\w.-]+(/[\w.-]+)?")
_PUBLIC_API = ("/gradio_api/user", "/gradio_api/login_check", "/gradio_api/app_id", "/gradio_api/startup-events")
_UNBELIEVED = (b"x-forwarded-host", b"x-forwarded-server")  # anybody can send them, and Gradio would link there
_ICON = regex.compile(r"/pwa_icon/(\d+)")

# The browser asks nobody else, whatever a script may want.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(), camera=(), geolocation=()",
}


@dataclass(frozen=True)
class Password:
    """A name and its password."""

    name: str
    password: str

    def fits(self, name: str, password: str) -> bool:
        """In a time that tells nothing."""
        same = secrets.compare_digest(name.encode(), self.name.encode())
        return secrets.compare_digest(password.encode(), self.password.encode()) and same


class Guard:
    """ASGI middleware: refuses foreign hosts and origins, addresses that the page has no use for, large bodies, and
    whoever has not logged in; adds the headers that keep the browser here.

    Args:
        app: what answers the rest.
        files: the folder out of which Gradio may open and serve files.
        local: whether only this machine's own names are answered to; the defence against DNS rebinding, where no
            password is.
        logged_in: of a scope, whether its visitor is; None without a password.
        max_upload: bytes.
        n_values: how many values each function takes, by its number and by its name.
        names: of the values that each named function takes, and whether it can do without.
    """

    def __init__(
        self, app, files: Path, local: bool, logged_in, max_upload: int, n_values: dict | None = None, names=None
    ):
        self.app, self.root, self.local = app, files, local
        self.logged_in, self.max_upload, self.n_values = logged_in, max_upload, n_values
        self.names = names or {}

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] not in _UNBELIEVED]}
        refusal = self._refusal(scope)
        if refusal:
            await refuse(*refusal)(scope, receive, send)
            return
        upload, n_bytes = scope["path"].startswith("/gradio_api/upload"), 0

        async def bounded():
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            return {"type": "http.disconnect"} if n_bytes > self.max_upload + MAX_BODY else message

        if scope["method"] == "POST" and not upload:
            body = await self._body(receive)
            refusal = (413, "This request is too long.") if body is None else self._body_refusal(scope["path"], body)
            if refusal:
                await refuse(*refusal)(scope, receive, send)
                return
            bounded = replayed(body, receive)

        async def marked(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if message["status"] == 413:
                    headers["Connection"] = "close"
            await send(message)

        await self.app(scope, bounded, marked)

    def _refusal(self, scope) -> tuple[int, str] | None:
        path, headers = scope["path"], Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.local and not LOOPBACK.fullmatch(host.rsplit(":", 1)[0] if not host.endswith("]") else host):
            return 403, "This studio answers to localhost only."
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "Requests from other pages are not answered."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "Only GET, HEAD and POST are answered."
        icon = _ICON.fullmatch(path)
        if icon and int(icon[1]) not in (192, 512):
            return 404, "There is nothing here."
        if not self._is_known(path):
            return 404, "There is nothing here."
        try:
            n_bytes = int(headers.get("content-length", 0))
        except ValueError:
            return 400, "The length of the request is no number."
        upload = path.rstrip("/") == "/gradio_api/upload"
        if n_bytes > (self.max_upload + MAX_BODY if upload else MAX_BODY):
            return 413, f"Larger than {self.max_upload >> 20} MB; give a smaller file."
        if self.logged_in and not self._is_public(path) and not self.logged_in(scope):
            return 401, "Log in first."
        return None

    @staticmethod
    async def _body(receive) -> bytes | None:
        """All of it; None where it is too long or never ends."""
        parts, n_bytes, more = [], 0, True
        while more:
            message = await receive()
            more = message.get("more_body", False) and message["type"] == "http.request"
            parts.append(message.get("body", b""))
            n_bytes += len(parts[-1])
            if n_bytes > MAX_BODY:
                return None
        return b"".join(parts)

    def _body_refusal(self, path: str, body: bytes) -> tuple[int, str] | None:
        """Gradio opens files, and fetches addresses, that a request names: only those that were uploaded may be. And
        what it says of calls of another shape tells too much."""
        called, named = _CALL.fullmatch(path), _NAMED_CALL.fullmatch(path)
        if not called and not named and not body.lstrip().startswith((b"{", b"[")):
            return None
        try:
            waiting = [json.loads(body)]
        except (ValueError, RecursionError):
            return 400, "This request cannot be read."
        if called and self.n_values is not None:
            asked = waiting[0] if isinstance(waiting[0], dict) else {}
            name = called[1] or asked.get("fn_index")
            n = self.n_values.get(name) if type(name) in (int, str) else None
            values = asked.get("data", [])
            if n is None or (not called[1] and not isinstance(asked.get("session_hash"), str)):
                return 422, "There is no such function."
            if not isinstance(values, list) or len(values) != n:
                return 422, f"This function takes a list of {n} values."
        if named and self.names:
            names, asked = self.names.get(named[1]), waiting[0]
            if names is None or not isinstance(asked, dict):
                return 422, "There is no such function, or no values for it."
            missing = [name for name, spare in names.items() if not spare and name not in asked]
            unknown = [name for name in asked if name not in (*names, "session_hash")]
            if missing or unknown:
                return 422, f"This function takes {', '.join(names)}."
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                path = value.get("path")
                if path is not None and not (isinstance(path, str) and self._is_file(path)):
                    return 403, "Give a file that has been uploaded."
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
        return None

    def _is_file(self, path: str) -> bool:
        folder, _, name = path.removeprefix(f"{self.root}/").partition("/")
        return path.startswith(f"{self.root}/") and bool(folder and name) and ".." not in path.split("/")

    def _is_known(self, path: str) -> bool:
        file = path.removeprefix("/gradio_api/file=")
        if file != path:
            return self._is_file(file)
        patterns = (_OPEN, _ASSETS, _API, _OWN)
        return ".." not in path and any(pattern.fullmatch(path) for pattern in patterns)

    @staticmethod
    def _is_public(path: str) -> bool:
        plain = path.rstrip("/") or "/"
        return bool(_OPEN.fullmatch(path) or _ASSETS.fullmatch(path)) or plain in _PUBLIC_API


def refuse(status: int, text: str) -> PlainTextResponse:
    """A refusal; what is too long is not listened to until its end."""
    return PlainTextResponse(text, status, HEADERS | ({"Connection": "close"} if status == 413 else {}))


def replayed(body: bytes, receive):
    """An ASGI ``receive`` that gives a body that has been read already, then what comes."""
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message():
        return pending.pop() if pending else await receive()

    return next_message
