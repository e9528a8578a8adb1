"""What people see of RedBrick in Airflow, through a real browser."""

from __future__ import annotations

import os
import uuid

import browser
import pytest
from browser import Window
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from airflow_provider_redbrick.get_provider_info import get_provider_info

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

ILL = "<img src=x onerror=\"document.title='ill'\"><script>document.title='ill'</script>"
STATES = {"one": "success", "lost": "failed", "record": "success"}
KEY = "canary-0123456789-abcdefghijklmnopqrstuvwxy"


@pytest.fixture(scope="module")
def window(airflow, tmp_path_factory):
    missing = browser.missing()
    if missing:
        words = f"there is no {missing} (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("REDBRICK_TEST_BROWSER") == "required":
            pytest.fail(words)
        pytest.skip(words)
    with browser.started(tmp_path_factory.mktemp("browser")) as driver:
        yield Window(driver, airflow.url)


@pytest.fixture(scope="module")
def add_connection(airflow):
    """Make a connection as the form does: ``add_connection(project_id=..., password=...)`` answers its id."""
    made = []

    def add(*, project_id: str | None, password: str | None = None, host: str | None = None) -> str:
        server = airflow.sandbox
        made.append(f"ui_{uuid.uuid4().hex[:8]}")
        extra = f'{{"org_id": "{server.org_id}", "project_id": "{project_id}"}}'
        fields = {"connection_id": made[-1], "conn_type": "redbrick", "host": host or server.url, "extra": extra}
        answer = airflow.ask("connections", {**fields, "password": password or server.api_key})
        assert answer, fields
        return made[-1]

    return add


@pytest.fixture(scope="module")
def work(airflow, add_connection):
    """A project in which a DAG run has done something: its connection, tasks and run."""
    project = airflow.sandbox.add_project()
    ids = airflow.sandbox.seed_tasks(12, project_id=project)
    connection = add_connection(project_id=project)
    run = airflow.trigger("seen_in_the_ui", conn=connection, ids=ids)
    path = f"dags/seen_in_the_ui/dagRuns/{run}"
    airflow.wait("over", lambda: (airflow.ask(path) or {}).get("state") in {"success", "failed"})
    states = {task_id: airflow.instance("seen_in_the_ui", run, task_id).get("state") for task_id in STATES}
    assert states == STATES, airflow.words()
    return {"project": project, "connection": connection, "ids": ids, "run": run}


def counts(window) -> dict[str, int]:
    stages = window.driver.find_elements(By.CSS_SELECTOR, ".stage")
    return {
        stage.find_element(By.TAG_NAME, "h3").text: int(stage.find_element(By.CLASS_NAME, "count").text)
        for stage in stages
    }


def choose(window, connection: str) -> None:
    window.open("/plugin/redbrick")
    window.into_the_page()
    window.until("the connection", lambda: Select(window.find("#boards")).select_by_visible_text(connection) is None)


def test_the_page_is_in_the_navigation_and_shows_true_counts(airflow, window, work):
    window.open("/")
    window.until(
        "the navigation", lambda: window.driver.find_element(By.CSS_SELECTOR, 'a[href*="plugin/redbrick"]')
    ).click()
    window.into_the_page()
    choose(window, work["connection"])
    window.until("what was prelabelled", lambda: counts(window) == {"Label": 8, "Review_1": 4, "Ground Truth": 0})
    airflow.sandbox.humans("Label", 5, project_id=work["project"])
    airflow.sandbox.humans("Review_1", 3, project_id=work["project"])
    # The page updates without a click.
    window.until("what people did", lambda: counts(window) == {"Label": 3, "Review_1": 6, "Ground Truth": 3})
    assert window.find(".stage[data-kind=label] .held").text.splitlines()[0]
    line = window.find(".stage[data-kind=label] .course .line")
    assert line.get_attribute("d").startswith("M0 ")
    errors = [entry["message"] for entry in window.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors


def test_it_shows_what_runs_have_moved_and_leads_to_them(window, work):
    choose(window, work["connection"])
    window.until("the runs", lambda: window.driver.find_elements(By.CSS_SELECTOR, "#run-rows tr"))
    rows = {
        row.find_element(By.TAG_NAME, "small").text.rpartition(" ")[2]: row
        for row in window.driver.find_elements(By.CSS_SELECTOR, "#run-rows tr")
    }
    assert "1 done" in rows["one"].text
    assert "3 done" in rows["many"].text
    assert "lost" not in rows
    rows["one"].find_element(By.TAG_NAME, "a").click()
    window.driver.switch_to.default_content()
    window.until("the run's task", lambda: "/dags/seen_in_the_ui/runs/" in window.driver.current_url)
    assert window.driver.current_url.endswith("/tasks/one")


def test_it_leads_to_the_project_in_a_window_of_its_own(airflow, window, work):
    choose(window, work["connection"])
    window.until("the project", lambda: work["project"] in window.find("#open").get_attribute("href"))
    before = set(window.driver.window_handles)
    window.find("#open").click()
    (opened,) = window.until("another window", lambda: set(window.driver.window_handles) - before)
    window.driver.switch_to.window(opened)
    window.until("the board", lambda: window.driver.current_url.startswith(airflow.sandbox.url))
    window.driver.close()
    window.driver.switch_to.window(before.pop())


def links(airflow, work, task_id: str, map_index: int = -1) -> dict[str, str | None]:
    path = f"dags/seen_in_the_ui/dagRuns/{work['run']}/taskInstances/{task_id}/links?map_index={map_index}"
    return airflow.ask(path)["extra_links"]


def test_task_instances_have_links_mapped_and_failed_ones_too(airflow, work):
    project = f"{airflow.sandbox.url}/?project={work['project']}"
    assert links(airflow, work, "one") == {
        "RedBrick project": project,
        "RedBrick task": f"{project}&taskId={work['ids'][0]}",
    }
    assert links(airflow, work, "many", 0)["RedBrick task"] == f"{project}&taskId={work['ids'][1]}"
    assert links(airflow, work, "many", 1) == {"RedBrick project": project, "RedBrick task": None}
    assert links(airflow, work, "lost") == {"RedBrick project": project, "RedBrick task": None}


def test_a_link_leads_from_the_task_instance_to_the_project(airflow, window, work):
    window.open(f"/dags/seen_in_the_ui/runs/{work['run']}/tasks/one/details")
    link = window.until(
        "the link", lambda: window.driver.find_element(By.XPATH, '//a[normalize-space()="RedBrick project"]')
    )
    window.driver.get(link.get_attribute("href"))
    assert window.driver.current_url.startswith(airflow.sandbox.url)
    assert work["project"] in window.driver.current_url
    window.until("the board", lambda: "Review_1" in window.text())


def test_the_connection_form_shows_our_fields(window):
    window.open_connection_form("redbrick")
    (kind,) = get_provider_info()["connection-types"]
    window.until("the key's own name", lambda: "API key" in window.text())
    assert "Schema" not in window.text()
    window.named("Extra Fields", "button").click()
    labels = {field["label"] for field in kind["conn-fields"].values()}
    window.until(f"all of {labels}", lambda: all(label in window.text() for label in labels))


def test_names_are_text_whatever_they_are(airflow, window, add_connection):
    stages = [
        {"stageName": "Label", "brickName": "manual-labeling", "routing": {"nextStageName": ILL}},
        {"stageName": ILL, "brickName": "expert-review", "routing": {"passed": "Output", "failed": "Label"}},
        {"stageName": "Output", "brickName": "labelset-output", "routing": {}},
    ]
    project = airflow.sandbox.add_project(stages, name=ILL)
    choose(window, add_connection(project_id=project))
    window.until("the project", lambda: window.find("#project").text == ILL)
    assert ILL in counts(window)
    assert not window.driver.find_elements(By.CSS_SELECTOR, "#project *, .stage h3 *, main img, main script")
    assert window.driver.execute_script("return document.title") == "RedBrick"


@pytest.mark.parametrize(
    ("wrong", "title"),
    [
        ({"password": KEY}, "RedBrick refuses the key"),
        ({"host": "http://localhost:9"}, "RedBrick does not answer"),
        ({"project_id": "99999999-9999-9999-9999-999999999999"}, "There is no such project"),
    ],
)
def test_what_is_wrong_with_a_connection_is_said(window, work, add_connection, wrong, title):
    choose(window, add_connection(**{"project_id": work["project"], **wrong}))
    window.until(title, lambda: window.find("#trouble-title").text == title)
    assert window.find("#trouble-message").text
    assert KEY not in window.driver.page_source
    assert "Traceback" not in window.text()


def test_the_page_is_as_dark_as_airflow(window, work):
    choose(window, work["connection"])
    window.driver.switch_to.default_content()
    for theme in ("dark", "light"):
        script = (
            "const r = document.documentElement; r.classList.remove('dark', 'light'); r.classList.add(arguments[0])"
        )
        window.driver.execute_script(script, theme)
        window.into_the_page()
        window.until(theme, lambda theme=theme: window.find("html").get_attribute("data-theme") == theme)
        window.driver.switch_to.default_content()
