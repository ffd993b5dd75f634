import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.errors import UserError
from utils.manifest import check_against, jobset_manifest, main

TRAINER = ["--preset", "teacher", "--src", "en", "--options", '{"after": "20e", "note": "it\'s $HOME"}']
KUBERNETES = ["kubernetes", "--name", "teacher-en-de", "--nodes", "2", "--gpus", "8", "--image", "limbeck:1"]

# The shape of a CustomResourceDefinition, with a few keys of a JobSet.
DEFINITION = """
spec:
  versions:
    - name: v1alpha2
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              properties:
                failurePolicy: {type: object, properties: {maxRestarts: {type: integer}}}
                network: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {}}
                replicatedJobs: {type: array, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


def render(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, "--", *TRAINER]) == 0
    return capsys.readouterr().out


def test_a_jobset_starts_torchrun_on_every_machine(capsys: pytest.CaptureFixture[str]) -> None:
    text = render(capsys, *KUBERNETES, "--cpus", "64", "--memory", "512Gi", "--volume", "corpora:/data")
    manifest = yaml.safe_load(text)
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (2, 2, "Indexed")
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][:5] == ["torchrun", "--nnodes", "2", "--nproc-per-node", "8"]
    assert container["command"][-len(TRAINER) :] == TRAINER
    assert "teacher-en-de-train-0-0.teacher-en-de:29500" in container["command"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8", "cpu": "64", "memory": "512Gi"}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"shared-memory": "/dev/shm", "volume-1": "/data"}
    assert {volume["name"] for volume in pod["volumes"]} == mounted.keys()


def test_secrets_are_named_and_values_stay_texts(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"COUNT": "1", "ON": "true", "NOTHING": "null", "DATE": "2026-01-01", "EXPONENT": "1e3"}
    flags = [flag for name, value in values.items() for flag in ("--env", f"{name}={value}")]
    text = render(capsys, *KUBERNETES, *flags, "--secret", "WANDB_API_KEY=wandb:api-key")
    job = yaml.safe_load(text)["spec"]["replicatedJobs"][0]["template"]["spec"]
    variables = {variable["name"]: variable for variable in job["template"]["spec"]["containers"][0]["env"]}
    assert {name: variables[name]["value"] for name in values} == values
    assert variables["WANDB_API_KEY"] == {
        "name": "WANDB_API_KEY",
        "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "api-key"}},
    }


def test_a_manifest_is_checked_and_unknown_keys_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    definition = tmp_path / "crd.yaml"
    definition.write_text(DEFINITION)
    manifest = yaml.safe_load(render(capsys, *KUBERNETES, "--check", str(definition)))
    manifest["spec"]["failurePolicy"] = {"maxRestart": 3}
    with pytest.raises(UserError, match=r"spec\.failurePolicy: Additional properties .*maxRestart"):
        check_against(manifest, definition)
    manifest["spec"]["failurePolicy"] = {"maxRestarts": "three"}
    with pytest.raises(UserError, match=r"spec\.failurePolicy\.maxRestarts: 'three' is not of type 'integer'"):
        check_against(manifest, definition)
    definition.write_text("a: [1")
    with pytest.raises(UserError, match="is not a CustomResourceDefinition"):
        check_against(manifest, definition)


@pytest.mark.skipif("LIMBECK_JOBSET_CRD" not in os.environ, reason="LIMBECK_JOBSET_CRD does not name JobSet's CRD")
def test_the_manifest_fits_the_definition_of_jobset(capsys: pytest.CaptureFixture[str]) -> None:
    everything = ["--cpus", "8", "--memory", "8Gi", "--volume", "a:/a", "--secret", "A=b:c", "--env", "B=1"]
    assert render(capsys, *KUBERNETES, *everything, "--check", os.environ["LIMBECK_JOBSET_CRD"])


def test_a_slurm_script_gives_the_trainer_its_arguments_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = render(capsys, "slurm", "--nodes", "2", "--gpus", "8", "--time", "1-00:00:00", "--env", "NOTE=it's $HOME")
    assert "#SBATCH --nodes=2\n" in text and "#SBATCH --time=1-00:00:00\n" in text and "--mem" not in text
    # srun is replaced by a program that writes its arguments down, scontrol by one that knows two machines.
    for name, body in {"srun": 'printf "%s\\n" "$NOTE" "$@"', "scontrol": "printf 'first\\nsecond\\n'"}.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "x[1-2]"}
    done = subprocess.run(["bash"], input=text, env=environment, capture_output=True, text=True, check=True)
    note, *words = done.stdout.splitlines()
    assert note == "it's $HOME"
    assert words[-len(TRAINER) :] == TRAINER
    assert words[words.index("--rdzv-endpoint") + 1] == "first:29500"


def test_the_profile_of_the_engine_serves_here_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "cluster.yml"
    profile.write_text(
        "defaults: {partition: gpu}\n"
        "workers: {b-largegpu: {nodes: 2, gpus: 4, cpus: 32, memory: 64GB, time: '12:00:00'}}"
    )
    script = render(capsys, "slurm", "--slurm-profile", str(profile), "--gpus", "8")
    asked = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    wanted = {"nodes=2", "gpus-per-node=8", "cpus-per-task=32", "mem=61035M", "time=12:00:00", "partition=gpu"}
    assert wanted <= asked
    text = render(capsys, *KUBERNETES[:3], "--image", "limbeck:1", "--slurm-profile", str(profile))
    job = yaml.safe_load(text)["spec"]["replicatedJobs"][0]["template"]["spec"]
    limits = job["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (job["parallelism"], limits) == (2, {"nvidia.com/gpu": "4", "cpu": "32", "memory": "64000000000"})


def test_a_slurm_job_that_must_stop_tells_its_processes_and_not_srun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = render(capsys, "slurm")
    said = tmp_path / "said"
    programs = {
        "srun": f"trap 'echo told >> {said}' TERM; while [ ! -e {tmp_path}/told ]; do sleep 0.05; done; exit 75",
        "scancel": f"echo scancel $* >> {said}; touch {tmp_path}/told",
        "scontrol": f"echo scontrol $* >> {said}; echo first",
    }
    for name, body in programs.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    (tmp_path / "script").write_text(text)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "x", "SLURM_JOB_ID": "7"}
    with subprocess.Popen(["bash", str(tmp_path / "script")], env={**os.environ, **environment}) as job:
        while not said.exists():
            time.sleep(0.02)
        time.sleep(0.3)
        job.terminate()
        assert job.wait(20) == 0
    assert said.read_text().splitlines()[1:] == ["scancel --signal=TERM 7", "scontrol requeue 7"]


@given(st.lists(st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_any_argument_survives_both_forms(words: list[str]) -> None:
    from utils.manifest import _parse, slurm_script

    trainer = ["--preset", *words]
    script = slurm_script(_parse(["slurm", "--", *trainer]))
    (line,) = [line for line in script.split("\n") if line.startswith("srun ")]
    assert shlex.split(line.removesuffix(" &"))[-len(trainer) :] == trainer
    manifest = yaml.safe_load(yaml.safe_dump(jobset_manifest(_parse([*KUBERNETES, "--", *trainer]))))
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"][-len(trainer) :] == trainer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slurm"], "the trainer's arguments are missing"),
        (["kubernetes", "--", "--preset"], "--image is missing"),
        (["slurm", "--name", "Teacher", "--", "x"], "--name 'Teacher': up to 40 lower-case letters"),
        (["slurm", "--nodes", "0", "--", "x"], "--nodes must be at least 1"),
        (["slurm", "--secret", "A=b:c", "--", "x"], "are for kubernetes"),
        ([*KUBERNETES, "--secret", "A=b", "--", "x"], "does not have the form --secret NAME=SECRET:KEY"),
        ([*KUBERNETES, "--env", "1A=b", "--", "x"], "'1A' is not the name of a variable"),
    ],
)
def test_what_cannot_be_a_job_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
