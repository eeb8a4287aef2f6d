//! Writing text: what it may be, how weights are kept, a smaller model beside, and conversations.

use kindling_tests::{Lab, check_usage};
use serde_json::Value;

#[test]
fn a_text_is_what_it_may_be() {
    let lab = Lab::with_run();
    let text = |options: &str| {
        let said = lab.run(&format!("generate old --prompt 'the ' --max-new-tokens 60 {options} --json")).ok().json();
        (said["text"].as_str().expect("a text").to_owned(), said["stop_reason"].clone())
    };
    for seed in 0..4 {
        let (date, reason) = text(&format!("--regex '[0-9]{{4}}-[0-9]{{2}}' --seed {seed}"));
        assert!(date.len() == 7 && date.as_bytes()[4] == b'-' && date.replace('-', "").parse::<u32>().is_ok(), "{date}");
        assert_eq!(reason, "end_of_text");
        let (choice, _) = text(&format!("--choice 'yes, it is' --choice no --seed {seed}"));
        assert!(["yes, it is", "no"].contains(&choice.as_str()), "{choice}");
        lab.write("schema.json", r#"{"type":"object","required":["n"],"additionalProperties":false,"properties":{"n":{"type":"integer","minimum":1,"maximum":9}}}"#);
        let (object, _) = text(&format!("--json-schema schema.json --seed {seed}"));
        let object: Value = serde_json::from_str(&object).expect("JSON");
        assert!((1..=9).contains(&object["n"].as_u64().expect("a number")), "{object}");
    }
    let (whole, _) = text("--temperature 0");
    let stop: String = whole.chars().skip(4).take(3).collect();
    let (stopped, reason) = text(&format!("--temperature 0 --stop '{stop}'"));
    assert_eq!((whole.split(&stop).next(), &reason), (Some(stopped.as_str()), &Value::from("stop_text")));
    assert_ne!(text("--temperature 0 --repetition-penalty 5").0, whole);

    lab.write("broken.json", "{");
    lab.check_errors(&[
        ("generate old --regex '(a'", &["the text cannot be constrained so"]),
        ("generate old --choice ''", &["choices are missing or empty"]),
        ("generate old --json-schema broken.json", &["broken.json", "no JSON"]),
        ("generate old --json-schema nothing.json", &["nothing.json"]),
        ("generate old --min-p 2", &["`min_p` is 2, expected 0 to 1", "--min-p"]),
        ("generate old --presence-penalty -3", &["`presence_penalty` is -3", "--presence-penalty"]),
    ]);
    check_usage(&lab.run("generate old --regex a --choice b"), "cannot be used with");
    check_usage(&lab.run("generate old --weights int4"), "expected f32, bf16 or int8");
}

#[test]
fn weights_may_be_kept_in_fewer_bits() {
    let lab = Lab::with_run();
    let scores = lab.run("eval old --text text.txt --weights bf16 --weights int8 --json").ok().json();
    let scores = scores.as_array().expect("three scores");
    let of = |i: usize| (scores[i]["weights"].as_str().expect("a format"), scores[i]["bits_per_byte"].as_f64().expect("a number"));
    let (full, bf16, int8) = (of(0), of(1), of(2));
    assert_eq!((scores.len(), full.0, bf16.0, int8.0), (3, "f32", "bf16", "int8"));
    for (name, found) in [bf16, int8] {
        assert!(found != full.1 && (found - full.1).abs() < 0.02 * full.1, "{name}: {found} for {}", full.1);
    }
    let told = lab.run("eval old --text text.txt --weights int8").ok();
    assert!(told.out.contains("as int8") && told.out.contains("bits a byte, "), "{told}");
    check_usage(&lab.run("eval old --weights int8"), "--text");
    for format in ["f32", "bf16", "int8"] {
        let said = lab.run(&format!("generate old --weights {format} --temperature 0 --json")).ok().json();
        assert_eq!(said["new_tokens"], 24, "{format}: {said}");
    }
}

#[test]
fn a_smaller_model_changes_no_greedy_text() {
    let lab = Lab::with_run();
    lab.run("TRAIN --name small --set train.steps=10 --set model.d_model=8").ok();
    lab.run("TRAIN --name other --set tokenizer.vocab_size=290").ok();
    let text = |options: &str| lab.run(&format!("generate old --temperature 0 --max-new-tokens 40 {options}")).ok().out;
    let alone = text("");
    assert_eq!(text("--draft small"), alone);
    assert_eq!(text("--draft old --draft-tokens 7 --weights f32"), alone);
    lab.check_errors(&[
        ("generate old --draft other", &["`other`", "another tokenizer", "hint"]),
        ("generate old --draft nobody", &["nobody"]),
        ("serve old --port 0 --draft other", &["another tokenizer"]),
    ]);
}

#[test]
fn a_conversation_by_lines() {
    let lab = Lab::new();
    lab.run("TRAIN --name old --set model.context_len=96").ok();
    let said = lab.shell("printf '%s\\n' '/set max_new_tokens 5' 'the dog' '/retry' '//x\\' 'y' '/save chats.jsonl' '/undo' 'z' '/save undone.jsonl' '/new' | $KINDLING chat old --json --system 'Be kind.'").ok();
    let answers: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(answers.len(), 4, "{said}");
    assert!(answers.iter().all(|answer| answer["role"] == "assistant" && answer["new_tokens"].as_u64() <= Some(5)), "{said}");
    assert_ne!(answers[0]["content"], answers[1]["content"], "another seed draws another answer");
    let chat: Value = serde_json::from_str(&lab.read("chats.jsonl")).expect("an example");
    let messages: Vec<(&str, &str)> = chat["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|one| (one["role"].as_str().expect("a role"), one["content"].as_str().expect("a text")))
        .collect();
    assert_eq!(messages[0], ("system", "Be kind."));
    assert_eq!((messages[1], messages[3]), (("user", "the dog"), ("user", "/x\ny")));
    assert_eq!(messages[2].1, answers[1]["content"].as_str().expect("a text"), "the answer that took the place of the first");
    assert_eq!(messages.len(), 5);
    let undone: Value = serde_json::from_str(&lab.read("undone.jsonl")).expect("an example");
    assert_eq!((&undone["messages"][1]["content"], &undone["messages"][3]["content"]), (&"the dog".into(), &"z".into()), "{undone}");
    // The examples can be trained on.
    let saved = lab.read("chats.jsonl");
    lab.write("chats.jsonl", format!("{saved}{}", saved.replace("the dog", "a cat")));
    lab.run("train --threads 1 --config tiny.toml --data chats.jsonl --examples --preview").ok();
    for (line, expected) in [
        ("/set temperature -1", "`temperature` is -1"),
        ("/retry", "nothing has been asked yet"),
        ("/nothing", "no command"),
        ("/set x 1", "no setting"),
    ] {
        lab.shell(&format!("printf '{line}\\n' | $KINDLING chat old")).fails(&[expected]);
    }
    let long = "the dog ".repeat(80);
    lab.shell(&format!("printf '{long}\\n' | $KINDLING chat old")).fails(&["expected fewer than the context of 96"]);
}

#[cfg(unix)]
#[test]
fn a_conversation_at_a_terminal() {
    use kindling_tests::OnTerminal;
    let lab = Lab::new();
    lab.run("TRAIN --name old --set model.context_len=96").ok();
    let terminal = OnTerminal::new(&lab, "chat old --max-new-tokens 4", (24, 100), "xterm");
    terminal.wait_for("/help says what else there is");
    terminal.wait_for("> ");
    terminal.press("the dog\r");
    terminal.wait_for("max_new_tokens N allows more");
    terminal.press("/set top_p 7\r");
    terminal.wait_for("error: `top_p` is 7, expected 0 to 1");
    terminal.press("/set\r");
    terminal.wait_for("temperature 0.8, top_k 0, top_p 1");
    // Ctrl-C takes back a line, and Ctrl-D ends.
    terminal.press("not meant\u{3}");
    terminal.wait_for("(Ctrl-D ends)");
    terminal.press("\u{4}");
    let (code, text) = terminal.end();
    assert_eq!(code, 0, "{text}");
    assert!(lab.read("state/kindling/chat_history").contains("the dog"));
}
