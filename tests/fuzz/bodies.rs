//! What every parser must bear: any bytes at all, with an error or a value that keeps its promises, and never a panic. The same parsers
//! meet seeded mistakes in the tests of their crates, on stable Rust.

use std::path::Path;

use kindling_data::{ReadOptions, Shards, for_each_text};
use kindling_tokenizer::{END_OF_TEXT, SplitPattern, Tokenizer};

/// A `tokenizer.json`.
pub fn tokenizer_json(bytes: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_json(&String::from_utf8_lossy(bytes)) {
        keeps_its_promises(&tokenizer);
    }
}

/// A `.tiktoken` file.
pub fn tiktoken(bytes: &[u8]) {
    in_file("x.tiktoken", bytes, |path| {
        if let Ok(tokenizer) = Tokenizer::load_tiktoken(path, SplitPattern::Cl100k, &[(END_OF_TEXT, 258)]) {
            keeps_its_promises(&tokenizer);
        }
    });
}

/// Lines of JSON, read with care and without.
pub fn json_lines(bytes: &[u8]) {
    in_file("x.jsonl", bytes, |path| {
        let read = |skip_bad, lossy| {
            let options = ReadOptions { text_field: "text", skip_bad, lossy };
            for_each_text(&[path.to_owned()], options, &mut |done, total| assert!(done <= total), &mut |_| Ok(()))
        };
        let (careful, careless) = (read(false, false), read(true, true));
        assert!(careful.is_err() || careless.is_ok(), "what can be read can be read with less care");
        if let Err(error) = careful {
            assert!(!error.to_string().is_empty() && error.hint().is_some());
        }
    });
}

/// A token shard.
pub fn shard(bytes: &[u8]) {
    in_file("x.bin", bytes, |path| {
        if let Ok(shards) = Shards::open(&[path.to_owned()]) {
            let n_tokens = shards.n_tokens();
            assert_eq!(shards.read(0, n_tokens).len() as u64, n_tokens);
        }
    });
}

fn keeps_its_promises(tokenizer: &Tokenizer) {
    let text = "lowest naïve 12 <|endoftext|>\r\n";
    if let Ok(ids) = tokenizer.encode(text) {
        let decoded = tokenizer.decode(&ids).expect("ids of its own");
        assert!(!tokenizer.is_lossless() || decoded == text.as_bytes());
    }
    let json = tokenizer.to_json();
    assert_eq!(Tokenizer::from_json(&json).expect("a file of its own").to_json(), json);
}

fn in_file(name: &str, bytes: &[u8], f: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a folder for a file");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file that can be written");
    f(&path);
}
