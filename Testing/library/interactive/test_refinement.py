"""Masks from prompts, round after round: what a click changes, and what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.interactive.networks import CorrectionNetworks, load_networks
from SAMFineTuneLib.interactive.protocol import Box, Point, Prompt, SessionSettings, Start
from SAMFineTuneLib.interactive.refinement import (
    RefinedMask,
    SquareBox,
    SquarePoint,
    SquarePrompt,
    is_far_off,
    mask_logits,
    prompt_set,
    refine,
    unrefined,
)
from SAMFineTuneLib.interactive.slice_corrector import SliceCorrector
from SAMFineTuneLib.prompts.prompt_set import NEGATIVE, POSITIVE, PromptSet
from SAMFineTuneLib.slices.square import SquareFit
from Testing.support.synthetic_volumes import dsc, head

Mask = NDArray[np.bool_]
VOLUME, LABELS = head()
BRIGHT = LABELS.array == 5
SLICE = 6
# A slice four times as fine as the mask decoder's pixels.
FINE = SquareFit(256, 256, (1.0, 1.0), 256)
SIDE = 64


# Rounds with a decoder that a test makes up


class Decoder:
    """Answers one mask of the square's quarter, and keeps what it was asked."""

    def __init__(self, mask: Mask, overlap: float = 0.8) -> None:
        self.answer = mask_logits(mask, FINE, SIDE)
        self.overlap = overlap
        self.asked: list[PromptSet] = []

    def __call__(self, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        self.asked.append(prompts)
        return self.answer.clone(), torch.tensor([[self.overlap]])


def square(*parts: tuple[int, int, int, int]) -> Mask:
    """Rectangles (top, bottom, left, right) on the fine slice."""
    mask = np.zeros((256, 256), bool)
    for top, bottom, left, right in parts:
        mask[top:bottom, left:right] = True
    return mask


def click(row: float, column: float, positive: bool = True) -> SquarePoint:
    """On the middle of a pixel of the fine slice, which is as large as the square."""
    return SquarePoint(column + 0.5, row + 0.5, positive)


def corrected(given: Mask, seen: Mask, prompts: Sequence[SquarePrompt]) -> Mask:
    """What becomes of a given mask when the network sees another one."""
    decoder, now = Decoder(seen), unrefined(given, FINE, SIDE)
    for count in range(1, len(prompts) + 1):
        now = refine(decoder, FINE, prompts[:count], now, keep=True)
    return now.mask


GIVEN = square((40, 120, 40, 120), (160, 200, 160, 200))


def test_a_click_changes_the_region_that_it_points_at_and_nothing_else() -> None:
    seen = square((40, 120, 40, 160), (20, 36, 200, 240))
    found = corrected(GIVEN, seen, [click(80, 140)])
    # The second part, which the network did not see, is the user's; the third was not pointed at.
    expected = GIVEN | square((40, 120, 120, 160))
    assert (found != expected).mean() < 0.005
    assert not (found & ~ndimage.binary_dilation(expected, iterations=4)).any()
    found = corrected(GIVEN, seen, [click(180, 180, positive=False)])
    assert (found == square((40, 120, 40, 120))).all()


def test_detail_finer_than_the_network_sees_stays_pixel_for_pixel() -> None:
    fine = GIVEN.copy()
    fine[::3, ::2] ^= square((40, 120, 40, 120))[::3, ::2]
    fine[230, 10:250:2] = True
    seen = square((40, 120, 40, 120), (160, 200, 160, 240))
    found = corrected(fine, seen, [click(180, 220)])
    assert found[180, 220]
    changed = found != fine
    region = ndimage.binary_dilation(square((160, 200, 200, 240)), iterations=6)
    assert changed.any() and not (changed & ~region).any()


def test_a_click_into_what_is_so_already_changes_nothing() -> None:
    for prompt in (click(80, 80), click(10, 10, positive=False)):
        assert (corrected(GIVEN, square((0, 256, 0, 256)), [prompt]) == GIVEN).all()


def test_clicks_are_obeyed_even_if_the_network_sees_otherwise() -> None:
    generator = np.random.default_rng(0)
    patches = generator.random((64, 64)).repeat(4, 0).repeat(4, 1) < 0.5
    for start in (None, GIVEN):
        for seen in (square(), square((0, 256, 0, 256)), patches):
            for _ in range(8):
                row, column = map(int, generator.integers(0, 256, 2))
                for positive in (True, False):
                    prompt = click(row, column, positive)
                    now = None if start is None else unrefined(start, FINE, SIDE)
                    found = refine(Decoder(seen), FINE, [prompt], now, keep=start is not None)
                    assert found.mask[row, column] == positive


def test_a_click_is_obeyed_on_detail_finer_than_the_network_sees() -> None:
    speckled = GIVEN.copy()
    # A speck outside and a hole inside, each less than a pixel of the mask decoder.
    speckled[20:22, 220:222], speckled[90:92, 101:103] = True, False
    found = corrected(speckled, GIVEN, [click(20, 221, positive=False), click(91, 102)])
    assert (found == GIVEN).all()


def test_a_later_click_is_obeyed_without_undoing_an_earlier_one_close_by() -> None:
    for seen in (square(), square((0, 256, 0, 256)), GIVEN):
        prompts = [click(100, 119), click(100, 123, positive=False), click(96, 122)]
        for start in (None, GIVEN):
            now = None if start is None else unrefined(start, FINE, SIDE)
            for count in range(1, 4):
                now = refine(Decoder(seen), FINE, prompts[:count], now, keep=start is not None)
            assert now is not None
            assert now.mask[100, 119] and not now.mask[100, 123] and now.mask[96, 122]


def test_a_click_changes_nothing_to_the_opposite_of_what_it_says() -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        seen = ndimage.zoom(generator.random((8, 8)), 32, order=1) > 0.5
        row, column = map(int, generator.integers(0, 256, 2))
        added = corrected(GIVEN, seen, [click(row, column)])
        removed = corrected(GIVEN, seen, [click(row, column, positive=False)])
        assert not (GIVEN & ~added).any() and not (removed & ~GIVEN).any()


def test_negative_clicks_alone_come_with_a_point_in_the_middle_of_the_mask() -> None:
    decoder = Decoder(GIVEN)
    prompts = [click(60, 60, positive=False)]
    refine(decoder, FINE, prompts, unrefined(GIVEN, FINE, SIDE), keep=True)
    (asked,) = decoder.asked
    assert asked.labels.tolist() == [[POSITIVE, NEGATIVE]]
    column, row = (int(at) for at in asked.points[0, 0])
    assert GIVEN[row, column] and np.hypot(row - 60, column - 60) > 15
    assert asked.mask is not None and asked.mask.shape == (1, 1, 64, 64)
    # Where there is nothing there is no middle, and none is implied beside a positive click.
    for start, given in ((square(), prompts), (GIVEN, [*prompts, click(90, 90)])):
        refine(decoder, FINE, given, unrefined(start, FINE, SIDE), keep=True)
        assert asked.labels.shape[1] == 2 and decoder.asked[-1].labels.shape[1] == len(given)


def test_of_several_boxes_the_last_one_counts() -> None:
    boxes = [SquareBox(1, 2, 30, 40), SquareBox(5, 6, 70, 80)]
    asked = prompt_set([boxes[0], click(9, 8), boxes[1]], None)
    assert asked.boxes.tolist() == [[5, 6, 70, 80]]
    assert asked.points.tolist() == [[[8.5, 9.5]]] and asked.labels.tolist() == [[POSITIVE]]
    assert not prompt_set([click(9, 8)], None).boxed


def test_each_round_gets_the_mask_of_the_round_before() -> None:
    decoder = Decoder(GIVEN)
    prompts = [click(80, 80), click(180, 180)]
    first = refine(decoder, FINE, prompts[:1], None, keep=False)
    assert decoder.asked[0].mask is None
    refine(decoder, FINE, prompts, first, keep=False)
    assert decoder.asked[1].mask is first.logits


@pytest.mark.parametrize(("told", "confidence"), [(0.5, 0.5), (1.3, 1.0), (-0.2, 0.0)])
def test_the_confidence_is_a_share(told: float, confidence: float) -> None:
    found = refine(Decoder(GIVEN, told), FINE, [click(80, 80)], None, keep=False)
    assert found.confidence == confidence


@pytest.mark.parametrize(
    ("prompt", "is_far"),
    [
        # The mask is a square of 80 pixels, 40 thick.
        (click(80, 130), False),
        (click(80, 145), False),
        (click(80, 170), True),
        (click(80, 110, positive=False), False),
        (click(80, 80, positive=False), True),
        (click(5, 5), True),
        (SquareBox(10, 10, 250, 250), False),
    ],
)
def test_a_click_deep_in_what_is_wrong_says_that_a_mask_is_far_off(
    prompt: SquarePrompt, is_far: bool
) -> None:
    before = unrefined(square((40, 120, 40, 120)), FINE, SIDE)
    assert is_far_off(before, prompt, FINE.size) == is_far


@pytest.mark.parametrize("positive", [True, False])
def test_any_click_says_so_where_nothing_or_everything_is_set(positive: bool) -> None:
    before = unrefined(np.full((256, 256), not positive), FINE, SIDE)
    for place in (30, 128):
        assert is_far_off(before, click(place, place, positive), FINE.size)


# A session with the starter network


@pytest.fixture(scope="module")
def networks() -> CorrectionNetworks:
    return load_networks(SessionSettings(volume="unused"), 48)  # type: ignore[arg-type]


@pytest.fixture
def session(networks: CorrectionNetworks) -> SliceCorrector:
    return SliceCorrector(VOLUME, "axial", networks)


def at(row: float, column: float, positive: bool = True) -> Point:
    return Point(at=(column, row, SLICE), positive=positive)


def middle_of(mask: Mask) -> tuple[int, int]:
    depth = ndimage.distance_transform_edt(mask)
    row, column = np.unravel_index(depth.argmax(), mask.shape)
    return int(row), int(column)


PROMPTS: list[Prompt] = [
    at(*middle_of(BRIGHT[SLICE])),
    at(3, 3, positive=False),
    Box(corners=((4, 10, SLICE), (24, 38, SLICE))),
    at(24, 36, positive=False),
]


@pytest.fixture
def decodes(session: SliceCorrector, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The slice of each use of the decoder."""
    used: list[int] = []
    decode = session.decode

    def counting(number: int, prompts: PromptSet) -> Any:
        used.append(number)
        return decode(number, prompts)

    monkeypatch.setattr(session, "decode", counting)
    return used


def same(one: RefinedMask, other: RefinedMask) -> bool:
    return torch.equal(one.logits, other.logits) and bool((one.mask == other.mask).all())


def test_a_mask_is_a_function_of_its_prompts(networks: CorrectionNetworks) -> None:
    one = SliceCorrector(VOLUME, "axial", networks)
    for count in range(1, len(PROMPTS) + 1):
        step_by_step = one.find_mask(SLICE, PROMPTS[:count])
    # After an undo and another try; and in a session that never saw the steps between.
    one.find_mask(SLICE, [*PROMPTS[:2], at(40, 40)])
    other = SliceCorrector(VOLUME, "axial", networks)
    other.find_mask(SLICE, PROMPTS[::-1])
    for session in (one, other):
        assert same(session.find_mask(SLICE, PROMPTS), step_by_step)
    assert not same(other.find_mask(SLICE, PROMPTS[::-1]), step_by_step)


def test_clicks_and_boxes_find_the_structure(session: SliceCorrector) -> None:
    truth = BRIGHT[SLICE]
    rows, columns = np.nonzero(truth)
    box = Box(
        corners=(
            (columns.min() - 0.5, rows.min() - 0.5, SLICE),
            (columns.max() + 0.5, rows.max() + 0.5, SLICE),
        )
    )
    assert dsc(session.find_mask(SLICE, PROMPTS[:2]).mask, truth) > 0.85
    boxed = session.find_mask(SLICE, [box])
    assert dsc(boxed.mask, truth) > 0.85 and 0 < boxed.confidence <= 1


def test_rounds_that_are_known_are_not_computed_again(
    session: SliceCorrector, decodes: list[int]
) -> None:
    session.find_mask(SLICE, PROMPTS)
    assert len(decodes) == 4
    session.find_mask(SLICE, PROMPTS[:2])
    session.find_mask(SLICE, PROMPTS)
    assert len(decodes) == 4
    # Another last prompt is one round, another first one is all of them.
    session.find_mask(SLICE, [*PROMPTS[:3], at(40, 40)])
    assert len(decodes) == 5
    session.find_mask(SLICE, [at(24, 12), *PROMPTS[1:]])
    assert len(decodes) == 9
    # A box instead of a point, another slice, another start: none of them is the same.
    session.find_mask(SLICE, PROMPTS[:1], start="given", given=BRIGHT[SLICE])
    session.find_mask(SLICE, PROMPTS[:1], start="given", given=BRIGHT[SLICE - 3])
    assert len(decodes) == 11


def test_the_masks_that_are_kept_are_bounded(session: SliceCorrector, decodes: list[int]) -> None:
    assert session._refined.most_bytes <= 128 << 20
    # So few are kept however large they are.
    session._refined.most_bytes = 20
    clicks = [Point(at=(column, 20, SLICE)) for column in range(25)]
    for each in clicks:
        session.find_mask(SLICE, [clicks[0], each])
    assert len(session._refined) == 20 and len(decodes) == 26
    # Those that were used latest are known.
    session.find_mask(SLICE, [clicks[0], clicks[24]])
    assert len(decodes) == 26
    session.find_mask(SLICE, [clicks[0], clicks[3]])
    assert len(decodes) == 27


def test_without_prompts_it_is_the_start(session: SliceCorrector, decodes: list[int]) -> None:
    given = BRIGHT[SLICE] ^ (np.random.default_rng(0).random((48, 48)) < 0.2)
    assert not session.find_mask(SLICE, []).mask.any()
    assert (session.find_mask(SLICE, [], start="given", given=given).mask == given).all()
    assert decodes == []


def test_a_click_corrects_a_given_mask_where_it_points(session: SliceCorrector) -> None:
    truth = BRIGHT[SLICE]
    given = truth.copy()
    given[20:28, 30:40], given[2:4, 2:4] = True, True
    found = session.find_mask(SLICE, [at(24, 35, False)], start="given", given=given).mask
    assert not found[24, 35]
    # What lies elsewhere is as it was.
    elsewhere = np.ones((48, 48), bool)
    elsewhere[17:31, 27:43] = False
    assert (found == given)[elsewhere & ~truth].all()
    assert dsc(found & truth, truth) > 0.9


@pytest.mark.parametrize("number", [-1, 12, 10**9])
def test_a_slice_that_the_volume_has_not_is_refused(session: SliceCorrector, number: int) -> None:
    with pytest.raises(InputError, match="numbered from 0 to 11") as caught:
        session.find_mask(number, [])
    assert caught.value.code == "no_such_slice"


@pytest.mark.parametrize("start", ["model", "given"])
def test_a_tuned_models_mask_is_kept_while_it_is_nearly_right(
    session: SliceCorrector, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    """The network finds another structure; the user's own mask is kept all the same."""
    side = session.fit.size // 4
    own, other = np.zeros((2, 48, 48), bool)
    own[4:20, 4:20], other[4:20, 26:42] = True, True
    logits = mask_logits(own, session.fit, side)
    answer = mask_logits(other, session.fit, side), torch.tensor([[0.9]])
    monkeypatch.setattr(session, "model_logits", lambda number, label: logits)
    monkeypatch.setattr(session, "decode", lambda number, prompts: answer)
    assert logits.shape[-1] == side

    def mask_after(*prompts: Prompt) -> Mask:
        return session.find_mask(SLICE, prompts, start, 5, own).mask

    assert (mask_after() == own).all()
    near = mask_after(at(12, 21, True))
    assert near[own].all() and dsc(near, own) > 0.9
    far = mask_after(at(12, 34, True))
    assert far[12, 34] and far[own].all() == (start == "given")


def test_the_models_own_mask_needs_a_model(session: SliceCorrector) -> None:
    for label, code in ((None, "no_label"), (5, "no_model")):
        with pytest.raises(InputError) as caught:
            session.find_mask(SLICE, PROMPTS, start="model", label=label)
        assert caught.value.code == code
    with pytest.raises(InputError) as caught:
        session.doubtful_slices(None)
    assert caught.value.code == "no_model"


def test_prompts_of_another_slice_are_refused_before_anything_is_computed(
    session: SliceCorrector, decodes: list[int]
) -> None:
    with pytest.raises(InputError) as caught:
        session.find_mask(SLICE, [PROMPTS[0], Point(at=(10, 10, SLICE + 1))])
    assert caught.value.code == "other_slice" and decodes == []


def test_an_image_of_one_value_is_refused(networks: CorrectionNetworks) -> None:
    empty = type(VOLUME)(np.full_like(VOLUME.array, 7), VOLUME.geometry)
    with pytest.raises(InputError):
        SliceCorrector(empty, "axial", networks)
