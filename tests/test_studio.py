"""The studio's server: what may be asked for, what it refuses, what it keeps, and its child process."""

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile

pytest.importorskip("gradio", reason="Gradio is not installed (requirements-studio.txt)")

from starlette.requests import Request
from starlette.responses import JSONResponse

from config import FeaturizerConfig
from conftest import PROMPT, ROOT, run, wait_for
from errors import UserError
from studio.__main__ import check, parse_arguments, read_password
from studio.guard import HEADERS, MAX_BODY, Guard, Password
from studio.job import MAX_SEED, MAX_TITLE, Job, chords_title, download_name, plain_name, sentence, take_name
from studio.picture import MIN_COLUMNS, SHOWN_PROMPT, Peaks, peaks_of, spectrogram
from studio.rollouts import Rollouts
from studio.runs import Runs
from studio.server import HEADER, MAX_SESSIONS, build, follow, parse_range, wav_header
from studio.storage import Storage, remove_left_behind
from studio.worker import NICE

httpx = pytest.importorskip("httpx")
ROOT_OF_FILES = Path("/tmp/nextframe-studio-test")


# -- what may be asked for ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 0},
        {"length": 601},
        {"length": float("nan")},
        {"length": "10"},
        {"length": None},
        {"length": 1.5, "unit": "bars"},
        {"length": 10, "unit": "hours"},
        {"length": 600, "continuations": 3},
        {"continuations": 0},
        {"continuations": 9},
        {"continuations": 1.5},
        {"temperature": -0.1},
        {"temperature": float("inf")},
        {"seed": -1},
        {"seed": MAX_SEED + 1},
        {"seed": True},
        {"tempo": -1},
        {"tempo": "96"},
        {"start": True},
        {"meter": "4/5"},
        {"chords": "C " * 2000},
        {"start": 3.0, "stop": 2.0},
        {"prompt": None},
    ],
)
def test_a_job_beyond_its_limits(wrong):
    with pytest.raises(UserError) as error:
        Job(**{"metadata": "m.json", "prompt": "p.mid", **wrong}).checked()
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_a_job_within_its_limits():
    job = Job("m.json", "p.mid", length=600, seed=MAX_SEED, continuations=2.0, temperature=0).checked()
    assert (job.length, job.seed, job.continuations) == (600.0, MAX_SEED, 2)
    assert isinstance(job.continuations, int)


@pytest.mark.parametrize("nothing", [None, 0, 0.0, ""])
def test_an_empty_number_is_not_given(nothing):
    """Gradio sends null where a number has been emptied, and 0 where an empty one has just been shown."""
    job = Job("m.json", "p.wav", tempo=nothing, start=nothing, stop=nothing).checked()
    assert job.tempo is None and job.start is None and job.stop is None
    assert Job("m.json", "p.wav", start=nothing, stop=2).checked().stop == 2.0
    assert Job("m.json", "p.wav", start=3, stop=nothing).checked().start == 3.0


def test_takes_are_named_by_their_prompt():
    assert take_name(Job("m.json", name="fugue", seed=7), 1) == "fugue, seed 7"
    job = Job("m.json", name="chords", title=chords_title("Dm7 |  G7/B\n| C#m7"), continuations=3)
    assert take_name(job, 2) == "Dm7 | G7/B | C#m7, seed 0, 2 of 3"
    assert download_name(take_name(job, 2)) == "Dm7 G7-B C#m7, seed 0, 2 of 3"
    assert len(chords_title("C | " * 50)) == MAX_TITLE
    assert download_name('<a">/../x\r\n, seed 0') == "a-..-x , seed 0"


def test_names_and_sentences():
    assert plain_name("a/b\\..\\Fugue no. 2 (d).musicxml") == "Fugue no. 2 (d)"
    assert plain_name("<img src=x>.mid") == "img srcx" and plain_name("...") == "prompt" and plain_name("") == "prompt"
    text = sentence("/secret/a.mid: is empty; give another by --from and --to", {"/secret/": ""})
    assert text == "a.mid: is empty; give another by from and to."


# -- what is refused ---------------------------------------------------------------------------


async def echo(scope, receive, send):
    """Answers with the body that it gets."""
    if scope["type"] == "http":
        body = await Request(scope, receive).body()
        await JSONResponse({"n": len(body)})(scope, receive, send)


def ask(method="GET", path="/", logged_in=None, local=True, content=None, **headers):
    guard = Guard(echo, ROOT_OF_FILES, local, logged_in, 1 << 21)

    async def answer():
        transport = httpx.ASGITransport(app=guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7860") as client:
            return await client.request(method, path, content=content, headers=headers)

    return asyncio.run(answer())


FILE = f"/gradio_api/file={ROOT_OF_FILES}"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=https://huggingface.co/x",
        "/gradio_api/file=https://example.org/x",
        "/gradio_api/file=/etc/passwd",
        f"{FILE}/../passwd",
        f"{FILE}/%2e%2e/passwd",
        f"{FILE}evil/x",
        "/gradio_api/deep_link",
        "/gradio_api/vibe-edit",
        "/gradio_api/process_recording",
        "/gradio_api/run-history/buckets",
        "/gradio_api/stream/a/b/1/playlist.m3u8",
        "/gradio_api/component_server",
        "/gradio_api/token",
        "/monitoring",
        "/static/%2e%2e/config",
        "/assets/%2e%2e/%2e%2e/x",
        "/pwa_icon/20000",
        "/docs",
        "/results/x/%2e%2e/%2e%2e/y",
        "/previews/%2e%2e/secret/1.wav",
    ],
)
def test_addresses_that_nobody_needs(path):
    assert ask(path=path).status_code == 404
    assert ask("POST", path).status_code == 404


def test_addresses_that_are_needed():
    for path in ("/", "/config", "/assets/index-a_b.js", "/gradio_api/queue/join", "/manifest.json", "/pwa_icon/192"):
        answer = ask(path=path)
        assert answer.status_code == 200 and all(answer.headers[name] == text for name, text in HEADERS.items())
    assert ask(path=f"{FILE}/results/{'a' * 32}/x.wav").status_code == 200
    assert ask(path="/previews/my run/1.wav").status_code == 200


def test_foreign_hosts_and_origins():
    assert ask(host="evil.example").status_code == 403
    assert ask(host="127.0.0.1.evil.example:7860").status_code == 403
    assert ask(host="evil.example", local=False).status_code == 200
    assert ask(host="localhost:7860").status_code == ask(host="[::1]:7860").status_code == 200
    assert ask(origin="http://evil.example").status_code == ask(origin="null").status_code == 403
    assert ask(host="a.example", local=False, origin="https://a.example").status_code == 200
    assert ask("DELETE").status_code == ask("OPTIONS").status_code == 405


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"data": [{"path": f"{ROOT_OF_FILES}/a/p.mid"}]}, 200),
        ({"data": ["path", {"size": 1}], "n": None}, 200),
        ({"data": [{"path": "/etc/passwd"}]}, 403),
        ({"data": [{"a": [{"path": "https://example.org/p.mid"}]}]}, 403),
        ({"data": [{"path": f"{ROOT_OF_FILES}/../p.mid"}]}, 403),
        ({"data": [{"path": ["/etc/passwd"]}]}, 403),
        ({"data": [{"path": str(PROMPT)}]}, 403),
    ],
)
def test_only_uploaded_files_are_opened(body, status):
    for path in ("/gradio_api/queue/join", "/gradio_api/call/continue", "/gradio_api/run/runs"):
        assert ask("POST", path, content=json.dumps(body)).status_code == status


def test_bodies_that_are_none():
    path = "/gradio_api/queue/join"
    assert ask("POST", path, content=b"{" + b" " * MAX_BODY).status_code == 413
    assert ask("POST", path, content=b'{"data": ').status_code == 400
    assert ask("POST", path, content=b"[" * 200_000).status_code == 400
    assert ask("POST", path, content=b" " * (MAX_BODY + 1)).status_code == 413
    assert ask("POST", path, content=b"{}", **{"content-length": "x"}).status_code == 400
    assert ask("POST", "/gradio_api/upload", content=b"x" * (4 << 20)).status_code == 413
    assert ask("POST", "/gradio_api/upload", content=b"x" * (2 << 20)).json() == {"n": 2 << 20}


def test_who_has_not_logged_in():
    def nobody(scope):
        return False

    for path in ("/gradio_api/queue/join", f"{FILE}/x/y.wav", f"/results/{'a' * 32}/1.wav", "/previews/a/1.wav"):
        assert ask(path=path, logged_in=nobody).status_code == 401
        assert ask(path=path, logged_in=lambda scope: True).status_code == 200
    assert ask(path="/", logged_in=nobody).status_code == ask("POST", "/login", logged_in=nobody).status_code == 200
    password = Password("me", "correct horse")
    assert password.fits("me", "correct horse")
    assert not (password.fits("me", "correct") or password.fits("you", "correct horse") or password.fits("é", "ü"))


# -- the command -------------------------------------------------------------------------------


def test_others_need_a_password(tmp_path):
    path = tmp_path / "password"
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(UserError, match="--auth"):
            check(parse_arguments(["--host", host]))
        path.write_text("me:correct horse\nignored")
        assert check(parse_arguments(["--host", host, "--auth", str(path)])) == ("me", "correct horse")
    for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1"):
        assert check(parse_arguments(["--host", host])) is None
    assert read_password(None, {"NEXTFRAME_AUTH": "me:a:b:c-long"}) == ("me", "a:b:c-long")
    for text in ("", "me", ":12345678", "me:short"):
        path.write_text(text)
        with pytest.raises(UserError, match=str(path)):
            read_password(path, {})
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"cannot be read|holds no"):
            read_password(wrong, {})


def test_mistakes_of_the_user_are_one_line(tmp_path):
    for arguments, word in ((["--metadata", tmp_path / "none"], "no such folder"), (["--host", "0.0.0.0"], "password")):
        result = run("-m", "studio", *arguments)
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1 and word in result.stderr


# -- what is kept ------------------------------------------------------------------------------


def test_results_are_kept_for_an_hour():
    storage = Storage(kept=3600.0)
    try:
        (token, result), upload = storage.new_result(), storage.new_upload()
        (result / "x.wav").write_bytes(b"x" * 1000)
        (upload / "p.mid").write_bytes(b"x" * 24)
        assert storage.size() == 1024 and storage.result(token) == result
        assert oct(storage.root.stat().st_mode & 0o777) == "0o700"
        for other in ("0" * 32, "..", f"../results/{token}", "", token.upper() + " "):
            assert storage.result(other) is None
        storage.sweep()
        assert result.exists() and upload.exists()
        old = time.time() - 3601
        for path in (result / "x.wav", result, upload / "p.mid", upload):
            os.utime(path, (old, old))
        (upload / "q.mid").write_bytes(b"new")
        storage.sweep()
        assert not result.exists() and upload.exists() and storage.result(token) is None
        remove_left_behind()
        assert storage.root.exists()  # the studio lives
    finally:
        storage.close()
    assert not storage.root.exists()


def test_no_more_than_there_is_room_for():
    storage = Storage(max_bytes=10)
    try:
        _, result = storage.new_result()
        (result / "x").write_bytes(b"x" * 11)
        with pytest.raises(UserError, match="too many results"):
            storage.new_result()
    finally:
        storage.close()


def test_what_killed_studios_leave_is_removed():
    code = "from studio.storage import Storage; import os; print(Storage().root, flush=True); os._exit(9)"
    left = Path(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.strip())
    assert left.is_dir()
    remove_left_behind()
    assert not left.exists()


# -- playing while it is made ------------------------------------------------------------------


def test_ranges():
    assert parse_range(None, 100) == (0, 99)
    assert parse_range("bytes=0-", 100) == (0, 99) and parse_range("bytes=10-19", 100) == (10, 19)
    assert parse_range("bytes=-5", 100) == (95, 99) and parse_range("bytes=90-200", 100) == (90, 99)
    assert [parse_range(text, 100) for text in ("bytes=100-", "bytes=5-2", "bytes=-", "bytes=0-1,3-4", "x")] == [
        None
    ] * 5


def test_a_stream_waits_for_what_is_made(tmp_path):
    samples = np.arange(-1000, 1000, dtype="<i2")
    path, header = tmp_path / "1.pcm", wav_header(8000, 1, len(samples))
    path.write_bytes(samples[:500].tobytes())

    async def listen():
        task = asyncio.create_task(collect(follow(path, header, 0, HEADER + 2 * len(samples) - 1)))
        await asyncio.sleep(0.3)
        assert not task.done()
        with open(path, "ab") as file:
            file.write(samples[500:].tobytes())
        return await task

    async def collect(parts):
        return b"".join([part async for part in parts])

    blob = asyncio.run(listen())
    (tmp_path / "x.wav").write_bytes(blob)
    read, rate = soundfile.read(tmp_path / "x.wav", dtype="int16")
    assert rate == 8000 and np.array_equal(read, samples)
    assert asyncio.run(collect(follow(path, header, 100, 199))) == blob[100:200]
    (tmp_path / "results.json").write_text("[]")  # stopped: nothing more comes
    assert asyncio.run(collect(follow(path, header, 0, 10**6))) == blob


def test_waveform_and_spectrogram_are_over_the_same_seconds(tmp_path):
    """A click 7 s into a sound of 10 s, of which the last 8 s are shown: at five eighths of both."""
    rate, first = 8000, 16000
    samples = np.zeros(80000, np.float32)
    samples[56000:56040] = 0.5
    soundfile.write(tmp_path / "x.wav", samples, rate)
    np.rint(32767 * samples).astype("<i2").tofile(tmp_path / "1.pcm")
    peaks = peaks_of(tmp_path / "1.pcm", 1, len(samples), first)
    assert 300 < len(peaks) <= 600 and max(peaks) == 50
    assert np.flatnonzero(peaks).mean() / len(peaks) == pytest.approx(5 / 8, abs=2 / len(peaks))
    live = Peaks(len(samples), first)
    for start in range(0, len(samples), 7001):
        live.add(start, samples[None, start : start + 7001])
    assert live.columns(len(samples)) == peaks and live.columns(first) == [] and len(live.columns(48000)) == 300
    png = spectrogram(tmp_path / "x.wav", FeaturizerConfig(rate, 512, 128), first)
    light = matplotlib.image.imread(io.BytesIO(png))[:, :, :3].sum((0, 2))
    assert len(light) == MIN_COLUMNS
    loud = np.flatnonzero(light > (light.min() + light.max()) / 2)
    assert (loud[0] + loud[-1] + 1) / 2 / len(light) == pytest.approx(5 / 8, abs=2 / len(light))


# -- the child process -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rollouts():
    rollouts = Rollouts()
    yield rollouts
    rollouts.close()


def perform(rollouts, folder, job):
    folder.mkdir(exist_ok=True)
    return list(rollouts.submit(job.checked(), folder))


def assert_same_sound(one, other):
    """Two files of one format and length, sample by sample within one step of 16 bits. On some CPUs they are equal to
    the byte, and on others a sample in some hundred thousand is one step off."""
    (a, rate), (b, other_rate) = soundfile.read(one), soundfile.read(other)
    assert rate == other_rate and a.shape == b.shape
    assert soundfile.info(one).subtype == soundfile.info(other).subtype
    np.testing.assert_allclose(a, b, atol=1.01 / 32768, rtol=0)


def test_a_rollout_is_that_of_predict(rollouts, tiny_run, tmp_path):
    folder = tmp_path / "r"
    job = Job(str(tiny_run), str(PROMPT), "bach", length=2, unit="bars", seed=5, continuations=2)
    messages = perform(rollouts, folder, job)
    assert [message["event"] for message in messages][:2] == ["begun", "progress"]
    done = messages[-1]
    assert done["event"] == "done" and done["files"] == ["bach-next-1.wav", "bach-next-2.wav"] and not done["stopped"]
    options = ["--bars", 2, "--seed", 5, "--continuations", 2]
    for form in ("wav", "flac"):
        result = run("predict.py", tiny_run, PROMPT, *options, "-o", tmp_path / f"p.{form}")
        assert result.returncode == 0, result.stderr
    for k in (1, 2):
        wav, name = folder / f"bach-next-{k}.wav", rollouts.render(folder, k - 1, "flac")
        assert_same_sound(wav, tmp_path / f"p-{k}.wav")
        assert_same_sound(folder / name, tmp_path / f"p-{k}.flac")
        heard = np.fromfile(folder / f"{k}.pcm", "<i2") / 32767
        samples, rate = soundfile.read(wav)
        assert len(heard) == len(samples) == round(done["seconds"] * rate)
        gain = max(1.0, np.abs(heard).max() / 0.99)  # a mix that would clip is turned down at its end
        np.testing.assert_allclose(heard / gain, samples, atol=2e-4)
        peaks, first = np.array(done["peaks"][k - 1]), round((done["join"] - SHOWN_PROMPT) * rate)
        assert 500 < len(peaks) == done["n_columns"] <= 600 and messages[0]["shown_from"] == first / rate > 0
        assert abs(peaks.max() - 100 * min(1.0, np.abs(heard[first:]).max())) <= 1
        assert wav.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_the_last_visitors_are_remembered_and_no_others(rollouts, tiny_run):
    storage = Storage()
    try:
        sessions = build(Runs(tiny_run.parent), storage, rollouts, None).app.routes[-1].app.state_holder
        for i in range(MAX_SESSIONS + 30):
            assert sessions[f"visitor {i}"] is not sessions["an open page"]  # which asks all the time
    finally:
        storage.close()
    remembered = {name for name in sessions.session_data if name.startswith("visitor")}
    assert remembered == {f"visitor {i}" for i in range(31, MAX_SESSIONS + 30)}
    assert len(sessions.session_data) == MAX_SESSIONS and "an open page" in sessions.session_data


def test_a_rollout_that_is_stopped_ends_with_what_there_is(rollouts, tiny_run, tmp_path):
    rollout = rollouts.submit(Job(str(tiny_run), str(PROMPT), length=600).checked(), tmp_path)
    for message in rollout:
        if message["event"] == "progress":
            rollout.stopped = True
    assert message["event"] == "done" and message["stopped"]
    with soundfile.SoundFile(tmp_path / message["files"][0]) as file:
        assert 0 < message["seconds"] - message["join"] < 590
        assert file.frames == round(message["seconds"] * file.samplerate)
    assert json.loads((tmp_path / "live.json").read_text())["n_samples"] == file.frames


@pytest.mark.parametrize(
    ("job", "word"),
    [
        ({"chords": "Dm7 | Xx"}, "'Xx' (bar 2, chord 1)"),
        ({"prompt": "broken.mid"}, "broken.mid"),
        ({"prompt": "noise.wav", "unit": "bars", "length": 2}, "no tempo"),
        ({"prompt": "gone.mid"}, "gone.mid: no such file"),
        ({"metadata": "none.json", "chords": "C"}, "no such metadata file"),
    ],
)
def test_errors_are_sentences(rollouts, tiny_run, tmp_path, job, word):
    (tmp_path / "broken.mid").write_bytes(b"MThd not a score at all")
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 8000)
    job = {"metadata": str(tiny_run), **job}
    job |= {name: str(tmp_path / job[name]) for name in ("prompt", "metadata") if name in job}
    with pytest.raises(UserError) as error:
        perform(rollouts, tmp_path / "r", Job(**job))
    text = str(error.value)
    assert word in text and str(tmp_path) not in text and "\n" not in text and text.endswith(".") and "--" not in text
    assert not list((tmp_path / "r").glob("*.tmp"))


def test_a_new_state_is_heard_and_a_deleted_one_is_said(rollouts, tiny_run, tmp_path):
    shutil.copytree(tiny_run.parent, tmp_path / "m", ignore=shutil.ignore_patterns("pcm-*"))
    state, job = tmp_path / "m/tiny/state.safetensors", Job(str(tmp_path / "m/tiny.json"), str(PROMPT), length=0.5)
    assert perform(rollouts, tmp_path / "a", job)[-1]["step"] == 12
    blob = state.read_bytes()
    state.write_bytes(blob[:-1])
    with pytest.raises(UserError, match="damaged"):
        perform(rollouts, tmp_path / "b", job)
    state.unlink()
    with pytest.raises(UserError, match="no state yet"):
        perform(rollouts, tmp_path / "c", job)
    state.write_bytes(blob)
    assert perform(rollouts, tmp_path / "d", job)[-1]["step"] == 12


def test_the_child_may_die(rollouts, tiny_run, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first = rollouts.submit(Job(str(tiny_run), str(PROMPT), length=600).checked(), tmp_path / "a")
    child = rollouts._child
    with pytest.raises(UserError, match="ended unexpectedly"):
        for message in first:
            if message["event"] == "begun":
                child.kill()
    assert perform(rollouts, tmp_path / "b", Job(str(tiny_run), str(PROMPT), length=1))[-1]["event"] == "done"
    assert rollouts._child.pid != child.pid


def test_the_child_is_polite(rollouts, tiny_run, tmp_path):
    import psutil

    child = psutil.Process(rollouts._child.pid)
    wait_for(lambda: child.nice() == min(19, os.nice(0) + NICE))
    assert child.environ()["OMP_NUM_THREADS"] == "1"
    perform(rollouts, tmp_path / "r", Job(str(tiny_run), str(PROMPT), length=1))


def test_throughput_is_read_from_the_log(tmp_path):
    """bench.studio's: audio-seconds trained on between two lines of a run's log, by its seconds of training."""
    from bench.studio import heard

    log = tmp_path / "log.jsonl"
    lines = [{"seconds": 10.0, "audio_seconds_per_second": 50.0}, {"step": 7, "held_out_loss": 2.0}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert heard(log) == (10.0, 500.0)
    with open(log, "a") as file:
        file.write(json.dumps({"seconds": 30.0, "audio_seconds_per_second": 40.0}) + "\n")
    assert heard(log) == (30.0, 1200.0)
