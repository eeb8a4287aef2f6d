//! Texts that may be only some: one of a few choices, what a regular expression matches, JSON of a schema. Draws no tokens.
//!
//! Which tokens can come next follows from the grammar and from what has been written, byte by byte, as the crate `llguidance` computes it.

use std::fmt;
use std::sync::Arc;

use kindling_tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value, json};

use crate::InferError;

/// States of a lexer at most: a schema that needs more is refused while it is used, before it takes hundreds of megabytes.
const MOST_LEXER_STATES: usize = 30_000;
/// Symbols of a grammar at most.
const MOST_SYMBOLS: usize = 200_000;
/// Items that a step of the parser may make; a hundredth of a second.
const MOST_ITEMS: usize = 50_000;

/// Bytes of a token at most: the tree of tokens is no deeper.
const LONGEST_TOKEN: usize = 1000;

/// What a text may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// One of these.
    Choices(Vec<String>),
    /// What a regular expression matches from its beginning to its end, in the syntax of the crate `regex`, without anchors and look-around.
    Regex(String),
    /// JSON of this schema, without white space between its parts.
    JsonSchema(Value),
}

impl Grammar {
    /// Any object of JSON.
    pub fn json_object() -> Self {
        Self::JsonSchema(json!({ "type": "object" }))
    }

    fn top_level(&self) -> Result<TopLevelGrammar, String> {
        match self {
            Self::Choices(choices) if choices.is_empty() || choices.iter().any(String::is_empty) => {
                Err("choices are missing or empty, expected at least one, and text in each".into())
            }
            Self::Choices(choices) => {
                let literals: Vec<String> = choices.iter().map(|choice| regex_syntax::escape(choice)).collect();
                Ok(TopLevelGrammar::from_regex(&format!("({})", literals.join("|"))))
            }
            Self::Regex(source) if source.is_empty() => Err("the regular expression is empty".into()),
            Self::Regex(source) => {
                // What is no regular expression is told here: a backslash at the end would be passed over.
                regex_syntax::parse(source).map_err(|error| match error {
                    regex_syntax::Error::Parse(error) => error.kind().to_string(),
                    regex_syntax::Error::Translate(error) => error.kind().to_string(),
                    error => error.to_string(),
                })?;
                Ok(TopLevelGrammar::from_regex(source))
            }
            Self::JsonSchema(schema) => {
                let mut schema = match schema {
                    Value::Object(schema) => schema.clone(),
                    Value::Bool(true) => Map::new(),
                    _ => return Err("a schema of JSON is an object, or `true`".into()),
                };
                // A model that likes white space would write nothing else.
                schema.insert("x-guidance".into(), json!({ "whitespace_flexible": false }));
                Ok(TopLevelGrammar::from_json_schema(Value::Object(schema)))
            }
        }
    }
}

/// Makes constraints for the texts of one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
}

/// What a text may still become. A clone goes on by itself.
pub struct Constraint {
    grammar: Arc<Grammar>,
    matcher: Box<Matcher>,
}

impl Grammars {
    /// Of a vocabulary whose tokens are what they say.
    ///
    /// # Errors
    /// One of words, without an end-of-text token, or with tokens of more than a thousand bytes.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, InferError> {
        let end = tokenizer.end_of_text().filter(|_| tokenizer.is_lossless()).ok_or(InferError::NoGrammars)?;
        let word = |id: u32| {
            let bytes = tokenizer.token_bytes(id).unwrap_or_default();
            let marker: &[u8] = if tokenizer.is_special(id) { &[TokTrie::SPECIAL_TOKEN_MARKER] } else { &[] };
            [marker, bytes].concat()
        };
        let n = tokenizer.vocab_size() as u32;
        let words: Vec<Vec<u8>> = (0..n).map(word).collect();
        if words.iter().any(|word| word.len() > LONGEST_TOKEN) {
            return Err(InferError::NoGrammars);
        }
        let env: TokEnv = Arc::new(Vocabulary(TokTrie::from(&TokRxInfo::new(n, end), &words)));
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &[]).map_err(InferError::grammar)?;
        factory.quiet();
        let limits = factory.limits_mut();
        (limits.max_lexer_states, limits.max_grammar_size, limits.step_max_items) = (MOST_LEXER_STATES, MOST_SYMBOLS, MOST_ITEMS);
        limits.verbose_errors = false;
        Ok(Self { factory })
    }

    /// What a text may become that has not begun.
    ///
    /// # Errors
    /// A grammar that is none, or too large; what it allows cannot be written.
    pub fn constraint(&self, grammar: Grammar) -> Result<Constraint, InferError> {
        let top_level = grammar.top_level().map_err(InferError::Grammar)?;
        let matcher = Box::new(Matcher::new(self.factory.create_parser(top_level)));
        let mut constraint = Constraint { grammar: Arc::new(grammar), matcher };
        // What cannot even begin says so here.
        constraint.allowed()?;
        Ok(constraint)
    }
}

impl Constraint {
    /// What a text may be.
    pub fn grammar(&self) -> &Grammar {
        &self.grammar
    }

    /// The tokens that may come next; the end-of-text token where the text may end.
    pub(crate) fn allowed(&mut self) -> Result<Allowed, InferError> {
        self.matcher.compute_mask_or_eos().map(Allowed).map_err(InferError::grammar)
    }

    /// Takes a token that is allowed.
    pub(crate) fn push(&mut self, id: u32) -> Result<(), InferError> {
        self.matcher.consume_token(id).map_err(InferError::grammar)
    }

    /// Whether nothing can follow.
    pub(crate) fn is_over(&self) -> bool {
        self.matcher.is_stopped()
    }
}

/// Tokens that may come next.
pub(crate) struct Allowed(SimpleVob);

impl Allowed {
    pub(crate) fn has(&self, id: u32) -> bool {
        self.0.is_allowed(id)
    }
}

impl Clone for Constraint {
    fn clone(&self) -> Self {
        Self { grammar: self.grammar.clone(), matcher: Box::new(self.matcher.deep_clone()) }
    }
}

impl PartialEq for Constraint {
    /// Whether they are of equal grammars.
    fn eq(&self, other: &Self) -> bool {
        self.grammar == other.grammar
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Constraint").field(&self.grammar).finish()
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

/// The bytes of tokens.
struct Vocabulary(TokTrie);

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(bytes)
    }

    /// Which tokens spell a text is the model's choice.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}
