"""What the operating system refuses is the user's to mend, in one message; a full disk under whatever it is said."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from hpc.errors import Error, InputError, NoSpace, full_disk, no_space, of_the_user

# Writes a file by each library, with a limit of file sizes as a disk that is full, and says what was found behind it.
WRITERS = """
import sys
from pathlib import Path
import numpy as np, pandas as pd, pyarrow as pa, pyarrow.csv, torch, zarr
from safetensors.torch import save_file
from hpc.errors import full_disk
place, numbers = Path(sys.argv[1]), np.random.default_rng(0).normal(size=20_000)
tensor, table = torch.from_numpy(numbers), pd.DataFrame({"x": numbers})
path = place / "file"
for name, write in {
    "torch": lambda: torch.save(tensor, path),
    "torch before 1.6": lambda: torch.save(tensor, path, _use_new_zipfile_serialization=False),
    "safetensors": lambda: save_file({"x": tensor}, path),
    "save": lambda: np.save(place / "x.npy", numbers),
    "savez": lambda: np.savez(place / "x.npz", numbers),
    "parquet": lambda: table.to_parquet(path),
    "csv": lambda: table.to_csv(path),
    "gz": lambda: table.to_csv(place / "x.gz"),
    "arrow": lambda: pa.csv.write_csv(pa.Table.from_pandas(table), path),
    "zarr": lambda: zarr.create_array(place / "x.zarr", data=numbers, chunks=(20_000,)),
}.items():
    try:
        write()
    except Exception as error:
        print(name, full_disk(error), sep=": ")
    else:
        print(name, "was written")
"""


def test_a_full_disk_is_known_whichever_library_meets_it(tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # noqa: E731
    words = [sys.executable, "-c", WRITERS, str(tmp_path)]
    done = subprocess.run(words, preexec_fn=limit, capture_output=True, text=True)
    cut, told = "a file was cut short", os.strerror(errno.EFBIG)
    said = dict(line.split(": ") for line in done.stdout.splitlines())
    assert said == {
        "torch": cut, "torch before 1.6": told, "safetensors": told, "save": cut, "savez": told, "parquet": told,
        "csv": told, "gz": told, "arrow": told, "zarr": told,
    }, done.stderr  # fmt: skip


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_message(number):
    told = of_the_user(OSError(number, os.strerror(number), "/somewhere/x.tsv"))
    assert isinstance(told, NoSpace) and told.exit_code == 2
    assert str(told) == (
        f"/somewhere/x.tsv: the disk is full, or a file size limit is reached ({os.strerror(number)}); free some "
        "space, then run the same command again"
    )
    assert str(of_the_user(OSError(number, "x"))).startswith("the disk is full")


@pytest.mark.parametrize(
    "message",
    [
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
        "[enforce fail at inline_container.cc:862] . PytorchStreamWriter failed writing file data/0: file write failed",
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "write(): fd 3 failed with No space left on device",
        "76800 requested and 300 written",
    ],
)
def test_what_libraries_say_of_a_full_disk(message):
    assert isinstance(of_the_user(RuntimeError(message)), NoSpace)


def raised(*errors: Exception, cut: bool = False) -> Exception:
    """The last of `errors`, raised while the one before was handled, and so on; `cut`: 'from None'."""
    try:
        if len(errors) > 1:
            try:
                raise raised(*errors[:-1])
            except Exception:
                if cut:
                    raise errors[-1] from None
                raise errors[-1]  # noqa: B904
        raise errors[-1]
    except Exception as error:
        return error


def test_a_full_disk_behind_another_error_is_told():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert full_disk(raised(full, KeyError("x"), RuntimeError("cannot close"))) == "No space left on device"
    assert isinstance(of_the_user(raised(full, InputError("state: is damaged"))), NoSpace)
    assert of_the_user(raised(full, KeyError("x"), cut=True)) is None
    known = no_space("place", "reason", ", in part 3")
    assert of_the_user(raised(full, known)) is known and ", in part 3; free some space" in str(known)


def test_an_error_that_is_its_own_cause_comes_to_an_end():
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert full_disk(one) is None


def test_other_refusals_say_what_to_check():
    told = of_the_user(OSError(errno.EACCES, "Permission denied", "/somewhere/x.tsv"))
    assert isinstance(told, InputError)
    assert str(told).startswith("/somewhere/x.tsv: Permission denied; check the path")


@pytest.mark.parametrize("error", [OSError("odd"), OSError(errno.EIO, "Input/output error"), KeyError("x")])
def test_our_own_mistakes_are_not(error):
    assert of_the_user(error) is None
    assert of_the_user(raised(PermissionError(errno.EACCES, "Permission denied"), error)) is None


class StageFailed(Error):
    exit_code = 2


def test_errors_for_the_user_stay_what_they_are():
    for error in (InputError("x"), StageFailed("the training ended with 2: No space left on device")):
        assert of_the_user(error) is error
