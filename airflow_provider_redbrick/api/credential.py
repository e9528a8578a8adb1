"""The API key or access token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_redbrick.exceptions import RedBrickInputError

if TYPE_CHECKING:
    import requests


@dataclass(frozen=True, repr=False)
class Credential:
    """The API key or access token, as the header the server wants. Its repr shows neither.

    Being the session's ``auth`` it also keeps ``requests`` from sending what a ``.netrc`` file may hold.
    """

    secret: str
    header: str = "ApiKey"

    def __post_init__(self) -> None:
        # What a header cannot hold would come back in the words of the error that says so.
        if not self.secret or not all(" " <= character <= "~" for character in self.secret):
            raise RedBrickInputError("The API key has characters that no key has (a line break?); copy it again.")

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        request.headers[self.header] = self.secret
        return request

    def __repr__(self) -> str:
        return f"Credential({self.header}: ***)"
