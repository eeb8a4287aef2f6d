//! Data whose rows are examples of what is to be said, in place of text that is to be learned whole.

use serde::{Deserialize, Serialize};

/// How a row becomes an example: a prompt, which is given, and a completion, which is learned. The fields are templates of Jinja; their
/// variables are the fields of the row.
///
/// A row with a field `messages` is a chat instead: a list of messages with a `role` and a `content` each, of which those of the
/// role `assistant` are learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExamplesConfig {
    /// What is given.
    pub prompt: String,
    /// What is learned, and behind it the end-of-text token.
    pub completion: String,
    /// What each message of a chat begins with, of its `role`. It is not learned.
    pub message_begins: String,
    /// What each message that is not the assistant's ends with, of its `role`; the assistant's end with the end-of-text token.
    pub message_ends: String,
    /// What a completion must be one of; without any it may be everything.
    ///
    /// This and those below are left out of a file where they are the default: programs from before them read it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// What is learned of a completion is its place among `labels` and not its text, for a model with a classification head.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub head: bool,
    /// A row with a field `messages` is a chat; without it such a row is one like others.
    #[serde(skip_serializing_if = "is_true")]
    pub chats: bool,
    /// In training the prompt is learned too, as text that goes before. Validation asks for completions alone all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub learn_prompt: bool,
    /// The field of a row that has several prompts and completions which follow one another, such as questions about one passage: a list of
    /// rows, of which each is rendered with what the whole row has beside it. A row without the field is one itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<String>,
}

impl Default for ExamplesConfig {
    fn default() -> Self {
        Self {
            prompt: "{{ prompt }}".into(),
            completion: "{{ completion }}".into(),
            message_begins: "{{ role }}:\n".into(),
            message_ends: "\n\n".into(),
            labels: Vec::new(),
            head: false,
            chats: true,
            learn_prompt: false,
            turns: None,
        }
    }
}

fn is_true(value: &bool) -> bool {
    *value
}
