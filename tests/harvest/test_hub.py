"""Loading by name from a server on loopback that speaks the Hub's protocol."""

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rkstore.store.places import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def server(model_dir):
    """The address of a Hub with one model, ``org/tiny``."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            prefix = "/org/tiny/resolve/"
            name = self.path.removeprefix(prefix).partition("/")[2].partition("?")[0]
            file = model_dir / name
            if not self.path.startswith(prefix) or not file.is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()


def harvest_by_name(endpoint, text_file, tmp_path, name="org/tiny"):
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache")}
    words = ["harvest", "--model", name, "--text", str(text_file), "--context-size", "16"]
    program = "import sys; from rkstore.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words, "--tokens", "64", "--out", "store"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_a_model_is_loaded_by_name_and_its_commit_is_recorded(server, text_file, tmp_path):
    done = harvest_by_name(server, text_file, tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = (tmp_path / "store" / "manifest.json").read_text()
    assert '"name": "org/tiny"' in manifest
    assert f'"revision": "{COMMIT}"' in manifest


def test_a_name_that_the_hub_does_not_have_is_one_sentence(server, text_file, tmp_path):
    done = harvest_by_name(server, text_file, tmp_path, name="org/absent")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot load the tokenizer 'org/absent' from the Hub" in done.stderr


def test_an_unknown_host_means_offline(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    for name in hub.PROXIES:
        monkeypatch.delenv(name, raising=False)
    hub.fail_fast()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_proxy_is_left_to_find_the_host(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    hub.fail_fast()
    assert "HF_HUB_OFFLINE" not in os.environ
