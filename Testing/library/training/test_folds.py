"""Which slices are left out of which fine-tune of a cross-validation."""

from __future__ import annotations

from SAMFineTuneLib.training.folds import leave_out
from Testing.support.training_slices import a_slice


def test_each_of_several_volumes_is_left_out_once_with_all_its_slices() -> None:
    slices = [a_slice({1}, volume, number) for volume in range(4) for number in (3, 4)]
    slices.append(a_slice(set(), 0, 9))
    folds = leave_out(slices, seed=0, most=7)
    assert folds.by == "volume" and folds.groups == folds.measured == 4
    assert len(folds.folds) == 4
    left_out = [each.left_out for each in folds.folds]
    assert sorted(group for groups in left_out for group in groups) == [
        [0, 1, 8],
        [2, 3],
        [4, 5],
        [6, 7],
    ]
    for each in folds.folds:
        apart = {position for group in each.left_out for position in group}
        assert sorted([*each.training, *apart]) == list(range(9))


def test_of_one_volume_each_labelled_slice_is_left_out_in_all_frames() -> None:
    frames = [a_slice({1}, 0, 5), a_slice({1}, 0, 5), a_slice({1}, 0, 7), a_slice(set(), 0, 9)]
    folds = leave_out(frames, seed=0, most=7)
    assert folds.by == "slice"
    assert sorted(group for each in folds.folds for group in each.left_out) == [[0, 1], [2]]
    assert all(3 in each.training for each in folds.folds), "empty slices are always learnt from"


def test_more_groups_than_fine_tunes_share_them() -> None:
    slices = [a_slice({1}, volume) for volume in range(10)]
    folds = leave_out(slices, seed=0, most=3)
    assert sorted(len(each.left_out) for each in folds.folds) == [3, 3, 4]
    assert folds.measured == 10


def test_the_only_slice_of_a_structure_is_never_left_out() -> None:
    slices = [a_slice({1}, 0, 1), a_slice({1, 2}, 0, 2), a_slice({1}, 0, 3)]
    folds = leave_out(slices, seed=0, most=7)
    assert folds.groups == 3 and folds.measured == 2
    assert all(1 in each.training for each in folds.folds)


def test_two_groups_of_one_fine_tune_do_not_take_a_structure_away_together() -> None:
    slices = [a_slice({1}, volume) for volume in range(2)]
    folds = leave_out(slices, seed=0, most=1)
    assert [len(each.training) for each in folds.folds] == [1]


def test_nothing_can_be_left_out_of_a_single_slice() -> None:
    assert leave_out([a_slice({1})], seed=0, most=7).folds == []
