"""What notifiers deliver to where Airflow runs: its processes find this module on their path."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(context: Any) -> None:
    """Add a message to the file ``messages`` of Airflow's home."""
    with Path(os.environ["AIRFLOW_HOME"], "messages").open("a") as file:
        file.write(json.dumps(context["redbrick_message"]) + "\n")


def read(home: Path) -> list[str]:
    """Return the messages so far."""
    path = home / "messages"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
