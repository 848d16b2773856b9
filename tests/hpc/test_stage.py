"""Manifests: complete, current, refused, replaced."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.config import Config
from hpc.errors import InUse, NoSpace, OutputExists
from hpc.stage import fingerprint, is_current, make_way, manifest_path, read_manifest, stage


class Settings(Config):
    out: Path
    p: float = 0.5
    workers: int = 0
    overwrite: bool = False


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("input")
    return path


def make(config: Settings, source: Path, text: str = "x") -> None:
    with stage("copy", config.out, config, {"source": source}, config.overwrite) as made:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "f").write_text(text)
        made.note(count=3)


def test_manifest_says_what_it_cost(tmp_path, source):
    config = Settings(out=tmp_path / "o")
    make(config, source)
    manifest = read_manifest(config.out)
    assert manifest["facts"] == {"count": 3}
    assert manifest["peak_memory_bytes"] > 10**6 and manifest["seconds"] >= 0


def test_current_until_config_or_input_changes(tmp_path, source):
    config = Settings(out=tmp_path / "o")
    assert not is_current("copy", config.out, config)
    make(config, source)
    assert is_current("copy", config.out, config)
    assert is_current("copy", config.out, Settings(out=config.out, workers=8))
    assert not is_current("copy", config.out, Settings(out=config.out, p=0.1))
    os.utime(source, ns=(1, 1))
    assert not is_current("copy", config.out, config)
    source.unlink()
    assert not is_current("copy", config.out, config)


def test_a_stage_remade_makes_its_followers_stale(tmp_path, source):
    first, second = Settings(out=tmp_path / "a"), Settings(out=tmp_path / "b")
    make(first, source)
    make(second, first.out)
    assert is_current("copy", second.out, second)
    make(Settings(out=first.out, overwrite=True), source)
    assert not is_current("copy", second.out, second)


def test_complete_output_is_refused_or_replaced(tmp_path, source):
    config = Settings(out=tmp_path / "o")
    make(config, source)
    (config.out / "stale").write_text("")
    with pytest.raises(OutputExists, match="overwrite=true"):
        make(config, source)
    make(Settings(out=config.out, overwrite=True), source, "new")
    assert not (config.out / "stale").exists() and (config.out / "f").read_text() == "new"


def test_a_folder_of_the_user_is_never_deleted(tmp_path, source):
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(OutputExists, match="other files"):
        make(Settings(out=precious, overwrite=True), source)
    assert (precious / "thesis.tex").exists()


def test_an_input_is_never_overwritten(tmp_path, source):
    for out in (source, tmp_path):
        with pytest.raises(OutputExists, match=r"is or holds an input \(source: .*in.txt\); give another out="):
            make(Settings(out=out, overwrite=True), source)
    assert source.read_text() == "input"


def test_failed_stage_leaves_no_manifest(tmp_path, source):
    config = Settings(out=tmp_path / "o")
    with pytest.raises(RuntimeError), stage("copy", config.out, config, {"source": source}):
        raise RuntimeError
    assert read_manifest(config.out) is None


def test_manifest_of_a_file_or_store_stands_beside_it(tmp_path):
    assert manifest_path(tmp_path / "t.parquet").name == "t.parquet.manifest.json"
    assert manifest_path(tmp_path / "s.zarr") == tmp_path / "s.zarr.manifest.json"


def test_peak_memory_is_not_that_of_the_program_that_started_it():
    program = "from hpc.stage import peak_memory; print(peak_memory())"
    ballast = bytearray(400 << 20)
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 10**6 < int(done.stdout) < 300 << 20


def test_two_of_the_same_at_once_are_refused_and_nothing_is_touched(tmp_path, source):
    config = Settings(out=tmp_path / "o")
    with stage("copy", config.out, config, {"source": source}):
        config.out.mkdir()
        (config.out / "plan.json").write_text("{}")
        (config.out / "f").write_text("the first")
        for overwrite in (False, True):
            with pytest.raises(InUse, match="another copy is at work on it .* give another out="):
                make(Settings(out=config.out, overwrite=overwrite), source, "the second")
        assert (config.out / "f").read_text() == "the first"
    assert is_current("copy", config.out, config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "o"]


def test_an_output_in_use_is_told_with_the_key_that_names_it(tmp_path, source):
    class Training(Config):
        run_dir: Path

    config = Training(run_dir=tmp_path / "o")
    with (
        stage("train", config.run_dir, config, {}),
        pytest.raises(InUse, match="give another run_dir="),
        stage("train", config.run_dir, config, {}),
    ):
        pass


def test_locks_say_nothing_of_what_they_stand_among(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    empty = fingerprint(folder)
    (folder / ".store.zarr.lock").write_text("{}")
    (folder / ".lock").write_text("{}")
    assert fingerprint(folder) == empty
    make_way(folder, overwrite=False)  # it holds no other files


def test_a_full_disk_names_the_output_and_the_same_command_goes_on(tmp_path, source, monkeypatch):
    config = Settings(out=tmp_path / "t.tsv")

    def work(error: Exception | None = None) -> None:
        with stage("copy", config.out, config, {"source": source}):
            config.out.write_text("x")
            if error:
                raise error

    told = r"t.tsv: the disk is full, or a file size limit is reached \(No space left on device\); free some space"
    with pytest.raises(NoSpace, match=told):
        work(RuntimeError("write(): fd 3 failed with No space left on device"))
    with pytest.raises(NoSpace, match="/tmp/elsewhere: the disk is full"):
        work(OSError(errno.ENOSPC, "No space left on device", "/tmp/elsewhere"))
    with monkeypatch.context() as patched:
        full = OSError(errno.ENOSPC, "No space left on device")
        patched.setattr(Path, "write_text", lambda path, *_, **__: raising(full) if "manifest" in path.name else None)
        with pytest.raises(NoSpace, match=r"t\.tsv\.manifest\.json: the disk is full"):
            work()
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]
    work()
    assert is_current("copy", config.out, config)


def raising(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("there", [False, True], ids=["new folder", "empty folder"])
def test_what_cannot_be_resumed_goes_where_a_stage_fails(tmp_path, source, there):
    config = Settings(out=tmp_path / "o")
    if there:
        config.out.mkdir()

    def fail(name: str) -> None:
        with stage("copy", config.out, config, {"source": source}) as made:
            config.out.mkdir(exist_ok=True)
            (config.out / name).write_text("{}")
            made.beside.append(tmp_path / "o_figures")
            made.beside[0].mkdir(exist_ok=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail("f")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in.txt"] + ["o"] * there
    with pytest.raises(KeyboardInterrupt):
        fail("plan.json")
    assert (config.out / "plan.json").exists()
    make(config, source)
