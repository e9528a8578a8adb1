"""Tests that a forked child renews inherited threads, locks and connections."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from sandbox_process import SandboxProcess

# A parent with active threads forks while another thread holds a lock.
SCRIPT = """
import json, os, sys, threading, time
from airflow_provider_redbrick.client.transport.retry import shared_rate_limiter
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

hook = RedBrickHook()
project = hook.project()
client, transport = project.client, project.client.transport
assert client.threads.submit(client.me).result().startswith("API:")
together = threading.Barrier(hook.settings.max_concurrency)
assert all(future.exception() is None for future in [client.threads.submit(together.wait) for _ in range(10)])
assert all(future.result() for future in [client.threads.submit(project.queues) for _ in range(4)])

held = {
    "nothing": [],
    "rate": [transport._rate_limiter._lock],
    "limiters": [shared_rate_limiter.__globals__["_limiters"]._lock],
    "bundle": [client.bundle._lock],
    "connections": [transport._connections] * hook.settings.max_concurrency,
    "pool": [transport._session.get_adapter(transport.url).poolmanager.pools.lock],
}
what = sys.argv[1]
taken, done = threading.Event(), threading.Event()

def hold():
    for lock in held[what]:
        lock.acquire()
    taken.set()
    done.wait()
    for lock in held[what]:
        lock.release()

def work():
    # Exercises requests, threads and limits.
    counts = project.queues()
    futures = [client.threads.submit(project.queues) for _ in range(8)]
    assert all(future.result() == counts for future in futures)
    client.bundle.record_success(1)
    assert client.bundle.size
    shared_rate_limiter("another", None)
    other = RedBrickHook()
    assert other.project().queues() == counts
    other.close()
    hook.close()

threading.Thread(target=hold, daemon=True).start()
assert taken.wait(10)
child = os.fork()
if child == 0:
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
done.set()
# Parent and child send requests at the same time: a shared connection would mix up the answers.
for _ in range(20):
    assert project.queues()
until = time.monotonic() + 20
while time.monotonic() < until:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        work()
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.02)
os.kill(child, 9)
print("the child hangs", file=sys.stderr)
sys.exit(9)
"""

# The parent forks while threads read a value: parent and child each request it once.
READING = """
import os, sys, threading, time
from airflow_provider_redbrick._utils import read_once
from airflow_provider_redbrick.hooks.redbrick import RedBrickHook

began, go_on = threading.Event(), threading.Event()

class Slow(RedBrickHook):
    def _read_settings(self):
        began.set()
        assert go_on.wait(10)
        return super()._read_settings()

hook = Slow()
reader = threading.Thread(target=lambda: hook.client)
reader.start()
assert began.wait(10)
child = os.fork()
go_on.set()
if child == 0:
    hook.project().queues()
    os._exit(0)
reader.join(10)
hook.project().queues()
until = time.monotonic() + 20
while time.monotonic() < until:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.02)
os.kill(child, 9)
print("the child hangs", file=sys.stderr)
sys.exit(9)
"""

PAGE = """
import os, sys, threading, time
from airflow_provider_redbrick.plugins.access import ReadCache
from airflow_provider_redbrick.plugins.webhook import EventDeduplicator

cache = ReadCache(ttl_s=60, max_entries=8, threads=2)
events = EventDeduplicator(10)
assert cache.submit("one", lambda: 1).result(10) == 1
never = threading.Event()
cache.submit("hangs", never.wait)
cache._lock.acquire()
events._lock.acquire()
child = os.fork()
if child == 0:
    assert cache.submit("one", lambda: 2).result(10) == 2
    assert cache.submit("hangs", lambda: 3).result(10) == 3
    assert events.add([]) == []
    os._exit(0)
cache._lock.release()
never.set()
until = time.monotonic() + 20
while time.monotonic() < until:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.02)
os.kill(child, 9)
print("the child hangs", file=sys.stderr)
sys.exit(9)
"""


@pytest.fixture(scope="module")
def environment():
    with SandboxProcess() as sandbox:
        extra = {"org_id": sandbox.org_id, "project_id": sandbox.project_id, "requests_per_second": 1000}
        connection = {"conn_type": "redbrick", "host": sandbox.url, "password": sandbox.api_key, "extra": extra}
        yield {**os.environ, "AIRFLOW_CONN_REDBRICK_DEFAULT": json.dumps(connection)}


def run(script, environment, *arguments):
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("held", ["nothing", "rate", "limiters", "bundle", "connections", "pool"])
def test_forked_child_works_whatever_lock_the_parent_held(environment, held):
    run(SCRIPT, environment, held)


def test_forked_child_reads_a_value_that_the_parent_was_reading(environment):
    run(READING, environment)


def test_forked_child_of_the_api_server_sends_its_own_requests(environment):
    run(PAGE, environment)
