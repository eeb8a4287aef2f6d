//! Short pre-tokens as two numbers, which compare and hash in a few cycles. Knows no ids.

/// Longer pre-tokens have no key.
const LONGEST: usize = 15;

/// The bytes of a pre-token, zeros behind them, and its length in the last byte. The default is that of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key {
    low: u64,
    high: u64,
}

/// Which bytes of a key belong to a pre-token of each length.
const MASKS: [(u64, u64); LONGEST + 1] = {
    let mut masks = [(0, 0); LONGEST + 1];
    let mut len = 1;
    while len <= LONGEST {
        masks[len] = if len < 8 { ((1 << (8 * len)) - 1, 0) } else { (u64::MAX, (1 << (8 * (len - 8))) - 1) };
        len += 1;
    }
    masks
};

impl Key {
    /// The key of `bytes[start..end]`, or the default if that is empty or too long.
    #[inline(always)]
    pub(crate) fn new(bytes: &[u8], start: usize, end: usize) -> Self {
        let len = end - start;
        let Some(&(low, high)) = MASKS.get(len) else {
            return Self::default();
        };
        match bytes[start..].first_chunk::<16>() {
            // More is read than the pre-token has, for that takes no branch.
            Some(read) => {
                let read = u128::from_le_bytes(*read);
                Self { low: read as u64 & low, high: (read >> 64) as u64 & high | (len as u64) << 56 }
            }
            None => {
                let mut padded = [0; 16];
                padded[..len].copy_from_slice(&bytes[start..end]);
                let read = u128::from_le_bytes(padded);
                Self { low: read as u64, high: (read >> 64) as u64 | (len as u64) << 56 }
            }
        }
    }

    /// Whether it is the key of no pre-token.
    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.high == 0
    }

    /// A place in a table of `1 << log2` entries.
    #[inline(always)]
    pub(crate) fn place(self, log2: u32) -> usize {
        place(self.low ^ self.high.rotate_left(29), log2)
    }

    /// Calls `f` with the bytes of the pre-token.
    pub(crate) fn with_bytes<R>(self, f: impl FnOnce(&[u8]) -> R) -> R {
        let bytes = (u128::from(self.high) << 64 | u128::from(self.low)).to_le_bytes();
        f(&bytes[..bytes[LONGEST] as usize])
    }
}

/// The key of a pre-token of one to seven bytes in one number, which is never 0: its bytes, then its length in the lowest.
#[inline(always)]
pub(crate) fn short_key(bytes: &[u8], start: usize, end: usize) -> u64 {
    let len = end - start;
    let read = match bytes[start..].first_chunk::<8>() {
        Some(read) => u64::from_le_bytes(*read),
        None => bytes[start..end].iter().rev().fold(0, |read, &byte| read << 8 | u64::from(byte)),
    };
    // What was read beyond the pre-token is shifted out.
    read << (64 - 8 * len as u32) | len as u64
}

/// A place in a table of `1 << log2` entries, by Fibonacci hashing (Knuth, vol. 3, 6.4).
#[inline(always)]
pub(crate) fn place(number: u64, log2: u32) -> usize {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - log2)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_bytes() {
        let text = b"abc\0\0defghijklmnopqrstuvwxyz";
        for start in 0..text.len() {
            for end in start..text.len() {
                let key = Key::new(text, start, end);
                let has_one = (1..=LONGEST).contains(&(end - start));
                assert_eq!(key.is_none(), !has_one);
                if has_one {
                    assert_eq!(key.with_bytes(<[u8]>::to_vec), text[start..end]);
                    // At the end of a text, where fewer bytes can be read.
                    assert_eq!(key, Key::new(&text[..end], start, end));
                }
            }
        }
        assert_ne!(Key::new(b"a\0", 0, 1), Key::new(b"a\0", 0, 2));
    }

    #[test]
    fn a_short_key_is_its_bytes() {
        let text = b"abc\0\0\0\0defg\0\xff\xff";
        let mut keys = std::collections::HashMap::new();
        for start in 0..text.len() {
            for end in start + 1..=(start + 7).min(text.len()) {
                let key = short_key(text, start, end);
                assert_eq!(key, short_key(&text[..end], start, end));
                assert_eq!(*keys.entry(key).or_insert(&text[start..end]), &text[start..end]);
            }
        }
        let pieces: std::collections::HashSet<_> = keys.values().collect();
        assert_eq!(pieces.len(), keys.len());
    }
}
