//! The charts of a page.

use surprisal_chart::escape_quotes as escape;

use crate::report::Report;
use crate::report::chart_points::Chart;

impl Report {
    pub(super) fn figures_section(&self) -> String {
        let figures: String = self.charts().iter().map(|(_, chart)| figure(chart)).collect();
        figures
            + "<p class=\"small\">Error bars are 95 % bootstrap intervals over texts, or ± one standard error \
               if there is no interval. Solid thin lines are fits by least squares, except in charts with bands: \
               there, a line joins the marks, and the band is their 95 % interval over texts. In the chart of surprisal, \
               marks are means over ranges of positions that grow with the position. Both axes are logarithmic, so a \
               power law is a straight line; only the y axes of convergence and of KL divergence are linear.</p>\n"
    }
}

/// Returns a section with a chart and its legend.
pub(crate) fn figure(chart: &Chart) -> String {
    format!(
        "<section>\n<h2>{}</h2>\n{}<div class=\"scroll\">\n{}</div>\n</section>\n",
        escape(&chart.title),
        chart.legend(),
        chart.svg(),
    )
}
