"""CTranslate2 for the work of bench/start.py: --save writes a model of random 8-bit weights; without it, translates standard
input, line by line."""
import argparse
import sys

import ctranslate2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--tokens", type=int, default=30, help="of an output")
    args = parser.parse_args()
    if args.save:
        import pathlib

        from translate_ctranslate2 import SHAPES, save_model
        pathlib.Path(args.folder).mkdir()
        save_model(args.folder, *SHAPES["base"], quantization="int8")
        return
    translator = ctranslate2.Translator(args.folder, device="cpu", compute_type="int8", intra_threads=1)
    vocabulary = 32000
    # Words stand for themselves; no tokenizer is loaded here.
    sentences = [[f"w{4 + hash(word) % (vocabulary - 4)}" for word in line.split()] for line in sys.stdin]
    for result in translator.translate_batch(sentences, beam_size=1, max_batch_size=64, min_decoding_length=args.tokens,
                                             max_decoding_length=args.tokens):
        print(" ".join(result.hypotheses[0]))


if __name__ == "__main__":
    main()
