"""Voxels of an image -> voxels of MNI152_T1_1mm by FLIRT's matrix: pip install fslpy; python make.py."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from fsl.data.image import Image
from fsl.transform.flirt import fromFlirt
from nibabel.orientations import axcodes2ornt

REFERENCE = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])

rng = np.random.default_rng(4)
reference = Image(np.zeros((182, 218, 182), np.uint8), xform=REFERENCE)
turn = np.array([[np.cos(0.09), -np.sin(0.09), 0], [np.sin(0.09), np.cos(0.09), 0], [0, 0, 1]])
cases = []
for codes in ("LAS", "RAS", "PIR", "ASL", "LPI"):
    shape, zooms = (20, 24, 28), rng.uniform(0.8, 1.4, 3)
    axes = np.zeros((3, 3))
    for i, (axis, sign) in enumerate(axcodes2ornt(codes)):
        axes[int(axis), i] = sign
    affine, matrix = np.eye(4), np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ axes @ np.diag(zooms), rng.normal(size=3) * 20
    matrix[:3, :3] += rng.normal(size=(3, 3)) * 0.1
    matrix[:3, 3] = rng.uniform(30, 90, 3)
    image = nib.Nifti1Image(np.zeros(shape, np.uint8), affine)
    voxels = fromFlirt(matrix, Image(image), reference, "voxel", "voxel")
    case = {"affine": affine, "matrix": matrix, "voxel_to_voxel": voxels}
    cases.append({"codes": codes, "shape": shape} | {key: np.round(value, 12).tolist() for key, value in case.items()})
Path(__file__).with_name("voxel_to_voxel.json").write_text(json.dumps(cases, indent=1) + "\n")
