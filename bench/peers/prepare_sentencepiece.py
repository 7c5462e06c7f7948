"""SentencePiece for the work of bench/prepare.py: trains a BPE tokenizer on a sample of both columns of a TSV file (or takes
--model), encodes them all, and prints one JSON line with the seconds from the start of reading to the last token."""
import argparse
import json
import pathlib
import time

import sentencepiece


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tsv", type=pathlib.Path, required=True)
    parser.add_argument("--out", required=True, help="prefix of the model")
    parser.add_argument("--model", help="encode with this one")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    begin = time.perf_counter()
    lines = [side for line in args.tsv.read_text().splitlines() for side in line.split("\t")[:2]]
    if not args.model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=args.out, model_type="bpe", vocab_size=args.vocabulary,
            input_sentence_size=args.sentences, shuffle_input_sentence=True, byte_fallback=True, character_coverage=0.9995,
            num_threads=args.threads, pad_id=0, unk_id=1, bos_id=2, eos_id=3, minloglevel=2)
    trained = time.perf_counter()
    processor = sentencepiece.SentencePieceProcessor(model_file=args.model or args.out + ".model")
    tokens = 0
    for at in range(0, len(lines), 100_000):  # so that all tokens are never kept at once
        tokens += sum(map(len, processor.encode(lines[at:at + 100_000], num_threads=args.threads)))
    end = time.perf_counter()
    print(json.dumps({"system": "sentencepiece", "version": sentencepiece.__version__, "seconds": end - begin,
                      "train_s": trained - begin, "encode_s": end - trained, "tokens": tokens}))


if __name__ == "__main__":
    main()
