"""One error tree. An `Error` is for the user to fix: it is shown as one message, without a traceback.

Each message says what is wrong (the value), what is allowed, and what to type.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


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


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
)  # fmt: skip
_SAID_BY_THE_SYSTEM = {
    said: os.strerror(number) for number in _FULL for said in (os.strerror(number), f"(os error {number})")
}  # the second by Rust, as in safetensors
_CUT_SHORT = re.compile(  # libraries that keep the number to themselves: numpy.ndarray.tofile, torch.save
    r"\d+ requested and \d+ written|PytorchStreamWriter failed|inline_container.*unexpected pos|basic_ios::clear"
)


def full_disk(error: BaseException) -> str | None:
    """What says, of an error or of those that it came from, that a disk takes no more: it is full, or a quota or a
    limit of file sizes is reached. None where nothing does."""
    for one in _origins(error):
        if isinstance(one, OSError) and one.errno in _FULL:
            return os.strerror(one.errno)
        text = "" if isinstance(one, Error) else str(one)  # ours say what they mean
        if said := next((reason for said, reason in _SAID_BY_THE_SYSTEM.items() if said in text), None):
            return said
        if _CUT_SHORT.search(text):
            return "a file was cut short"
    return None


def _origins(error: BaseException) -> list[BaseException]:
    """The error, and those that it came from."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return chain


def _file_of(error: BaseException) -> str:
    """The file that could not be written, where one of these errors names it."""
    named = [one.filename for one in _origins(error) if isinstance(one, OSError)]
    return next((os.fsdecode(name) for name in named if isinstance(name, str | bytes | os.PathLike)), "")


def no_space(place: object, reason: str, where: str = "") -> NoSpace:
    """The one message of a disk that takes no more; `reason` is what `full_disk` found, `where` as ', in part 3'."""
    return NoSpace(
        f"{place}{': ' if place else ''}the disk is full, or a file size limit is reached ({reason}){where}; free some "
        "space, then run the same command again"
    )


@contextmanager
def naming_full_disk(place: object, of_files: bool = True) -> Iterator[None]:
    """What fails in the block because a disk is full raises NoSpace, which names `place`; without `of_files` it names
    the file where that is known, which may lie elsewhere."""
    try:
        yield
    except NoSpace:
        raise
    except Exception as error:
        if reason := full_disk(error):
            raise no_space(place if of_files else _file_of(error) or place, reason) from error
        raise


def of_the_user(error: BaseException) -> Error | None:
    """The error that is for the user: it, what stands behind it (a full disk), or a refusal of the operating system (no
    permission ...); None for a mistake of ours."""
    if isinstance(error, NoSpace):
        return error
    place = (
        os.fsdecode(error.filename) if isinstance(error, OSError) and isinstance(error.filename, str | bytes) else ""
    )
    if reason := full_disk(error):
        return no_space(place, reason)
    if isinstance(error, Error):
        return error
    if isinstance(error, OSError) and error.errno in _REFUSED:
        where = f"{place}: " if place else ""
        return InputError(f"{where}{error.strerror}; check the path, its permissions and the space on its disk")
    return None


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
