//! What needs shards that are small: stops, kills, shards written again, and texts that go through byte for byte.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn config(path: &Path, overrides: &[&str]) -> RunConfig {
    let mut all =
        vec![format!("data.paths=[{:?}]", path.display().to_string()), "model.context_len=8".into(), "tokenizer.vocab_size=300".into()];
    all.extend(overrides.iter().map(|o| (*o).to_owned()));
    RunConfig::from_toml(include_str!("../../../../configs/spark.toml"), "spark.toml", &all).unwrap()
}

/// Prepares in shards of `shard_tokens`; `stop_at` events of encoding later the caller wants a stop.
fn prepared(config: &RunConfig, data_dir: &Path, shard_tokens: u64, stop_at: Option<usize>) -> (Result<Prepared, DataError>, Vec<String>) {
    let stop = AtomicBool::new(false);
    let mut said = Vec::new();
    let mut n_encoded = 0;
    let preparation = Preparation { config, data_dir, workspace: data_dir, stop: &stop };
    let result = prepare_in_shards(&preparation, shard_tokens, None, &mut |event| match event {
        PrepareEvent::Encoded { .. } => {
            n_encoded += 1;
            stop.store(stop_at.is_some_and(|n| n_encoded >= n), Ordering::Relaxed);
        }
        PrepareEvent::GoingOn { n_shards } => said.push(format!("going on behind {n_shards}")),
        PrepareEvent::Rebuilding { damage } => said.push(damage.to_string()),
        PrepareEvent::Merges { done: 1, .. } => said.push("training".into()),
        _ => {}
    });
    (result, said)
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs_err::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (PathBuf::from(path.file_name().unwrap()), fs_err::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// 60 MB, of which half is one document, so that there are several batches.
fn corpus(dir: &Path) -> PathBuf {
    let folder = dir.join("texts");
    fs_err::create_dir(&folder).unwrap();
    let line = |i: usize| format!("{{\"text\":\"row {i}: {}\"}}\n", "a größer text of many words ".repeat(1 + i % 40));
    fs_err::write(folder.join("a.jsonl"), (0..36_000).map(line).collect::<String>()).unwrap();
    let line = |i: usize| format!("line {i} of one long document, {} as it is\n", i * i);
    fs_err::write(folder.join("b.txt"), (0..600_000).map(line).collect::<String>()).unwrap();
    folder
}

#[test]
fn what_was_stopped_or_killed_goes_on_and_ends_in_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&corpus(dir.path()), &["tokenizer.kind=char"]);
    let (whole, _) = prepared(&config, &dir.path().join("whole"), 1 << 20, None);
    let whole = whole.map(|data| files(&data.dir)).unwrap();
    assert!(whole.len() > 20, "{} files", whole.len());

    let data_dir = dir.path().join("stopped");
    let hidden = || fs_err::read_dir(&data_dir).unwrap().next().unwrap().unwrap().path();
    let mut n_before = 0;
    for stop_at in [1, 2, 1] {
        let (result, _) = prepared(&config, &data_dir, 1 << 20, Some(stop_at));
        assert!(matches!(result, Err(DataError::Stopped)));
        // All that was finished is noted. A shard gets its header when it is.
        let n_finished = files(&hidden()).iter().filter(|(_, bytes)| bytes.starts_with(b"KNDLSHRD")).count();
        let noted: serde_json::Value = serde_json::from_slice(&fs_err::read(hidden().join("progress.json")).unwrap()).unwrap();
        let n_noted: usize = ["training", "validation"].map(|side| noted[side].as_array().unwrap().len()).iter().sum();
        assert!(n_noted == n_finished && (n_noted > 0) == (stop_at > 1 || n_before > 0), "{n_noted} of {n_finished} shards");
        n_before = n_noted;
    }
    // A kill may leave half a shard, and half a note beside the last whole one.
    let hidden = hidden();
    fs_err::write(hidden.join("train-00099.bin"), b"half").unwrap();
    fs_err::write(hidden.join(".progress.json"), b"{").unwrap();
    // And a disk that lied may have lost the end of one.
    let last = files(&hidden).iter().rfind(|(name, _)| name.to_string_lossy().starts_with("train-0000")).unwrap().0.clone();
    fs_err::write(hidden.join(&last), b"lost").unwrap();
    let (result, said) = prepared(&config, &data_dir, 1 << 20, None);
    let data = result.unwrap();
    assert!(said.len() == 1 && said[0].starts_with("going on behind") && said[0] != "going on behind 0", "{said:?}");
    assert!(files(&data.dir) == whole, "the same files");
    assert_eq!(fs_err::read_dir(&data_dir).unwrap().count(), 1, "nothing hidden is left");
}

/// 12 MB in two long documents and many short ones, with letters of many scripts. Lines are indented: a line feed and the spaces behind
/// it belong together, so that no line's end is a place to cut.
fn many_scripts(dir: &Path) -> PathBuf {
    let folder = dir.join("texts");
    fs_err::create_dir(&folder).unwrap();
    let line = |i: usize| {
        format!("    Zeile {i}: größer, 日本語のテキスト, it's {}\r\n\t  the  end;{}", i * i, if i.is_multiple_of(7) { "\n" } else { "" })
    };
    fs_err::write(folder.join("a.txt"), (0..60_000).map(line).collect::<String>()).unwrap();
    fs_err::write(folder.join("b.txt"), (0..60_000).map(line).collect::<String>().replace('\n', " ")).unwrap();
    let row = |i: usize| format!("{}\n", serde_json::json!({ "text": line(i).repeat(1 + i % 9) }));
    fs_err::write(folder.join("c.jsonl"), (0..8_000).map(row).collect::<String>()).unwrap();
    folder
}

#[test]
fn one_thread_or_many_write_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&many_scripts(dir.path()), &["data.clean={newlines=true,redact=[\"ip\"],dedup=\"exact\"}"]);
    let all: Vec<_> = [1, 2, 5]
        .map(|n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            let data_dir = dir.path().join(n_threads.to_string());
            pool.install(|| prepared(&config, &data_dir, 1 << 19, None).0.map(|data| (files(&data.dir), data.dir))).unwrap()
        })
        .into_iter()
        .map(|(files, dir)| (files, dir.file_name().unwrap().to_owned()))
        .collect();
    assert!(all[0].0.len() > 5);
    assert!(all[1..].iter().all(|other| *other == all[0]));
}

#[test]
fn a_long_document_has_the_ids_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let folder = many_scripts(dir.path());
    for name in ["a.txt", "b.txt"] {
        let path = folder.join(name);
        let text = fs_err::read_to_string(&path).unwrap();
        for kind in ["bpe", "word", "char"] {
            let data = prepared(
                &config(&path, &["tokenizer.vocab_size=500", &format!("tokenizer.kind={kind}")]),
                &dir.path().join(name),
                1 << 19,
                None,
            )
            .0
            .unwrap();
            let n_training = data.manifest.training.n_bytes as usize;
            for (shards, text, begins) in [(&data.training, &text[..n_training], true), (&data.validation, &text[n_training..], false)] {
                let whole = crate::encode_document(&data.tokenizer, text, begins).unwrap();
                assert!(shards.read(0, shards.n_tokens()) == whole, "{name} as {kind}");
            }
        }
    }
}

#[test]
fn a_broken_shard_is_named_and_written_again_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&corpus(dir.path()), &["tokenizer.kind=char", "data.validation_fraction=0.3"]);
    let data = prepared(&config, dir.path(), 4 << 20, None).0.unwrap();
    let whole = files(&data.dir);
    let shards = [&data.manifest.training, &data.manifest.validation].map(|split| split.shards.clone());
    assert!(shards[0].len() > 3 && shards[1].len() > 1, "{} and {} shards", shards[0].len(), shards[1].len());
    for shard in [&shards[0][0], &shards[0][2], &shards[1][1], shards[0].last().unwrap()] {
        let path = data.dir.join(&shard.file);
        let modified = |file: &ShardManifest| fs_err::metadata(data.dir.join(&file.file)).unwrap().modified().unwrap();
        let before: Vec<_> = shards.iter().flatten().filter(|other| *other != shard).map(modified).collect();
        fs_err::remove_file(&path).unwrap();
        let (result, said) = prepared(&config, dir.path(), 4 << 20, None);
        assert!(result.unwrap().reused);
        assert!(said.len() == 1 && said[0].contains(&shard.file), "{said:?}");
        assert!(files(&data.dir) == whole, "{}", shard.file);
        let after: Vec<_> = shards.iter().flatten().filter(|other| *other != shard).map(modified).collect();
        assert_eq!(after, before, "the others are left alone");
    }
}

#[test]
fn another_process_is_waited_for_and_its_work_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&corpus(dir.path()), &["tokenizer.kind=char"]);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| prepared(&config, dir.path(), 1 << 20, None).0.unwrap().reused)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|reused| !**reused).count(), 1, "{results:?}");
}

#[test]
fn files_that_change_meanwhile_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    for after in ["other words\n", "one word\n", "same words\n"] {
        fs_err::write(&path, "some words\n".repeat(100)).unwrap();
        let config = config(&path, &[]);
        let stop = AtomicBool::new(false);
        let preparation = Preparation { config: &config, data_dir: dir.path(), workspace: dir.path(), stop: &stop };
        let result = prepare_in_shards(&preparation, 1 << 20, None, &mut |event| {
            if matches!(event, PrepareEvent::Read { .. }) {
                fs_err::write(&path, after.repeat(100)).unwrap();
            }
        });
        assert!(matches!(result, Err(DataError::Changed)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// With cleaning off, the shards are the texts.
    #[test]
    fn shards_give_back_the_input_to_the_byte(
        documents in prop::collection::vec("\\PC{1,60}|[a-c \r\n\t'1é日\u{301}]{1,60}", 2..40),
        kind in prop::sample::select(vec!["bpe", "char"]),
        tail in any::<bool>(),
        shard_tokens in 1u64..200,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let lines: String = documents.iter().map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect();
        fs_err::write(&path, lines).unwrap();
        let split = if tail { "tail" } else { "document" };
        let overrides = [&*format!("tokenizer.kind={kind}"), &*format!("data.split={split}"), "data.validation_fraction=0.4", "model.context_len=1"];
        let data = match prepared(&config(&path, &overrides), &dir.path().join("data"), shard_tokens, None).0 {
            Err(DataError::TooSmall { .. }) => return Ok(()),
            data => data.unwrap(),
        };
        let text = |shards: &crate::Shards| data.tokenizer.decode_lossy(&shards.read(0, shards.n_tokens())).unwrap();
        let (training, validation) = (text(&data.training), text(&data.validation));
        if tail {
            let whole: String = documents.iter().map(|text| format!("<|endoftext|>{text}")).collect();
            prop_assert_eq!(training + &validation, whole);
        } else {
            // Both sides in the order of the file.
            let mut sides = [training.as_str(), validation.as_str()];
            for document in &documents {
                let whole = format!("<|endoftext|>{document}");
                let side = sides.iter_mut().find(|side| side.strip_prefix(&*whole).is_some_and(|rest| rest.is_empty() || rest.starts_with("<|endoftext|>")));
                prop_assert!(side.is_some(), "`{}` is next on no side", document);
                let side = side.unwrap();
                *side = &side[whole.len()..];
            }
            prop_assert_eq!(sides, ["", ""]);
        }
        prop_assert_eq!(data.manifest.training.n_bytes + data.manifest.validation.n_bytes, documents.iter().map(|text| text.len() as u64).sum::<u64>());
    }

    /// With cleaning on, bytes in are bytes out, dropped and changed, at every step.
    #[test]
    fn every_byte_is_accounted_for(
        documents in prop::collection::vec("[a-c \r\n'1é日e\u{301}的]{1,60}|(a@b\\.org |1\\.2\\.3\\.4 |the cat ){1,4}", 2..60),
        newlines in any::<bool>(), nfc in any::<bool>(), redact in any::<bool>(), stop_words in any::<bool>(),
        min_chars in 0usize..12, dedup in prop::sample::select(vec!["off", "exact", "near"]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let lines: String = documents.iter().map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect();
        fs_err::write(&path, lines).unwrap();
        let redact = if redact { "[\"email\",\"ip\",\"phone\",\"key\"]" } else { "[]" };
        let stop_words = if stop_words { "[\"en\",\"zh\"]" } else { "[]" };
        let clean = format!("data.clean={{newlines={newlines},nfc={nfc},redact={redact},stop_words={stop_words},min_chars={min_chars},dedup=\"{dedup}\"}}");
        let data = match prepared(&config(&path, &[&clean, "model.context_len=1"]), &dir.path().join("data"), 1000, None).0 {
            Err(DataError::TooSmall { .. } | DataError::OneDocument(_) | DataError::Empty(_)) => return Ok(()),
            data => data.unwrap(),
        };
        let manifest = &data.manifest;
        let (mut n_documents, mut n_bytes) = (documents.len(), documents.iter().map(|text| text.len() as u64).sum::<u64>());
        for step in &manifest.cleaning {
            prop_assert_eq!((step.n_documents, step.n_bytes), (n_documents, n_bytes), "{:?}", step.step);
            n_documents -= step.documents_dropped;
            n_bytes = step.bytes_out();
        }
        prop_assert_eq!((manifest.corpus.n_documents, manifest.corpus.n_bytes), (n_documents, n_bytes));
        let text = |shards: &crate::Shards| data.tokenizer.decode_lossy(&shards.read(0, shards.n_tokens())).unwrap();
        let written = [&data.training, &data.validation].map(|shards| text(shards).replace("<|endoftext|>", "").len() as u64);
        prop_assert_eq!(written, [manifest.training.n_bytes, manifest.validation.n_bytes]);
        prop_assert_eq!(written[0] + written[1], n_bytes);
    }
}

/// Rows of prompt and completion as a file of every format that has rows.
fn examples(dir: &Path, rows: &[(String, String)]) -> Vec<PathBuf> {
    use parquet::data_type::{ByteArray, ByteArrayType};
    let json: String =
        rows.iter().map(|(prompt, completion)| format!("{{\"prompt\":{prompt:?},\"completion\":{completion:?}}}\n")).collect();
    let separated = |by: char, quote: &str| {
        let line = |(prompt, completion): &(String, String)| format!("7{by}{quote}{prompt}{quote}{by}{quote}{completion}{quote}\n");
        format!("id{by}prompt{by}completion\n{}", rows.iter().map(line).collect::<String>())
    };
    let schema = "message rows { required binary prompt (UTF8); required binary completion (UTF8); }";
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let mut parquet = Vec::new();
    let mut writer = parquet::file::writer::SerializedFileWriter::new(&mut parquet, schema, std::sync::Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in [rows.iter().map(|row| &*row.0).collect::<Vec<_>>(), rows.iter().map(|row| &*row.1).collect()] {
        let values: Vec<_> = column.into_iter().map(ByteArray::from).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    let files = [("a.jsonl", json.clone()), ("a.csv", separated(',', "\"")), ("a.tsv", separated('\t', ""))];
    let mut paths: Vec<_> = files.iter().map(|(name, text)| (dir.join(name), text.clone().into_bytes())).collect();
    paths.push((dir.join("a.jsonl.zst"), zstd::encode_all(json.as_bytes(), 1).unwrap()));
    paths.push((dir.join("a.parquet"), parquet));
    paths.iter().for_each(|(path, bytes)| fs_err::write(path, bytes).unwrap());
    paths.into_iter().map(|(path, _)| path).collect()
}

#[test]
fn rows_of_every_format_are_the_same_examples() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<_> = (0..120).map(|i| (format!("What is {i} and größer {}? ", i % 7), format!("It is {}.", i * 3))).collect();
    let overrides = ["data.examples={}", "data.order=epoch"];
    let mut found = Vec::new();
    for path in examples(dir.path(), &rows) {
        // What a row is called by is its file and its place: the same texts have the same side in all.
        let data = prepared(&config(&path, &overrides), &dir.path().join("data"), 1000, None).0.unwrap();
        assert!(data.manifest.examples && data.manifest.version == EXAMPLES_VERSION);
        let tokens = [&data.training, &data.validation].map(|split| split.read_marked(0..split.n_tokens()));
        let texts: Vec<(String, String)> = tokens
            .concat()
            .chunk_by(|_, next| !next.begins())
            .map(|example| {
                let text = |is_learned| {
                    let ids: Vec<u32> = example.iter().filter(|token| token.is_learned() == is_learned).map(|token| token.id()).collect();
                    String::from_utf8(data.tokenizer.decode(&ids).unwrap()).unwrap()
                };
                (text(false), text(true))
            })
            .collect();
        let end = |text: &str| format!("{text}<|endoftext|>");
        let begin = |text: &str| format!("<|endoftext|>{text}");
        let mut expected: Vec<_> = rows.iter().map(|(prompt, completion)| (begin(prompt), end(completion))).collect();
        let mut sorted = texts;
        sorted.sort();
        expected.sort();
        assert_eq!(sorted, expected, "{}", path.display());
        found.push((data.manifest.tokenizer_hash.clone(), tokens));
    }
    assert!(found.iter().all(|data| *data == found[0]));
}

#[test]
fn prompts_are_learned_in_training_alone() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<_> = (0..120).map(|i| (format!("{i}? "), format!("{}!", i * i))).collect();
    let path = examples(dir.path(), &rows).remove(0);
    let of = |overrides: &[&str]| {
        let overrides = [&["data.examples={}", "data.order=epoch"], overrides].concat();
        prepared(&config(&path, &overrides), &dir.path().join("data"), 1000, None).0.unwrap()
    };
    let (with, without) = (of(&["data.examples.learn_prompt=true"]), of(&[]));
    assert_ne!(with.dir, without.dir);
    let marked = |data: &Prepared| [&data.training, &data.validation].map(|split| split.read_marked(0..split.n_tokens()));
    let ([training, validation], [without_training, without_validation]) = (marked(&with), marked(&without));
    assert_eq!(validation, without_validation);
    assert!(training.iter().all(|token| token.is_learned() != token.begins()));
    assert!(training.iter().map(|token| token.id()).eq(without_training.iter().map(|token| token.id())));
}

#[test]
fn a_broken_shard_of_examples_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<_> = (0..300).map(|i| (format!("{i}? "), format!("{}!", i * i))).collect();
    let path = examples(dir.path(), &rows).remove(0);
    let (config, data_dir) = (config(&path, &["data.examples={}", "data.order=epoch"]), dir.path().join("data"));
    let data = prepared(&config, &data_dir, 400, None).0.unwrap();
    assert!(data.manifest.training.shards.len() > 3);
    let before = files(&data.dir);
    let shard = data.dir.join(&data.manifest.training.shards[2].file);
    drop(data);
    let mut bytes = fs_err::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&shard, bytes).unwrap();
    let (data, said) = prepared(&config, &data_dir, 400, None);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(files(&data.unwrap().dir) == before);
}

#[test]
fn rows_that_are_no_examples_are_placed() {
    let dir = tempfile::tempdir().unwrap();
    let error = |name: &str, text: &str, overrides: &[&str]| {
        let path = dir.path().join(name);
        fs_err::write(&path, text).unwrap();
        let overrides = [&["data.examples={}", "data.order=epoch"], overrides].concat();
        let error = prepared(&config(&path, &overrides), &dir.path().join("data"), 1000, None).0.unwrap_err();
        assert!(error.hint().is_some());
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    let good = "{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"c\",\"completion\":\"d\"}\n";
    assert_eq!(error("a.jsonl", &format!("{good}{{\"prompt\":\"a\"}}\n"), &[]), "`a.jsonl`, line 3: no field `completion`, found `prompt`");
    assert_eq!(error("b.csv", "question,completion\na,b\n", &[]), "`b.csv`, line 2: no field `prompt`, found `question, completion`");
    assert_eq!(error("c.txt", good, &[]), "`c.txt` has no rows, and with `data.examples` each row is an example");
    let expected = "the tokenizer has no end-of-text token, which examples begin and end with";
    let vocabulary = dir.path().join("tokenizer.json");
    Tokenizer::Char(CharVocab::from_characters(&Characters::default(), &[])).save(&vocabulary).unwrap();
    let path = format!("tokenizer.path={:?}", vocabulary.display().to_string());
    assert_eq!(error("d.jsonl", good, &["tokenizer.kind=file", &path]), expected);
    let message = error("e.jsonl", good, &["data.examples.prompt=\"{% if %}\""]);
    assert!(message.starts_with("`data.examples.prompt` is no template: "), "{message}");
    let message = error("f.jsonl", good.split_inclusive('\n').next().unwrap(), &[]);
    assert!(message.starts_with("the corpus has 1 document, expected at least 2"), "{message}");
    let message = error("g.csv", "prompt,completion,prompt\na,b,c\n", &[]);
    assert!(message.starts_with("`g.csv`, line 1: two fields are called `prompt`"), "{message}");
    // What is bad is left out where that is asked for.
    let path = dir.path().join("a.jsonl");
    let data =
        prepared(&config(&path, &["data.examples={}", "data.order=epoch", "data.skip_bad=true"]), &dir.path().join("data"), 1000, None);
    assert_eq!(data.0.unwrap().manifest.corpus.bad_rows_skipped, 1);
}

/// Writes a Parquet file, a column at a time.
fn parquet_file(path: &Path, schema: &str, columns: &mut [&mut dyn FnMut(&mut parquet::file::writer::SerializedColumnWriter<'_>)]) {
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let file = fs_err::File::create(path).unwrap();
    let mut writer = parquet::file::writer::SerializedFileWriter::new(file, schema, std::sync::Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for write in columns {
        let mut column = group.next_column().unwrap().unwrap();
        write(&mut column);
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn rows_of_parquet_are_read_by_the_fields_that_are_used() {
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::writer::SerializedColumnWriter;
    fn texts<const N: usize>(texts: [&'static [u8]; N]) -> impl FnMut(&mut SerializedColumnWriter<'_>) {
        move |column| {
            column.typed::<ByteArrayType>().write_batch(&texts.map(ByteArray::from), None, None).unwrap();
        }
    }
    let numbers = |numbers: [i64; 3]| {
        move |column: &mut SerializedColumnWriter<'_>| {
            column.typed::<Int64Type>().write_batch(&numbers, None, None).unwrap();
        }
    };
    let dir = tempfile::tempdir().unwrap();
    // Texts without a mark that they are texts, one of them no text; and a time that no calendar has.
    let path = dir.path().join("a.parquet");
    let schema = "message rows { required binary prompt; required binary completion (UTF8); required int64 id;
        required int64 at (TIMESTAMP(MILLIS,true)); }";
    let columns: &mut [&mut dyn FnMut(&mut SerializedColumnWriter<'_>)] = &mut [
        &mut texts([b"one? ", b"two? ", b"three? "]),
        &mut texts([b"1", b"\xff", b"3"]),
        &mut numbers([1, 2, 3]),
        &mut numbers([0, 1 << 60, 1]),
    ];
    parquet_file(&path, schema, columns);
    // Chats of two messages, the second one learned.
    let chats = dir.path().join("chats.parquet");
    let schema = "message rows { required group messages (LIST) { repeated group list { required group element {
        required binary role (UTF8); required binary content (UTF8); } } } }";
    let messages = |texts: [&'static str; 4]| {
        move |column: &mut SerializedColumnWriter<'_>| {
            column.typed::<ByteArrayType>().write_batch(&texts.map(ByteArray::from), Some(&[1; 4]), Some(&[0, 1, 0, 1])).unwrap();
        }
    };
    let columns: &mut [&mut dyn FnMut(&mut SerializedColumnWriter<'_>)] =
        &mut [&mut messages(["user", "assistant", "user", "assistant"]), &mut messages(["Hi", "Hello", "Bye", "Farewell"])];
    parquet_file(&chats, schema, columns);

    let learned = |path: &Path, overrides: &[&str]| {
        let overrides = [&["data.examples={}", "data.order=epoch", "tokenizer.kind=char"], overrides].concat();
        prepared(&config(path, &overrides), &dir.path().join("data"), 1000, None).0.map(|data| {
            let tokens = [&data.training, &data.validation].map(|split| split.read_marked(0..split.n_tokens())).concat();
            let ids: Vec<u32> = tokens.into_iter().filter(|token| token.is_learned()).map(|token| token.id()).collect();
            let text = String::from_utf8(data.tokenizer.decode(&ids).unwrap()).unwrap();
            let mut texts: Vec<_> = text.split_terminator("<|endoftext|>").map(str::to_owned).collect();
            texts.sort();
            (texts, data.manifest.corpus.bad_rows_skipped)
        })
    };
    assert_eq!(learned(&path, &["data.skip_bad=true"]).unwrap(), (["1", "3"].map(str::to_owned).to_vec(), 1));
    assert_eq!(learned(&path, &["data.lossy=true"]).unwrap().0, ["1", "3", "\u{fffd}"]);
    assert_eq!(learned(&path, &["data.examples.completion=\"{{ id }}\""]).unwrap().0, ["1", "2", "3"]);
    assert_eq!(learned(&chats, &[]).unwrap().0, ["Farewell", "Hello"]);
    let message = learned(&path, &[]).unwrap_err().to_string();
    assert!(message.ends_with("line 2: byte 1 of the field `completion` is not UTF-8"), "{message}");
    let message = learned(&path, &["data.examples.prompt=\"{{ at }}\""]).unwrap_err().to_string();
    assert!(message.ends_with("the field `at` holds neither texts nor numbers"), "{message}");
}
