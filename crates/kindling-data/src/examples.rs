//! Rows to examples, and examples to tokens that say which of them are learned. Reads no files, and makes no batches.
//!
//! On its way through a corpus an example is a document whose text is a list of JSON: pairs of a text and whether it is learned. Its
//! hash, which decides on its side and finds repeats, is thus that of what comes of the templates.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use kindling_config::ExamplesConfig;
use kindling_tokenizer::{Tokenizer, TokenizerError};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Serde, ValueKind};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, escape_formatter};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::Xxh3;

use crate::DataError;
use crate::clean::StopWords;

/// The field that makes a row a chat.
const MESSAGES: &str = "messages";
/// The variable that is the row.
const ROW: &str = "row";
/// The role whose messages are learned.
const ASSISTANT: &str = "assistant";
/// Instructions of the template engine that a template may take for a row.
const FUEL: u64 = 100_000;

/// The filter that templates have beside the engine's own.
const WITHOUT_STOP_WORDS: &str = "without_stop_words";

/// A stretch of an example's text, and whether it is learned.
type Segment<'t> = (Cow<'t, str>, bool);

/// The templates of a configuration, compiled.
#[derive(Debug)]
pub struct Templates<'c> {
    environment: Environment<'c>,
    labels: &'c [String],
    chats: bool,
    turns: Option<&'c str>,
}

impl<'c> Templates<'c> {
    /// Compiles them.
    ///
    /// # Errors
    /// [`DataError::Template`] names the key of one that is no template.
    pub fn new(config: &'c ExamplesConfig) -> Result<Self, DataError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // What is no text and no number must not be learned as the engine would spell it.
        environment.set_formatter(|out, state, value| match value.kind() {
            ValueKind::String | ValueKind::Number | ValueKind::Bool => escape_formatter(out, state, value),
            ValueKind::Undefined => Err(ErrorKind::UndefinedError.into()),
            kind => Err(minijinja::Error::new(ErrorKind::BadSerialization, format!("a value is {kind}, expected a text or a number"))),
        });
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build().expect("the syntax is the usual one");
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.add_filter(WITHOUT_STOP_WORDS, without_stop_words());
        let ExamplesConfig { prompt, completion, message_begins, message_ends, labels, chats, turns, .. } = config;
        for (key, source) in
            [("prompt", prompt), ("completion", completion), ("message_begins", message_begins), ("message_ends", message_ends)]
        {
            environment.add_template(key, source).map_err(|error| DataError::Template { key, message: told(&error) })?;
        }
        Ok(Self { environment, labels, chats: *chats, turns: turns.as_deref() })
    }

    /// The text of the document that a row is, or what is wrong with the row.
    pub(crate) fn document(&self, row: &Map<String, Value>) -> Result<String, String> {
        let segments = match row.get(MESSAGES).filter(|messages| self.chats && !messages.is_null()) {
            Some(messages) => self.chat(messages)?,
            None => {
                let mut segments = Vec::new();
                for turn in self.turns(row)? {
                    let (prompt, completion) = self.pair(&turn)?;
                    segments.extend([(Cow::from(prompt), false), (completion.into(), true)]);
                }
                segments
            }
        };
        Ok(serde_json::to_string(&segments).expect("plain data serialises"))
    }

    /// The rows that follow one another in a row: the one alone, unless the field for turns has others.
    ///
    /// # Errors
    /// What is wrong with the field.
    pub(crate) fn turns<'r>(&self, row: &'r Map<String, Value>) -> Result<Vec<Cow<'r, Map<String, Value>>>, String> {
        let Some((field, turns)) = self.turns_of(row) else { return Ok(vec![Cow::Borrowed(row)]) };
        let is_no_list = || format!("field `{field}` is {}, expected a list of rows", shown(turns));
        let turns = turns.as_array().filter(|turns| !turns.is_empty()).ok_or_else(is_no_list)?;
        let turn = |(number, turn): (usize, &Value)| {
            let own = turn.as_object().ok_or_else(|| format!("turn {} of `{field}` is {}, expected a row", number + 1, shown(turn)))?;
            let beside = row.iter().filter(|(name, _)| *name != field);
            let whole = beside.chain(own).map(|(name, value)| (name.clone(), value.clone())).collect();
            Ok(Cow::Owned(whole))
        };
        turns.iter().enumerate().map(turn).collect()
    }

    /// The field for turns and what a row has there, if it has.
    pub(crate) fn turns_of<'r>(&self, row: &'r Map<String, Value>) -> Option<(&'c str, &'r Value)> {
        let field = self.turns?;
        row.get(field).filter(|turns| !turns.is_null()).map(|turns| (field, turns))
    }

    /// Prompt and completion of a row that is no chat.
    ///
    /// # Errors
    /// What is wrong with the row.
    pub fn pair(&self, row: &Map<String, Value>) -> Result<(String, String), String> {
        let (prompt, completion) = (self.render("prompt", row)?, self.render("completion", row)?);
        if completion.is_empty() {
            return Err("the completion is empty".into());
        }
        if !self.labels.is_empty() && !self.labels.contains(&completion) {
            let labels = self.labels.iter().map(|label| shown(&Value::from(label.as_str()))).collect::<Vec<_>>().join(", ");
            return Err(format!("the label is {}, expected one of {labels}", shown(&Value::from(completion))));
        }
        Ok((prompt, completion))
    }

    /// The prompt of a row, of which nothing else need be known.
    ///
    /// # Errors
    /// What is wrong with the row.
    pub fn prompt(&self, row: &Map<String, Value>) -> Result<String, String> {
        self.render("prompt", row)
    }

    /// The fields that a prompt is made from, in the order of the alphabet.
    pub fn prompt_fields(&self) -> Vec<String> {
        let names = self.environment.get_template("prompt").map(|template| template.undeclared_variables(false));
        names.unwrap_or_default().into_iter().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The fields of a row that are looked at.
    pub fn fields(&self) -> Fields {
        let mut names: BTreeSet<String> = self.chats.then_some(MESSAGES).into_iter().chain(self.turns).map(str::to_owned).collect();
        for (_, template) in self.environment.templates() {
            names.extend(template.undeclared_variables(false));
        }
        Fields(names)
    }

    fn chat(&self, messages: &Value) -> Result<Vec<Segment<'static>>, String> {
        let is_no_chat = || format!("field `{MESSAGES}` is {}, expected a list of messages with a `role` and a `content`", shown(messages));
        let mut segments = Vec::new();
        let mut given = String::new();
        for (number, message) in messages.as_array().ok_or_else(is_no_chat)?.iter().enumerate() {
            let text = |key: &str| {
                let found = || format!("`{key}` of message {} is {}, expected a text", number + 1, shown(&message[key]));
                message[key].as_str().ok_or_else(found)
            };
            let (role, content) = (text("role")?, text("content")?);
            let role_alone = Map::from_iter([("role".to_owned(), Value::from(role))]);
            given += &self.render("message_begins", &role_alone)?;
            if role == ASSISTANT && !content.is_empty() {
                segments.push((std::mem::take(&mut given).into(), false));
                segments.push((content.to_owned().into(), true));
            } else {
                given += content;
                given += &self.render("message_ends", &role_alone)?;
            }
        }
        // What follows the last answer teaches nothing.
        if segments.is_empty() { Err(format!("no message of the role `{ASSISTANT}` that says something")) } else { Ok(segments) }
    }

    fn render(&self, key: &str, row: &Map<String, Value>) -> Result<String, String> {
        let template = self.environment.get_template(key).map_err(|error| told(&error))?;
        // By this name the row itself, for fields whose names are no variables.
        let whole = (!row.contains_key(ROW)).then(|| (ROW, minijinja::Value::from(Serde(row))));
        let fields = row.iter().map(|(name, value)| (name.as_str(), minijinja::Value::from(Serde(value))));
        template.render(fields.chain(whole).collect::<BTreeMap<_, _>>()).map_err(|error| {
            let used: BTreeSet<_> = template.undeclared_variables(false).into_iter().collect();
            let names = || row.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            match used.into_iter().find(|name| name != ROW && row.get(name).is_none_or(Value::is_null)) {
                Some(missing) if !row.contains_key(&missing) && error.kind() == ErrorKind::UndefinedError => {
                    format!("no field `{missing}`, found `{}`", names())
                }
                Some(null) if row.contains_key(&null) => format!("field `{null}` is `null`, expected a text"),
                _ => format!("the template {} cannot be filled: {}", shortened(template.source()), told(&error)),
            }
        })
    }
}

/// `text | without_stop_words("en", "de")`, as cleaning removes them. The lists of some languages are put together once.
fn without_stop_words() -> impl Fn(&str, Rest<String>) -> Result<String, minijinja::Error> + Send + Sync + 'static {
    let lists = Mutex::new(HashMap::<Vec<String>, Arc<StopWords>>::new());
    move |text, Rest(languages)| {
        let invalid = |message: String| minijinja::Error::new(ErrorKind::InvalidOperation, message);
        if languages.is_empty() {
            return Err(invalid(format!("`{WITHOUT_STOP_WORDS}` without a language, expected such as `{WITHOUT_STOP_WORDS}(\"en\")`")));
        }
        let mut lists = lists.lock().unwrap_or_else(PoisonError::into_inner);
        let words = match lists.get(&languages) {
            Some(words) => words.clone(),
            None => {
                let words = StopWords::new(&languages)
                    .map_err(|unknown| invalid(format!("no stop words of `{}`, known are {}", unknown.found, unknown.known)))?;
                lists.entry(languages).or_insert(Arc::new(words)).clone()
            }
        };
        drop(lists);
        Ok(words.remove(text).into_owned())
    }
}

/// Names of the fields of a row that templates use.
#[derive(Clone, Debug)]
pub struct Fields(BTreeSet<String>);

impl Fields {
    /// Of a whole row.
    pub(crate) fn all() -> Self {
        Self(BTreeSet::from([ROW.to_owned()]))
    }

    /// Whether they are those of a whole row.
    pub(crate) fn is_all(&self) -> bool {
        self.0.contains(ROW)
    }

    /// Whether a field is used. The whole row has all.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name) || self.is_all()
    }
}

/// A hash over what is given in an example.
pub(crate) fn prompt_hash(document: &str) -> u128 {
    let mut hash = Xxh3::new();
    for (text, _) in segments(document).iter().filter(|(_, is_learned)| !is_learned) {
        hash.update(text.as_bytes());
        hash.update(&[0]);
    }
    hash.digest128()
}

/// The texts of an example, whether they are learned or not.
pub(crate) fn texts(document: &str) -> Vec<String> {
    segments(document).into_iter().map(|(text, _)| text.into_owned()).collect()
}

/// A document as [`Templates::document`] has written it.
fn segments(document: &str) -> Vec<Segment<'_>> {
    serde_json::from_str(document).expect("the document is one that templates have made")
}

/// The tokens of an example: the end-of-text token, its texts, each encoded by itself as it is when text is generated, and the
/// end-of-text token again behind each that is learned, which is then learned too. With `learn_prompt` all are learned but the first,
/// which nothing foretells. For a classification head what is learned is the label's number alone, and stands where its first token would.
///
/// # Errors
/// Text that the vocabulary cannot express.
///
/// # Panics
/// If the vocabulary has no end-of-text token.
pub(crate) fn encode_example(
    tokenizer: &Tokenizer,
    document: &str,
    config: &ExamplesConfig,
    learn_prompt: bool,
) -> Result<Vec<MarkedToken>, TokenizerError> {
    let end_of_text = tokenizer.end_of_text().expect("looked for before anything is encoded");
    let mut tokens = vec![MarkedToken::new(end_of_text, true, false)];
    for (text, is_learned) in segments(document) {
        if let Some(class) = config.labels.iter().position(|label| config.head && is_learned && *label == text) {
            tokens.push(MarkedToken::new(class as u32, false, true));
            continue;
        }
        let end = is_learned.then_some(end_of_text);
        tokens.extend(tokenizer.encode(&text)?.into_iter().chain(end).map(|id| MarkedToken::new(id, false, is_learned || learn_prompt)));
    }
    Ok(tokens)
}

/// A token as it stands in a shard of examples: an id, behind it whether an example begins, and whether it is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkedToken(pub(crate) u32);

impl MarkedToken {
    const LEARNED: u32 = 1;
    const BEGINS: u32 = 2;
    const MARK_BITS: u32 = 2;

    pub(crate) fn new(id: u32, begins: bool, is_learned: bool) -> Self {
        let mark = |is_set: bool, mark: u32| if is_set { mark } else { 0 };
        Self((id << Self::MARK_BITS) | mark(begins, Self::BEGINS) | mark(is_learned, Self::LEARNED))
    }

    /// Its id.
    pub fn id(self) -> u32 {
        self.0 >> Self::MARK_BITS
    }

    /// Whether an example begins with it.
    pub fn begins(self) -> bool {
        self.0 & Self::BEGINS != 0
    }

    /// Whether it is learned.
    pub fn is_learned(self) -> bool {
        self.0 & Self::LEARNED != 0
    }

    /// How many there are for so many ids.
    pub(crate) fn count(vocab_size: usize) -> usize {
        vocab_size << Self::MARK_BITS
    }
}

/// What the engine says, in a line.
fn told(error: &minijinja::Error) -> String {
    match (error.detail(), error.line()) {
        (Some(detail), Some(line)) if line > 1 => format!("{detail}, in its line {line}"),
        (Some(detail), _) => detail.to_owned(),
        (None, _) => error.kind().to_string(),
    }
}

/// A value as a message shows it.
fn shown(value: &Value) -> String {
    if value.is_null() { "missing".into() } else { shortened(&value.to_string()) }
}

/// A text in a message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("`{}…`", &text[..cut]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn document(config: &ExamplesConfig, row: &str) -> Result<Vec<(String, bool)>, String> {
        let document = Templates::new(config).unwrap().document(&serde_json::from_str(row).unwrap())?;
        Ok(serde_json::from_str(&document).unwrap())
    }

    fn pairs(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
        expected.iter().map(|(text, is_learned)| ((*text).to_owned(), *is_learned)).collect()
    }

    #[test]
    fn a_row_is_prompt_and_completion() {
        let config = ExamplesConfig::default();
        let of = |row| document(&config, row);
        assert_eq!(of(r#"{"prompt":"1+1=","completion":"2\n","id":7}"#).unwrap(), pairs(&[("1+1=", false), ("2\n", true)]));
        assert_eq!(of(r#"{"prompt":"","completion":2}"#).unwrap(), pairs(&[("", false), ("2", true)]));
        assert_eq!(of(r#"{"prompt":"a","text":"b"}"#).unwrap_err(), "no field `completion`, found `prompt, text`");
        assert_eq!(of(r#"{"prompt":null,"completion":"b"}"#).unwrap_err(), "field `prompt` is `null`, expected a text");
        assert_eq!(of(r#"{"prompt":"a","completion":""}"#).unwrap_err(), "the completion is empty");
        assert_eq!(of(r#"{"prompt":"a","completion":"b","messages":null}"#).unwrap(), pairs(&[("a", false), ("b", true)]));
        for no_text in ["[\"b\"]", "{\"a\":\"b\"}", "[]"] {
            let error = document(&config, &format!("{{\"prompt\":\"a\",\"completion\":{no_text}}}")).unwrap_err();
            assert!(error.ends_with("expected a text or a number"), "{error}");
        }
    }

    #[test]
    fn templates_say_how() {
        let config = ExamplesConfig {
            prompt: "Q: {{ q }}\nA:\n".into(),
            completion: "{% if right %}yes{% else %}no{% endif %}".into(),
            ..ExamplesConfig::default()
        };
        let of = |row| document(&config, row);
        assert_eq!(of(r#"{"q":"<i>?","right":true}"#).unwrap(), pairs(&[("Q: <i>?\nA:\n", false), ("yes", true)]));
        assert_eq!(of(r#"{"q":"?"}"#).unwrap_err(), "no field `right`, found `q`");
        // A field that is null can be asked for, but not be said; nor can a null within another.
        assert_eq!(of(r#"{"q":"?","right":null}"#).unwrap(), pairs(&[("Q: ?\nA:\n", false), ("no", true)]));
        let named =
            ExamplesConfig { prompt: "{{ row['The Question'] }}".into(), completion: "{{ qa.a }}".into(), ..ExamplesConfig::default() };
        let row = |answer: &str| format!("{{\"The Question\":\"?\",\"qa\":{{\"a\":{answer}}}}}");
        assert_eq!(document(&named, &row("\"b\"")).unwrap(), pairs(&[("?", false), ("b", true)]));
        let error = document(&named, &row("null")).unwrap_err();
        assert!(error.starts_with("the template `{{ qa.a }}` cannot be filled: a value is none"), "{error}");
        let broken = ExamplesConfig { completion: "{{ a".into(), ..ExamplesConfig::default() };
        let error = Templates::new(&broken).err().unwrap().to_string();
        assert!(error.starts_with("`data.examples.completion` is no template: "), "{error}");
        let endless = ExamplesConfig { prompt: "{% for i in range(99999) %}{{ i }}{% endfor %}".into(), ..ExamplesConfig::default() };
        let error = document(&endless, r#"{"completion":"a"}"#).unwrap_err();
        assert!(error.starts_with("the template `{% for i in "), "{error}");
    }

    #[test]
    fn turns_follow_one_another() {
        let config = ExamplesConfig {
            prompt: "{{ title }}{% if text %} {{ text }}{% endif %} {{ q }}".into(),
            completion: " {{ a }}".into(),
            turns: Some("asked".into()),
            ..ExamplesConfig::default()
        };
        let of = |row| document(&config, row);
        let row = r#"{"title":"T","text":"","a":0,"asked":[{"text":"one","q":"q?","a":1},{"q":"r?","a":"2"},{"q":"s?","title":"U"}]}"#;
        let expected = [("T one q?", false), (" 1", true), ("T r?", false), (" 2", true), ("U s?", false), (" 0", true)];
        assert_eq!(of(row).unwrap(), pairs(&expected));
        for one in [r#"{"title":"T","text":"","q":"q?","a":1}"#, r#"{"title":"T","text":"","q":"q?","a":1,"asked":null}"#] {
            assert_eq!(of(one).unwrap(), pairs(&[("T q?", false), (" 1", true)]));
        }
        assert_eq!(of(r#"{"asked":[]}"#).unwrap_err(), "field `asked` is `[]`, expected a list of rows");
        assert_eq!(of(r#"{"asked":{"q":"?"}}"#).unwrap_err(), "field `asked` is `{\"q\":\"?\"}`, expected a list of rows");
        assert_eq!(of(r#"{"asked":["?"]}"#).unwrap_err(), "turn 1 of `asked` is `\"?\"`, expected a row");
        let missing = of(r#"{"title":"T","text":"","asked":[{"q":"q?","a":1},{"a":1}]}"#).unwrap_err();
        assert_eq!(missing, "no field `q`, found `title, text, a`");
    }

    #[test]
    fn stop_words_go_where_a_template_says_so() {
        let of = |filter: &str, text: &str| {
            let prompt = format!("the text: {{{{ text | {filter} }}}}");
            let config = ExamplesConfig { prompt, completion: "{{ text }}".into(), ..ExamplesConfig::default() };
            document(&config, &format!("{{\"text\":\"{text}\"}}"))
        };
        let text = "the cat und THE dog";
        assert_eq!(of("without_stop_words('en')", text).unwrap(), pairs(&[("the text: cat und dog", false), (text, true)]));
        assert_eq!(of("upper | without_stop_words('en', 'de')", text).unwrap(), pairs(&[("the text: CAT DOG", false), (text, true)]));
        let error = of("without_stop_words('en', 'xx')", text).unwrap_err();
        assert!(error.contains("cannot be filled: no stop words of `xx`, known are "), "{error}");
        let error = of("without_stop_words", text).unwrap_err();
        assert!(error.contains("without a language"), "{error}");
    }

    #[test]
    fn of_a_chat_the_assistant_is_learned() {
        let config = ExamplesConfig::default();
        let of = |messages: &str| document(&config, &format!("{{\"messages\":{messages}}}"));
        let user = r#"{"role":"user","content":"Hi"}"#;
        let assistant = r#"{"role":"assistant","content":"Hello."}"#;
        assert_eq!(
            of(&format!("[{{\"role\":\"system\",\"content\":\"Be kind.\"}},{user},{assistant},{user},{assistant},{user}]")).unwrap(),
            pairs(&[
                ("system:\nBe kind.\n\nuser:\nHi\n\nassistant:\n", false),
                ("Hello.", true),
                ("user:\nHi\n\nassistant:\n", false),
                ("Hello.", true)
            ])
        );
        assert_eq!(of(&format!("[{user}]")).unwrap_err(), "no message of the role `assistant` that says something");
        assert_eq!(of(r#"[{"role":"assistant","content":5}]"#).unwrap_err(), "`content` of message 1 is `5`, expected a text");
        assert_eq!(of(&format!("[{user},{{\"content\":\"a\"}}]")).unwrap_err(), "`role` of message 2 is missing, expected a text");
        assert!(of("\"Hi\"").unwrap_err().starts_with("field `messages` is `\"Hi\"`, expected a list"));
        // Of a task it is a field like others.
        let task = ExamplesConfig { prompt: "{{ messages[0].content }}".into(), completion: "{{ label }}".into(), chats: false, ..config };
        let row = format!("{{\"messages\":[{user},{assistant}],\"label\":\"good\"}}");
        assert_eq!(document(&task, &row).unwrap(), pairs(&[("Hi", false), ("good", true)]));
    }

    #[test]
    fn what_is_learned_ends_with_the_end_of_the_text() {
        let tokenizer = Tokenizer::open("gpt2").unwrap();
        let document = r#"[["Say it: ",false],["it",true],[" Again: ",false],["it!",true]]"#;
        let of = |learn_prompt| encode_example(&tokenizer, document, &ExamplesConfig::default(), learn_prompt).unwrap();
        let (tokens, with_prompt) = (of(false), of(true));
        let end = tokenizer.end_of_text().unwrap();
        let of = |text: &str| tokenizer.encode(text).unwrap();
        let expected = [vec![end], of("Say it: "), of("it"), vec![end], of(" Again: "), of("it!"), vec![end]];
        assert_eq!(tokens.iter().map(|token| token.id()).collect::<Vec<_>>(), expected.concat());
        let learned = [0, 0, 1, 1, 0, 1, 1].into_iter().zip(&expected).flat_map(|(mark, ids)| vec![mark == 1; ids.len()]);
        assert!(tokens.iter().map(|token| token.is_learned()).eq(learned));
        assert!(tokens.iter().enumerate().all(|(place, token)| token.begins() == (place == 0)));
        assert!(with_prompt.iter().enumerate().all(|(place, token)| token.is_learned() == (place > 0)));
        assert!(with_prompt.iter().map(|token| (token.id(), token.begins())).eq(tokens.iter().map(|token| (token.id(), token.begins()))));
    }
}
