"""Train a teacher, a backward model or a student, and keep the model that is best on the devset.

Reads one or more parallel corpora (with word alignments for guided alignment), two SentencePiece vocabularies and a
devset; writes a model directory. Checkpoints live in --checkpoint-dir: when it already holds one, training continues
from it exactly where it stood.
"""

import dataclasses
import logging
import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import yaml

from pipeline.common.command import run_command
from pipeline.common.errors import TransientError, UserError
from pipeline.common.progress import format_duration
from pipeline.model.formats import npz
from pipeline.model.transformer import Transformer
from pipeline.model.vocab import Vocab
from pipeline.train.checkpoint import (
    TrainingState,
    check_identity,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from pipeline.train.compute import Compute, choose_compute
from pipeline.train.curriculum import curriculum
from pipeline.train.data import TrainingData, Update, describe_stage
from pipeline.train.encoding import Encoder
from pipeline.train.gradients import accumulate_gradients
from pipeline.train.interruption import Interrupted, Interruption
from pipeline.train.job import Job, parse_job
from pipeline.train.optimizer import make_optimizer, smooth, smoothed_copy
from pipeline.train.options import model_config
from pipeline.train.output import file_digest, write_output
from pipeline.train.report import TrainingLog
from pipeline.train.schedule import learning_rate
from pipeline.train.shuffle import ShuffledCorpus
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


class Trainer:
    """One training, from its beginning or from its newest checkpoint to its end.

    Raises UserError before anything is trained when inputs are empty, do not belong together, or a checkpoint is of
    another training.
    """

    def __init__(self, job: Job, interruption: Interruption) -> None:
        self.job, self.options, self.interruption = job, job.options, interruption
        self.compute: Compute = choose_compute(job.device, job.options.precision)

        vocabs = Vocab.load(job.vocabs[0]), Vocab.load(job.vocabs[1])
        digests = file_digest(job.vocabs[0]), file_digest(job.vocabs[1])
        config = model_config(job.options, (len(vocabs[0]), len(vocabs[1])), shared_vocab=digests[0] == digests[1])
        self.metrics = (job.best_metric, *(name for name in self.options.valid_metrics if name != job.best_metric))
        self.validator = Validator(job.devset, vocabs, job.languages[1], self.options, self.metrics, interruption.check)
        if self.validator.left_out:
            logger.warning(
                f"training: {self.validator.left_out:,} pairs of the devset are left out of validation, because they "
                f"are longer than valid-max-length {self.options.valid_max_length} pieces"
            )

        stages = curriculum(list(job.corpora), job.teacher_mode)
        self.corpora = [
            ShuffledCorpus(name, paths, job.checkpoints, (self.options.seed, number), interruption.check)
            for number, (name, paths) in enumerate(job.corpora.items())
        ]
        encoder = Encoder(
            (_processor(job.vocabs[0]), _processor(job.vocabs[1])),
            self.options.sentencepiece_alphas,
            self.options.max_length,
            self.options.max_length_crop,
        )
        self.data = TrainingData(self.corpora, stages, encoder, self.options)

        torch.manual_seed(self.options.seed)
        self.model = Transformer(config)
        self.model.init_parameters(self.options.seed)
        self.model.to(self.compute.device).train()
        self.smoothed = smoothed_copy(self.model, self.options)
        self.optimizer = make_optimizer(self.model, self.options)
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        logger.info(
            f"training: {parameters / 1e6:.1f} million parameters on "
            f"{', '.join(f'{corpus.rows:,} pairs {corpus.name}' for corpus in self.corpora)}, reading "
            f"{', then '.join(describe_stage(stage) for stage in stages)}"
        )

        given = self.options.to_yaml()
        self.identity: dict[str, Any] = {
            **{name: value for name, value in yaml.safe_load(config.to_yaml()).items() if name != "version"},
            **{name: given[name] for name in _DATA_OPTIONS},
            "src-vocab": digests[0],
            "trg-vocab": digests[1],
            "exponential-smoothing": self.smoothed is not None,
            "curriculum": [describe_stage(stage) for stage in stages],
            **{f"rows of {corpus.name}": corpus.rows for corpus in self.corpora},
        }
        self.state = self._continued() or TrainingState()
        self.saved = dataclasses.replace(self.state.progress)
        self.saved_at, self.save_seconds = time.monotonic(), 0.0
        self.log = TrainingLog(
            job.checkpoints, job.output, self.state.progress.updates, self.options.limits(), self.options.lr_report
        )

    def train(self) -> None:
        """Train until a limit or early stopping, then write the model directory."""
        options, state, progress = self.options, self.state, self.state.progress
        started = time.monotonic() - state.seconds
        updates = self.data.updates(state.position)
        try:
            while True:
                if progress.periods(options.valid_freq) > state.validations_due:
                    self._validate(started)
                elif self._checkpoint_due():
                    self._save()
                if 0 < options.early_stopping <= state.stalled:
                    logger.info(f"training: early stopping, {self.job.best_metric} stalled {state.stalled} times")
                    break
                if any(progress.reached(limit) for limit in options.limits()):
                    break

                begun = time.monotonic()
                update = next(updates)
                rate = learning_rate(options.learn_rate, options.lr_warmup, options.lr_decay_inv_sqrt, progress)
                cost, alignment_cost = self._step(update, rate)
                progress.updates += 1
                progress.tokens += update.sizes.target_tokens
                progress.epochs, state.position = update.epochs, update.position
                if self.smoothed is not None:
                    smooth(self.smoothed, self.model, options.exponential_smoothing, progress.updates)
                state.seconds = time.monotonic() - started
                self.log.update(
                    progress, options.disp_freq, rate, update.sizes, cost, alignment_cost, time.monotonic() - begun
                )

                self.interruption.check()

            if state.validated != progress.updates:
                self._validate(started)
        except Interrupted:
            if progress.updates > self.saved.updates:
                self._save()
            raise
        finally:
            updates.close()
            self.log.close()
        self._write_output()

    def _step(self, update: Update, rate: float) -> tuple[float, float]:
        """One update of the parameters; returns the cost and the guided-alignment cost, summed over target tokens."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        cost, alignment_cost = accumulate_gradients(self.model, update, self.options, self.compute)
        total = cost + alignment_cost
        if not math.isfinite(total):
            raise UserError(
                f"the training cost is {total} at update {self.state.progress.updates + 1:,}: lower learn-rate, "
                "lengthen lr-warmup or set clip-norm; the last checkpoint is kept"
            )
        if self.options.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.optimizer.step()
        return cost, alignment_cost

    def _validate(self, started: float) -> None:
        """Judge the (smoothed) model, keep it if it is the best, record the validation, save a checkpoint."""
        state, progress = self.state, self.state.progress
        judged = self.smoothed if self.smoothed is not None else self.model
        values = self.validator.validate(judged, self.compute)
        value = values[self.job.best_metric]
        best = improved(self.job.best_metric, value, state.best)
        if best:
            state.best, state.best_update, state.stalled = value, progress.updates, 0
            npz.save(judged, self._best_model())
        else:
            state.stalled += 1
        state.validated, state.validations_due = progress.updates, progress.periods(self.options.valid_freq)
        state.seconds = time.monotonic() - started
        record = {
            "update": progress.updates,
            "epoch": round(progress.epochs, 4),
            "seconds": round(state.seconds, 1),
            "lr": learning_rate(
                self.options.learn_rate, self.options.lr_warmup, self.options.lr_decay_inv_sqrt, progress
            ),
            **self.log.since_validation.figures(),
            **values,
            "best": best,
            "stalled": state.stalled,
        }
        self.log.validation(record, self.metrics)
        self._save()

    def _continued(self) -> TrainingState | None:
        checkpoint = newest_checkpoint(self.job.checkpoints)
        if checkpoint is None:
            return None
        check_identity(checkpoint, self.identity)
        state = load_checkpoint(checkpoint, self.model, self.smoothed, self.optimizer)
        logger.info(f"training: continuing from update {state.progress.updates:,} ({checkpoint})")
        if state.best is not None and not self._best_model(state).exists():
            raise UserError(
                f"{self._best_model(state)} is missing, the best model so far: restore it or empty {checkpoint.parent}"
            )
        return state

    def _checkpoint_due(self) -> bool:
        every, progress = self.options.save_freq, self.state.progress
        # Saving a large model takes a while: at most a twentieth of the time goes into it.
        interval = max(60 * self.options.save_minutes, 20 * self.save_seconds)
        return progress.periods(every) > self.saved.periods(every) or (
            progress.updates > self.saved.updates and time.monotonic() - self.saved_at >= interval
        )

    def _save(self) -> None:
        begun = time.monotonic()
        save_checkpoint(self.job.checkpoints, self.model, self.smoothed, self.optimizer, self.state, self.identity)
        # Two are kept, as the older one of the two checkpoints may refer to the older one.
        for old in sorted(self.job.checkpoints.glob(f"best-{self.job.best_metric}-*.npz"))[:-2]:
            old.unlink()
        self.saved = dataclasses.replace(self.state.progress)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - begun

    def _best_model(self, state: TrainingState | None = None) -> Path:
        state = state or self.state
        return self.job.checkpoints / f"best-{self.job.best_metric}-{state.best_update:08d}.npz"

    def _write_output(self) -> None:
        job, state = self.job, self.state
        checkpoint = newest_checkpoint(job.checkpoints)
        if checkpoint is None:
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
        for corpus in self.corpora:
            corpus.close()
        logger.info(
            f"training: {state.progress.updates:,} updates, {state.progress.epochs:.1f} epochs in "
            f"{format_duration(state.seconds)}; best {job.best_metric} {state.best:.4g} at update {state.best_update:,}"
        )


def _processor(vocab: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(vocab))


def main(arguments: Sequence[str] | None = None) -> None:
    job = parse_job(arguments, __doc__ or "")
    with Interruption() as interruption:
        try:
            Trainer(job, interruption).train()
        except Interrupted as interrupted:
            if interrupted.signal == signal.SIGINT:
                raise KeyboardInterrupt from interrupted
            raise TransientError(f"stopped by {interrupted}: run again with the same folders to continue") from None


if __name__ == "__main__":
    run_command(main)
