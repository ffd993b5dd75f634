"""What Slurm has finished is known to commands that look into the record only."""

import pytest
import slurm_cluster
from engine_graphs import make_task
from slurm_site import Site

from utils.common import open_store

pytestmark = pytest.mark.skipif(slurm_cluster.missing() is not None, reason=slurm_cluster.missing() or "")


def test_what_slurm_has_finished_is_in_the_record_when_a_command_opens_it(site: Site) -> None:
    task = make_task("corpus", "echo one > artifacts/text")
    site.engine.submit(site.group, "graph", [task], "")
    site.wait_for(lambda: (site.folder / "runs/task/corpus/runs/0/artifacts").exists(), "the artifacts")
    assert site.engine.store.lookup(task.digest) is None
    store = open_store(site.folder / "runs")
    assert store is not None
    assert store.lookup(task.digest) == "corpus"
