"""Test the board: its content, and that client data cannot run as script."""

from __future__ import annotations

import io

import browser
import pytest
from PIL import Image
from selenium.webdriver.common.by import By

from redbrick_sandbox import board

HOSTILE = '<img src=x onerror="alert(1)">'


def stages(sandbox):
    answer = sandbox.http.get(f"{sandbox.url}/board.json", timeout=30)
    answer.raise_for_status()
    return {stage["title"]: stage for stage in answer.json()["stages"]}


def test_summary_counts_change_with_tasks(sandbox):
    sandbox.seed_tasks(5)
    before = stages(sandbox)
    assert (before["Label"]["count"], before["Review_1"]["count"], before["Ground Truth"]["count"]) == (5, 0, 0)
    sandbox.humans("Label", 3)
    sandbox.humans("Review_1", 1)
    after = stages(sandbox)
    assert (after["Label"]["count"], after["Review_1"]["count"], after["Ground Truth"]["count"]) == (2, 2, 1)
    assert len(after["Review_1"]["cards"]) == 2
    assert after["Ground Truth"]["cards"][0]["labels"][0]["bbox2d"]


def test_long_column_has_first_cards_and_total_count(sandbox):
    sandbox.seed_tasks(100)
    column = stages(sandbox)["Label"]
    assert column["count"] == 100
    assert len(column["cards"]) == 60


def test_content_security_policy_allows_only_own_script(sandbox):
    page = sandbox.http.get(f"{sandbox.url}/", timeout=30)
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    script = sandbox.http.get(f"{sandbox.url}/board.js", timeout=30).text
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert dangerous not in script


def test_hostile_name_is_sent_as_json_data(sandbox):
    sandbox.seed_tasks(1, prefix=HOSTILE)
    answer = sandbox.http.get(f"{sandbox.url}/board.json", timeout=30)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.json()["stages"][1]["cards"][0]["name"].startswith(HOSTILE)
    assert HOSTILE not in sandbox.http.get(f"{sandbox.url}/", timeout=30).text


def test_hostile_name_is_rendered_as_text(sandbox, tmp_path):
    browser.needed()
    name = f"{HOSTILE}<script>alert(2)</script>"
    sandbox.seed_tasks(2, prefix=name)
    with browser.started(tmp_path) as driver:
        window = browser.Window(driver, sandbox.url)
        window.open("/")
        title = window.find(".name")
        assert title.get_attribute("textContent").startswith(name)
        # The name created no element. The policy alone would also keep it from running.
        assert driver.find_elements(By.CSS_SELECTOR, "img[src=x], body script") == []
        assert [entry for entry in driver.get_log("browser") if "Content Security" in entry["message"]] == []


def test_thumbnail_shows_the_file_of_the_task(sandbox):
    sandbox.seed_tasks(1, images=True)
    item = stages(sandbox)["Label"]["cards"][0]["item"]
    answer = sandbox.http.get(f"{sandbox.url}/thumbnail", params={"item": item}, timeout=30)
    assert answer.headers["Content-Type"] == "image/png"
    assert max(Image.open(io.BytesIO(answer.content)).size) == 320
    unchanged = {"If-None-Match": answer.headers["ETag"]}
    again = sandbox.http.get(f"{sandbox.url}/thumbnail", params={"item": item}, headers=unchanged, timeout=30)
    assert again.status_code == 304


@pytest.mark.parametrize("item", ["", "no/such.dcm", "../../etc/passwd"])
def test_thumbnail_of_unknown_path_is_404(sandbox, item):
    assert sandbox.http.get(f"{sandbox.url}/thumbnail", params={"item": item}, timeout=30).status_code == 404


def test_nan_in_labels_becomes_null():
    assert board._json({"x": float("nan"), "y": [1.5]}) == '{"x": null, "y": [1.5]}'
