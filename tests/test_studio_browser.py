"""The studio in a real browser: Chromium, driven by Playwright, on a desk and on a phone."""

import contextlib
import shutil
from pathlib import Path

import pytest
import regex

from conftest import PROMPT, ROOT, run, running_studio, start_training, wait_for

pytest.importorskip("gradio", reason="Gradio is not installed (requirements-studio.txt)")
httpx = pytest.importorskip("httpx")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (requirements-browser.txt)")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser is installed (apt-get install chromium)")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SLOW = 120_000  # ms: other programs may take both cores
AUDIO = """(player) => [...document.querySelectorAll(player + ' audio')].map(
    (a) => ({id: a.dataset.id, time: a.currentTime, paused: a.paused, muted: a.muted, src: a.currentSrc}))"""
LOUDNESS = """async (player) => {
    const audio = [...document.querySelectorAll(player + ' audio')].find((a) => !a.paused);
    const context = new AudioContext();
    const analyser = context.createAnalyser(), samples = new Float32Array(analyser.fftSize);
    context.createMediaStreamSource(audio.captureStream()).connect(analyser);
    await new Promise((done) => setTimeout(done, 700));
    analyser.getFloatTimeDomainData(samples);
    return Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
}"""


@pytest.fixture(scope="module")
def folder(tiny_run, tmp_path_factory):
    """Metadata of the repository's model and of a tiny run."""
    folder = tmp_path_factory.mktemp("studio") / "metadata"
    shutil.copytree(ROOT / "metadata", folder, ignore=shutil.ignore_patterns("pcm-*", "demo*"))
    for path in folder.iterdir():
        if path.name not in ("chorales", "chorales.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(tiny_run.parent / "tiny", folder / "tiny")
    shutil.copy(tiny_run, folder)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    with running_studio(folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=options)
        yield browser
        browser.close()


@contextlib.contextmanager
def visit(browser, address, size=DESK):
    """A page of a new visitor, which must ask no other host for anything, and say no error."""
    context = browser.new_context(viewport=size, accept_downloads=True)
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(SLOW)
    page.goto(address)
    page.wait_for_selector("#continue-go")
    yield page
    context.close()
    host = address.partition("/?")[0]
    foreign = [url for url in asked if not url.startswith((host, "data:", f"blob:{host}"))]
    assert asked and not foreign and not errors


def press_continue(page, file=PROMPT, length="5", model="tiny"):
    """Drop a file, and go on from it."""
    page.click("#continue-model input")
    page.get_by_role("option", name=model).click()
    if file is not None:
        page.set_input_files("#continue-file input[type=file]", str(file))
        page.locator("#continue-file").get_by_text(Path(file).suffix, exact=True).wait_for()
    page.fill("#continue-length input", length)
    page.click("#continue-go")


def playing(page, player):
    """The one track that is heard."""
    heard = [audio for audio in page.evaluate(AUDIO, player) if not audio["paused"] and not audio["muted"]]
    assert len(heard) <= 1
    return heard[0] if heard else None


def wait_until_it_plays(page, player):
    wait_for(lambda: (playing(page, player) or {"time": 0})["time"] > 0)
    first = playing(page, player)["time"]
    wait_for(lambda: playing(page, player)["time"] > first + 0.3)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_continue(browser, address, folder, tmp_path, size):
    with visit(browser, address, size) as page:
        press_continue(page, model="chorales")
        page.wait_for_selector("#continue-status progress")
        wait_until_it_plays(page, "#continue-player")
        assert page.evaluate(LOUDNESS, "#continue-player") > 1e-3
        page.wait_for_selector("#continue-player a")
        assert page.is_visible("#continue-player canvas") and page.is_visible("#continue-player img")
        page.wait_for_function("document.querySelector('#continue-player img').naturalWidth > 500")
        assert regex.search(r"prompt: chorales, step \d+, seed 0", page.inner_text("#continue-player"))
        with page.expect_download() as download:
            page.get_by_role("link", name="WAV").click()
        download.value.save_as(tmp_path / "page.wav")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    result = run("predict.py", folder / "chorales.json", PROMPT, "--seconds", 5, "-o", tmp_path / "command.wav")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "page.wav").read_bytes() == (tmp_path / "command.wav").read_bytes()


def test_it_plays_before_the_end_and_stops(browser, address):
    with visit(browser, address) as page:
        press_continue(page, None, "600")
        wait_until_it_plays(page, "#continue-player")
        assert page.is_visible("#continue-status progress")
        page.click("#continue-stop")
        page.get_by_text("Stopped here.").wait_for()
        wait_until_it_plays(page, "#continue-player")
        page.wait_for_selector("#continue-player a")


def test_visitors_do_not_meet(browser, address):
    """Two at once: the other one sees, stops and hears nothing of it, and waits for its turn."""
    with visit(browser, address) as one, visit(browser, address) as other:
        press_continue(one, None, "600")
        wait_until_it_plays(one, "#continue-player")
        press_continue(other, None, "1")
        other.wait_for_timeout(2000)
        assert other.locator("#continue-player .player-tracks label").count() == 0
        other.click("#continue-stop")
        first = playing(one, "#continue-player")["time"]
        wait_for(lambda: playing(one, "#continue-player")["time"] > first + 2)
        assert one.is_visible("#continue-status progress")
        one.click("#continue-stop")
        one.get_by_text("Stopped here.").wait_for()
        press_continue(other, None, "1")
        wait_until_it_plays(other, "#continue-player")
        sources = [{audio["src"] for audio in page.evaluate(AUDIO, "#continue-player")} for page in (one, other)]
        assert all(sources) and not sources[0] & sources[1]
        for tab in ("Runs", "Previews", "Compare"):
            other.get_by_role("tab", name=tab).click()
        assert not any(source.split("/")[-2] in other.content() for source in sources[0])


def done(page):
    """Wait for the end of a rollout, and return the line that it leaves."""
    page.get_by_text(" s in ").wait_for()
    page.wait_for_selector("#continue-player a")
    return page.inner_text("#continue-status")


def filled_and_emptied(page, label, text):
    """A field of "More", empty again."""
    field = page.get_by_label(label).first
    field.fill(text)
    field.press("Tab")
    field.fill("")
    field.press("Tab")


def test_more_is_as_good_as_empty(browser, address, tmp_path):
    """Opened, each field filled and emptied: continues as if untouched, to the byte; filled, each does what it says."""
    with visit(browser, address) as page:
        press_continue(page, None, "1")
        done(page)
        page.get_by_role("button", name="More").click()
        for label, text in FIELDS.items():
            filled_and_emptied(page, label, text)
            page.click("#continue-go")
            page.wait_for_function("document.querySelector('#continue-status').innerText.includes('Reading')")
            done(page)
            page.wait_for_function(f"document.querySelectorAll('#continue-player input').length > {0}")
        hrefs = page.evaluate("[...document.querySelectorAll('#continue-player a')].map((a) => a.href)")
        assert page.locator("#continue-status [role=alert]").count() == 0
        first = page.locator("#continue-player .player-tracks label").last
        first.click()
        page.wait_for_function(f"document.querySelector('#continue-player a').href !== '{hrefs[0]}'")
        again = page.evaluate("[...document.querySelectorAll('#continue-player a')].map((a) => a.href)")
        assert httpx.get(hrefs[0]).content == httpx.get(again[0]).content
        page.get_by_label("Tempo").first.fill("fast")
        page.click("#continue-go")
        page.get_by_text("The tempo must be a number.").wait_for()
        page.get_by_label("Tempo").first.fill("150,0")
        page.get_by_label("Time signature").first.fill("3/4")
        page.get_by_label("bars").first.check()
        page.click("#continue-go")
        page.get_by_text("1.2 s in ").wait_for()  # a bar


FIELDS = {
    "Tempo": "96",
    "Time signature": "3/4",
    "Key of Roman numerals": "D minor",
    "Plays chords": "organ",
    "From (s)": "1",
    "To (s)": "2.5",
}


@pytest.mark.parametrize("name", ["A chorale by piano", "Jazz chords", "D minor by organ"])
def test_an_example_sounds_with_one_click(browser, address, name):
    with visit(browser, address) as page:
        page.get_by_role("button", name=name).click()
        wait_until_it_plays(page, "#continue-player")
        assert page.locator("#continue-status [role=alert]").count() == 0


def test_picture_and_waveform_are_aligned(browser, address):
    """The same edges, the same playhead, at the place of the sound; a long prompt is shown by its last 6 s."""
    with visit(browser, address, {"width": 1280, "height": 800}) as page:
        assert page.evaluate("document.querySelector('#continue-go').getBoundingClientRect().bottom") < 800
        press_continue(page, None, "5")
        done(page)
        page.wait_for_function("document.querySelector('#continue-player img').naturalWidth > 500")
        edges = page.evaluate(
            """[...document.querySelectorAll('#continue-player canvas, #continue-player img')].map((e) => {
                const box = e.getBoundingClientRect(); return [box.left, box.right]; })"""
        )
        assert len(edges) == 2 and edges[0] == edges[1]
        assert "the last 6 s of the prompt" in page.inner_text("#continue-player")
        if playing(page, "#continue-player"):
            page.click("#continue-player .player-play")
        page.click("#continue-player canvas", position={"x": (edges[0][1] - edges[0][0]) * 6 / 11, "y": 20})
        page.wait_for_timeout(300)
        audio = next(a for a in page.evaluate(AUDIO, "#continue-player"))
        duration = page.evaluate("document.querySelector('#continue-player audio').duration")
        assert audio["time"] == pytest.approx(duration - 5, abs=0.1)  # the join
        head = page.evaluate("parseFloat(document.querySelector('#continue-player .player-head').style.left)")
        assert head == pytest.approx(100 * 6 / 11, abs=1)


def test_a_phone_goes_to_the_player(browser, address):
    with visit(browser, address, PHONE) as page:
        press_continue(page, None, "2")
        done(page)
        box = page.locator("#continue-player .player-play").bounding_box()
        picture = page.locator("#continue-player img").bounding_box()
        assert box["y"] >= 0 and picture["y"] + picture["height"] <= PHONE["height"]


CONTRAST = """(selector) => {
    const light = (rgb) => rgb.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    const element = document.querySelector(selector);
    let behind = element, ground = [255, 255, 255, 0];
    while (behind) {
        const colour = numbers(getComputedStyle(behind).backgroundColor);
        if (colour.length === 3 || colour[3] > 0.99) { ground = colour; break; }
        behind = behind.parentElement;
    }
    const [a, b] = [numbers(getComputedStyle(element).color).slice(0, 3), ground.slice(0, 3)].map(light);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_errors_can_be_read(browser, address, theme):
    """Contrast of at least 4.5, as WCAG 2 asks for."""
    with visit(browser, f"{address}/?__theme={theme}") as page:
        page.fill("#continue-chords textarea, #continue-chords input", "H#x")
        page.click("#continue-go")
        page.wait_for_selector("#continue-status [role=alert]")
        assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
        assert page.evaluate(CONTRAST, "#continue-status [role=alert]") >= 4.5


def test_again_and_vary(browser, address):
    with visit(browser, address) as page:
        press_continue(page, None, "1")
        for button, n in (("again", 2), ("vary", 3)):
            page.wait_for_function(f"document.querySelectorAll('#continue-player input[type=radio]').length >= {n - 1}")
            page.get_by_text(" s in ").wait_for()
            page.click(f"#continue-{button}")
            page.wait_for_function(f"document.querySelectorAll('#continue-player input[type=radio]').length == {n}")
        labels = page.inner_text("#continue-player .player-tracks").splitlines()
        seeds = [label.split("seed ")[1] for label in labels if "seed" in label]
        assert seeds[1:] == ["0", "0"] and seeds[0] != "0"


def test_compare_switches_at_the_same_position(browser, address):
    with visit(browser, address) as page:
        page.get_by_role("tab", name="Compare").click()
        wait_for(lambda: [page.input_value(f"#compare-{x} input") for x in "AB"][1].startswith("tiny"))
        page.fill("#compare-length input", "2")
        page.click("#compare-go")
        wait_until_it_plays(page, "#compare-player")
        page.get_by_text("Switch with A/B").wait_for()
        if playing(page, "#compare-player") is None:  # it has come to its end meanwhile
            page.click("#compare-player .player-play")
        wait_until_it_plays(page, "#compare-player")
        before = playing(page, "#compare-player")
        page.click("#compare-player .player-flip")
        wait_for(lambda: (playing(page, "#compare-player") or before)["id"] != before["id"])
        first, second = sorted(page.evaluate(AUDIO, "#compare-player"), key=lambda audio: audio["paused"], reverse=True)
        assert first["paused"] and -0.1 < second["time"] - first["time"] < 5
        assert page.locator("#compare-player figure").count() == 2


def test_the_keyboard_is_enough(browser, address):
    with visit(browser, address) as page:
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
            if page.evaluate("document.activeElement.id") == "continue-go":
                break
        assert {"Continue", "continue-go"} <= reached
        page.keyboard.press("Enter")
        wait_until_it_plays(page, "#continue-player")
        page.focus("#continue-player .player-play")
        page.keyboard.press("Space")
        wait_for(lambda: playing(page, "#continue-player") is None)
        page.focus("#continue-player .player-seek")
        position = page.evaluate(AUDIO, "#continue-player")[0]["time"]
        page.keyboard.press("ArrowRight")
        assert page.evaluate(AUDIO, "#continue-player")[0]["time"] > position


def test_errors_are_sentences_on_the_page(browser, address, tmp_path):
    (tmp_path / "broken.mid").write_bytes(b"MThd no score at all")
    with visit(browser, address) as page:
        press_continue(page, tmp_path / "broken.mid")
        page.wait_for_selector("#continue-status [role=alert]")
        text = page.inner_text("#continue-status")
        assert text.startswith("broken.mid: ") and "Traceback" not in text and "/" not in text
        page.fill("#continue-length input", "5000")
        page.click("#continue-go")
        page.get_by_text("must be 0.1 to 600").or_(page.get_by_text("greater than maximum")).first.wait_for()


def test_it_can_be_installed(browser, address):
    manifest = httpx.get(f"{address}/manifest.json").json()
    assert manifest["name"] == "nextframe studio" and manifest["display"] == "standalone"
    assert {icon["sizes"] for icon in manifest["icons"]} == {"192x192", "512x512"}
    assert all(httpx.get(address + icon["src"]).content[:4] == b"\x89PNG" for icon in manifest["icons"])
    with visit(browser, address) as page:
        errors = page.context.new_cdp_session(page).send("Page.getInstallabilityErrors")["installabilityErrors"]
        assert [error["errorId"] for error in errors if error["errorId"] != "in-incognito"] == []


def test_a_training_is_seen_while_it_runs(browser, address, folder, recordings):
    training = start_training(recordings, folder / "live.json", "--minutes", 10, "--save-every", 4)
    try:
        with visit(browser, address) as page:
            page.get_by_role("tab", name="Runs").click()
            card = page.locator(".run").filter(has_text="live")
            card.get_by_text("training now").wait_for()
            card.get_by_text("loss", exact=True).wait_for()

            def numbers():
                words = card.inner_text().split("\n")
                return [words[words.index(name) + 1] for name in ("step", "loss", "time left")]

            first = numbers()
            wait_for(lambda: all(a != b for a, b in zip(first, numbers(), strict=True)))
            page.get_by_role("tab", name="Previews").click()
            previews = folder / "live" / "previews"
            wait_for(lambda: list(previews.glob("*.wav")))
            page.get_by_label("Run").click()
            page.get_by_role("option", name="live").click()
            page.wait_for_selector("#previews-player .player-tracks label")
            known = set(previews.glob("*.wav"))
            wait_for(lambda: set(previews.glob("*.wav")) - known)
            step = int(min(set(previews.glob("*.wav")) - known).stem.split("-")[1])
            page.get_by_text(f"step {step}", exact=True).first.wait_for(timeout=10_000)
            page.click("#previews-player .player-play")
            wait_until_it_plays(page, "#previews-player")
            training.kill()  # whatever it is doing
            training.wait()
            page.get_by_role("tab", name="Runs").click()
            card.get_by_text("stopped").wait_for()
            (folder / "live" / "state.safetensors").unlink()
            card.get_by_text("no state yet").wait_for()
            (folder / "live.json").write_text("{")
            card.get_by_text("live.json: damaged").wait_for()
            (folder / "live.json").unlink()
            card.wait_for(state="detached")
            page.get_by_role("tab", name="Continue").click()
            press_continue(page, None, "1")
            wait_until_it_plays(page, "#continue-player")
    finally:
        training.kill()
        training.communicate()
        (folder / "live.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "live", ignore_errors=True)


def test_a_password_is_asked_for(browser, folder, tmp_path):
    with running_studio(folder, NEXTFRAME_AUTH="me:correct horse") as address:
        closed = httpx.post(f"{address}/gradio_api/call/continue", json={"data": []})
        assert closed.status_code == 401 and httpx.get(f"{address}/previews/tiny/12.wav").status_code == 401
        page = browser.new_context().new_page()
        page.set_default_timeout(SLOW)
        page.goto(address)
        page.get_by_label("username").fill("me")
        page.get_by_label("password").fill("correct horse")
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector("#continue-go")
        page.context.close()
