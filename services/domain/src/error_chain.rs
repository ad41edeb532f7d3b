//! An error and its causes as one text.

use std::error::Error;

/// The error and its causes, outermost first, parted by colons: `Display` of an error says only
/// its own layer's part.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn every_cause_is_said_once_the_outermost_first() {
        assert_eq!(error_chain(&Layer("alone", None)), "alone");
        let inner = Layer("connect", Some(Box::new(Layer("refused", None))));
        assert_eq!(error_chain(&Layer("append", Some(Box::new(inner)))), "append: connect: refused");
    }
}
