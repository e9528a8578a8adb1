"""Version-dependent access to Airflow internals for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import airflow
from packaging.version import Version

if TYPE_CHECKING:
    from pathlib import Path

BEFORE_3_1 = Version(airflow.__version__) < Version("3.1")
BEFORE_3_3 = Version(airflow.__version__) < Version("3.3")


def dag_bag(path: Path, bundle: str) -> Any:
    """Parse a folder of DAG files, as Airflow parses a bundle."""
    try:
        from airflow.dag_processing.dagbag import BundleDagBag
    except ImportError:  # before 3.2
        import sys

        from airflow.models.dagbag import DagBag

        if str(path) not in sys.path:
            sys.path.append(str(path))
        return DagBag(str(path), include_examples=False)
    return BundleDagBag(str(path), bundle_path=path, bundle_name=bundle)


def serialization() -> Any:
    """Return the DAG serializer: ``to_dict`` and ``from_dict``."""
    from airflow.serialization import serialized_objects as module

    return getattr(module, "DagSerialization", None) or module.SerializedDAG


def run(dag: Any, **how: Any) -> Any:
    """Run a DAG in this process, and return the DAG run."""
    if not hasattr(dag, "test"):  # 3.0.0
        from airflow.models.dag import DAG

        dag = DAG.from_sdk_dag(dag)  # noqa: AIR311 - what it has become cannot do this yet
    return dag.test(**how)
