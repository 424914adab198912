"""Two hundred requests that mean no good, at one running studio: each is refused in words, and nothing leaks."""

import contextlib
import io
import json
import os
import shutil
import socket
import zipfile
from pathlib import Path

import pytest
import regex

from conftest import PROMPT, ROOT, running_studio

pytest.importorskip("gradio", reason="Gradio is not installed (requirements-studio.txt)")
httpx = pytest.importorskip("httpx")

CANARY = "canary-5f0c9b7e"
FIELDS = ("prompt", "chords", "model", "length", "unit", "temperature", "seed", "continuations", "tempo")
FIELDS += ("meter", "key", "instrument", "form")
VALID = dict(zip(FIELDS, (None, "C", "tiny", 0.5, "seconds", 1, 0, 1, 0, "", "", "", "wav"), strict=True))
BILLION = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
JSON = {"content-type": "application/json"}
TRACES = ("Traceback", 'File "', "object at 0x", "site-packages")


class Hostile:
    """A visitor who means no good.

    Args:
        cookies: of one who has logged in.
    """

    def __init__(self, port: int, cookies=None):
        self.port, self.address = port, f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.address, timeout=60, cookies=cookies)
        self.answers: list[tuple[str, int, str]] = []

    def ask(self, method: str, path: str, **keywords) -> tuple[int, str]:
        """Status and text of an answer; 0 where the connection was closed."""
        try:
            answer = self.client.request(method, path, **keywords)
        except httpx.TransportError as error:
            return self.note(f"{method} {path}", 0, repr(error))
        return self.note(f"{method} {path}", answer.status_code, answer.text + str(dict(answer.headers)))

    def call(self, name: str = "continue", data=None, **fields) -> tuple[int, str]:
        """What a call of the programs' interface ends with: an event, or a refusal before."""
        data = list({**VALID, **fields}.values()) if data is None else data
        asked = f"{name} {str(data if len(fields) != 1 else fields)[:200]}"
        answer = self.client.post(f"/gradio_api/call/{name}", content=json.dumps({"data": data}), headers=JSON)
        if answer.status_code == 200:
            answer = self.client.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}")
        return self.note(asked, answer.status_code, answer.text)

    def raw(self, request: bytes) -> tuple[int, str]:
        """The answer to bytes that no client would send."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            parts = []
            with contextlib.suppress(OSError):
                while block := connection.recv(1 << 16):
                    parts.append(block)
        text = b"".join(parts).decode("latin-1")
        status = regex.match(r"HTTP/1\.1 (\d{3})", text)
        return self.note(str(request[:150]), int(status[1]) if status else 0, text)

    def upload(self, name: str, blob: bytes) -> tuple[int, str]:
        """Status and, where it was taken, the file's path."""
        answer = self.client.post("/gradio_api/upload", files={"files": (name, blob)})
        return answer.status_code, answer.json()[0] if answer.status_code == 200 else answer.text

    def note(self, asked: str, status: int, text: str) -> tuple[int, str]:
        self.answers.append((asked, status, text))
        return status, text


def refused(status: int, text: str, words: bool = False) -> bool:
    """A status of 4xx (507: no room), or (with ``words``, only this) an event that is an error with a sentence."""
    if 400 <= status < 500 or status == 507:
        return not words
    event = regex.search(r"event: error\ndata: (.*)", text)
    said = (json.loads(event[1]) or {}).get("error", "") if status == 200 and event else ""
    return bool(said) or (said is None and not words)  # None: Gradio's own refusals tell no more


@pytest.fixture(scope="module")
def home(tiny_run, tmp_path_factory) -> Path:
    """Where the studio lives: ``metadata`` and ``tmp``, with secrets beside them."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_run.parent, home / "metadata", ignore=shutil.ignore_patterns("pcm-*", "tensorboard"))
    (home / "tmp").mkdir()
    for name in ("canary.txt", "canary.json", "canary.mid", "metadata/canary.txt", "tmp/canary.wav"):
        (home / name).write_text(CANARY)
    (home / "password").write_text("me:correct horse\n" + CANARY)
    return home


@contextlib.contextmanager
def started(home: Path, *arguments):
    with (
        open(home / "log", "a") as log,
        running_studio(home / "metadata", *arguments, log=log, TMPDIR=str(home / "tmp")) as address,
    ):
        yield int(address.rpartition(":")[2])


@pytest.fixture(scope="module")
def visitor(home):
    with started(home) as port:
        yield Hostile(port)


@pytest.fixture(scope="module")
def listing(home, visitor):
    """Every file outside the studio's own folder, with size and time, before anything was asked."""
    return outside(home)


def outside(home: Path) -> dict:
    """Of the studio's home and of the project."""
    found = {}
    for top in (home, ROOT):
        for folder, names, files in os.walk(top):
            names[:] = [n for n in names if n[0] != "." and n not in ("__pycache__", "out")]
            names[:] = [n for n in names if not n.startswith("nextframe-studio-")]
            for name in files:
                status = os.stat(os.path.join(folder, name))
                found[os.path.join(folder, name)] = status.st_size, status.st_mtime_ns
    found.pop(str(home / "log"), None)
    return found


def own_folder(home: Path) -> Path:
    (root,) = (home / "tmp").glob("nextframe-studio-*")
    return root


def expect(visitor: Hostile, n: int, may_close: bool = False, words: bool = False):
    """That the last ``n`` answers are refusals; with ``words``, of the studio's function itself."""
    assert len(visitor.answers) >= n
    wrong = [
        (asked, status, text[:300])
        for asked, status, text in visitor.answers[-n:]
        if not refused(status, text, words) and not (may_close and status == 0)
    ]
    assert not wrong, "\n".join(map(str, wrong))


pytestmark = pytest.mark.usefixtures("listing")


def test_files_outside_and_of_others(visitor, home):
    root, n = own_folder(home), len(visitor.answers)
    up, deep = "../" * 8, "..%2f" * 8
    targets = [f"{home}/canary.txt", "/etc/passwd", f"{root}/../canary.wav", f"{root}/lock", str(root), f"{root}/"]
    targets += [f"{root}/results", f"{root}/results/{'0' * 32}/x.wav", f"{root}/{'f' * 32}/p.mid", f"{up}etc/passwd"]
    targets += [f"{root}/%2e%2e/canary.wav", f"{root}/..%2fcanary.wav", f"{root}//../canary.wav", f"{root}/%00"]
    targets += [f"{root}/..\\canary.wav", f"file://{home}/canary.txt", "http://127.0.0.1:1/x", "\\\\host\\share"]
    targets += [f"{home}/password", f"{home}/metadata/canary.txt", "/proc/self/environ", "/dev/zero", "C:/x", "."]
    for target in targets:
        visitor.ask("GET", f"/gradio_api/file={target}")
    for route in ("file", "file/", "stream/a/b/c/playlist.m3u8", "proxy=http://127.0.0.1:1/", "component_server"):
        visitor.ask("GET", f"/gradio_api/{route}")
    for route in ("static", "assets", "svelte", "custom_component", "results", "previews", "theme.css", "pwa_icon"):
        for target in (f"{deep}etc/passwd", f"{deep}{str(home)[1:]}/canary.txt", "%2e%2e/%2e%2e/canary.txt"):
            visitor.ask("GET", f"/{route}/{target}")
    for name in ("tiny", "..", "%2e%2e%2fcanary", "canary", "tiny%00"):
        visitor.ask("GET", f"/previews/{name}/..%2f..%2fcanary.txt")
        visitor.ask("GET", f"/previews/{name}/99999999999999999999.wav")
    for token in ("0" * 32, "..", "%2e%2e", "a" * 31, "A" * 32, "*", "%00" * 32):
        visitor.ask("GET", f"/results/{token}/1.wav")
        visitor.ask("GET", f"/results/{token}/1/mid")
    expect(visitor, len(visitor.answers) - n)


def test_hosts_origins_methods_and_headers(visitor):
    n = len(visitor.answers)
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "0.0.0.0",
        "[::2]",
        "",
        "../..",
    ):
        visitor.ask("GET", "/config", headers={"host": host})
    for origin in ("http://evil.example", "null", "file://", "http://127.0.0.1:1", "http://localhost.evil.example"):
        visitor.ask("POST", "/gradio_api/run/runs", json={"data": []}, headers={"origin": origin})
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"):
        visitor.ask(method, "/")
    for range_ in ("bytes=9-1", "bytes=-", "x"):
        visitor.ask("GET", f"/results/{'0' * 32}/1.wav", headers={"range": range_})
    expect(visitor, len(visitor.answers) - n)
    n, port = len(visitor.answers), visitor.port
    end = f"\r\nHost: 127.0.0.1:{port}\r\n".encode()
    visitor.raw(b"GET /../../../etc/passwd HTTP/1.1" + end + b"Connection: close\r\n\r\n")
    visitor.raw(b"GET /gradio_api/file=/etc/passwd\x00.wav HTTP/1.1" + end + b"Connection: close\r\n\r\n")
    visitor.raw(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    visitor.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(99))
    visitor.raw(b"GET / HTTP/1.1" + end + b"X: " + b"a" * (1 << 18) + b"\r\n\r\n")
    visitor.raw(b"POST /gradio_api/run/runs HTTP/1.1" + end + b"Content-Length: -1\r\n\r\n{}")
    visitor.raw(b"POST /gradio_api/run/runs HTTP/1.1" + end + b"Content-Length: 4\r\nContent-Length: 40\r\n\r\n{}")
    visitor.raw(b"POST /gradio_api/run/runs HTTP/1.1" + end + b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n{")
    expect(visitor, len(visitor.answers) - n, may_close=True)
    # Names that a proxy would set change nothing of what is refused.
    lies = {"x-forwarded-host": "evil.example", "x-forwarded-for": "../../x", "x-gradio-user": "admin"}
    status, text = visitor.ask("GET", "/", headers={**lies, "x-forwarded-proto": "javascript"})
    assert status == 200 and "evil.example" not in text and "javascript://" not in text


def test_numbers(visitor):
    n = len(visitor.answers)
    for name in ("length", "temperature", "seed", "continuations", "tempo"):
        for value in (-1, 1e308, float("nan"), float("inf"), "many", [1], {"a": 1}):
            visitor.call(**{name: value})
    visitor.call(length=1.5, unit="bars")
    visitor.call(length=600, continuations=8)
    visitor.call(seed=2**64)
    visitor.call(continuations=1.5)
    visitor.call(seed=10**400)
    expect(visitor, len(visitor.answers) - n, words=True)


def test_texts(visitor, home):
    n = len(visitor.answers)
    path = f"{home}/canary"
    for model in (
        path,
        f"{path}.json",
        "../canary",
        "tiny/../../canary",
        "tiny\x00",
        "@before",
        "x" * 5000,
        ["tiny"],
        7,
    ):
        visitor.call(model=model)
    for chords in (path, "C\x00\x1b[31m", "x" * 2001, "C " * 500_000, ["C"], {"a": "C"}, "<script>", "C | %n%s"):
        visitor.call(chords=chords)
    for name in ("unit", "meter", "form"):
        for value in ("../../x", "\x00", ["wav"], {"a": "b"}):
            visitor.call(**{name: value})
    for name in ("key", "instrument"):
        for value in ("../../../etc/passwd", "\x1b]0;x\x07", "x" * 3000, [1]):
            visitor.call(**{name: value}, chords="i V")
    expect(visitor, len(visitor.answers) - n, words=True)


def test_calls_of_another_shape(visitor, home):
    n, post = len(visitor.answers), "/gradio_api/call/continue"
    for data in ([], list(VALID.values())[:-1], [*VALID.values(), *range(1000)], {}, "x", None, 5):
        visitor.call(data=data if data is not None else [None])
    for body in (b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", b"[" * 100_000, b'{"data": [1e999999]'):
        visitor.ask("POST", post, content=body, headers=JSON)
    for file in (
        {"path": f"{home}/canary.mid"},
        {"path": "/etc/passwd"},
        {"path": f"{own_folder(home)}/../canary.wav"},
    ):
        visitor.call(prompt=file, chords="")
        visitor.call(prompt={"url": "http://127.0.0.1:1/x", **file}, chords="")
    for file in (f"{home}/canary.mid", ["x"], 5, {"path": f"{own_folder(home)}/lock"}, {"url": "http://127.0.0.1:1/"}):
        visitor.call(prompt=file, chords="")
    visitor.call(prompt={"path": f"{own_folder(home)}/{'0' * 32}/p.mid"}, chords="")
    for name in ("nothing", "continue_now", "lambda", "compare", "stop"):
        visitor.ask("POST", f"/gradio_api/call/{name}", json={"data": []})
    for index in (-1, 999, "x", 1.5, 2**70, None):
        body = {"data": [], "fn_index": index, "session_hash": "nobody"}
        visitor.ask("POST", "/gradio_api/queue/join", json=body)
    named = "/gradio_api/call/v2/continue"
    for body in (
        {},
        {"prompt": None, "evil": 1},
        [],
        7,
        {"chords": "C", "fn_index": 0},
        {"prompt": {"path": "/etc/passwd"}},
    ):
        assert visitor.ask("POST", named, json=body)[0] in (403, 422), body
    assert visitor.ask("POST", "/gradio_api/call/v2/nothing", json={})[0] in (404, 422)
    expect(visitor, len(visitor.answers) - n)
    assert visitor.ask("POST", post, content=b"{" + b" " * (2 << 20), headers=JSON)[0] in (0, 413)
    # Streams end without a word.
    visitor.ask("GET", "/gradio_api/call/continue/00000000000000000000000000000000")
    visitor.ask("GET", "/gradio_api/queue/data", params={"session_hash": "nobody"})
    visitor.ask("GET", "/gradio_api/queue/data")
    for _, status, text in visitor.answers[-3:]:
        assert status in (0, 404, 422) or ("path" not in text and "complete" not in text)


def bombs() -> dict[str, bytes]:
    """Prompts that would fill memory or take for ever."""
    entities = f"<?xml version='1.0'?><!DOCTYPE score-partwise [<!ENTITY l0 'x'>{BILLION}]>"
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        container = '<container><rootfiles><rootfile full-path="s.xml"/></rootfiles></container>'
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("s.xml", b" " * (200 << 20))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        outside = '<container><rootfiles><rootfile full-path="../../canary.txt"/></rootfiles></container>'
        archive.writestr("META-INF/container.xml", outside)
        archive.writestr("../../written.txt", b"x")
    stolen = "<?xml version='1.0'?><!DOCTYPE s [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><score-partwise>&x;"
    return {
        "laughs.musicxml": (entities + "<score-partwise>&l9;</score-partwise>").encode(),
        "outside.musicxml": (stolen + "</score-partwise>").encode(),
        "deep.xml": b"<score-partwise>" + b"<a>" * 500_000,
        "bomb.mxl": inner.getvalue(),
        "slip.mxl": out.getvalue(),
        "long.mid": b"MThd\0\0\0\x06\0\0\0\x01\0\x60MTrk\xff\xff\xff\xff\0",
        "noise.mp3": os.urandom(4096),
        "huge.wav": b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0"
        + b"\xff" * 6
        + bytes(6)
        + b"\x10\0data\xff\xff\xff\xff",
        "empty.flac": b"",
        "page.html": b"<script>alert(1)</script>",
    }


def test_prompts_that_are_bombs(visitor):
    n = len(visitor.answers)
    for name, blob in bombs().items():
        status, path = visitor.upload(name, blob)
        if status == 200:
            visitor.call(prompt={"path": path, "meta": {"_type": "gradio.FileData"}}, chords="")
        else:
            visitor.note(name, status, path)
    expect(visitor, len(visitor.answers) - n)


def test_names_of_uploads(visitor, home):
    root = own_folder(home)
    for name in (
        "../../../canary.txt",
        "..",
        "a/b\\c.mid",
        "\x1b[31m\n.mid",
        "%00.mid",
        ".htaccess",
        "é" * 200,
        "a" * 900,
    ):
        status, text = visitor.upload(name, b"x")
        visitor.note(f"upload {name!r}", status, text)
        if status == 200:
            path = Path(text)
            assert path.resolve() == path and root in path.parents and path.read_bytes() == b"x"
            assert path.name.isprintable()
        else:
            assert 400 <= status < 500
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    n = len(visitor.answers)
    visitor.ask("POST", "/gradio_api/upload", content=b"--x\r\nContent-Disposition: form-data\r\n", headers=boundary)
    visitor.ask("POST", "/gradio_api/upload", content=b"no parts", headers=boundary)
    visitor.ask("POST", "/gradio_api/upload", content=b"{}", headers={"content-type": "application/json"})
    visitor.ask("POST", "/gradio_api/upload", content=b"x", headers={"content-type": "multipart/form-data"})
    expect(visitor, len(visitor.answers) - n)


def test_uploads_that_are_too_large(visitor, home):
    """A gigabyte that is declared is refused before it comes; one that just comes, as soon as it is too much."""
    before = sum(path.stat().st_size for path in (home / "tmp").rglob("*") if path.is_file())
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{visitor.port}\r\nConnection: close\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n"
    status, _ = visitor.raw(f"{head}Content-Length: {1 << 30}\r\n\r\n--x\r\n".encode())
    assert status == 413
    part, sent = bytes(1 << 20), 0

    def streamed():
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="p.wav"\r\n\r\n'
        for _ in range(1024):
            sent += len(part)
            yield part

    status, _ = visitor.ask(
        "POST", "/gradio_api/upload", content=streamed(), headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert status in (0, 413) and sent < 160 << 20
    after = sum(path.stat().st_size for path in (home / "tmp").rglob("*") if path.is_file())
    assert after - before < 1 << 20


def test_who_does_not_know_the_password(home):
    with started(home, "--auth", home / "password") as port:
        nobody, root = Hostile(port), max((home / "tmp").glob("nextframe-studio-*"), key=os.path.getmtime)
        for path in ("info", "queue/data?session_hash=x", f"file={root}/lock", "call/continue/x", "heartbeat/x"):
            nobody.ask("GET", f"/gradio_api/{path}")
        for path in ("queue/join", "call/continue", "call/runs", "run/runs", "upload", "reset", "cancel"):
            nobody.ask("POST", f"/gradio_api/{path}", json={"data": []})
        for path in (f"results/{'0' * 32}/1.wav", "previews/tiny/12.wav"):
            nobody.ask("GET", f"/{path}", headers={"cookie": "access-token=x; access-token-unsecure=x"})
        for name, word in (("me", "wrong horse"), ("me", ""), ("", ""), ("me\x00", "correct horse"), ("é", "' OR 1=1")):
            nobody.ask("POST", "/login", data={"username": name, "password": word})
        expect(nobody, len(nobody.answers))
        assert "tiny" not in nobody.ask("GET", "/config")[1] and "tiny" not in nobody.ask("GET", "/")[1]
        inside = Hostile(port)
        assert inside.ask("POST", "/login", data={"username": "me", "password": "correct horse"})[0] == 200
        assert inside.call("runs", [])[0] == 200 and CANARY not in str(nobody.answers + inside.answers)


def test_after_all_of_it(visitor, home, listing):
    """It works as before, and neither told nor touched anything."""
    status, text = visitor.call()
    assert status == 200 and "event: complete" in text and '"step": 12' in text
    path = visitor.upload("bach.musicxml", PROMPT.read_bytes())[1]
    assert "event: complete" in visitor.call(prompt={"path": path, "meta": {"_type": "gradio.FileData"}}, chords="")[1]
    assert len(visitor.answers) >= 200
    for asked, _, text in visitor.answers:
        assert CANARY not in text and "root:" not in text, asked
        assert not any(word in text for word in TRACES), (asked, text)
    assert outside(home) == listing
