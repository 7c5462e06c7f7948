"""The Transformer that Troupe trains, in PyTorch: the same layers, the same mathematics, written to be fast there.

Pre-norm, one fused projection for queries, keys and values, ReLU (GPT-2: GELU), one matrix for both embeddings and
the output, sinusoidal (GPT-2: learned) positions, dropout on the embeddings and on each sublayer's output.
"""
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class Config:
    vocabulary: int
    width: int
    inner: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    max_length: int = 256
    activation: str = "relu"
    positions: str = "sinusoidal"
    scale_embedding: bool = True
    dropout: float = 0.1
    pad: int = 0


# name: configuration, sentences a step, tokens of a sentence (the source has as many as the target)
PRESETS = {
    "small": (Config(8192, 256, 1024, 8, 4, 4), 64, 64),
    "base": (Config(32000, 512, 2048, 8, 6, 6), 16, 64),
    "gpt2": (Config(50257, 768, 3072, 12, 0, 12, 1024, "gelu", "learned", False), 4, 256),
}


def sinusoids(length, width):
    """Positions as in Vaswani et al. 2017, sines in the even columns and cosines in the odd ones."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
    table = torch.zeros(length, width, dtype=torch.float64)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table.float()


class Attention(nn.Module):
    def __init__(self, config, cross):
        super().__init__()
        self.heads, self.cross = config.heads, cross
        width = config.width
        if cross:
            self.query = nn.Linear(width, width)
            self.key_value = nn.Linear(width, 2 * width)
        else:
            self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x, memory=None, mask=None, causal=False):
        if self.cross:
            q, (k, v) = self.query(x), self.key_value(memory).chunk(2, -1)
        else:
            q, k, v = self.query_key_value(x).chunk(3, -1)
        out = F.scaled_dot_product_attention(self.split(q), self.split(k), self.split(v), mask, is_causal=causal)
        return self.output(out.transpose(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.first = nn.Linear(config.width, config.inner)
        self.second = nn.Linear(config.inner, config.width)
        self.gelu = config.activation == "gelu"

    def forward(self, x):
        x = self.first(x)
        return self.second(F.gelu(x, approximate="tanh") if self.gelu else F.relu(x))


class Layer(nn.Module):
    def __init__(self, config, causal, cross):
        super().__init__()
        self.causal, self.rate = causal, config.dropout
        self.self_norm, self.self_attention = nn.LayerNorm(config.width), Attention(config, cross=False)
        self.cross_norm = nn.LayerNorm(config.width) if cross else None
        self.cross_attention = Attention(config, cross=True) if cross else None
        self.feed_forward_norm, self.feed_forward = nn.LayerNorm(config.width), FeedForward(config)

    def drop(self, x):
        return F.dropout(x, self.rate, self.training)

    def forward(self, x, mask=None, memory=None, memory_mask=None):
        x = x + self.drop(self.self_attention(self.self_norm(x), mask=mask, causal=self.causal))
        if self.cross_attention is not None:
            x = x + self.drop(self.cross_attention(self.cross_norm(x), memory, memory_mask))
        return x + self.drop(self.feed_forward(self.feed_forward_norm(x)))


class Transformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocabulary, config.width))
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(config.max_length, config.width))
        else:
            self.register_buffer("positions", sinusoids(config.max_length, config.width), persistent=False)
        cross = config.encoder_layers > 0
        self.encoder = nn.ModuleList(Layer(config, False, False) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(Layer(config, True, cross) for _ in range(config.decoder_layers))
        self.encoder_norm = nn.LayerNorm(config.width) if cross else None
        self.decoder_norm = nn.LayerNorm(config.width)
        self.reset()

    def reset(self):
        nn.init.normal_(self.embedding, std=self.config.width ** -0.5 if self.config.scale_embedding else 0.02)
        if self.config.positions == "learned":
            nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                fused = module.out_features in (2 * self.config.width, 3 * self.config.width)
                outputs = self.config.width if fused else module.out_features  # as if each part stood alone
                bound = math.sqrt(6 / (outputs + module.in_features))
                nn.init.uniform_(module.weight, -bound, bound)
                nn.init.zeros_(module.bias)

    def embed(self, ids):
        scale = math.sqrt(self.config.width) if self.config.scale_embedding else 1.0
        x = F.embedding(ids, self.embedding) * scale + self.positions[: ids.shape[1]]
        return F.dropout(x, self.config.dropout, self.training)

    def encode(self, source, lengths=None):
        """Returns the encoder's output and the mask that cross-attention needs (None: no padding)."""
        mask = None
        if lengths is not None:
            mask = (torch.arange(source.shape[1]) < lengths[:, None])[:, None, None, :]
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, mask=mask)
        return self.encoder_norm(x), mask

    def decode(self, target, memory=None, memory_mask=None):
        x = self.embed(target)
        for layer in self.decoder:
            x = layer(x, memory=memory, memory_mask=memory_mask)
        return self.decoder_norm(x)

    def forward(self, source, target_in, target_out, lengths=None, smoothing=0.1, reduction="mean"):
        memory, mask = self.encode(source, lengths) if self.encoder_norm is not None else (None, None)
        x = self.decode(target_in, memory, mask).flatten(0, 1)
        logits = F.linear(x, self.embedding.to(x.dtype))
        return F.cross_entropy(logits.float(), target_out.flatten(), ignore_index=-1, label_smoothing=smoothing,
                               reduction=reduction)


def parameter_groups(model, weight_decay):
    """Matrices and embeddings decay; biases and norms do not."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
