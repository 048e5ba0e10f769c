//! Drawings as SVG.

use std::fmt::Write as _;

use crate::drawing::{Anchor, Drawing, FAINT, FONT_SIZE, Item, Position, Shape, Style, Text};
use crate::label::{RAISED_SIZE, RISE, Span};
use crate::palette::Color;
use crate::text::escape_quotes;

/// The radius of the corners of the card behind a picture.
const CARD_RADIUS: f64 = 10.0;

impl Drawing {
    /// Returns the drawing as an SVG picture, in light colors on a card. Colors and fonts are attributes, so that
    /// programs without CSS show them.
    pub fn svg(&self) -> String {
        let Self { width, height, .. } = self;
        let attributes = format!(
            " xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif\""
        );
        let card = Color::CARD.light;
        let card = format!(
            "<rect width=\"{width}\" height=\"{height}\" rx=\"{CARD_RADIUS}\" fill=\"#{card:06x}\" stroke=\"none\"/>\n"
        );
        svg(self, &attributes, &card)
    }

    /// Returns an element for a page, which gives it its font and, in dark mode, other colors.
    pub(crate) fn embedded(&self) -> String {
        svg(self, " class=\"plot\"", "")
    }
}

fn svg(drawing: &Drawing, attributes: &str, background: &str) -> String {
    let Drawing { width, height, description, items } = drawing;
    let mut svg = format!(
        "<svg{attributes} viewBox=\"0 0 {width} {height}\" font-size=\"{FONT_SIZE}\" role=\"img\" aria-label=\"{}\">\n\
         {background}",
        escape_quotes(description)
    );
    for item in items {
        write_item(&mut svg, item);
        svg.push('\n');
    }
    svg + "</svg>\n"
}

/// Returns an icon of some items, `width` wide and `height` high.
pub(crate) fn icon(items: &[Item], width: f64, height: f64) -> String {
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" aria-hidden=\"true\">");
    items.iter().for_each(|item| write_item(&mut svg, item));
    svg + "</svg>"
}

fn write_item(svg: &mut String, item: &Item) {
    // Writing to a String cannot fail.
    match item {
        Item::Shape(shape, style) => write_shape(svg, shape, style),
        Item::Text(text) => write_text(svg, text),
        Item::HoverArea { center: (x, y), radius } => {
            let _ = write!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"none\" stroke=\"none\" pointer-events=\"all\"/>"
            );
        }
        Item::Group { offset: (x, y), title, items } => {
            *svg += "<g";
            if (*x, *y) != (0.0, 0.0) {
                let _ = write!(svg, " transform=\"translate({x:.1} {y:.1})\"");
            }
            if title.is_some() && items.iter().any(|item| matches!(item, Item::HoverArea { .. })) {
                *svg += " class=\"point\"";
            }
            *svg += ">";
            if let Some(title) = title {
                let _ = write!(svg, "<title>{}</title>", escape_quotes(title));
            }
            items.iter().for_each(|item| write_item(svg, item));
            *svg += "</g>";
        }
    }
}

fn write_shape(svg: &mut String, shape: &Shape, style: &Style) {
    let paint = paint(style);
    let _ = match shape {
        Shape::Circle { center: (x, y), radius } => {
            write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"{paint}/>")
        }
        Shape::Polygon(points) => write!(svg, "<path d=\"M{}Z\"{paint}/>", joined(points)),
        Shape::Lines(lines) => {
            let path: String = lines.iter().map(|line| format!("M{}", joined(line))).collect();
            write!(svg, "<path d=\"{path}\"{paint}/>")
        }
    };
}

fn joined(points: &[Position]) -> String {
    points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect::<Vec<_>>().join("L")
}

/// Returns the attributes of a style.
fn paint(style: &Style) -> String {
    let mut paint = match style.fill {
        Some(color) => format!(" fill=\"#{:06x}\"", color.light),
        None => " fill=\"none\"".to_owned(),
    };
    if style.faint {
        let _ = write!(paint, " fill-opacity=\"{FAINT}\"");
    }
    let _ = match style.stroke {
        Some(stroke) => {
            write!(paint, " stroke=\"#{:06x}\" stroke-width=\"{}\"", stroke.color.light, stroke.width)
        }
        None => write!(paint, " stroke=\"none\""),
    };
    if let Some([dash, gap]) = style.stroke.and_then(|stroke| stroke.dash) {
        let _ = write!(paint, " stroke-dasharray=\"{dash} {gap}\"");
    }
    if style.mark {
        paint += " class=\"mark\"";
    }
    paint
}

fn write_text(svg: &mut String, text: &Text) {
    let Text { at: (x, y), anchor, label } = text;
    let anchor = match anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\"{anchor} fill=\"#{:06x}\" stroke=\"none\">", Color::SOFT.light);
    let mut was_raised = false;
    for Span { text, raised } in &label.spans {
        let (text, rise) = (escape_quotes(text), RISE * FONT_SIZE);
        let _ = match (*raised, was_raised) {
            (true, _) => {
                let size = RAISED_SIZE * FONT_SIZE;
                write!(svg, "<tspan dy=\"-{rise:.1}\" font-size=\"{size:.1}\">{text}</tspan>")
            }
            (false, true) => write!(svg, "<tspan dy=\"{rise:.1}\">{text}</tspan>"),
            (false, false) => write!(svg, "{text}"),
        };
        was_raised = *raised;
    }
    *svg += "</text>";
}
