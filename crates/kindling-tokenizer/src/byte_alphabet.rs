//! GPT-2's spelling of bytes as printable characters, used only in files. Encoding itself works on bytes.

/// The character that stands for each byte (`bytes_to_unicode` of GPT-2's `encoder.py`): itself where Latin-1
/// prints it, otherwise the next free one from U+0100 on.
const SPELLING: [char; 256] = {
    let mut spelling = ['\0'; 256];
    let mut next = 0x100u32;
    let mut byte = 0u32;
    while byte < 256 {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable { byte } else { next };
        if !printable {
            next += 1;
        }
        spelling[byte as usize] = match char::from_u32(code) {
            Some(character) => character,
            None => panic!("all codes here are below U+0144"),
        };
        byte += 1;
    }
    spelling
};

/// Spells bytes as a file does, for instance ` the` as `Ġthe`.
pub(crate) fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| SPELLING[byte as usize]).collect()
}

/// The bytes that a spelling stands for, or `None` if it has a character outside the alphabet.
pub(crate) fn unspell(text: &str) -> Option<Vec<u8>> {
    text.chars().map(byte_of).collect()
}

fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        // In the order of SPELLING: 0x00 to 0x20, then 0x7f to 0xa0, then 0xad.
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let spelled = spell(&all);
        assert_eq!(spelled.chars().count(), 256);
        assert_eq!(unspell(&spelled), Some(all));
        assert!(spelled.chars().all(|c| !c.is_whitespace() && !c.is_control()));
    }

    #[test]
    fn known_spellings() {
        assert_eq!(spell(b" the\n"), "ĠtheĊ");
        assert_eq!(unspell("日"), None);
        assert_eq!(unspell(" "), None);
    }
}
