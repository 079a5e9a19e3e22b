"""The chart of a fine-tune: it follows the fine-tune, and leaves the user's own view alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from Testing.host.desktop import main_window


@pytest.fixture
def view(slicer_app: Any, scene: Any, layout_manager: Any) -> Iterator[Any]:
    """The plot view, in a window that is seen."""
    window = main_window()
    yield layout_manager.plotWidget(0).plotView()
    window.hide()


@pytest.fixture
def chart(module: Any, view: Any) -> Any:
    from SAMFineTunePanel.widgets.loss_chart import LossChart

    return LossChart()


def node_of(slicer: Any) -> Any:
    (node,) = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    return node


def losses(count: int) -> list[tuple[int, float]]:
    return [(step, 1.0 / step) for step in range(1, count + 1)]


def drag(view: Any, right: int) -> None:
    import qt
    from PySide6.QtTest import QTest

    start = qt.QPoint(view.width // 2, view.height // 2)
    QTest.mousePress(view, qt.Qt.LeftButton, qt.Qt.NoModifier, start)
    QTest.mouseMove(view, start + qt.QPoint(right, 0))
    QTest.mouseRelease(view, qt.Qt.LeftButton, qt.Qt.NoModifier, start + qt.QPoint(right, 0))


def assert_shows(node: Any, view: Any, losses: list[tuple[int, float]]) -> None:
    """The axes that are drawn hold all of these points, and not much more."""
    import vtk

    view.forceRender()
    assert view._axis_range(vtk.vtkAxis.BOTTOM) == node.GetXAxisRange()
    (first, last), (least, most) = node.GetXAxisRange(), node.GetYAxisRange()
    assert first <= losses[0][0] and losses[-1][0] <= last <= 1.5 * losses[-1][0]
    # Tables hold single precision.
    assert least <= min(loss for _, loss in losses) + 1e-6
    assert max(loss for _, loss in losses) <= most + 1e-6


def test_the_chart_follows_the_fine_tune(slicer_app: Any, chart: Any, view: Any) -> None:
    chart.draw(losses(5), [])
    chart.show()
    assert_shows(node_of(slicer_app), view, losses(5))
    for count in (9, 30, 200):
        chart.draw(losses(count), [(4, 0.5), (8, 0.6)])
        assert_shows(node_of(slicer_app), view, losses(count))


def test_nothing_is_drawn_with_fewer_than_two_points(
    slicer_app: Any, chart: Any, view: Any
) -> None:
    chart.show()
    for points in ([], losses(1)):
        chart.draw(points, points)
        view.forceRender()
        assert node_of(slicer_app).GetNumberOfPlotSeriesNodes() == 0
    chart.draw(losses(2), losses(1))
    assert node_of(slicer_app).GetNumberOfPlotSeriesNodes() == 1
    assert_shows(node_of(slicer_app), view, losses(2))
    chart.draw(losses(3), losses(2))
    assert node_of(slicer_app).GetNumberOfPlotSeriesNodes() == 2
    # Another fine-tune begins.
    chart.draw(losses(1), [])
    view.forceRender()
    assert node_of(slicer_app).GetNumberOfPlotSeriesNodes() == 0


def test_where_the_user_has_looked_elsewhere_the_axes_stay(
    slicer_app: Any, chart: Any, view: Any
) -> None:
    chart.draw(losses(20), [])
    chart.show()
    view.forceRender()
    node = node_of(slicer_app)
    drag(view, 60)
    chosen = node.GetXAxisRange(), node.GetYAxisRange()
    chart.draw(losses(30), [])
    view.forceRender()
    assert (node.GetXAxisRange(), node.GetYAxisRange()) == chosen
    # The button shows all, and follows again.
    chart.show()
    assert_shows(node, view, losses(30))
    chart.draw(losses(60), [])
    assert_shows(node, view, losses(60))


def test_a_view_of_another_chart_is_left_alone(slicer_app: Any, chart: Any, view: Any) -> None:
    chart.draw(losses(20), [])
    chart.show()
    other = slicer_app.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", "another")
    slicer_app.modules.plots.logic().ShowChartInLayout(other)
    other.SetXAxisRange(3.0, 4.0)
    chart.draw(losses(30), [])
    assert other.GetXAxisRange() == (3.0, 4.0)
    chart.show()
    (ours,) = [
        each
        for each in slicer_app.util.getNodesByClass("vtkMRMLPlotChartNode")
        if each is not other
    ]
    assert_shows(ours, view, losses(30))


def test_without_views_there_is_a_chart_too(
    slicer_app: Any, scene: Any, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SAMFineTunePanel.widgets.loss_chart import LossChart

    monkeypatch.setattr(slicer_app.app, "_layout_manager", None)
    chart = LossChart()
    chart.draw(losses(5), [])
    chart.show()
    assert node_of(slicer_app).GetNumberOfPlotSeriesNodes() == 1
