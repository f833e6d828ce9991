"""Trains the quickstart model on the text of the `quickstart_corpus` example; see README.md."""

import argparse
import copy
import json
import math
import pathlib
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from model import CONFIG, Llama
from optimizer import Optimizers

LENGTH = 256
# What the tasks ask for is a small part of the text, so it counts more in the loss.
ANSWER_WEIGHT = 5
ANSWER = re.compile(
    r"(?P<lead>Answer:|Now the number was|began to|started to|wanted to|went on to|"
    r"The roofs of \w+ are|are known for their|The flag of \w+ shows|The town of \w+ lies in)"
    r"(?P<answer> [^.\n]*)"
)
LOOKS = (0.35, 0.7)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder written by quickstart_corpus")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the model to write")
    parser.add_argument("--steps", type=int, default=789)
    parser.add_argument("--rows", type=int, default=12, help="sequences of 256 tokens in a step")
    parser.add_argument("--minutes", type=float, default=math.inf, help="shorten the schedule to fit this time")
    parser.add_argument("--workers", type=int, default=2, help="parts of a step computed at once")
    parser.add_argument("--seed", type=int, default=17)
    return parser.parse_args()


def train_tokenizer(text):
    """Byte-level BPE that puts `<s>` before a text, as Llama does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", CONFIG["bos_token_id"])]
    )
    return tokenizer


def encode(tokenizer, text):
    """Token ids of a text of documents, without `<s>`, and the weight of each in the loss."""
    documents = [document + "\n\n" for document in text.split("\n\n") if document]
    encoded = tokenizer.encode_batch(documents, add_special_tokens=False)
    ids = np.concatenate([np.array(e.ids, dtype=np.int64) for e in encoded])
    weights = [answer_weights(document, e.offsets) for document, e in zip(documents, encoded)]
    return np.stack([ids, np.concatenate(weights)])


def answer_weights(document, offsets):
    """`ANSWER_WEIGHT` for the tokens of an answer, one for all others."""
    at = np.ones(len(document), dtype=np.int64)
    for found in ANSWER.finditer(document):
        at[found.end("lead") : found.end("answer")] = ANSWER_WEIGHT
    return at[[end - 1 for _, end in offsets]]


def batches(ids, rows, seed):
    """Endless batches of windows of ids and weights [rows, 2, length + 1]; every other row begins with `<s>`, so both ways of reading work."""
    rng = np.random.default_rng(seed)
    while True:
        starts = rng.permutation(np.arange(rng.integers(LENGTH), ids.shape[1] - LENGTH - 1, LENGTH))
        for group in range(0, len(starts) - rows + 1, rows):
            windows = np.stack([ids[:, s : s + LENGTH + 1] for s in starts[group : group + rows]])
            windows[::2, 0, 0] = CONFIG["bos_token_id"]
            yield torch.from_numpy(windows)


def loss_of(model, windows, weights=None):
    """The mean loss over a batch of windows, each token by its weight."""
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        logits = model(windows[:, :-1])
    losses = F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), windows[:, 1:].reshape(-1), reduction="none")
    if weights is None:
        return losses.mean()
    return (losses * weights[:, 1:].reshape(-1)).sum() / weights[:, 1:].sum()


def rate(progress):
    """Share of the full learning rate: a short warmup, a plateau, then down to nought."""
    return min(1.0, progress / 0.03, (1.0 - progress) / 0.6)


class Workers:
    """Copies of a model that share its parameters, each with gradients of its own.

    One thread for each copy waits for the others once a step; threads inside of each operation
    would wait a thousand times, which is slow on a machine that does other things too.
    """

    def __init__(self, model, number):
        self.copies = [model] + [copy.deepcopy(model) for _ in range(number - 1)]
        self.pool = ThreadPoolExecutor(number)
        for other in self.copies[1:]:
            for mine, theirs in zip(model.parameters(), other.parameters()):
                theirs.data = mine.data

    def backward(self, windows):
        """Leaves the mean gradient in the first copy; returns the mean loss."""
        parts = windows.chunk(len(self.copies))
        losses = list(self.pool.map(self.part, self.copies, parts))
        for other in self.copies[1:]:
            for mine, theirs in zip(self.copies[0].parameters(), other.parameters()):
                mine.grad += theirs.grad
                theirs.grad = None
        return sum(losses)

    def part(self, model, windows):
        loss = loss_of(model, windows[:, 0], windows[:, 1]) / len(self.copies)
        loss.backward()
        return loss.item()


def train(model, stream, args, look):
    """Trains `model` in place; calls `look` on the way, at the shares of the schedule in LOOKS."""
    looks = list(LOOKS)
    workers = Workers(model, args.workers)
    optimizer = Optimizers(model, workers.pool)
    began, report = time.time(), time.time()
    for step in range(args.steps):
        progress = max((step + 0.5) / args.steps, (time.time() - began) / (60 * args.minutes))
        if progress >= 1.0:
            break
        loss = workers.backward(next(stream))
        optimizer.step(rate(progress))
        if looks and progress > looks[0]:
            look(looks.pop(0))
        if step == 0 or time.time() - report > 15:
            report = time.time()
            print(f"step {step} progress {progress:.3f} loss {loss:.3f} seconds {report - began:.0f}", flush=True)
    print(f"trained {step + 1} steps, {(step + 1) * args.rows * LENGTH} tokens, {time.time() - began:.0f} seconds", flush=True)


def perplexity(model, ids, windows=150):
    """Per token, over windows that begin with `<s>`."""
    rows = ids[: windows * LENGTH].reshape(-1, LENGTH)
    rows = np.concatenate([np.full((len(rows), 1), CONFIG["bos_token_id"]), rows], axis=1)
    losses = [loss_of(model, torch.from_numpy(part)).item() for part in np.array_split(rows, 10)]
    return math.exp(sum(losses) / len(losses))


@torch.no_grad()
def choice_scores(model, tokenizer, context, choices):
    """The log-likelihood of each choice after the context and a space."""
    before = len(tokenizer.encode(context).ids)
    rows = [tokenizer.encode(context + " " + choice).ids for choice in choices]
    width = max(map(len, rows))
    padded = torch.tensor([row + [CONFIG["eos_token_id"]] * (width - len(row)) for row in rows])
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        logs = model(padded[:, :-1]).float().log_softmax(-1)
    token_logs = logs.gather(2, padded[:, 1:, None]).squeeze(2)
    return [token_logs[i, before - 1 : len(row) - 1].sum().item() for i, row in enumerate(rows)]


def accuracy(model, tokenizer, path, limit):
    """Share of samples where the right choice is likeliest, plain and per character."""
    samples = [json.loads(line) for line in path.read_text().splitlines()[:limit]]
    score = lambda sample: np.array(choice_scores(model, tokenizer, sample["context"], sample["choices"]))
    plain = by_length = 0
    for sample, scores in zip(samples, ThreadPoolExecutor(2).map(score, samples)):
        lengths = np.array([len(choice) for choice in sample["choices"]])
        plain += int(scores.argmax()) == sample["gold"]
        by_length += int((scores / lengths).argmax()) == sample["gold"]
    return plain / len(samples), by_length / len(samples), len(samples)


@torch.no_grad()
def evaluate(model, tokenizer, args, limit=400):
    text = (args.data / "validation.txt").read_text()
    print(f"perplexity {perplexity(model, encode(tokenizer, text)[0]):.3f}", flush=True)
    results = []
    for path in sorted(args.data.glob("*.jsonl")):
        results.append(accuracy(model, tokenizer, path, limit))
        print("%-12s acc %.3f acc_norm %.3f n %d" % (path.stem, *results[-1]), flush=True)
    print(f"mean acc {sum(r[0] for r in results) / len(results):.3f}", flush=True)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def save(model, tokenizer, out):
    """The Hugging Face layout; the tied output layer is not stored twice."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "config.json", CONFIG)
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    limits = {"model_max_length": CONFIG["max_position_embeddings"], "clean_up_tokenization_spaces": False}
    write_json(out / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **tokens, **limits})
    write_json(out / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1})
    tensors = {name: value.bfloat16().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def main():
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    text = (args.data / "train.txt").read_text()
    tokenizer = train_tokenizer(text[:4_000_000])
    ids = encode(tokenizer, text)
    print(f"{ids.shape[1]} training tokens, {len(text) / ids.shape[1]:.2f} characters each", flush=True)
    model = Llama()

    def look(share):
        save(model, tokenizer, args.out)
        evaluate(model, tokenizer, args, limit=48)

    train(model, batches(ids, args.rows, args.seed), args, look)
    save(model, tokenizer, args.out)
    # What is measured is what was written: bfloat16.
    model.load_state_dict(load_file(args.out / "model.safetensors"))
    evaluate(model, tokenizer, args)


if __name__ == "__main__":
    main()
