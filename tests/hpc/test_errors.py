"""What the operating system refuses is the user's to mend, in one message."""

import errno
import resource
import subprocess
import sys

import pytest

from hpc.errors import Error, of_the_disk


def test_a_limit_of_file_sizes_is_a_refusal():
    refusal = of_the_disk(OSError(errno.EFBIG, "File too large", "/somewhere/x.tsv"))
    assert isinstance(refusal, Error)
    assert str(refusal).startswith("/somewhere/x.tsv: File too large; check the path")


def test_an_array_that_numpy_could_not_write_whole_is_a_full_disk(tmp_path):
    write = "import sys, numpy as np; np.save(sys.argv[1], np.zeros(100_000))"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # noqa: E731
    words = [sys.executable, "-c", write, str(tmp_path / "x.npy")]
    ended = subprocess.run(words, preexec_fn=limit, capture_output=True, text=True)
    kind, _, message = ended.stderr.strip().splitlines()[-1].partition(": ")
    assert kind == "OSError"
    assert "the disk is full" in str(of_the_disk(OSError(message)))


@pytest.mark.parametrize("error", [OSError("odd"), OSError(errno.EIO, "Input/output error")])
def test_other_failures_are_not(error):
    assert of_the_disk(error) is None
