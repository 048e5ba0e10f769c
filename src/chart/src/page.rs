//! The HTML page around charts and tables.

/// Returns the style of charts: `colours`, which gives a value to each variable, what all charts share, and `series`, which gives
/// each series its colour and its lines.
pub fn style(colours: &str, series: &str) -> String {
    [colours, include_str!("common.css"), series].concat()
}

/// Returns a page that needs no other file; `title` is escaped already, and `content`, which follows the heading, is HTML.
pub fn page(title: &str, style: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n{content}</main>\n</body>\n</html>\n"
    )
}
