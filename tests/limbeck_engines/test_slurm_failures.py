"""What the Slurm engine makes of machines that die, of limits, and of whole pipelines. Slow: Slurm is patient."""

import sys
import time
from pathlib import Path

import pytest
import slurm_cluster
import yaml
from engine_graphs import make_task
from slurm_cluster import NODES, SlurmCluster
from slurm_site import PROFILE, TRAINING, Site
from toy_language import write_toy_corpora
from toy_run import limbeck, toy_config

from limbeck_engines.task import COMPLETED, FAILED, PENDING, RUNNING, Resources

pytestmark = [
    pytest.mark.skipif(slurm_cluster.missing() is not None, reason=slurm_cluster.missing() or ""),
    pytest.mark.slow,
]


def test_a_task_of_a_node_that_died_runs_on_another(slurm: SlurmCluster, site: Site) -> None:
    site.engine.submit(site.group, "name", [make_task("train", TRAINING.replace("{updates}", "60"))], "")
    site.wait_for_log("train", "starts at 0")
    job = site.row("train").job or ""
    node = site.squeue(job, "%N")
    slurm.kill(node)
    try:
        site.wait_for(lambda: site.squeue(job) == "PENDING", "the node's failure to be seen", 90)
        assert site.row("train").state == PENDING
        site.start_now("train")
        assert site.engine.run(site.group).succeeded
        assert (site.row("train").run, site.row("train").job) == (1, job)
    finally:
        slurm.start_node(node)
        site.wait_for(lambda: "down" not in slurm.run("sinfo", "-h").stdout, "the node to be back", 90)


def test_resume_after_everything_was_killed(slurm: SlurmCluster, site: Site) -> None:
    done = make_task("done", "touch artifacts/x")
    train = make_task("train", TRAINING.replace("{updates}", "25"), (done,))
    chunks = [make_task(f"chunk-{n}", "touch artifacts/x; sleep 3", (done,)) for n in range(2)]
    tasks = [done, train, *chunks, make_task("end", after=(train, *chunks))]
    site.engine.submit(site.group, "name", tasks, "")
    site.wait_for_log("train", "starts at 0")
    site.wait_for(lambda: site.states()["done"] == COMPLETED, "the first task")
    finished = site.row("done").finished
    for name in ("slurmctld", *NODES):
        slurm.kill(name)
    for path in (slurm.folder / "state").glob("job_state*"):
        path.unlink()
    assert site.row("train").state == RUNNING  # nobody answers: what was known last
    slurm.start_controller()
    for name in NODES:
        slurm.start_node(name)
    site.wait_for(lambda: site.row("train").job is None, "the loss")
    assert site.engine.status(site.group).group.state == "interrupted"
    site.wait_for(lambda: "idle" in slurm.run("sinfo", "-h", "-o%T").stdout, "the nodes", 90)
    site.engine.restart(site.group)
    assert site.engine.run(site.group).succeeded
    assert set(site.states().values()) == {COMPLETED}
    assert site.row("done").finished == finished and site.row("train").run == 1


def test_the_partitions_limit_is_overcome_by_going_on(slurm: SlurmCluster, site: Site) -> None:
    """A job may run for a minute here, and is told to stop 40 seconds before; the training takes longer."""
    site = Site(site.folder, slurm, "signal-seconds: 40\ndefaults: {memory: 100MB, partition: short}\n")
    train = make_task("train", TRAINING.replace("{updates}", "500"), maxRunTime=3600)
    stubborn = make_task("stubborn", "trap 'exit 1' TERM; while true; do sleep 0.1; done", maxRunTime=3600)
    site.engine.submit(site.group, "name", [train, stubborn], "")
    assert site.squeue(site.row("train").job or "", "%l") == "1:00"
    site.wait_for_log("train", "saved")
    site.start_now("train")
    for run in range(1, 4):
        site.wait_for(
            lambda run=run: (site.row("train").run or 0) >= run and site.row("train").state != PENDING, "the next run"
        )
        site.wait_for(lambda: site.row("train").state in (PENDING, COMPLETED), "its end", 70)
        if site.row("train").state == COMPLETED:
            break
        site.start_now("train")
    assert site.states() == {"train": COMPLETED, "stubborn": FAILED}
    assert "has no checkpoint to go on from" in (site.row("stubborn").reason or "")
    assert (site.row("train").run or 0) >= 1


def test_max_run_time_holds_over_all_runs(site: Site) -> None:
    train = make_task("train", TRAINING.replace("{updates}", "1000"), maxRunTime=5)
    site.engine.submit(site.group, "name", [train], "")
    site.wait_for_log("train", "starts at 0")
    time.sleep(2)
    site.cluster.run("scancel", "--batch", "--signal=USR1", site.row("train").job or "")
    site.start_now("train")
    site.engine.run(site.group)
    row = site.row("train")
    assert (row.state, row.run, row.reason) == (FAILED, 1, "took longer than its maxRunTime of 5.0 s")


def test_training_on_two_nodes_meets_and_goes_on(slurm: SlurmCluster, site: Site, tmp_path: Path) -> None:
    module = tmp_path / "site" / "pipeline" / "train" / "train.py"
    module.parent.mkdir(parents=True)
    for folder in (module.parent, module.parent.parent):
        (folder / "__init__.py").touch()
    module.write_text(
        "import os, signal, sys, time\n"
        "import torch.distributed as dist\n"
        "def stop(*_):\n"
        "    if os.environ['RANK'] == '0': open(os.environ['LIMBECK_CHECKPOINTS'] + '/saved', 'w').close()\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "dist.init_process_group('gloo')\n"
        "gathered = [None] * dist.get_world_size()\n"
        "dist.all_gather_object(gathered, os.environ['SLURMD_NODENAME'])\n"
        "print('met', gathered, flush=True)\n"
        "if not os.path.exists(os.environ['LIMBECK_CHECKPOINTS'] + '/saved'): time.sleep(60)\n"
        "if dist.get_rank() == 0: open(os.environ['TASK_WORKDIR'] + '/artifacts/model', 'w').close()\n"
    )
    place = f"export PYTHONPATH={tmp_path / 'site'}"
    script = f"{place}; cd {tmp_path / 'site'}; exec {sys.executable} -m pipeline.train.train"
    task = make_task("train", script, resources=Resources(gpus=1))
    task.definition["workerType"] = "b-largegpu"
    site = Site(site.folder, slurm, PROFILE + "workers: {b-largegpu: {nodes: 2}}\n")
    site.engine.submit(site.group, "name", [task], "")
    site.wait_for_log("train", "met", 0)
    log = site.log("train")
    assert "'n1'" in log and "'n2'" in log, log
    slurm.run("scancel", "--batch", "--signal=USR1", site.row("train").job or "")
    site.start_now("train")
    assert site.engine.run(site.group).succeeded, site.log("train")
    assert site.row("train").run == 1


def test_the_whole_pipeline(slurm: SlurmCluster, tmp_path: Path) -> None:
    corpora = tmp_path / "corpora"
    write_toy_corpora(corpora)
    config, runs = tmp_path / "toy.yml", tmp_path / "runs"
    config.write_text(yaml.safe_dump(toy_config(corpora, 200, mono=True)))
    profile = tmp_path / "profile.yml"
    profile.write_text("defaults: {memory: 1GB, gpus: 0, cpus: 1}\n")
    options = ["--engine", "slurm", "--slurm-profile", profile, "--runs", runs, "--yes"]
    handed = limbeck("train", config, *options, **slurm.environment)
    assert "is handed over to slurm and goes on by itself" in handed.stdout
    waited = limbeck("resume", "--wait", "--runs", runs, **slurm.environment)
    assert "report" in waited.stdout and "model" in waited.stdout
    # All of it is found again, by this engine and by the local one.
    for engine in (options, ["--runs", runs, "--yes"]):
        again = limbeck("train", config, *engine, **slurm.environment)
        assert " tasks reused, 0 to download, 0 to run" in again.stdout, again.stdout
