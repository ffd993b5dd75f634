"""From a job to its training data: what is encoded how, by whom, and in which order it is read."""

import os
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path

import sentencepiece

from pipeline.common.augment.augmenter import Augmentation, Augmenter
from pipeline.common.augment.script import script_of
from pipeline.common.files import read_lines
from pipeline.train.compute import Compute
from pipeline.train.curriculum import curriculum, parse_curriculum
from pipeline.train.data import TrainingData, open_corpora
from pipeline.train.distributed import Processes
from pipeline.train.encoding import Encoder
from pipeline.train.job import Job
from pipeline.train.workers import EncodingWorkers, choose_workers

_SAMPLE_LINES = 2_000


def open_data(
    job: Job,
    folder: Path,
    processes: Processes,
    compute: Compute,
    interruption_point: Callable[[], None] = lambda: None,
) -> TrainingData:
    """The training data of a job, its corpora read once and copied into `folder`, which is this process's own.

    Raises UserError for corpora that cannot be read and for a curriculum that does not fit them.
    """
    names = list(job.corpora)
    stages = parse_curriculum(job.curriculum, names) if job.curriculum else curriculum(names, job.teacher_mode)
    options = job.options
    encoder = Encoder(
        (_processor(job.vocabs[0]), _processor(job.vocabs[1])),
        options.sentencepiece_alphas,
        options.max_length,
        options.max_length_crop,
        aligned=options.guided_alignment,
        augmenter=Augmenter(_suited(job), job.languages),
        top_k=job.distillation.top_k,
    )
    on_gpu = compute.device.type == "cuda"
    processors = compute.threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    workers = choose_workers(processors, on_gpu) if job.data_workers is None else job.data_workers
    encoding = EncodingWorkers(encoder, workers)
    corpora = open_corpora(job.corpora, folder, options.seed, encoding, interruption_point)
    return TrainingData(
        corpora,
        stages,
        encoding,
        options,
        (processes.rank, processes.count),
        processes.gather_data if processes.count > 1 else None,
        pinned=on_gpu,
    )


def _suited(job: Job) -> Augmentation:
    """The augmentation that suits the script of the source."""
    if not job.augmentation:
        return job.augmentation
    lines = chain.from_iterable(islice(read_lines(paths[0]), _SAMPLE_LINES) for paths in job.corpora.values())
    return job.augmentation.for_script(script_of(lines))


def _processor(vocab: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(vocab))
