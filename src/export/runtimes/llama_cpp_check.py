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


def ask(server, path, question):
    """An answer of the server, which listens on this machine alone."""
    sent = urllib.request.Request(
        server.listening_address + path,
        data=json.dumps(question).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(sent, timeout=600) as answer:
        return json.load(answer)


def complete(server, tokens, count, **more):
    question = {
        "prompt": tokens,
        "n_predict": count,
        "temperature": 0.0,
        "cache_prompt": True,
        "return_tokens": True,
        **more,
    }
    return ask(server, "/completion", question)


def vocabulary_of(path):
    """Size of the vocabulary, and a token that is a letter."""
    import gguf

    field = gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"]
    pieces = (bytes(field.parts[index]) for index in field.data)
    letter = next((i for i, piece in enumerate(pieces) if len(piece) == 1 and piece.isalpha()), 0)
    return len(field.data), letter


def distribution(server, tokens, vocabulary, letter):
    """Log-probabilities of the whole vocabulary after `tokens`. They are those of the logits; the token that is then chosen is
    always the same, because after an end, and after a part of a character, the server says none."""
    answer = complete(server, tokens, 1, n_probs=vocabulary, logit_bias=[[letter, 1000.0]])
    row = [-math.inf] * vocabulary
    for entry in answer["completion_probabilities"][0]["top_logprobs"]:
        row[entry["id"]] = entry["logprob"]
    return row


def logprob(server, tokens, following, vocabulary, letter):
    """Log-probability of one token after `tokens`: that of the chosen one, which is made to be chosen."""
    answer = complete(server, tokens, 1, n_probs=1, logit_bias=[[following, 1000.0]])
    found = answer.get("completion_probabilities")
    if found and found[0]["id"] == following:
        return found[0]["logprob"]
    return distribution(server, tokens, vocabulary, letter)[following]


def measure(server, request):
    """Perplexity over the sequences; the distributions go into the file that the request names."""
    vocabulary, letter = vocabulary_of(request["model"])
    rows = array.array("f")
    nats, predicted = 0.0, 0
    for sequence in request.get("sequences", []):
        for place in range(1, len(sequence) + 1):
            before, following = sequence[:place], sequence[place : place + 1]
            if request.get("logprobs"):
                row = distribution(server, before, vocabulary, letter)
                rows.extend(row)
                nats -= sum(row[token] for token in following)
            else:
                nats -= sum(logprob(server, before, token, vocabulary, letter) for token in following)
            predicted += len(following)
    if request.get("logprobs"):
        with open(request["logprobs"], "wb") as out:
            rows.tofile(out)
    return math.exp(nats / predicted) if predicted else None


def tokenise(server, text):
    question = {"content": text, "add_special": True, "parse_special": True}
    return ask(server, "/tokenize", question)["tokens"]


def answer(xllamacpp, request):
    server = xllamacpp.Server(parameters(xllamacpp, request))
    found = {"runtime": f"llama.cpp (xllamacpp {xllamacpp.__version__})"}
    found["perplexity"] = measure(server, request)
    if request.get("prompt"):
        continued = complete(server, request["prompt"], request["greedy"])
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
