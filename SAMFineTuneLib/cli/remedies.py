"""The shell's own remedies, which name options and commands, by the code of the error."""

from __future__ import annotations

import re
from collections.abc import Mapping

from SAMFineTuneLib.cli.arguments import option_name
from SAMFineTuneLib.errors import Fact
from SAMFineTuneLib.worker.events import ErrorEvent

# {names} in braces are facts of the error; {option} is the option for its fact `field`. Of several
# sentences the first one is used whose facts are all known.
REMEDIES: dict[str, tuple[str, ...]] = {
    "bundle_unusable": (
        "Install the program anew, or start from random weights with --weights random",
    ),
    "cannot_write_checkpoint": ("Free some space, or choose another folder with --job",),
    "checkpoint_hash": (
        "Try again; if it stays so, get the file elsewhere and name it with --checkpoint",
    ),
    "contrary_options": (
        "Give --weights random or {option}",
        "Give --series once for each of the folders ({folders}), in the same order, or once for "
        "all",
    ),
    "device_absent": ("Use --device auto or --device cpu",),
    "diverged": ("Lower the learning rate with --lr",),
    "frame_not_chosen": ("Choose a frame by its number, from 0 to {last}, with --frame",),
    "image_as_segmentation": (
        "Give the labels that were drawn on the image; if these are labels, name those you mean "
        "with --labels",
    ),
    "job_folder_not_writable": (
        "Name a folder with --job (finetune and apply), or set {variable} to one that can be "
        "written",
    ),
    "job_folders_used_up": (
        "Name a folder with --job (finetune and apply), or try again a second later",
    ),
    "label_absent": ("Choose others than {absent} with --labels",),
    "label_contradiction": (
        "If they are one structure, give both the same name, or state it: --label-names "
        "{label}={name} (label_names in a job or an example); if not, use a number that is free",
        "Give different structures different names, or one structure the same terminology; or "
        "name the number, which then decides: --label-names {label}=NAME (label_names in a job or "
        "an example)",
        "Give each structure a name of its own, merge the two, or choose one of them, {labels}, "
        "with --labels",
    ),
    "listed_files_missing": (
        "Correct the names in the list, or name with --images the folder that they are relative to",
    ),
    "listed_unreadable": (
        "Replace the file or take its row out of the list, or go on without all rows that cannot "
        "be read with --skip-unreadable",
    ),
    "no_labelled_slice": (
        "Label at least one slice, or check the numbers that are given to --labelled",
    ),
    "no_memory": (
        "Take a smaller --batch, a smaller --input-size or a smaller backbone, use --device cpu, "
        "or close other programs",
    ),
    "no_such_checkpoint": ("Check the name that is given to --checkpoint",),
    "no_such_series": (
        "Choose one of these {listed} by its number or its whole UID with --series",
    ),
    "other_backbone": ("Use --backbone {backbone}, or another model",),
    "other_checkpoint": ("Give the weights that it was tuned from with --checkpoint",),
    "other_labels": ("Fine-tune on the same labels, or without --initial-model",),
    "other_plan": ("Go on with the same settings, or choose another --folder",),
    "other_strategy": ("Leave out {option}, or go without --initial-model",),
    "overlapping_segments": (
        'Say which one covers the other, as --on-top {segment} ("on_top" in a file of examples); '
        'or choose one of them, as --labels {label} ("labels"); or take them apart in 3D Slicer',
    ),
    "several_series": ("Choose one by its number or its UID with --series",),
    "nothing_held_out": (
        "Add images to the lists, or name others to measure on with --validation-list",
    ),
    "starting_weights_missing": (
        "Fetch them with: python -m SAMFineTuneLib checkpoints get {backbone} ({megabytes} MB), or "
        "begin with --weights random or --weights FILE",
    ),
    "too_few_images": ("Give more images, or take --batch {batch} and --accumulate 1",),
    "unreadable_image": (
        "Take the file away, or go on without files that cannot be read with --skip-unreadable",
    ),
    "unreachable": (
        "Check the network and try again, or get the file on another computer and either name it "
        "with --checkpoint or put it at {file} for backbone {backbone}",
    ),
    "without_effect": (
        "Choose --method {needed_method}, or leave out {option}",
        "Choose --scope encoder_decoder, or leave out {option}",
    ),
    "weights_missing": (
        "Fetch them with: python -m SAMFineTuneLib checkpoints get {backbone} ({megabytes} MB), or "
        "name the file with --checkpoint",
    ),
}
# Facts that are names of segments and labels, and so may have blanks.
_TYPED_FACTS = ("name", "segment")


def with_remedy_to_type(event: ErrorEvent) -> ErrorEvent:
    """The error with the shell's remedy; unchanged if the shell has none for its code and facts."""
    typed = {name: _typed(name, fact) for name, fact in event.facts.items()}
    if "field" in typed:
        typed["option"] = option_name(str(event.facts["field"]))
    remedy = remedy_from(REMEDIES.get(event.code, ()), typed)
    return event.model_copy(update={"remedy": remedy}) if remedy else event


def remedy_from(sentences: tuple[str, ...], facts: Mapping[str, Fact]) -> str:
    """The first sentence whose facts are all known, formatted with them; "" if there is none."""
    for sentence in sentences:
        try:
            return sentence.format_map(facts)
        except KeyError:
            continue
    return ""


def _typed(name: str, fact: Fact) -> Fact:
    """A fact as it is typed on the command line, in quotes if the shell would split it."""
    quoted = name in _TYPED_FACTS and re.search(r"[^\w.:@%+-]", str(fact))
    return f'"{fact}"' if quoted else fact
