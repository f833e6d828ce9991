"""Runs folders in transformers (the PyPI packages transformers and torch) and says what it makes of tokens and texts.

Usage: python transformers_check.py REQUEST.json; REQUEST.json holds a request or a list of them, and standard output gets one line
of JSON: an answer or a list of them.

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

Sequences are read in one pass without a cache, the prompt token by token with one. Code in the folder is run.
"""

import array
import json
import math
import os
import sys

# Nothing is fetched.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def measure(torch, model, request):
    """Perplexity over the sequences; the distributions go into the file that the request names."""
    rows = array.array("f")
    nats, predicted = 0.0, 0
    for sequence in request.get("sequences", []):
        found = torch.log_softmax(model(torch.tensor([sequence]), use_cache=False).logits[0].float(), dim=-1)
        if request.get("logprobs"):
            rows.extend(found.flatten().tolist())
        for place, token in enumerate(sequence[1:]):
            nats -= found[place, token].item()
            predicted += 1
    if request.get("logprobs"):
        with open(request["logprobs"], "wb") as out:
            rows.tofile(out)
    return math.exp(nats / predicted) if predicted else None


def continued(torch, model, prompt, count):
    model.generation_config.eos_token_id = None  # a token that ends texts ends nothing here
    found = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    return found[0, len(prompt) :].tolist()


def answer(request):
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    folder = request["model"]
    numbers = torch.float32 if request.get("float32") else "auto"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, torch_dtype=numbers).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        found = {"runtime": f"transformers {transformers.__version__} (torch {torch.__version__})"}
        found["perplexity"] = measure(torch, model, request)
        if request.get("prompt"):
            found["greedy"] = continued(torch, model, request["prompt"], request["greedy"])
            found["text"] = tokenizer.decode(found["greedy"])
    found["tokens"] = [tokenizer(text)["input_ids"] for text in request.get("texts", [])]
    return found


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    found = [answer(one) for one in request] if isinstance(request, list) else answer(request)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
