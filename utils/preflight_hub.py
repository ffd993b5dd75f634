"""Preflight of models on the Hugging Face hub: whether there is such a model, and whether it may be read."""

import os
import re
from collections.abc import Iterator

from pipeline.common.remote import local_path
from utils.preflight_findings import Finding, error, ok

_TOKEN = "HF_TOKEN"
_CLIENTS = ("httpx", "httpx2", "requests")
_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+)(?:/tree/([^?#]+?))?/?")


def hub_model(address: str, revision: str | None) -> tuple[str, str | None] | None:
    """The id and the revision of a model on the hub, by its id or its page; None when the address is of elsewhere."""
    if page := _PAGE.fullmatch(address):
        return page[1], revision or page[2]
    path = local_path(address)
    if path is None or path.is_dir() or address.startswith(("/", ".", "~", "$", "file:")):
        return None
    return address, revision


def check_hub_model(subject: str, model: str, revision: str | None) -> Iterator[Finding]:
    """Whether the hub has a model and gives its config.json to us. The token comes from the environment; HF_ENDPOINT
    names another hub."""
    try:
        from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as problem:
        yield error(subject, f"{model}: the package {problem.name} is needed: pip install 'limbeck[huggingface]'")
        return
    has_token = bool(os.environ.get(_TOKEN))
    try:
        info = HfApi().model_info(model, revision=revision, timeout=30)
        # What a model is called may be public where its files are not.
        get_hf_file_metadata(hf_hub_url(model, "config.json", revision=info.sha))
        yield ok(subject, f"{model} is on the hub, revision {str(info.sha)[:12]}")
    except HFValidationError as problem:
        yield error(subject, f"{model!r} is neither a folder of this machine nor an id of the hub: {problem}")
    except RevisionNotFoundError:
        yield error(subject, f"{model} has no revision {revision} on the hub")
    except GatedRepoError:
        yield error(
            subject,
            f"{model} is gated: "
            + (f"the token in {_TOKEN} has no access to it: ask for it on the model's page" if has_token else _ASK),
        )
    except RepositoryNotFoundError:
        yield error(subject, f"the hub shows no model {model}" + ("" if has_token else f"; if it is private, {_ASK}"))
    except HfHubHTTPError as problem:
        status = problem.response.status_code if problem.response is not None else None
        if status in (401, 403):
            yield error(
                subject, f"{model}: the hub answers {status}: " + ("the token is refused" if has_token else _ASK)
            )
        else:
            yield error(subject, f"{model}: the hub answers {status}")
    except Exception as problem:
        # huggingface_hub lets through what its HTTP client raises, which is another package in another version.
        if not isinstance(problem, OSError) and type(problem).__module__.partition(".")[0] not in _CLIENTS:
            raise
        yield error(subject, f"{model}: the hub cannot be reached now ({type(problem).__name__})")


_ASK = f"set {_TOKEN} to a token of an account that has access"
