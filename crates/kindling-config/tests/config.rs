//! What configurations are accepted, and what is said about those that are not.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use kindling_config::{ConfigError, Order, RunConfig};

const SPARK: &str = include_str!("../../../configs/spark.toml");
const SHAKESPEARE: &str = include_str!("../../../configs/shakespeare-char.toml");

fn parse(overrides: &[&str]) -> Result<RunConfig, ConfigError> {
    RunConfig::from_toml(SPARK, "spark.toml", &overrides.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
}

/// Parses with one override and checks message and hint.
fn check(overrides: &[&str], message: &str, hint: Option<&str>) {
    let error = parse(overrides).expect_err(message);
    assert_eq!((error.to_string().as_str(), error.hint().as_deref()), (message, hint), "{overrides:?}");
}

#[test]
fn presets_parse_and_survive_a_round_trip() {
    let data = ["data.paths=[\"input.txt\"]".to_owned()];
    for (text, overrides) in [(SPARK, &data[..0]), (SHAKESPEARE, &data[..])] {
        let config = RunConfig::from_toml(text, "preset", overrides).unwrap();
        assert_eq!(RunConfig::from_toml(&config.to_toml(), "again", &[]).unwrap(), config);
    }
}

#[test]
fn overrides_take_toml_values_and_bare_words() {
    let config =
        parse(&["train.lr=1", "train.steps = 7", "tokenizer.kind=char", "sample.prompt=\"a = b\"", "model.dropout.residual=0.5"]).unwrap();
    assert_eq!((config.train.lr, config.train.steps, config.model.dropout.residual), (1.0, 7, 0.5));
    assert_eq!((config.tokenizer.kind, config.sample.prompt.as_str()), (kindling_config::TokenizerKind::Char, "a = b"));
}

#[test]
fn how_batches_are_made_is_written_where_it_is_not_the_default() {
    let written = |overrides: &[&str]| {
        let config = parse(overrides).unwrap();
        let text = config.to_toml();
        assert_eq!(RunConfig::from_toml(&text, "again", &[]).unwrap(), config);
        (config.data.order, config.data.document_mask, text.contains("order = "), text.contains("document_mask = "))
    };
    assert_eq!(written(&[]), (Order::Random, false, false, false));
    assert_eq!(written(&["data.order=random", "data.document_mask=false"]), (Order::Random, false, false, false));
    assert_eq!(written(&["data.order=epoch", "data.document_mask=true"]), (Order::Epoch, true, true, true));
}

#[test]
fn unknown_keys_are_named_with_a_suggestion() {
    for (key, hint) in
        [("train.step", "did you mean `steps`?"), ("model.n_layer", "did you mean `n_layers`?"), ("trian.steps", "did you mean `train`?")]
    {
        let error = parse(&[&format!("{key}=1")]).unwrap_err();
        assert!(matches!(&error, ConfigError::UnknownKey { source_name, .. } if source_name == "--set"), "{error}");
        assert_eq!(error.hint().as_deref(), Some(hint));
    }
    let far = parse(&["train.zzzzzzzz=1"]).unwrap_err();
    assert_eq!(far.hint().as_deref(), Some("`docs/formats.md` lists every key"));
    let in_file = RunConfig::from_toml(&SPARK.replace("n_heads", "n_head"), "spark.toml", &[]).unwrap_err();
    assert!(
        in_file.to_string().starts_with("spark.toml, line 8: unknown key `n_head`, expected one of `n_layers`, `n_heads`"),
        "{in_file}"
    );
}

#[test]
fn broken_toml_is_placed() {
    let error = RunConfig::from_toml(&SPARK.replace("steps = 800", "steps = many"), "spark.toml", &[]).unwrap_err().to_string();
    assert!(error.starts_with("spark.toml: TOML parse error at line"), "{error}");
    let error = RunConfig::from_toml(&SPARK.replace("lr = 1.5e-3", "lr = \"fast\""), "spark.toml", &["train.steps=5".to_owned()])
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("spark.toml: "), "{error}");
}

#[test]
fn impossible_values_are_said_with_what_would_be_right() {
    check(
        &["model.n_heads=5", "model.d_model=12"],
        "`model.n_heads` is 5, expected a divisor of `model.d_model`, 12",
        Some("d_model 12 can be split into [1, 2, 3, 4, 6, 12] heads"),
    );
    check(
        &["model.n_layers=0"],
        "`model.n_layers` is 0, expected a whole number from 1 to 16777216",
        Some("change it in the config, or pass `--set model.n_layers=VALUE`"),
    );
    check(
        &["model.dropout.attention=1.0"],
        "`model.dropout.attention` is 1, expected a probability, at least 0 and below 1",
        Some("change it in the config, or pass `--set model.dropout.attention=VALUE`"),
    );
    check(&["model.norm_eps=0"], "`model.norm_eps` is 0, expected a number above 0", Some("GPT-2 has 1e-5"));
    check(&["train.lr=-1"], "`train.lr` is -1, expected a number above 0", Some("change it in the config, or pass `--set train.lr=VALUE`"));
    check(
        &["train.lr=nan"],
        "`train.lr` is NaN, expected a number above 0",
        Some("change it in the config, or pass `--set train.lr=VALUE`"),
    );
    check(
        &["train.min_lr=1"],
        "`train.min_lr` is 1, expected a number from 0 to `train.lr`, 0.0015",
        Some("change it in the config, or pass `--set train.min_lr=VALUE`"),
    );
    check(
        &["train.beta_2=1"],
        "`train.beta_2` is 1, expected at least 0 and below 1",
        Some("change it in the config, or pass `--set train.beta_2=VALUE`"),
    );
    check(
        &["sample.top_p=0"],
        "`sample.top_p` is 0, expected above 0 and at most 1",
        Some("change it in the config, or pass `--set sample.top_p=VALUE`"),
    );
    check(
        &["tokenizer.vocab_size=100"],
        "`tokenizer.vocab_size` is 100, expected a whole number from 257 to 16777216",
        Some("change it in the config, or pass `--set tokenizer.vocab_size=VALUE`"),
    );
    check(
        &["tokenizer.kind=file"],
        "`tokenizer.path` is missing, expected the path of a `tokenizer.json`, or the name of a published vocabulary",
        Some("change it in the config, or pass `--set tokenizer.path=VALUE`"),
    );
    check(
        &["data.validation_packages=[\"nope\"]"],
        "`data.validation_packages` is `nope`, expected names that `data.packages` has too",
        Some("change it in the config, or pass `--set data.validation_packages=VALUE`"),
    );
    check(
        &["data.packages=[]"],
        "`data.paths` is empty, and so is `data.packages`, expected at least one file, folder, glob or package",
        Some("pass `--data PATH`"),
    );
    check(
        &["name=\"../up\""],
        "`name` is `../up`, expected letters, digits, `-`, `_` and `.`, beginning with a letter or digit",
        Some("change it in the config, or pass `--set name=VALUE`"),
    );
    check(&["steps"], "override `steps` is not of the form `section.key=value`", Some("for example `--set train.steps=500`"));
    let source = |name: &str, weight: f64| format!("{{name=\"{name}\",paths=[\"x\"],weight={weight}}}");
    let sources = |all: &[String]| format!("data.sources=[{}]", all.join(","));
    let own = ["data.packages=[]", "data.validation_packages=[]"];
    check(
        &[own[0], own[1], &sources(&[source("a", 1.0), source("b", 0.0)])],
        "`data.sources.weight` is 0, expected a number above 0",
        Some("change it in the config, or pass `--set data.sources.weight=VALUE`"),
    );
    check(
        &[own[0], own[1], &sources(&[source("a", 1.0), source("a", 2.0)])],
        "`data.sources.name` is `a` twice, expected a name of its own for each source",
        Some("change it in the config, or pass `--set data.sources.name=VALUE`"),
    );
    check(
        &[&sources(&[source("a", 1.0)])],
        "`data.sources` is texts here and in `data.paths` or `data.packages` too, expected either `data.sources`, or `data.paths` and `data.packages`",
        Some("change it in the config, or pass `--set data.sources=VALUE`"),
    );
    check(
        &[own[0], own[1], "data.split=tail", &sources(&[source("a", 1.0)])],
        "`data.split` is `tail`, with `data.sources`, expected `document`, or `data.validation_paths`",
        Some("change it in the config, or pass `--set data.split=VALUE`"),
    );
    check(
        &["data.clean={min_chars=9,max_chars=3}"],
        "`data.clean.max_chars` is 3, below `data.clean.min_chars`, 9, expected 0, or at least `data.clean.min_chars`",
        Some("change it in the config, or pass `--set data.clean.max_chars=VALUE`"),
    );
    check(
        &["data.clean={near_similarity=1.5}"],
        "`data.clean.near_similarity` is 1.5, expected above 0 and at most 1",
        Some("change it in the config, or pass `--set data.clean.near_similarity=VALUE`"),
    );
    let lora = |text: &str| format!("base={{run=\"old\",weights_hash=\"00\",lora={text}}}");
    check(
        &["model.d_ff=100", &lora("{rank=101,alpha=32,targets=[\"qkv\"]}")],
        "`base.lora.rank` is 101, expected a whole number from 1 to 100, the shorter side of the model's matrices",
        Some("8 or 16 is usual; to train all weights, leave adapters out"),
    );
    check(
        &[&lora("{rank=8,alpha=-1,targets=[\"qkv\"]}")],
        "`base.lora.alpha` is -1, expected a number above 0",
        Some("32 is usual, whatever the rank is"),
    );
    check(
        &[&lora("{rank=8,alpha=32,targets=[]}")],
        "`base.lora.targets` is empty, expected some of `qkv`, `proj`, `up`, `down`",
        Some("all four learn most for their size"),
    );
    check(
        &[&lora("{rank=8,alpha=32,targets=[\"up\",\"qkv\",\"up\"]}")],
        "`base.lora.targets` is `up` twice, expected each of `qkv`, `proj`, `up`, `down` once at most",
        Some("leave one of the two out"),
    );
}
