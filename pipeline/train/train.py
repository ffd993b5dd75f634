"""Train a teacher, a backward model or a student, and keep the model that is best on the devset.

Reads one or more parallel corpora (with word alignments for guided alignment), two SentencePiece vocabularies and a
devset; writes a model directory. Checkpoints live in --checkpoint-dir: when it already holds one, training continues
from it exactly where it stood.

Uses every GPU it may use; on several machines start it with torchrun.
"""

import contextlib
import dataclasses
import logging
import math
import signal
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from pipeline.common.command import run_command
from pipeline.common.errors import TransientError, UserError
from pipeline.common.files import sha256
from pipeline.common.progress import format_duration
from pipeline.model.config import ModelConfig
from pipeline.model.quantization import QuantizedTransformer, save_model
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import Vocab
from pipeline.train.checkpoint import (
    Trained,
    TrainingState,
    check_identity,
    clean_up,
    load_checkpoint,
    newest_checkpoint,
    random_state,
    save_checkpoint,
)
from pipeline.train.compute import choose_compute, choose_device
from pipeline.train.continuation import best_so_far, go_on_from
from pipeline.train.curriculum import describe_stage
from pipeline.train.data import Update
from pipeline.train.distiller import make_distiller, taught_by
from pipeline.train.distributed import Processes, join_processes, leave_processes
from pipeline.train.initialise import begin_model
from pipeline.train.interruption import Interrupted, Interruption
from pipeline.train.job import Job, parse_job
from pipeline.train.launch import launch_processes, processes_wanted
from pipeline.train.objective import Objective
from pipeline.train.optimizer import make_optimizer, smooth, smoothed_copy
from pipeline.train.options import model_config
from pipeline.train.output import write_output
from pipeline.train.profiling import Profiler
from pipeline.train.quantized import begin_quantized, describe_quantization
from pipeline.train.reading import open_data
from pipeline.train.report import TrainingLog, UpdateReport
from pipeline.train.schedule import learning_rate
from pipeline.train.tracking import asked_publisher
from pipeline.train.utilisation import peak_operations
from pipeline.train.validate import Validator, improved

logger = logging.getLogger(__name__)

# Options that decide which sentences an update sees: a checkpoint's data position means nothing under other values.
_DATA_OPTIONS = (
    "seed",
    "mini-batch-words",
    "mini-batch",
    "maxi-batch",
    "optimizer-delay",
    "max-length",
    "max-length-crop",
    "sentencepiece-alphas",
    "guided-alignment",
)
_SMALLEST_SCALE = 2.0**-10  # of float16 losses: below it gradients are not too large, they are not numbers


class Trainer:
    """One training, from its beginning or from its newest checkpoint to its end.

    Raises UserError before anything is trained when inputs are empty, do not belong together, or a checkpoint is of
    another training.
    """

    def __init__(self, job: Job, interruption: Interruption, processes: Processes) -> None:
        self.job, self.options, self.interruption, self.processes = job, job.options, interruption, processes
        self.compute = choose_compute(job.device, job.options.precision)
        # Alone it can stop anywhere; several processes must stop at the same place, which is between two updates.
        interruption_point = interruption.check if processes.count == 1 else lambda: None

        vocabs = Vocab.load(job.vocabs[0]), Vocab.load(job.vocabs[1])
        digests = sha256(job.vocabs[0]), sha256(job.vocabs[1])
        config = model_config(job.options, (len(vocabs[0]), len(vocabs[1])), shared_vocab=digests[0] == digests[1])
        distiller = make_distiller(job, config, self.compute)
        self.metrics = (job.best_metric, *(name for name in self.options.valid_metrics if name != job.best_metric))
        self.validator = Validator(
            job.devset, vocabs, job.languages[1], self.options, self.metrics, processes, interruption_point
        )
        if self.validator.left_out:
            logger.warning(
                f"training: {self.validator.left_out:,} pairs of the devset are left out of validation, because they "
                f"are longer than valid-max-length {self.options.valid_max_length} pieces"
            )

        self.data = open_data(job, self._own_folder(), processes, self.compute, interruption_point)
        self.checkpoint = self._newest_checkpoint()

        # Every process has the same parameters, but drops other units out.
        torch.manual_seed(self.options.seed + (processes.rank << 32))
        self.model = begin_model(job, config)
        if job.quantization is not None:
            earlier = self.checkpoint or job.continued
            self.model = begin_quantized(self.model, job.quantization, self.validator, earlier, processes)
        self.model = self.model.to(self.compute.device).train()
        self.smoothed = smoothed_copy(self.model, self.options)
        self.objective = Objective(self.model, self.options, self.compute, distiller)
        self.parameters = self.objective.parameters()
        self.optimizer = make_optimizer(self.parameters, self.options)
        self.scaler = self.compute.scaler()
        self.trained = Trained(self.model, self.smoothed, self.optimizer, self.scaler, distiller)
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        logger.info(
            f"training: {parameters / 1e6:.1f} million parameters on "
            f"{', '.join(f'{corpus.rows:,} pairs {corpus.name}' for corpus in self.data.corpora)}, reading "
            f"{', then '.join(describe_stage(stage) for stage in self.data.stages)}"
        )

        given = self.options.to_yaml()
        self.identity: dict[str, Any] = {
            **{name: value for name, value in yaml.safe_load(config.to_yaml()).items() if name != "version"},
            **{name: given[name] for name in _DATA_OPTIONS},
            "src-vocab": digests[0],
            "trg-vocab": digests[1],
            **taught_by(job),
            **describe_quantization(self.model),
            "exponential-smoothing": self.smoothed is not None,
            "curriculum": [describe_stage(stage) for stage in self.data.stages],
            "augmentation": self.data.augmentation,
            **{f"rows of {corpus.name}": corpus.rows for corpus in self.data.corpora},
        }
        self.state = self._begun()
        self.saved = dataclasses.replace(self.state.progress)
        self.saved_at, self.save_seconds = time.monotonic(), 0.0
        self.log = self._make_log(config) if processes.first else None
        self.profiler = Profiler(job.output if job.profile and processes.first else None)

    def train(self) -> None:
        """Train until a limit or early stopping, then write the model directory."""
        options, state, progress = self.options, self.state, self.state.progress
        started = time.monotonic() - state.seconds
        updates = self.data.updates(state.position)
        save_due = False
        try:
            if self.job.continued and self.checkpoint is None:
                self._judge_best_so_far(self.job.continued, started)
            elif self.job.quantization and self.checkpoint is None:
                # Fine-tuning must not end with a model that is worse than the one it began with.
                self._validate(started)
            while True:
                if progress.periods(options.valid_freq) > state.validations_due:
                    self._validate(started)
                elif save_due:
                    self._save()
                if 0 < options.early_stopping <= state.stalled:
                    logger.info(f"training: early stopping, {self.job.best_metric} stalled {state.stalled} times")
                    break
                if any(progress.reached(limit) for limit in options.limits()):
                    break

                begun = time.monotonic()
                update = next(updates)
                waited = time.monotonic() - begun
                rate = learning_rate(options.learn_rate, options.lr_warmup, options.lr_decay_inv_sqrt, progress)
                costs, gradient_norm = self._step(update, rate)
                progress.updates += 1
                progress.tokens += update.sizes.target_tokens
                progress.epochs, state.position = update.epochs, update.position
                if self.smoothed is not None:
                    smooth(self.smoothed, self.model, options.exponential_smoothing, progress.updates)
                state.seconds = time.monotonic() - started
                if self.log is not None:
                    seconds = time.monotonic() - begun
                    report = UpdateReport(update.sizes, costs, gradient_norm, seconds, waited)
                    self.log.update(progress, rate, report)
                self.profiler.step()

                stop, save_due = self._agree(self.interruption.asked, self._save_due())
                if stop:
                    self.interruption.stop()

            if state.validated != progress.updates:
                self._validate(started)
        except Interrupted:
            if progress.updates > self.saved.updates:
                self._save()
            raise
        finally:
            updates.close()
            self.profiler.close()
            if self.log is not None:
                self.log.close()
        if self.processes.first:
            self._write_output()
        self.data.remove_copies()

    def _agree(self, stop: bool, save_due: bool) -> tuple[bool, bool]:
        """Whether any process was told to stop, and whether the first one, whose clock counts, wants to save."""
        if self.processes.count == 1:
            return stop, save_due
        stops, saves = self.processes.sum([float(stop), float(save_due and self.processes.first)])
        return stops > 0, saves > 0

    def _step(self, update: Update, rate: float) -> tuple[Mapping[str, float], float]:
        """One update of the parameters; returns the costs, summed over target tokens, and the gradient's norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        costs = self._gradients(update)
        self.scaler.unscale_(self.optimizer)
        total_norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.options.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.options.clip_norm, total_norm)
        norm = float(total_norm)
        if not math.isfinite(sum(costs.values()) + norm):
            self._check_scale(costs, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return costs, norm

    def _gradients(self, update: Update) -> Mapping[str, float]:
        scale = self.scaler.scale(torch.ones((), device=self.compute.device))
        costs = self.objective.backward(update.batches, update.sizes.target_tokens, scale)
        self.processes.sum_gradients(self.parameters)
        return dict(zip(costs, self.processes.sum(list(costs.values())), strict=True))

    def _check_scale(self, costs: Mapping[str, float], norm: float) -> None:
        """Raise UserError for an update that is not finite, unless a smaller scale of float16 losses may mend it."""
        if self.scaler.is_enabled() and self.scaler.get_scale() > _SMALLEST_SCALE:
            return
        what = ", ".join(f"{name} {value}" for name, value in [*costs.items(), ("gradient norm", norm)])
        raise UserError(
            f"the training cost is not finite at update {self.state.progress.updates + 1:,} ({what}): lower "
            "learn-rate, lengthen lr-warmup or set clip-norm; the last checkpoint is kept"
        )

    def _validate(self, started: float, judged: Transformer | None = None) -> None:
        """Judge the (smoothed) model, keep it if it is the best, record the validation, save a checkpoint."""
        state, progress = self.state, self.state.progress
        judged = judged or (self.smoothed if self.smoothed is not None else self.model)
        values = self.validator.validate(judged, self.compute)
        value = values[self.job.best_metric]
        best = improved(self.job.best_metric, value, state.best)
        if best:
            state.best, state.best_update, state.stalled = value, progress.updates, 0
            if self.processes.first:
                save_model(judged, self._best_model())
        else:
            state.stalled += 1
        state.validated, state.validations_due = progress.updates, progress.periods(self.options.valid_freq)
        state.seconds = time.monotonic() - started
        if self.log is not None:
            self._record(self.log, values, best)
        self._save()

    def _record(self, log: TrainingLog, values: Mapping[str, float], best: bool) -> None:
        state, progress = self.state, self.state.progress
        record = {
            "update": progress.updates,
            "epoch": round(progress.epochs, 4),
            "seconds": round(state.seconds, 1),
            "lr": learning_rate(
                self.options.learn_rate, self.options.lr_warmup, self.options.lr_decay_inv_sqrt, progress
            ),
            **log.since_validation.figures(),
            **values,
            "best": best,
            "stalled": state.stalled,
        }
        log.validation(record, self.metrics)

    def _begun(self) -> TrainingState:
        """Where training stands: at this folder's checkpoint, at another training's, or at its beginning."""
        if self.checkpoint is not None:
            return self._continued(self.checkpoint)
        if self.job.continued is None:
            return TrainingState()
        data_keys = frozenset([*_DATA_OPTIONS, "curriculum", "augmentation"])
        return go_on_from(self.job.continued, self.trained, self.identity, data_keys, self.processes.rank)

    def _judge_best_so_far(self, folder: Path, started: float) -> None:
        """Keep the best model of the training that is continued until there is a better one."""
        model = best_so_far(folder, self.smoothed if self.smoothed is not None else self.model)
        if isinstance(self.model, QuantizedTransformer):
            model = QuantizedTransformer.of(model, self.model.quantization)
        self._validate(started, model)
        if any(self.state.progress.reached(limit) for limit in self.options.limits()):
            logger.warning("training: the earlier training has reached the limit already: raise `after` to train on")

    def _continued(self, checkpoint: Path) -> TrainingState:
        check_identity(checkpoint, self.identity)
        state = load_checkpoint(checkpoint, self.trained, self.processes.rank)
        logger.info(f"training: continuing from update {state.progress.updates:,} ({checkpoint})")
        if state.best is not None and not self._best_model(state).exists():
            raise UserError(
                f"{self._best_model(state)} is missing, the best model so far: restore it or empty {checkpoint.parent}"
            )
        return state

    def _newest_checkpoint(self) -> Path | None:
        found = None
        if self.processes.first:
            clean_up(self.job.checkpoints)
            found = newest_checkpoint(self.job.checkpoints)
        checkpoint: Path | None = self.processes.from_first(found)
        return checkpoint

    def _save_due(self) -> bool:
        every, progress = self.options.save_freq, self.state.progress
        # Saving a large model takes a while: at most a twentieth of the time goes into it.
        interval = max(60 * self.options.save_minutes, 20 * self.save_seconds)
        return progress.periods(every) > self.saved.periods(every) or (
            progress.updates > self.saved.updates and time.monotonic() - self.saved_at >= interval
        )

    def _save(self) -> None:
        begun = time.monotonic()
        random_states = self.processes.gather(random_state())
        if self.processes.first:
            self.checkpoint = save_checkpoint(
                self.job.checkpoints, self.trained, self.state, random_states, self.identity
            )
            # Two are kept, as the older one of the two checkpoints may refer to the older one.
            for old in sorted(self.job.checkpoints.glob(f"best-{self.job.best_metric}-*.npz"))[:-2]:
                old.unlink()
        self.saved = dataclasses.replace(self.state.progress)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - begun

    def _own_folder(self) -> Path:
        """Where this process keeps its shuffled corpora."""
        folder = self.job.checkpoints
        return folder if self.processes.first else folder / f"process-{self.processes.rank}"

    def _make_log(self, config: ModelConfig) -> TrainingLog:
        job = self.job
        publisher = asked_publisher(job.checkpoints, {**job.options.to_yaml(), **self.identity})
        peak = peak_operations(self.compute) * self.processes.count
        logger.info(f"training: the device computes {peak / 1e12:.2f} TFLOP/s at most, measured; MFU is the share used")
        return TrainingLog(
            job.checkpoints, job.output, self.state.progress.updates, job.options, config, peak, publisher
        )

    def _best_model(self, state: TrainingState | None = None) -> Path:
        state = state or self.state
        return self.job.checkpoints / f"best-{self.job.best_metric}-{state.best_update:08d}.npz"

    def _write_output(self) -> None:
        job, state, checkpoint = self.job, self.state, self.checkpoint
        if checkpoint is None or not checkpoint.is_dir():
            raise UserError(f"{job.checkpoints} lost its checkpoints during training: keep other tasks out of it")
        write_output(
            job.output,
            self._best_model(),
            job.best_metric,
            checkpoint,
            job.checkpoints,
            job.vocabs,
            job.languages,
            self.options,
        )
        logger.info(
            f"training: {state.progress.updates:,} updates, {state.progress.epochs:.1f} epochs in "
            f"{format_duration(state.seconds)}; best {job.best_metric} {state.best:.4g} at update {state.best_update:,}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    job = parse_job(arguments, __doc__ or "")
    device = choose_device(job.device)
    if processes_wanted(device) > 1:
        launch_processes(processes_wanted(device), arguments)
        return
    with Interruption() as interruption, _processes(device) as processes:
        try:
            Trainer(job, interruption, processes).train()
        except Interrupted as interrupted:
            if interrupted.signal == signal.SIGINT:
                raise KeyboardInterrupt from interrupted
            raise TransientError(f"stopped by {interrupted}: run again with the same folders to continue") from None


@contextlib.contextmanager
def _processes(device: str) -> Generator[Processes, None, None]:
    processes = join_processes(device)
    if not processes.first:
        logging.getLogger("pipeline").setLevel(logging.ERROR)  # the first process speaks for all
    try:
        yield processes
    finally:
        leave_processes()


if __name__ == "__main__":
    run_command(main)
