"""The section about what the network sees, of folders as the verbs of `interpret` leave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hpc.errors import InputError
from hpc.stage import MANIFEST, stage
from udipdist.config import GalleryConfig
from udipdist.report import cost, interpretation
from udipdist.report.collect import RunFolder
from udipdist.report.page import render
from udipdist.report.section import Album, Heading, Picture, Section, Table

HOSTILE = "<script>alert(1)</script>"


def look(run: Path, name: str, pictures: list[str], tables: dict[str, pd.DataFrame], **facts) -> Path:
    """A finished folder of one look at the network."""
    out = run / "interpret" / name
    with stage(name, out, GalleryConfig(run_dir=run, store=run, out=out), {}) as made:
        out.mkdir(parents=True)
        for picture in pictures:
            pixels = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)
            Image.fromarray(pixels).save(out / f"{picture}.png")
            (out / f"{picture}.pdf").write_bytes(b"%PDF-")
        for file, table in tables.items():
            table.to_csv(out / file, sep="\t", index=False, na_rep="NA")
        made.note(**facts)
    return out


def section_of(run: Path, album: Path) -> Section:
    album.mkdir(exist_ok=True)
    return interpretation.interpretation(RunFolder.open(run), Album(album))


@pytest.fixture
def looked(run_copy) -> Path:
    """A run that was looked at in three ways, of which one is not finished."""
    sanity = pd.DataFrame({"method": ["occlusion", HOSTILE], "random": [0.25, np.nan], "halves": [0.75, 0.5]})
    captions = {"occlusion.png": "Occlusion: a cube.", "gradient.png": f"Gradient {HOSTILE}: a slope."}
    look(run_copy, "saliency", ["gradient", "occlusion"], {"sanity.tsv": sanity}, captions=captions)
    many = pd.DataFrame({"token": range(100), "name": [f"t{i}" for i in range(100)]})
    look(run_copy, "attention", ["singular", "received", "maps"], {"tokens.tsv": many})
    look(run_copy, "gallery", ["walks"], {})
    (run_copy / "interpret" / "gallery" / MANIFEST).unlink()
    return run_copy


def test_what_is_there_is_shown_in_order(looked, tmp_path):
    section = section_of(looked, tmp_path / "album")
    assert section.missing == "" and section.lead
    headings = [part.text for part in section.parts if isinstance(part, Heading)]
    assert headings == ["Where the network looks", "Which voxels a latent depends on"]
    pictures = [part for part in section.parts if isinstance(part, Picture)]
    assert [picture.name for picture in pictures] == [
        "attention_maps", "attention_singular", "attention_received", "saliency_occlusion", "saliency_gradient",
    ]  # fmt: skip
    assert pictures[3].caption == "Occlusion: a cube." and pictures[3].alt == "Occlusion"
    assert "over the template" in pictures[2].caption
    files = {path.name for path in (tmp_path / "album").iterdir()}
    assert files == {f"{picture.name}.{form}" for picture in pictures for form in ("png", "pdf")}
    assert any(
        isinstance(part, str) and "gallery has been started but is not finished" in part for part in section.parts
    )


def test_tables(looked, tmp_path):
    tokens, sanity = (part for part in section_of(looked, tmp_path / "a").parts if isinstance(part, Table))
    assert tokens.folded == "table: tokens" and len(tokens.rows) == interpretation.MOST_ROWS
    assert "the first 40 of 100 rows" in tokens.caption and tokens.columns == [">token", "name"]
    assert sanity.folded == "" and sanity.columns == [
        "method",
        ">like random weights, mean map",
        ">like the other half",
    ]
    assert sanity.rows[0] == ("occlusion", "0.25", "0.75") and sanity.rows[1][1] == "\u2013"


def test_names_are_escaped(looked, tmp_path):
    text = render("t", looked, [section_of(looked, tmp_path / "a")])
    assert HOSTILE not in text and "&lt;script&gt;" in text and "<h3>Where the network looks</h3>" in text


def test_a_long_list_of_pictures_is_cut(run_copy, tmp_path):
    names = [f"montage_{i:02d}" for i in range(1, 13)]
    look(run_copy, "perturb", names, {}, captions={f"{name}.png": "Maps." for name in names})
    section = section_of(run_copy, tmp_path / "a")
    shown = [part.name for part in section.parts if isinstance(part, Picture)]
    assert shown == [f"perturb_{name}" for name in names[: interpretation.MOST_PICTURES]]
    assert "first 9 of 12 pictures" in section.parts[-1]


def test_nothing_was_asked(run_copy, tmp_path):
    assert section_of(run_copy, tmp_path / "a") is None


def test_the_cost_counts_them_and_does_not_miss_them(looked, tmp_path):
    run = RunFolder.open(looked)
    section = cost.cost(run, Album(tmp_path))
    names = [row[0] for row in section.parts[0].rows]
    assert "interpret saliency" in names and "interpret gallery" not in names
    assert not any(isinstance(part, str) and "interpret" in part for part in section.parts)
    folded = {part.folded for part in cost.provenance(run, Album(tmp_path)).parts if isinstance(part, Table)}
    assert "configuration of interpret saliency" in folded


def test_damage(looked, tmp_path):
    place = looked / "interpret" / "saliency"
    (place / "occlusion.png").write_bytes(b"GIF89a")
    with pytest.raises(
        InputError, match="occlusion.png: is not a PNG picture; run interpret saliency again with overwrite"
    ):
        section_of(looked, tmp_path / "a")
    (place / "occlusion.png").unlink()
    (place / "sanity.tsv").write_text("")
    with pytest.raises(InputError, match="sanity.tsv: is not a table .* run interpret saliency again"):
        section_of(looked, tmp_path / "b")
    (place / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="manifest.json: is not valid JSON; run interpret saliency again"):
        section_of(looked, tmp_path / "c")
