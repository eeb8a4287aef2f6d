//! Tasks from a file of rows to answers: trained as text and with a head, tested, applied, and what cannot be.

use kindling_tests::{Lab, check_usage};
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
        lab.run(&format!("apply {name} -- '-{good}'")).ok();
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
    let said = lab.run(&format!("{TRAIN} --name leak --skip-bad")).ok();
    let told = ["60 examples held out for the test", "1 examples left out because the test has their prompt"];
    assert!(told.iter().all(|told| said.err.contains(told)), "{said}");
    // A prompt that the share holds out validates as little as it trains, and the test is of the training files alone.
    lab.write("validation.tsv", rows(50, 3000));
    lab.write("train.tsv", rows(200, 0));
    lab.write("both.toml", TASK.replace("test = [\"test.tsv\"]\n", "test_fraction = 0.2\nvalidation = [\"validation.tsv\"]\n"));
    let said = lab.run(&format!("{} --name both --json", TRAIN.replace("mood.toml", "both.toml"))).json();
    assert_eq!(said["task"]["n_rows"], n);
    let manifest = lab.names("data").into_iter().map(|name| lab.read(&format!("data/{name}/manifest.json")));
    let corpora: Vec<Value> = manifest.map(|text| serde_json::from_str::<Value>(&text).expect("JSON")["corpus"].take()).collect();
    let left_out = |corpus: &&Value| corpus["test_overlaps_skipped"].as_u64().is_some_and(|left_out| left_out > 1);
    let both = corpora.iter().find(left_out).unwrap_or_else(|| panic!("{corpora:?}"));
    assert_eq!(both["test_documents"], n);
    let sum = ["n_documents", "test_documents", "test_overlaps_skipped"].iter().filter_map(|key| both[*key].as_u64()).sum::<u64>();
    assert_eq!(sum, 250);
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
    lab.run(&with("{{ text }}", "{{ txet }}")).fails(&["no field `txet`, found `text, label`"]);
    lab.run(&with("{{ text }}", "{{ text")).fails(&["mood.toml: `prompt` is no template"]);
    lab.run(&with("[\"bad\", \"good\"]", "[\"bad\", \"better\"]"))
        .fails(&["the label is `\"good\"`, expected one of `\"bad\"`, `\"better\"`"]);
    lab.run(&with("[\"bad\", \"good\"]", "[]")).fails(&["mood.toml: `task.labels` is empty"]);
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

/// Rows whose answer is the thing that stands behind a colour in the text.
fn questions(n: usize, salt: usize) -> String {
    let (colours, things) = (["red", "blue", "green"], ["box", "cup", "hat", "key"]);
    let row = |i: usize| {
        let (i, asked) = (i * 5 + salt, i % 3);
        let thing = |colour: usize| things[(i + colour * colour + i / 7) % 4];
        let text = (0..3).map(|colour| format!("{} {}", colours[colour], thing(colour))).collect::<Vec<_>>().join(", ");
        let choices = ["box", "cup", "hat", "key"];
        serde_json::json!({ "id": i, "text": text, "asked": colours[asked], "answer": thing(asked), "choices": choices, "right": [thing(asked), "so"] })
    };
    (0..n).map(|i| row(i).to_string() + "\n").collect()
}

const QUESTIONS: &str = r#"name = "things"
kind = "question-answering"
prompt = "{{ id }}: {{ text }}? {{ asked }}"
target = " {{ answer }}"
groups = "asked"

[data]
train = ["train.jsonl"]
test = ["test.jsonl"]

[decode]
max_new_tokens = 6
"#;

fn of_questions() -> (Lab, String) {
    let lab = Lab::new();
    lab.write("train.jsonl", questions(120, 0));
    lab.write("test.jsonl", questions(30, 1));
    lab.write("mood.toml", QUESTIONS);
    (lab, TRAIN.replace("train.steps=150", "train.steps=30"))
}

#[test]
fn questions_and_choices_are_answered() {
    let (lab, train) = of_questions();
    let trained = lab.run(&format!("{train} --name qa --json")).json();
    let task = &trained["task"];
    assert_eq!(task["systems"][1]["system"], "last answer mentioned");
    let groups: Vec<(&str, u64)> = task["groups"]
        .as_array()
        .map(|groups| groups.iter().map(|one| (one["group"].as_str().unwrap_or(""), one["n_rows"].as_u64().unwrap_or(0))).collect())
        .unwrap_or_default();
    assert_eq!(groups, [("blue", 10), ("green", 10), ("red", 10)]);
    let said = lab.run("eval qa").ok();
    assert!(said.out.contains("exact match  rows") && said.out.lines().any(|line| line.starts_with("green")), "{said}");
    // The same rows as multiple choice: what `eval` chooses, `apply` chooses too, with a space before the target or without.
    for (name, target) in [("spaced", "\" {{ answer }}\""), ("bare", "\"{{ answer }}\"")] {
        let text = QUESTIONS.replace("question-answering", "multiple-choice").replace("\" {{ answer }}\"", target);
        lab.write("mood.toml", text.replace("groups = \"asked\"", "choices = \"choices\""));
        lab.run(&format!("{train} --name {name}")).ok();
        let tested = lab.run(&format!("eval {name} --json")).json();
        assert_eq!((tested["n_rows"].as_u64(), tested["systems"][1]["system"].as_str()), (Some(30), Some("longest choice")));
        let chosen = lab.read(&format!("runs/{name}/tasks/things/predictions.jsonl"));
        let chosen = chosen.lines().map(|row| serde_json::from_str::<Value>(row).expect("JSON"));
        let chosen: Vec<String> = chosen.map(|row| row["prediction"].as_str().unwrap_or("").trim().to_owned()).collect();
        let applied = lab.run(&format!("apply {name} --file test.jsonl")).ok();
        assert_eq!(applied.out.lines().map(|line| line.split('\t').next().unwrap_or("").to_owned()).collect::<Vec<_>>(), chosen);
    }
    // All that is right counts; and what comes next is written and scored.
    lab.write("mood.toml", QUESTIONS.replace("groups =", "references = \"right\"\ngroups ="));
    lab.run("eval qa --task mood.toml").ok();
    assert!(lab.read("runs/qa/tasks/things/predictions.jsonl").contains("\"references\":["));
    lab.write("mood.toml", QUESTIONS.replace("question-answering", "generation"));
    let written = lab.run("eval qa --task mood.toml --json").json();
    assert!(written["systems"][0]["scores"].as_array().is_some_and(|scores| scores.iter().any(|score| score["name"] == "ROUGE-L")));
    // It has been trained on what is tested now.
    lab.write("mood.toml", QUESTIONS.replace("test.jsonl", "train.jsonl").replace("train = [\"train.jsonl\"]\n", ""));
    let said = lab.run("eval qa --task mood.toml").ok();
    assert!(said.err.contains("was trained on the prompts of 120 of these 120 rows"), "{said}");
}

#[test]
fn a_task_that_cannot_be_tested_is_not_trained_for() {
    let (lab, train) = of_questions();
    let with = |from: &str, to: &str| {
        assert!(QUESTIONS.contains(from), "{from}");
        lab.write("mood.toml", QUESTIONS.replace(from, to));
        format!("{train} --name x")
    };
    lab.run(&with("groups = \"asked\"", "groups = \"aksed\"")).fails(&["no field `aksed`"]);
    lab.run(&with("groups =", "references = \"rihgt\"\ngroups =")).fails(&["no field `rihgt`"]);
    lab.run(&with("groups = \"asked\"", "references = \"choices\"\nlearn_prompt = 3")).fails(&["mood.toml"]);
    let choices = |field: &str| {
        let text = QUESTIONS.replace("question-answering", "multiple-choice");
        lab.write("mood.toml", text.replace("groups = \"asked\"", &format!("choices = \"{field}\"")));
        format!("{train} --name x")
    };
    lab.run(&choices("chioces")).fails(&["field `chioces` is no list of at least two texts"]);
    lab.run(&choices("right").replace("--name x", "--name right")).ok();
    lab.run(&with("test = [\"test.jsonl\"]", "test = [\"train.jsonl\"]")).fails(&["nothing is left to train on", "train.jsonl"]);
    // Files of rows whose names have a list are as many files.
    lab.write("part-1.jsonl", questions(60, 0));
    lab.write("part-2.jsonl", questions(60, 400));
    let trained = lab.run(&format!("{} --json", with("train.jsonl", "part-{1,2}.jsonl").replace("--name x", "--name parts"))).json();
    assert_eq!(trained["task"]["n_rows"], 30);
    // Characters that training has not seen.
    lab.write("test.jsonl", questions(30, 1) + &questions(1, 2).replace("red", "röd"));
    let char_level = format!("{} --set tokenizer.kind=char --set model.context_len=64", with("groups = \"asked\"\n", ""));
    let said = lab.run(&char_level).fails(&["test.jsonl, line 31"]);
    assert!(said.err.contains('ö') && said.err.contains("--skip-bad"), "{said}");
    let trained = lab.run(&format!("{char_level} --skip-bad --json").replace("--name x", "--name y")).json();
    assert_eq!((trained["task"]["n_rows"].as_u64(), trained["task"]["n_bad"].as_u64()), (Some(30), Some(1)));
    // A test that is gone does not take the training with it.
    lab.write("test.jsonl", questions(30, 1));
    lab.run(&with("groups = \"asked\"\n", "").replace("--name x", "--name z")).ok();
    std::fs::remove_file(lab.path("test.jsonl")).expect("a file");
    let said = lab.run("train --resume z --set train.steps=40").ok();
    assert!(said.err.contains("its test failed") && said.out.contains("validation loss"), "{said}");
}

#[test]
fn a_row_with_messages_is_a_row_of_a_task() {
    let lab = Lab::new();
    let row = |i: usize| {
        let (said, mood) = if i.is_multiple_of(2) { ("kind", "good") } else { ("rude", "bad") };
        format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"visit {i}: {said}\"}},{{\"role\":\"assistant\",\"content\":\"yo\"}}],\"mood\":\"{mood}\"}}\n"
        )
    };
    lab.write("rows.jsonl", (0..120).map(row).collect::<String>());
    let task = TASK.replace("{{ text }}", "{{ messages[0].content }}").replace("{{ label }}", "{{ mood }}");
    lab.write("mood.toml", task.replace("test = [\"test.tsv\"]\ncolumns = [\"text\", \"label\"]\n", "").replace("train.tsv", "rows.jsonl"));
    let trained = lab.run(&format!("{TRAIN} --head --name m --json")).json();
    assert!(score(&trained["task"], 0, "accuracy") > 0.9, "{trained}");
    // What was held out is what was held out when it was trained.
    let n = trained["task"]["n_rows"].as_u64().expect("a number");
    let trained = lab.run(&format!("{TRAIN} --head --name few --json --set data.test_fraction=0.03")).json();
    let fewer = trained["task"]["n_rows"].as_u64().expect("a number");
    assert!(fewer < n, "{fewer} of {n}");
    assert_eq!(lab.run("eval few --json").json()["n_rows"], fewer);
    let said = lab.run("eval few --task mood.toml").ok();
    assert!(said.err.contains(&format!("was trained on the prompts of {} of these {n} rows", n - fewer)), "{said}");
    // Side by side they have to be asked the same.
    lab.run("eval m few").fails(&["`m` and `few` were not asked the same rows"]);
    lab.run("eval m few --adapter m").fails(&["several runs with `--adapter`"]);
    let both = lab.run("eval m few --task mood.toml --json").json();
    let systems: Vec<&str> =
        both["systems"].as_array().map(|all| all.iter().filter_map(|one| one["system"].as_str()).collect()).unwrap_or_default();
    assert_eq!(systems, ["m", "few", "average of 2", "majority label", "naive Bayes on words"]);
    let said = lab.run("eval m few --task mood.toml").ok();
    assert!(said.out.contains("m less few: ") && said.out.contains("average of 2 less naive Bayes on words: "), "{said}");
    // An option that there is not is no text.
    check_usage(&lab.run("apply m --skip_bad"), "--skip_bad");
}

#[test]
fn several_things_are_asked_of_one_text() {
    let lab = Lab::new();
    let task = "name = \"qa\"\nkind = \"question-answering\"\nprompt = \"{% if text %} {{ text }}{% endif %} {{ q }}\"\ntarget = \" {{ a }}\"\nturns = \"asked\"\n\n\
                [data]\ntrain = [\"qa.jsonl\"]\ntest = [\"qa-test.jsonl\"]\n";
    lab.write("qa.toml", task);
    let row = |i: usize| {
        format!("{{\"text\":\"dog {i} sits\",\"asked\":[{{\"q\":\"who?\",\"a\":\"dog\"}},{{\"text\":\"\",\"q\":\"which?\",\"a\":{i}}}]}}\n")
    };
    lab.write("qa.jsonl", (0..60).map(row).collect::<String>());
    lab.write(
        "qa-test.jsonl",
        "{\"text\":\"dog 7 sits\",\"q\":\"who?\",\"a\":\"dog\"}\n{\"text\":\"dog 100 sits\",\"q\":\"who?\",\"a\":\"dog\"}\n",
    );
    let train = "train --threads 1 --config tiny.toml --task qa.toml --set model.context_len=48";
    let preview = lab.run(&format!("{train} --preview 1")).ok().out;
    assert_eq!(preview.matches("learned │").count(), 2, "{preview}");
    let report = lab.run(&format!("{train} --json")).ok().json();
    assert_eq!(report["task"]["n_rows"], 2, "{report}");

    lab.write("qa-test.jsonl", row(100));
    lab.run(train).fails(&["qa-test.jsonl", "line 1", "field `asked` asks several things"]);
    lab.write("qa.jsonl", "{\"text\":\"t\",\"asked\":[]}\n");
    lab.run(train).fails(&["qa.jsonl", "field `asked` is `[]`, expected a list of rows"]);
    let moods = TASK.replace("labels =", "turns = \"asked\"\nlabels =");
    lab.write("mood.toml", moods);
    lab.run("train --threads 1 --config tiny.toml --task mood.toml --head").fails(&["`task.turns` is given, expected none, with a head"]);
}
