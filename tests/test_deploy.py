"""The files of deploy/: each is what its program reads, by that program's own word where it is installed."""

import shutil
import subprocess

import pytest
import regex

from conftest import ROOT

DEPLOY = ROOT / "deploy"


def said(*command) -> subprocess.CompletedProcess:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60)


def test_the_unit(tmp_path):
    text = (DEPLOY / "nextframe-studio.service").read_text()
    settings = dict(regex.findall(r"^(\w+)=(.*)$", text, regex.MULTILINE))
    wanted = {"DynamicUser": "yes", "ProtectSystem": "strict", "NoNewPrivileges": "yes", "CapabilityBoundingSet": ""}
    assert wanted.items() <= settings.items() and {"MemoryMax", "Nice", "CPUWeight", "IOWeight"} <= settings.keys()
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    # Its program need not be installed where this test runs.
    unit = tmp_path / "nextframe-studio.service"
    unit.write_text(text.replace("/opt/nextframe/.venv/bin/python", "/bin/true").replace("/opt/nextframe", "/"))
    result = said("systemd-analyze", "verify", "--man=no", unit)
    about = [line for line in result.stderr.splitlines() if "nextframe-studio" in line]
    assert result.returncode == 0 and not about, result.stderr


def test_the_site(tmp_path):
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if nginx is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed (apt-get install nginx-light openssl)")
    key, certificate = tmp_path / "privkey.pem", tmp_path / "fullchain.pem"
    made = ["-nodes", "-days", "1", "-subj", "/CN=studio.example.org", "-keyout", key, "-out", certificate]
    assert said("openssl", "req", "-x509", "-newkey", "rsa:2048", *made).returncode == 0
    site = (DEPLOY / "nginx.conf").read_text().replace("/etc/nginx/nextframe", str(tmp_path))
    (tmp_path / "site.conf").write_text(site)
    whole = (
        f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; include {tmp_path}/site.conf; }}"
    )
    (tmp_path / "nginx.conf").write_text(whole)
    result = said(nginx, "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf")
    assert result.returncode == 0 and "[warn]" not in result.stderr, result.stderr


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
    if shutil.which("docker") is None or said("docker", "compose", "version").returncode != 0:
        pytest.skip("docker compose is not installed; the file was read as YAML")
    result = said("docker", "compose", "-f", DEPLOY / "compose.yaml", "config", "--quiet")
    assert result.returncode == 0, result.stderr
