//! The HTML page around charts and tables.

use crate::palette::page_colors;
use crate::text::escape;

/// Returns a self-contained HTML page, in light or dark mode as the reader prefers. `content` is HTML that follows the
/// heading: sections with tables and charts. Wide ones belong into an element with the class `scroll`, and long names in
/// tables into one with the class `long`.
pub fn page(title: &str, content: &str) -> String {
    let (title, colors, style) = (escape(title), page_colors(), include_str!("page.css"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{colors}{style}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n{content}</main>\n</body>\n</html>\n"
    )
}
