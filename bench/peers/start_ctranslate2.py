"""CTranslate2 for the work of bench/start.py: --save writes a model of random weights; without it, translates standard
input, line by line."""
import argparse
import sys

import ctranslate2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--model", choices=["small", "base"], default="base")
    parser.add_argument("--precision", choices=["int8", "float32"], default="int8")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--tokens", type=int, default=30, help="of an output")
    parser.add_argument("--beam", type=int, default=1)
    args = parser.parse_args()
    if args.save:
        import pathlib

        from translate_ctranslate2 import SHAPES, save_model
        pathlib.Path(args.folder).mkdir()
        save_model(args.folder, *SHAPES[args.model], quantization=args.precision)
        return
    translator = ctranslate2.Translator(args.folder, device="cpu", compute_type=args.precision, intra_threads=1)
    vocabulary = {"small": 8192, "base": 32000}[args.model]
    # Words stand for themselves; no tokenizer is loaded here.
    sentences = [[f"w{4 + hash(word) % (vocabulary - 4)}" for word in line.split()] for line in sys.stdin]
    for result in translator.translate_batch(sentences, beam_size=args.beam, max_batch_size=64, min_decoding_length=args.tokens,
                                             max_decoding_length=args.tokens):
        print(" ".join(result.hypotheses[0]))


if __name__ == "__main__":
    main()
