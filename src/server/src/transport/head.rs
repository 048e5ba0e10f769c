//! `HeadScanner`: finds the end of a request's head among the bytes of a connection.
//!
//! hyper accepts lines that end with a bare LF. A proxy in front of the server may not. If the two disagree, an
//! attacker can smuggle requests, so the server looks for such lines itself.

/// A search for the end of a head, across the pieces in which the head arrives.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    is_after_cr: bool,
    line_length: usize,
    has_request_line: bool,
    has_bare_lf: bool,
}

/// The end of a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeadEnd {
    /// Number of scanned bytes that belong to the head.
    pub(super) length: usize,
    /// `true` if a line of the head ends with LF instead of CR LF.
    pub(super) has_bare_lf: bool,
}

impl HeadScanner {
    /// Scans more bytes. Returns the head's end, or `None` if the head continues after these bytes.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Option<HeadEnd> {
        for (index, &byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.line_length == 0 && self.has_request_line => {
                    let has_bare_lf = self.has_bare_lf || !self.is_after_cr;
                    *self = Self::default();
                    return Some(HeadEnd { length: index + 1, has_bare_lf });
                }
                b'\n' => {
                    self.has_bare_lf |= !self.is_after_cr;
                    // Empty lines before the request line are skipped, as in RFC 9112.
                    self.has_request_line |= self.line_length > 0;
                    self.line_length = 0;
                }
                b'\r' => {}
                _ => self.line_length += 1,
            }
            self.is_after_cr = byte == b'\r';
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans `text` in pieces of this many bytes. Returns the head's length and whether it has a bare LF.
    fn scan(text: &str, piece: usize) -> Option<(usize, bool)> {
        let (mut scanner, mut before) = (HeadScanner::default(), 0);
        for bytes in text.as_bytes().chunks(piece) {
            if let Some(end) = scanner.scan(bytes) {
                return Some((before + end.length, end.has_bare_lf));
            }
            before += bytes.len();
        }
        None
    }

    #[test]
    fn the_end_is_found_in_pieces_of_any_size() {
        let head = "\r\nPOST / HTTP/1.1\r\nhost: a\r\n\r\n";
        for (text, end) in [
            (head.to_owned(), Some((head.len(), false))),
            (format!("{head}{{\n\n}}"), Some((head.len(), false))),
            (head.replace("\r\n", "\n"), Some((head.replace("\r\n", "\n").len(), true))),
            ("GET / HTTP/1.1\r\nhost: a\n\r\nbody".to_owned(), Some((26, true))),
            ("GET / HTTP/1.1\r\n\nbody".to_owned(), Some((17, true))),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r".to_owned(), None),
            ("\r\n\r\n".to_owned(), None),
        ] {
            for piece in 1..=text.len() {
                assert_eq!(scan(&text, piece), end, "{text:?} in pieces of {piece}");
            }
        }
    }
}
