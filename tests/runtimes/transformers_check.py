"""What transformers makes of model folders that tyr wrote: transformers_check.py FOLDER...

Each folder holds a model and `expected.json`: `sequences` (token lists of one length) with their `logits`, `prompts` of different lengths with the
`greedy` tokens after them and the logits of their `last` token, `text` with its `ids`. For each folder one line of JSON is printed: the largest differences,
and whether what must be equal is. Everything runs in one process, because importing torch takes longer than all the rest.
"""

import json
import pathlib
import sys

import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

transformers.logging.set_verbosity_error()


def load(folder, implementation="eager", **more):
    return AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=torch.float32, attn_implementation=implementation, **{"trust_remote_code": True, **more}
    )


def apart(found, expected):
    return (found - expected).abs().max().item()


def cache_of(output):
    """Its name changed in transformers 5."""
    cache = getattr(output, "past_key_values", None)
    return cache if cache is not None else output.cache


def step_by_step(model, tokens):
    """Logits of a batch, one token at a time after the first three."""
    output = model(tokens[:, :3], use_cache=True)
    logits = [output.logits]
    for i in range(3, tokens.shape[1]):
        output = model(tokens[:, i : i + 1], past_key_values=cache_of(output), use_cache=True)
        logits.append(output.logits)
    return torch.cat(logits, dim=1)


def padded(prompts):
    """Prompts of different lengths as a batch, filled up on the left, and its mask."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return tokens, mask


def generated(model, prompts, new, **how):
    tokens, mask = padded(prompts)
    model.generation_config.eos_token_id = None  # what is not set below is taken from there
    config = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0, **how)
    output = model.generate(tokens, attention_mask=mask, generation_config=config)
    return output[:, tokens.shape[1] :].tolist()


def tensors(folder):
    with safe_open(pathlib.Path(folder) / "model.safetensors", "pt") as file:
        return sorted(file.keys())


def refused_without_trust(folder):
    """What loading says that may not run the folder's code."""
    try:
        load(folder, trust_remote_code=False)
    except ValueError as error:
        return str(error)
    return None


@torch.no_grad()
def check(folder):
    expected = json.loads((folder / "expected.json").read_text())
    tokens = torch.tensor(expected["sequences"])
    logits = torch.tensor(expected["logits"])
    model, info = load(folder, output_loading_info=True)
    model.eval()
    prompts, greedy = expected["prompts"], expected["greedy"]
    new = len(greedy[0])
    eager = model(tokens, use_cache=False).logits
    batch, mask = padded(prompts)
    last = model(batch, attention_mask=mask).logits[:, -1]
    beams = [generated(model, prompts, new, num_beams=2, use_cache=cached) for cached in (True, False)]
    hidden = AutoModel.from_pretrained(folder, trust_remote_code=True, torch_dtype=torch.float32).eval()
    states = hidden(tokens, use_cache=False).last_hidden_state
    saved = folder / "saved"
    model.save_pretrained(saved)
    again = load(saved).eval()
    sizes = [AutoConfig.from_pretrained(f, trust_remote_code=True).to_dict().get("per_layer_config") for f in (folder, saved)]
    sdpa = load(folder, "sdpa").eval()
    return {
        "class": type(model).__name__,
        "eager": apart(eager, logits),
        "sdpa": apart(sdpa(tokens).logits, logits),
        "cached": apart(step_by_step(sdpa, tokens), logits),
        "left_padded": apart(last, torch.tensor(expected["last"])),
        "base_model": apart(model.lm_head(states), logits),
        "round_trip": apart(again(tokens, use_cache=False).logits, eager),
        "greedy": [generated(model, [p], new)[0] for p in prompts] == greedy,
        "greedy_sdpa": generated(sdpa, prompts, new) == greedy,
        "greedy_uncached": generated(model, prompts, new, use_cache=False) == greedy,
        "beams": beams[0] == beams[1],
        "saved_tensors": tensors(saved) == tensors(folder),
        "saved_sizes": sizes[0] == sizes[1],
        "keys": [str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in info[kind]],
        "tokenizer": AutoTokenizer.from_pretrained(folder, trust_remote_code=True)(expected["text"])["input_ids"],
        "ids": expected["ids"],
        "without_trust": refused_without_trust(folder),
    }


def main():
    print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__}))
    for folder in map(pathlib.Path, sys.argv[1:]):
        print(json.dumps({"folder": folder.name, **check(folder)}), flush=True)


if __name__ == "__main__":
    main()
