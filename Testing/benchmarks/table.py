"""Results as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Cell = str | int | float | None


def markdown(headings: Sequence[str], rows: Iterable[Sequence[Cell]], digits: int = 3) -> str:
    """A table whose columns line up, texts on the left and figures on the right.

    Args:
        headings: one a column.
        rows: cells; floats are rounded, None becomes a dash.
        digits: of a float, behind the point.
    """
    cells = [list(row) for row in rows]
    texts = [list(headings), *([_text(cell, digits) for cell in row] for row in cells)]
    columns = range(len(headings))
    widths = [max(len(row[column]) for row in texts) for column in columns]
    left = [any(isinstance(row[column], str) for row in cells) for column in columns]
    rule = [
        "-" * (width - 1) + ("-" if text else ":") for width, text in zip(widths, left, strict=True)
    ]
    return "\n".join(_line(row, widths, left) for row in [texts[0], rule, *texts[1:]])


def mean_and_range(values: Sequence[float]) -> str:
    """The mean of several seeds, with the lowest and the highest in brackets; of one its value."""
    mean = f"{sum(values) / len(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def _text(cell: Cell, digits: int) -> str:
    if cell is None:
        return "-"
    return f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell)


def _line(row: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    cells = [
        text.ljust(width) if is_left else text.rjust(width)
        for text, width, is_left in zip(row, widths, left, strict=True)
    ]
    return f"| {' | '.join(cells)} |"
