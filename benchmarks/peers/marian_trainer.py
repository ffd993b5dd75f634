"""Marian's trainer on a processor (`pymarian train`), in float32: it has no other precision there."""

import re
import subprocess
import time
from pathlib import Path

from peers.tasks import Measurement, SpeedTask, running_cpu_seconds

_DISPLAY = re.compile(r"Up\. (\d+) .* after ([\d,]+) : Time")


def options(task: SpeedTask) -> list[str]:
    """Marian's options for the task; the workspace is more than it takes, so that it does not grow while measured."""
    architecture = task.architecture
    return [
        *("--type", "transformer", "--tied-embeddings-all", "--transformer-ffn-activation", "relu"),
        *("--enc-depth", str(architecture.enc_depth), "--dec-depth", str(architecture.dec_depth)),
        *("--dim-emb", str(architecture.width), "--transformer-dim-ffn", str(architecture.ffn)),
        *("--transformer-heads", str(architecture.heads), "--transformer-dropout", str(task.dropout)),
        *("--label-smoothing", str(task.label_smoothing), "--clip-norm", str(task.clip_norm)),
        *("--cost-type", "ce-sum", "--learn-rate", str(task.learn_rate)),
        *("--optimizer-params", "0.9", "0.98", "1e-09", "--max-length", "100"),
        *("--train-sets", *task.train, "--vocabs", task.vocab, task.vocab),
        *("--mini-batch", "1000", "--mini-batch-words", str(task.words), "--maxi-batch", "200"),
        *("--mini-batch-round-up", "false", "--cpu-threads", str(task.threads), "--workspace", "4000", "--seed", "1"),
    ]


def measure(task: SpeedTask, pymarian: Path, environment: dict[str, str]) -> Measurement:
    """Train, reading the CPU time that the process has used at each line that Marian logs."""
    command = [
        *(str(pymarian), "train", "--model", str(Path(task.folder) / "model.npz"), *options(task)),
        *("--disp-freq", "1", "--after", f"{task.warm_up + task.updates}u", "--overwrite"),
    ]
    marks: dict[int, tuple[int, float, float]] = {}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        log = []
        for line in process.stderr:
            log.append(line)
            shown = _DISPLAY.search(line)
            if shown:
                tokens = int(shown[2].replace(",", ""))
                marks[int(shown[1])] = (tokens, running_cpu_seconds(process.pid), time.monotonic())
    try:
        (before, cpu, wall), (after, cpu_end, wall_end) = marks[task.warm_up], marks[task.warm_up + task.updates]
    except KeyError:
        raise ValueError(f"Marian ended early:\n{''.join(log[-20:])}") from None
    return Measurement(after - before, cpu_end - cpu, wall_end - wall)
