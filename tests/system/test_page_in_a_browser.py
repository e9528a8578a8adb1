"""The page's script draws whatever it is told, and makes markup of nothing."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from urllib.parse import unquote, urlsplit

import browser
import pytest

ILL = "<img src=x onerror=\"document.title='ill'\"><script>document.title='ill'</script>"
STATIC = resources.files("airflow_provider_redbrick.plugins") / "static"
KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

RUN = {
    "dag_id": f"dag {ILL}",
    "run_id": f"run {ILL}",
    "task_id": f"task {ILL}",
    "mapped": True,
    "at": "2024-05-01T00:00:00+00:00",
    "state": f"state {ILL}",
    "operation": f"operation {ILL}",
    "stage": f"stage_name {ILL}",
    "counts": [{"name": f"count {ILL}", "number": 3}],
}
STAGE = {
    "title": f"title {ILL}",
    "kind": f"label {ILL}",
    "count": 3,
    "held": [{"name": f"holder {ILL}", "count": 3, "share": f"1;{ILL}"}],
    "looked_at": 1,
    "course": {"path": f"M0 0H9{ILL}", "low": f"low {ILL}", "high": f"high {ILL}", "begin": 1, "end": 9},
}
BOARD = {
    "state": "ok",
    "message": "",
    "project": {"name": f"project {ILL}", "project_id": "p", "address": ""},
    "stages": [STAGE],
    "runs": [RUN],
    "read_at": "2024-05-01T00:00:00+00:00",
}
SHOWN = ("dag", "run", "task", "state", "operation", "stage_name", "count", "title", "holder", "low", "high", "project")


@contextmanager
def serving(board):
    """Serve the page's files and a board; without the policy that would keep markup from running."""
    offered = [{"connection": f"connection {ILL}", "project": ILL}, {"connection": "b", "project": ""}]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            kind, name = "application/json", path.removeprefix("/static/") if path != "/" else "page.html"
            if path == "/boards":
                content = json.dumps(offered).encode()
            elif path.startswith("/boards/"):
                content = json.dumps(board).encode()
            else:
                content, kind = (STATIC / name).read_bytes(), KINDS[name.rpartition(".")[2]]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    browser.needed()
    with browser.started(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


def seen(driver, address, selector):
    """What is on the page once something is, in text; nothing of it has run or become an element."""
    window = browser.Window(driver, address)
    window.open("/")
    window.until("what it is told", lambda: window.find(selector).get_attribute("textContent"))
    # An image that is not there is told of at once, but not before the script has ended.
    driver.execute_async_script("window.setTimeout(arguments[0], 300)")
    assert driver.title == "RedBrick"
    assert driver.execute_script("return document.querySelectorAll('img[src=x], body script').length") == 0
    return driver.execute_script("return document.body.textContent")


def test_whatever_names_are_they_are_text(driver):
    with serving(BOARD) as address:
        text = seen(driver, address, "#run-rows td")
        for word in (*SHOWN, "connection"):
            assert f"{word} {ILL}" in text, word
        link = driver.execute_script("return document.querySelector('#run-rows a').href")
        assert link.startswith(f"{address}/dags/dag%20%3Cimg")


def test_so_is_what_went_wrong(driver):
    with serving({**BOARD, "state": "no_answer", "message": f"message {ILL}"}) as address:
        assert f"message {ILL}" in seen(driver, address, "#trouble-message")
