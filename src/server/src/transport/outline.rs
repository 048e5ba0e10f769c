//! The outline of a JSON body: counts that bound the memory for parsing and tokenizing it, before either begins.

/// Memory for decoding one token, in bytes.
pub(crate) const DECODING_BYTES: usize = 128;

/// Memory of a parsed string, array or object, in bytes, apart from what it contains.
const NODE_BYTES: usize = 128;

/// Memory per byte of a parsed body. A number in a list takes four bytes for at least two in the body, and a growing
/// list is up to twice as large as its contents.
const PARSING_BYTES: usize = 4;

/// Memory per byte of a text for its tokens and their offsets, in bytes.
const TOKEN_LIST_BYTES: usize = 24;

/// Counts of the parts of a JSON text, which may arrive in pieces and need not be valid.
#[derive(Debug, Default)]
pub(super) struct Outline {
    bytes: usize,
    /// Number of strings, arrays and objects.
    nodes: usize,
    /// Number of commas between values.
    values: usize,
    /// Number of bytes in strings, as they are written.
    string_bytes: usize,
    longest_string: usize,
    /// Length of the longest string but one.
    second_string: usize,
    /// Number of bytes so far of a string that has begun.
    open: Option<usize>,
    /// `true` if a backslash escapes the next byte.
    escaped: bool,
}

impl Outline {
    /// Reads the next piece.
    pub(super) fn read(&mut self, piece: &[u8]) {
        self.bytes += piece.len();
        let mut rest = piece;
        while !rest.is_empty() {
            rest = match self.open {
                Some(length) => self.read_string(length, rest),
                None => self.read_structure(rest),
            };
        }
    }

    /// Reads up to the beginning of a string.
    fn read_structure<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => {
                    self.nodes += 1;
                    self.open = Some(0);
                    return &bytes[at + 1..];
                }
                b'[' | b'{' => self.nodes += 1,
                b',' => self.values += 1,
                _ => {}
            }
        }
        &[]
    }

    /// Reads up to the end of a string that has `length` bytes so far.
    fn read_string<'a>(&mut self, length: usize, bytes: &'a [u8]) -> &'a [u8] {
        let mut end = bytes.len();
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        let length = length + end;
        if end == bytes.len() {
            self.open = Some(length);
            return &[];
        }
        self.string_bytes += length;
        self.second_string = self.second_string.max(length.min(self.longest_string));
        self.longest_string = self.longest_string.max(length);
        self.open = None;
        &bytes[end + 1..]
    }

    /// Returns the memory for the parsed body, in bytes.
    pub(super) fn parsing_memory(&self) -> usize {
        (PARSING_BYTES * self.bytes).saturating_add(NODE_BYTES * self.nodes)
    }

    /// Returns the memory for parsing the body, tokenizing its texts one by one, and decoding its numbers, in bytes.
    /// The tokenizer takes `encoding_bytes` per byte of a text. With a joint boundary, a text consists of two strings.
    pub(super) fn memory(&self, encoding_bytes: usize) -> usize {
        self.parsing_memory()
            .saturating_add(TOKEN_LIST_BYTES * self.string_bytes)
            .saturating_add(encoding_bytes.saturating_mul(self.longest_string + self.second_string))
            .saturating_add(DECODING_BYTES * self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_does_not_depend_on_the_pieces() {
        let body = br#"{"a": ["x\"y\\", "", [1, 2, {}]], "long": "0123456789,[{"}"#;
        for length in 1..body.len() {
            let mut outline = Outline::default();
            body.chunks(length).for_each(|piece| outline.read(piece));
            assert_eq!((outline.bytes, outline.nodes, outline.values), (body.len(), 9, 5), "{length}: {outline:?}");
            assert_eq!((outline.string_bytes, outline.longest_string), (1 + 6 + 4 + 13, 13), "{length}: {outline:?}");
            assert_eq!(outline.second_string, 6, "{length}: {outline:?}");
        }
    }
}
