"""Run blocking code off the triggerer's event loop.

Airflow's Task SDK reads connections, Variables and XComs over one stream that belongs to the triggerer's event loop.
Below Airflow 3.2.2, a blocking SDK call in a thread starts a second event loop on that stream, unless ``asgiref`` knows
the first one. The two loops then receive each other's answers ("Response read out of order"), and the triggerer ends
with all its triggers. Design note:

1. All blocking code of triggers and notifiers goes through :func:`in_thread`, never through ``asyncio.to_thread``.
2. Code in :func:`in_thread` calls the Task SDK in that same thread: threads of another pool do not know the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import ParamSpec

    Parameters = ParamSpec("Parameters")

Result = TypeVar("Result")


async def in_thread(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call a blocking function in a thread. It may use Airflow's Task SDK.

    :param function: the function to call.
    :param args: its positional arguments.
    :param kwargs: its keyword arguments.
    :return: the function's result.
    """
    return await sync_to_async(function, thread_sensitive=False)(*args, **kwargs)
