"""People who can be given tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_redbrick.exceptions import RedBrickInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_redbrick.api.models import Member, User
    from airflow_provider_redbrick.api.workflow import Stage


def check_people(members: Sequence[Member], stage: Stage, emails: Sequence[str]) -> dict[str, User]:
    """Return the people by their e-mails as the project spells them.

    :raises RedBrickInputError: naming everybody who is not a member, or may not work in the stage.
    """
    known = {member.user.email.lower(): member for member in members if member.user.email}
    unknown = [email for email in emails if email.lower() not in known]
    if unknown:
        raise RedBrickInputError(
            f"Not members of the project: {', '.join(unknown)}. Its members are: {', '.join(sorted(known)) or 'none'}."
        )
    barred = [email for email in emails if not known[email.lower()].may_work_in(stage.name)]
    if barred:
        raise RedBrickInputError(f"No access to stage {stage.name}: {', '.join(barred)}.")
    twins = sorted({email for email in emails if [other.lower() for other in emails].count(email.lower()) > 1})
    if twins:
        raise RedBrickInputError(f"emails: named twice: {', '.join(twins)}.")
    users = [known[email.lower()].user for email in emails]
    return {str(user.email): user for user in users}
