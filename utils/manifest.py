"""Write the job that trains one model on several machines: a Slurm script, or a JobSet manifest for Kubernetes.

Both start torchrun with `pipeline.train.train` and the arguments after `--`. The folders that these name must lie on a
file system that all machines share; the checkpoint folder makes a restarted job go on where it stood.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from limbeck_engines.machine import parse_size
from limbeck_engines.slurm_profile import Worker, load_profile
from pipeline.common.errors import UserError
from utils.common import command_parser, run_command

EXAMPLES = """examples:
  limbeck manifest slurm --nodes 2 --gpus 8 --time 2-00:00:00 -- --preset teacher --src en --trg de … > teacher.sbatch
  limbeck manifest kubernetes --name teacher-en-de --nodes 2 --gpus 8 --image registry.example/limbeck:1 \\
      --volume corpora:/data --secret WANDB_API_KEY=wandb:api-key --env LIMBECK_WANDB_PROJECT=en-de \\
      -- --preset teacher --src en --trg de … | kubectl apply -f -
"""
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")  # pods add to it, and must stay below 63 letters
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PORT = 29500
_WORKER_TYPE = "b-largegpu"  # that of training in the graph
_GRACE_SECONDS = 120  # from the signal to the kill: time to save a checkpoint
_MOST_RESTARTS = 100

_SLURM_END = """
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# At the time limit, or when the job must give way, every process saves a checkpoint; then the job queues again.
stopped=
# A signal to srun itself would kill them at once: Slurm tells them.
trap 'stopped=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
srun {torchrun} --rdzv-endpoint "$first:{port}" {trainer} &
running=$!
wait "$running"
code=$?
if [ -n "$stopped" ]; then
  wait "$running"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$code"
"""


def slurm_script(given: argparse.Namespace) -> str:
    """The text of a script for sbatch."""
    directives = {
        "job-name": given.name,
        "nodes": given.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": given.gpus,
        "cpus-per-task": given.cpus,
        "mem": given.memory,
        "time": given.time,
        "partition": given.partition,
        "signal": f"B:TERM@{_GRACE_SECONDS}",
        "open-mode": "append",
        "output": f"{given.name}-%j.log",
    }
    settings = [f"#SBATCH --{name}={value}" for name, value in directives.items() if value]
    variables = [f"export {name}={shlex.quote(value)}" for name, value in _variables(given).items()]
    end = _SLURM_END.format(torchrun=shlex.join(_torchrun(given)), port=_PORT, trainer=shlex.join(_trainer(given)))
    return "\n".join(["#!/bin/bash", *settings, "#SBATCH --requeue", "", *variables]) + end


def jobset_manifest(given: argparse.Namespace) -> dict[str, Any]:
    """A JobSet (jobset.x-k8s.io/v1alpha2) of one job with a pod for each machine.

    Values of variables are always texts, as Kubernetes wants them; secrets are named, never written out.
    """
    secrets = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for variable, (secret, key) in given.secret.items()
    ]
    volumes = {f"volume-{number}": pair for number, pair in enumerate(given.volume, 1)}
    resources = {"nvidia.com/gpu": str(given.gpus) if given.gpus else "", "cpu": given.cpus, "memory": given.memory}
    limits = {name: str(amount) for name, amount in resources.items() if amount}
    container = {
        "name": "train",
        "image": given.image,
        "command": [
            *_torchrun(given),
            *("--rdzv-endpoint", f"{given.name}-train-0-0.{given.name}:{_PORT}"),
            *_trainer(given),
        ],
        "env": [*({"name": name, "value": value} for name, value in _variables(given).items()), *secrets],
        "ports": [{"containerPort": _PORT, "name": "rendezvous"}],
        "resources": {"limits": limits, "requests": dict(limits)},
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            *({"name": name, "mountPath": path} for name, (_, path) in volumes.items()),
        ],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "containers": [container],
        "volumes": [
            # The processes of a machine exchange gradients through it; the default of 64 MB is too small.
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
            *({"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, (claim, _) in volumes.items()),
        ],
    }
    job = {
        "parallelism": given.nodes,
        "completions": given.nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": given.name},
        "spec": {
            # A job that failed or was stopped starts again as a whole, from the newest checkpoint.
            "failurePolicy": {"maxRestarts": _MOST_RESTARTS},
            "network": {"enableDNSHostnames": True, "subdomain": given.name},
            "replicatedJobs": [{"name": "train", "replicas": 1, "template": {"spec": job}}],
        },
    }


def check_against(manifest: dict[str, Any], definition: Path) -> None:
    """Raise UserError, naming the place, when a manifest breaks the schema of a CustomResourceDefinition file.

    Unlike Kubernetes, which drops them silently, it refuses keys that the schema does not know.
    """
    try:
        import jsonschema
    except ImportError as error:
        raise UserError("--check needs the jsonschema package: pip install jsonschema") from error
    try:
        versions = yaml.safe_load(definition.read_text(encoding="utf-8"))["spec"]["versions"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{definition} is not a CustomResourceDefinition: {error}") from error
    name = manifest["apiVersion"].rpartition("/")[2]
    schema = next((entry["schema"]["openAPIV3Schema"] for entry in versions if entry["name"] == name), None)
    if schema is None:
        raise UserError(f"{definition} does not define the version {name}")
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, which a definition leaves open
    validator = jsonschema.Draft202012Validator(_closed(schema))
    problems = sorted(validator.iter_errors(manifest), key=lambda problem: list(map(str, problem.absolute_path)))
    if problems:
        texts = [f"{'.'.join(map(str, problem.absolute_path)) or 'top'}: {problem.message}" for problem in problems]
        raise UserError(f"the manifest does not fit {definition}: {'; '.join(texts)}")


def _closed(schema: Any) -> Any:
    """The schema with unknown keys forbidden wherever it lists the known ones."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if "properties" in closed and isinstance(closed["properties"], dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", bool(closed.get("x-kubernetes-preserve-unknown-fields", False)))
    return closed


def _torchrun(given: argparse.Namespace) -> list[str]:
    return [
        "torchrun",
        *("--nnodes", str(given.nodes), "--nproc-per-node", str(max(given.gpus, 1))),
        *("--rdzv-backend", "c10d", "--rdzv-id", given.name),
    ]


def _trainer(given: argparse.Namespace) -> list[str]:
    return ["-m", "pipeline.train.train", *given.arguments]


def _variables(given: argparse.Namespace) -> dict[str, str]:
    threads = {"LIMBECK_CPUS": str(max(given.cpus // max(given.gpus, 1), 1))} if given.cpus else {}
    # Threads that wait for each other must not spin: on a machine with other work that takes many times as long.
    return {"OMP_WAIT_POLICY": "PASSIVE", **threads, **given.env}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    words = list(sys.argv[1:] if arguments is None else arguments)
    own, trainer = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = command_parser("manifest", __doc__, EXAMPLES)
    add = parser.add_argument
    add("kind", choices=["slurm", "kubernetes"])
    add("--name", default="train", help="of the job: lower-case letters, digits and '-' (default: train)")
    add("--nodes", type=int, default=1, help="machines (default: 1)")
    add("--gpus", type=int, default=1, help="on each machine; 0 trains on processors (default: 1)")
    add("--cpus", type=int, default=0, help="processors of each machine, shared by its GPUs' processes")
    add("--memory", help="of each machine, as Slurm (64G) or Kubernetes (64Gi) writes it")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the job; repeatable")
    add(
        "--slurm-profile",
        type=Path,
        metavar="FILE",
        help=f"what is not given is taken from the worker type {_WORKER_TYPE} of an engine's profile, such as "
        "configs/engines/slurm.yml",
    )
    slurm = parser.add_argument_group("slurm")
    slurm.add_argument("--time", help="limit, after which the job saves a checkpoint and queues again (2-00:00:00)")
    slurm.add_argument("--partition")
    kubernetes = parser.add_argument_group("kubernetes")
    kubernetes.add_argument("--image", help="with limbeck installed")
    kubernetes.add_argument("--volume", action="append", default=[], metavar="CLAIM:PATH", help="mounted; repeatable")
    kubernetes.add_argument(
        "--secret", action="append", default=[], metavar="NAME=SECRET:KEY", help="a variable from a secret; repeatable"
    )
    kubernetes.add_argument("--check", type=Path, metavar="CRD", help="jobset.x-k8s.io's definition to check against")
    profile = parser.parse_known_args(own)[0]
    if profile.slurm_profile:
        parser.set_defaults(**_worker_defaults(profile.slurm_profile, profile.kind))
    given = parser.parse_args(own)
    given.arguments = trainer
    if not trainer:
        raise UserError("the trainer's arguments are missing: give them after --, as in `… -- --preset teacher …`")
    if not _NAME.fullmatch(given.name):
        raise UserError(f"--name {given.name!r}: up to 40 lower-case letters, digits and '-', beginning with a letter")
    if given.nodes < 1 or given.gpus < 0 or given.cpus < 0:
        raise UserError("--nodes must be at least 1, --gpus and --cpus at least 0")
    if given.kind == "kubernetes" and not given.image:
        raise UserError("--image is missing: the container image that has limbeck installed")
    if given.kind == "slurm" and (given.secret or given.volume or given.check):
        raise UserError(
            "--secret, --volume and --check are for kubernetes: under Slurm a job has the variables of the shell that "
            "submits it, and sees the file systems of its machines"
        )
    given.env = dict(_split(text, "=", "--env NAME=VALUE") for text in given.env)
    secrets = [_split(text, "=", "--secret NAME=SECRET:KEY") for text in given.secret]
    given.secret = {name: _split(place, ":", "--secret NAME=SECRET:KEY") for name, place in secrets}
    given.volume = [_split(text, ":", "--volume CLAIM:PATH") for text in given.volume]
    for name in (*given.env, *given.secret):
        if not _VARIABLE.fullmatch(name):
            raise UserError(f"{name!r} is not the name of a variable")
    return given


def _worker_defaults(path: Path, kind: str) -> dict[str, Any]:
    """What a profile of the Slurm engine says of the machines that train, under this command's names."""
    profile = load_profile(path)
    worker = profile.workers.get(_WORKER_TYPE, Worker()).over(profile.defaults)
    found: dict[str, Any] = {"nodes": worker.nodes, "gpus": worker.gpus, "time": worker.time}
    found["partition"] = worker.partition
    if isinstance(worker.cpus, int):
        found["cpus"] = worker.cpus
    if worker.memory not in (None, "all", "default"):
        size = parse_size(worker.memory)
        found["memory"] = f"{size // 2**20}M" if kind == "slurm" else str(size)
    return {name: value for name, value in found.items() if value is not None}


def _split(text: str, separator: str, form: str) -> tuple[str, str]:
    before, found, after = text.partition(separator)
    if not found or not before or not after:
        raise UserError(f"{text!r} does not have the form {form}")
    return before, after


def main(arguments: Sequence[str] | None = None) -> int:
    def write() -> int:
        given = _parse(arguments)
        if given.kind == "slurm":
            print(slurm_script(given), end="")
            return 0
        manifest = jobset_manifest(given)
        if given.check:
            check_against(manifest, given.check)
        print(yaml.safe_dump(manifest, sort_keys=False), end="")
        return 0

    return run_command(write)


if __name__ == "__main__":
    sys.exit(main())
