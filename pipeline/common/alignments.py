"""Word alignments as text."""

from pipeline.common.errors import UserError


def parse_points(points: str) -> list[tuple[int, int]]:
    """Word positions of Pharaoh's `i-j i-j …`. Raises UserError when a point is malformed."""
    parsed = []
    for point in points.split():
        src, dash, trg = point.partition("-")
        if not (dash and src.isdecimal() and trg.isdecimal()):
            raise UserError(f"{point!r} is not an alignment point: points are two word positions such as 0-1")
        parsed.append((int(src), int(trg)))
    return parsed
