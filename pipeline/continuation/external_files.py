"""Bringing another maker's model here: from a directory, from a URI, or from the Hugging Face Hub.

From the Hub goes through huggingface_hub, which takes HF_ENDPOINT, HF_HOME and HF_TOKEN from the environment. The token
is sent to the Hub and nowhere else: what is logged and raised here is freed of it.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common import remote
from pipeline.common.download import without_credentials
from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import read_json
from pipeline.model.external import INSTALL, SENTENCEPIECE_FILES

logger = logging.getLogger(__name__)

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("target_vocab.json", "spiece.model", "sentencepiece.bpe.model", *SENTENCEPIECE_FILES),
)
VOCABULARY_FILES = tuple(
    f"{side}_vocabulary.{ending}" for side in ("shared", "source", "target") for ending in ("json", "txt")
)
_FILES = {
    "huggingface": ("config.json", "generation_config.json", *TOKENIZER_FILES),
    "ctranslate2": ("model.bin", "config.json", *VOCABULARY_FILES, *TOKENIZER_FILES),
}
# Safetensors hold numbers only. Of the older .bin files, which are pickles, transformers reads nothing but numbers.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SHARD = re.compile(r"(?:model|pytorch_model)-\d+-of-\d+\.(?:safetensors|bin)")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+)(?:/tree/([^?#]+?))?/?")


@dataclass(frozen=True)
class Found:
    """A model's files on this machine, and where they come from, without any credentials."""

    folder: Path
    origin: dict[str, str]


def obtain(model: str, kind: str, revision: str | None, temporary: Path) -> Found:
    """The folder of a model that is a directory, a URI of one, or an id of the Hub; files of a URI go to `temporary`.

    Raises UserError when there is no such model or it may not be read, TransientError when it cannot be had now.
    """
    if page := _HUB_PAGE.fullmatch(model):
        model, revision = page[1], revision or page[2]
    path = remote.local_path(model)
    if path is not None and path.is_dir():
        if revision:
            raise UserError(f"{model} is a directory: --revision is for models of the Hugging Face Hub")
        return Found(path, {"model": str(path.resolve()), "type": kind})
    if path is None:
        if revision:
            raise UserError(f"{_shown(model)} is a URI: --revision is for models of the Hugging Face Hub")
        return Found(_fetch(model, kind, temporary), {"model": _shown(model), "type": kind})
    if not _HUB_ID.fullmatch(model):
        what = "is a file, not a directory" if path.is_file() else "does not exist"
        raise UserError(f"{model} {what}: a model is a directory, a URI of one, or an id of the Hub such as owner/name")
    folder, commit = _download(model, kind, revision)
    return Found(folder, {"model": model, "type": kind, "revision": commit})


def _shown(uri: str) -> str:
    return without_credentials(uri).partition("?")[0]


def weights(names: Sequence[str]) -> str:
    """The file of weights, or the list of such files, to take among a model's files; "" if there is none."""
    return next((name for name in _WEIGHTS if name in names), "")


def _shards(index: Path) -> list[str]:
    names = set(read_json(index).get("weight_map", {}).values())
    if strange := sorted(name for name in names if not _SHARD.fullmatch(str(name))):
        raise UserError(
            f"{index} lists {strange[0]!r}, which is not a file of weights (model-00001-of-00002.safetensors)"
        )
    return sorted(names)


def _fetch(uri: str, kind: str, folder: Path) -> Path:
    """The files of a folder that a URI names: nobody lists a folder over HTTP, so each is asked for."""
    candidates = (*_FILES[kind], *(_WEIGHTS if kind == "huggingface" else ()))
    names = [name for name in candidates if remote.exists(remote.join(uri, name))]
    if not {"config.json", "model.bin"} & set(names):
        raise UserError(f"{_shown(uri)} has neither config.json nor model.bin: the URI must name a model's folder")
    chosen = weights(names)
    for name in names:
        if name == chosen or name not in _WEIGHTS:
            remote.fetch(remote.join(uri, name), folder / name)
    if chosen.endswith(".index.json"):
        for name in _shards(folder / chosen):
            remote.fetch(remote.join(uri, name), folder / name)
    return folder


def _download(model: str, kind: str, revision: str | None) -> tuple[Path, str]:
    """The folder in the Hub's cache with the files that are needed, all of one commit, and that commit."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"{model} is on the Hugging Face Hub, which needs huggingface_hub: {INSTALL}") from error
    # Its line for every request would show where a private file lies.
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with _hub_errors(model, revision):
        hub = huggingface_hub.HfApi()
        found = hub.model_info(model, revision=revision)
        commit = str(found.sha)
        names = [entry.rfilename for entry in found.siblings or ()]
        wanted = [name for name in _FILES[kind] if name in names]
        chosen = weights(names) if kind == "huggingface" else ""
        path = Path()
        # The small files first: what is wrong with them is known before the weights have come.
        for name in [*wanted, *([chosen] if chosen else [])]:
            path = Path(hub.hf_hub_download(model, name, revision=commit))
        if chosen.endswith(".index.json"):
            for name in _shards(path):
                hub.hf_hub_download(model, name, revision=commit)
    if path == Path():
        raise UserError(
            f"{model} on the Hub has none of the files of a {kind} model: config.json and weights are needed"
        )
    logger.info(f"{model} at {commit[:12]}: {len(wanted)} files and {chosen or 'model.bin'}")
    return path.parent, commit


@contextmanager
def _hub_errors(model: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import errors

    named = f"{model} at revision {revision}" if revision else model
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise UserError(
            f"{named}: HF_HUB_OFFLINE is set, so nothing is fetched: unset it, or name a directory"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{model} is not an id of the Hugging Face Hub: {_without_token(error)}") from None
    except errors.RevisionNotFoundError as error:
        raise UserError(f"the Hub has {model}, but no revision {revision}") from error
    except errors.HfHubHTTPError as error:
        status = _status(error)
        if status in (401, 403):
            raise UserError(
                f"the Hub refuses {named} ({status}): it needs a token that may read it in the environment variable "
                "HF_TOKEN (and, for a gated model, its terms accepted on its page), or there is no such model"
            ) from None
        if status == 404:
            raise UserError(f"the Hub has no model {named}, or a file of it is missing there (404)") from None
        if status is None or status >= 500 or status in (408, 425, 429):
            raise TransientError(f"the Hub cannot be read now for {named}: {_without_token(error)}") from None
        raise UserError(f"the Hub refuses {named}: {_without_token(error)}") from None
    except (UserError, TransientError):
        raise
    except Exception as error:
        # huggingface_hub lets through what its HTTP client raises, and hides some of it behind a missing cache.
        if _is_network_trouble(error):
            raise TransientError(f"the Hub cannot be reached for {named}: {_without_token(error)}") from None
        raise UserError(f"{named} cannot be fetched from the Hub: {_without_token(error)}") from None


def _status(error: Any) -> int | None:
    code = getattr(getattr(error, "response", None), "status_code", None)
    return int(code) if code is not None else None


def _is_network_trouble(error: BaseException | None) -> bool:
    from huggingface_hub import errors

    modules = ("httpx", "httpx2", "httpcore", "httpcore2")
    while error is not None:
        kind = type(error)
        transport = kind.__module__.split(".")[0] in modules and any(
            "Transport" in base.__name__ for base in kind.__mro__
        )
        if transport and kind.__name__ not in ("UnsupportedProtocol", "LocalProtocolError"):
            return True
        if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError | TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _without_token(error: BaseException) -> str:
    from huggingface_hub import get_token

    text = " ".join(str(error).split())
    token = get_token()
    return text.replace(token, "***") if token else text
