"""Hugging Face's Seq2SeqTrainer for benchmarks/multi30k.py: train for some minutes, then translate the test set."""

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import sentencepiece
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

from peers.huggingface_model import PAD, make_model
from peers.huggingface_trainer import Collator, encode
from peers.tasks import ARCHITECTURES, cpu_seconds


class OutOfTime(TrainerCallback):
    def __init__(self, seconds: float) -> None:
        self.end = seconds

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_training_stop = cpu_seconds() >= self.end
        return control


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(task["threads"])
    processor = sentencepiece.SentencePieceProcessor(model_file=task["vocab"])
    src, trg = (encode(processor, path) for path in task["train"])
    data = datasets.Dataset.from_dict({"input_ids": src, "labels": trg, "length": [len(ids) for ids in trg]})
    model = make_model(ARCHITECTURES["small"], processor.get_piece_size(), 0.2, "eager")
    arguments = Seq2SeqTrainingArguments(
        output_dir=task["folder"],
        use_cpu=True,
        per_device_train_batch_size=128,
        learning_rate=1e-3,
        lr_scheduler_type="inverse_sqrt",
        warmup_steps=600,
        adam_beta2=0.98,
        adam_epsilon=1e-9,
        label_smoothing_factor=0.1,
        max_grad_norm=1.0,
        num_train_epochs=1000,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=1,
        bf16=True,
        train_sampling_strategy="group_by_length",
        optim="adamw_torch_fused",
        weight_decay=0.0,
    )
    left = 60 * task["minutes"] * task["threads"]
    Seq2SeqTrainer(
        model=model, args=arguments, train_dataset=data, data_collator=Collator(model), callbacks=[OutOfTime(left)]
    ).train()

    model.eval()
    sources = encode(processor, task["test"][0])
    translations = []
    with torch.inference_mode():
        for start in range(0, len(sources), 32):
            rows = [torch.tensor(ids) for ids in sources[start : start + 32]]
            ids = pad_sequence(rows, True, PAD)
            found = model.generate(ids, attention_mask=(ids != PAD).long(), num_beams=task["beam"], max_new_tokens=100)
            kept = [[number for number in row if number > PAD] for row in found.tolist()]
            translations += processor.decode(kept)
    (Path(task["folder"]) / "hypotheses").write_text("".join(f"{line}\n" for line in translations), encoding="utf-8")


if __name__ == "__main__":
    main()
