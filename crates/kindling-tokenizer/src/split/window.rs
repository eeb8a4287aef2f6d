//! 64 bytes of text at once: which of them are letters, digits, white space, as sets of positions in one `u64`.

/// Bytes of a window.
pub(super) const WINDOW: usize = 64;

/// 64 bytes, and where the classes of ASCII stand in them. Of bytes outside ASCII only `wide` is right.
#[derive(Debug, PartialEq)]
pub(super) struct Window<'a> {
    pub(super) bytes: &'a [u8; WINDOW],
    /// Bytes outside ASCII.
    pub(super) wide: u64,
    pub(super) letters: u64,
    pub(super) digits: u64,
    /// Space, and 0x09 to 0x0d.
    pub(super) white: u64,
    /// Space alone.
    pub(super) blanks: u64,
    pub(super) apostrophes: u64,
}

impl<'a> Window<'a> {
    #[inline(always)]
    pub(super) fn new(bytes: &'a [u8; WINDOW]) -> Self {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code, reason = "intrinsics of a set that the target always has")]
        // SAFETY: SSE2 is part of x86-64.
        return unsafe { sse2::window(bytes) };
        #[cfg(not(target_arch = "x86_64"))]
        return swar::window(bytes);
    }
}

/// The positions right after those of a set.
#[inline(always)]
pub(super) fn just_after(set: u64) -> u64 {
    set << 1
}

/// The positions right before those of a set.
#[inline(always)]
pub(super) fn just_before(set: u64) -> u64 {
    set >> 1
}

/// Sixteen bytes a register: what every x86-64 has.
#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };

    use super::{WINDOW, Window};

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn window(bytes: &[u8; WINDOW]) -> Window<'_> {
        let mut window = Window { bytes, wide: 0, letters: 0, digits: 0, white: 0, blanks: 0, apostrophes: 0 };
        for (i, sixteen) in bytes.as_chunks::<16>().0.iter().enumerate() {
            let [low, high] = [0, 8].map(|at| i64::from_le_bytes(std::array::from_fn(|i| sixteen[at + i])));
            let lanes = _mm_set_epi64x(high, low);
            let blanks = _mm_cmpeq_epi8(lanes, _mm_set1_epi8(b' ' as i8));
            window.wide |= set(lanes, i);
            window.letters |= set(range(_mm_or_si128(lanes, _mm_set1_epi8(0x20)), b'a', b'z'), i);
            window.digits |= set(range(lanes, b'0', b'9'), i);
            window.white |= set(_mm_or_si128(blanks, range(lanes, 0x09, 0x0d)), i);
            window.blanks |= set(blanks, i);
            window.apostrophes |= set(_mm_cmpeq_epi8(lanes, _mm_set1_epi8(b'\'' as i8)), i);
        }
        window
    }

    /// The bytes whose high bit is set.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn set(lanes: __m128i, i: usize) -> u64 {
        u64::from(_mm_movemask_epi8(lanes) as u32) << (16 * i)
    }

    /// The range is moved to the lowest numbers of a signed byte, so that one comparison is enough.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn range(lanes: __m128i, first: u8, last: u8) -> __m128i {
        let moved = _mm_add_epi8(lanes, _mm_set1_epi8((0x80 - first) as i8));
        _mm_cmplt_epi8(moved, _mm_set1_epi8((0x80 + (last - first) + 1) as i8))
    }
}

/// Eight bytes a register, anywhere.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod swar {
    use super::{WINDOW, Window};

    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;

    pub(super) fn window(bytes: &[u8; WINDOW]) -> Window<'_> {
        let mut window = Window { bytes, wide: 0, letters: 0, digits: 0, white: 0, blanks: 0, apostrophes: 0 };
        for (i, &eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(eight);
            let blanks = range(word, b' ', b' ');
            window.wide |= set(word, i);
            window.letters |= set(range(word | (LOW * 0x20), b'a', b'z'), i);
            window.digits |= set(range(word, b'0', b'9'), i);
            window.white |= set(blanks | range(word, 0x09, 0x0d), i);
            window.blanks |= set(blanks, i);
            window.apostrophes |= set(range(word, b'\'', b'\''), i);
        }
        window
    }

    /// The bytes whose high bit is set.
    fn set(word: u64, i: usize) -> u64 {
        // The product moves the eighth bits of all bytes beside each other into the highest byte.
        (((word & HIGH) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i)
    }

    /// Sets the high bit of each byte that lies in `first..=last`. Right where all bytes are below 128.
    fn range(word: u64, first: u8, last: u8) -> u64 {
        // No sum carries into the next byte.
        let word = word & !HIGH;
        (word + LOW * u64::from(128 - first)) & !(word + LOW * u64::from(127 - last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_what_bytes_say() {
        for from in 0..=64u8 {
            let bytes: [u8; WINDOW] = std::array::from_fn(|i| from + i as u8);
            let of = |is: &dyn Fn(u8) -> bool| (0..WINDOW).fold(0, |set, i| set | u64::from(is(bytes[i])) << i);
            let expected = Window {
                bytes: &bytes,
                wide: of(&|byte| byte > 127),
                letters: of(&|byte| byte.is_ascii_alphabetic()),
                digits: of(&|byte| byte.is_ascii_digit()),
                white: of(&|byte| char::from(byte).is_whitespace()),
                blanks: of(&|byte| byte == b' '),
                apostrophes: of(&|byte| byte == b'\''),
            };
            assert_eq!(Window::new(&bytes), expected);
            assert_eq!(swar::window(&bytes), expected);
        }
        let wide: [u8; WINDOW] = std::array::from_fn(|i| (i * 4) as u8);
        assert_eq!(Window::new(&wide).wide, u64::MAX << 32);
        assert_eq!(swar::window(&wide).wide, u64::MAX << 32);
    }
}
