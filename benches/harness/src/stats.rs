//! For: best and median of the samples of one cell.
//! Owns: nothing.
//! Never: an average; on a shared machine a mean says what the neighbours did.

/// The smallest sample and the middle one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Smallest: what the code costs when nothing disturbs it.
    pub best: f64,
    /// Middle: what one sees on this machine.
    pub median: f64,
}

impl Summary {
    /// `None` without samples.
    pub fn of(samples: &[u64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let (&best, middle) = (sorted.first()?, sorted.len() / 2);
        let median = if sorted.len() % 2 == 1 {
            sorted[middle] as f64
        } else {
            (sorted[middle - 1] + sorted[middle]) as f64 / 2.0
        };
        Some(Self { best: best as f64, median })
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn odd_and_even_medians() {
        assert_eq!(Summary::of(&[5, 1, 9]), Some(Summary { best: 1.0, median: 5.0 }));
        assert_eq!(Summary::of(&[4, 1, 9, 6]), Some(Summary { best: 1.0, median: 5.0 }));
        assert_eq!(Summary::of(&[]), None);
    }
}
