//! The scores against the programs that define them, from the golden file that `tests/golden/metrics.py` makes. Invariants that need no
//! reference are tested beside each score.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::*;

static GOLDEN: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../../../tests/golden/metrics.json")).unwrap());

/// What lies under a key of the file.
pub(crate) fn value<T: DeserializeOwned>(key: &str) -> T {
    read(&GOLDEN[key])
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    T::deserialize(value).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// For what is no more than sums, products and quotients in the same order: IEEE 754 has one result.
#[track_caller]
fn assert_same(found: f64, expected: &Value, what: impl std::fmt::Debug) {
    assert_eq!(found, number(expected), "{what:?}");
}

/// For sums in another order, and where a libm need not round as another does. What is 0 is 0.
/// Measured max relative Δ 4e-16, and none for BLEU; bound 1e-13.
#[track_caller]
fn assert_close(found: f64, expected: &Value, what: impl std::fmt::Debug) {
    let expected = number(expected);
    assert!((found - expected).abs() <= 1e-13 * expected.abs(), "{found} is not {expected}: {what:?}");
}

type Segments = Vec<(String, Vec<String>)>;

fn corpora() -> Vec<(&'static String, Segments)> {
    GOLDEN["corpora"].as_object().unwrap().iter().map(|(name, corpus)| (name, read(corpus))).collect()
}

/// How many references each segment has, where that is the same for all.
fn n_references(corpus: &Segments) -> Option<usize> {
    let n = corpus[0].1.len();
    corpus.iter().all(|(_, references)| references.len() == n).then_some(n)
}

fn case(setting: &Value) -> Case {
    if read(&setting["lowercase"]) { Case::Lower } else { Case::Mixed }
}

#[track_caller]
fn assert_signature(found: &str, expected: &Value) {
    let (how, version) = found.split_once("|version:kindling-").unwrap();
    assert_eq!(how, expected.as_str().unwrap());
    assert!(version.starts_with(|c: char| c.is_ascii_digit()));
}

#[test]
fn tokens_are_sacrebleus() {
    let lines: Vec<String> = value("lines");
    for tokenizer in BleuTokenizer::ALL {
        let expected: Vec<String> = read(&GOLDEN["tokens"][tokenizer.name()]);
        for (line, expected) in lines.iter().zip(&expected) {
            let tokens = Bleu { tokenizer, ..Bleu::default() }.tokenize(line);
            assert_eq!(words(&tokens).collect::<Vec<_>>().join(" "), *expected, "{tokenizer:?} of {line:?}");
        }
    }
}

fn bleu(setting: &Value) -> Bleu {
    let value = || number(&setting["value"]);
    Bleu {
        tokenizer: BleuTokenizer::ALL.into_iter().find(|tokenizer| tokenizer.name() == setting["tokenizer"]).unwrap(),
        case: case(setting),
        smoothing: match setting["smoothing"].as_str().unwrap() {
            "exp" => Smoothing::Exp,
            "none" => Smoothing::None,
            "floor" => Smoothing::Floor(value()),
            "add-k" => Smoothing::AddK(value()),
            other => panic!("smoothing {other}"),
        },
        order: if read(&setting["effective"]) { BleuOrder::Effective } else { BleuOrder::Full },
    }
}

#[test]
fn bleu_is_sacrebleus() {
    let corpora = corpora();
    for setting in list(&GOLDEN["bleu"]) {
        let bleu = bleu(setting);
        for (name, corpus) in &corpora {
            let segments: Vec<BleuStats> = corpus.iter().map(|(hypothesis, references)| bleu.stats(hypothesis, references)).collect();
            let mut stats = BleuStats::default();
            segments.iter().for_each(|segment| stats += *segment);

            let expected = &setting["corpora"][name.as_str()];
            let counts = [stats.matches, stats.totals];
            assert_eq!(counts, [read::<[u64; 4]>(&expected["matches"]), read(&expected["totals"])], "{bleu:?} of {name}");
            let score = bleu.score(&stats);
            let lens = [score.hypothesis_len, score.reference_len];
            assert_eq!(lens, [read::<u64>(&expected["hypothesis_len"]), read(&expected["reference_len"])], "{bleu:?} of {name}");
            assert_close(score.score, &expected["score"], (bleu, name));
            assert_close(score.brevity_penalty, &expected["brevity_penalty"], (bleu, name));
            for (precision, expected) in score.precisions.iter().zip(list(&expected["precisions"])) {
                assert_same(*precision, expected, (bleu, name));
            }
            assert_signature(&bleu.signature(n_references(corpus)), &expected["signature"]);

            for (i, expected) in setting["sentences"].get(name.as_str()).into_iter().flat_map(list).enumerate() {
                assert_close(bleu.score(&segments[i]).score, expected, (bleu, &corpus[i]));
            }
        }
    }
}

#[test]
fn chrf_is_sacrebleus() {
    let corpora = corpora();
    for setting in list(&GOLDEN["chrf"]) {
        let variant = if setting["word_order"] == 0 { ChrfVariant::Chrf2 } else { ChrfVariant::PlusPlus };
        let chrf = Chrf { variant, case: case(setting) };
        for (name, corpus) in &corpora {
            let segments: Vec<ChrfStats> = corpus.iter().map(|(hypothesis, references)| chrf.stats(hypothesis, references)).collect();
            let mut stats = ChrfStats::default();
            segments.iter().for_each(|segment| stats += *segment);

            let expected = &setting["corpora"][name.as_str()];
            assert_same(chrf.score(&stats), &expected["score"], (chrf, name));
            assert_signature(&chrf.signature(n_references(corpus)), &expected["signature"]);
            for (i, expected) in setting["sentences"].get(name.as_str()).into_iter().flat_map(list).enumerate() {
                assert_same(chrf.score(&segments[i]), expected, (chrf, &corpus[i]));
            }
        }
    }
}

#[track_caller]
fn assert_all_close(found: PrecisionRecallF1, expected: &Value, what: impl std::fmt::Debug) {
    assert_close(found.precision, &expected[0], &what);
    assert_close(found.recall, &expected[1], &what);
    assert_close(found.f1, &expected[2], &what);
}

#[test]
fn rouge_is_googles() {
    let segments: Segments = read(&GOLDEN["rouge"]["segments"]);
    let all = [("rouge1", Rouge::N(1)), ("rouge2", Rouge::N(2)), ("rouge3", Rouge::N(3)), ("rougeL", Rouge::L), ("rougeLsum", Rouge::LSum)];
    for (name, rouge) in all {
        let scores: Vec<_> = segments.iter().map(|(hypothesis, references)| rouge.score(hypothesis, references)).collect();
        for ((found, expected), segment) in scores.iter().zip(list(&GOLDEN["rouge"]["scores"][name])).zip(&segments) {
            assert_same(found.precision, &expected[0], (name, segment));
            assert_same(found.recall, &expected[1], (name, segment));
            assert_same(found.f1, &expected[2], (name, segment));
        }
        let mean: Mean = scores.iter().map(|score| score.f1).collect();
        assert_close(mean.value(), &GOLDEN["rouge"]["means"][name], name);
    }
}

#[test]
fn answers_are_scored_as_in_squad() {
    for case in list(&GOLDEN["squad"]) {
        let answer = case["answer"].as_str().unwrap();
        assert_eq!(normalize_answer(answer), case["normal"].as_str().unwrap(), "{answer:?}");
        let score = Squad::of(answer, &read::<Vec<String>>(&case["gold"]));
        assert_eq!(score.n_exact == 1, read::<bool>(&case["exact"]), "{answer:?}");
        assert_same(score.f1(), &case["f1"], answer);
    }
}

#[test]
fn classes_are_scored_as_by_scikit_learn() {
    for case in list(&GOLDEN["confusions"]) {
        let mut confusion = Confusion::new(read(&case["n_classes"]));
        let (truth, predicted): (Vec<usize>, Vec<Option<usize>>) = (read(&case["truth"]), read(&case["predicted"]));
        truth.iter().zip(&predicted).for_each(|(truth, predicted)| confusion.add(*truth, *predicted));
        assert_close(confusion.accuracy(), &case["accuracy"], &confusion);
        for (class, expected) in list(&case["classes"]).iter().enumerate() {
            let found = confusion.class(class);
            assert_all_close(found.scores, expected, &confusion);
            assert_eq!(found.support as f64, number(&expected[3]));
        }
        for (name, average) in [("micro", Average::Micro), ("macro", Average::Macro), ("weighted", Average::Weighted)] {
            assert_all_close(confusion.average(average), &case[name], (name, &confusion));
        }
    }
}

#[test]
fn areas_are_scikit_learns() {
    for case in list(&GOLDEN["areas"]) {
        let (scores, positive): (Vec<f64>, Vec<bool>) = (read(&case["scores"]), read(&case["positive"]));
        let area = roc_auc(scores.into_iter().zip(positive));
        assert_close(area.unwrap(), &case["area"], case);
    }
}

#[test]
fn probabilities_are_scored_as_by_scikit_learn() {
    for case in list(&GOLDEN["probabilities"]) {
        let (rows, truth): (Vec<Vec<f64>>, Vec<usize>) = (read(&case["rows"]), read(&case["truth"]));
        let mut sum = ProbabilityScores::default();
        rows.iter().zip(&truth).for_each(|(row, truth)| sum += ProbabilityScores::of(row, *truth));
        assert_close(sum.brier(), &case["brier"], case);
        assert_close(sum.log_loss(), &case["log_loss"], case);
        let examples: Vec<(&Vec<f64>, usize)> = rows.iter().zip(truth).collect();
        assert_close(roc_auc_one_vs_rest(&examples).unwrap(), &case["area"], case);
    }
}

#[test]
fn the_calibration_error_is_that_of_its_definition() {
    for case in list(&GOLDEN["calibrations"]) {
        let mut calibration = Calibration::new(read(&case["n_bins"]));
        let (confidences, correct): (Vec<f64>, Vec<bool>) = (read(&case["confidences"]), read(&case["correct"]));
        confidences.iter().zip(correct).for_each(|(confidence, is_correct)| calibration.add(*confidence, is_correct));
        assert_close(calibration.error(), &case["error"], case);
    }
}

#[test]
fn edits_are_as_many_as_nltk_finds() {
    for case in list(&GOLDEN["edits"]) {
        let (hypothesis, reference) = (case["hypothesis"].as_str().unwrap(), case["reference"].as_str().unwrap());
        let lens: [u64; 4] = read(&case["lens"]);
        let edits = |key: &str, longer_len, reference_len| Edits { n_edits: read(&case[key]), reference_len, longer_len };
        assert_eq!(Edits::of_characters(hypothesis, reference), edits("characters", lens[0], lens[1]), "{case}");
        assert_eq!(Edits::of_words(hypothesis, reference), edits("words", lens[2], lens[3]), "{case}");
    }
}

#[test]
fn diversity_is_that_of_its_definitions() {
    for case in list(&GOLDEN["diversity"]) {
        let texts: Vec<String> = read(&case["texts"]);
        let texts: Vec<Vec<&str>> = texts.iter().map(|text| words(text).collect()).collect();
        for (n, expected) in (1..).zip(list(&case["n"])) {
            let counts = |key: &str| read::<u64>(&expected[key]);
            let distinct = Distinct { n_distinct: counts("distinct"), n_ngrams: counts("ngrams"), n_items: counts("words") };
            assert_eq!(distinct_n(&texts, n), distinct, "{n} of {texts:?}");
            let repeated: Mean = texts.iter().filter_map(|text| repeated_n(text, n)).collect();
            assert_same(repeated.value(), &expected["repeated"], (n, &texts));
        }
    }
}
