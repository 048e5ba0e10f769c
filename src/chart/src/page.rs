//! The HTML page around charts and tables.

/// Returns the CSS of charts: `colours`, which sets the CSS variables; the rules that all charts share; and `series`,
/// which sets the color and the lines of each series.
pub fn style(colours: &str, series: &str) -> String {
    [colours, include_str!("common.css"), series].concat()
}

/// Returns a self-contained HTML page. `title` must already be escaped; `content` is HTML that follows the heading.
pub fn page(title: &str, style: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n{content}</main>\n</body>\n</html>\n"
    )
}
