"""Whether a tuned model can go on learning from the examples of the scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from SAMFineTunePanel.examples.example_frames import atItsFrame
from SAMFineTunePanel.examples.example_slices import PaintedSlices
from SAMFineTunePanel.jobs.finetune_request import FinetuneRequest, labelsForModel

if TYPE_CHECKING:
    from SAMFineTuneLib.models.library import TunedModel


def problemWithGoingOn(model: TunedModel | None, request: FinetuneRequest, painted: PaintedSlices) -> str:
    """Why a model cannot go on, in words; "" when it can.

    The card does not tell which examples a model was made from, but which structures and images they had.

    Args:
        model: the model; None where there is none.
        request: the fine-tune that goes on from it.
        painted: finds the labelled slices.
    """
    if model is None:
        return _("Fine-tune a model first, or choose one in the section Apply.")
    if model.card is None:
        return model.fault
    problem = request.problem(painted)
    if problem:
        return problem
    try:
        labelsForModel(model, [atItsFrame(each) for each in request.examples])
    except ValueError as error:
        return _("The examples of “{model}” are not in the list: {problem}").format(model=model.name, problem=error)
    return ""
