"""Reading all examples of a fine-tune into one training set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from SAMFineTuneLib.counted_text import counted
from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.examples.absent_labels import refuse_absent_labels
from SAMFineTuneLib.examples.channel_names import channel_names
from SAMFineTuneLib.examples.class_targets import labelled_slices
from SAMFineTuneLib.examples.example import Example
from SAMFineTuneLib.examples.example_frames import ExampleFrame, frames_of
from SAMFineTuneLib.examples.example_labels import Label, number_labels
from SAMFineTuneLib.examples.example_warnings import warnings_of_examples
from SAMFineTuneLib.examples.kept_slices import most_kept_without_structure
from SAMFineTuneLib.examples.opened_example import OpenedExample, open_example, read_labels
from SAMFineTuneLib.examples.training_set import WIDEST, LabelledSlice, TrainingSet
from SAMFineTuneLib.networks.spec import GreyCurve
from SAMFineTuneLib.slices.intensity import IntensityNormalisation, find_normalisation
from SAMFineTuneLib.volumes import Labelmap
from SAMFineTuneLib.volumes.decoded_once import decoded_once


def load_examples(
    examples: Iterable[Example],
    names: dict[int, str] | None = None,
    check: Callable[[], None] = lambda: None,
    normalisation: IntensityNormalisation | None = None,
    tuned: Sequence[Label] = (),
    model: str = "",
    curve: GreyCurve = "equalised",
) -> TrainingSet:
    """Reads the examples and cuts them into slices.

    Labels of different examples are one structure by `match_labels`. The structure keeps the
    number that it has in the model that the fine-tune starts from, else in the first example that
    has it.

    Args:
        examples: at least one. An example without a labelled voxel is a volume without any of the
            structures; at least some of its slices must be stated to be empty.
        names: names of structures, by number, which the files do not give, or give otherwise.
        check: called between volumes; may raise to stop.
        normalisation: that of the model that the fine-tune starts from; None finds one on the
            examples.
        tuned: the labels of that model.
        model: the name of that model in messages.
        curve: how the backbone takes grey levels, for a normalisation that is found here.

    Raises:
        InputError: a file that cannot be used, a label that is absent, labels that contradict
            each other, no labelled slice.
    """
    with decoded_once():
        opened = _open_all(list(examples), check, normalisation)
    numbered = number_labels([each.named for each in opened], names or {}, tuned, model)
    labels, numbers = numbered.labels, numbered.numbers
    refuse_absent_labels(opened, numbers)
    _require_equally_many_images(opened)
    normalisation = normalisation or find_normalisation([each.sample for each in opened], curve)
    # A volume with several segmentations is one volume, and is held out as a whole.
    volumes = list(dict.fromkeys(each.volume for each in opened))
    slices = [
        labelled
        for each, own in zip(opened, numbers, strict=True)
        for labelled in labelled_slices(
            volumes.index(each.volume), each, own, labels, normalisation
        )
    ]
    slices.sort(key=lambda each: each.volume)
    _require_labelled(slices)
    axes = {each.axis for each in opened}
    channels = channel_names([[each.example.volume, *each.example.channels] for each in opened])
    return TrainingSet(
        slices=slices,
        labels=labels,
        axis=axes.pop() if len(axes) == 1 else WIDEST,
        normalisation=normalisation,
        volumes=len(volumes),
        channels=channels if len(channels) > 1 else (),
        warnings=[*numbered.remarks, *warnings_of_examples(opened, numbers, labels, slices)],
    )


def _open_all(
    examples: list[Example], check: Callable[[], None], expected: IntensityNormalisation | None
) -> list[OpenedExample]:
    """All examples in their order; those without a structure are cut as most others are."""
    opened: dict[int, list[OpenedExample]] = {}
    without: list[tuple[int, ExampleFrame]] = []
    for index, example in enumerate(examples):
        frames = frames_of(example)
        for frame in frames:
            check()
            labelmap = read_labels(example, frame)
            # A frame of several on which nothing is labelled is one that nobody has looked at.
            if labelmap.labels and (len(frames) == 1 or _shows_any(labelmap, example)):
                found = open_example(example, labelmap, expected=expected, frame=frame)
                opened.setdefault(index, []).append(found)
        if index not in opened:
            without.append((index, frames[0]))
    if not opened:
        raise _empty(examples[without[0][0]])
    with_labels = [each for found in opened.values() for each in found]
    axis = Counter(each.axis for each in with_labels).most_common(1)[0][0]
    most = most_kept_without_structure([each.labelled_slices for each in with_labels])
    for index, frame in without:
        check()
        labelmap = read_labels(examples[index], frame)
        found = open_example(examples[index], labelmap, axis, most, expected, frame)
        if not found.slices:
            raise _empty(examples[index])
        opened[index] = [found]
    return [each for index in range(len(examples)) for each in opened[index]]


def _shows_any(labelmap: Labelmap, example: Example) -> bool:
    """Whether one of the labels to learn occurs."""
    return example.labels == "all" or bool({*example.labels} & {*labelmap.labels})


def _empty(example: Example) -> InputError:
    return InputError(
        f"the segmentation '{example.segmentation}' is empty: all its voxels are 0",
        "Label the structure on some slices first, or name the right file; of an example beside "
        "others in which nothing is to be found, say so: empty slices by their numbers, or "
        '"outside" for all',
        code="empty_segmentation",
    )


def _require_equally_many_images(opened: Sequence[OpenedExample]) -> None:
    first = opened[0]
    for each in opened:
        if each.sample.images != first.sample.images:
            raise InputError(
                f"{each.example.volume.name} comes with {counted(each.sample.images, 'image')}, "
                f"and {first.example.volume.name} with {first.sample.images}",
                "give equally many images for every case, in the same order",
                code="other_channels",
            )


def _require_labelled(slices: Sequence[LabelledSlice]) -> None:
    if not any(each.is_labelled for each in slices):
        raise InputError(
            "none of the slices to learn from is labelled",
            "label at least one slice, or check the numbers of the labelled slices",
            code="no_labelled_slice",
        )
