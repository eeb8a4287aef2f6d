//! The stream decoder against decoding as a whole.

use kindling_tokenizer::Tokenizer;
use proptest::prelude::*;

use crate::{BPE, CHARS, NASTY, WORDS, all_kinds};

/// Pushes ids one by one. A piece of text is a `String`, so it cannot hold half a character; what must be seen
/// is that nothing was replaced too early, which the whole shows.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut decoder = tokenizer.stream_decoder();
    let mut text: String = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
    text.push_str(&decoder.finish());
    text
}

#[test]
fn nasty_text_streams_as_it_decodes() {
    for tokenizer in all_kinds() {
        for text in NASTY {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(streamed(tokenizer, &ids), tokenizer.decode_lossy(&ids).unwrap());
        }
    }
}

#[test]
fn a_character_comes_with_its_last_byte() {
    let mut decoder = BPE.stream_decoder();
    let parts: Vec<String> = "a👍é".bytes().map(|byte| decoder.push(u32::from(byte)).unwrap()).collect();
    assert_eq!(parts, ["a", "", "", "", "👍", "", "é"]);
    assert_eq!(decoder.finish(), "");
}

#[test]
fn an_unfinished_character_is_flushed_and_the_decoder_begins_anew() {
    let mut decoder = BPE.stream_decoder();
    assert_eq!(decoder.push(0xf0).unwrap(), "");
    assert_eq!(decoder.push(0x9f).unwrap(), "");
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(decoder.push(u32::from(b'x')).unwrap(), "x");
}

#[test]
fn an_unknown_id_changes_nothing() {
    let mut decoder = BPE.stream_decoder();
    assert_eq!(decoder.push(0xc3).unwrap(), "");
    assert!(decoder.push(u32::MAX).is_err());
    assert_eq!(decoder.push(0xa9).unwrap(), "é");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_stream_as_they_decode(bytes in prop::collection::vec(prop_oneof![
        Just(0x61u8), Just(0xc3), Just(0xa9), Just(0xe2), Just(0x82), Just(0xac), Just(0xf0), Just(0x9f), Just(0x91),
        Just(0x8d), Just(0xed), Just(0xa0), Just(0xf4), Just(0x90), Just(0xff), any::<u8>(),
    ], 0..40)) {
        let ids: Vec<u32> = bytes.iter().map(|&byte| u32::from(byte)).collect();
        let whole = BPE.decode_lossy(&ids).unwrap();
        prop_assert_eq!(&whole, &String::from_utf8_lossy(&bytes));
        prop_assert_eq!(streamed(&BPE, &ids), whole);
    }

    #[test]
    fn any_ids_stream_as_they_decode(picks in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        for tokenizer in [&*BPE, &*CHARS, &*WORDS] {
            let ids: Vec<u32> =
                picks.iter().map(|pick| u32::try_from(pick.index(tokenizer.vocab_size())).unwrap()).collect();
            prop_assert_eq!(streamed(tokenizer, &ids), tokenizer.decode_lossy(&ids).unwrap());
        }
    }
}
