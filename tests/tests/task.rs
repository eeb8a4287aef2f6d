//! Tasks from a file of rows to answers: trained as text and with a head, tested, applied, and what cannot be.

use kindling_tests::Lab;
use serde_json::Value;

/// Sentences of which one word decides, in a TSV file without a line of names.
fn rows(n: usize, salt: usize) -> String {
    let (good, bad) = (["fine", "great", "lovely"], ["poor", "awful", "dull"]);
    let things = ["film", "book", "song", "play", "meal", "room", "song", "trip"];
    (0..n)
        .map(|i| {
            let (i, is_good) = (i * 7 + salt, i % 2 == 0);
            let word = if is_good { good[i % 3] } else { bad[i % 3] };
            format!("the {} number {i} was {word}\t{}\n", things[i % 8], if is_good { "good" } else { "bad" })
        })
        .collect()
}

const TASK: &str = r#"name = "mood"
kind = "classification"
prompt = "{{ text }}"
target = "{{ label }}"
labels = ["bad", "good"]

[data]
train = ["train.tsv"]
test = ["test.tsv"]
columns = ["text", "label"]
"#;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("train.tsv", rows(200, 0));
    lab.write("test.tsv", rows(60, 1400));
    lab.write("mood.toml", TASK);
    lab
}

const TRAIN: &str = "train --threads 1 --runs-dir runs --data-dir data --config tiny.toml --set model.context_len=48 --set train.steps=150 --set \
                     train.eval_every=50 --task mood.toml";

fn score(value: &Value, system: usize, name: &str) -> f64 {
    let scores = value["systems"][system]["scores"].as_array().unwrap_or_else(|| panic!("{value}"));
    scores.iter().find(|score| score["name"] == name).and_then(|score| score["value"].as_f64()).unwrap_or_else(|| panic!("{name}: {value}"))
}

#[test]
fn a_task_is_learned_as_text_and_with_a_head() {
    let lab = lab();
    for (name, options) in [("text", ""), ("head", "--head")] {
        let trained = lab.run(&format!("{TRAIN} --name {name} --json {options}")).json();
        let task = &trained["task"];
        assert!(score(task, 0, "accuracy") > 0.95, "{task}");
        assert!((score(task, 1, "accuracy") - 0.5).abs() < 0.01, "{task}");
        assert_eq!((task["n_rows"].as_u64(), task["systems"][1]["system"].as_str()), (Some(60), Some("majority label")));
        assert_eq!(task["classes"]["confusion"].as_array().map(Vec::len), Some(2));
        // The same scores whatever the batch size, and the same predictions, each row with its place.
        let of = |n: usize| {
            let mut value = lab.run(&format!("eval {name} --batch-size {n} --json")).json();
            value["predictions"].take();
            (value, lab.read(&format!("runs/{name}/tasks/mood/predictions.jsonl")))
        };
        let one = of(1);
        assert_eq!(one, of(32));
        let first: Value = serde_json::from_str(one.1.lines().next().expect("a row")).expect("JSON");
        assert!(first["place"].as_str().is_some_and(|place| place.ends_with("test.tsv, line 1")), "{first}");
        assert_eq!(one.1.lines().count(), 60);
        // As it is printed.
        let said = lab.run(&format!("eval {name}")).ok();
        assert!(said.out.contains("naive Bayes on words") && said.out.contains("model less majority label: +0."), "{said}");
        // One text, a row of JSON, a file, standard input.
        let good = "the film number 3 was great";
        let said = lab.run(&format!("apply {name} '{good}'")).ok();
        assert!(said.out.starts_with("good\tgood 0.") && said.out.contains(", bad 0."), "{said}");
        let as_row = lab.run(&format!("apply {name} '{{\"text\": \"{good}\"}}'")).ok();
        assert_eq!(as_row.out, said.out);
        let one: Value = lab.run(&format!("apply {name} '{good}' --json")).json();
        assert!(one["answer"] == "good" && one["probabilities"]["good"].as_f64().is_some_and(|p| p > 0.5), "{one}");
        let of_file = lab.run(&format!("apply {name} --file test.tsv --columns text,label")).ok();
        assert_eq!(of_file.out.lines().count(), 60);
        let of_input = lab.shell(&format!("printf '{good}\\n\\n{good}\\n' | $KINDLING apply {name}")).ok();
        assert_eq!(of_input.out, said.out.repeat(2));
    }
    lab.run("doctor --threads 1 --data-dir data --config tiny.toml --set model.context_len=48 --task mood.toml --head").ok();
    // A head writes nothing.
    let said = lab.run("generate head").fails(&["has a classification head, and writes no text"]);
    assert!(said.err.contains("kindling apply head"), "{said}");
    lab.run("eval head --text text.txt").fails(&["has a classification head, and predicts no text"]);
    // It goes on where it stopped, and from it a task with other labels begins with a new head.
    lab.run("train --resume head --set train.steps=160").ok();
    lab.write("other.toml", TASK.replace("[\"bad\", \"good\"]", "[\"good\", \"bad\", \"none\"]").replace("mood", "other"));
    lab.run("finetune --base head --task other.toml --head --threads 1 --runs-dir runs --data-dir data --set train.steps=5 --name three")
        .ok();
    lab.run("eval head --task other.toml")
        .fails(&["has the labels [\"bad\", \"good\"], and the task `other` [\"good\", \"bad\", \"none\"]"]);
    // What a base was trained for is none of a text's business.
    lab.run("finetune --base head --data text.txt --threads 1 --runs-dir runs --data-dir data --set train.steps=5 --name of-text").ok();
    lab.run("generate of-text").ok();
    // A label is shown as what it is.
    let said = lab.run(&format!("{TRAIN} --head --preview 1")).ok();
    assert!(["learned │good│", "learned │bad│"].iter().any(|label| said.out.contains(label)), "{said}");
    // A base without a head gets one; and a task is tested on a run that knows nothing of it.
    lab.run("TRAIN --name plain --set model.context_len=48 --set sample.prompt=\"\"").ok();
    lab.run("finetune --base plain --task mood.toml --head --threads 1 --runs-dir runs --data-dir data --set train.steps=5 --name tuned")
        .ok();
    let said = lab.run("eval plain --task mood.toml").ok();
    assert!(said.out.contains("task") && said.out.contains("60 rows"), "{said}");
    lab.run("eval plain").fails(&["was not trained for a task"]);
}

#[test]
fn what_is_held_out_is_seen_by_no_training() {
    let lab = lab();
    // A share of the rows, told by their prompts.
    lab.write("share.toml", TASK.replace("test = [\"test.tsv\"]\n", "test_fraction = 0.2\n"));
    let command = TRAIN.replace("mood.toml", "share.toml");
    let trained = lab.run(&format!("{command} --name share --json")).json();
    let n = trained["task"]["n_rows"].as_u64().expect("a number");
    assert!((20..60).contains(&n), "{n} of 200 rows are tested with");
    let manifest: Value = serde_json::from_str(&lab.read(&format!("{}/manifest.json", lab.prepared()))).expect("JSON");
    assert_eq!(manifest["corpus"]["test_documents"], n);
    assert_eq!(manifest["corpus"]["n_documents"].as_u64(), Some(200 - n));
    assert_eq!(trained["task"]["overlap"]["n"], 8);
    // A training row with the prompt of a test row.
    let row = lab.read("test.tsv").lines().nth(3).expect("a row").to_owned();
    lab.write("train.tsv", rows(200, 0) + &row + "\n");
    let said = lab.run(&format!("{TRAIN} --name leak")).fails(&["its prompt stands in the test split too"]);
    assert!(said.err.contains("train.tsv`, line 201") && said.err.contains("--skip-bad"), "{said}");
    lab.run(&format!("{TRAIN} --name leak --skip-bad")).ok();
}

#[test]
fn lines_that_belong_together_become_another_text() {
    let lab = Lab::new();
    let (words, turned) = (["one", "two", "three", "four"], ["eno", "owt", "eerht", "ruof"]);
    let line = |words: [&str; 4], i: usize| format!("{} {} {}\n", words[i % 4], words[i / 4 % 4], words[i / 16 % 4]);
    let lines = |words: [&str; 4]| (0..128).map(|i| line(words, i)).collect::<String>();
    lab.write("t.en", lines(words));
    lab.write("t.ne", lines(turned));
    lab.write("e.en", "two four one\none three two\n");
    lab.write("e.ne", "owt ruof eno\neno eerht owt\n");
    lab.write(
        "turn.toml",
        "name = \"turn\"\nkind = \"sequence-to-sequence\"\nprompt = \"{{ en }}\\n\"\ntarget = \"{{ ne }}\"\n[data]\ntrain = [\"t.{en,ne}\"]\n\
         test = [\"e.{en,ne}\"]\n[decode]\nbeam_size = 3\nmax_new_tokens = 12\n",
    );
    let command = TRAIN.replace("mood.toml", "turn.toml").replace("train.steps=150", "train.steps=400 --set model.d_model=32");
    let trained = lab.run(&format!("{command} --name turn --json --skip-bad")).json();
    let task = &trained["task"];
    assert_eq!((task["n_rows"].as_u64(), task["systems"][1]["system"].as_str()), (Some(2), Some("copy of the prompt")));
    assert!(task["signatures"][0].as_str().is_some_and(|signature| signature.contains("tok:13a")), "{task}");
    assert!(score(task, 0, "chrF") > score(task, 1, "chrF"), "{task}");
    assert_eq!(lab.run("apply turn 'one three two'").ok().out, "eno eerht owt\n");
    // A line too few.
    lab.write("t.ne", lines(turned).replacen("eno eno eno\n", "", 1));
    let said = lab.run(&format!("{command} --name short")).fails(&["ends after 127 lines"]);
    assert!(said.err.contains("line N of each belongs together"), "{said}");
}

#[test]
fn what_cannot_be() {
    let lab = lab();
    let with = |from: &str, to: &str| {
        assert!(TASK.contains(from), "{from}");
        lab.write("mood.toml", TASK.replace(from, to));
        format!("{TRAIN} --name x")
    };
    lab.run(&with("{{ text }}", "{{ txet }}")).fails(&["no field `txet`, found `label, text`"]);
    lab.run(&with("{{ text }}", "{{ text")).fails(&["is no template"]);
    lab.run(&with("[\"bad\", \"good\"]", "[\"bad\", \"better\"]"))
        .fails(&["the label is `\"good\"`, expected one of `\"bad\"`, `\"better\"`"]);
    lab.run(&with("[\"bad\", \"good\"]", "[]")).fails(&["`task.labels` is empty"]);
    lab.run(&with("\"classification\"", "\"translation\"")).fails(&["unknown variant `translation`"]);
    lab.run(&with("kind =", "knid =")).fails(&["unknown key `knid`"]);
    lab.run(&with("test.tsv", "none.tsv")).fails(&["none.tsv"]);
    lab.run(&with("[\"text\", \"label\"]", "[\"text\"]")).fails(&["2 fields, and `data.columns` names 1"]);
    lab.run(&format!(
        "{} --head",
        with(
            "kind = \"classification\"\nprompt = \"{{ text }}\"\ntarget = \"{{ label }}\"\nlabels = [\"bad\", \"good\"]",
            "kind = \"generation\"\nprompt = \"{{ text }}\"\ntarget = \"{{ label }}\""
        )
    ))
    .fails(&["expected `classification`, with a head"]);
    lab.write("mood.toml", TASK);
    lab.write("test.tsv", "");
    lab.run(&format!("{TRAIN} --name x")).fails(&["test.tsv` holds no text"]);
    // A bad row is counted, and named without `--skip-bad`.
    lab.write("test.tsv", rows(20, 1400) + "no label\n");
    let said = lab.run(&format!("{TRAIN} --name x")).fails(&["1 fields, expected 2"]);
    assert!(said.err.contains("test.tsv`, line 21"), "{said}");
    let trained = lab.run(&format!("{TRAIN} --name x --skip-bad --json")).json();
    assert_eq!((trained["task"]["n_rows"].as_u64(), trained["task"]["n_bad"].as_u64()), (Some(20), Some(1)));
    lab.run("apply x '{\"txet\": \"a\"}'").fails(&["no field `text`, found `txet`"]);
    lab.run("eval x --task none.toml").fails(&["cannot read the task `none.toml`"]);
    // A prompt that does not fit the context.
    let long = "very ".repeat(100) + "fine";
    let said = lab.run(&format!("apply x '{long}'")).ok();
    assert!(said.err.contains("1 prompts that did not fit the context lost their beginning"), "{said}");
}
