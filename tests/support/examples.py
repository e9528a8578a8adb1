"""The number of examples of property-based tests.

They are the same every time, so that a change is not stopped by what an earlier one left behind. ``make fuzz`` looks
for new ones: as many for each hundred as REDBRICK_FUZZ_EXAMPLES says.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

_HUNDRED = os.environ.get("REDBRICK_FUZZ_EXAMPLES")


def examples(number: int, **options: Any) -> Callable[[Any], Any]:
    """Run a test with so many examples, the same ones every time, or as many new ones for each hundred as asked for."""
    return settings(
        max_examples=max(1, number * int(_HUNDRED or 100) // 100),
        derandomize=_HUNDRED is None,
        database=None,
        deadline=None,  # a busy machine is no defect
        print_blob=True,
        **options,
    )
