//! Answers: likelihoods are those of whole sequences, a head reads the last token, and no row changes what another gets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_config::{Dropout, ModelConfig, Pooling, Seed, TaskConfig};
use kindling_eval::{Answer, Asked, EvalError, Predictor};
use kindling_model::weights::{named_parameters, with_parameters};
use kindling_model::{Gpt, Pass};
use kindling_tokenizer::{BpeTrainer, END_OF_TEXT, Tokenizer};

const TEXT: &str = "the quick brown fox jumps over the lazy dog and the cat sat on the mat while the sun shone on the sea";
const CONTEXT: usize = 24;

fn tokenizer() -> Tokenizer {
    Tokenizer::Bpe(BpeTrainer::new(290).with_special_tokens(&[END_OF_TEXT]).train(&[TEXT]).unwrap())
}

fn model(n_classes: usize, pooling: Pooling) -> Gpt {
    let config = ModelConfig {
        n_layers: 2,
        n_heads: 2,
        d_model: 32,
        d_ff: 64,
        context_len: CONTEXT,
        vocab_size: tokenizer().vocab_size(),
        bias: true,
        norm_eps: 1e-5,
        dropout: Dropout::NONE,
        n_classes,
        pooling,
    };
    let model = Gpt::new(&config, Seed(7), &Device::flex());
    let scaled = named_parameters(&model).into_iter().map(|(name, mut tensor)| {
        tensor.values.iter_mut().for_each(|value| *value *= if tensor.shape.len() == 2 { 6.0 } else { 1.0 });
        (name, tensor)
    });
    with_parameters(model, scaled.collect(), std::path::Path::new("scaled")).unwrap()
}

fn task(text: &str) -> TaskConfig {
    let common = "name = \"t\"\nprompt = \"{{ text }}\"\ntarget = \"{{ label }}\"\n";
    TaskConfig::from_toml(&format!("{common}{text}\n[data]\ntrain = [\"t.jsonl\"]\n"), "t.toml", std::path::Path::new("")).unwrap()
}

fn classification() -> TaskConfig {
    task("kind = \"classification\"\nlabels = [\" fox\", \" dog\", \" the cat\"]")
}

fn questions() -> Vec<Asked> {
    let words: Vec<&str> = TEXT.split(' ').collect();
    (0..23)
        .map(|i| Asked {
            prompt: words[i % 13..(i % 13 + 1 + i % 4).min(words.len())].join(" "),
            choices: (0..2 + i % 3).map(|j| format!(" {}", words[(i + 5 * j) % words.len()].repeat(1 + j))).collect(),
        })
        .collect()
}

fn answers(model: &Gpt, task: &TaskConfig, batch_size: usize, asked: &[Asked]) -> Result<Vec<Answer>, EvalError> {
    let tokenizer = tokenizer();
    Predictor { model, tokenizer: &tokenizer, task, batch_size }.answer(asked, &mut |_, _| {})
}

/// ln p of a target behind the prompt, and of its end where that is wanted, the sequence computed by itself.
fn log_likelihood(model: &Gpt, prompt: &str, target: &str, has_end: bool) -> f64 {
    let tokenizer = tokenizer();
    let end = tokenizer.end_of_text().unwrap();
    let given = [vec![end], tokenizer.encode(prompt).unwrap()].concat();
    let target: Vec<u32> = tokenizer.encode(target).unwrap().into_iter().chain(has_end.then_some(end)).collect();
    let ids: Vec<i64> = given.iter().chain(&target).map(|id| i64::from(*id)).collect();
    let (t, v) = (ids.len(), tokenizer.vocab_size());
    let logits = model.forward(Tensor::<2, Int>::from_data(TensorData::new(ids, [1, t]), &Device::flex()), &Pass::default());
    let logits: Vec<f32> = logits.into_data().try_into_vec().unwrap();
    let at = |(i, id): (usize, &u32)| {
        let row = &logits[(given.len() - 1 + i) * v..][..v];
        f64::from(row[*id as usize]) - row.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln()
    };
    target.iter().enumerate().map(at).sum()
}

fn normalised(scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().map(|score| score.exp()).sum();
    scores.iter().map(|score| score.exp() / sum).collect()
}

fn check_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    // Measured at most 1.6e-6.
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}, expected {expected:?}");
}

#[test]
fn labels_are_weighed_by_their_likelihood() {
    let (model, task) = (model(0, Pooling::Last), classification());
    for (asked, answer) in questions().iter().zip(answers(&model, &task, 8, &questions()).unwrap()) {
        let scores: Vec<f64> = task.labels.iter().map(|label| log_likelihood(&model, &asked.prompt, label, true)).collect();
        check_close(&answer.probabilities, &normalised(&scores));
        let best = (0..3).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        assert_eq!(answer.text, task.labels[best]);
        assert!((answer.log_likelihood.unwrap() - scores[best]).abs() < 1e-4);
    }
}

#[test]
fn choices_are_weighed_by_their_likelihood_a_byte() {
    let model = model(0, Pooling::Last);
    let task = task("kind = \"multiple-choice\"\nchoices = \"choices\"");
    let found = answers(&model, &task, 8, &questions()).unwrap();
    let mut by_bytes_alone = 0;
    for (asked, answer) in questions().iter().zip(found) {
        let plain: Vec<f64> = asked.choices.iter().map(|choice| log_likelihood(&model, &asked.prompt, choice, false)).collect();
        let a_byte: Vec<f64> = plain.iter().zip(&asked.choices).map(|(nats, choice)| nats / choice.trim().len() as f64).collect();
        let best = |scores: &[f64]| (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        assert_eq!(answer.text, asked.choices[best(&a_byte)]);
        by_bytes_alone += usize::from(best(&a_byte) != best(&plain));
        let mean = asked.choices.iter().map(|choice| choice.trim().len()).sum::<usize>() as f64 / asked.choices.len() as f64;
        check_close(&answer.probabilities, &normalised(&a_byte.iter().map(|score| score * mean).collect::<Vec<_>>()));
    }
    assert!(by_bytes_alone > 0, "lengths decide somewhere");
}

#[test]
fn a_head_reads_the_last_token_or_the_mean_of_all() {
    for pooling in [Pooling::Last, Pooling::Mean] {
        let (model, task, tokenizer) = (model(3, pooling), classification(), tokenizer());
        let headless = {
            let values = named_parameters(&model);
            let table = values.iter().find(|(name, _)| name.starts_with("class_embedding")).unwrap().1.clone();
            let hidden = |prompt: &str| -> Vec<f32> {
                let ids: Vec<i64> = [vec![tokenizer.end_of_text().unwrap()], tokenizer.encode(prompt).unwrap()]
                    .concat()
                    .iter()
                    .map(|id| i64::from(*id))
                    .collect();
                let t = ids.len();
                // Without a head over classes what is pooled is what comes out behind the last norm.
                let config = ModelConfig { n_classes: 0, pooling: Pooling::Last, ..model.config().clone() };
                let plain = model.clone().with_head(&config, Seed(0));
                let x: Vec<f32> = plain
                    .hidden(Tensor::<2, Int>::from_data(TensorData::new(ids, [1, t]), &Device::flex()), &Pass::default())
                    .into_data()
                    .try_into_vec()
                    .unwrap();
                match pooling {
                    Pooling::Last => x[(t - 1) * 32..].to_vec(),
                    Pooling::Mean => (0..32).map(|c| (0..t).map(|i| x[i * 32 + c]).sum::<f32>() / t as f32).collect(),
                }
            };
            move |prompt: &str| -> Vec<f64> {
                let x = hidden(prompt);
                table.values.chunks(32).map(|row| row.iter().zip(&x).map(|(a, b)| f64::from(a * b)).sum()).collect()
            }
        };
        for (asked, answer) in questions().iter().zip(answers(&model, &task, 8, &questions()).unwrap()) {
            let logits = headless(&asked.prompt);
            check_close(&answer.probabilities, &normalised(&logits));
            let best = (0..3).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            assert_eq!(answer.text, task.labels[best], "{pooling:?}");
        }
    }
}

#[test]
fn no_row_changes_what_another_gets() {
    let generation = task("kind = \"generation\"\n[decode]\nbeam_size = 3\nmax_new_tokens = 6");
    let choice = task("kind = \"multiple-choice\"\nchoices = \"choices\"");
    let cases = [(0, classification()), (3, classification()), (0, choice), (0, generation)];
    for (n_classes, task) in cases {
        let model = model(n_classes, Pooling::Mean);
        // Bit for bit: f64 compares as numbers, and none here is NaN.
        let alone = answers(&model, &task, 1, &questions()).unwrap();
        for batch_size in [2, 7, 32] {
            assert_eq!(answers(&model, &task, batch_size, &questions()).unwrap(), alone, "{} at once, {:?}", batch_size, task.kind);
        }
        let mut turned = questions();
        turned.reverse();
        let mut found = answers(&model, &task, 5, &turned).unwrap();
        found.reverse();
        assert_eq!(found, alone, "in another order");
    }
}

#[test]
fn a_prompt_that_does_not_fit_loses_its_beginning() {
    let end = |n: usize| TEXT.split(' ').rev().take(n).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" ");
    let asked: Vec<Asked> =
        [TEXT.repeat(3), end(3)].into_iter().map(|prompt| Asked { prompt, choices: vec![" a".into(), " b".into()] }).collect();
    let cases = [
        (0, classification()),
        (3, classification()),
        (0, task("kind = \"multiple-choice\"\nchoices = \"choices\"")),
        (0, task("kind = \"question-answering\"\n[decode]\nmax_new_tokens = 5")),
    ];
    for (n_classes, task) in cases {
        let found = answers(&model(n_classes, Pooling::Last), &task, 2, &asked).unwrap();
        assert_eq!(found.iter().map(|answer| answer.is_truncated).collect::<Vec<_>>(), [true, false], "{:?}", task.kind);
    }
}

#[test]
fn a_model_without_the_head_that_is_needed_is_an_error() {
    let two = task("kind = \"classification\"\nlabels = [\"a\", \"b\"]");
    let error = answers(&model(3, Pooling::Last), &two, 1, &questions()).unwrap_err().to_string();
    assert_eq!(error, "the model has a head over 3 classes, and the task `t` has 2 labels");
    let text = task("kind = \"generation\"");
    let error = answers(&model(3, Pooling::Last), &text, 1, &questions()).unwrap_err().to_string();
    assert_eq!(error, "the model has a head over 3 classes, and the task `t` is answered with text");
    let long = task(&format!("kind = \"classification\"\nlabels = [\"a\", \"{}\"]", TEXT.repeat(2)));
    assert!(matches!(answers(&model(0, Pooling::Last), &long, 1, &questions()), Err(EvalError::LongChoice { context_len: CONTEXT, .. })));
}
