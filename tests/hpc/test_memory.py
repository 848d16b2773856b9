"""The limits of control groups, in both of their versions."""

from __future__ import annotations

import psutil
import pytest

from hpc import memory


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Write a control group: group("0::/job", "job", limit, used, cache)."""
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN", tmp_path / "own")

    def write(line: str, folder: str, limit: object, used: int, cache: int) -> None:
        version = 2 if line.startswith("0:") else 1
        names = memory._FILES[version]
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / names[0]).write_text(f"{limit}\n")
        (place / names[1]).write_text(f"{used}\n")
        (place / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\n")
        (tmp_path / "own").write_text(line + "\n")

    return write


def test_without_a_limit_it_is_what_the_machine_has(group):
    assert memory.available() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    group("0::/job", "job", "max", 10, 5)
    assert memory.available() > 2**27


def test_the_page_cache_counts_as_free(group):
    group("0::/job", "job", 1000, 700, 500)
    assert memory.available() == 800


def test_a_group_around_it_limits_too(group):
    group("0::/job/step", "job/step", 1000, 100, 0)
    group("0::/job/step", "job", 900, 600, 100)
    assert memory.available() == 400


def test_the_first_version(group):
    group("4:memory:/job", "memory/job", 1000, 300, 100)
    assert memory.available() == 800


def test_it_is_never_less_than_nothing(group):
    group("0::/job", "job", 1000, 1200, 100)
    assert memory.available() == 0
