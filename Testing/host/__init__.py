"""A stand-in for the 3D Slicer application, to run a scripted module's panel and logic in tests.

The scene is the real one, of the package slicer-core; Qt is PySide6 made to behave as PythonQt.
What the module may use and this host does not know raises.
"""

from . import dialogs
from .boot import boot
from .collected_errors import errors, expected_errors
from .module_container import load_module

__all__ = ["boot", "dialogs", "errors", "expected_errors", "load_module"]
