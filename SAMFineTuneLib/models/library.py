"""The user's tuned models: a folder of files, listed with their cards.

Loads no tensor library, so that a program that must not have one in its process can offer them.
"""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import written_whole
from SAMFineTuneLib.models.model_file import ModelCard, read_card
from SAMFineTuneLib.models.name import SUFFIX, model_name, numbered
from SAMFineTuneLib.user_folders import MODELS_VARIABLE, models_folder


@dataclass(frozen=True)
class TunedModel:
    """A file of the library.

    Attributes:
        name: what the user calls it: the file's name without its suffix.
        path: the file.
        bytes: its size.
        card: what it says of itself; None where it cannot be used.
        fault: why it cannot be used, in words; "" where it can.
    """

    name: str
    path: Path
    bytes: int
    card: ModelCard | None
    fault: str = ""


def list_models() -> list[TunedModel]:
    """Every tuned model, by name; those that cannot be used with their fault.

    Raises:
        InputError: the folder is there and cannot be read.
    """
    models = [_described(path) for path in _files()]
    return sorted((each for each in models if each), key=lambda each: each.name.casefold())


def model_named(name: str) -> TunedModel | None:
    """The model called `name`, None where there is none; reads no other's card.

    Raises:
        InputError: as `list_models`.
    """
    return next((_described(path) for path in _files() if _name_of(path) == name), None)


def find_model(name: str) -> TunedModel:
    """The model called `name`.

    Raises:
        InputError: there is none.
    """
    model = model_named(name)
    if model is not None:
        return model
    known = ", ".join(each.name for each in list_models())
    raise InputError(
        f"there is no tuned model called {name!r}",
        f"choose one of: {known}" if known else "fine-tune or import one first",
        code="no_such_model",
    )


def new_model_path(name: str) -> Path:
    """The file for a new model: nothing lies there yet, and every system takes the name.

    Raises:
        InputError: the folder is there and cannot be read.
    """
    stem = model_name(name) or "model"
    taken = _names()
    free = next(
        each for number in count(1) if (each := numbered(stem, number)).casefold() not in taken
    )
    return models_folder() / f"{free}{SUFFIX}"


def rename_model(model: TunedModel, name: str) -> TunedModel:
    """Call a model otherwise; characters that some system refuses are replaced.

    Raises:
        InputError: another model has the name, nothing is left of it, or the file cannot be moved.
    """
    stem = model_name(name)
    if not stem:
        raise InputError(
            f"{name!r} cannot be the name of a model", "use letters or digits", code="bad_name"
        )
    # The same name in other cases is the same file on many systems, and may be wished.
    if stem.casefold() in _names() - {model.name.casefold()}:
        raise InputError(
            f"there is already a model called {stem!r}",
            "choose another name, or rename or delete that one first",
            code="name_taken",
        )
    path = model.path.with_name(f"{stem}{SUFFIX}")
    try:
        model.path.rename(path)
    except OSError as error:
        raise _refused(f"rename {model.name}", error) from error
    return _found(path)


def delete_model(model: TunedModel) -> None:
    """Delete a model's file.

    Raises:
        InputError: it is not there any more, or cannot be deleted.
    """
    try:
        model.path.unlink()
    except OSError as error:
        raise _refused(f"delete {model.name}", error) from error


def export_model(model: TunedModel, file: Path, *, overwrite: bool = False) -> Path:
    """Copy a model out of the library, for another computer or another person.

    Args:
        model: one that can be used.
        file: where to; the suffix of tuned models is added where it lacks. Into a folder that is
            there it goes under its own name.
        overwrite: whether a file that is there may be replaced: the user was asked.

    Returns:
        The file.

    Raises:
        InputError: a model that cannot be used, a file that exists or cannot be written.
    """
    file = Path(file).expanduser().absolute()
    if file.is_dir():
        file = file / f"{model.name}{SUFFIX}"
    elif not file.name.lower().endswith(SUFFIX):
        file = file.with_name(file.name + SUFFIX)
    read_card(model.path)
    if file.is_dir() or (file.exists() and (not overwrite or file.samefile(model.path))):
        raise InputError(
            f"{file} is there already", "name another file, or delete that one", code="file_exists"
        )
    _copy(model.path, file)
    return file


def import_model(file: Path) -> TunedModel:
    """Copy a model into the library, under its own name, or that with a number where it is taken.

    Raises:
        InputError: no such file, not a tuned model, damaged, of a newer format; or it cannot be
            written.
    """
    file = Path(file).expanduser().absolute()
    read_card(file)
    path = new_model_path(file.name)
    _copy(file, path)
    return _found(path)


def _files() -> list[Path]:
    folder = models_folder()
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(
            f"the folder of tuned models, {folder}, cannot be read: {error.strerror or error}",
            f"ask for the right to read it, or name another folder in {MODELS_VARIABLE}",
            code="no_access",
        ) from error
    # What begins with a dot is being written.
    return [
        path
        for path in paths
        if path.name.lower().endswith(SUFFIX) and not path.name.startswith(".") and path.is_file()
    ]


def _names() -> set[str]:
    """What is taken, compared as systems do that make no difference between cases."""
    return {_name_of(path).casefold() for path in _files()}


def _name_of(path: Path) -> str:
    return path.name[: -len(SUFFIX)]


def _described(path: Path) -> TunedModel | None:
    """The model of a file; None where the file has gone meanwhile."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    try:
        return TunedModel(_name_of(path), path, size, read_card(path))
    except InputError as error:
        return TunedModel(_name_of(path), path, size, None, str(error))


def _found(path: Path) -> TunedModel:
    model = _described(path)
    if model is None:
        raise InputError(f"{path} has gone", "look who deletes files there", code="no_such_file")
    return model


def _copy(source: Path, target: Path) -> None:
    """Copies a model; the file is there whole or not at all."""
    try:
        with written_whole(target) as unfinished:
            shutil.copyfile(source, unfinished)
            if unfinished.stat().st_size != source.stat().st_size:
                raise OSError(errno.EIO, "not all of it was written")
    except OSError as error:
        raise _refused(f"copy {source.name} to {target}", error) from error


def _refused(what: str, error: OSError) -> InputError:
    if error.errno == errno.ENOSPC:
        return InputError(f"cannot {what}: no space left", "free some space", code="no_space")
    return InputError(
        f"cannot {what}: {error.strerror or error}",
        "close programs that use the file, and check that the folder may be written",
        code="not_writable",
    )
