//! Formatting of text and numbers for charts and pages.

/// Escapes text for an HTML element, or for an attribute value in double quotes.
///
/// ```
/// assert_eq!(surprisal_chart::escape("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
/// ```
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Escapes text like [`escape`], and also apostrophes.
pub fn escape_quotes(text: &str) -> String {
    escape(text).replace('\'', "&#39;")
}

/// Formats a number with at most four decimals if it is below 1, at most two if it is below 100, and none otherwise.
/// Examples: `0.05`, `2`, `5000`.
///
/// ```
/// assert_eq!([0.05, 2.0, 1234.5, 0.0].map(surprisal_chart::short), ["0.05", "2", "1234", "0"]);
/// ```
pub fn short(value: f64) -> String {
    let decimals = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 1.0 {
        2
    } else {
        4
    };
    without_trailing_zeros(format!("{value:.decimals$}"))
}

/// Formats a number with at most nine decimals.
pub(crate) fn precise(value: f64) -> String {
    without_trailing_zeros(format!("{value:.9}"))
}

/// Removes the zeros at the end of a decimal fraction.
pub(crate) fn without_trailing_zeros(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
