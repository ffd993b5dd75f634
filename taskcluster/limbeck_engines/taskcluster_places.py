"""Where a graph's inputs lie: a deployment's workers see the network, and not this machine."""

from typing import TYPE_CHECKING

from pipeline.common.errors import UserError
from pipeline.common.remote import local_path
from pipeline.data.names import split_dataset

if TYPE_CHECKING:
    from taskgraph.taskgraph import TaskGraph

_SHOWN = 5


def check_places(graph: "TaskGraph") -> None:
    """Raise UserError naming everything that a graph reads from this machine, and what to do instead."""
    found: dict[str, None] = {}
    for task in graph:
        for uri in task.attributes.get("external", []):
            if local_path(uri) is not None:
                found[uri] = None
        if task.kind == "dataset":
            name = str(task.task["extra"]["limbeck"]["parameters"]["dataset"])
            if split_dataset(name)[0] == "file":
                found[name] = None
    if found:
        names = list(found)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise UserError(
            f"the config names files of this machine, which the deployment's workers do not see: "
            f"{', '.join(names[:_SHOWN])}{more}. Put them where workers can fetch them and name them by URL (https://, "
            "s3://, gs://; url_… for data sets), or let limbeck serve give them out, with an address that the workers "
            "reach, and name the URL of the task's artifact"
        )
