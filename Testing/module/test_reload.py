"""Reload in developer mode: a panel that works, at once."""

from __future__ import annotations


def test_the_panel_works_after_reload(panel, module):
    container = module.widgetRepresentation()
    container.reload()
    again = container.self()
    assert again is not panel and again.panel._parameterNode is not None
    assert again.panel.isReady and again.panel.examples.ui.collapsibleButton.enabled
    again.cleanup()
