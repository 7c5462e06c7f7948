#!/usr/bin/env python3
"""Scores made-up translations with sacreBLEU and writes metrics.json beside itself, for tests/data/metrics_test.cpp.

Run by hand:  python3 -m venv venv && venv/bin/pip install sacrebleu && venv/bin/python tests/oracle/metrics.py
"""
import json
import pathlib

import sacrebleu

ENGLISH = [
    ("The small boat crossed the harbour before sunrise.", "The little boat crossed the harbour before sunrise."),
    ("Prices rose by 3.5% to $1,204.99 in the first quarter.", "Prices went up 3.5% to $1,204.99 in the first quarter."),
    ("He said: \"It's well-known (since 1998-99) that A/B tests lie.\"",
     "He said, \"it is well known (since 1998-1999) that A/B tests lie\"."),
    ("Call me at 555-0199, or write to anna@example.org!", "Call 555-0199 or write to anna@example.org."),
    ("version 2.0.1 , released on 2021-05-03 .", "Version 2.0.1, released on 2021-05-03."),
    ("AT&amp;T &lt;b&gt;bold&lt;/b&gt; &quot;quoted&quot;", "AT&T <b>bold</b> \"quoted\""),
]
FRENCH = [
    ("Le petit bateau a traversé le port avant l’aube.", "Le petit bateau traversa le port avant le lever du soleil."),
    ("Où est-elle allée\u00a0? Au marché, paraît-il\u202f!", "Où est-elle partie\u00a0? Au marché, dit-on\u00a0!"),
    ("« Ça coûte 1\u202f250,75 € », dit-il d'un ton sec.", "«\u00a0Ça coûte 1\u00a0250,75\u00a0€\u00a0», dit-il sèchement."),
    ("L'œuvre de l’été naît d'un cœur naïf.", "L’œuvre d’été est née d’un cœur naïf."),
]
GERMAN = [
    ("Das kleine Boot überquerte vor Sonnenaufgang den Hafen.", "Vor Sonnenaufgang überquerte das kleine Boot den Hafen."),
    ("Die Straße ist 3,5 km lang und heißt „Große Gasse“.", "Die Straße heißt „Große Gasse“ und ist 3,5 km lang."),
    ("Fußgängerübergänge gibt's z.B. am Rathausplatz – und am Bahnhof.",
     "Fußgängerüberwege gibt es z. B. am Rathausplatz und am Bahnhof."),
]
OTHER = [
    ("Кошка спит на тёплом камне.", "Кошка спала на тёплом камне."),
    ("猫が暖かい石の上で眠っている。", "猫は暖かい石の上で寝ている。"),
    ("emoji 🙂🙃 and e\u0301 decomposed", "emoji 🙂 and é composed"),
    ("tab\tand  double   spaces", "tab and double spaces"),
    ("", "An empty translation of a sentence that is here."),
]
CASES = {
    "english": ENGLISH,
    "french": FRENCH,
    "german": GERMAN,
    "other": OTHER,
    "all": ENGLISH + FRENCH + GERMAN + OTHER,
    "identical": [(reference, reference) for _, reference in ENGLISH + FRENCH],
    "swapped": [(reference, hypothesis) for hypothesis, reference in ENGLISH + GERMAN],
    "too_short": [(hypothesis[: len(hypothesis) // 2], reference) for hypothesis, reference in ENGLISH + FRENCH],
    "no_four_grams": [("a b c", "a b d"), ("x y", "x y z w")],
    "unigrams_only": [("red green blue black white", "white x blue y red z green"), ("one two", "two one")],
    "nothing_in_common": [("abc def ghi jkl mno", "pqr stu vwx yz! ???")],
    "all_empty": [("", "something"), ("", "or other")],
    "empty_reference": [("something here to say", ""), ("it is so as it was", "it is so as it is")],
}
LINES = [
    "Hello, world!", "1,000.50 and .5 or 5.", "A...B,,C", "1998-99 well-known -5 3-", "it's l'été 'quoted'", "",
    "  spaces\u00a0 around  ", "x@y.z #tag 100% a_b ^ ~ `tick`", "e.g., i.e. (etc.)...", "<skipped>gone", "a.b.c 1.a a.1",
    "«guillemets» „low“ – dash — long …", "&quot;x&quot; &amp;lt; &gt;", "3.14,15", ".,", "été.Où?", "5.-3", "[a]{b}|c\\d",
]


def main():
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    cases = []
    for name, pairs in CASES.items():
        hypotheses, references = [h for h, _ in pairs], [r for _, r in pairs]
        b = bleu.corpus_score(hypotheses, [references])
        cases.append({
            "name": name, "hypotheses": hypotheses, "references": references, "bleu": b.score,
            "precisions": b.precisions, "brevity_penalty": b.bp, "hypothesis_length": b.sys_len,
            "reference_length": b.ref_len, "chrf": chrf.corpus_score(hypotheses, [references]).score})
    intervals = {}
    pairs = CASES["all"] * 10
    for name, metric in (("bleu", bleu), ("chrf", chrf)):
        score = metric.corpus_score([h for h, _ in pairs], [[r for _, r in pairs]], n_bootstrap=1000)
        intervals[name] = {"mean": float(score._mean), "half_width": float(score._ci)}
    tokenizer = sacrebleu.tokenizers.tokenizer_13a.Tokenizer13a()
    golden = {"made_by": "sacreBLEU " + sacrebleu.__version__, "cases": cases, "intervals_of_all_ten_times": intervals,
              "tokens_13a": [[line, tokenizer(line.rstrip())] for line in LINES]}
    path = pathlib.Path(__file__).with_name("metrics.json")
    path.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
