//! Constrained texts: every one is what its grammar allows, whatever the model would rather say.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::collections::BTreeSet;

use kindling_infer::{Constraint, Engine, EngineLimits, Event, Grammar, Grammars, InferError, Request, Sampling, StopReason, write};
use kindling_model::Gpt;
use kindling_tokenizer::{BpeTrainer, CharVocab, END_OF_TEXT, Tokenizer, WordVocab};
use serde::Deserialize;
use serde_json::{Value, json};
use support::far_from_uniform;

const TEXT: &str = r#"{"name": "größe", "age": 12, "tags": ["a", "b"]} yes no maybe not, at 17:45 of 2024-05-06 true false null"#;

fn tokenizer() -> Tokenizer {
    Tokenizer::Bpe(BpeTrainer::new(300).with_special_tokens(&[END_OF_TEXT]).train(&[TEXT]).unwrap())
}

/// A model that is sure of what it says, which is none of what is wanted.
fn model(tokenizer: &Tokenizer) -> Gpt {
    far_from_uniform(tokenizer.vocab_size(), 512, 24, 4, 12.0)
}

fn request(tokenizer: &Tokenizer, constraint: &Constraint, seed: u64) -> Request {
    let prompt = vec![tokenizer.end_of_text().unwrap()];
    Request { prompt, seed, max_new_tokens: 400, constraint: Some(constraint.clone()), ..Request::default() }
}

/// The texts of some seeds, drawn and greedy, all of which have ended by themselves.
fn texts(grammar: &Grammar, n: u64) -> Vec<String> {
    let tokenizer = tokenizer();
    let model = model(&tokenizer);
    let constraint = Grammars::new(&tokenizer).unwrap().constraint(grammar.clone()).unwrap();
    (0..n)
        .map(|seed| {
            let temperature = if seed == 0 { 0.0 } else { 1.5 };
            let sampling = Sampling { temperature, ..Sampling::default() };
            let mut generation = write(&model, &tokenizer, Request { sampling, ..request(&tokenizer, &constraint, seed) }).unwrap();
            let text: String = generation.by_ref().map(Result::unwrap).collect();
            assert_eq!(generation.stop_reason(), Some(StopReason::EndOfText), "{text}");
            text
        })
        .collect()
}

#[test]
fn a_choice_is_one_of_the_choices() {
    let choices = ["yes", "no", "not at all (never)", "größe | a.*b", "<tag> / \\d"].map(str::to_owned);
    let found: BTreeSet<String> = texts(&Grammar::Choices(choices.to_vec()), 60).into_iter().collect();
    assert!(found.iter().all(|text| choices.contains(text)), "{found:?}");
    assert!(found.len() > 1, "{found:?}");
}

#[test]
fn what_a_regular_expression_matches_is_written() {
    for source in [r"[0-9]{4}-[0-9]{2}-[0-9]{2}", r"(yes|no)( and (yes|no)){0,2}", r"[a-zäöüß]{1,6}: \d{1,2}/\d{1,2}", r"a{3,9}b?"] {
        let whole = regex::Regex::new(&format!("^(?:{source})$")).unwrap();
        for text in texts(&Grammar::Regex(source.into()), 25) {
            assert!(whole.is_match(&text), "{source}: {text:?}");
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    age: u8,
    tags: Vec<String>,
    #[serde(default)]
    nested: Option<Nested>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nested {
    is_true: bool,
}

#[test]
fn json_is_of_its_schema() {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["name", "age", "tags"],
        "properties": {
            "name": { "type": "string", "maxLength": 8 },
            "age": { "type": "integer", "minimum": 3, "maximum": 120 },
            "tags": { "type": "array", "items": { "enum": ["a", "b", "größe"] }, "maxItems": 3 },
            "nested": { "$ref": "#/$defs/nested" }
        },
        "$defs": {
            "nested": { "type": "object", "additionalProperties": false, "required": ["is_true"], "properties": { "is_true": { "type": "boolean" } } }
        }
    });
    let mut n_nested = 0;
    for text in texts(&Grammar::JsonSchema(schema), 40) {
        let person: Person = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert!(person.name.chars().count() <= 8 && (3..=120).contains(&person.age) && person.tags.len() <= 3, "{person:?}");
        assert!(person.tags.iter().all(|tag| ["a", "b", "größe"].contains(&tag.as_str())), "{person:?}");
        n_nested += usize::from(person.nested.is_some_and(|nested| [true, false].contains(&nested.is_true)));
    }
    assert!(n_nested > 0, "what need not be there sometimes is");
    let any = Grammar::JsonSchema(
        json!({ "anyOf": [{ "type": "null" }, { "type": "integer", "minimum": -99, "maximum": 999 }, { "type": "boolean" }] }),
    );
    for text in texts(&any, 25) {
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert!(value.is_null() || value.is_number() || value.is_boolean());
    }
}

#[test]
fn the_likeliest_that_is_allowed_is_taken() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer);
    let grammars = Grammars::new(&tokenizer).unwrap();
    let end = tokenizer.end_of_text().unwrap();
    let logits = {
        let mut cache = model.cache();
        let mut sequence = kindling_model::Sequence::default();
        model.forward_cached(&mut [(&mut sequence, &[end])], &mut cache).into_data().try_into_vec::<f32>().unwrap()
    };
    // Single bytes, so that a choice is a token.
    let mut letters: Vec<&str> = ["q", "w", "x", "y", "z"].to_vec();
    letters.sort_by(|a, b| {
        let logit = |text: &str| logits[tokenizer.encode(text).unwrap()[0] as usize];
        logit(b).total_cmp(&logit(a))
    });
    let choices = Grammar::Choices(letters[2..].iter().map(|letter| (*letter).to_owned()).collect());
    let constraint = grammars.constraint(choices).unwrap();
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    // A vocabulary's end is the grammar's too, even where a text is to go on behind it.
    let request = Request { sampling, ignore_end: true, ..request(&tokenizer, &constraint, 0) };
    let text: String = write(&model, &tokenizer, request).unwrap().map(Result::unwrap).collect();
    assert_eq!(text, letters[2]);
}

#[test]
fn others_beside_it_change_nothing() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer);
    let grammars = Grammars::new(&tokenizer).unwrap();
    let date = grammars.constraint(Grammar::Regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}".into())).unwrap();
    let object = grammars.constraint(Grammar::json_object()).unwrap();
    let one = |seed| Request { max_new_tokens: 40, ..request(&tokenizer, if seed % 2 == 0 { &date } else { &object }, seed) };
    let free = Request { constraint: None, max_new_tokens: 20, ..one(100) };
    let alone: Vec<String> = (0..6).map(|seed| write(&model, &tokenizer, one(seed)).unwrap().map(Result::unwrap).collect()).collect();
    let mut engine = Engine::new(&model, &tokenizer, EngineLimits { n_running: 4, ..EngineLimits::default() });
    let ids: Vec<_> = (0..6).map(one).chain([free]).map(|request| engine.add(request).unwrap()).collect();
    let mut together = vec![String::new(); ids.len()];
    while engine.n_requests() != (0, 0) {
        for (id, event) in engine.step() {
            match event {
                Event::Token { text, .. } | Event::Ended { text, .. } => {
                    together[ids.iter().position(|other| *other == id).unwrap()] += &text
                }
                Event::Prompt(_) => {}
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }
    assert_eq!(together[..6], alone);
}

#[test]
fn what_is_no_grammar() {
    let tokenizer = tokenizer();
    let grammars = Grammars::new(&tokenizer).unwrap();
    let error = |grammar: Grammar| grammars.constraint(grammar).unwrap_err().to_string();
    for grammar in [
        Grammar::Choices(Vec::new()),
        Grammar::Choices(vec!["a".into(), String::new()]),
        Grammar::Regex(String::new()),
        Grammar::Regex("(unclosed".into()),
        Grammar::JsonSchema(json!("text")),
        Grammar::JsonSchema(json!({ "type": "unheard of" })),
        Grammar::JsonSchema(json!({ "$ref": "#/nowhere" })),
    ] {
        let message = error(grammar.clone());
        assert!(message.starts_with("the text cannot be constrained so: ") && !message.contains('\n'), "{grammar:?}: {message}");
    }
    let words = Tokenizer::Word(WordVocab::build(&["a b c"], 10, &[]));
    assert!(matches!(Grammars::new(&words), Err(InferError::NoGrammars)));
    let endless = Tokenizer::Char(CharVocab::build(&["abc"], &[]));
    assert!(matches!(Grammars::new(&endless), Err(InferError::NoGrammars)));
    let bias = (0..tokenizer.vocab_size() as u32).map(|id| (id, f32::NEG_INFINITY)).collect();
    let sampling = Sampling { logit_bias: bias, ..Sampling::default() };
    let model = model(&tokenizer);
    let request = Request { sampling, prompt: vec![0], max_new_tokens: 3, ..Request::default() };
    let found: Vec<_> = write(&model, &tokenizer, request).unwrap().collect();
    assert!(matches!(found.as_slice(), [Err(InferError::NothingAllowed)]), "{found:?}");
}

#[test]
fn a_grammar_cannot_run_away() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer);
    let grammars = Grammars::new(&tokenizer).unwrap();
    // Each has states without number, of which one is made for each thing that could be written.
    let nested = |depth: usize| (0..depth).fold("a".to_owned(), |inner, _| format!("({inner}|b){{1,9}}"));
    let mut schema = json!({ "type": "string", "pattern": nested(9) });
    for _ in 0..60 {
        schema = json!({ "type": "object", "properties": { "a": schema.clone(), "b": { "type": "array", "items": schema } } });
        if schema.to_string().len() > 1 << 19 {
            break;
        }
    }
    let start = std::time::Instant::now();
    for grammar in [Grammar::Regex("(a|b)*a(a|b){100000}".into()), Grammar::Regex(nested(40)), Grammar::JsonSchema(schema)] {
        let Ok(constraint) = grammars.constraint(grammar) else { continue };
        let mut n = 0;
        for piece in write(&model, &tokenizer, request(&tokenizer, &constraint, 1)).unwrap() {
            match piece {
                Ok(_) => n += 1,
                Err(error) => assert!(matches!(error, InferError::Grammar(_)), "{error}"),
            }
        }
        assert!(n <= 401);
    }
    println!("{:?}", start.elapsed());
}
