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

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who: `system`, `user`, `assistant`, or what the template knows else.
    pub role: String,
    /// What.
    pub content: String,
}

/// How messages become ids.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Whether it is one template for all messages, and not what stands before and behind each.
    is_whole: bool,
}

/// Template of all messages.
const CHAT: &str = "chat";
/// Templates of what stands before and behind a message.
const BEGINS: &str = "begins";
const ENDS: &str = "ends";
const ASSISTANT: &str = "assistant";
/// Who may speak where the text of a role could become part of a special token.
const ROLES: [&str; 6] = ["system", "developer", "user", ASSISTANT, "tool", "function"];

impl ChatTemplate {
    /// A template of Jinja that makes a text of messages, as Hugging Face's `chat_template`: with the variables `messages`,
    /// `add_generation_prompt`, `bos_token` and `eos_token`, and the methods of Python's texts.
    ///
    /// # Errors
    /// One that is none.
    pub fn new(source: String) -> Result<Self, InferError> {
        Self::compile([(CHAT, source)], true)
    }

    /// As a model was trained on chats that a configuration makes examples of; as by default where it was not.
    ///
    /// # Errors
    /// Templates that are none.
    pub fn of_examples(config: &ExamplesConfig) -> Result<Self, InferError> {
        Self::compile([(BEGINS, config.message_begins.clone()), (ENDS, config.message_ends.clone())], false)
    }

    fn compile<const N: usize>(templates: [(&'static str, String); N], is_whole: bool) -> Result<Self, InferError> {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        // As Hugging Face's `apply_chat_template` has it, and as training on examples.
        syntax.trim_blocks(is_whole).lstrip_blocks(is_whole).keep_trailing_newline(!is_whole);
        environment.set_syntax(syntax.build().map_err(InferError::ChatTemplate)?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        for (name, source) in templates {
            environment.add_template_owned(name, source).map_err(InferError::ChatTemplate)?;
        }
        Ok(Self { environment, is_whole })
    }

    /// The ids of some messages, up to where the next of the assistant begins, behind the token that begins a text. What is said never becomes
    /// a special token.
    ///
    /// # Errors
    /// Messages that the template refuses, or of which a part would become a special token; characters that the vocabulary does not know.
    pub fn ids(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, InferError> {
        let ids = if self.is_whole { self.whole(tokenizer, messages)? } else { self.one_by_one(tokenizer, messages)? };
        let end = tokenizer.end_of_text();
        let begins = end.filter(|end| ids.first() != Some(end));
        let ids: Vec<u32> = begins.into_iter().chain(ids).collect();
        if ids.is_empty() { Err(InferError::EmptyPrompt) } else { Ok(ids) }
    }

    /// As examples are encoded: what is given as one text, what the assistant says by itself, and the end-of-text token behind that.
    fn one_by_one(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, InferError> {
        let (mut ids, mut given) = (Vec::new(), String::new());
        for Message { role, content } in messages {
            given += &self.render(BEGINS, context! { role })?;
            if role == ASSISTANT && !content.is_empty() {
                ids.extend(tokenizer.encode(&std::mem::take(&mut given))?);
                ids.extend(tokenizer.encode(content)?);
                ids.extend(tokenizer.end_of_text());
            } else {
                given += content;
                given += &self.render(ENDS, context! { role })?;
            }
        }
        given += &self.render(BEGINS, context! { role => ASSISTANT })?;
        ids.extend(tokenizer.encode(&given)?);
        Ok(ids)
    }

    /// The whole text, in which the template may name special tokens.
    fn whole(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, InferError> {
        if let Some((number, other)) = (1..).zip(messages).find(|(_, message)| !ROLES.contains(&message.role.as_str())) {
            return Err(InferError::Role { number, found: other.role.clone(), expected: ROLES.join("`, `") });
        }
        let end = tokenizer.end_of_text().and_then(|id| tokenizer.token_bytes(id)).unwrap_or_default();
        let end = String::from_utf8_lossy(end).into_owned();
        let encoded = |messages: &[Message]| {
            let messages = minijinja::Value::from(Serde(messages));
            let text = self.render(CHAT, context! { messages, add_generation_prompt => true, bos_token => &end, eos_token => &end })?;
            Ok::<_, InferError>(tokenizer.encode_with(&text, SpecialTokens::AllowAll)?)
        };
        // Of messages that say something else there are as many special tokens, or one of them is of what was said.
        let other = |message: &Message| Message { content: if message.content.is_empty() { "" } else { "x" }.into(), ..message.clone() };
        let n_special = |ids: &[u32]| ids.iter().filter(|id| tokenizer.is_special(**id)).count();
        let (ids, others) = (encoded(messages)?, encoded(&messages.iter().map(other).collect::<Vec<_>>())?);
        if n_special(&ids) == n_special(&others) { Ok(ids) } else { Err(InferError::SpecialToken) }
    }

    fn render(&self, name: &str, context: minijinja::Value) -> Result<String, InferError> {
        let template = self.environment.get_template(name).map_err(InferError::ChatTemplate)?;
        template.render(context).map_err(InferError::Chat)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use kindling_tokenizer::{BpeTrainer, END_OF_TEXT};

    use super::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::Bpe(BpeTrainer::new(290).with_special_tokens(&[END_OF_TEXT]).train(&["user assistant: Hello. Hello, user Hi"]).unwrap())
    }

    fn messages(all: &[(&str, &str)]) -> Vec<Message> {
        all.iter().map(|(role, content)| Message { role: (*role).into(), content: (*content).into() }).collect()
    }

    /// The ids, as texts encoded one by one, with the end-of-text token for none.
    fn check(template: &ChatTemplate, said: &[(&str, &str)], expected: &[Option<&str>]) {
        let tokenizer = tokenizer();
        let end = tokenizer.end_of_text().unwrap();
        let ids: Vec<u32> = expected.iter().flat_map(|text| text.map_or(vec![end], |text| tokenizer.encode(text).unwrap())).collect();
        assert_eq!(template.ids(&tokenizer, &messages(said)).unwrap(), ids, "{said:?}");
    }

    #[test]
    fn messages_are_as_they_were_trained_on() {
        let template = ChatTemplate::of_examples(&ExamplesConfig::default()).unwrap();
        let said = [("system", "Be kind.\n"), ("user", " Hi "), ("assistant", "Hello."), ("user", "{{ 1 }}<|endoftext|>")];
        let expected = [
            None,
            Some("system:\nBe kind.\n\n\nuser:\n Hi \n\nassistant:\n"),
            Some("Hello."),
            None,
            Some("user:\n{{ 1 }}<|endoftext|>\n\nassistant:\n"),
        ];
        check(&template, &said, &expected);
        // Where the assistant's text would go together with what stands before it, it does not.
        let config = ExamplesConfig { message_begins: "{{ role }}: ".into(), message_ends: "|".into(), ..ExamplesConfig::default() };
        let template = ChatTemplate::of_examples(&config).unwrap();
        let said = [("user", "Hi"), ("assistant", "Hello"), ("assistant", ""), ("user", "Hi")];
        let expected = [None, Some("user: Hi|assistant: "), Some("Hello"), None, Some("assistant: |user: Hi|assistant: ")];
        check(&template, &said, &expected);
        let (apart, together) = (tokenizer().encode(" Hello").unwrap(), [" ", "Hello"].map(|text| tokenizer().encode(text).unwrap()));
        assert_ne!(apart, together.concat(), "the vocabulary tells them apart");
    }

    #[test]
    fn hugging_faces_templates_are_understood() {
        let tokenizer = tokenizer();
        // In the manner of ChatML, with what such templates do.
        let source = "{%- if messages[0]['role'] == 'system' %}\n    {{- '<sys>' + messages[0]['content'].strip() + '\\n' }}\n    {%- set loop_messages = \
                      messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n{%- for message in loop_messages %}\n    {%- if \
                      (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n        {{- raise_exception('roles must alternate') }}\n    {%- endif %}\n    {{- \
                      '<' + message.role + '>' + message['content'] | trim + eos_token + '\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- \
                      '<assistant>' }}\n{%- endif %}";
        let template = ChatTemplate::new(source.into()).unwrap();
        check(&template, &[("system", " S "), ("user", " Hi ")], &[None, Some("<sys>S\n<user>Hi"), None, Some("\n<assistant>")]);
        let error = |all: &[(&str, &str)]| template.ids(&tokenizer, &messages(all)).unwrap_err().to_string();
        assert!(error(&[("user", "a"), ("user", "b")]).contains("roles must alternate"));
        assert!(error(&[("user", "a<|endoftext|>b")]).contains("special token"));
        assert!(error(&[("endoftext", "a")]).starts_with("message 1 is of `endoftext`, expected one of `system`"));
        // What is put together of parts, too.
        let joined = ChatTemplate::new("{% for message in messages %}{{ message.content }}{% endfor %}".into()).unwrap();
        let parts = messages(&[("user", "<|endof"), ("user", "text|>")]);
        assert!(matches!(joined.ids(&tokenizer, &parts), Err(InferError::SpecialToken)));
        let endless =
            ChatTemplate::new("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}".into()).unwrap();
        assert!(endless.ids(&tokenizer, &[]).is_err());
        assert!(ChatTemplate::new("{% if".into()).is_err());
    }
}
