"""The files of deploy/: each is what its program reads, by that program's own word where it is installed."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import time

import pytest
import regex

from conftest import ROOT, free_port, running_studio, wait_for

DEPLOY = ROOT / "deploy"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
needs_nginx = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None,
    reason="nginx or openssl is not installed (apt-get install nginx-light openssl)",
)


def said(*command) -> subprocess.CompletedProcess:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60)


def test_the_unit(tmp_path):
    text = (DEPLOY / "nextframe-studio.service").read_text()
    settings = dict(regex.findall(r"^(\w+)=(.*)$", text, regex.MULTILINE))
    wanted = {"DynamicUser": "yes", "ProtectSystem": "strict", "NoNewPrivileges": "yes", "CapabilityBoundingSet": ""}
    wanted |= {"SuccessExitStatus": "130"}  # of a studio that SIGTERM has ended
    assert wanted.items() <= settings.items() and {"MemoryMax", "Nice", "CPUWeight", "IOWeight"} <= settings.keys()
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    # Its program need not be installed where this test runs.
    unit = tmp_path / "nextframe-studio.service"
    unit.write_text(text.replace("/opt/nextframe/.venv/bin/python", "/bin/true").replace("/opt/nextframe", "/"))
    result = said("systemd-analyze", "verify", "--man=no", unit)
    about = [line for line in result.stderr.splitlines() if "nextframe-studio" in line]
    assert result.returncode == 0 and not about, result.stderr


def configuration(folder, replaced: dict[str, str]):
    """A file that includes the site with some words replaced and a certificate of its own, for an nginx that writes
    into a folder only."""
    key, certificate = folder / "privkey.pem", folder / "fullchain.pem"
    made = ["-nodes", "-days", "1", "-subj", "/CN=studio.example.org", "-keyout", key, "-out", certificate]
    made += ["-addext", "subjectAltName=DNS:studio.example.org,DNS:localhost"]
    assert said("openssl", "req", "-x509", "-newkey", "rsa:2048", *made).returncode == 0
    site = (DEPLOY / "nginx.conf").read_text().replace("/etc/nginx/nextframe", str(folder))
    for old, new in replaced.items():
        assert old in site
        site = site.replace(old, new)
    (folder / "site.conf").write_text(site)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    http = f"access_log off; {temporary} include {folder}/site.conf;"
    (folder / "nginx.conf").write_text(f"pid {folder}/pid; error_log stderr; daemon off; events {{}} http {{ {http} }}")
    return folder / "nginx.conf"


@needs_nginx
def test_the_site(tmp_path):
    result = said(NGINX, "-t", "-p", tmp_path, "-c", configuration(tmp_path, {}))
    # nginx from 1.25 on has another word for HTTP/2 and calls this one, which older ones need, deprecated.
    warned = [line for line in result.stderr.splitlines() if "[warn]" in line and "http2" not in line]
    assert result.returncode == 0 and not warned, result.stderr


@contextlib.contextmanager
def site(folder, studio: str):
    """The site in front of a studio, really started: its addresses without and with TLS."""
    plain, secure = free_port(), free_port()
    ports = {"listen 80;": f"listen 127.0.0.1:{plain};", "listen 443 ssl": f"listen 127.0.0.1:{secure} ssl"}
    path = configuration(folder, ports | {"127.0.0.1:7860": studio.removeprefix("http://")})
    folder.chmod(0o755)  # nginx gives up root's rights
    process = subprocess.Popen([NGINX, "-p", folder, "-c", path], stderr=subprocess.PIPE, text=True)

    def answers():
        assert process.poll() is None, process.stderr.read()
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", secure)).close() is None

    try:
        wait_for(answers)
        yield f"http://localhost:{plain}", f"https://localhost:{secure}"
    finally:
        process.terminate()
        process.communicate(timeout=30)


@needs_nginx
def test_the_studio_behind_the_site(tiny_run, tmp_path):
    """TLS, password, limits; a program rolls out through it."""
    pytest.importorskip("gradio", reason="Gradio is not installed (requirements-studio.txt)")
    import httpx
    from gradio_client import Client

    with (
        running_studio(tiny_run.parent, NEXTFRAME_AUTH="me:correct horse") as studio,
        site(tmp_path, studio) as (plain, secure),
    ):
        trusted = ssl.create_default_context(cafile=tmp_path / "fullchain.pem")
        sent = httpx.get(plain, headers={"Host": "studio.example.org"})
        assert sent.status_code == 301 and sent.headers["location"] == "https://studio.example.org/"
        with httpx.Client(base_url=secure, verify=trusted, timeout=60) as visitor:
            page = visitor.get("/")
            assert page.status_code == 200 and "max-age" in page.headers["strict-transport-security"]
            assert "nginx/" not in page.headers["server"]
            assert visitor.get("/gradio_api/info").status_code == 401
            # A browser names its page, whose port is not 443 here: it is taken for no other page.
            wrong = {"data": {"username": "me", "password": "wrong"}}
            assert visitor.post("/login", headers={"Origin": secure}, **wrong).status_code == 400
            assert visitor.post("/login", headers={"Origin": secure[:-1]}, **wrong).status_code == 403
            large = {"files": ("large.wav", bytes(66 << 20))}
            assert visitor.post("/gradio_api/upload", files=large).status_code == 413
        client = Client(
            secure, auth=("me", "correct horse"), ssl_verify=trusted, verbose=False, download_files=tmp_path
        )
        (file,), told = client.predict(None, chords="C | F", length=1, seed=3, model="tiny", api_name="/continue")
        assert told["seed"] == 3 and file.endswith("chords-next.wav")
        with httpx.Client(base_url=secure, verify=trusted, timeout=60) as guesser:
            guess = {"username": "me", "password": "wrong"}
            begin, answers = time.monotonic(), []
            while 503 not in answers:
                answers.append(guesser.post("/login", data=guess).status_code)
                assert len(answers) <= 12 + (time.monotonic() - begin) / 5
        assert set(answers) == {400, 503}


def test_the_site_takes_what_the_studio_takes():
    pytest.importorskip("gradio", reason="Gradio is not installed (requirements-studio.txt)")
    from studio.guard import MAX_BODY
    from studio.server import MAX_UPLOAD

    megabytes = int(regex.search(r"client_max_body_size (\d+)m;", (DEPLOY / "nginx.conf").read_text())[1])
    assert megabytes << 20 == MAX_UPLOAD + MAX_BODY


def test_the_container():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (requirements-studio.txt)")
    (name, service), *others = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items()
    assert name == "studio" and not others
    assert service["ports"] == ["127.0.0.1:7860:7860"] and service["volumes"] == ["../metadata:/metadata:ro"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    recipe = (DEPLOY / "Dockerfile").read_text()
    for file in regex.search(r"^COPY (requirements.*) \./$", recipe, regex.MULTILINE)[1].split():
        assert (ROOT / file).is_file()
    compose = next(
        (
            words
            for words in (["docker", "compose"], ["docker-compose"])
            if shutil.which(words[0]) and said(*words, "version").returncode == 0
        ),
        None,
    )
    if compose is None:
        pytest.skip("docker compose is not installed; the file was read as YAML")
    result = said(*compose, "-f", DEPLOY / "compose.yaml", "config", "--quiet")
    assert result.returncode == 0, result.stderr
