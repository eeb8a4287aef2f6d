//! Named streams of randomness from one number. Draws nothing itself.

use serde::{Deserialize, Serialize};

/// The one number from which every random choice of a run follows.
///
/// ```
/// use kindling_config::Seed;
/// let seed = Seed(1337);
/// assert_ne!(seed.stream("init"), seed.stream("batches"));
/// assert_eq!(seed.stream("init"), Seed(1337).stream("init"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed of the stream `name`: XXH3 of the name, keyed by the run's seed, so that adding a
    /// stream never shifts the numbers of another.
    pub fn stream(self, name: &str) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), self.0)
    }
}
