"""A scene is opened or added while the panel is in view: the selectors show what is chosen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from Testing.host import expected_errors
from Testing.support.scene_builders import add_segmentation, add_volume, box, placement

SHAPE = (8, 16, 16)


@pytest.fixture
def chosen(panel):
    """A volume and two segmentations, chosen wherever the panel lets one choose nodes."""
    import slicer

    volume = add_volume(np.zeros(SHAPE, np.int16), placement())
    labels = add_segmentation(volume, {"liver": box(SHAPE, (3, 5), (4, 9), (4, 9))})
    result = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    panel.logic.addExample(volume, labels)
    node = panel.logic.getParameterNode()
    node.applySegmentation = result
    node.correctVolume = volume
    node.correctSegmentation = labels
    return SimpleNamespace(volume=volume, labels=labels, result=result)


@pytest.fixture
def file(chosen, tmp_path):
    """The scene in a file, as text or as a bundle."""
    import slicer

    def saved(name: str) -> str:
        path = str(tmp_path / name)
        assert slicer.util.saveScene(path)
        return path

    return saved


def shown(panel) -> dict[str, str]:
    """Names in the selectors of the panel."""
    sections = panel.panel
    selectors = {
        "example": sections.examples.ui.volumeSelector,
        "labels": sections.examples.ui.segmentationSelector,
        "write to": sections.apply.ui.segmentationSelector,
        "correct on": sections.correct.ui.volumeSelector,
        "correct": sections.correct.ui.segmentationSelector,
    }
    return {
        name: selector.currentNode().GetName() if selector.currentNode() else "None"
        for name, selector in selectors.items()
    }


CHOICES = {
    "example": "CT",
    "labels": "Labels",
    "write to": "Result",
    "correct on": "CT",
    "correct": "Labels",
}


def held(panel) -> list:
    node = panel.logic.getParameterNode()
    return [node.applySegmentation, node.correctVolume, node.correctSegmentation]


def names(nodes: list) -> list[str]:
    return [node.GetName() if node is not None else "None" for node in nodes]


@pytest.mark.parametrize("name", ["scene.mrml", "scene.mrb"])
@pytest.mark.parametrize("how", ["opened", "added to an empty scene"])
def test_a_saved_scene_shows_its_choices(panel, file, scene, process_events, name, how):
    import slicer

    path = file(name)
    # The second time, too: the file was written by a panel that had been opened from one.
    for turn in range(2):
        if how == "opened":
            slicer.util.loadScene(path, {"clear": True})
        else:
            scene.Clear(0)
            slicer.util.loadScene(path)
        assert names(held(panel)) == ["Result", "CT", "Labels"]
        process_events(lambda: shown(panel) == CHOICES)
        path = file(f"{turn}_{name}")
    panel.panel.apply.ui.segmentationSelector.setCurrentNode(None)
    assert held(panel)[0] is None


def test_adding_a_scene_of_another_module_changes_no_choice(
    panel, chosen, scene, tmp_path, process_events
):
    import slicer

    path = tmp_path / "other.mrml"
    path.write_text('<MRML version="Slicer4.4.0"><Text id="vtkMRMLTextNode1" name="Note"/></MRML>')
    process_events(lambda: shown(panel) == CHOICES)
    assert slicer.util.loadScene(str(path)) is not False
    assert held(panel) == [chosen.result, chosen.volume, chosen.labels]
    process_events(lambda: shown(panel) == CHOICES)


def test_a_file_that_is_no_scene_changes_no_choice(panel, chosen, tmp_path, process_events):
    import slicer

    path = tmp_path / "broken.mrml"
    path.write_text("<MRML><Text")
    process_events(lambda: shown(panel) == CHOICES)
    with expected_errors("Syntax error in scene file"), pytest.raises(RuntimeError):
        slicer.util.loadScene(str(path))
    assert held(panel) == [chosen.result, chosen.volume, chosen.labels]
    assert panel.panel._parameterNode is not None
    process_events(lambda: shown(panel) == CHOICES)


def test_an_import_within_other_work_waits_for_its_end(panel, chosen, scene, process_events):
    scene.StartState(scene.BatchProcessState)
    assert panel.panel._parameterNode is not None
    scene.StartState(scene.ImportState)
    scene.StartState(scene.ImportState)
    assert panel.panel._parameterNode is None
    # Nobody can be heard meanwhile, so that nothing that comes by itself is taken for a choice.
    panel.panel.apply.ui.segmentationSelector.setCurrentNode(chosen.labels)
    scene.EndState(scene.ImportState)
    scene.EndState(scene.ImportState)
    assert panel.panel._parameterNode is None
    scene.EndState(scene.BatchProcessState)
    assert held(panel) == [chosen.result, chosen.volume, chosen.labels]
    assert panel.panel._parameterNode is not None
    process_events(lambda: shown(panel) == CHOICES)


def test_a_panel_that_is_entered_while_a_scene_comes_waits_for_it(
    panel, module, chosen, scene, process_events
):
    module.widgetRepresentation().exit()
    scene.StartState(scene.ImportState)
    module.widgetRepresentation().enter()
    assert panel.panel._parameterNode is None
    scene.EndState(scene.ImportState)
    assert held(panel) == [chosen.result, chosen.volume, chosen.labels]
    process_events(lambda: shown(panel) == CHOICES)


def test_a_panel_that_is_left_stays_out_of_it(panel, module, file, scene, process_events):
    import slicer

    path = file("scene.mrml")
    module.widgetRepresentation().exit()
    slicer.util.loadScene(path, {"clear": True})
    assert panel.panel._parameterNode is None
    scene.StartState(scene.ImportState)
    scene.EndState(scene.ImportState)
    assert panel.panel._parameterNode is None and names(held(panel)) == ["Result", "CT", "Labels"]
    module.widgetRepresentation().enter()
    process_events(lambda: shown(panel) == CHOICES)
