"""One project of one account: the ids that go with every request about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.client import check_uuid
from airflow_provider_redbrick.exceptions import RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.api.client import RedBrickClient


class Scope:
    """Sends the operations of one project.

    :param org_id: the organisation's UUID.
    :param project_id: the project's UUID.
    :raises RedBrickInputError: when an id is not a UUID.
    """

    def __init__(self, client: RedBrickClient, org_id: str, project_id: str) -> None:
        self.client = client
        self.org_id = check_uuid("org_id", org_id)
        self.project_id = check_uuid("project_id", project_id)

    @property
    def ids(self) -> dict[str, str]:
        """The variables that every document of a project has."""
        return {"orgId": self.org_id, "projectId": self.project_id}

    def execute(self, document: str, variables: Mapping[str, Any], *, task_ids: Sequence[str] = ()) -> dict[str, Any]:
        """Send one operation and return its whole ``data``.

        :param task_ids: the tasks it is about, for messages.
        """
        return self.client.transport.execute(document, {**self.ids, **variables}, task_ids=task_ids)

    def change(self, document: str, variables: Mapping[str, Any], task_id: str) -> None:
        """Send a mutation on one task and look at what it says.

        :raises RedBrickRefusedError: when the server says, by ``ok`` or in words, that it did not do it.
        """
        data = self.execute(document, variables, task_ids=[task_id])
        for operation, payload in data.items():
            answer = payload if isinstance(payload, dict) else {}
            if answer.get("ok") is not True or answer.get("message"):
                words = answer.get("message") or f"ok is {answer.get('ok')!r}, without a reason."
                raise RedBrickRefusedError(
                    f"RedBrick did not do it: {words}",
                    operation=operation,
                    task_ids=[task_id],
                    maybe_applied=True,
                )
