"""How long it takes to render a graph and to decide what to reuse, against `snakemake -n` on as many jobs.

python benchmarks/graph.py        (the peer runs too when snakemake is installed: pip install snakemake)
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parent.parent


def seconds(command: list[str], folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def limbeck_config(chunks: int) -> str:
    return yaml.safe_dump(
        {
            "experiment": {"name": "bench", "src": "en", "trg": "de"},
            "datasets": {"train": ["file_a.[LANG]"], "devtest": ["file_b.[LANG]"], "test": ["file_c.[LANG]"]},
            "taskcluster": {"split-chunks": chunks},
        }
    )


def snakefile(jobs: int) -> str:
    return f"""
rule all:
    input: expand("out/{{i}}", i=range({jobs}))
rule step:
    output: "out/{{i}}"
    shell: "touch {{output}}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    for chunks in (2, 500, 2000):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "config.yml").write_text(limbeck_config(chunks))
            command = [
                sys.executable,
                "-m",
                "utils.cli",
                "train",
                str(folder / "config.yml"),
                "--dry-run",
                "--runs",
                name,
            ]
            ours = seconds(command, PROJECT)
            jobs = 2 * chunks + 20
            line = f"plan of {jobs:>5} tasks: limbeck {ours:.2f} s"
            if shutil.which("snakemake"):
                (folder / "Snakefile").write_text(snakefile(jobs))
                peer = seconds(["snakemake", "-n", "--quiet", "all"], folder)
                line += f", snakemake -n {peer:.2f} s, ratio {peer / ours:.2f}"
            print(line)


if __name__ == "__main__":
    main()
