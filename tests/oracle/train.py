#!/usr/bin/env python3
"""Trains four tiny Transformers for 50 steps in PyTorch and writes what came out, for tests/model/oracle_test.cpp.

Run by hand:  python3 -m venv venv && venv/bin/pip install torch numpy && venv/bin/python tests/oracle/train.py
It writes encoder_decoder_pre.json, encoder_decoder_post.json, encoder_decoder_rotary.json (RMS norm and rotary
positions) and gpt2.json beside itself, or those alone that are named: train.py encoder_decoder_rotary

Initial weights and batches are not stored: both sides make them from mix64 below, by parameter index and element, and
by step, slot, row and column. The mathematics is PyTorch's own: linear, layer_norm, rms_norm, scaled_dot_product_attention,
gelu, cross_entropy, clip_grad_norm_, AdamW, in f32.
"""
import base64
import json
import math
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F

WIDTH, INNER, HEADS, LAYERS, VOCABULARY, LENGTH_MAX = 32, 48, 4, 2, 61, 16
STEPS, SLOTS, ROWS = 50, 2, 6
PAD, BOS, EOS, FIRST_WORD = 0, 2, 3, 4
SMOOTHING, CLIP, DECAY, BETAS, PEAK, WARMUP = 0.1, 0.5, 0.1, (0.9, 0.98), 5e-3, 10
# The gradient of a key's bias is zero but for rounding, and AdamW would magnify that noise into steps of full size;
# this epsilon is above the noise.
EPSILON = 1e-6
MASK = (1 << 64) - 1


def mix64(a, b):
    """kernels/base/random.hpp"""
    z = (a + 0x9E3779B97F4A7C15 * (b + 1)) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def initial(index, shape, kind):
    """0.15 u for all; 1 + 0.15 u for the gammas of norms; u uniform in [-1, 1) on a grid of 2^-23."""
    count = math.prod(shape)
    u = np.array([(mix64(index, i) >> 40) for i in range(count)], dtype=np.float64) * 2.0**-23 - 1
    values = 0.15 * u + (1.0 if kind == "norm" else 0.0)
    return torch.tensor(values.astype(np.float32).reshape(shape)).requires_grad_()


def describe(family, norm, modern):
    """(name, shape, kind) in the order of model/parameters.cpp."""
    out = []

    def linear(name, rows, cols):
        out.append((name + ".weight", (rows, cols), "matrix"))
        out.append((name + ".bias", (rows,), "bias"))

    def norms(name):
        out.append((name + ".weight", (WIDTH,), "norm"))
        if not modern:
            out.append((name + ".bias", (WIDTH,), "bias"))

    def self_attention(name):
        norms(name + ".norm")
        linear(name + ".query_key_value", 3 * WIDTH, WIDTH)
        linear(name + ".output", WIDTH, WIDTH)

    def feed_forward(name):
        norms(name + ".norm")
        linear(name + ".inner", INNER, WIDTH)
        linear(name + ".outer", WIDTH, INNER)

    translates = family == "encoder_decoder"
    out.append(("embedding.weight", (VOCABULARY, WIDTH), "embedding"))
    if translates:
        for i in range(LAYERS):
            self_attention(f"encoder.{i}.self_attention")
            feed_forward(f"encoder.{i}.feed_forward")
        if norm == "pre":
            norms("encoder.norm")
    else:
        out.append(("positions.weight", (LENGTH_MAX, WIDTH), "embedding"))
    for i in range(LAYERS):
        self_attention(f"decoder.{i}.self_attention")
        if translates:
            norms(f"decoder.{i}.cross_attention.norm")
            linear(f"decoder.{i}.cross_attention.query", WIDTH, WIDTH)
            linear(f"decoder.{i}.cross_attention.key_value", 2 * WIDTH, WIDTH)
            linear(f"decoder.{i}.cross_attention.output", WIDTH, WIDTH)
        feed_forward(f"decoder.{i}.feed_forward")
    if norm == "pre":
        norms("decoder.norm")
    return out


def batch(family, step, slot):
    """Sentences of 2 to 9 words; the target is the source backwards. A language model reads them as they are."""
    source, target_in, target_out = [], [], []
    for row in range(ROWS):
        key = mix64(mix64(step, slot), row)
        length = 2 + mix64(key, 1000) % 8
        words = [FIRST_WORD + mix64(key, i) % (VOCABULARY - FIRST_WORD) for i in range(length)]
        if family == "encoder_decoder":
            source.append(words + [EOS])
            words = words[::-1]
        target_in.append([BOS] + words)
        target_out.append(words + [EOS])

    def padded(rows, filler):
        longest = max(map(len, rows))
        return torch.tensor([r + [filler] * (longest - len(r)) for r in rows])

    lengths = [len(r) for r in target_in]
    return (padded(source, PAD) if source else None, padded(target_in, PAD), padded(target_out, -1), lengths)


def sinusoids(length):
    t = torch.arange(length, dtype=torch.float64)[:, None]
    rate = torch.exp(-math.log(10000.0) * torch.arange(0, WIDTH, 2, dtype=torch.float64) / WIDTH)
    table = torch.empty(length, WIDTH, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = torch.sin(t * rate), torch.cos(t * rate)
    return table.float()


def rotated(x):
    """Channels i and i + D/2 of a head of x (B, T, H * D) as one complex number, times e^(i * angle)."""
    size = WIDTH // HEADS
    real, imaginary = x.view(*x.shape[:2], HEADS, size).chunk(2, dim=-1)
    angles = torch.outer(torch.arange(x.shape[1], dtype=torch.float64),
                         10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size))
    turns = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[:, None, :]
    turned = torch.complex(real, imaginary) * turns
    return torch.cat([turned.real, turned.imag], dim=-1).reshape(x.shape)


class Transformer:
    def __init__(self, family, norm, modern):
        self.family, self.pre, self.modern = family, norm == "pre", modern
        self.described = describe(family, norm, modern)
        self.p = {name: initial(i, shape, kind) for i, (name, shape, kind) in enumerate(self.described)}

    def linear(self, name, x):
        return F.linear(x, self.p[name + ".weight"], self.p[name + ".bias"])

    def norm(self, name, x):
        if self.modern:
            return F.rms_norm(x, (WIDTH,), self.p[name + ".weight"], eps=1e-5)
        return F.layer_norm(x, (WIDTH,), self.p[name + ".weight"], self.p[name + ".bias"], eps=1e-5)

    def attend(self, q, k, v, mask):
        def split(x):
            return x.view(x.shape[0], x.shape[1], HEADS, WIDTH // HEADS).transpose(1, 2)

        out = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
        return out.transpose(1, 2).reshape(q.shape)

    def sublayer(self, name, x, function):
        if self.pre:
            return x + function(self.norm(name + ".norm", x))
        return self.norm(name + ".norm", x + function(x))

    def self_attention(self, name, x, mask):
        def function(h):
            q, k, v = self.linear(name + ".query_key_value", h).split(WIDTH, dim=-1)
            if self.modern:
                q, k = rotated(q), rotated(k)
            return self.linear(name + ".output", self.attend(q, k, v, mask))

        return self.sublayer(name, x, function)

    def cross_attention(self, name, x, memory, mask):
        def function(h):
            k, v = self.linear(name + ".key_value", memory).split(WIDTH, dim=-1)
            return self.linear(name + ".output", self.attend(self.linear(name + ".query", h), k, v, mask))

        return self.sublayer(name, x, function)

    def feed_forward(self, name, x):
        activation = F.relu if self.family == "encoder_decoder" else lambda h: F.gelu(h, approximate="tanh")
        return self.sublayer(name, x, lambda h: self.linear(name + ".outer", activation(self.linear(name + ".inner", h))))

    def embed(self, ids):
        x = F.embedding(ids, self.p["embedding.weight"])
        if self.family == "encoder_decoder":
            return x * math.sqrt(WIDTH) + (0 if self.modern else sinusoids(ids.shape[1]))
        return x + self.p["positions.weight"][: ids.shape[1]]

    def loss(self, source, target_in, target_out):
        memory, memory_mask = None, None
        if source is not None:
            memory_mask = (source != PAD)[:, None, None, :]
            memory = self.embed(source)
            for i in range(LAYERS):
                memory = self.self_attention(f"encoder.{i}.self_attention", memory, memory_mask)
                memory = self.feed_forward(f"encoder.{i}.feed_forward", memory)
            if self.pre:
                memory = self.norm("encoder.norm", memory)
        length = target_in.shape[1]
        mask = (target_in != PAD)[:, None, None, :] & torch.ones(length, length, dtype=torch.bool).tril()
        x = self.embed(target_in)
        for i in range(LAYERS):
            x = self.self_attention(f"decoder.{i}.self_attention", x, mask)
            if memory is not None:
                x = self.cross_attention(f"decoder.{i}.cross_attention", x, memory, memory_mask)
            x = self.feed_forward(f"decoder.{i}.feed_forward", x)
        if self.pre:
            x = self.norm("decoder.norm", x)
        logits = F.linear(x, self.p["embedding.weight"])
        return F.cross_entropy(logits.view(-1, VOCABULARY), target_out.view(-1), ignore_index=-1, reduction="sum",
                               label_smoothing=SMOOTHING)


def train(family, norm, modern):
    model = Transformer(family, norm, modern)
    kinds = {name: kind for name, _, kind in model.described}
    decayed = [v for n, v in model.p.items() if kinds[n] in ("matrix", "embedding")]
    spared = [v for n, v in model.p.items() if kinds[n] in ("norm", "bias")]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": DECAY}, {"params": spared, "weight_decay": 0}],
                                  lr=PEAK, betas=BETAS, eps=EPSILON)
    losses, norms = [], []
    for step in range(STEPS):
        rate = PEAK * min((step + 1) / WARMUP, math.sqrt(WARMUP / (step + 1)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        tokens, total = 0, 0.0
        for slot in range(SLOTS):
            source, target_in, target_out, lengths = batch(family, step, slot)
            loss = model.loss(source, target_in, target_out)
            loss.backward()
            total += loss.item()
            tokens += sum(lengths)
        for v in model.p.values():
            v.grad /= tokens
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.p.values(), CLIP)))
        losses.append(total / tokens)
        optimizer.step()
    return model, losses, norms


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for family, norm, modern, name in [("encoder_decoder", "pre", False, "encoder_decoder_pre"),
                                       ("encoder_decoder", "post", False, "encoder_decoder_post"),
                                       ("encoder_decoder", "pre", True, "encoder_decoder_rotary"),
                                       ("decoder", "pre", False, "gpt2")]:
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        model, losses, norms = train(family, norm, modern)
        parameters = []
        for parameter, _, _ in model.described:
            values = model.p[parameter].detach().numpy().astype(np.float64).ravel()
            scale = float(np.abs(values).max()) / 32767
            units = np.rint(values / scale).astype("<i2")
            parameters.append({"name": parameter, "scale": scale, "units": base64.b64encode(units.tobytes()).decode()})
        out = {"torch": torch.__version__, "losses": losses, "gradient_norms": norms, "parameters": parameters}
        path = pathlib.Path(__file__).parent / f"{name}.json"
        path.write_text(json.dumps(out, indent=0) + "\n")
        print(f"{name}: loss {losses[0]:.4f} to {losses[-1]:.4f}, norm {norms[0]:.3f} to {norms[-1]:.3f}, "
              f"{path.stat().st_size} bytes")


main()
