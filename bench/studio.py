"""The studio under load: many visitors at once, and a training beside it."""

import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import os
import shutil
import socket
import statistics
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from bench import ROOT, resident_megabytes, start, table, wait_until

CHORDS = "Dm7 | G7 | Cmaj7 | A7"


@contextlib.contextmanager
def studio(metadata: Path, log=None, **environment: str):
    """A studio at a free port: its address and process. What it says on stderr goes to the file ``log``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start(
        "-m", "studio", "--metadata", metadata, "--port", port, stderr=log, env={**os.environ, **environment}
    )
    address = f"http://127.0.0.1:{port}"

    def answers():
        if process.poll() is not None:
            raise RuntimeError("the studio did not start")
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(address, timeout=10).status == 200

    try:
        wait_until(answers, 120)
        yield address, process
    finally:
        process.terminate()
        process.wait()


def connect(address: str, downloads: Path):
    from gradio_client import Client

    return Client(address, verbose=False, analytics_enabled=False, download_files=downloads)


def ask(client, seed: int, seconds: float) -> tuple[str, str]:
    """A request's end: ``result`` and the SHA-256 of its sound, or ``refused`` and the words."""
    try:
        (file,), said = client.predict(
            None, chords=CHORDS, model="chorales", length=seconds, seed=seed, api_name="/continue"
        )
    except Exception as error:  # what the client raises for an answer that is an error
        return "refused", str(error)
    if said["seed"] != seed:
        return "mixed up", str(said)
    return "result", hashlib.sha256(Path(file).read_bytes()).hexdigest()


def visitors(metadata: Path, scratch: Path, n: int, requests: int, seconds: float, waves: int) -> list[tuple]:
    """Rows about ``n`` visitors who ask at once, each for ``requests`` rollouts of ``seconds``; then others do."""
    with studio(metadata) as (address, process):
        one = connect(address, scratch)
        for seed in range(3):  # everything is loaded
            ask(one, seed, seconds)
        before = peak = resident_megabytes(process.pid)
        ends, after, begin = {}, [], time.monotonic()
        for wave in range(waves):
            clients = [connect(address, scratch) for _ in range(n)]
            first = 1000 + wave * n * requests
            with concurrent.futures.ThreadPoolExecutor(n * requests) as pool:
                asked = {
                    first + i: pool.submit(ask, clients[i // requests], first + i, seconds) for i in range(n * requests)
                }
                while not all(future.done() for future in asked.values()):
                    peak = max(peak, resident_megabytes(process.pid))
                    time.sleep(0.2)
            ends |= {seed: future.result() for seed, future in asked.items()}
            for client in clients:
                client.close()
            time.sleep(1)
            after.append(resident_megabytes(process.pid))
        took = time.monotonic() - begin
        made = {seed: digest for seed, (end, digest) in ends.items() if end == "result"}
        words = [text for end, text in ends.values() if end == "refused"]
        again = list(made)[:: max(1, len(made) // 5)]
        same = sum(ask(one, seed, seconds) == ("result", made[seed]) for seed in again)
    queued = sum("queue" in text.lower() for text in words)
    assert len(made) + queued == n * requests * waves, [e for e in ends.values() if e[0] != "result"][:5]
    assert len(set(made.values())) == len(made) and same == len(again), "results are mixed up"
    return [
        (f"{waves} times {n} visitors, {requests} requests of {seconds:g} s each at once", f"{took:.0f} s"),
        ("results, refused because the queue is full, lost", f"{len(made)}, {queued}, 0"),
        ("results that are those of another seed", f"0 (all differ; {same} of {len(again)} asked again are the same)"),
        ("memory of server and child before, at most", f"{before:.0f}, {peak:.0f} MB"),
        ("and after each time", ", ".join(f"{x:.0f}" for x in after) + " MB"),
    ]


def heard(log: Path) -> tuple[float, float]:
    """Seconds of training, and seconds of audio trained on in them."""
    for line in reversed(log.read_text().splitlines()):
        values = json.loads(line)
        if "audio_seconds_per_second" in values:
            return values["seconds"], values["seconds"] * values["audio_seconds_per_second"]
    return 0.0, 0.0


def throughput(log: Path, seconds: float) -> float:
    """Audio-seconds per second in about the next ``seconds``."""
    begin, first = heard(log)
    wait_until(lambda: heard(log)[0] > begin, 120, every=0.1)
    begin, first = heard(log)
    wait_until(lambda: heard(log)[0] >= begin + seconds, 600, every=0.1)
    end, last = heard(log)
    return (last - first) / (end - begin)


def beside(
    metadata: Path,
    recordings: Path,
    scratch: Path,
    threads: int,
    preset: str,
    rounds: int,
    seconds: float,
    length: float,
):
    """Rows about a training of ``threads`` threads, alternating without and with a studio that rolls out ``length`` s
    again and again."""
    path = metadata / f"beside-{threads}.json"
    log, ratios, speeds = metadata / path.stem / "log.jsonl", [], []
    command = ["train.py", recordings, "--metadata", path, "--preset", preset, "--minutes", 1000]
    with open(scratch / "log", "w") as stream:
        trainer = start(*command, "--threads", threads, "--save-every", 100000, "--no-preview", stderr=stream)
    try:
        wait_until(lambda: log.exists() and heard(log)[0] > 5, 600)
        alone = throughput(log, seconds)
        for _ in range(rounds):
            over = threading.Event()
            with studio(metadata) as (address, _):
                client, rolled = connect(address, scratch), []

                def roll(client=client, rolled=rolled, over=over):
                    while not over.is_set():
                        begin = time.monotonic()
                        kind, words = ask(client, len(rolled), length)
                        if kind != "result":
                            raise RuntimeError(words)
                        rolled.append(length / (time.monotonic() - begin))

                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    rolling = pool.submit(roll)
                    wait_until(lambda rolled=rolled, rolling=rolling: rolled or rolling.done(), 600)  # loaded
                    accompanied = throughput(log, seconds)
                    over.set()
                    rolling.result()
            then = throughput(log, seconds)
            ratios.append(accompanied / ((alone + then) / 2))
            speeds += rolled[1:]
            alone = then
    finally:
        trainer.terminate()
        trainer.wait()
    shutil.rmtree(log.parent)
    return (
        f"training with {threads} of {len(os.sched_getaffinity(0))} cores, beside rollouts",
        f"{statistics.median(ratios):.2f} of its throughput ({min(ratios):.2f} to {max(ratios):.2f})",
    ), (
        f"a rollout of {length:g} s meanwhile, everything included",
        f"{statistics.median(speeds):.1f} times real time" if speeds else "-",
    )


def main():
    parser = argparse.ArgumentParser(prog="bench.studio", description=__doc__)
    parser.add_argument("recordings", metavar="RECORDINGS", type=Path, help="to train on")
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--requests", type=int, default=3, help="of each visitor")
    parser.add_argument("--waves", type=int, default=3, help="of visitors, one after another")
    parser.add_argument("--length", type=float, default=2.0, help="of their continuations, in seconds")
    parser.add_argument("--rounds", type=int, default=3, help="of a training without and with the studio")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each")
    parser.add_argument("--preset", default="small", help="of that training")
    parser.add_argument("--beside", type=float, default=10.0, help="length of the continuations beside it, in seconds")
    arguments = parser.parse_args()
    n_cores, rows = len(os.sched_getaffinity(0)), []
    with tempfile.TemporaryDirectory() as folder:
        metadata, scratch = Path(folder) / "metadata", Path(folder) / "results"
        scratch.mkdir()
        shutil.copytree(ROOT / "metadata" / "chorales", metadata / "chorales")
        shutil.copy(ROOT / "metadata" / "chorales.json", metadata)
        if arguments.visitors:
            rows += visitors(
                metadata, scratch, arguments.visitors, arguments.requests, arguments.length, arguments.waves
            )
        for threads in sorted({n_cores, max(1, n_cores - 1)}, reverse=True) if arguments.rounds else ():
            measured = arguments.preset, arguments.rounds, arguments.seconds, arguments.beside
            rows += beside(metadata, arguments.recordings.resolve(), scratch, threads, *measured)
    table(rows, ("what", "measured"))


if __name__ == "__main__":
    main()
