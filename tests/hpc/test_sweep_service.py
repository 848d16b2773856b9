"""The desk of a sweep's service: who waits is answered together, and an error reaches those who asked."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hpc.errors import InputError
from hpc.sweep.service import Desk, ServiceFailed, portable


class Doubles:
    """Doubles numbers, when it is let; refuses odd ones, and breaks at -1."""

    def __init__(self):
        self.batches: list[list[int]] = []
        self.may = threading.Event()

    def handle(self, requests):
        assert self.may.wait(20)
        self.batches.append(requests)
        if -1 in requests:
            raise KeyError("broken")
        return [InputError(f"{n}: is odd") if n % 2 else 2 * n for n in requests]


def test_all_who_wait_are_answered_at_once():
    service = Doubles()

    async def talk():
        desk = Desk(lambda: service, gather=0.05)
        first = [asyncio.create_task(desk.ask(n)) for n in (2, 4, 6)]
        await asyncio.sleep(0.5)
        later = [asyncio.create_task(desk.ask(n)) for n in (8, 10)]
        await asyncio.sleep(0.1)
        service.may.set()
        return await asyncio.gather(*first, *later)

    assert asyncio.run(talk()) == [(True, n) for n in (4, 8, 12, 16, 20)]
    assert service.batches == [[2, 4, 6], [8, 10]]


def test_errors_reach_those_who_asked_and_no_other():
    service = Doubles()
    service.may.set()

    async def talk():
        desk = Desk(lambda: service, gather=0.05)
        answers = await asyncio.gather(*(desk.ask(n) for n in (2, 3)))
        broken = await asyncio.gather(*(desk.ask(n) for n in (-1, 4)))
        return answers, broken, await desk.ask(6)

    (good, odd), broken, after = asyncio.run(talk())
    assert good == (True, 4) and after == (True, 12)
    assert odd[0] is False and isinstance(odd[1], InputError)
    for fine, error in broken:  # what is raised ends the whole batch
        assert not fine and isinstance(error, ServiceFailed) and "KeyError: 'broken'" in str(error)


def test_a_service_that_cannot_be_made_says_why():
    def make():
        raise InputError("no genotypes there")

    fine, error = asyncio.run(Desk(make, gather=0).open())
    assert not fine and isinstance(error, InputError)


def test_an_answer_for_each_request(monkeypatch):
    service = Doubles()
    monkeypatch.setattr(service, "handle", lambda requests: [])
    fine, error = asyncio.run(Desk(lambda: service, gather=0).ask(2))
    assert not fine and "0 answers to 1 requests" in str(error)


@pytest.mark.parametrize("error", [InputError("x"), KeyError("x")])
def test_errors_that_travel(error):
    assert isinstance(portable(error), type(error) if isinstance(error, InputError) else ServiceFailed)
