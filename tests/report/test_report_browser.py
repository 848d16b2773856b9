"""The page in a real browser: nothing goes wrong, figures are seen, loci tell what they are, phones need not scroll."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import chromium

pytestmark = pytest.mark.skipif(
    chromium.program() is None, reason="there is no chromium (Debian: apt install chromium)"
)

MARK = "document.querySelector('#figure-manhattan .mark')"


@pytest.fixture(scope="module")
def tab():
    with chromium.tab() as opened:
        yield opened


def middle(tab: chromium.Tab, what: str) -> tuple[float, float]:
    tab.value(f"{what}.scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}})")
    box = tab.value(f"(b => [b.left, b.top, b.width, b.height])({what}.getBoundingClientRect())")
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def shown(tab: chromium.Tab) -> list[str]:
    return tab.value("[...document.querySelectorAll('.tip')].filter(t => t.offsetHeight > 0).map(t => t.innerText)")


@pytest.mark.parametrize(("width", "height", "touch"), [(1366, 900, False), (390, 844, True)])
def test_the_page_is_whole_in_a_browser(tab, whole_page, width, height, touch):
    tab.complaints.clear()
    tab.open(whole_page, width, height, touch)
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("window.innerWidth") == width
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    images = tab.value("[...document.images].map(i => [i.alt, i.complete && i.naturalWidth, i.offsetWidth])")
    assert len(images) > 10
    assert all(natural > 300 and seen > 250 for _, natural, seen in images), images
    assert tab.value("document.documentElement.scrollWidth") <= width, "with all that is folded open"
    off = (
        "[...document.querySelectorAll('section, figure, p, h2, details')].filter(e => e.getBoundingClientRect().right"
    )
    assert tab.value(f"{off} > {width} + 1).map(e => e.id + e.className + e.tagName)") == []
    assert tab.complaints == []


@pytest.mark.parametrize(("width", "touch"), [(1366, False), (390, True)])
def test_a_locus_says_what_it_is_where_it_is_pointed_at(tab, whole_page, width, touch):
    tab.open(whole_page, width, 900, touch)
    assert shown(tab) == []
    at = middle(tab, f"{MARK}.querySelector('i')")
    (tab.press if touch else tab.point)(*at)
    (text,) = shown(tab)
    for part in ("<script>alert(1)</script>", "chr1:3,010,000", "p = 2.23872e-19", "panel: hit: rs9&9, 12 kb", "trait"):
        assert part in text
    left, right = tab.value(f"(b => [b.left, b.right])({MARK}.querySelector('.tip').getBoundingClientRect())")
    assert left >= 0 and right <= width
    before = np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("L"), float)
    assert before.std() > 10
    x, y = middle(tab, f"{MARK}.querySelector('.tip a')")
    tab.press(x, y)
    assert tab.value("location.hash") == "#figure-region_1"
    assert tab.value("document.querySelector('#figure-region_1 img').offsetHeight") > 100, "its fold is open"


def test_a_mark_lies_on_its_diamond(tab, whole_page):
    """The pixels under the mark of the locus that the panel knows are the orange of its diamond."""
    tab.open(whole_page, 1366, 900)
    spots = tab.value(f"[...{MARK}.querySelectorAll('i')].map(i => i.offsetHeight)")
    assert len(spots) == 2  # the diamond and the name
    x, y = middle(tab, f"{MARK}.querySelector('i')")
    image = np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB"), int)
    around = image[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].reshape(-1, 3)
    assert (np.abs(around - [0xE6, 0x9F, 0x00]).sum(axis=1) < 60).sum() > 10
