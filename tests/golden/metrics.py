#!/usr/bin/env python3
"""Writes metrics.json: what the programs that define scores of classes and of text make of nasty data.

BLEU, chrF and the paired bootstrap are sacrebleu's, ROUGE is rouge_score's, scores of classes and probabilities are
scikit-learn's, edit distances NLTK's. Four have no program to ask and are written out here from their definitions: SQuAD v1.1's
scores, the calibration error, distinct-n and seq-rep-n. README.md beside this file has the commands.
"""
import json, logging, math, pathlib, random, re, string, sys, unicodedata, warnings
from collections import Counter
from importlib.metadata import version

import numpy as np
from nltk import edit_distance
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import _paired_bs_test, estimate_ci
from sklearn import metrics as sk

PINNED = {"scikit-learn": "1.9.1", "sacrebleu": "2.6.0", "rouge_score": "0.1.2", "nltk": "3.10.4", "numpy": "2.4.6", "regex": "2026.11.19"}
for package, wanted in PINNED.items():
    if version(package) != wanted:
        sys.exit(f"expected {package} {wanted}, found {version(package)}")
if sys.version_info[:2] != (3, 11):
    sys.exit(f"expected Python 3.11, found {sys.version}")  # sum() of floats rounds otherwise from 3.12 on
warnings.simplefilter("ignore")
logging.disable()

rng = random.Random(20261126)


def characters_of_every_category():
    """Lines with characters of each Unicode category beside letters, digits and each other."""
    by_category = {}
    for code in range(sys.maxunicode + 1):
        by_category.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    for category in sorted(set(by_category) - {"Cn", "Co", "Cs"}):
        picked = rng.sample(by_category[category], min(8, len(by_category[category])))
        yield "a".join(picked) + " " + "1".join(picked) + " " + "".join(picked)


LINES = [
    "", " ", "\n", "a", " a ", "A", "ab", "...", "-", "'", "hello", "Hello, world!", "hello world", "the the the the",
    "The cat sat on the mat.", "the cat sat on the mat", "It's 3.14, isn't it? WE'LL see; they'd've known.",
    "In 1,234.56 days; 1,5 or 2.; .5 and ,7 - 10-20 10 -20 -10 1990's 3-D F-16 50% $100.00,",
    "&quot;Tom &amp; Jerry&quot; &lt;b&gt; &amp;lt; &amp;amp; &apos; &nbsp; & a&b <skipped> <skip> <skipped>x",
    "a-\nb c-\n\nd\ne \n f-", "line one\nline two\n\nline four\n", "tab\tvertical\x0bfeed\x0creturn\rfile\x1cgroup\x1drecord\x1eunit\x1fend",
    "no\u00a0break ideographic\u3000space thin\u2009space next\u0085line zero\u200bwidth line\u2028sep par\u2029sep bom\ufeffx",
    "e\u0301te\u0301 été ÉTÉ Straße STRASSE ΌΔΟΣ ὈΔΥΣΣΕΎΣ Σ ΑΣ İstanbul ISPARTA ıslak Å Ǆungla ﬁn K",
    "日本語のテキスト、中文文本。我们都是好朋友，2024年12月31日。", "العربية لغة جميلة ١٢٣٬٤٥٦٫٧ עברית שפה", "हिन्दी भाषा किताब ไทยภาษา",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽👍🏿 ❤️ #️⃣ x👨‍💻1 ☃☃ ☃a1☃1", "½ ² Ⅷ ٣٤٥ 一二三 １２，３ x²+y² 1½ 5·3 5°C ±1 €5 5€ £7.50 «quoted» „so“ ‘it’ it’s l’a",
    "(hi) \"hi\" 'hi' [hi] {hi} ((hi)) .hi hi. ..hi.. ! !! a! !a ¿que? ¡ay! hi… a_b _a_ a/b//c\\d ^e `f` ~g |h| @i #j *k* +l=m<n>o",
    "x" * 120, "a b " * 30, "no no no no no no no never", "Punctuation,glued:to;words.And(more)like-this_one/and\\that",
    "He said: \"The U.S. economy grew 2.5% in Q3, i.e. $1,000,000 (approx.)\" - didn't he?", ", . , .. ,, .,., 1., ,1 1,, ..1 a,,b a..b 1,.2",
    "Ein Hund läuft schnell über die grüne Wiese, während zwei Männer zuschauen.", "Zwei Männer schauen zu, wie ein Hund über die Wiese läuft.",
] + list(characters_of_every_category())
LETTERS = "aAbZé日1290.,,..--'!?&;<>()$%_ \n\t\u00a0’€½\u0301👍"
LINES += ["".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 40))) for _ in range(40)]
WORDS = "the cat sat on a mat and then , the dog 1,000 ran. off the U.S. grass - it's é 日本 Dog CAT".split()


def sentence(n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def spoilt(text):
    words = text.split(" ")
    for _ in range(rng.randint(0, 4)):
        if not words:
            break
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        kind = rng.randrange(4)
        if kind == 0:
            words.pop(i)
        elif kind == 1:
            words[i], words[j] = words[j], words[i]
        elif kind == 2:
            words.insert(i, words[j])
        else:
            words[i] = words[i].upper()
    return " ".join(words)


def translations():
    """Corpora of (hypothesis, references)."""
    sentences = [sentence(rng.randint(1, 25)) for _ in range(30)]
    return {
        "spoilt": [(spoilt(text), [text]) for text in sentences],
        "three references": [(spoilt(text), [spoilt(text), spoilt(spoilt(text)), sentence(rng.randint(1, 25))]) for text in sentences[:20]],
        "references vary": [(spoilt(text), [spoilt(text) for _ in range(rng.randint(1, 4))]) for text in sentences[:12]],
        # 4 is as near to 3 as to 5.
        "lengths tie": [("a b c d", ["a b c d e", "a b c"]), ("a b c d", ["x y z", "a b c d e"]), ("a", ["a b", ""])],
        "nasty": [(line, [rng.choice([line, spoilt(line), line.lower()])]) for line in LINES] + [(a, [b]) for a, b in zip(LINES, LINES[1:])],
        "nothing matches": [("x y z", ["a b c"]), ("", ["a"]), ("q", [""])],
        "empty hypotheses": [("", ["a b c d e"]), (" ", ["a"])],
        "empty references": [("a b c d e", [""]), ("a", [" "])],
        "single words": [("a", ["a"]), ("b", ["b"]), ("c", ["d"])],
        "short": [("the cat sat", ["the cat sat"]), ("a dog", ["a dog ran"])],
        "repeats": [("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]), ("no " * 40, ["no no"])],
        "too short": [("the cat sat on", ["the cat sat on the mat and then ran off"])],
        "words in another order": [("mat the on sat cat the", ["the cat sat on the mat"]), ("d c b a", ["a b c d"])],
    }


def transposed(corpus):
    most = max(len(references) for _, references in corpus)
    return [[references[i] if i < len(references) else None for _, references in corpus] for i in range(most)]


def signature_of(metric):
    return str(metric.get_signature()).split("|version:")[0]


def bleu_settings():
    for tokenizer in ["13a", "intl", "char", "none"]:
        for lowercase in [False, True]:
            yield dict(tokenize=tokenizer, lowercase=lowercase)
    for method, value in [("none", None), ("floor", None), ("floor", 0.01), ("add-k", None), ("add-k", 0.5)]:
        for effective in [False, True]:
            yield dict(smooth_method=method, smooth_value=value, effective_order=effective)
    yield dict(effective_order=True)


def bleu(corpora):
    for setting in bleu_settings():
        metric = BLEU(**setting)
        told = {
            "tokenizer": setting.get("tokenize", "13a"), "lowercase": metric.lowercase, "smoothing": metric.smooth_method,
            "value": BLEU.SMOOTH_DEFAULTS[metric.smooth_method] if metric.smooth_value is None else metric.smooth_value,
            "effective": metric.effective_order, "corpora": {}, "sentences": {},
        }
        for name, corpus in corpora.items():
            score = metric.corpus_score([hypothesis for hypothesis, _ in corpus], transposed(corpus))
            # add-k adds to the counts that a score has: ask again without.
            plain = BLEU(**setting | dict(smooth_method="none", smooth_value=None)).corpus_score([h for h, _ in corpus], transposed(corpus))
            told["corpora"][name] = {
                "score": score.score, "precisions": score.precisions, "brevity_penalty": score.bp, "hypothesis_len": score.sys_len,
                "reference_len": score.ref_len, "matches": plain.counts, "totals": plain.totals, "signature": signature_of(metric),
            }
            if name in ("nasty", "three references") and (metric.effective_order or setting == dict(tokenize="13a", lowercase=False)):
                told["sentences"][name] = [metric.sentence_score(h, r).score for h, r in corpus]
        yield told


def chrf(corpora):
    for word_order in [0, 2]:
        for lowercase in [False, True]:
            metric = CHRF(word_order=word_order, lowercase=lowercase)
            told = {"word_order": word_order, "lowercase": lowercase, "corpora": {}, "sentences": {}}
            for name, corpus in corpora.items():
                score = metric.corpus_score([hypothesis for hypothesis, _ in corpus], transposed(corpus)).score
                told["corpora"][name] = {"score": score, "signature": signature_of(metric)}
                if name in ("nasty", "three references"):
                    told["sentences"][name] = [metric.sentence_score(h, r).score for h, r in corpus]
            yield told


def rouge(corpora):
    few = lambda: "".join(rng.choice(["a ", "b ", "c ", "\n"]) for _ in range(rng.randint(1, 25)))
    segments = [segment for name in ("spoilt", "three references", "nasty", "repeats", "empty hypotheses") for segment in corpora[name]]
    # Few words, many lines: longest common subsequences are not unique, and lines claim the same words.
    segments += [(few(), [few() for _ in range(rng.randint(1, 3))]) for _ in range(60)]
    names = ["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"]
    scorer = RougeScorer(names, use_stemmer=False)
    scores = [scorer.score_multi(references, hypothesis) for hypothesis, references in segments]
    return {
        "segments": segments,
        "scores": {name: [list(score[name]) for score in scores] for name in names},
        "means": {name: float(np.mean([score[name].fmeasure for score in scores])) for name in names},
    }


def squad_normal(text):
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", kept).split())


def squad_f1(answer, gold):
    answer, gold = squad_normal(answer).split(), squad_normal(gold).split()
    shared = (Counter(answer) & Counter(gold)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(answer), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def squad():
    cases = [
        ("The Eiffel Tower!", ["Eiffel tower"]), ("", [""]), ("the", ["a", "an"]), ("", ["a b"]), ("a b", [""]), ("U.S.A.", ["USA", "the US of A"]),
        ("an apple a day", ["Apple day", "the apple"]), ("theatre another banana", ["theatre  another\nbanana"]), ("a-b the-c", ["ab thec"]),
        ("l’a the–end a\u0301 “the” an…", ["l", "end"]), ("1,000", ["1000"]), ("in in in Paris", ["in Paris", "Paris in in"]),
        ("कि a की", ["कि की"]), ("THE ΌΔΟΣ", ["όδος"]), ("a\x1fb", ["b"]), ("_the_ a_b", ["ab"]),
    ]
    cases += [(line, [other, spoilt(line)]) for line, other in zip(LINES, LINES[2:])]
    cases += [(spoilt(text), [text, spoilt(text)]) for text in [sentence(rng.randint(1, 8)) for _ in range(20)]]
    return [
        {
            "answer": answer, "gold": gold, "normal": squad_normal(answer),
            "exact": any(squad_normal(answer) == squad_normal(one) for one in gold), "f1": max(squad_f1(answer, one) for one in gold),
        }
        for answer, gold in cases
    ]


def confusion(n_classes, truth, predicted):
    """A prediction of None is another label to scikit-learn, which `labels` leaves out."""
    labels = list(range(n_classes))
    labelled = [n_classes if label is None else label for label in predicted]
    scores = lambda average: sk.precision_recall_fscore_support(truth, labelled, labels=labels, average=average)
    return {
        "n_classes": n_classes, "truth": truth, "predicted": predicted, "accuracy": float(sk.accuracy_score(truth, labelled)),
        "classes": [[float(x) for x in row] for row in zip(*scores(None))],
        **{average: [float(x) for x in scores(average)[:3]] for average in ("micro", "macro", "weighted")},
    }


def confusions():
    yield confusion(2, [0, 1, 1, 0], [0, 1, 0, 0])
    yield confusion(3, [0, 0, 1, 2], [0, 0, 0, 0])  # two classes never predicted
    yield confusion(3, [0, 0, 1, 1], [0, 2, 1, 2])  # one never true
    yield confusion(4, [0, 0, 1], [1, 0, 1])  # two that nothing has
    yield confusion(2, [0, 1, 1], [None, None, None])
    yield confusion(1, [0, 0], [0, None])
    yield confusion(3, [0, 1, 2, 2, 1], [None, 1, 2, None, 0])
    for n_classes, n in [(2, 50), (5, 200), (20, 300)]:
        truth = [min(int(rng.expovariate(1.0)), n_classes - 1) for _ in range(n)]
        guess = lambda label: rng.choices([label, rng.randrange(n_classes), None], [6, 3, 1])[0]
        yield confusion(n_classes, truth, [guess(label) for label in truth])


def areas():
    cases = [([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), ([0.5] * 6, [0, 1, 0, 1, 1, 0]), ([1, 2, 2, 2, 3], [0, 0, 1, 1, 1]), ([-3.5, 2], [1, 0])]
    for n, n_scores in [(30, 4), (200, 10), (200, 10**6)]:
        positive = [int(rng.random() < 0.3) for _ in range(n)]
        cases.append(([rng.randrange(n_scores) / n_scores + 0.2 * p for p in positive], positive))
    return [{"scores": s, "positive": [bool(p) for p in t], "area": float(sk.roc_auc_score(t, s))} for s, t in cases]


def probabilities(n, n_classes, digits):
    """Rows that sum to 1 within rounding; few digits make ties, zeros and ones."""
    truth = list(range(n_classes)) + [rng.randrange(n_classes) for _ in range(n - n_classes)]
    rows = []
    for label in truth:
        weights = [rng.random() ** 3 + (0.7 if c == label and rng.random() < 0.6 else 0) for c in range(n_classes)]
        borders = [round(sum(weights[:c]) / sum(weights), digits) for c in range(n_classes + 1)]
        parts = [round(high - low, digits) for low, high in zip(borders, borders[1:])]
        rows.append(parts)
    return truth, rows


def of_probabilities():
    for n, n_classes, digits in [(40, 2, 1), (40, 2, 6), (60, 3, 1), (120, 5, 2), (30, 7, 6)]:
        truth, rows = probabilities(n, n_classes, digits)
        labels = list(range(n_classes))
        two = n_classes == 2
        yield {
            "truth": truth, "rows": rows, "log_loss": float(sk.log_loss(truth, rows, labels=labels)),
            "brier": float(sk.brier_score_loss(truth, [r[1] for r in rows] if two else rows, **({} if two else {"labels": labels}))),
            "area": float(sk.roc_auc_score(truth, [r[1] for r in rows])) if two
            else float(sk.roc_auc_score(truth, rows, multi_class="ovr", average="macro", labels=labels)),
        }


def calibration_error(confidences, correct, n_bins):
    """Guo et al. 2017, equation 3, with the bins of section 3: ((m - 1)/M, m/M]."""
    confidences, correct = np.array(confidences), np.array(correct, dtype=float)
    error = 0.0
    for m in range(1, n_bins + 1):
        inside = (confidences > (m - 1) / n_bins) & (confidences <= m / n_bins)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
    return float(error)


def calibrations():
    for n, n_bins in [(5, 15), (60, 15), (60, 10), (200, 15), (40, 1)]:
        # Many on the border of a bin.
        confidences = [rng.choice([rng.randint(1, n_bins) / n_bins, 1.0, 1.0 - rng.random() ** 2 * 0.999, 0.5]) for _ in range(n)]
        correct = [rng.random() < confidence * 0.9 for confidence in confidences]
        yield {"confidences": confidences, "correct": correct, "n_bins": n_bins, "error": calibration_error(confidences, correct, n_bins)}


def edits():
    pairs = [(line, spoilt(other)) for line, other in zip(LINES, LINES[1:])] + [(spoilt(text), text) for text in [sentence(20) for _ in range(10)]]
    for hypothesis, reference in pairs:
        yield {
            "hypothesis": hypothesis, "reference": reference, "characters": edit_distance(hypothesis, reference),
            "words": edit_distance(hypothesis.split(), reference.split()),
            "lens": [max(len(hypothesis), len(reference)), len(reference), max(len(hypothesis.split()), len(reference.split())), len(reference.split())],
        }


def diversity():
    sets = [["a b a b", "a b c", ""], ["no " * 20], LINES, [sentence(rng.randint(0, 12)) for _ in range(25)]]
    for texts in sets:
        told = {"texts": texts, "n": []}
        for n in [1, 2, 3, 4]:
            of = lambda words: [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
            lists = [of(text.split()) for text in texts]
            together = [ngram for ngrams in lists for ngram in ngrams]
            repeated = [1 - len(set(ngrams)) / len(ngrams) for ngrams in lists if ngrams]
            told["n"].append({
                "distinct": len(set(together)), "ngrams": len(together), "words": sum(len(text.split()) for text in texts),
                "repeated": sum(repeated) / len(repeated) if repeated else None,
            })
        yield told


def bootstrap():
    """sacrebleu's p-value and interval, with the scores of the resamples that they come from."""
    references = [sentence(rng.randint(6, 20)) for _ in range(40)]
    slightly, clearly = [spoilt(text) for text in references], [spoilt(spoilt(spoilt(text))) for text in references]
    other = [spoilt(text) for text in references]
    for system, baseline in [(slightly, other), (clearly, slightly), (slightly, slightly[:30] + clearly[30:])]:
        metric, n_samples, seed = BLEU(), 200, 12345
        system_stats, baseline_stats = ([np.array(metric._extract_corpus_statistics(s, [references]), dtype="float32")] for s in (system, baseline))
        baseline_score, system_score = (metric.corpus_score(s, [references]) for s in (baseline, system))
        _, result = _paired_bs_test({"BLEU": (baseline_stats[0].tolist(), baseline_score)}, "s", system, [references], {"BLEU": metric}, n_samples, seed=seed)
        drawn = np.random.default_rng(seed).choice(len(references), size=(n_samples, len(references)), replace=True)
        scores = lambda stats: [metric._compute_score_from_stats(rows.sum(0)).score for rows in stats[0][drawn]]
        system_scores, baseline_scores = scores(system_stats), scores(baseline_stats)
        assert estimate_ci(np.array(system_scores))[1] == result["BLEU"].ci, "these are the resamples that the test drew"
        yield {
            "system": system_scores, "baseline": baseline_scores, "difference": system_score.score - baseline_score.score,
            "p_value": result["BLEU"].p_value, "half_interval": float(result["BLEU"].ci),
        }


corpora = translations()
tokenizers = {name: BLEU(tokenize=name) for name in ["13a", "intl", "char", "none"]}
out = {
    "versions": PINNED,
    "white_space": [code for code in range(sys.maxunicode + 1) if chr(code).isspace()],
    "lines": LINES,
    "tokens": {name: [" ".join(bleu._preprocess_segment(line).split()) for line in LINES] for name, bleu in tokenizers.items()},
    "corpora": corpora,
    "bleu": list(bleu(corpora)),
    "chrf": list(chrf(corpora)),
    "rouge": rouge(corpora),
    "squad": squad(),
    "confusions": list(confusions()),
    "areas": areas(),
    "probabilities": list(of_probabilities()),
    "calibrations": list(calibrations()),
    "edits": list(edits()),
    "diversity": list(diversity()),
    "bootstrap": list(bootstrap()),
}


def finite(value):
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    return all(map(finite, values)) and not (isinstance(value, float) and not math.isfinite(value))


assert finite(out)
path = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).with_name("metrics.json")
path.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")
print(path.stat().st_size, "bytes:", ", ".join(f"{key} {len(json.dumps(value))}" for key, value in out.items()))
