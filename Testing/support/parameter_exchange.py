"""Writes or reads a scene with a parameter node that has everything the module's own one has.

    python parameter_exchange.py SCENE.mrml write|read ...

Prints what the node holds after each action, as a line of JSON. The environment variable
SLICER_PYTHON decides whose wrapper does it, Slicer's or the host's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from Testing.host import boot, errors

slicer = boot()

from slicer import vtkMRMLModelNode, vtkMRMLTextNode  # noqa: E402
from slicer.parameterNodeWrapper import (  # noqa: E402
    Choice,
    Default,
    Minimum,
    WithinRange,
    parameterNodeWrapper,
    parameterPack,
)


@parameterPack
class Pair:
    first: vtkMRMLModelNode
    second: vtkMRMLTextNode
    names: list[str]
    numbers: list[int]
    how: str = "auto"
    limit: int = -1


@parameterNodeWrapper
class Everything:
    pairs: list[Pair]
    single: Pair
    nodes: list[vtkMRMLModelNode]
    node: vtkMRMLModelNode
    text: str = "as it was"
    number: int = 4
    share: Annotated[float, WithinRange(0, 1)] = 0.5
    whole_share: float = 0.0
    flag: bool = True
    choice: Annotated[str, Choice(["a", "b"])] = "a"
    count: Annotated[int, Minimum(1), Default(3)]


def fill(parameters: Any) -> None:
    """Sets values in all the ways that the module does, lists getting longer and shorter."""
    models = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", f"m{i}") for i in range(3)]
    text = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "t")
    parameters.pairs.append(Pair(models[0], text))
    parameters.pairs.append(Pair(first=models[1], names=["x", "y | z"]))
    parameters.pairs.append(Pair(models[2], text, [], [7]))
    parameters.pairs[1].numbers = [1, 2, 3]
    parameters.pairs[2].numbers.append(8)
    del parameters.pairs[0]
    parameters.pairs[0].how = "ä: ö"
    parameters.pairs[0].numbers.remove(2)
    parameters.single.limit = 12
    parameters.single.first = models[0]
    parameters.nodes = models
    parameters.nodes.pop()
    parameters.node = models[1]
    parameters.text = ""
    parameters.share = 1
    parameters.whole_share = 3
    parameters.flag = False
    parameters.choice = "b"


def read(parameters: Any) -> dict[str, Any]:
    """The values as the wrapper gives them."""
    plain = ("text", "number", "share", "whole_share", "flag", "choice", "count")
    return {
        **{
            name: [type(getattr(parameters, name)).__name__, getattr(parameters, name)]
            for name in plain
        },
        "pairs": [_pair(one) for one in parameters.pairs],
        "single": _pair(parameters.single),
        "nodes": [one.GetName() for one in parameters.nodes],
        "node": parameters.node.GetName(),
    }


def _pair(pair: Any) -> list[Any]:
    nodes = [None if one is None else one.GetName() for one in (pair.first, pair.second)]
    return [*nodes, list(pair.names), list(pair.numbers), pair.how, pair.limit]


def stored(node: Any) -> dict[str, Any]:
    """Names and texts as they stand in the node."""
    roles: list[str] = []
    node.GetNodeReferenceRoles(roles)
    return {
        "parameters": {name: node.GetParameter(name) for name in sorted(node.GetParameterNames())},
        "references": {
            role: node.GetNodeReference(role).GetName()
            for role in sorted(roles)
            if node.GetNodeReference(role)
        },
    }


def main(path: str, *actions: str) -> None:
    """Writes or reads, one after the other, and prints what the parameters then are, one a line."""
    for action in actions:
        slicer.mrmlScene.Clear(0)
        if action == "write":
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "P")
            fill(Everything(node))
            slicer.mrmlScene.Commit(path)
        else:
            slicer.mrmlScene.SetURL(path)
            slicer.mrmlScene.Import()
            node = slicer.util.getFirstNodeByClassByName("vtkMRMLScriptedModuleNode", "P")
        before = stored(node)
        values = read(Everything(node))
        assert stored(node) == before, "reading changes what is stored"
        assert not errors, errors
        print(json.dumps({"stored": before, "values": values}))


if __name__ == "__main__":
    main(*sys.argv[1:])
