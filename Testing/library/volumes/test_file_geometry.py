"""Where the voxels of a file lie, told by readers other than the library's own."""

from __future__ import annotations

import gzip
import itertools
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import from_matvec

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.evaluation.report import evaluate
from SAMFineTuneLib.evaluation.sheared_masks import straightened
from SAMFineTuneLib.geometry.grid import index_map
from SAMFineTuneLib.geometry.nifti_forms import read_forms
from SAMFineTuneLib.volumes import (
    Geometry,
    Labelmap,
    labelmap_onto,
    read_grid,
    read_labelmap,
    read_volume,
    require_holdable,
    write_labelmap,
    write_volume,
)
from SAMFineTuneLib.volumes.image_grid import grid_of
from Testing.support.in_process import Shell, shell_of
from Testing.support.synthetic_volumes import geometry_of, head, keep_slices
from Testing.support.tuned_starter import write_model

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (12, 10, 6)  # i, j, k, as nibabel has it
VOXELS = np.random.default_rng(3).integers(0, 2000, SHAPE).astype(np.int16)
LABELS = (np.random.default_rng(4).random(SHAPE) > 0.7).astype(np.uint8)


def rotation(seed: int) -> np.ndarray:
    """A rotation by chance."""
    turned, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return turned if np.linalg.det(turned) > 0 else -turned


def turned_about_k(degrees: float) -> np.ndarray:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


PLAIN = from_matvec(np.diag([-1.5, 1.5, 4.0]), [40, -50, 10])
TURNED = from_matvec(turned_about_k(20), [0, 0, 0]) @ PLAIN
SHEARED = PLAIN.copy()
SHEARED[1, 2] = 1.0
CORNERS = np.array([(*corner, 1.0) for corner in itertools.product((0, 11), (0, 9), (0, 5))])


def nifti(
    path: Path,
    array: np.ndarray = VOXELS,
    sform: tuple[np.ndarray | None, int] = (None, 0),
    qform: tuple[np.ndarray | None, int] = (None, 0),
    kind: Any = nibabel.Nifti1Image,
) -> Path:
    """A file with these two forms and codes, written by nibabel."""
    image = kind(array, None)
    if qform[0] is not None:
        image.set_qform(qform[0], qform[1])
    if sform[0] is not None:
        image.set_sform(sform[0], sform[1])
    if sform[0] is None:
        image.header["sform_code"] = 0
    if qform[0] is None:
        image.header["qform_code"] = 0
    nibabel.save(image, path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ras(geometry: Geometry) -> np.ndarray:
    return LPS @ geometry.affine


def same_place(found: np.ndarray, told: np.ndarray, mm: float = 1e-3) -> bool:
    return bool(np.abs((found - told) @ CORNERS.T).max() < mm)


class TestNiftiForms:
    @pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
    @pytest.mark.parametrize("seed", range(6))
    def test_both_are_read_as_nibabel_reads_them(self, tmp_path, kind, seed):
        flip = np.diag([1.0, 1.0, -1.0 if seed % 2 else 1.0])
        qform = from_matvec(rotation(seed) @ flip @ np.diag([0.7, 1.3, 3.1]), [-20, 31, 7])
        sform = from_matvec(np.random.default_rng(seed).normal(size=(3, 3)), [5, 6, 7])
        path = nifti(tmp_path / "v.nii.gz", VOXELS, (sform, 2), (qform, 1), kind)
        forms, there = read_forms(path), nibabel.load(path)
        assert np.allclose(forms.qform, there.get_qform(), atol=1e-5)
        assert np.allclose(forms.sform, there.get_sform(), atol=1e-5)
        assert forms.size == SHAPE and (forms.qform_code, forms.sform_code) == (1, 2)

    def test_the_other_byte_order_and_other_units(self, tmp_path):
        image = nibabel.Nifti1Image(VOXELS, PLAIN * [[0.001], [0.001], [0.001], [1]])
        image.header.set_xyzt_units("meter")
        swapped = nibabel.Nifti1Image(VOXELS, image.affine, image.header.as_byteswapped(">"))
        nibabel.save(swapped, tmp_path / "v.nii")
        assert same_place(ras(read_volume(tmp_path / "v.nii").geometry), PLAIN, 0.01)

    def test_a_file_of_another_format_has_none(self, tmp_path):
        write_volume(tmp_path / "v.nrrd", np.zeros((2, 3, 4), np.uint8), geometry_of((2, 3, 4)))
        assert read_forms(tmp_path / "v.nrrd") is None
        (tmp_path / "short.nii").write_bytes(b"\x5c\x01")
        assert read_forms(tmp_path / "short.nii") is None


class TestOneRule:
    """The form that is used is the one that ITK, and so 3D Slicer, uses."""

    @pytest.mark.parametrize("codes", list(itertools.product(range(5), range(5))))
    @pytest.mark.parametrize("qform", [PLAIN, TURNED], ids=["same", "other"])
    def test_as_itk(self, tmp_path, codes, qform):
        path = nifti(tmp_path / "v.nii", VOXELS, (PLAIN, codes[0]), (qform, codes[1]))
        image = sitk.ReadImage(str(path))
        volume = read_volume(path)
        assert same_place(volume.geometry.affine, grid_of(image).affine)
        assert same_place(read_grid(path).affine, volume.geometry.affine, 1e-9)
        two = min(codes) > 0 and qform is TURNED
        assert any("two places" in remark for remark in volume.remarks) == two

    def test_the_remark_gives_angle_and_distance(self, tmp_path):
        path = nifti(tmp_path / "v.nii", VOXELS, (PLAIN, 2), (TURNED, 1))
        away = np.linalg.norm(((PLAIN - TURNED) @ CORNERS.T)[:3], axis=0).max()
        (remark,) = read_volume(path).remarks
        assert f"20.0 degrees and up to {away:.1f} mm apart" in remark
        assert "the qform is used" in remark

    def test_neither_form_is_said(self, tmp_path):
        volume = read_volume(nifti(tmp_path / "v.nii"))
        assert "does not say where its image lies" in volume.remarks[0]

    def test_a_form_that_is_no_place_is_refused_in_words(self, tmp_path):
        flat = PLAIN.copy()
        flat[:3, 2] = flat[:3, 1]
        for sform in (flat, PLAIN * np.nan):
            path = nifti(tmp_path / "v.nii", VOXELS)
            content = bytearray(path.read_bytes())
            content[254:256] = (1).to_bytes(2, "little")
            content[280:328] = sform[:3].astype("<f4").tobytes()
            path.write_bytes(content)
            with pytest.raises(InputError, match="no place in space"):
                read_volume(path)
            # With a qform beside it there is one.
            content[252:254] = (1).to_bytes(2, "little")
            path.write_bytes(content)
            expected = nibabel.load(path).get_qform()
            assert same_place(ras(read_volume(path).geometry), expected)

    def test_spacings_that_contradict_each_other(self, tmp_path):
        path = nifti(tmp_path / "v.nii", VOXELS, (PLAIN, 1))
        content = bytearray(path.read_bytes())
        content[80:92] = np.ones(3, "<f4").tobytes()
        path.write_bytes(content)
        volume = read_volume(path)
        assert same_place(ras(volume.geometry), nibabel.load(path).affine)
        assert "two spacings: 1.5 x 1.5 x 4 mm" in volume.remarks[0]

    @pytest.mark.parametrize("name", ["v.img", "v.hdr"])
    def test_a_pair_of_files(self, tmp_path, name):
        oblique = from_matvec(rotation(5) @ np.diag([1, 2, 3]), [5, 6, 7])
        nibabel.save(nibabel.Nifti1Pair(VOXELS, oblique), tmp_path / "v.img")
        volume = read_volume(tmp_path / name)
        assert same_place(ras(volume.geometry), oblique)
        assert (volume.array == VOXELS.T).all()
        content = (tmp_path / "v.img").read_bytes()
        (tmp_path / "v.img").write_bytes(content[:-200])
        with pytest.raises(InputError, match="damaged or ends too early"):
            read_volume(tmp_path / name)


class TestLabelsSavedByOthers:
    """A volume with two places, and labels that another program put at one of the two."""

    @pytest.mark.parametrize("sform_code", [1, 2])
    @pytest.mark.parametrize("labels_at", ["sform", "qform", "both", "sform only", "qform only"])
    def test_they_lie_where_they_were_drawn(self, tmp_path, sform_code, labels_at):
        volume = nifti(tmp_path / "v.nii.gz", VOXELS, (PLAIN, sform_code), (TURNED, 1))
        forms = {
            "sform": {"sform": (PLAIN, 2), "qform": (PLAIN, 2)},
            "qform": {"sform": (TURNED, 1), "qform": (TURNED, 1)},
            "both": {"sform": (PLAIN, sform_code), "qform": (TURNED, 1)},
            "sform only": {"sform": (PLAIN, 2)},
            "qform only": {"qform": (TURNED, 1)},
        }[labels_at]
        labels = nifti(tmp_path / "s.nii.gz", LABELS, **forms)
        onto = labelmap_onto(read_labelmap(labels), read_volume(volume).geometry)
        assert (onto.array == LABELS.T).all()

    def test_a_part_of_the_grid_saved_at_the_other_place(self, tmp_path):
        volume = nifti(tmp_path / "v.nii.gz", VOXELS, (PLAIN, 2), (TURNED, 1))
        part = from_matvec(PLAIN[:3, :3], (PLAIN @ [3, 2, 1, 1])[:3])
        labels = nifti(tmp_path / "s.nii.gz", LABELS[3:, 2:, 1:], (part, 2))
        onto = labelmap_onto(read_labelmap(labels), read_volume(volume).geometry)
        assert (onto.array[1:, 2:, 3:] == LABELS.T[1:, 2:, 3:]).all()
        assert not onto.array[0].any()
        assert "another of the places" in onto.remarks[-1]

    def test_a_volume_without_any_place(self, tmp_path):
        """nibabel gives such a file a place of its own, and saves labels there."""
        volume = nifti(tmp_path / "v.nii")
        affine = nibabel.load(volume).affine
        nibabel.save(nibabel.Nifti1Image(LABELS, affine), tmp_path / "s.nii")
        labels = read_labelmap(tmp_path / "s.nii")
        assert (labelmap_onto(labels, read_volume(volume).geometry).array == LABELS.T).all()

    @pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
    @pytest.mark.parametrize("codes", [(2, 1), (1, 1), (4, 2), (0, 0)])
    def test_what_is_written_lies_over_the_volume_for_every_reader(self, tmp_path, name, codes):
        volume = nifti(tmp_path / "v.nii.gz", VOXELS, (PLAIN, codes[0]), (TURNED, codes[1]))
        geometry = read_volume(volume).geometry
        write_labelmap(tmp_path / name, Labelmap(LABELS.T.copy(), geometry))
        out, there = nibabel.load(tmp_path / name), nibabel.load(volume)
        assert np.allclose(out.affine, there.affine, atol=1e-4)
        assert (int(out.header["sform_code"]), int(out.header["qform_code"])) == codes
        assert np.allclose(out.get_sform(), there.get_sform(), atol=1e-4)
        assert np.allclose(out.get_qform(), there.get_qform(), atol=1e-4)
        itk = (sitk.ReadImage(str(each)) for each in (tmp_path / name, volume))
        one, other = (grid_of(each).affine for each in itk)
        assert same_place(one, other)
        assert (np.asanyarray(out.dataobj) == LABELS).all()
        assert (tmp_path / name).read_bytes()[:2] == b"\x1f\x8b" or name == "out.nii"
        assert names(tmp_path) == sorted([name, "v.nii.gz"])


class TestShear:
    def volume(self) -> Geometry:
        return Geometry.from_affine(SHAPE, LPS @ SHEARED)

    def test_a_sheared_sform_is_read_as_it_is(self, tmp_path):
        for code, qcode in itertools.product((1, 2), (0, 0)):
            path = nifti(tmp_path / "v.nii.gz", VOXELS, (SHEARED, code), (None, qcode))
            volume = read_volume(path)
            assert same_place(ras(volume.geometry), SHEARED)
            assert same_place(ras(read_grid(path)), SHEARED)
            assert (volume.array == VOXELS.T).all() and "not perpendicular" in volume.remarks[0]
            assert "ITK_NIFTI_SFORM_PERMISSIVE" not in os.environ

    @pytest.mark.parametrize("name", ["o.nrrd", "o.seg.nrrd", "o.mha", "o.mhd"])
    def test_formats_that_hold_it(self, tmp_path, name):
        require_holdable(tmp_path / name, self.volume())
        write_labelmap(tmp_path / name, Labelmap(LABELS.T.copy(), self.volume()))
        text = (tmp_path / name).read_bytes().decode("latin1")
        if "nrrd" in name:
            assert "space: left-posterior-superior" in text
            assert "space directions: (1.5,0,0) (0,-1.5,0) (0,-1,4)" in text
        assert same_place(ras(read_labelmap(tmp_path / name).geometry), SHEARED, 1e-6)

    @pytest.mark.parametrize("name", ["o.nii", "o.nii.gz", "O.NII.GZ"])
    def test_nifti_is_refused(self, tmp_path, name):
        for refused in (
            lambda: require_holdable(tmp_path / name, self.volume()),
            lambda: write_volume(tmp_path / name, VOXELS.T, self.volume()),
        ):
            with pytest.raises(InputError) as caught:
                refused()
            assert caught.value.code == "geometry_not_held"
            assert "sheared" in caught.value.message and ".nrrd" in caught.value.remedy
            assert ".nii" not in caught.value.remedy
        assert not list(tmp_path.iterdir())

    def test_labels_are_sampled_at_the_right_places(self):
        """Through ITK onto and from a sheared grid, against the matrices themselves."""
        rng = np.random.default_rng(0)
        labels = Labelmap(rng.integers(0, 5, (6, 10, 12)).astype(np.uint8), self.volume())
        target = geometry_of((11, 19, 20), (0.8, 0.9, 1.7), (-41.03, 38.11, 9.3))
        straight = Labelmap(rng.integers(0, 5, (11, 19, 20)).astype(np.uint8), target)
        for source, onto in ((labels, target), (straight, self.volume())):
            found = labelmap_onto(source, onto).array
            i, j, k = np.indices(onto.size)
            at = index_map(source.geometry, onto) @ np.stack(
                [i.ravel(), j.ravel(), k.ravel(), np.ones(i.size)]
            )
            clear = (np.abs(at[:3] - np.floor(at[:3]) - 0.5) > 1e-3).all(axis=0)
            index = np.rint(at[:3]).astype(int)
            size = np.array(source.geometry.size)[:, None]
            inside = ((index >= 0) & (index < size)).all(axis=0)
            expected = np.zeros(i.size, np.uint8)
            expected[inside] = source.array[tuple(index[::-1, inside])]
            got = found.transpose(2, 1, 0).ravel()
            assert (got == expected)[clear].all() and inside.sum() > 100

    def test_millilitres(self):
        assert self.volume().voxel_ml == pytest.approx(1.5 * 1.5 * 4 / 1000)

    def test_distances_between_surfaces(self):
        """Two balls on a sheared grid score as on a straight one."""
        shear = np.array([[1.0, 0, 0], [0, 1, 1.2], [0, 0, 1]])
        straight = Geometry.from_affine((50, 50, 50), np.eye(4))
        sheared = Geometry.from_affine((50, 50, 50), from_matvec(shear, [0, -30, 0]))

        def ball(geometry: Geometry, x: float) -> Labelmap:
            index = np.stack([*np.indices(geometry.size), np.ones(geometry.size)])
            place = np.tensordot(geometry.affine, index, 1)[:3]
            near = ((place - np.reshape([x, 24, 25], (3, 1, 1, 1))) ** 2).sum(axis=0) < 100
            return Labelmap(near.transpose(2, 1, 0).astype(np.uint8), geometry)

        for moved in (0, 2, 4):
            one, other = (
                evaluate(ball(grid, 24 + moved), ball(grid, 24), tolerance_mm=1.5)
                for grid in (straight, sheared)
            )
            assert other.mean_nsd == pytest.approx(one.mean_nsd, abs=0.03)
            assert other.mean_dsc == pytest.approx(one.mean_dsc, abs=0.03)

    def test_perpendicular_masks_stay_untouched(self):
        masks = (np.ones((3, 4), bool), np.zeros((3, 4), bool))
        same, spacing = straightened(masks, np.diag([2.0, 3.0, 0])[:, :2])
        assert same is masks and spacing == [2.0, 3.0]


class TestPrecision:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("name", ["o.nii.gz", "o.nii", "o.nrrd", "o.mha", "o.mhd"])
    def test_common_images_are_held_by_every_format(self, tmp_path, name, seed):
        rng = np.random.default_rng(seed)
        steps, offset = rng.uniform(0.2, 5, 3), rng.uniform(-500, 500, 3)
        place = from_matvec(rotation(seed) @ np.diag(steps), offset)
        require_holdable(tmp_path / name, Geometry.from_affine((512, 512, 900), place))

    def test_a_place_far_away_needs_more_digits_than_nifti_has(self, tmp_path):
        far = geometry_of((40, 40, 40), (0.001, 0.001, 0.001), (-50_000.123, 9.0, 7.0))
        with pytest.raises(InputError, match="too few digits"):
            require_holdable(tmp_path / "o.nii.gz", far)
        require_holdable(tmp_path / "o.nrrd", far)
        require_holdable(tmp_path / "o.mha", far)

    def test_an_axis_too_long_for_nifti(self, tmp_path):
        long = geometry_of((1, 1, 40_000))
        with pytest.raises(InputError, match="32767"):
            require_holdable(tmp_path / "o.nii", long)
        require_holdable(tmp_path / "o.nrrd", long)

    @pytest.mark.parametrize("name", ["o.nii.gz", "o.nrrd", "o.mhd"])
    def test_a_writer_that_loses_the_place_leaves_no_file(self, tmp_path, monkeypatch, name):
        write = sitk.WriteImage
        geometry = geometry_of((3, 4, 5), origin=(1.0, 2.0, 3.0))
        require_holdable(tmp_path / name, geometry)

        def losing(image: sitk.Image, *arguments: Any, **named: Any) -> None:
            image.SetOrigin((1.0, 2.0, 3.3))
            write(image, *arguments, **named)

        monkeypatch.setattr(sitk, "WriteImage", losing)
        with pytest.raises(InputError) as caught:
            write_volume(tmp_path / name, np.zeros((3, 4, 5), np.uint8), geometry)
        assert caught.value.code == "geometry_not_held"
        assert not list(tmp_path.iterdir())


OBLIQUE = from_matvec(
    np.array([[-1.5, 0, 0], [0, 1.299038, -2.0], [0, 0.75, 3.464102]]), [40, -50, 10]
)


class TestSlices:
    """A 2-D file keeps its place; a 2-D segmentation lies over the slice that it is of."""

    @pytest.mark.parametrize("form", ["sform", "qform"])
    @pytest.mark.parametrize("number", [0, 3])
    def test_nifti(self, tmp_path, form, number):
        place = from_matvec(OBLIQUE[:3, :3], (OBLIQUE @ [0, 0, number, 1])[:3])
        volume = read_volume(nifti(tmp_path / "v.nii.gz", VOXELS, (OBLIQUE, 1), (OBLIQUE, 1)))
        image = read_volume(
            nifti(tmp_path / "i.nii.gz", VOXELS[:, :, number], **{form: (place, 1)})
        )
        assert same_place(ras(image.geometry), nibabel.load(tmp_path / "i.nii.gz").affine)
        assert image.geometry.size == (12, 10, 1)
        assert same_place(ras(read_grid(tmp_path / "i.nii.gz")), place)
        labels = read_labelmap(
            nifti(tmp_path / "s.nii.gz", LABELS[:, :, number], **{form: (place, 1)})
        )
        onto = labelmap_onto(labels, volume.geometry).array
        assert (onto[number] == LABELS[:, :, number].T).all()
        assert not np.delete(onto, number, axis=0).any()

    @pytest.mark.parametrize("axes", [2, 3, 4])
    def test_thickness(self, tmp_path, axes):
        array = VOXELS[:, :, 0].reshape((12, 10, 1, 1)[:axes])
        path = nifti(tmp_path / "i.nii", array, qform=(OBLIQUE, 1))
        assert read_volume(path).geometry.spacing == pytest.approx((1.5, 1.5, 4.0))
        assert read_volume(path).remarks == ()
        content = bytearray(path.read_bytes())
        content[88:92] = bytes(4)
        path.write_bytes(content)
        volume = read_volume(path)
        assert volume.geometry.spacing == pytest.approx((1.5, 1.5, 1.0))
        assert "how thick its slice is; 1 mm is taken" in volume.remarks[0]

    def test_trailing_axes_of_length_one(self, tmp_path):
        for axes in (4, 5):
            array = VOXELS.reshape((*SHAPE, 1, 1)[:axes])
            path = nifti(tmp_path / "v.nii", array, (OBLIQUE, 1), (OBLIQUE, 1))
            volume = read_volume(path)
            assert same_place(ras(volume.geometry), nibabel.load(path).affine)
            assert (volume.array == VOXELS.T).all()

    def test_a_thick_segmentation_of_one_slice_labels_that_slice(self):
        volume = geometry_of((20, 30, 30), (1.0, 1.0, 1.0))
        for thickness in (0.2, 1.0, 5.0):
            flat = geometry_of((1, 30, 30), (1.0, 1.0, thickness), (0.0, 0.0, 7.0))
            onto = labelmap_onto(Labelmap(np.ones((1, 30, 30), np.uint8), flat), volume).array
            assert np.flatnonzero(onto.any(axis=(1, 2))).tolist() == [7]

    @pytest.mark.parametrize("encoding", ["raw", "gzip", "detached"])
    @pytest.mark.parametrize("thickness", ["", "thicknesses: 1.5 3\n", "thicknesses: nan nan\n"])
    @pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", None])
    def test_nrrd_in_space(self, tmp_path, encoding, thickness, space):
        pixels = VOXELS[:, :, 0].T.astype("<i2").tobytes()
        columns, rows, origin = (OBLIQUE[:3, n] for n in (0, 1, 3))
        flip = np.array([1, 1, 1]) if space == "RAS" else np.array([-1, -1, 1])
        told = [",".join(f"{x:.9g}" for x in each * flip) for each in (columns, rows, origin)]
        header = (
            "NRRD0005\n# a comment\ntype: short\ndimension: 2\nendian: little\n"
            + (f"space: {space}\n" if space else "space dimension: 3\n")
            + f"sizes: 12 10\nspace directions: ({told[0]}) ({told[1]})\n"
            + f"kinds: domain domain\n{thickness}space origin: ({told[2]})\n"
            + f"encoding: {'gzip' if encoding == 'gzip' else 'raw'}\n"
        )
        path = tmp_path / "slice.nrrd"
        if encoding == "detached":
            (tmp_path / "slice.raw").write_bytes(pixels)
            path = tmp_path / "slice.nhdr"
            path.write_text(header + "data file: slice.raw\n")
        else:
            content = gzip.compress(pixels) if encoding == "gzip" else pixels
            path.write_bytes(header.encode() + b"\n" + content)
        volume = read_volume(path)
        assert (volume.array[0] == VOXELS[:, :, 0].T).all()
        # ITK takes a space without a name as LPS.
        assert np.allclose(ras(volume.geometry)[:3, (0, 1, 3)], OBLIQUE[:3, (0, 1, 3)], atol=1e-4)
        mm = 3.0 if "3" in thickness else 1.0
        normal = ras(volume.geometry)[:3, 2]
        assert np.linalg.norm(normal) == pytest.approx(mm)
        assert np.abs(normal @ OBLIQUE[:3, :2]).max() < 1e-3
        assert ("1 mm is taken" in "".join(volume.remarks)) == (mm == 1.0)
        assert same_place(read_grid(path).affine, volume.geometry.affine, 1e-9)
        whole = Geometry.from_affine(SHAPE, LPS @ OBLIQUE)
        onto = labelmap_onto(read_labelmap(_as_labels(path, tmp_path)), whole).array
        assert onto[0].any() and not onto[1:].any()

    def test_damaged_nrrd_slices(self, tmp_path):
        start = "NRRD0005\ntype: uchar\ndimension: 2\nspace dimension: 3\nsizes: 4 3\n"
        for directions, content, words in (
            ("(1,0,0) (2,0,0)", bytes(12), "no area"),
            ("(1,0,0) none", bytes(12), "are missing"),
            ("(1,0,0) (0,nan,0)", bytes(12), "no number"),
            ("(1,0,0) (0,1,0)", bytes(5), "damaged"),
        ):
            text = f"{start}space directions: {directions}\nencoding: raw\n\n"
            (tmp_path / "s.nrrd").write_bytes(text.encode() + content)
            with pytest.raises(InputError, match=words):
                read_volume(tmp_path / "s.nrrd")

    def test_formats_that_have_no_place_for_a_slice_say_so(self, tmp_path):
        image = sitk.GetImageFromArray(VOXELS[:, :, 0].T)
        image.SetSpacing((0.5, 0.7))
        sitk.WriteImage(image, str(tmp_path / "s.mha"))
        volume = read_volume(tmp_path / "s.mha")
        assert volume.geometry.spacing == pytest.approx((0.5, 0.7, 1.0))
        assert "does not say where it lies along the third axis" in volume.remarks[0]


def _as_labels(path: Path, folder: Path) -> Path:
    """The same slice with 0 and 1 for values."""
    volume = read_volume(path)
    write_volume(folder / "labels.nrrd", (volume.array > 900).astype(np.uint8), volume.geometry)
    return folder / "labels.nrrd"


@pytest.mark.usefixtures("one_thread", "small_inputs")
class TestCommands:
    @pytest.fixture
    def shell(self, monkeypatch: Any, capfd: Any, tmp_path: Path) -> Shell:
        return shell_of(monkeypatch, capfd, tmp_path / "cache")

    @pytest.fixture
    def sheared(self, tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
        volume, labelmap = head((8, 48, 48))
        affine = volume.geometry.affine
        affine[1, 2] = 0.8
        geometry = Geometry.from_affine(volume.geometry.size, affine)
        write_volume(tmp_path / "v.nrrd", volume.array, geometry)
        few = keep_slices(Labelmap(labelmap.array, geometry, labelmap.names), [2, 4, 6])
        write_labelmap(tmp_path / "few.nrrd", few)
        return tmp_path / "v.nrrd", tmp_path / "few.nrrd", affine

    def test_shear_is_asked_before_the_work(self, shell, sheared, tmp_path):
        """Of the last of several volumes, too, and of the uncertainty."""
        straight, _ = head((8, 48, 48))
        write_volume(tmp_path / "a.nii.gz", straight.array, straight.geometry)
        model = write_model(tmp_path / "m.safetensors", for_prompts=False)
        asked = ("apply", "--model", model, "--volume", sheared[0])
        for outputs in (
            ("--output", tmp_path / "o.nii.gz"),
            ("--output", tmp_path / "o.nrrd", "--uncertainty", tmp_path / "u.nii"),
        ):
            ended = shell(*asked, *outputs)
            assert ended.code == 2 and "sheared" in ended.err and ".seg.nrrd" in ended.err
            assert "Traceback" not in ended.err and "volume 1 of" not in ended.err
        ended = shell(
            *("apply", "--model", model, "--volume", tmp_path / "a.nii.gz"),
            *(
                "--volume",
                sheared[0],
                "--output",
                tmp_path / "out",
                "--uncertainty",
                tmp_path / "u",
            ),
        )
        assert ended.code == 0, ended.err
        assert "v.nrrd" in ended.err and "are written as NRRD" in ended.err
        assert names(tmp_path / "out") == [
            "a_segmentation.nii.gz",
            "v_segmentation.seg.nrrd",
        ]
        assert names(tmp_path / "u") == ["a_uncertainty.nii.gz", "v_uncertainty.nrrd"]
        for name in ("out/v_segmentation.seg.nrrd", "u/v_uncertainty.nrrd"):
            back = grid_of(sitk.ReadImage(str(tmp_path / name)))
            assert np.allclose(back.affine, sheared[2], atol=1e-9)

    def test_a_damaged_volume_is_found_before_the_first_is_segmented(self, shell, tmp_path):
        straight, _ = head((8, 48, 48))
        write_volume(tmp_path / "a.nii.gz", straight.array, straight.geometry)
        (tmp_path / "b.nrrd").write_text("no image")
        model = write_model(tmp_path / "m.safetensors", for_prompts=False)
        ended = shell(
            *("apply", "--model", model, "--volume", tmp_path / "a.nii.gz"),
            *("--volume", tmp_path / "b.nrrd", "--output", tmp_path / "out"),
        )
        assert ended.code == 2 and "b.nrrd" in ended.err
        assert not (tmp_path / "out").exists()

    def test_two_places_from_labels_to_the_segmentation(self, shell, tmp_path):
        """Labels of a library that goes by the sform; the result lies over the volume in both."""
        volume, labelmap = head((8, 48, 48))
        image = nibabel.Nifti1Image(volume.array.T, None)
        place = from_matvec(np.diag([-1.0, 1.0, 3.0]), [20, -30, 5])
        other = from_matvec(turned_about_k(20), [3, 0, 0]) @ place
        image.set_sform(place, 2)
        image.set_qform(other, 1)
        nibabel.save(image, tmp_path / "v.nii.gz")
        few = keep_slices(labelmap, [2, 4, 6]).array.T
        nibabel.save(nibabel.Nifti1Image(few, image.affine), tmp_path / "few.nii.gz")
        model, out = tmp_path / "m.safetensors", tmp_path / "o.nii.gz"
        tuned = shell(
            *("finetune", "--volume", tmp_path / "v.nii.gz"),
            *("--segmentation", tmp_path / "few.nii.gz", "--output", model),
            *("--steps", 1, "--batch", 1),
        )
        assert tuned.code == 0, tuned.err
        assert tuned.result["data"]["labelled_slices"] == 3
        assert "20.0 degrees" in tuned.err
        drawn = ("--drawn", tmp_path / "few.nii.gz")
        applied = shell(
            *("apply", "--model", model, "--volume", tmp_path / "v.nii.gz", *drawn),
            *("--output", out),
        )
        assert applied.code == 0, applied.err
        assert "20.0 degrees" in applied.err
        found = nibabel.load(out)
        assert np.allclose(found.get_sform(), place, atol=1e-4)
        assert np.allclose(found.get_qform(), other, atol=1e-4)
        # What was drawn is kept, voxel by voxel.
        assert (np.asanyarray(found.dataobj)[:, :, [2, 4, 6]] == few[:, :, [2, 4, 6]]).all()
