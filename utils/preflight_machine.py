"""Preflight of this machine: disk, memory, processors, GPUs, packages and credentials."""

import importlib.util
import netrc
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from taskgraph.taskgraph import TaskGraph

from limbeck_engines.machine import Machine, parse_size
from limbeck_engines.task import Resources
from limbeck_taskgraph.generate import worker_resources
from limbeck_taskgraph.training_config import TrainingConfig
from pipeline.common.errors import UserError
from utils.forecast import FETCH_FACTOR
from utils.plan_text import format_size
from utils.preflight_findings import Finding, error, ok, warning
from utils.preflight_sources import Sources, continuation_uris
from utils.trigger_training import check_precision

# What the training of a large teacher leaves: some 200 million parameters of 4 bytes, in the best and the last model,
# their average and the optimizer's two moments.
BYTES_OF_TRAINING = 4 * 10**9
# Schemes of storage -> the package that is their driver, and where its credentials may be (variables, then files).
STORAGE = {
    "s3": ("s3fs", ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN"), "~/.aws/credentials"),
    "gs": (
        "gcsfs",
        ("GOOGLE_APPLICATION_CREDENTIALS",),
        "~/.config/gcloud/application_default_credentials.json",
    ),
}
_WANDB_HOST = "api.wandb.ai"


def check_disk(graph: TaskGraph, sources: Sources, runs: Path) -> Iterator[Finding]:
    """Whether the disk of the runs folder has room for what will be fetched and for what is made of it."""
    folder = next(place for place in (runs.absolute(), *runs.absolute().parents) if place.exists())
    free = shutil.disk_usage(folder).free
    fetched, trainings = sum(sources.sizes), sum("train" in graph.tasks[label].kind for label in graph.tasks)
    need = FETCH_FACTOR * fetched + BYTES_OF_TRAINING * trainings
    said = (
        f"{format_size(free)} free in {folder}; estimated need at most {format_size(need)}: {FETCH_FACTOR} times the "
        f"{format_size(fetched)} to fetch, and {format_size(BYTES_OF_TRAINING)} for each of {trainings} trainings, as "
        "large models take it" + (f"; {sources.unknown} sizes are not known" if sources.unknown else "")
    )
    if not os.access(folder, os.W_OK):
        yield error("disk", f"{folder} cannot be written to: name another folder with --runs")
    elif free < fetched:
        yield error("disk", said)
    else:
        yield ok("disk", said) if need <= free else warning("disk", said)


def check_machine(graph: TaskGraph) -> Iterator[Finding]:
    """Whether tasks get the processors and the memory that their worker types ask for."""
    machine, resources = Machine.detect(), worker_resources()
    yield ok("machine", f"{machine.cpus} processors, {machine.memory / 1e9:.1f} GB of memory")
    for name in sorted({graph.tasks[label].attributes["worker-type"] for label in graph.tasks}):
        wanted = resources[name]
        _, note = machine.fit(Resources(cpus=wanted["cpus"], memory=parse_size(str(wanted["memory"]))))
        if note:
            yield warning("machine", f"a task of worker type {name} {note}")


def check_gpus(config: TrainingConfig, graph: TaskGraph) -> Iterator[Finding]:
    """Whether there are GPUs for what would like one, and whether the installed torch can use them."""
    resources = worker_resources()
    if not any(resources[graph.tasks[label].attributes["worker-type"]]["gpus"] for label in graph.tasks):
        return
    gpus = Machine.detect().gpus
    if gpus:
        yield ok("gpus", f"{len(gpus)}: {_gpu_names()}")
        yield from _check_torch()
        return
    yield warning(
        "gpus",
        "none: training and translation run on the processors. Small models on some hundred thousand sentences take "
        "minutes to hours (configs/demo-en-de.yml is made for it); models as large as the defaults take weeks",
    )
    try:
        check_precision(config, gpus=0)
    except UserError as problem:
        yield error("gpus", str(problem))


def _gpu_names() -> str:
    """Names and memory of the GPUs, as their driver tells them."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "names and memory are not known (nvidia-smi does not answer)"
    return "; ".join(line.strip() for line in listing.splitlines())


def _check_torch() -> Iterator[Finding]:
    import torch  # here, because it takes seconds

    if not torch.cuda.is_available():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built for processors only"
        yield error(
            "gpus", f"torch {torch.__version__} {built} and cannot use them: install the build for their driver"
        )


def check_packages(config: TrainingConfig) -> Iterator[Finding]:
    """Whether the packages are installed that only some configs need."""
    continuation = config.to_parameters()["continuation"]
    needed = {}
    if config.wandb_publication:
        needed["wandb"] = ("wandb-publication", "tracking")
    models = continuation.get("models") or {}
    if any(model and model.get("type") == "huggingface" for model in models.values()):
        needed |= dict.fromkeys(("transformers", "safetensors"), ("continuation.models", "huggingface"))
    for scheme in _storage_schemes(config):
        needed[STORAGE[scheme][0]] = (f"{scheme}:// in continuation", "cloud")
    for package, (reason, extra) in needed.items():
        if importlib.util.find_spec(package) is None:
            yield error(reason, f"the package {package} is not installed: pip install 'limbeck[{extra}]'")
        else:
            yield ok(reason, f"the package {package} is installed")


def check_credentials(config: TrainingConfig) -> Iterator[Finding]:
    """Whether credentials are where their tools look for them. Their values are neither used nor shown."""
    if config.wandb_publication:
        if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
            yield ok("wandb-publication", f"WANDB_MODE is {os.environ['WANDB_MODE']}: no key is needed")
        elif os.environ.get("WANDB_API_KEY") or _in_netrc(_WANDB_HOST):
            yield ok("wandb-publication", "a key is set")
        else:
            yield error(
                "wandb-publication",
                "no key is set: set WANDB_API_KEY or run `wandb login`; WANDB_MODE=offline keeps the curves here",
            )
    for scheme in _storage_schemes(config):
        _, variables, file = STORAGE[scheme]
        if any(os.environ.get(name) for name in variables) or Path(file).expanduser().is_file():
            yield ok(f"{scheme}://", "credentials are set")
        else:
            yield warning(
                f"{scheme}://",
                f"no credentials are in {' or '.join(variables)}, nor in {file}: only public data can be read, unless "
                "this machine has a role of its own",
            )


def _storage_schemes(config: TrainingConfig) -> list[str]:
    uris = (uri for _, uri in continuation_uris(config.to_parameters()["continuation"]))
    schemes = {uri.partition("://")[0].lower() for uri in uris if "://" in uri}
    return [scheme for scheme in STORAGE if scheme in schemes or (scheme == "gs" and "gcs" in schemes)]


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
