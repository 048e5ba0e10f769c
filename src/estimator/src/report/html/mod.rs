//! The report as one HTML page, without scripts or external files. Each section has a file of its own.

mod estimates;
mod figures;
mod fits;
mod origin;

pub(crate) use figures::figure;

use surprisal_chart::escape_quotes as escape;

use crate::report::Report;
use crate::report::model_name::short_model_name;

impl Report {
    /// Returns the report as one self-contained page: the charts, the tables of estimates and fits, and the provenance.
    pub fn html(&self) -> String {
        let sections = [
            self.figures_section(),
            self.conclusion_section(),
            self.estimates_section(),
            self.averaged_section(),
            self.consistency_section(),
            self.convergence_section(),
            self.fits_section(),
            self.laws_section(),
            self.entropy_rate_section(),
            self.divergence_section(),
            self.two_point_section(),
            self.origin_section(),
        ]
        .concat();
        page(&self.title, &self.lead(), &sections)
    }

    fn conclusion_section(&self) -> String {
        let reading = self.reading().map(|reading| escape(&reading));
        reading.map_or_else(String::new, |reading| {
            format!("<section>\n<h2>Conclusion</h2>\n<p>{reading}</p>\n</section>\n")
        })
    }

    fn lead(&self) -> String {
        format!(
            "Mutual information between the beginning and the rest of a text of L tokens, in {}, estimated with {}.",
            self.unit.name(),
            short_model_name(&self.model),
        )
    }
}

/// Returns an HTML page with a title, a lead paragraph and these sections.
pub(crate) fn page(title: &str, lead: &str, sections: &str) -> String {
    surprisal_chart::page(title, &format!("<p class=\"lead\">{}</p>\n{sections}", escape(lead)))
}

/// Returns a section with a heading, a table, and HTML below the table; see [`table`].
pub(crate) fn table_section(heading: &str, names: bool, heads: &[String], rows: &[Vec<String>], below: &str) -> String {
    format!("<section>\n<h2>{heading}</h2>\n{}{below}</section>\n", table(names, heads, rows))
}

/// Returns headings and cells with HTML's special characters escaped.
pub(crate) fn escaped(heads: Vec<String>, rows: Vec<Vec<String>>) -> (Vec<String>, Vec<Vec<String>>) {
    let escaped = |cells: Vec<String>| cells.iter().map(|cell| escape(cell)).collect();
    (escaped(heads), rows.into_iter().map(escaped).collect())
}

/// Returns a table. The headings and the cells must already be escaped. If the first column has `names`, it is
/// left-aligned.
pub(crate) fn table(names: bool, heads: &[String], rows: &[Vec<String>]) -> String {
    let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    let row = |cells: &Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = rows.iter().map(row).collect();
    let class = if names { " class=\"names\"" } else { "" };
    format!(
        "<div class=\"scroll\"><table{class}>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div>\n"
    )
}
