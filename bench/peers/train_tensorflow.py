#!/usr/bin/env python3
"""Training speed of the same Transformer in TensorFlow/Keras: target tokens a second on full synthetic batches.

Prints one JSON line a setting. --jit xla compiles the whole step with XLA, --jit graph leaves it to TensorFlow's own
executor (oneDNN products). bf16 is Keras's mixed_bfloat16 policy: f32 variables, bfloat16 products. With --workers the step is
that many processes of one thread under MultiWorkerMirroredStrategy, which share its sentences evenly or are refused.
"""
import argparse
import json
import os
import socket
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow import keras  # noqa: E402

# name: vocabulary, width, inner, heads, encoder and decoder layers, sentences a step, tokens of a sentence
PRESETS = {
    "small": (8192, 256, 1024, 8, 4, 4, 64, 64),
    "base": (32000, 512, 2048, 8, 6, 6, 16, 64),
    "gpt2": (50257, 768, 3072, 12, 0, 12, 4, 256),  # GELU and learned positions, no scaled embeddings
}
DROPOUT, SMOOTHING = 0.1, 0.1


def sinusoids(length, width):
    rate = np.exp(np.arange(0, width, 2) * (-np.log(10000.0) / width))
    angle = np.arange(length)[:, None] * rate
    table = np.zeros((length, width), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(angle), np.cos(angle)
    return table


class Attention(keras.layers.Layer):
    def __init__(self, width, heads, cross, causal):
        super().__init__()
        self.heads, self.cross, self.causal = heads, cross, causal
        self.query = keras.layers.Dense(width) if cross else None
        self.key_value = keras.layers.Dense(2 * width if cross else 3 * width)
        self.output_projection = keras.layers.Dense(width)

    def split(self, x):
        batch, length, width = x.shape
        return tf.transpose(tf.reshape(x, (batch, length, self.heads, width // self.heads)), (0, 2, 1, 3))

    def call(self, x, memory=None):
        if self.cross:
            q, (k, v) = self.query(x), tf.split(self.key_value(memory), 2, -1)
        else:
            q, k, v = tf.split(self.key_value(x), 3, -1)
        q, k, v = self.split(q), self.split(k), self.split(v)
        scores = tf.matmul(q, k, transpose_b=True) * tf.cast(q.shape[-1] ** -0.5, q.dtype)
        if self.causal:
            hidden = np.triu(np.full(scores.shape[-2:], -1e9, np.float32), 1)
            scores += tf.cast(hidden, scores.dtype)
        out = tf.transpose(tf.matmul(tf.nn.softmax(scores), v), (0, 2, 1, 3))
        return self.output_projection(tf.reshape(out, x.shape))


class Block(keras.layers.Layer):
    def __init__(self, width, inner, heads, causal, cross, activation):
        super().__init__()
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5) for _ in range(3 if cross else 2)]
        self.attention = Attention(width, heads, False, causal)
        self.cross_attention = Attention(width, heads, True, False) if cross else None
        self.first = keras.layers.Dense(inner, activation=activation)
        self.second = keras.layers.Dense(width)
        self.drop = keras.layers.Dropout(DROPOUT)

    def call(self, x, memory=None):
        x = x + self.drop(self.attention(self.norms[0](x)), training=True)
        if self.cross_attention is not None:
            x = x + self.drop(self.cross_attention(self.norms[2](x), memory), training=True)
        return x + self.drop(self.second(self.first(self.norms[1](x))), training=True)


class Transformer(keras.Model):
    def __init__(self, vocabulary, width, inner, heads, encoder_layers, decoder_layers, length):
        super().__init__()
        self.width, self.translates = width, encoder_layers > 0
        self.embedding = self.add_weight(shape=(vocabulary, width), name="embedding",
                                         initializer=keras.initializers.RandomNormal(
                                             stddev=width ** -0.5 if self.translates else 0.02))
        if self.translates:
            self.table, self.scale, activation = sinusoids(length, width), width ** 0.5, "relu"
        else:
            self.positions = self.add_weight(shape=(1024, width), name="positions",
                                             initializer=keras.initializers.RandomNormal(stddev=0.02))
            self.scale, activation = 1.0, lambda x: keras.activations.gelu(x, approximate=True)
        self.encoder = [Block(width, inner, heads, False, False, activation) for _ in range(encoder_layers)]
        self.decoder = [Block(width, inner, heads, True, self.translates, activation) for _ in range(decoder_layers)]
        self.final_norms = [keras.layers.LayerNormalization(epsilon=1e-5) for _ in range(2 if self.translates else 1)]
        self.drop = keras.layers.Dropout(DROPOUT)

    def embed(self, ids):
        table = self.table if self.translates else self.positions.value[:ids.shape[1]]
        x = tf.gather(self.embedding.value, ids) * self.scale + table
        return self.drop(tf.cast(x, self.compute_dtype), training=True)

    def call(self, inputs):
        source, target = inputs
        memory, x = self.embed(source) if self.translates else None, self.embed(target)
        for block in self.encoder:
            memory = block(memory)
        if self.translates:
            memory = self.final_norms[0](memory)
        for block in self.decoder:
            x = block(x, memory)
        x = tf.reshape(self.final_norms[-1](x), (-1, self.width))
        return tf.matmul(x, tf.cast(self.embedding.value, x.dtype), transpose_b=True)


def smoothed_loss(logits, targets):
    logits = tf.cast(logits, tf.float32)
    picked = tf.gather(logits, tf.reshape(targets, (-1,)), batch_dims=1)
    mean = tf.reduce_mean(logits, -1)
    return tf.reduce_mean(tf.reduce_logsumexp(logits, -1) - (1 - SMOOTHING) * picked - SMOOTHING * mean)


def agreed(strategy, count, workers):
    """The mean over the workers, so that all take as many steps."""
    counts = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(count))
    return int(strategy.reduce(tf.distribute.ReduceOp.SUM, counts, axis=None)) // workers


def measure(name, dtype, jit, seconds, strategy, workers):
    with strategy.scope():
        return measure_in_scope(name, dtype, jit, seconds, strategy, workers)


def measure_in_scope(name, dtype, jit, seconds, strategy, workers):
    vocabulary, width, inner, heads, encoder_layers, decoder_layers, sentences, length = PRESETS[name]
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if dtype == "bf16" else "float32")
    keras.utils.set_random_seed(1)
    model = Transformer(vocabulary, width, inner, heads, encoder_layers, decoder_layers, length)
    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=0.01, beta_2=0.98, epsilon=1e-9, global_clipnorm=1.0)
    random = np.random.default_rng(0)
    batches = [[tf.constant(random.integers(4, vocabulary, (sentences // workers, length)), tf.int32) for _ in range(3)]
               for _ in range(4)]
    model((batches[0][0], batches[0][1]))
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    optimizer.build(model.trainable_variables)

    def replica_step(source, target_in, target_out):
        with tf.GradientTape() as tape:
            loss = smoothed_loss(model((source, target_in)), target_out)
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)]
        if workers > 1:
            gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    @tf.function(jit_compile=jit == "xla")
    def step(source, target_in, target_out):
        if workers == 1:
            return replica_step(source, target_in, target_out)
        return strategy.run(replica_step, args=(source, target_in, target_out))

    step(*batches[0]).numpy()
    begin = time.perf_counter()
    step(*batches[1]).numpy()
    count = max(2, min(200, int(seconds / (time.perf_counter() - begin))))
    if workers > 1:
        count = agreed(strategy, count, workers)
    begin = time.perf_counter()
    for index in range(count):
        loss = step(*batches[index % 4]).numpy()
    mean = (time.perf_counter() - begin) / count
    return sentences * length / mean, mean * 1e3, float(loss)


def start_workers(workers):
    """Runs this command once a worker, each told of all; the first one prints."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for index in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(subprocess.Popen([sys.executable, *sys.argv], env=os.environ | {"TF_CONFIG": json.dumps(task)},
                                          stdout=None if index == 0 else subprocess.DEVNULL))
    sys.exit(max(abs(process.wait()) for process in processes))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=PRESETS, default="small")
    parser.add_argument("--dtype", nargs="+", choices=["f32", "bf16"], default=["bf16"])
    parser.add_argument("--jit", nargs="+", choices=["xla", "graph"], default=["xla"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="inside an operation")
    parser.add_argument("--seconds", type=float, default=10, help="of measuring, a setting")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each, in place of --threads")
    args = parser.parse_args()
    sentences = PRESETS[args.model][6]
    if args.workers < 1 or sentences % args.workers:
        parser.error(f"{args.workers} workers do not share {sentences} sentences evenly")
    if args.workers > 1 and "TF_CONFIG" not in os.environ:
        start_workers(args.workers)
    if args.workers > 1:
        args.threads = 1
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if args.workers > 1 else tf.distribute.get_strategy()
    for dtype in args.dtype:
        for jit in args.jit:
            rate, milliseconds, loss = measure(args.model, dtype, jit, args.seconds, strategy, args.workers)
            print(json.dumps({"system": "tensorflow", "version": tf.__version__, "model": args.model, "dtype": dtype,
                              "mode": jit, "workers": args.workers, "threads": args.threads, "tokens_per_s": round(rate, 1),
                              "step_ms": round(milliseconds, 2), "loss": round(loss, 4)}), flush=True)


if __name__ == "__main__":
    main()
