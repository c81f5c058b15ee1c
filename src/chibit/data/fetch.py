"""Fetch one file over HTTP: with progress, resumed where it stopped, and whole or not at all."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from chibit.core.errors import ResourceError
from chibit.core.files import extend, flush, make_folder, move, read_regular, resource_error, write_atomic
from chibit.core.progress import byte_bar
from chibit.core.temporary import open_locked, remove

TIMEOUT_SECONDS = 10.0
"""Silence after which a server counts as unreachable."""
_BLOCK = 1 << 18
_NUM_ATTEMPTS = 3
_LONGEST_HEADER = 1 << 12


def download(url: str, target: Path, *, progress: bool = True) -> Path:
    """Fetch a file.

    What has arrived is kept beside the target as `<name>.part`, and a later call goes on from there, unless
    the server has another version by now (If-Range, RFC 9110, section 13.1.5). Of several processes that want
    the same file one fetches, and the others wait for it.

    Args:
        url: http or https.
        target: where it is to be; an existing file is kept.
        progress: show a bar on standard error.

    Returns:
        `target`.
    """
    make_folder(target.parent)
    part = target.with_name(target.name + ".part")
    with open_locked(target.with_name(target.name + ".lock"), wait=True):
        if target.exists():
            return target
        with byte_bar(f"downloading {target.name}", progress) as show:
            for attempt in range(1, _NUM_ATTEMPTS + 1):
                try:
                    _fetch(url, part, show)
                    break
                except (http.client.HTTPException, ConnectionError, TimeoutError, EOFError) as error:
                    # The connection broke on the way: go on from what is there.
                    if attempt == _NUM_ATTEMPTS:
                        raise _failure(url, target, error) from error
                except urllib.error.URLError as error:
                    raise _failure(url, target, error) from error
                except OSError as error:
                    raise resource_error(part, error) from error
        flush(part)
        move(part, target)
        remove(_version_file(part))
        flush(target.parent)
    return target


def _fetch(url: str, part: Path, show: Callable[..., None]) -> None:
    """Append what is missing from `part`; EOFError if the server stops before the end."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers=_rest(part, have) if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # all of it had arrived before
        have = 0
        response = urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS)
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # the server sends the file from its beginning
        length = response.headers.get("Content-Length")
        if length is None:
            raise http.client.HTTPException("the server does not say how long the file is")
        total = have + int(length)
        with extend(part, have) as file:
            if not have:
                write_atomic(_version_file(part), _version(response))
            while block := response.read(_BLOCK):
                file.write(block)
                have += len(block)
                show(completed=have, total=total)
    if have != total:
        raise EOFError(f"{have} of {total} bytes arrived")


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _version(response: http.client.HTTPResponse) -> str:
    """What tells this version of a file from others: its strong ETag or its date; empty without either."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _rest(part: Path, have: int) -> dict[str, str]:
    """Headers that ask for what follows, or for all of it where the server has another version."""
    asked = {"Range": f"bytes={have}-"}
    path = _version_file(part)
    if path.exists():
        version = read_regular(path, most=_LONGEST_HEADER, remedy="delete it").decode(errors="replace")
        asked |= {"If-Range": version} if version and version.isascii() and version.isprintable() else {}
    return asked


def _failure(url: str, target: Path, error: BaseException) -> ResourceError:
    reason = getattr(error, "reason", None) or error
    return ResourceError(
        f"{url}: cannot be fetched ({reason}); fetch it by other means and put it into {target.parent}"
    )
