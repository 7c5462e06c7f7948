"""Text in two made-up languages, for benchmarks that need a dataset of `troupe prepare` but no corpus: words drawn by Zipf's
law, translated word by word and reversed. A pure function of its arguments."""
import itertools
import random

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"


def lexicon(words, draw):
    found = set()
    while len(found) < words:
        found.add("".join(draw.choice(CONSONANTS) + draw.choice(VOWELS) for _ in range(draw.randint(1, 4))))
    return sorted(found, key=lambda word: (len(word), word))  # frequent words are short


def write_pairs(path, pairs, words, length, seed=1):
    """Writes `pairs` lines of source <tab> target, each of half to one and a half times `length` words out of `words`."""
    draw = random.Random(seed)
    source, target = lexicon(words, draw), lexicon(words, draw)
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(words)))
    with open(path, "w") as file:
        for _ in range(pairs):
            chosen = draw.choices(range(words), cum_weights=weights, k=draw.randint((length + 1) // 2, length * 3 // 2))
            file.write(" ".join(source[word] for word in chosen) + "\t")
            file.write(" ".join(target[word] for word in reversed(chosen)) + "\n")
