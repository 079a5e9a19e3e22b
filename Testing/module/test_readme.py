"""What README.md tells users to paste into Slicer's console works as it stands there."""

from __future__ import annotations

import re

import numpy as np
import pytest

from Testing.support.repository import REPOSITORY

pytestmark = pytest.mark.usefixtures("module", "scene")

README = REPOSITORY / "README.md"


def console_example() -> str:
    section = README.read_text(encoding="utf-8").split("## In Slicer's Python console")[1]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.mark.slow
def test_the_console_example(capsys):
    import slicer

    from SAMFineTuneLib.demo.sample_head import load_sample_head

    names: dict = {}
    exec(compile(console_example(), str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert "step 200" in printed and "validation DSC 0." in printed
    head, segmentation = names["head"], names["segmentation"]
    [segment_id] = segmentation.GetSegmentation().GetSegmentIDs()
    found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, head) > 0
    truth = load_sample_head().truth.array > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.7
    assert segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    assert np.isfinite(names["model"].card.metrics["validation_dsc"])


@pytest.mark.parametrize("page", ["README.md", "docs/command-line.md", "docs/figures.md"])
def test_what_the_pages_link_to_is_there(page):
    path = README.parent / page
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert len(targets) >= (10 if path == README else 1)
    for target in targets:
        assert (path.parent / target).is_file(), target
