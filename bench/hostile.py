"""Thousands of random requests that mean no good, at one running studio.

Calls with values of every wrong kind, paths out of its folder, uploads of mutated scores, MIDI and audio files, and
HTTP that no client would send. Each must be answered, or its connection closed, within a minute, without a traceback or
a word of the files beside the studio; afterwards a good request must be answered as before, no file outside the
studio's folder may have changed, and memory and open files are compared with those of before.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

import psutil
import regex

from bench import ROOT, resident_megabytes, table
from bench.fuzz_audio import mutate as mutate_audio
from bench.fuzz_audio import seeds as sounds
from bench.fuzz_scores import mutate as mutate_score
from bench.fuzz_scores import seeds as scores
from bench.fuzzing import change_bytes
from bench.studio import studio

SECRET = "secret-41c2a9d0"
VALID = {
    "prompt": None,
    "chords": "C",
    "model": "chorales",
    "length": 0.2,
    "unit": "seconds",
    "temperature": 1,
    "seed": 0,
    "continuations": 1,
    "tempo": 0,
    "meter": "",
    "key": "",
    "instrument": "",
    "form": "wav",
}
NUMBERS = [-1, 0, 1.5, 1e308, -1e308, float("nan"), float("inf"), 2**64, 10**300, "0x10", "many", "\u0663"]
TEXTS = [
    "",
    "\0",
    "../../x",
    "/etc/passwd",
    "<script>",
    "%s%n",
    "x" * 5000,
    "\x1b[31m",
    "\ud83c\udfb5" * 99,
    "C | " * 400,
]
SHAPES = [None, True, [], [1], {}, {"a": 1}, [[[]]], {"path": "/etc/passwd"}, {"__type__": "x"}]
TRACES = ("Traceback", 'File "', "object at 0x", "site-packages")


def call(client, data) -> tuple[int, str]:
    """The end of a call of the programs' interface: an event, or a refusal before."""
    answer = client.post(
        "/gradio_api/call/continue", content=json.dumps({"data": data}), headers={"content-type": "application/json"}
    )
    if answer.status_code == 200:
        answer = client.get(f"/gradio_api/call/continue/{answer.json()['event_id']}")
    return answer.status_code, answer.text


def wrong_call(client, chance, home) -> tuple[int, str]:
    """Values of other kinds in one to three of the fields, or a list of another length."""
    data = dict(VALID)
    for name in chance.sample(list(VALID), chance.choice([1, 1, 2, 3])):
        data[name] = chance.choice([*NUMBERS, *TEXTS, *SHAPES, f"{home}/secret.txt", {"path": f"{home}/secret.mid"}])
    values = list(data.values())
    return call(client, values if chance.random() < 0.9 else values[: chance.randrange(14)] * chance.choice([1, 3]))


def wrong_path(client, chance, home) -> tuple[int, str]:
    """Roads out of the studio's folder, spelled in many ways."""
    up = chance.choice(["../", "..%2f", "%2e%2e/", "..\\", "%252e%252e/", "....//"]) * chance.randrange(1, 12)
    target = chance.choice(
        ["etc/passwd", f"{str(home)[1:]}/secret.txt", "proc/self/environ", "secret.wav", "%00", "lock"]
    )
    route = chance.choice(
        ["gradio_api/file=", "gradio_api/file=/", "static/", "assets/", "results/", "previews/", "previews/chorales/",
         f"results/{'0' * 32}/", "svelte/", "custom_component/", "gradio_api/proxy=http://127.0.0.1:1/", ""]
    )  # fmt: skip
    method = chance.choice(["GET"] * 8 + ["PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"])
    headers = {chance.choice(["host", "origin", "range", "x-forwarded-host", "cookie", "referer"]): chance.choice(
        ["evil.example", "null", "bytes=9-1", "http://evil.example", "a" * 9000, "../.."]
    )} if chance.random() < 0.3 else {}  # fmt: skip
    answer = client.request(method, f"/{route}{up}{target}", headers=headers)
    return answer.status_code, answer.text


def wrong_upload(client, chance, home) -> tuple[int, str]:
    """A mutated prompt, under a name of any kind; if it is taken, it is to be continued."""
    kind, blob = chance.choice(chance.choice([scores(), sounds()]))
    blob = mutate_score(kind, blob, chance) if kind in ("xml", "midi") else mutate_audio(blob, chance)
    ending = chance.choice([{"midi": "mid"}.get(kind, kind)] * 4 + ["wav", "mid", "musicxml", "mxl", "html", ""])
    name = chance.choice(["p", "../p", "\x1b[31m", "é" * 50, "a" * 900, "p\r\nx: y"]) + "." + ending
    answer = client.post("/gradio_api/upload", files={"files": (name, blob)})
    if answer.status_code != 200:
        return answer.status_code, answer.text
    file = {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}
    return call(client, list({**VALID, "prompt": file, "chords": ""}.values()))


def wrong_bytes(client, chance, home) -> tuple[int, str]:
    """A request whose bytes are flipped, cut out or doubled."""
    body = json.dumps({"data": list(VALID.values())}).encode()
    request = (
        b"POST /gradio_api/call/continue HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        % client.base_url.port
    )
    request += b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for _ in range(chance.choice([1, 2, 5])):
        request = change_bytes(request, chance)
    with socket.create_connection(("127.0.0.1", client.base_url.port), 30) as connection:
        connection.settimeout(60)
        parts = []
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while block := connection.recv(1 << 16):
                parts.append(block)
    text = b"".join(parts).decode("latin-1")
    status = regex.match(r"HTTP/1\.1 (\d{3})", text)
    return int(status[1]) if status else 0, text


KINDS = {"calls": wrong_call, "paths": wrong_path, "uploads": wrong_upload, "bytes": wrong_bytes}


def fault(status: int, text: str) -> str | None:
    """What is wrong with an answer; None of one that is as it should be."""
    if status >= 500 and status not in (503, 507):  # busy, and no room
        return f"status {status}"
    if SECRET in text or "root:x:" in text:
        return "tells a secret"
    return next((f"tells {trace!r}" for trace in TRACES if trace in text), None)


def files(home: Path) -> dict:
    """Of everything beside the studio's own folder: size and time."""
    found = [p for p in home.rglob("*") if p.is_file() and "nextframe-studio-" not in str(p)]
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in found}


def own_traces(log: str) -> int:
    """Tracebacks of the studio itself in its log; Gradio writes one for each value that it refuses."""
    blocks = log.split("Traceback (most recent call last):")[1:]
    return sum(any(f"{ROOT}/{name}" in block for name in ("studio/", "predict", "takes", "prompt")) for block in blocks)


def good(client) -> str:
    """What a good request gets: the SHA-256 of its sound."""
    status, text = call(client, list(VALID.values()))
    url = regex.search(r'"url": ?"([^"]+)"', text)
    if status != 200 or url is None:
        raise RuntimeError(f"a good request is refused: {text[:500]}")
    return hashlib.sha256(client.get(url[1]).content).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import httpx

    counts: dict[str, collections.Counter] = {kind: collections.Counter() for kind in KINDS}
    bad, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(ROOT / "metadata" / "chorales", home / "metadata" / "chorales")
        shutil.copy(ROOT / "metadata" / "chorales.json", home / "metadata")
        (home / "tmp").mkdir()
        for name in ("secret.txt", "secret.mid", "metadata/secret.txt", "tmp/secret.wav"):
            (home / name).write_text(SECRET)
        with (
            open(home / "tmp" / "nextframe-studio-log", "w+") as log,
            studio(home / "metadata", log, TMPDIR=str(home / "tmp")) as (address, process),
        ):
            client = httpx.Client(base_url=address, timeout=120)
            answer, before = good(client), files(home)
            server = psutil.Process(process.pid)
            figures = [(resident_megabytes(process.pid), server.num_fds())]
            for i in range(arguments.requests):
                chance = random.Random(f"{arguments.seed} {i}")
                kind = chance.choice(list(KINDS))
                begin = time.monotonic()
                try:
                    status, text = KINDS[kind](client, chance, home)
                except httpx.RemoteProtocolError as error:
                    status, text = 0, str(error)
                except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError, ValueError):
                    counts[kind]["not sent"] += 1  # the client itself cannot say it
                    continue
                took = time.monotonic() - begin
                slowest = max(slowest, took)
                wrong = fault(status, text) or (f"took {took:.0f} s" if took > 60 else None)
                ended = "error" if "event: error" in text else "complete" if "event: complete" in text else None
                counts[kind][wrong or ended or f"{status // 100}xx" * (status > 0) or "closed"] += 1
                if wrong:
                    bad += 1
                    print(f"request {i} ({kind}): {wrong}\n{text[:1000]}", file=sys.stderr)
                if (i + 1) % max(1, arguments.requests // 4) == 0:
                    figures.append((resident_megabytes(process.pid), server.num_fds()))
            same = good(client) == answer
            changed = {path for path, status in (files(home).items() ^ before.items())}
            log.seek(0)
            n_traces = own_traces(log.read())
            studio_files = sum(p.stat().st_size for p in (home / "tmp").rglob("*") if p.is_file()) / 1e6
    outcomes = sorted(set().union(*counts.values()))
    table(
        [(kind, sum(c.values()), *(c[o] for o in outcomes)) for kind, c in counts.items()],
        ("kind", "requests", *outcomes),
    )
    print(f"slowest: {slowest:.1f} s; not as they should be: {bad}; the same answer afterwards: {same}")
    print(f"files outside changed: {len(changed)}; in the studio's folder {studio_files:.1f} MB")
    print(f"tracebacks of its own in its log: {n_traces}")
    print("memory of server and child, open files: " + "; ".join(f"{mb:.0f} MB, {fds}" for mb, fds in figures))
    return 1 if bad or changed or n_traces or not same else 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
