//! Weights that are laid out once as matrix products read them, kept as f32, bf16, or int8.
//!
//! A product with them reads nothing twice and copies nothing: of few rows it is as fast as memory. Its sums are those of `matmul.rs`, value by
//! value: with f32 weights of a product in f32, with bf16 and int8 weights of one in bf16, which holds every int8.
#![allow(unsafe_code, reason = "panels are read and written through pointers")]

use rayon::prelude::*;

use super::arithmetic::{Pairs, PairsKernel, Precision, Words, bf16, dispatch_pairs};
use super::buffer::in_large_pages;
use super::isa::{Isa, Vector, dispatch};
use super::matmul::{BLOCK_K, Matrix, TileShape};
use super::tile::tile_cols;

/// How weights are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightFormat {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16, to the nearest and ties to even; values that they are multiplied by are rounded too.
    Bf16,
    /// As whole numbers from −127 to 127 with a scale for each output; values that they are multiplied by are rounded to bf16.
    Int8,
}

impl std::fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl std::str::FromStr for WeightFormat {
    type Err = String;

    /// A format by its name.
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|format| format.to_string() == text);
        named.ok_or_else(|| "expected f32, bf16 or int8".into())
    }
}

impl WeightFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// What factors of products with such weights are rounded to.
    pub fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Bf16 | Self::Int8 => Precision::Bf16,
        }
    }

    /// Rows of 32-bit words that so many words along k take: four int8 share one, two words of two.
    fn stored(self, words: usize) -> usize {
        match self {
            Self::F32 | Self::Bf16 => words,
            Self::Int8 => words.div_ceil(2),
        }
    }
}

/// A packed matrix `[k, n]`: block by block of k, panel by panel of as many columns as the register tile has, row by row of words.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    pub(crate) format: WeightFormat,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// Columns of a panel: those of the instruction set that it was packed for.
    pub(crate) width: usize,
    is_grouped: bool,
    pub(crate) words: &'a [i32],
    /// Of each column, for int8; else empty.
    pub(crate) scales: &'a [f32],
}

/// Where a block of k begins, how many values and words it has, and where its words begin.
#[derive(Clone, Copy, Debug)]
struct BlockOfK {
    from: usize,
    depth: usize,
    words: usize,
    offset: usize,
}

/// The blocks of k that a product sums up one by one.
fn blocks(format: WeightFormat, k: usize, n_padded: usize) -> impl Iterator<Item = BlockOfK> + Clone {
    let precision = format.precision();
    let n_blocks = precision.words(k).div_ceil(BLOCK_K).max(1);
    let most = k.div_ceil(n_blocks).max(1);
    let per_block = format.stored(precision.words(most)) * n_padded;
    (0..k.div_ceil(most)).map(move |i| {
        let depth = (k - i * most).min(most);
        BlockOfK { from: i * most, depth, words: precision.words(depth), offset: i * per_block }
    })
}

impl<'a> Packed<'a> {
    /// A matrix that [`pack`] has made on this kind of processor.
    ///
    /// # Panics
    /// If the sizes do not fit.
    pub fn new(isa: Isa, format: WeightFormat, [k, n]: [usize; 2], words: &'a [i32], scales: &'a [f32]) -> Self {
        let (_, width) = dispatch(isa, TileShape);
        assert_eq!(words.len(), n_words(format, k, n, width), "packed for these instructions");
        assert_eq!(scales.len(), if format == WeightFormat::Int8 { n } else { 0 }, "a scale for each output of int8");
        Self { format, k, n, width, is_grouped: is_grouped(isa), words, scales }
    }

    /// Words of a panel in the block of k that begins at `from`, of a depth.
    pub(crate) fn panels(&self, from: usize, col: usize) -> *const f32 {
        if self.k == 0 {
            return std::ptr::NonNull::dangling().as_ptr();
        }
        let block = blocks(self.format, self.k, self.n.next_multiple_of(self.width)).find(|block| block.from == from);
        let block = block.expect("a product has the blocks that weights are packed in");
        debug_assert!(col.is_multiple_of(self.width));
        self.words[block.offset + col * self.format.stored(block.words)..].as_ptr().cast()
    }

    /// Whether rows of words have to be spread out into panels of pairs first.
    pub(crate) fn is_quads(&self) -> bool {
        self.format == WeightFormat::Int8
    }

    /// A column as values, `[k]`.
    ///
    /// # Panics
    /// If there is none.
    pub fn column(&self, col: usize, out: &mut [f32]) {
        assert!(col < self.n && out.len() == self.k, "column {col} of {}, of {} values", self.n, self.k);
        let (panel, lane) = (col - col % self.width, col % self.width);
        for BlockOfK { from, depth, words, offset } in blocks(self.format, self.k, self.n.next_multiple_of(self.width)) {
            let at = |row: usize| self.words[offset + panel * self.format.stored(words) + row * self.width + lane].cast_unsigned();
            for (i, out) in out[from..from + depth].iter_mut().enumerate() {
                // The second half of a block stands in the upper halves of its words.
                let (word, is_high) = (i % words, i >= words);
                *out = match self.format {
                    WeightFormat::F32 => f32::from_bits(at(i)),
                    WeightFormat::Bf16 if is_high => f32::from_bits(at(word) & 0xffff_0000),
                    WeightFormat::Bf16 => f32::from_bits(at(word) << 16),
                    WeightFormat::Int8 => {
                        let of = |(lane, place): (usize, usize)| Quad::at(self.is_grouped, lane, place);
                        let group = lane - lane % GROUP;
                        let mut places = (group..group + GROUP).flat_map(|lane| (0..4).map(move |place| (lane, place)));
                        let wanted = Quad { col: lane, word: word % 2, is_high };
                        let (lane, place) = places.find(|place| of(*place) == wanted).expect("a group has all of its columns");
                        let byte =
                            self.words[offset + panel * self.format.stored(words) + word / 2 * self.width + lane].to_le_bytes()[place];
                        f32::from(of_sign_and_size(byte)) * self.scales[col]
                    }
                };
            }
        }
    }
}

/// Columns whose bytes stand together where bytes are turned into numbers by tables.
const GROUP: usize = 4;

/// Whether the instructions turn bytes into numbers by tables: they then want the pairs of a word of four columns in one half of 16 bytes, and
/// those of the next word in the other.
fn is_grouped(isa: Isa) -> bool {
    isa == Isa::Avx512Bf16
}

/// Which number a byte of a word of a quad is: of a column, of the first or the second of two words, and of its lower or upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quad {
    col: usize,
    word: usize,
    is_high: bool,
}

impl Quad {
    /// The byte `place` of the word in the place of column `col`.
    fn at(is_grouped: bool, col: usize, place: usize) -> Self {
        if !is_grouped {
            return Self { col, word: place / 2, is_high: place % 2 == 1 };
        }
        let byte = col % GROUP * 4 + place;
        Self { col: col - col % GROUP + byte % 8 / 2, word: byte / 8, is_high: byte % 2 == 1 }
    }
}

/// A whole number as its size with a bit for its sign above.
fn sign_and_size(value: i8) -> u8 {
    value.unsigned_abs() | if value < 0 { 0x80 } else { 0 }
}

fn of_sign_and_size(byte: u8) -> i8 {
    let size = (byte & 0x7f).cast_signed();
    if byte & 0x80 == 0 { size } else { -size }
}

fn n_words(format: WeightFormat, k: usize, n: usize, width: usize) -> usize {
    let n_padded = n.next_multiple_of(width);
    blocks(format, k, n_padded).last().map_or(0, |last| last.offset + format.stored(last.words) * n_padded)
}

/// The words of a matrix, and of int8 the scale of each column.
pub fn pack(isa: Isa, format: WeightFormat, matrix: Matrix<'_>) -> (Vec<i32>, Vec<f32>) {
    let (k, n) = (matrix.rows(), matrix.cols());
    let (_, width) = dispatch(isa, TileShape);
    let is_grouped = is_grouped(isa);
    let scales: Vec<f32> = match format {
        WeightFormat::Int8 => {
            // What is no number stays none.
            let larger = |a: f32, b: f32| if a.is_nan() || b <= a { a } else { b };
            let largest = |col: usize| (0..k).map(|row| matrix.at(row, col).abs()).fold(0.0, larger);
            (0..n).into_par_iter().map(|col| largest(col) / 127.0).collect()
        }
        WeightFormat::F32 | WeightFormat::Bf16 => Vec::new(),
    };
    let n_words = n_words(format, k, n, width);
    let mut out = in_large_pages::<i32>(n_words);
    out.resize(n_words, 0);
    let n_padded = n.next_multiple_of(width);
    for BlockOfK { from, depth, words, offset } in blocks(format, k, n_padded) {
        let stored = format.stored(words);
        let value = |i: usize, col: usize| if i < depth && col < n { matrix.at(from + i, col) } else { 0.0 };
        let int8 = |i: usize, col: usize| {
            let scale = scales[col];
            let q = if scale > 0.0 { (value(i, col) / scale).round_ties_even().clamp(-127.0, 127.0) } else { 0.0 };
            sign_and_size(q as i8)
        };
        let word = |row: usize, col: usize| match format {
            WeightFormat::F32 => value(row, col).to_bits(),
            WeightFormat::Bf16 => bf16(value(row, col)) >> 16 | bf16(value(words + row, col)),
            WeightFormat::Int8 => {
                let byte = |place: usize| {
                    let Quad { col, word, is_high } = Quad::at(is_grouped, col, place);
                    let word = 2 * row + word;
                    if word < words && col < n { int8(if is_high { words + word } else { word }, col) } else { 0 }
                };
                u32::from_le_bytes(std::array::from_fn(byte))
            }
        };
        let panels = out[offset..offset + stored * n_padded].par_chunks_mut(stored * width);
        panels.enumerate().for_each(|(panel, out)| {
            for (row, out) in out.chunks_mut(width).enumerate() {
                // In groups a byte of a column that there is may stand in a word of one that there is not.
                let columns = panel * width..n.next_multiple_of(GROUP).min((panel + 1) * width);
                let columns = columns.filter(|col| *col < n || is_grouped);
                out.iter_mut().zip(columns).for_each(|(out, col)| *out = word(row, col).cast_signed());
            }
        });
    }
    (out, scales)
}

/// Spreads a panel of quads out into one of pairs.
pub(crate) struct Expand {
    pub(crate) from: *const f32,
    pub(crate) words: usize,
    pub(crate) out: *mut f32,
}

impl Expand {
    /// # Safety
    /// `from` must have the quads of so many words for a panel of the width of `isa`, and `out` room for the words.
    pub(crate) unsafe fn run(self, isa: Isa) {
        dispatch_pairs(isa, self);
    }
}

impl PairsKernel for Expand {
    type Output = ();
    #[inline(always)]
    fn run<P: Pairs>(self, pairs: P) {
        let Self { from, words, out } = self;
        let (lanes, width) = (<P::Simd as pulp::Simd>::F32_LANES, tile_cols::<P::Simd>());
        for row in 0..words.div_ceil(2) {
            for lane in (0..width).step_by(lanes) {
                // SAFETY: whoever made this vouches for both.
                unsafe {
                    let quads = from.add(row * width + lane).cast::<Words<P>>().read_unaligned();
                    let [first, second] = pairs.of_quads(quads);
                    out.add(2 * row * width + lane).cast::<Words<P>>().write_unaligned(first);
                    if 2 * row + 1 < words {
                        out.add((2 * row + 1) * width + lane).cast::<Words<P>>().write_unaligned(second);
                    }
                }
            }
        }
    }
}

/// The pairs of bf16 in one half of quads of int8.
#[inline(always)]
pub(crate) fn pairs_of<S: Vector>(simd: S, quads: S::f32s, half: u32) -> S::f32s {
    let quads = simd.transmute_u32s_f32s(quads);
    let (low, high) = (byte_of(simd, quads, 16 * half), byte_of(simd, quads, 16 * half + 8));
    // So small a whole number has nothing in the lower half.
    simd.transmute_f32s_u32s(simd.or_u32s(simd.wrapping_dyn_shr_u32s(low, simd.splat_u32s(16)), high))
}

/// The bits of the number that a byte of each word is.
#[inline(always)]
fn byte_of<S: Vector>(simd: S, quads: S::u32s, shift: u32) -> S::u32s {
    let byte = simd.wrapping_dyn_shr_u32s(quads, simd.splat_u32s(shift));
    let size = simd.and_u32s(byte, simd.splat_u32s(0x7f));
    let sign = simd.wrapping_dyn_shl_u32s(simd.and_u32s(byte, simd.splat_u32s(0x80)), simd.splat_u32s(24));
    // A whole number of 7 bits in the last places of 2^23 is 2^23 more than it is.
    let large = simd.transmute_f32s_u32s(simd.or_u32s(size, simd.splat_u32s(0x4b00_0000)));
    simd.or_u32s(simd.transmute_u32s_f32s(simd.sub_f32s(large, simd.splat_f32s(8_388_608.0))), sign)
}
