//! How fast a training is between two rows of a log. Measures nothing itself.

/// Tokens and seconds of the steps since the last row.
#[derive(Clone, Debug, Default)]
pub struct Speed {
    tokens: u64,
    seconds: f64,
    last_tokens: Option<u64>,
}

impl Speed {
    /// Counts a step that took so many seconds, and after which so many tokens were trained on in all.
    pub fn count(&mut self, tokens: u64, step_s: f64) {
        // How many tokens the first step of a resumed run had is not known.
        if let Some(last) = self.last_tokens.replace(tokens) {
            self.tokens += tokens - last;
            self.seconds += step_s;
        }
    }

    /// The run went back: the tokens of the next step are not known either.
    pub fn go_back(&mut self) {
        self.last_tokens = None;
    }

    /// Tokens a second since this was last asked, where a step was counted.
    pub fn take(&mut self) -> Option<f64> {
        let (tokens, seconds) = (std::mem::take(&mut self.tokens), std::mem::take(&mut self.seconds));
        (seconds > 0.0).then(|| tokens as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_and_the_one_after_going_back_are_left_out() {
        let mut speed = Speed::default();
        assert_eq!(speed.take(), None);
        speed.count(1000, 9.0);
        assert_eq!(speed.take(), None);
        speed.count(1100, 1.0);
        speed.count(1300, 2.0);
        assert_eq!(speed.take(), Some(100.0));
        assert_eq!(speed.take(), None);
        speed.go_back();
        speed.count(500, 9.0);
        speed.count(600, 0.5);
        assert_eq!(speed.take(), Some(200.0));
    }
}
