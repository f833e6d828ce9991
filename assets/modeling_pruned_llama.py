"""A Llama whose layers have heads and neurons of their own number, for transformers 4.44 and later.

`tyr` writes this file beside the weights of a pruned model. `per_layer_config` in config.json says what every layer has:
`query_heads_per_kv` (the query heads of each key/value head that is left) and `intermediate_size`. A layer without heads has no
attention, a layer without neurons no MLP; each then gives its output bias, or nothing.

transformers maps query heads to key/value heads by one group size per layer. Where groups differ, keys and values are computed once and
handed on as often as their groups ask, so that every layer has groups of one size: the greatest that divides them all.
"""

import contextlib
import math

import torch
import transformers
from torch import nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaModel
from transformers.models.mistral.modeling_mistral import MistralForCausalLM, MistralModel

# Until 4.47 attention hands the cache on as a third result.
_HANDS_ON_CACHE = tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (4, 48)


class PrunedLlamaConfig(LlamaConfig):
    model_type = "pruned_llama"
    # Parallel plans cut heads evenly, which these layers do not have.
    base_model_tp_plan = None

    def __init__(self, **kwargs):
        # transformers 5 has a meaning of its own for the name.
        layers = kwargs.pop("per_layer_config", None)
        kwargs.setdefault("sliding_window", None)
        super().__init__(**kwargs)
        self.pretraining_tp = 1
        self.pruned_layers = layers

    def validate_architecture(self):
        """Heads need not divide the residual width: `head_dim` is a key of its own."""

    def to_dict(self):
        output = super().to_dict()
        layers = output.pop("pruned_layers", None)
        if layers is not None:
            output["per_layer_config"] = layers
        return output


class PrunedMistralConfig(PrunedLlamaConfig):
    """With a sliding window. A class of its own: transformers remembers one model class for each, whatever config.json names."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)  # not inherited: transformers 5 would make one of its own


class _Rotary(nn.Module):
    """Cosines and sines of positions, the same in every version, without a buffer that loading could leave unset."""

    def __init__(self, config):
        super().__init__()
        self.frequencies = _frequencies(config)

    def forward(self, x, position_ids):
        frequencies = torch.tensor(self.frequencies, dtype=torch.float32, device=x.device)
        angles = position_ids[..., None].to(torch.float32) * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def _frequencies(config):
    table = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    theta = table.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0
    kind = table.get("rope_type") or table.get("type") or "default"
    frequencies = [theta ** (-2 * i / config.head_dim) for i in range(config.head_dim // 2)]
    if kind == "default":
        return frequencies
    factor = table["factor"]
    if kind == "linear":
        return [frequency / factor for frequency in frequencies]
    if kind == "llama3":
        low, high = table["low_freq_factor"], table["high_freq_factor"]
        original = table["original_max_position_embeddings"]

        def scaled(frequency):
            turns = original * frequency / (2 * math.pi)
            kept = min(max((turns - low) / (high - low), 0.0), 1.0)
            return (1 - kept) * frequency / factor + kept * frequency

        return [scaled(frequency) for frequency in frequencies]
    raise ValueError(f"RoPE of type {kind!r} is not implemented in modeling_pruned_llama.py")


class _Repeating(nn.Linear):
    """Keys or values of some heads, each handed on several times."""

    def __init__(self, width, order, head_dim, bias):
        heads = max(order) + 1
        super().__init__(width, heads * head_dim, bias=bias)
        self.order = order
        self.heads = (heads, head_dim)

    def forward(self, x):
        heads = super().forward(x).unflatten(-1, self.heads)
        return heads[..., self.order, :].flatten(-2)


class _Bias(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))


class _NoAttention(nn.Module):
    """Attention without heads: its output bias, or nothing."""

    def __init__(self, width, bias):
        super().__init__()
        self.o_proj = _Bias(width) if bias else None

    def forward(self, hidden_states, past_key_value=None, **kwargs):
        output = torch.zeros_like(hidden_states)
        if self.o_proj is not None:
            output = output + self.o_proj.bias
        return (output, None, past_key_value) if _HANDS_ON_CACHE else (output, None)


class _NoMlp(nn.Module):
    """An MLP without neurons: its output bias, or nothing."""

    def __init__(self, width, bias):
        super().__init__()
        self.down_proj = _Bias(width) if bias else None

    def forward(self, x):
        output = torch.zeros_like(x)
        return output if self.down_proj is None else output + self.down_proj.bias


@contextlib.contextmanager
def _smallest(config):
    """Has the classes below build the smallest layers, which are replaced, whatever the dense model's were."""
    names = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    dense = [getattr(config, name) for name in names]
    for name in names:
        setattr(config, name, 1)
    try:
        yield
    finally:
        for name, value in zip(names, dense):
            setattr(config, name, value)


def _biases(config):
    """Whether there are biases: of q, k, v; of o; of gate, up; of down."""
    attention, mlp = bool(config.attention_bias), bool(config.mlp_bias)
    of = lambda name, inputs: bool(getattr(config, name, inputs))  # noqa: E731
    return attention, of("attention_output_bias", attention), mlp, of("mlp_output_bias", mlp)


def _attention(attention, config, groups, biases):
    width, head_dim, heads = config.hidden_size, config.head_dim, sum(groups)
    group = math.gcd(*groups)
    order = [kv for kv, count in enumerate(groups) for _ in range(count // group)]
    regular = len(order) == len(groups)

    def keys_or_values():
        if regular:
            return nn.Linear(width, len(groups) * head_dim, bias=biases[0])
        return _Repeating(width, order, head_dim, biases[0])

    attention.q_proj = nn.Linear(width, heads * head_dim, bias=biases[0])
    attention.k_proj = keys_or_values()
    attention.v_proj = keys_or_values()
    attention.o_proj = nn.Linear(heads * head_dim, width, bias=biases[1])
    attention.head_dim = head_dim
    attention.scaling = head_dim**-0.5
    attention.num_heads = heads
    attention.num_key_value_heads = len(order)
    attention.num_key_value_groups = group
    if hasattr(attention, "rotary_emb"):
        attention.rotary_emb = _Rotary(config)


def _shape(model, config):
    """Gives every layer its own heads and neurons."""
    if isinstance(model, MistralModel) != (config.sliding_window is not None):
        raise ValueError("`auto_map` of config.json does not fit its `sliding_window`")
    biases = _biases(config)
    width = config.hidden_size
    attending = 0
    for number, layer in enumerate(model.layers):
        sizes = config.pruned_layers[str(number)]
        groups, neurons = sizes["query_heads_per_kv"], sizes["intermediate_size"]
        if groups:
            _attention(layer.self_attn, config, groups, biases)
            # The cache has no place for layers without attention: its first one must be filled.
            layer.self_attn.layer_idx = attending
            attending += 1
        else:
            layer.self_attn = _NoAttention(width, biases[1])
        if neurons:
            layer.mlp.gate_proj = nn.Linear(width, neurons, bias=biases[2])
            layer.mlp.up_proj = nn.Linear(width, neurons, bias=biases[2])
            layer.mlp.down_proj = nn.Linear(neurons, width, bias=biases[3])
            layer.mlp.intermediate_size = neurons
        else:
            layer.mlp = _NoMlp(width, biases[3])
    if hasattr(model, "rotary_emb"):
        model.rotary_emb = _Rotary(config)


class PrunedLlamaModel(LlamaModel):
    config_class = PrunedLlamaConfig

    def __init__(self, config):
        with _smallest(config):
            super().__init__(config)
        _shape(self, config)
        self.post_init()


class PrunedLlamaForCausalLM(LlamaForCausalLM):
    config_class = PrunedLlamaConfig

    def __init__(self, config):
        with _smallest(config):
            super().__init__(config)
        _shape(self.model, config)
        self.post_init()


class PrunedMistralModel(MistralModel):
    """With a sliding window of attention in every layer."""

    config_class = PrunedMistralConfig

    def __init__(self, config):
        with _smallest(config):
            super().__init__(config)
        _shape(self, config)
        self.post_init()


class PrunedMistralForCausalLM(MistralForCausalLM):
    """With a sliding window of attention in every layer."""

    config_class = PrunedMistralConfig

    def __init__(self, config):
        with _smallest(config):
            super().__init__(config)
        _shape(self.model, config)
        self.post_init()
