"""One error tree. An `Error` is for the user to fix: it is shown as one message, without a traceback.

Each message says what is wrong (the value), what is allowed, and what to type.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable


class Error(ValueError):
    """Something the user can fix; `exit_code` is what the command returns to the shell."""

    exit_code = 2


class ConfigError(Error):
    """A key or value of the configuration is not usable."""


class InputError(Error):
    """The content of a user's file is not usable."""


class OutputExists(Error):
    """The place to write to is taken."""


class InUse(Error):
    """Another process is at work on it."""


class NoSpace(Error):
    """The disk cannot hold what would be written."""


class Incomplete(Error):
    """The work ended, but part of it could not be done (failed subjects, missing parts)."""

    exit_code = 3


_OF_THE_DISK = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG,
)  # fmt: skip
_CUT_OFF_BY_NUMPY = re.compile(r"\d+ requested and \d+ written")  # all that ndarray.tofile says of a full disk


def of_the_disk(error: OSError) -> Error | None:
    """The user's error behind a refusal of the operating system (no permission, disk full, ...), or None."""
    if error.errno is None and _CUT_OFF_BY_NUMPY.fullmatch(str(error)):
        return NoSpace(
            "the disk is full, or a limit of file sizes is reached; free some space, then run the same command again"
        )
    if error.errno not in _OF_THE_DISK:
        return None
    place = f"{os.fspath(error.filename)}: " if error.filename else ""
    return InputError(f"{place}{error.strerror}; check the path, its permissions and the space on its disk")


class Preempted(Error):
    """A signal asked the run to stop; its state is saved. 75 is EX_TEMPFAIL: a scheduler may requeue."""

    exit_code = 75


class Stopped(BaseException):
    """SIGTERM has come. As KeyboardInterrupt it is no Exception, which work could take for a failure of its own."""

    exit_code = Preempted.exit_code


def some(items: Iterable[object], limit: int = 5) -> str:
    """'a, b, c and 7 more': the first `limit` of `items`, for messages."""
    words = [str(item) for item in items]
    shown = ", ".join(words[:limit])
    return shown if len(words) <= limit else f"{shown} and {len(words) - limit} more"
