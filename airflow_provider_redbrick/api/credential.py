"""The API key or access token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_redbrick.exceptions import RedBrickInputError

if TYPE_CHECKING:
    import requests


@dataclass(frozen=True, repr=False, init=False)
class Credential:
    """The API key or access token, as the header the server wants. Its repr shows neither.

    Being the session's ``auth`` it also keeps ``requests`` from sending what a ``.netrc`` file may hold.

    :param secret: the key or token.
    :param header: the name of the header.
    :raises RedBrickInputError: if the secret has characters that a header cannot hold.
    """

    secret: str
    header: str

    def __init__(self, secret: str, header: str = "ApiKey") -> None:
        valid = bool(secret) and all(" " <= character <= "~" for character in secret)
        object.__setattr__(self, "secret", secret)
        object.__setattr__(self, "header", header)
        # Error trackers store the local variables of each frame of an error.
        del secret
        if not valid:
            # What a header cannot hold would come back in the words of the error that says so.
            raise RedBrickInputError("The API key has characters that no key has (a line break?); copy it again.")

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        request.headers[self.header] = self.secret
        return request

    def __repr__(self) -> str:
        return f"Credential({self.header}: ***)"
