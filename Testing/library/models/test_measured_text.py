"""What a card tells of its measurement, in words."""

from __future__ import annotations

from SAMFineTuneLib.models.measured_text import measured_in_words

METRICS = {
    "validation_dsc": 0.9118,
    "validation_iou": 0.8384,
    "validation_nsd": 0.951,
    "nsd_tolerance_mm": 2.0,
    "validation_hd95_mm": 1.2345,
}


def test_all_figures_with_their_units() -> None:
    assert measured_in_words(METRICS) == (
        "DSC 0.912, IoU 0.838, in the plane of the slices NSD 0.951 at 2 mm and HD95 1.23 mm"
    )


def test_without_a_distance_and_of_a_card_that_has_the_dsc_alone() -> None:
    without = measured_in_words({**METRICS, "validation_hd95_mm": None})
    assert without == "DSC 0.912, IoU 0.838, in the plane of the slices NSD 0.951 at 2 mm"
    assert measured_in_words({"validation_dsc": 0.5, "held_out_slices": 1}) == "DSC 0.500"
    assert measured_in_words({"validation_dsc": None, "held_out": "none"}) == ""
