"""Shared test setup. Airflow is imported only after its environment is set."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest
from examples import examples
from hypothesis import settings

AIRFLOWS = ("tests/system/running_airflow/", "tests/system/every_airflow/")

_HOME = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
for _name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_") or name.lower().endswith("_proxy")]:
    del os.environ[_name]
os.environ["NO_PROXY"] = "*"

settings.register_profile("ours", examples(100))
settings.load_profile("ours")


def pytest_collection_modifyitems(items):
    """Run tests of a complete Airflow first, because they take longest."""
    items.sort(key=lambda item: item.get_closest_marker("airflow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Group tests for workers: one group per running Airflow, and one per other file."""
    from xdist.scheduler import LoadScopeScheduling

    class ByWhatIsShared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return next((folder for folder in AIRFLOWS if path.startswith(folder)), path)

    return ByWhatIsShared(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Escape test output that UTF-8 cannot encode, so that workers can send it."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
