"""The studio in a real browser: Chromium, driven by Playwright, on a desk and on a phone."""

import contextlib
import io
import shutil
from pathlib import Path

import pytest
import soundfile

from conftest import PROMPT, ROOT, run, running_studio, start_training, wait_for

pytest.importorskip("gradio", reason="Gradio is not installed (requirements-studio.txt)")
httpx = pytest.importorskip("httpx")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (requirements-browser.txt)")
# The shell has no window, and takes half of the time.
BROWSERS = "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser is installed (apt-get install chromium)")
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
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


NEWEST = "document.querySelector('#continue-player input[type=radio]')?.value"
BOX = """(selector) => {
    const box = document.querySelector(selector).getBoundingClientRect();
    return {left: box.left, right: box.right, top: box.top, bottom: box.bottom};
}"""
# Of a text against what is painted behind it, by WCAG 2.2.
CONTRAST = """(element) => {
    const numbers = (colour) => {
        const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data].map((x) => x / 255);
    };
    const luminance = (colour) => colour.slice(0, 3).map(
        (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    ).reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
    const over = (top, below) => top.slice(0, 3).map((x, i) => x * top[3] + below[i] * (1 - top[3]));
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(numbers(getComputedStyle(at).backgroundColor));
    const behind = layers.reverse().reduce((below, layer) => over(layer, below), [1, 1, 1]);
    const [one, other] = [over(numbers(getComputedStyle(element).color), behind), behind].map(luminance);
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
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
def visit(browser, address, size=DESK, scheme="light"):
    """A page of a new visitor, which must ask no other host for anything, and say no error."""
    context = browser.new_context(viewport=size, accept_downloads=True, color_scheme=scheme)
    page = context.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(SLOW)
    page.goto(address)
    page.wait_for_selector("#continue-go")
    yield page
    context.close()
    foreign = [url for url in asked if not url.startswith((address, "data:", f"blob:{address}"))]
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
        wait_for(lambda: page.evaluate(LOUDNESS, "#continue-player") > 1e-3)
        page.wait_for_selector("#continue-player a")
        assert page.is_visible("#continue-player canvas") and page.is_visible("#continue-player img")
        page.wait_for_function("document.querySelector('#continue-player img').naturalWidth > 500")
        assert "prompt, seed 0 (chorales, step " in page.inner_text("#continue-player")
        with page.expect_download() as download:
            page.get_by_role("link", name="WAV").click()
        assert download.value.suggested_filename == "prompt, seed 0.wav"
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
        # The waveform of what there is fills all of its room.
        script = """() => {
            const wave = document.querySelector('#continue-player canvas'), from = Math.floor(0.98 * wave.width);
            const pixels = wave.getContext('2d').getImageData(from, 0, wave.width - from, wave.height).data;
            return pixels.some((x) => x > 0);
        }"""
        page.wait_for_function(script)


def continue_again(page, address):
    """Press Continue once more; the seconds of what comes, and its WAV file."""
    before = page.evaluate(NEWEST)
    page.click("#continue-go")
    ended = "document.querySelector('#continue-status').innerText.includes(' s in ')"
    failed = "document.querySelector('#continue-status [role=alert]')"
    page.wait_for_function(f"before => ({NEWEST} !== before && {ended}) || {failed}", arg=before)
    assert page.locator("#continue-status [role=alert]").count() == 0, page.inner_text("#continue-status")
    token = page.evaluate(NEWEST).rpartition("-")[0]
    wav = httpx.get(f"{address}/results/{token}/1/wav").content
    return soundfile.info(io.BytesIO(wav)).duration, wav


def test_an_empty_number_is_empty(browser, address, tone):
    """More, opened, filled and emptied field by field, goes on; what is filled in is followed."""
    with visit(browser, address) as page:
        press_continue(page, tone, "1")
        page.get_by_text(" s in ").wait_for()
        seconds, untouched = continue_again(page, address)
        assert seconds == pytest.approx(3.0, abs=0.01)
        page.get_by_text("More", exact=True).click()
        for label in ("Tempo", "From (s)", "To (s)"):
            page.get_by_label(label).first.wait_for()
            assert page.get_by_label(label).first.input_value() == ""
        assert continue_again(page, address)[1] == untouched
        changes = [("Tempo", "96", 3.0), ("Time signature", "3/4", 3.0), ("Key of Roman numerals", "D minor", 3.0)]
        changes += [("Plays chords", "organ", 3.0), ("From (s)", "0.5", 2.5), ("To (s)", "1.5", 2.5)]
        for label, text, expected in changes:
            field = page.get_by_label(label).first
            field.fill(text)
            assert continue_again(page, address)[0] == pytest.approx(expected, abs=0.01), label
            field.fill("")
            assert continue_again(page, address)[1] == untouched, label
        field = page.get_by_label("number input for Temperature")
        value = field.input_value()
        field.fill("")
        field.blur()
        continue_again(page, address)
        field.fill(value)
        field.blur()
        for label in ("Tempo", "From (s)", "To (s)"):
            page.get_by_label(label).first.fill("0")
        page.fill("#continue-seed input", "")
        assert continue_again(page, address)[1] == untouched
        page.fill("#continue-length input", "")
        page.click("#continue-go")
        page.get_by_text("Give a length").wait_for()


def test_numbers_of_programs_may_be_empty(address):
    """Null, 0 and nothing are the same in what /continue takes."""
    made = []
    for tempo in (None, 0, ""):
        asked = {"prompt": None, "chords": "C | F", "model": "tiny", "length": 0.5, "tempo": tempo}
        event = httpx.post(f"{address}/gradio_api/call/v2/continue", json=asked).json()["event_id"]
        text = httpx.get(f"{address}/gradio_api/call/v2/continue/{event}", timeout=60).text
        assert "event: complete" in text, text
        made.append(text.partition('"join":')[2])
    assert made[0] and made[0] == made[1] == made[2]


def test_continue_is_in_view(browser, address):
    with visit(browser, address, DESK) as page:
        assert page.evaluate(BOX, "#continue-go")["bottom"] <= DESK["height"] and page.evaluate("scrollY") == 0
        page.get_by_text("More", exact=True).click()
        page.get_by_label("Tempo").first.wait_for()
        page.evaluate("scrollTo(0, 0)")
        assert page.evaluate(BOX, "#continue-go")["bottom"] <= DESK["height"]


def test_a_phone_goes_to_the_player(browser, address):
    with visit(browser, address, PHONE) as page:
        press_continue(page, None, "1", "chorales")
        wait_until_it_plays(page, "#continue-player")
        page.wait_for_selector("#continue-player img")

        def in_view():
            boxes = [
                page.evaluate(BOX, f"#continue-{name}") for name in ("status", "player img", "player .player-play")
            ]
            return all(box["top"] >= 0 and box["bottom"] <= PHONE["height"] for box in boxes)

        wait_for(in_view)
        page.evaluate("scrollTo(0, 0)")
        page.fill("#continue-length input", "")
        page.click("#continue-go")
        page.get_by_text("Give a length").wait_for()
        wait_for(lambda: 0 <= page.evaluate(BOX, "#continue-status")["top"] < PHONE["height"] / 2)


def test_an_example_sounds_with_one_click(browser, address):
    with visit(browser, address) as page:
        named = ("Chorale BWV 66.6, seed 2", "Dm7 | G7 | Cmaj7 | A7, seed 0", "i | iv | V7 | i, seed 0")
        for i, name in enumerate(named):
            page.fill("#continue-seed input", "77")  # an example is the same whatever stood there
            before = page.evaluate(NEWEST) if i else ""
            page.click(f"#example-{i}")
            page.wait_for_function(f"before => {NEWEST} && {NEWEST} !== before", arg=before)
            newest = page.evaluate(NEWEST)
            wait_for(lambda newest=newest: (playing(page, "#continue-player") or {"id": ""})["id"] == newest)
            wait_until_it_plays(page, "#continue-player")
            wait_for(lambda: page.evaluate(LOUDNESS, "#continue-player") > 1e-3)
            label = page.locator("#continue-player .player-tracks label").first.inner_text()
            assert label.startswith(f"{name} (chorales, step ")
            page.get_by_text(" s in ").wait_for()
        assert page.input_value("#continue-chords input, #continue-chords textarea") == "i | iv | V7 | i"
        with page.expect_download() as download:
            page.get_by_role("link", name="FLAC").click()
        assert download.value.suggested_filename == "i iv V7 i, seed 0.flac"


def test_waveform_and_spectrogram_share_their_time(browser, address):
    with visit(browser, address) as page:
        press_continue(page, None, "5", "chorales")
        page.wait_for_selector("#continue-player img")
        page.wait_for_function("document.querySelector('#continue-player img').naturalWidth >= 1000")
        if playing(page, "#continue-player"):
            page.click("#continue-player .player-play")
        assert "last 6 s of the prompt" in page.inner_text("#continue-player")
        wave, picture = (page.evaluate(BOX, f"#continue-player {part}") for part in ("canvas", "img"))
        for side in ("left", "right"):
            assert wave[side] == pytest.approx(picture[side], abs=0.5)
        seconds, start = (float(page.get_attribute("#continue-player .player-seek", side)) for side in ("max", "min"))
        assert seconds - start == pytest.approx(6 + 5, abs=0.01) and start > 10

        def x_of(part):
            box = page.evaluate(BOX, f"#continue-player .player-{part}")
            return ((box["left"] + box["right"]) / 2 - wave["left"]) / (wave["right"] - wave["left"])

        assert x_of("join") == pytest.approx(6 / 11, abs=0.003)
        for part in ("canvas", "img"):  # a click on either, at three quarters
            page.evaluate("document.querySelector('#continue-player audio').currentTime = 0")
            box = page.locator(f"#continue-player {part}").bounding_box()
            page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2)
            wait_for(lambda: abs(page.evaluate(AUDIO, "#continue-player")[0]["time"] - (start + 0.75 * 11)) < 0.05)
            wait_for(lambda: abs(x_of("head") - 0.75) < 0.005)
        head = page.evaluate(BOX, "#continue-player .player-head")
        assert head["top"] <= wave["top"] and head["bottom"] >= picture["bottom"]
        page.fill("#continue-player .player-seek", str(round(seconds - 1, 2)))
        wait_for(lambda: abs(x_of("head") - 10 / 11) < 0.01)
        page.click("#continue-player .player-whole")
        wait_for(lambda: 0 < page.evaluate(AUDIO, "#continue-player")[0]["time"] < 10 and x_of("head") < 0.003)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_errors_can_be_read(browser, address, folder, scheme):
    (folder / "broken.json").write_text("{")
    try:
        with visit(browser, address, scheme=scheme) as page:
            assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
            page.fill("#continue-chords input, #continue-chords textarea", "Xx")
            page.click("#continue-go")
            page.wait_for_selector("#continue-status [role=alert]")
            page.fill("#continue-length input", "5000")
            said = [page.locator("#continue-status [role=alert]").evaluate(CONTRAST)]
            page.click("#continue-go")
            toast = page.get_by_text("greater than maximum").first
            toast.wait_for()
            page.wait_for_timeout(1000)  # it fades in
            said.append(toast.evaluate(CONTRAST))
            page.get_by_role("tab", name="Runs").click()
            page.locator(".run .trouble").first.wait_for()
            said += [
                page.locator(f".run {part}").first.evaluate(CONTRAST) for part in (".trouble", ".badge.damaged", "dt")
            ]
            assert min(said) >= 4.5, said
    finally:
        (folder / "broken.json").unlink()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits(browser, address, tmp_path, size, scheme):
    """Nothing is wider than the screen; the pictures of the views lie in the test's folder."""
    with visit(browser, address, size, scheme) as page:

        def look(name):
            page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name

        look("continue-empty")
        page.fill("#continue-length input", "2")
        page.click("#continue-go")
        page.wait_for_function("document.querySelector('#continue-player img')?.naturalWidth >= 1000")
        look("continue")
        page.get_by_text("More", exact=True).click()
        page.get_by_label("Tempo").first.wait_for()
        look("more")
        page.get_by_role("tab", name="Compare").click()
        wait_for(lambda: all(page.input_value(f"#compare-{x} input") for x in "AB"))
        page.fill("#compare-length input", "2")
        page.click("#compare-go")
        page.get_by_text("Switch with A/B, or").wait_for()
        script = "[...document.querySelectorAll('#compare-player img')].filter((x) => x.naturalWidth > 0).length === 2"
        page.evaluate("document.querySelectorAll('#compare-player img').forEach((x) => x.scrollIntoView())")
        page.wait_for_function(script)
        boxes = page.locator("#compare-player img").evaluate_all(
            "(all) => all.map((x) => [x.getBoundingClientRect().left, x.getBoundingClientRect().right])"
        )
        assert boxes[0] == boxes[1]
        look("compare")
        page.get_by_role("tab", name="Runs").click()
        page.locator(".vega-embed canvas, .vega-embed svg").first.wait_for()
        look("runs")
        page.get_by_role("tab", name="Previews").click()
        page.wait_for_selector("#previews-player .player-tracks label")
        page.wait_for_function("document.querySelector('#previews-player img')?.naturalWidth > 0")
        look("previews")


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


def test_again_and_vary(browser, address):
    with visit(browser, address) as page:
        press_continue(page, None, "1")
        for button, n in (("again", 2), ("vary", 3)):
            page.wait_for_function(f"document.querySelectorAll('#continue-player input[type=radio]').length >= {n - 1}")
            page.get_by_text(" s in ").wait_for()
            page.click(f"#continue-{button}")
            page.wait_for_function(f"document.querySelectorAll('#continue-player input[type=radio]').length == {n}")
        labels = page.inner_text("#continue-player .player-tracks").splitlines()
        seeds = [label.split("seed ")[1].split(" ")[0] for label in labels if "seed" in label]
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
    # Previews from the start, and as nice as the child of the studio, with which it shares a core.
    often = "import os, time_budget; os.nice(19); time_budget.SHARE = 1e6; time_budget.EARLY_STEPS = 0"
    words = "--minutes", 10, "--save-every", 2
    training = start_training(recordings, folder / "live.json", *words, before=often)
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
