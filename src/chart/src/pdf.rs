//! Drawings as PDF (ISO 32000-1).

use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

use crate::drawing::{Anchor, Drawing, FAINT, FONT_SIZE, Item, Position, Shape, Style, Text};
use crate::font::{Face, Glyph};
use crate::label::{RAISED_SIZE, RISE};
use crate::palette::Color;

/// The size of one unit of a drawing (a pixel of CSS) in points.
const POINTS: f64 = 0.75;

/// The factor between a circle's radius and the distance from a point of the circle, at each quarter, to its control
/// point on a Bézier curve.
const KAPPA: f64 = 0.552_284_75;

const HELVETICA: Name<'static> = Name(b"Helvetica");
const SYMBOL: Name<'static> = Name(b"Symbol");
const FAINT_STATE: Name<'static> = Name(b"Faint");

impl Drawing {
    /// Returns the drawing as a PDF of one page with vector graphics, without a background. Its fonts are Helvetica and
    /// Symbol, which every PDF viewer has, so the file contains none. A character that they lack becomes `?`.
    pub fn pdf(&self) -> Vec<u8> {
        let [catalog, pages, page, helvetica, symbol, faint, content, information] =
            [1, 2, 3, 4, 5, 6, 7, 8].map(Ref::new);
        let mut pdf = Pdf::new();
        pdf.catalog(catalog).pages(pages);
        pdf.pages(pages).kids([page]).count(1);
        let mut page = pdf.page(page);
        let [width, height] = [self.width, self.height].map(|size| (POINTS * size) as f32);
        page.media_box(Rect::new(0.0, 0.0, width, height)).parent(pages).contents(content);
        let mut resources = page.resources();
        resources.fonts().pair(HELVETICA, helvetica).pair(SYMBOL, symbol);
        resources.ext_g_states().pair(FAINT_STATE, faint);
        resources.finish();
        page.finish();
        pdf.type1_font(helvetica).base_font(HELVETICA).encoding_predefined(Name(b"WinAnsiEncoding"));
        pdf.type1_font(symbol).base_font(SYMBOL);
        pdf.ext_graphics(faint).non_stroking_alpha(FAINT as f32);
        pdf.document_info(information).title(TextStr(&self.description)).producer(TextStr("surprisal"));
        pdf.stream(content, &Page::of(self).content.finish());
        pdf.finish()
    }
}

/// The content of a page. Its y axis points up.
struct Page {
    content: Content,
    height: f64,
    /// The offset of the groups that contain the items to draw.
    offset: Position,
}

impl Page {
    fn of(drawing: &Drawing) -> Self {
        let mut page = Self { content: Content::new(), height: drawing.height, offset: (0.0, 0.0) };
        page.content.transform([POINTS as f32, 0.0, 0.0, POINTS as f32, 0.0, 0.0]);
        drawing.items.iter().for_each(|item| page.draw(item));
        page
    }

    fn draw(&mut self, item: &Item) {
        match item {
            Item::Shape(shape, style) => self.draw_shape(shape, style),
            Item::Text(text) => self.draw_text(text),
            Item::HoverArea { .. } => {}
            Item::Group { offset: (x, y), items, .. } => {
                let outer = self.offset;
                self.offset = (outer.0 + x, outer.1 + y);
                items.iter().for_each(|item| self.draw(item));
                self.offset = outer;
            }
        }
    }

    /// Returns a position on the page.
    fn place(&self, (x, y): Position) -> [f32; 2] {
        [(x + self.offset.0) as f32, (self.height - y - self.offset.1) as f32]
    }

    fn draw_shape(&mut self, shape: &Shape, style: &Style) {
        self.content.save_state();
        if let Some(color) = style.fill {
            let [red, green, blue] = color.rgb();
            self.content.set_fill_rgb(red, green, blue);
            if style.faint {
                self.content.set_parameters(FAINT_STATE);
            }
        }
        if let Some(stroke) = style.stroke {
            let [red, green, blue] = stroke.color.rgb();
            self.content.set_stroke_rgb(red, green, blue).set_line_width(stroke.width as f32);
            if let Some(dash) = stroke.dash {
                self.content.set_dash_pattern(dash.map(|length| length as f32), 0.0);
            }
        }
        match shape {
            Shape::Lines(lines) => lines.iter().for_each(|line| self.trace(line)),
            Shape::Polygon(points) => {
                self.trace(points);
                self.content.close_path();
            }
            Shape::Circle { center, radius } => self.trace_circle(*center, *radius),
        }
        match (style.fill, style.stroke) {
            (Some(_), Some(_)) => self.content.fill_nonzero_and_stroke(),
            (Some(_), None) => self.content.fill_nonzero(),
            (None, Some(_)) => self.content.stroke(),
            (None, None) => self.content.end_path(),
        };
        self.content.restore_state();
    }

    fn trace(&mut self, points: &[Position]) {
        for (index, point) in points.iter().enumerate() {
            let [x, y] = self.place(*point);
            match index {
                0 => self.content.move_to(x, y),
                _ => self.content.line_to(x, y),
            };
        }
    }

    fn trace_circle(&mut self, center: Position, radius: f64) {
        let ([x, y], r, k) = (self.place(center), radius as f32, (KAPPA * radius) as f32);
        self.content.move_to(x + r, y);
        self.content.cubic_to(x + r, y + k, x + k, y + r, x, y + r);
        self.content.cubic_to(x - k, y + r, x - r, y + k, x - r, y);
        self.content.cubic_to(x - r, y - k, x - k, y - r, x, y - r);
        self.content.cubic_to(x + k, y - r, x + r, y - k, x + r, y);
        self.content.close_path();
    }

    /// Draws a text, as one string for each change of its font or size.
    fn draw_text(&mut self, text: &Text) {
        let width = text.label.width(FONT_SIZE);
        let start = match text.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -width / 2.0,
            Anchor::End => -width,
        };
        let [x, y] = self.place((text.at.0 + start, text.at.1));
        let [red, green, blue] = Color::SOFT.rgb();
        self.content.set_fill_rgb(red, green, blue).begin_text().next_line(x, y);
        for span in &text.label.spans {
            let size = FONT_SIZE * if span.raised { RAISED_SIZE } else { 1.0 };
            self.content.set_rise(if span.raised { (RISE * FONT_SIZE) as f32 } else { 0.0 });
            for (face, codes) in runs(&span.text) {
                let name = if face == Face::Symbol { SYMBOL } else { HELVETICA };
                self.content.set_font(name, size as f32).show(Str(&codes));
            }
        }
        self.content.end_text();
    }
}

/// Returns the longest parts of a text whose characters have the same font, as codes of that font.
fn runs(text: &str) -> Vec<(Face, Vec<u8>)> {
    let mut runs: Vec<(Face, Vec<u8>)> = Vec::new();
    for character in text.chars() {
        let Glyph { face, code, .. } = Glyph::of(character).unwrap_or(Glyph::UNKNOWN);
        match runs.last_mut() {
            Some((last, codes)) if *last == face => codes.push(code),
            _ => runs.push((face, vec![code])),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_keep_their_font_and_unknown_ones_become_question_marks() {
        let expected =
            [(Face::Helvetica, b"a\xb1".to_vec()), (Face::Symbol, b"b".to_vec()), (Face::Helvetica, b"l?".to_vec())];
        assert_eq!(runs("a±βℓ中"), expected);
    }
}
