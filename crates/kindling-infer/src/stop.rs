//! Text as it comes, up to a stop string, of which nothing is let through, not even its beginning. Knows no tokens.

/// Lets text through as far as it cannot be part of a stop string.
#[derive(Clone, Debug, Default)]
pub struct StopText {
    stops: Vec<String>,
    /// What could be the beginning of one.
    held: String,
    has_stopped: bool,
}

impl StopText {
    /// Stops at that of these which is complete first, or begins first of several; empty ones stop nothing.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), ..Self::default() }
    }

    /// Takes more text, and gives back what can be shown. After a stop that is nothing more.
    pub fn push(&mut self, text: &str) -> String {
        if self.has_stopped {
            return String::new();
        }
        self.held += text;
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at)));
        if let Some((_, at)) = found.min() {
            self.has_stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let could_begin = |from: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*from..]));
        let from = self.held.char_indices().map(|(at, _)| at).find(could_begin).unwrap_or(self.held.len());
        let rest = self.held.split_off(from);
        std::mem::replace(&mut self.held, rest)
    }

    /// Gives back what was held when the text ends.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether a stop string has come.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_be_the_beginning_is_held() {
        let mut text = StopText::new(["END".to_owned(), "\n\n".to_owned(), String::new()]);
        assert_eq!([text.push("a E"), text.push("N"), text.push("d E"), text.push("N"), text.finish()], ["a ", "", "ENd ", "", "EN"]);
        let mut text = StopText::new(["END".to_owned(), "\n\n".to_owned()]);
        assert_eq!([text.push("a\n"), text.push("\nENDb"), text.push("c"), text.finish()], ["a", "", "", ""]);
        assert!(text.has_stopped());
    }

    proptest! {
        #[test]
        fn the_text_is_that_before_the_first_stop(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12), stops in prop::collection::vec("[abé]{1,3}", 0..3)
        ) {
            let whole = pieces.concat();
            let ends = stops.iter().filter_map(|stop| whole.find(stop.as_str()).map(|at| (at + stop.len(), at)));
            let at = ends.min().map(|(_, at)| at);
            let mut text = StopText::new(stops.clone());
            let mut shown = String::new();
            for piece in &pieces {
                shown += &text.push(piece);
                // Never half a stop string on the screen.
                prop_assert!(at.is_none_or(|at| shown.len() <= at));
            }
            prop_assert_eq!(text.has_stopped(), at.is_some());
            shown += &text.finish();
            prop_assert_eq!(shown.as_str(), &whole[..at.unwrap_or(whole.len())]);
        }
    }
}
