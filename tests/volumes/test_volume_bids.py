"""BIDS datasets and derivatives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.errors import ConfigError, InputError
from udipdist.volumes.sources import Repeat, Unused, list_cohort
from udipdist.volumes.sources.visits import natural


def dataset(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def kept(cohort):
    """Id, session, and file names of each subject."""
    return [(s.iid, s.session, *(scan and scan.name for scan in s.scans)) for s in cohort.sources]


def test_without_sessions(tmp_path):
    dataset(
        tmp_path,
        "dataset_description.json",
        "participants.tsv",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.json",
        "sub-02/anat/sub-02_FLAIR.nii.gz",
        "sub-02/anat/sub-02_desc-brain_mask.nii.gz",
        "sub-02/func/sub-02_task-rest_bold.nii.gz",
        "sub-01/anat/sub-01_T1w.nii",
        "sub-03/func/sub-03_task-rest_bold.nii.gz",
        "derivatives/x/sub-04/anat/sub-04_T1w.nii.gz",
    )
    cohort = list_cohort(tmp_path)
    assert cohort.modalities == ("T1w",)
    assert kept(cohort) == [("01", "", "sub-01_T1w.nii"), ("02", "", "sub-02_T1w.nii.gz"), ("03", "", None)]
    assert all(s.fid == s.iid for s in cohort.sources)
    assert not cohort.repeats and not cohort.unused
    assert kept(list_cohort(tmp_path, "bids", ["FLAIR", "T1w"]))[:2] == [
        ("01", "", None, "sub-01_T1w.nii"),
        ("02", "", "sub-02_FLAIR.nii.gz", "sub-02_T1w.nii.gz"),
    ]
    with pytest.raises(InputError, match="none of 3 subjects has a T2w image"):
        list_cohort(tmp_path, modalities=["T1w", "T2w"])


def test_the_first_session_is_kept(tmp_path):
    for session in ("10", "2", "3"):
        dataset(tmp_path, f"sub-a/ses-{session}/anat/sub-a_ses-{session}_T1w.nii.gz")
    dataset(
        tmp_path,
        "sub-a/ses-1/func/sub-a_ses-1_bold.nii.gz",
        "sub-a/ses-3/anat/sub-a_ses-3_FLAIR.nii.gz",
        "sub-b/ses-2/anat/sub-b_ses-2_FLAIR.nii.gz",
    )
    cohort = list_cohort(tmp_path)
    assert kept(cohort) == [("a", "2", "sub-a_ses-2_T1w.nii.gz"), ("b", "", None)]
    assert cohort.repeats == [
        Repeat("a", "a", session, str(tmp_path / f"sub-a/ses-{session}/anat/sub-a_ses-{session}_T1w.nii.gz"))
        for session in ("3", "10")
    ]
    both = list_cohort(tmp_path, modalities=["T1w", "FLAIR"])  # the first with both
    assert kept(both)[0] == ("a", "3", "sub-a_ses-3_T1w.nii.gz", "sub-a_ses-3_FLAIR.nii.gz")
    assert kept(both)[1] == ("b", "2", None, "sub-b_ses-2_FLAIR.nii.gz")
    assert [repeat.session for repeat in both.repeats] == ["2", "10"]
    assert kept(list_cohort(tmp_path, modalities=["ses-10_T1w"])) == [
        ("a", "10", "sub-a_ses-10_T1w.nii.gz"),
        ("b", "", None),
    ]


def test_runs_and_twice_the_same_name(tmp_path):
    names = ["run-2_T1w.nii.gz", "run-1_T1w.nii.gz", "run-1_T1w.nii", "run-10_T1w.nii.gz"]
    dataset(tmp_path, *(f"sub-a/anat/sub-a_{name}" for name in names))
    cohort = list_cohort(tmp_path)
    anat = tmp_path / "sub-a" / "anat"
    assert kept(cohort) == [("a", "", "sub-a_run-1_T1w.nii")]
    assert [repeat.file for repeat in cohort.repeats] == [str(anat / f"sub-a_{names[i]}") for i in (0, 3)]
    reason = "is a duplicate: sub-a_run-1_T1w.nii has the same name but for the extension, and is kept"
    assert cohort.unused == [Unused("a", "a", str(anat / "sub-a_run-1_T1w.nii.gz"), reason)]
    assert kept(list_cohort(tmp_path, modalities=["run-2_T1w"])) == [("a", "", "sub-a_run-2_T1w.nii.gz")]


def test_what_is_left_open_is_refused_with_what_to_type(tmp_path):
    for iid in ("a", "b"):
        dataset(
            tmp_path,
            f"sub-{iid}/anat/sub-{iid}_desc-preproc_T1w.nii.gz",
            f"sub-{iid}/anat/sub-{iid}_space-MNI_desc-preproc_T1w.nii.gz",
            f"sub-{iid}/anat/sub-{iid}_space-MNI_res-2_desc-preproc_T1w.nii.gz",
        )
    with pytest.raises(InputError) as refusal:
        list_cohort(tmp_path, modalities=["desc-preproc_T1w"])
    assert "for 2 subjects and sessions: sub-a_desc-preproc_T1w.nii.gz, " in str(refusal.value)
    assert "differ in res, space" in str(refusal.value)
    choice = "Choose with modalities=[desc-preproc_res-2_T1w] or [desc-preproc_res-_T1w] (files without res)"
    assert choice in str(refusal.value)
    with pytest.raises(InputError, match=r"modalities=\[res-_space-MNI_T1w\] or \[res-_space-_T1w\] \(files without"):
        list_cohort(tmp_path, modalities=["res-_T1w"])
    plain = list_cohort(tmp_path, modalities=["space-_T1w"])
    assert kept(plain) == [(i, "", f"sub-{i}_desc-preproc_T1w.nii.gz") for i in ("a", "b")]
    finest = list_cohort(tmp_path, modalities=["space-MNI_res-_T1w"])
    assert kept(finest)[0][2] == "sub-a_space-MNI_desc-preproc_T1w.nii.gz"


@pytest.mark.parametrize("name", ["T1w.nii.gz", "sub-01_T1w", "_T1w", "anat T1w", "space_T1w"])
def test_names_that_are_no_suffix(tmp_path, name):
    dataset(tmp_path, "sub-a/anat/sub-a_T1w.nii.gz")
    with pytest.raises(ConfigError, match=f"modalities={name}: is not a suffix; give T1w"):
        list_cohort(tmp_path, modalities=[name])


def test_links_that_lead_nowhere_are_told_of(tmp_path):
    dataset(tmp_path, "sub-a/anat/sub-a_T1w.nii.gz", "sub-b/anat/sub-b_T2w.nii.gz")
    (tmp_path / "sub-b/anat/sub-b_T1w.nii.gz").symlink_to("annex/absent")  # as DataLad leaves what was not fetched
    (tmp_path / "sub-a/anat/sub-a_FLAIR.nii.gz").mkdir()
    cohort = list_cohort(tmp_path)
    assert kept(cohort)[1] == ("b", "", "sub-b_T1w.nii.gz")
    with pytest.raises(InputError, match=r"is a link to annex/absent, which is not there; fetch it"):
        cohort.sources[1].scans[0].read_bytes()


def test_layouts_that_do_not_fit(tmp_path):
    dataset(tmp_path, "sub-a/anat/sub-a_T1w.nii.gz", "x.nii.gz", "list.csv")
    with pytest.raises(InputError, match="could be more than one thing; say layout=bids or layout=folder"):
        list_cohort(tmp_path)
    assert kept(list_cohort(tmp_path, "bids")) == [("a", "", "sub-a_T1w.nii.gz")]
    assert kept(list_cohort(tmp_path, "folder")) == [("x", "", "x.nii.gz")]
    with pytest.raises(ConfigError, match="layout=table: .* is not a CSV or TSV"):
        list_cohort(tmp_path, "table")
    for layout in ("bids", "ukb", "folder"):
        with pytest.raises(ConfigError, match=f"layout={layout}: .* is not a folder"):
            list_cohort(tmp_path / "list.csv", layout)
    with pytest.raises(ConfigError, match="layout=bids: .* is not a folder"):
        list_cohort(tmp_path / "sub-*" / "*.nii.gz", "bids")
    with pytest.raises(InputError, match=r"holds no folder sub-\*"):
        list_cohort(tmp_path / "sub-a", "bids")


@given(st.lists(st.integers(0, 300), min_size=1), st.sampled_from(["", "M", "visit"]))
def test_numbers_in_labels_are_sorted_as_numbers(numbers, word):
    labels = sorted([f"{word}{number}" for number in numbers], key=natural)
    assert [int(label.removeprefix(word)) for label in labels] == sorted(numbers)
    assert min(["", *labels], key=natural) == ""
