//! The size of a window in bytes and characters.

/// The bytes (of UTF-8) and Unicode characters of a window's text, and of the text of its tail: its last octave, the
/// positions after half of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// The bytes of the whole window.
    pub bytes: usize,
    /// The characters of the whole window.
    pub characters: usize,
    /// The bytes of the tail.
    pub tail_bytes: usize,
    /// The characters of the tail.
    pub tail_characters: usize,
}

impl WindowSize {
    /// Returns the number of tokens before the tail of a window of this many tokens.
    pub(crate) fn tail_start(window: usize) -> usize {
        window.div_ceil(2)
    }
}
