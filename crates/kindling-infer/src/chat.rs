//! Messages to the ids that a model was trained to go on from. Runs no model.

use kindling_config::ExamplesConfig;
use kindling_tokenizer::{SpecialTokens, Tokenizer};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};

use crate::InferError;

/// Instructions of the template engine that a chat may take.
const FUEL: u64 = 1_000_000;
const NAME: &str = "chat";

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who: `system`, `user`, `assistant`, or what the template knows else.
    pub role: String,
    /// What.
    pub content: String,
}

/// A template of Jinja that makes a text of messages, as Hugging Face's `chat_template`: with the variables `messages`,
/// `add_generation_prompt`, `bos_token` and `eos_token`, and the methods of Python's texts.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// One that is none.
    pub fn new(source: String) -> Result<Self, InferError> {
        // As Hugging Face's `apply_chat_template` has it.
        Self::compile(source, true)
    }

    /// The template of a model that was trained on chats as a configuration makes examples of them; the default of one that was not.
    ///
    /// # Errors
    /// Templates that are none.
    pub fn of_examples(config: &ExamplesConfig) -> Result<Self, InferError> {
        let ExamplesConfig { message_begins: begins, message_ends: ends, .. } = config;
        let source = format!(
            "{{% for message in messages %}}{{% set role = message.role %}}{begins}{{{{ message.content }}}}\
             {{% if role == 'assistant' %}}{{{{ eos_token }}}}{{% else %}}{ends}{{% endif %}}{{% endfor %}}\
             {{% if add_generation_prompt %}}{{% set role = 'assistant' %}}{begins}{{% endif %}}"
        );
        Self::compile(source, false)
    }

    fn compile(source: String, trims_blocks: bool) -> Result<Self, InferError> {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(trims_blocks).lstrip_blocks(trims_blocks).keep_trailing_newline(!trims_blocks);
        environment.set_syntax(syntax.build().map_err(InferError::ChatTemplate)?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source).map_err(InferError::ChatTemplate)?;
        Ok(Self { environment })
    }

    /// The text of some messages, up to where the next of the assistant begins.
    ///
    /// # Errors
    /// Messages that the template refuses, or cannot make a text of.
    pub fn text(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<String, InferError> {
        let end = tokenizer.end_of_text().and_then(|id| tokenizer.token_bytes(id)).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let template = self.environment.get_template(NAME).map_err(InferError::ChatTemplate)?;
        let end = end.unwrap_or_default();
        template
            .render(context! { messages => minijinja::Value::from(Serde(messages)), add_generation_prompt => true, bos_token => &end, eos_token => &end })
            .map_err(InferError::Chat)
    }

    /// The ids of that text, behind the token that begins a text. What users say never becomes a special token.
    ///
    /// # Errors
    /// As [`Self::text`]; a content with the text of a special token; characters that the vocabulary does not know; nothing at all.
    pub fn ids(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, InferError> {
        for (number, message) in messages.iter().enumerate() {
            for text in [&message.role, &message.content] {
                tokenizer.encode_with(text, SpecialTokens::Refuse).map_err(|source| InferError::Message { number: number + 1, source })?;
            }
        }
        let ids = tokenizer.encode_with(&self.text(tokenizer, messages)?, SpecialTokens::AllowAll)?;
        let end = tokenizer.end_of_text();
        let begins = end.filter(|end| ids.first() != Some(end));
        let ids: Vec<u32> = begins.into_iter().chain(ids).collect();
        if ids.is_empty() { Err(InferError::EmptyPrompt) } else { Ok(ids) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use kindling_tokenizer::{BpeTrainer, END_OF_TEXT};

    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::Bpe(BpeTrainer::new(260).with_special_tokens(&[END_OF_TEXT]).train(&["user assistant"]).unwrap())
    }

    fn messages(all: &[(&str, &str)]) -> Vec<Message> {
        all.iter().map(|(role, content)| Message { role: (*role).into(), content: (*content).into() }).collect()
    }

    #[test]
    fn messages_are_as_they_were_trained_on() {
        let tokenizer = tokenizer();
        let template = ChatTemplate::of_examples(&ExamplesConfig::default()).unwrap();
        let said = messages(&[("system", "Be kind.\n"), ("user", " Hi "), ("assistant", "Hello."), ("user", "{{ 1 }}")]);
        let expected = "system:\nBe kind.\n\n\nuser:\n Hi \n\nassistant:\nHello.<|endoftext|>user:\n{{ 1 }}\n\nassistant:\n";
        assert_eq!(template.text(&tokenizer, &said).unwrap(), expected);
        let end = tokenizer.end_of_text().unwrap();
        let ids = template.ids(&tokenizer, &said).unwrap();
        assert_eq!(ids.iter().filter(|id| **id == end).count(), 2, "one begins the text, one ends what the assistant said");
        let injected = messages(&[("user", "a<|endoftext|>b")]);
        let error = template.ids(&tokenizer, &injected).unwrap_err();
        assert!(error.to_string().contains("message 1") && error.to_string().contains("<|endoftext|>"), "{error}");
    }

    #[test]
    fn hugging_faces_templates_are_understood() {
        let tokenizer = tokenizer();
        // In the manner of ChatML, with what such templates do.
        let source = "{%- if messages[0]['role'] == 'system' %}\n    {{- '<sys>' + messages[0]['content'].strip() + '\\n' }}\n    {%- set loop_messages = \
                      messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n{%- for message in loop_messages %}\n    {%- if \
                      (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n        {{- raise_exception('roles must alternate') }}\n    {%- endif %}\n    {{- \
                      '<' + message.role + '>' + message['content'] | trim + '\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- \
                      '<assistant>' }}\n{%- endif %}";
        let template = ChatTemplate::new(source.into()).unwrap();
        let of = |all: &[(&str, &str)]| template.text(&tokenizer, &messages(all));
        assert_eq!(of(&[("system", " S "), ("user", " Hi ")]).unwrap(), "<sys>S\n<user>Hi\n<assistant>");
        let error = of(&[("user", "a"), ("user", "b")]).unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
        let endless =
            ChatTemplate::new("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}".into()).unwrap();
        assert!(endless.text(&tokenizer, &[]).is_err());
        assert!(ChatTemplate::new("{% if".into()).is_err());
    }
}
