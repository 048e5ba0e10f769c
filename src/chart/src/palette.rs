//! Colors. A picture has the light ones; a page replaces them with the dark ones in dark mode.

use std::fmt::Write as _;

/// A color, which has one value on light pages and in pictures, and another on dark pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color {
    /// The light value, as `0xRRGGBB`. Each color has a different one, because [`page_colors`] selects by it.
    pub(crate) light: u32,
    dark: u32,
}

impl Color {
    /// The color of text that stands out, and of exact values.
    pub const INK: Self = Self::new(0x1b1f24, 0xe8ebef);
    /// The color of labels and axes.
    pub const SOFT: Self = Self::new(0x5b6470, 0x9aa4b1);
    /// The colors of series, for as many series as a chart can tell apart.
    pub const SERIES: [Self; 6] = [
        Self::new(0x0067b1, 0x5db4f2),
        Self::new(0x00805d, 0x3fc79c),
        Self::new(0xc14a00, 0xf5935a),
        Self::new(0x8a3ab9, 0xc792ea),
        Self::new(0xa6761d, 0xe0b558),
        Self::new(0xb3245c, 0xf27ba0),
    ];
    pub(crate) const CARD: Self = Self::new(0xffffff, 0x1a1e24);
    pub(crate) const GRID: Self = Self::new(0xe9ecf0, 0x282e36);
    const PAGE: Self = Self::new(0xf6f7f9, 0x111418);
    const RULE: Self = Self::new(0xdfe3e8, 0x333a43);

    const fn new(light: u32, dark: u32) -> Self {
        Self { light, dark }
    }

    /// Returns the light value's red, green and blue, each from 0 to 1.
    pub(crate) fn rgb(self) -> [f32; 3] {
        let [_, red, green, blue] = self.light.to_be_bytes();
        [red, green, blue].map(|part| f32::from(part) / 255.0)
    }
}

/// Returns the CSS that gives a page its colors: variables for the page itself, and, for charts in dark mode, rules that
/// replace each light color. CSS has priority over the attributes of SVG elements.
pub(crate) fn page_colors() -> String {
    let variables = [
        ("page", Color::PAGE),
        ("card", Color::CARD),
        ("ink", Color::INK),
        ("soft", Color::SOFT),
        ("rule", Color::RULE),
    ];
    let (mut light, mut dark, mut charts) = (String::new(), String::new(), String::new());
    // Writing to a String cannot fail.
    for (name, color) in variables {
        let _ = write!(light, " --{name}: #{:06x};", color.light);
        let _ = write!(dark, " --{name}: #{:06x};", color.dark);
    }
    for Color { light, dark } in [Color::CARD, Color::INK, Color::SOFT, Color::GRID].iter().chain(&Color::SERIES) {
        for part in ["fill", "stroke"] {
            let _ = writeln!(charts, "  svg [{part}=\"#{light:06x}\"] {{ {part}: #{dark:06x}; }}");
        }
    }
    format!(
        ":root {{ color-scheme: light dark;{light} }}\n\
         @media (prefers-color-scheme: dark) {{\n  :root {{{dark} }}\n{charts}}}\n"
    )
}
