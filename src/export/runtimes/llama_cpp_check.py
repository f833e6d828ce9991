"""Runs GGUF files in llama.cpp (the PyPI package xllamacpp) and says what it makes of tokens and texts.

Usage: python llama_cpp_check.py REQUEST.json; REQUEST.json holds a request or a list of them, and standard output gets one line
of JSON: an answer or a list of them.

Request:
  model      the GGUF file
  sequences  lists of tokens; every token but a sequence's first is predicted from those before it
  logprobs   optional: a file for the log-probabilities of the whole vocabulary after each token of each sequence, 32-bit floats,
             one row after the other
  prompt     optional: tokens, which are continued greedily
  greedy     number of tokens to continue with
  texts      optional: texts to tokenise

Answer: runtime, perplexity, greedy, text, tokens (one list for each text).

For comparisons with 32-bit arithmetic: one thread, a key/value cache of 32-bit floats, no flash attention.
"""

import array
import json
import math
import sys
import urllib.request


def parameters(xllamacpp, request):
    params = xllamacpp.CommonParams()
    params.model.path = request["model"]
    lengths = [len(sequence) for sequence in request.get("sequences", [])]
    lengths.append(len(request.get("prompt") or []) + request.get("greedy", 0))
    params.n_ctx = -(-(max(lengths) + 16) // 256) * 256
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.fit_params = False
    params.warmup = False
    params.verbosity = -1
    return params


def complete(server, tokens, count, probabilities):
    answer = server.handle_completions(
        {
            "prompt": tokens,
            "n_predict": count,
            "temperature": 0.0,
            "n_probs": probabilities,
            "cache_prompt": True,
            "return_tokens": True,
        }
    )
    if "error" in answer:
        raise SystemExit(f"llama.cpp: {answer['error']}")
    return answer


def distribution(server, tokens, vocabulary):
    """Log-probabilities of the whole vocabulary after `tokens`."""
    answer = complete(server, tokens, 1, vocabulary)
    row = [-math.inf] * vocabulary
    for entry in answer["completion_probabilities"][0]["top_logprobs"]:
        row[entry["id"]] = entry["logprob"]
    return row


def vocabulary_of(path):
    import gguf

    return len(gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].data)


def measure(server, request):
    """Perplexity over the sequences; the distributions go into the file that the request names."""
    vocabulary = vocabulary_of(request["model"])
    rows = array.array("f")
    nats, predicted = 0.0, 0
    for sequence in request.get("sequences", []):
        places = len(sequence) if request.get("logprobs") else len(sequence) - 1
        for place in range(1, places + 1):
            row = distribution(server, sequence[:place], vocabulary)
            rows.extend(row)
            if place < len(sequence):
                nats -= row[sequence[place]]
                predicted += 1
    if request.get("logprobs"):
        with open(request["logprobs"], "wb") as out:
            rows.tofile(out)
    return math.exp(nats / predicted) if predicted else None


def tokenise(server, text):
    body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
    sent = urllib.request.Request(
        server.listening_address + "/tokenize", data=body, headers={"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(sent) as answer:
        return json.load(answer)["tokens"]


def answer(xllamacpp, request):
    server = xllamacpp.Server(parameters(xllamacpp, request))
    found = {"runtime": f"llama.cpp (xllamacpp {xllamacpp.__version__})"}
    found["perplexity"] = measure(server, request)
    if request.get("prompt"):
        continued = complete(server, request["prompt"], request["greedy"], 0)
        found["greedy"], found["text"] = continued["tokens"], continued["content"]
    found["tokens"] = [tokenise(server, text) for text in request.get("texts", [])]
    return found


def main():
    import xllamacpp

    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    if isinstance(request, list):
        print(json.dumps([answer(xllamacpp, one) for one in request]))
    else:
        print(json.dumps(answer(xllamacpp, request)))


if __name__ == "__main__":
    main()
