"""Runs folders in MLX-LM (the PyPI packages mlx-lm and, on Linux, mlx[cpu]) and says what it makes of tokens and texts.

Usage: python mlx_check.py REQUEST.json; REQUEST.json holds a request or a list of them, and standard output gets one line of
JSON: an answer or a list of them.

Request:
  model      the folder
  sequences  lists of tokens; every token but a sequence's first is predicted from those before it
  logprobs   optional: a file for the log-probabilities of the whole vocabulary after each token of each sequence, 32-bit floats,
             one row after the other
  prompt     optional: tokens, which are continued greedily
  greedy     number of tokens to continue with
  texts      optional: texts to tokenise
  float32    optional: true computes in 32-bit floats, whatever the weights are stored in

Answer: runtime, perplexity, greedy, text, tokens (one list for each text).

Sequences are read in one pass without a cache, the prompt token by token with one.
"""

import array
import json
import math
import os
import sys

# Nothing is fetched.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def log_softmax(mx, logits):
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def measure(mx, model, request):
    """Perplexity over the sequences; the distributions go into the file that the request names."""
    rows = array.array("f")
    nats, predicted = 0.0, 0
    for sequence in request.get("sequences", []):
        found = log_softmax(mx, model(mx.array([sequence]))[0])
        if request.get("logprobs"):
            rows.frombytes(memoryview(found).tobytes())
        for place, token in enumerate(sequence[1:]):
            nats -= found[place, token].item()
            predicted += 1
    if request.get("logprobs"):
        with open(request["logprobs"], "wb") as out:
            rows.tofile(out)
    return math.exp(nats / predicted) if predicted else None


def greedy(mx, generate_step, model, prompt, count):
    steps = generate_step(mx.array(prompt), model, max_tokens=count)
    return [int(token) for token, _ in steps]


def answer(request):
    import mlx.core as mx
    import mlx_lm
    from mlx_lm.generate import generate_step

    mx.set_default_device(mx.cpu)
    model, tokenizer = mlx_lm.load(request["model"])
    if request.get("float32"):
        model.set_dtype(mx.float32)
    found = {"runtime": f"mlx-lm {mlx_lm.__version__} (mlx {mx.__version__})"}
    found["perplexity"] = measure(mx, model, request)
    if request.get("prompt"):
        found["greedy"] = greedy(mx, generate_step, model, request["prompt"], request["greedy"])
        found["text"] = tokenizer.decode(found["greedy"])
    found["tokens"] = [tokenizer.encode(text) for text in request.get("texts", [])]
    return found


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    found = [answer(one) for one in request] if isinstance(request, list) else answer(request)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
