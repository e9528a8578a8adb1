"""Validate the people that tasks are assigned to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_redbrick.exceptions import RedBrickInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.api.models import Member, User
    from airflow_provider_redbrick.api.workflow import Stage


def check_people(members: Sequence[Member], stage: Stage, emails: Sequence[str]) -> dict[str, User]:
    """Return the users behind email addresses, by the project's spelling.

    :param members: the members of the project.
    :param stage: the stage in which they will hold tasks.
    :param emails: addresses; case is ignored.
    :return: the users by email, in the order of `emails`.
    :raises RedBrickInputError: if a person is not a member, has no access to the stage, or is named twice. The message
        lists all of them.
    """
    known = {member.user.email.lower(): member for member in members if member.user.email}
    unknown = [email for email in emails if email.lower() not in known]
    if unknown:
        raise RedBrickInputError(
            f"Not members of the project: {', '.join(unknown)}. Its members are: {', '.join(sorted(known)) or 'none'}."
        )
    without_access = [email for email in emails if not known[email.lower()].may_work_in(stage.name)]
    if without_access:
        raise RedBrickInputError(f"No access to stage {stage.name}: {', '.join(without_access)}.")
    duplicates = sorted({email for email in emails if [other.lower() for other in emails].count(email.lower()) > 1})
    if duplicates:
        raise RedBrickInputError(f"Each person may be named once, but these are named twice: {', '.join(duplicates)}.")
    users = [known[email.lower()].user for email in emails]
    return {str(user.email): user for user in users}
