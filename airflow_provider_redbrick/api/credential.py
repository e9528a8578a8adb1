"""API key or access token, as HTTP header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_redbrick.exceptions import RedBrickInputError

if TYPE_CHECKING:
    import requests


@dataclass(frozen=True, repr=False, init=False)
class Credential:
    """The API key or access token. Its ``repr`` does not show it.

    As the session's ``auth`` it also keeps ``requests`` from sending credentials of a ``.netrc`` file.

    :param secret: the key or token.
    :param header: the name of the HTTP header that carries it.
    :raises RedBrickInputError: if the secret is empty or has characters that a header cannot hold.
    """

    secret: str
    header: str

    def __init__(self, secret: str, header: str = "ApiKey") -> None:
        valid = bool(secret) and all(" " <= character <= "~" for character in secret)
        object.__setattr__(self, "secret", secret)
        object.__setattr__(self, "header", header)
        # Error trackers store the local variables of each frame of a traceback.
        del secret
        if not valid:
            # Checked here, because the HTTP library's own error would quote the secret.
            raise RedBrickInputError(
                "The API key is empty or has invalid characters, for example a line break. Copy it again."
            )

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        request.headers[self.header] = self.secret
        return request

    def __repr__(self) -> str:
        return f"Credential({self.header}: ***)"
