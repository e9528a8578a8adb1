"""One project of one account: the ids that every request about it carries.

Design notes on the results of combined mutations:

1. One request carries mutations of different tasks. An error that names an alias is the result of that mutation
   alone.
2. An error without an alias, or an answer without data, leaves open which mutations were applied: the whole request
   fails with ``maybe_applied``.
3. ``ok: false`` or a message is a refusal, even in a successful answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_redbrick.api.calls import Call, combine
from airflow_provider_redbrick.api.ids import check_uuid
from airflow_provider_redbrick.exceptions import RedBrickAnswerError, RedBrickAPIError, RedBrickRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_redbrick.api.client import RedBrickClient


class Scope:
    """Send the operations of one project.

    :param client: the account.
    :param org_id: the organization's UUID.
    :param project_id: the project's UUID.
    :raises RedBrickInputError: if an id is not a UUID.
    """

    def __init__(self, client: RedBrickClient, org_id: str, project_id: str) -> None:
        self.client = client
        self.org_id = check_uuid("org_id", org_id)
        self.project_id = check_uuid("project_id", project_id)

    @property
    def ids(self) -> dict[str, str]:
        """The variables that every document of a project declares."""
        return {"orgId": self.org_id, "projectId": self.project_id}

    def execute(self, document: str, variables: Mapping[str, Any], *, task_ids: Sequence[str] = ()) -> dict[str, Any]:
        """Send one operation and return its complete ``data``.

        :param document: the GraphQL document.
        :param variables: its variables except the organization's and the project's id.
        :param task_ids: the tasks it is about, for messages.
        :raises RedBrickAPIError: if the request fails or the answer has an error.
        """
        return self.client.transport.execute(document, {**self.ids, **variables}, task_ids=task_ids)

    def send(self, calls: Sequence[Call]) -> list[RedBrickAPIError | None]:
        """Send mutations of different tasks in one request.

        :return: for each call, the error that it failed with, or ``None``.
        :raises RedBrickAPIError: if the request fails as a whole.
        """
        if len(calls) == 1:
            return [self._sent_alone(calls[0])]
        document, variables = combine(calls)
        ids = [call.task_id for call in calls]
        answer = self.client.transport.execute_partial(document, {**self.ids, **variables}, task_ids=ids)
        if answer.data is None or any(issue.root is None for issue in answer.issues):
            # The error does not say which mutation failed, nor whether the others were applied.
            words = "; ".join(issue.message for issue in answer.issues)
            raise RedBrickAnswerError(
                f"RedBrick answered with an error: {words}", operation=calls[0].name, task_ids=ids, maybe_applied=True
            )
        failed = {issue.root: issue.message for issue in answer.issues}
        return [_problem(call, answer.data.get(f"m{i}"), failed.get(f"m{i}")) for i, call in enumerate(calls)]

    def change(self, call: Call) -> None:
        """Send a mutation of one task.

        :raises RedBrickAPIError: if it fails.
        """
        problem = self._sent_alone(call)
        if problem is not None:
            raise problem

    def _sent_alone(self, call: Call) -> RedBrickAPIError | None:
        data = self.execute(call.document, call.variables, task_ids=[call.task_id])
        return _problem(call, data.get(call.name), None)


def _problem(call: Call, payload: Any, issue: str | None) -> RedBrickAPIError | None:
    """Return the error in the answer to one mutation: a GraphQL error, or a refusal."""
    answer = payload if isinstance(payload, dict) else {}
    if issue is not None:
        words = f"RedBrick answered with an error: {issue}"
    elif answer.get("ok") is not True or answer.get("message"):
        reason = answer.get("message") or f"ok is {answer.get('ok')!r}, without a reason."
        words = f"RedBrick refused the change: {reason}"
    else:
        return None
    return RedBrickRefusedError(words, operation=call.name, task_ids=[call.task_id], maybe_applied=True)
