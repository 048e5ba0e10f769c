//! Helvetica and Symbol, two of the fonts that every PDF viewer has: their encodings and the widths of their glyphs.
//!
//! Widths are in thousandths of the font size, from Adobe's font metrics.

/// A font that every PDF viewer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// Helvetica, in WinAnsiEncoding.
    Helvetica,
    /// Symbol, in its own encoding.
    Symbol,
}

/// A character of a font.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glyph {
    pub(crate) face: Face,
    pub(crate) code: u8,
    pub(crate) width: u16,
}

impl Glyph {
    /// The glyph of a character that neither font has.
    pub(crate) const UNKNOWN: Self = Self { face: Face::Helvetica, code: b'?', width: 556 };

    /// Returns a character's glyph; `None` if neither font has it.
    pub(crate) fn of(character: char) -> Option<Self> {
        let helvetica = |code: u8, width: u16| Some(Self { face: Face::Helvetica, code, width });
        match character {
            ' '..='~' => helvetica(character as u8, ASCII[character as usize - 0x20]),
            '\u{a0}'..='ÿ' => helvetica(character as u8, LATIN_1[character as usize - 0xa0]),
            // U+2113, the split of a text, is a letter l in other scripts.
            'ℓ' => Self::of('l'),
            _ => match WINDOWS.iter().find(|(known, ..)| *known == character) {
                Some(&(_, code, width)) => helvetica(code, width),
                None => {
                    let (_, code, width) = SYMBOL.iter().find(|(known, ..)| *known == character)?;
                    Some(Self { face: Face::Symbol, code: *code, width: *width })
                }
            },
        }
    }
}

/// Returns the width of a text, in thousandths of the font size. Characters that neither font has, such as Chinese ones,
/// count as wide as the font is high.
pub(crate) fn width(text: &str) -> f64 {
    text.chars().map(|character| f64::from(Glyph::of(character).map_or(1000, |glyph| glyph.width))).sum()
}

/// The widths of Helvetica's characters from U+0020 to U+007E.
#[rustfmt::skip]
const ASCII: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778,
    667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556,
    556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];

/// The widths of Helvetica's characters from U+00A0 to U+00FF.
#[rustfmt::skip]
const LATIN_1: [u16; 96] = [
    278, 333, 556, 556, 556, 556, 260, 556, 333, 737, 370, 556, 584, 333, 737, 333, 400, 584, 333, 333, 333, 556, 537, 278,
    333, 333, 365, 556, 834, 834, 834, 611, 667, 667, 667, 667, 667, 667, 1000, 722, 667, 667, 667, 667, 278, 278, 278, 278,
    722, 722, 778, 778, 778, 778, 778, 584, 778, 722, 722, 722, 722, 667, 667, 611, 556, 556, 556, 556, 556, 556, 889, 500,
    556, 556, 556, 556, 278, 278, 278, 278, 556, 556, 556, 556, 556, 556, 556, 584, 611, 556, 556, 556, 556, 500, 556, 500,
];

/// Helvetica's other characters: each with its code and width.
#[rustfmt::skip]
const WINDOWS: [(char, u8, u16); 27] = [
    ('€', 0x80, 556), ('‚', 0x82, 222), ('ƒ', 0x83, 556), ('„', 0x84, 333), ('…', 0x85, 1000), ('†', 0x86, 556),
    ('‡', 0x87, 556), ('ˆ', 0x88, 333), ('‰', 0x89, 1000), ('Š', 0x8a, 667), ('‹', 0x8b, 333), ('Œ', 0x8c, 1000),
    ('Ž', 0x8e, 611), ('‘', 0x91, 222), ('’', 0x92, 222), ('“', 0x93, 333), ('”', 0x94, 333), ('•', 0x95, 350),
    ('–', 0x96, 556), ('—', 0x97, 1000), ('˜', 0x98, 333), ('™', 0x99, 1000), ('š', 0x9a, 500), ('›', 0x9b, 333),
    ('œ', 0x9c, 944), ('ž', 0x9e, 500), ('Ÿ', 0x9f, 667),
];

/// Characters of Symbol that Helvetica does not have: each with its code and width.
#[rustfmt::skip]
const SYMBOL: [(char, u8, u16); 53] = [
    ('Γ', 0x47, 603), ('Δ', 0x44, 612), ('Θ', 0x51, 741), ('Λ', 0x4c, 686), ('Ξ', 0x58, 645), ('Π', 0x50, 768),
    ('Σ', 0x53, 592), ('Φ', 0x46, 763), ('Ψ', 0x59, 795), ('Ω', 0x57, 768), ('α', 0x61, 631), ('β', 0x62, 549),
    ('γ', 0x67, 411), ('δ', 0x64, 494), ('ε', 0x65, 439), ('ζ', 0x7a, 494), ('η', 0x68, 603), ('θ', 0x71, 521),
    ('ι', 0x69, 329), ('κ', 0x6b, 549), ('λ', 0x6c, 549), ('μ', 0x6d, 576), ('ν', 0x6e, 521), ('ξ', 0x78, 493),
    ('ο', 0x6f, 549), ('π', 0x70, 549), ('ρ', 0x72, 549), ('ς', 0x56, 439), ('σ', 0x73, 603), ('τ', 0x74, 439),
    ('υ', 0x75, 576), ('φ', 0x66, 521), ('χ', 0x63, 549), ('ψ', 0x79, 686), ('ω', 0x77, 686), ('−', 0x2d, 549),
    ('≤', 0xa3, 549), ('≥', 0xb3, 549), ('≠', 0xb9, 549), ('≈', 0xbb, 549), ('≡', 0xba, 549), ('∝', 0xb5, 713),
    ('∞', 0xa5, 713), ('∂', 0xb6, 494), ('∈', 0xce, 713), ('√', 0xd6, 549), ('∑', 0xe5, 713), ('∏', 0xd5, 823),
    ('∫', 0xf2, 274), ('←', 0xac, 987), ('↑', 0xad, 603), ('→', 0xae, 987), ('↓', 0xaf, 603),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_the_codes_and_widths_of_adobes_metrics() {
        for (character, face, code, width) in [
            ('A', Face::Helvetica, b'A', 667),
            ('~', Face::Helvetica, b'~', 584),
            ('±', Face::Helvetica, 0xb1, 584),
            ('·', Face::Helvetica, 0xb7, 278),
            ('ÿ', Face::Helvetica, 0xff, 500),
            ('–', Face::Helvetica, 0x96, 556),
            ('ℓ', Face::Helvetica, b'l', 222),
            ('β', Face::Symbol, b'b', 549),
            ('−', Face::Symbol, b'-', 549),
        ] {
            assert_eq!(Glyph::of(character), Some(Glyph { face, code, width }), "{character}");
        }
        assert_eq!(['中', '\u{7f}', '\u{85}'].map(Glyph::of), [None; 3]);
        assert_eq!(width("0.62"), 3.0 * 556.0 + 278.0);
    }
}
