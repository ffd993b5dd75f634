"""What a task fetches from outside of the runs folder, and how to ask how large that is."""

from collections.abc import Callable
from functools import partial
from typing import Any

from pipeline.common.download import without_credentials
from pipeline.common.remote import size
from pipeline.data.names import split_dataset
from pipeline.data.probe import probe

# Gives bytes, or None when they are not known before; raises UserError or TransientError.
Question = Callable[[], int | None]


def fetched_by(task: Any) -> dict[str, Question]:
    """What a task of the graph fetches, as a person may see it: addresses and names of data sets, without credentials.

    Nothing is asked here. The user's own `file_` data sets are not from outside.
    """
    questions: dict[str, Question] = {
        without_credentials(uri): partial(size, uri) for uri in task.attributes.get("external", [])
    }
    if task.kind == "dataset":
        given = task.task["extra"]["limbeck"]["parameters"]
        name = given["dataset"]
        if split_dataset(name)[0] != "file":
            languages = (given["lang"],) if "lang" in given else (given["src"], given["trg"])
            questions[f"{without_credentials(name)} ({'-'.join(languages)})"] = partial(probe, name, languages)
    return questions
