//! Charts as SVG and PDF, and the HTML pages that show them. Charts and pages need no scripts, no fonts and no other
//! files.
//!
//! A [`LineChart`] has lines with marks over a linear x axis. An [`EstimateChart`] has marks with error bars or bands, and
//! curves, over a logarithmic x axis. Both make a [`Drawing`] of shapes and texts; `svg` and `pdf` write it as a picture.
//! [`page`] makes a page. A [`Color`] has a light value, which elements have as attributes, and a dark one, which the
//! page's style replaces it with in dark mode.
//!
//! ```
//! use surprisal_chart::{Color, Line, LineChart};
//!
//! let points = vec![(1.0, 12.5), (2.0, 24.0), (4.0, 31.0)];
//! let line = Line::new(Color::SERIES[0], "completed", points);
//! let chart = LineChart { x: "clients".to_owned(), y: "requests/s".to_owned(), logarithmic: false, lines: vec![line] };
//! assert_eq!(chart.svg().matches("<circle").count(), 3);
//! ```

mod axis;
mod curve;
mod drawing;
mod estimate_chart;
mod font;
mod frame;
mod label;
mod legend;
mod line_chart;
mod mark;
mod page;
mod palette;
mod pdf;
mod svg;
mod text;

pub use curve::{Curve, Point};
pub use drawing::Drawing;
pub use estimate_chart::{EstimateChart, Scale};
pub use label::Label;
pub use line_chart::{Line, LineChart};
pub use mark::Mark;
pub use page::page;
pub use palette::Color;
pub use text::{escape, escape_quotes, short};
