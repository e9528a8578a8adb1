"""Run the sandbox with five labelers: `python -m benchmarks.five_people serve`."""

from __future__ import annotations

import sys

from airflow_provider_redbrick.sandbox import seed
from airflow_provider_redbrick.sandbox.__main__ import main

MORE = (
    seed.Person("0a9c6e10-5b1d-4c8e-9f00-0000000000b4", "dave@example.com", "Dave", "Dunn"),
    seed.Person("0a9c6e10-5b1d-4c8e-9f00-0000000000b5", "erin@example.com", "Erin", "Ellis"),
)

if __name__ == "__main__":
    vars(seed).update(PEOPLE=seed.PEOPLE + MORE, LABELERS=seed.LABELERS + MORE)
    sys.exit(main())
