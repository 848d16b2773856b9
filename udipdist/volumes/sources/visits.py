"""Which of several imaging visits of a subject is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence

from udipdist.volumes.sources.scan import Cohort, Repeat, Scan, Source

Visit = tuple[str, Sequence[Scan | None]]  # name of the session, an image or None for each modality


def add_visits(cohort: Cohort, iid: str, visits: Sequence[Visit]) -> None:
    """Add a subject (FID = IID) with the first of its visits; images of the others go to the repeats.

    `visits` are in the order of time. The first that has an image of every modality is kept; where none has, the
    first of those with the most.
    """
    if not visits:
        cohort.sources.append(Source(iid, iid, (None,) * len(cohort.modalities)))
        return
    kept = max(visits, key=lambda visit: sum(scan is not None for scan in visit[1]))  # of equals the first
    cohort.sources.append(Source(iid, iid, tuple(kept[1]), kept[0]))
    for visit in visits:
        if visit is not kept:
            session, scans = visit
            cohort.repeats.extend(Repeat(iid, iid, session, scan.source) for scan in scans if scan is not None)


def natural(text: str) -> list[tuple[str, int]]:
    """A key that sorts '2' before '10', and nothing before everything."""
    return [(word, int(number or -1)) for word, number in re.findall(r"(\D*)(\d*)", text)]
