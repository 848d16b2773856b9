"""Files appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hpc import files, leftovers
from hpc.errors import NoSpace, OutputExists


def test_publish_a_file_and_a_folder(tmp_path):
    with files.publish(tmp_path / "a" / "f.txt") as partial:
        partial.write_text("x")
        assert not (tmp_path / "a" / "f.txt").exists()
    assert (tmp_path / "a" / "f.txt").read_text() == "x"
    for content in ("1", "2"):
        with files.publish(tmp_path / "d") as partial:
            partial.mkdir()
            (partial / "f").write_text(content)
        assert (tmp_path / "d" / "f").read_text() == content


def test_what_the_dead_left_is_removed_and_what_the_living_write_is_not(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from hpc import files\n"
        "with files.publish(Path(sys.argv[1]) / 'page_figures') as partial:\n"
        "    partial.mkdir(); (partial / 'f').touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".page_figures.partial-") and (left / "f").exists()
    old, new = tmp_path / ".x.partial-0123abcd", tmp_path / ".y.trash-0123abcd"  # of nobody knows whom
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    with files.publish(tmp_path / "a") as living:
        living.touch()
        leftovers.sweep.cache_clear()
        files.publish_text(tmp_path / "page", "")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "page", new.name}


def test_nothing_is_left_after_an_error(tmp_path):
    (tmp_path / "f").write_text("old")

    def fail_halfway() -> None:
        with files.publish(tmp_path / "f") as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


def test_full_disk_is_one_clear_error(tmp_path):
    with pytest.raises(NoSpace, match="disk is full"), files.publish(tmp_path / "f"):
        raise OSError(28, "No space left on device")


def test_too_little_space_is_said_before(tmp_path):
    with pytest.raises(NoSpace, match="are free"):
        files.require_space(tmp_path / "not" / "yet", 10**18)
    files.require_space(tmp_path / "not" / "yet", 1)


def test_existing_output_is_refused(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(OutputExists, match="overwrite=true"):
        files.refuse_existing(tmp_path / "f", overwrite=False)
    files.refuse_existing(tmp_path / "f", overwrite=True)
    assert not (tmp_path / "f").exists()
