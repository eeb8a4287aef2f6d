//! A mean over segments, as a sum and a count.

use std::ops::AddAssign;

use serde::Serialize;

/// The mean of a value that each segment has, such as its ROUGE: a sum and a count, so that parts add up.
///
/// ```
/// use kindling_metrics::Mean;
/// let mut mean: Mean = [0.5, 1.0].into_iter().collect();
/// mean += Mean::from(0.0);
/// assert_eq!(mean.value(), 0.5);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Mean {
    /// Sum of the values.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

impl Mean {
    /// The mean; NaN where there are no values.
    pub fn value(&self) -> f64 {
        self.sum / self.count as f64
    }
}

impl From<f64> for Mean {
    fn from(value: f64) -> Self {
        Self { sum: value, count: 1 }
    }
}

impl FromIterator<f64> for Mean {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut mean = Self::default();
        values.into_iter().for_each(|value| mean += value.into());
        mean
    }
}

impl AddAssign for Mean {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }
}
