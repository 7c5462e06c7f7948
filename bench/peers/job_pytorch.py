"""A job file in PyTorch: the model, optimizer and schedule that it describes, and the loss of a slot."""
import contextlib
import math

import torch

from transformer_pytorch import Config, Transformer, parameter_groups


def learning_rate(schedule, steps, step):
    """model/schedule.cpp; the fields' defaults are those of a job file."""
    peak, warmup, floor = schedule["learning_rate"], schedule.get("warmup_steps", 400), schedule.get("floor", 0.0)
    total = schedule.get("total_steps", 0) or steps
    if step < warmup:
        return peak * (step + 1) / warmup
    kind = schedule.get("kind", "inverse_sqrt")
    if kind == "inverse_sqrt":
        return peak * math.sqrt(max(warmup, 1) / (step + 1))
    if kind == "cosine":
        share = min(step - warmup, total - warmup) / max(1, total - warmup)
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))
    if kind == "warmup_stable_decay":
        decay = schedule.get("decay_steps", 0) or max(1, total // 5)
        left = max(total - step, 0)
        return peak if left >= decay else peak * (floor + (1 - floor) * left / decay)
    return peak


def make_model(job, dataset):
    m = job["model"]
    if m.get("norm_kind", "layer") != "layer" or m.get("positions") == "rotary":
        raise SystemExit("the PyTorch model knows neither RMS norm nor rotary positions")
    return Transformer(Config(dataset.manifest["vocabulary"], m["width"], m["inner"], m["heads"], m["encoder_layers"],
                              m["decoder_layers"], m.get("max_length", 256), m.get("activation", "relu"),
                              m.get("positions", "sinusoidal"), m.get("scale_embedding", True),
                              m.get("dropout", 0.1)))


def slot_loss(model, arrays, smoothing, bf16):
    """Sum of the smoothed losses of one slot."""
    source, lengths, target_in, target_out = (torch.from_numpy(array) for array in arrays)
    padded = bool((lengths < source.shape[1]).any())
    with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
        return model(source, target_in, target_out, lengths if padded else None, smoothing, "sum")


def make_optimizer(job, model):
    settings = job.get("optimizer", {})
    return torch.optim.AdamW(parameter_groups(model, settings.get("weight_decay", 0.01)), lr=1e-3,
                             betas=(settings.get("beta1", 0.9), settings.get("beta2", 0.98)),
                             eps=settings.get("epsilon", 1e-9), fused=True)
