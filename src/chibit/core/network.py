"""Whether the Hub, or another server, is there."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

PROBE_SECONDS = 5.0
"""How long a server may take to answer a first request before it counts as unreachable."""


def unreachable(server: str) -> str | None:
    """Why a server does not answer, or None; libraries' own clients would wait for minutes."""
    try:
        request = urllib.request.Request(server, method="HEAD")
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return None
    except (urllib.error.HTTPError, http.client.HTTPException):  # an answer, whatever it says
        return None
    except OSError as error:
        return str(getattr(error, "reason", error))
