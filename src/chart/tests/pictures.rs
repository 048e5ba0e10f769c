//! Tests of pictures: they need neither CSS nor installed fonts.
#![allow(clippy::unwrap_used)]

use surprisal_chart::{Color, Curve, Drawing, EstimateChart, Label, Line, LineChart, Mark, Point, Scale, page};

fn log_log() -> EstimateChart {
    let point = |x: f64| Point { x, value: 2.0 * x, bar: [x, 3.0 * x], text: "±".into(), place: String::new() };
    let points: Vec<Point> = [1e-6, 1.0, 1e6].map(point).to_vec();
    let mut curves = Vec::new();
    for (color, mark) in Color::SERIES.into_iter().zip([Mark::Circle, Mark::Square, Mark::Triangle, Mark::None]) {
        curves.push(Curve {
            equation: Some(Label::from("2.18·10⁻³·L").raised("0.62")),
            points: points.clone(),
            mark,
            band: mark == Mark::Square,
            line: vec![(1.0, 2.0), (4.0, 8.0)],
            dashed: mark == Mark::None,
            ..Curve::new(color, "β of a model, 中")
        });
    }
    let scale = Scale::Logarithmic;
    EstimateChart { title: "t".into(), x: "L".into(), y: "I".into(), unit: "nats", scale, curves }
}

fn stack() -> Drawing {
    let line = |color| Line { dashed: true, ..Line::new(color, "p99", vec![(1.0, 2.0), (4.0, 9.0)]) };
    let lines = Color::SERIES.map(line).to_vec();
    let chart = LineChart { x: "load".into(), y: "ms".into(), logarithmic: true, lines };
    LineChart::stack([&chart, &chart])
}

/// Programs such as librsvg, Inkscape and converters to PDF know no CSS variables and no styles of a page.
#[test]
fn every_element_of_a_picture_has_its_own_colors() {
    for svg in [log_log().drawing().svg(), stack().svg()] {
        for css in ["var(", "<style", "style=", "currentColor", "transparent"] {
            assert!(!svg.contains(css), "{css}: {svg}");
        }
        let mut drawn = 0;
        for tag in svg.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
            if ["path ", "circle ", "rect ", "text "].iter().any(|name| tag.starts_with(name)) {
                for paint in [" fill=\"", " stroke=\""] {
                    let value = tag.split(paint).nth(1).unwrap_or_default();
                    assert!(value.starts_with('#') || value.starts_with("none"), "{tag}");
                }
                drawn += 1;
            }
        }
        assert!(drawn > 50, "{drawn}");
        assert!(svg.contains(" font-size=\"13\"") && svg.contains(" font-family=\"Helvetica"), "{svg}");
    }
}

/// A page replaces each color of its charts in dark mode.
#[test]
fn pages_have_a_dark_value_for_every_color_of_a_picture() {
    let chart = log_log();
    let page = page("t", &chart.svg());
    for svg in [chart.drawing().svg(), stack().svg()] {
        for color in svg.split("=\"#").skip(1).map(|rest| &rest[..6]) {
            let rules = ["fill", "stroke"].map(|part| format!("svg [{part}=\"#{color}\"] {{ {part}: #"));
            assert!(rules.iter().all(|rule| page.contains(rule)), "{color}");
        }
    }
}

#[test]
fn a_pdf_has_vector_graphics_and_the_texts_of_the_chart() {
    for drawing in [log_log().drawing(), stack()] {
        let pdf = drawing.pdf();
        assert!(pdf.starts_with(b"%PDF-") && pdf == drawing.pdf(), "the same bytes");
        let text = String::from_utf8_lossy(&pdf);
        assert!(text.contains("/BaseFont /Helvetica") && text.contains("/WinAnsiEncoding"), "{text}");
        assert!(!text.contains("/FontFile") && !text.contains("/Image") && !text.contains("NaN"), "{text}");
    }
    let pdf = log_log().drawing().pdf();
    let text = String::from_utf8_lossy(&pdf);
    // Greek letters are in another font, and superscripts are smaller.
    assert!(text.contains("/Symbol 13 Tf\n(b) Tj\n/Helvetica 13 Tf") && text.contains("9.36 Tf\n(0.62) Tj"), "{text}");
}
