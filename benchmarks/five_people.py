"""Run the sandbox with five labelers: `python -m benchmarks.five_people serve`."""

from __future__ import annotations

import sys

from redbrick_sandbox import demo_project
from redbrick_sandbox.__main__ import main

MORE = (
    demo_project.Person("0a9c6e10-5b1d-4c8e-9f00-0000000000b4", "dave@example.com", "Dave", "Dunn"),
    demo_project.Person("0a9c6e10-5b1d-4c8e-9f00-0000000000b5", "erin@example.com", "Erin", "Ellis"),
)

if __name__ == "__main__":
    vars(demo_project).update(PEOPLE=demo_project.PEOPLE + MORE, LABELERS=demo_project.LABELERS + MORE)
    sys.exit(main())
