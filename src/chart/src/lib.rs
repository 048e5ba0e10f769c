//! SVG charts, and the HTML pages that show them. Charts and pages need no scripts and no other files.
//!
//! A [`LineChart`] has lines with marks over a linear x axis. A [`LogLogChart`] has marks with error bars, and curves,
//! on two logarithmic axes. Colors come from CSS: an element has the class of its series, and a [`style`] gives each
//! class a color.
//!
//! ```
//! use surprisal_chart::{Line, LineChart};
//!
//! let points = vec![(1.0, 12.5), (2.0, 24.0), (4.0, 31.0)];
//! let line = Line { label: "completed".to_owned(), class: "first", dashed: false, points };
//! let chart = LineChart { x: "clients".to_owned(), y: "requests/s".to_owned(), logarithmic: false, lines: vec![line] };
//! assert_eq!(chart.svg().matches("<circle").count(), 3);
//! ```

mod axis;
mod frame;
mod line_chart;
mod log_log_chart;
mod mark;
mod page;
mod text;

pub use line_chart::{Line, LineChart};
pub use log_log_chart::{Curve, LogLogChart, Point};
pub use mark::Mark;
pub use page::{page, style};
pub use text::{escape, escape_quotes, short};
