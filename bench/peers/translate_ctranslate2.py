"""Speed of CTranslate2 for the work of bench/translate_bench.cpp: a model of the same shape with random weights, made here with
its converter's own specification; prints one JSON line."""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time

import ctranslate2
import numpy

SHAPES = {"small": (4, 256, 8, 1024, 8192), "base": (6, 512, 8, 2048, 32000)}  # layers, width, heads, inner, vocabulary


def save_model(folder, layers, width, heads, inner, vocabulary, quantization=None):
    spec = ctranslate2.specs.TransformerSpec.from_config(layers, heads, pre_norm=True)
    random = numpy.random.default_rng(1)

    def matrix(rows, columns):
        return (random.standard_normal((rows, columns)) * columns ** -0.5).astype(numpy.float32)

    def linear(part, rows, columns):
        part.weight, part.bias = matrix(rows, columns), numpy.zeros(rows, numpy.float32)

    def norm(part):
        part.gamma, part.beta = numpy.ones(width, numpy.float32), numpy.zeros(width, numpy.float32)

    def attention(part, crosses):
        norm(part.layer_norm)
        for index, rows in enumerate((width, 2 * width, width) if crosses else (3 * width, width)):
            linear(part.linear[index], rows, width)

    table = matrix(vocabulary, width)
    for side in (spec.encoder, spec.decoder):
        embeddings = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
        embeddings.weight = table
        side.scale_embeddings = True
        norm(side.layer_norm)
        for layer in side.layer:
            attention(layer.self_attention, False)
            if side is spec.decoder:
                attention(layer.attention, True)
            norm(layer.ffn.layer_norm)
            linear(layer.ffn.linear_0, inner, width)
            linear(layer.ffn.linear_1, width, inner)
    linear(spec.decoder.projection, vocabulary, width)
    spec.decoder.projection.weight = table
    words = ["<blank>", "<s>", "</s>", "<unk>"] + [f"w{i}" for i in range(4, vocabulary)]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(folder))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=SHAPES, default="base")
    parser.add_argument("--precision", default="int8", help="int8, int8_float32, bfloat16, float32 ...")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inter", type=int, default=1, help="batches at once; each has threads / inter")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--source", type=int, default=30)
    parser.add_argument("--target", type=int, default=30)
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder)
        save_model(model, *SHAPES[args.model])
        translator = ctranslate2.Translator(str(model), device="cpu", compute_type=args.precision, inter_threads=args.inter,
                                            intra_threads=args.threads // args.inter)
    vocabulary = SHAPES[args.model][4]
    random = numpy.random.default_rng(2)
    # Four batches for each worker, so that workers are without work for a small part of the time only.
    count = args.batch * (args.inter * 4 if args.inter > 1 else 1)
    sentences = [[f"w{i}" for i in random.integers(4, vocabulary, args.source)] for _ in range(count)]

    def translate():
        results = translator.translate_batch(sentences, max_batch_size=args.batch, beam_size=args.beam,
                                             min_decoding_length=args.target, max_decoding_length=args.target)
        return sum(len(result.hypotheses[0]) for result in results)

    translate()
    tokens, times, begin = 0, [], time.monotonic()
    while time.monotonic() - begin < args.seconds or len(times) < 3:
        before = time.monotonic()
        tokens += translate()
        times.append(time.monotonic() - before)
    total = time.monotonic() - begin
    times.sort()
    print(json.dumps({"system": "ctranslate2", "version": ctranslate2.__version__, "threads": args.threads,
                      "mode": f"{args.precision}, {args.inter} x {args.threads // args.inter}",
                      "tokens_per_s": round(tokens / total, 1), "p50_ms": round(1e3 * statistics.median(times), 2),
                      "p99_ms": round(1e3 * times[int(0.99 * (len(times) - 1) + 0.5)], 2)}))


if __name__ == "__main__":
    sys.exit(main())
