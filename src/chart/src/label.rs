//! Texts with superscripts.

use std::fmt;

use crate::font;
use crate::text::escape_quotes;

/// The size of a superscript relative to its text.
pub(crate) const RAISED_SIZE: f64 = 0.72;

/// The rise of a superscript's baseline, as a fraction of the font size.
pub(crate) const RISE: f64 = 0.36;

/// The Unicode superscripts, and the characters that a [`Label`] raises instead.
const SUPERSCRIPTS: [(char, char); 11] = [
    ('⁻', '-'),
    ('⁰', '0'),
    ('¹', '1'),
    ('²', '2'),
    ('³', '3'),
    ('⁴', '4'),
    ('⁵', '5'),
    ('⁶', '6'),
    ('⁷', '7'),
    ('⁸', '8'),
    ('⁹', '9'),
];

/// A text with superscripts, for legends and axes.
///
/// ```
/// use surprisal_chart::Label;
///
/// let law = Label::from("direct: 2.18·10⁻³·L").raised("0.62");
/// assert_eq!(law.to_string(), "direct: 2.18·10^-3·L^0.62");
/// assert_eq!(law.html(), "direct: 2.18·10<sup>-3</sup>·L<sup>0.62</sup>");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    pub(crate) spans: Vec<Span>,
}

/// A part of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) raised: bool,
}

impl Label {
    /// Appends a text. Its Unicode superscripts become raised digits, which every font has.
    #[must_use]
    pub fn then(mut self, text: &str) -> Self {
        for character in text.chars() {
            match SUPERSCRIPTS.iter().find(|(superscript, _)| *superscript == character) {
                Some((_, digit)) => self.push(*digit, true),
                None => self.push(character, false),
            }
        }
        self
    }

    /// Appends a superscript.
    #[must_use]
    pub fn raised(mut self, text: &str) -> Self {
        text.chars().for_each(|character| self.push(character, true));
        self
    }

    /// Appends another label.
    #[must_use]
    pub fn append(mut self, other: &Self) -> Self {
        for Span { text, raised } in &other.spans {
            text.chars().for_each(|character| self.push(character, *raised));
        }
        self
    }

    fn push(&mut self, character: char, raised: bool) {
        match self.spans.last_mut() {
            Some(span) if span.raised == raised => span.text.push(character),
            _ => self.spans.push(Span { text: character.into(), raised }),
        }
    }

    /// Returns the label as HTML.
    pub fn html(&self) -> String {
        let mut html = String::new();
        for Span { text, raised } in &self.spans {
            let text = escape_quotes(text);
            html += &if *raised { format!("<sup>{text}</sup>") } else { text };
        }
        html
    }

    /// Returns the width in Helvetica of a font size.
    pub(crate) fn width(&self, size: f64) -> f64 {
        let scale = |span: &Span| if span.raised { RAISED_SIZE } else { 1.0 };
        self.spans.iter().map(|span| scale(span) * font::width(&span.text)).sum::<f64>() * size / 1000.0
    }

    /// Returns `name` and a label, with the end of the name cut off if both would be wider than `width`.
    pub(crate) fn named(name: &str, rest: &Self, size: f64, width: f64) -> Self {
        let whole = Self::from(name).append(rest);
        if whole.width(size) <= width {
            return whole;
        }
        let mut kept = name.to_owned();
        loop {
            let cut = Self::from(format!("{kept}…").as_str()).append(rest);
            if cut.width(size) <= width || kept.pop().is_none() {
                return cut;
            }
        }
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        Self::default().then(text)
    }
}

/// Formats the label as plain text, with a caret before each superscript.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Span { text, raised } in &self.spans {
            write!(f, "{}{text}", if *raised { "^" } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_wide_is_cut_off_and_its_rest_stays() {
        let rest = Label::from(": 2·L").raised("0.5");
        let cut = Label::named("a model with a very long name", &rest, 13.0, 120.0);
        assert!(cut.width(13.0) <= 120.0 && cut.to_string().ends_with("…: 2·L^0.5"), "{cut}");
        assert_eq!(Label::named("short", &rest, 13.0, 120.0).to_string(), "short: 2·L^0.5");
    }
}
