"""The images of a case are called by what their files have in common in all cases."""

from __future__ import annotations

from pathlib import Path

from SAMFineTuneLib.examples.channel_names import channel_names, swapped


def case(*names: str) -> list[Path]:
    return [Path(f"somewhere/{name}.nii.gz") for name in names]


def test_names_are_the_words_that_tell_images_apart() -> None:
    cases = [case("sub-01_T1w", "sub-01_FLAIR"), case("sub-02_T1w", "sub-02_FLAIR")]
    assert channel_names(cases) == ("t1w", "flair")
    assert channel_names([case("Miller_t2", "Miller_adc")]) == ("t2", "adc")
    assert channel_names([case("brain"), case("brain")]) == ("brain",)


def test_nothing_of_a_patient_becomes_a_name() -> None:
    cases = [case("Miller_1", "Miller_2"), case("Smith_1", "Smith_2")]
    assert channel_names(cases) == ("image 1", "image 2")
    assert channel_names([case("Miller", "Smith"), case("Brown", "Jones")]) == (
        "image 1",
        "image 2",
    )


def test_images_in_the_wrong_order_are_noticed() -> None:
    names = ("t1w", "flair")
    assert swapped(names, case("p9_FLAIR", "p9_T1w")) == (0, 1)
    assert swapped(names, case("p9_T1w", "p9_FLAIR")) is None
    assert swapped(names, case("first", "second")) is None
    assert swapped(("t1", "t2", "adc"), case("x_t1", "x_adc", "x_t2")) == (1, 2)
    assert swapped((), case("x_t1")) is None
