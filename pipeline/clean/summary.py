"""The end of a cleaning step: statistics written, a line for the log, and a refusal of an empty corpus."""

import logging
from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.files import write_json

PROGRESS_STEP = 1000  # lines between two looks at the clock

logger = logging.getLogger(__name__)


def finish(stats: dict[str, Any], stats_path: Path, *outputs: Path) -> None:
    """Write the statistics of a cleaned data set.

    Raises UserError when nothing was kept; the outputs are removed then, the statistics and the removed lines stay.
    """
    write_json(stats_path, stats)
    removed: dict[str, int] = stats["removed"]
    if not stats["kept"]:
        for output in outputs:
            output.unlink(missing_ok=True)
        if not stats["read"]:
            raise UserError(f"data set {stats['dataset']} has no lines to clean")
        worst = max(removed, key=lambda rule: removed[rule])
        raise UserError(
            f"cleaning left nothing of data set {stats['dataset']}: of {stats['read']:,} lines the rule {worst!r} "
            f"removed {removed[worst]:,}; check the data set's languages, or change the rule for it"
        )
    shares = ", ".join(f"{rule} {count:,}" for rule, count in removed.items() if count)
    logger.info(f"kept {stats['kept']:,} of {stats['read']:,} lines; removed: {shares or 'none'}")
