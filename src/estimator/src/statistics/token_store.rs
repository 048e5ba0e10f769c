//! A store of token ids that need not fit in memory: the ids that do not fit are in a temporary file, which every pass
//! reads again.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Default memory for tokens, in bytes.
const STORE_MEMORY_BYTES: usize = 1 << 30;

/// Maximum tokens that are written to the file or read from it at once; a single text that has more is read whole.
const PIECE_TOKENS: usize = 1 << 18;

/// Texts of token ids that can be visited repeatedly, by several threads at once.
pub trait TokenTexts: Sync {
    /// Visits every text, in order.
    ///
    /// # Errors
    /// [`Error::Spill`] if a temporary file cannot be read.
    fn for_each(&self, visit: &mut dyn FnMut(&[u32])) -> Result<(), Error>;
}

impl TokenTexts for Vec<&[u32]> {
    fn for_each(&self, visit: &mut dyn FnMut(&[u32])) -> Result<(), Error> {
        self.iter().for_each(|text| visit(text));
        Ok(())
    }
}

/// A store of texts that uses a limited amount of memory. It moves texts that no longer fit to an unnamed file in the
/// system's temporary folder (`TMPDIR`). The file disappears with the store, however the process ends.
///
/// ```
/// use surprisal_estimator::{EntropyMethod, TokenStore, TwoPoint};
///
/// // The memory is too small for the second text, so the first goes to the file.
/// let mut texts = TokenStore::new(8);
/// texts.push(&[1, 2, 1, 2, 1, 2])?;
/// texts.push(&[2, 1, 2, 1, 2, 1])?;
/// let two_point = TwoPoint::of(&texts, &[1, 2], EntropyMethod::PlugIn)?;
/// assert_eq!(two_point.points[0].pairs, 10);
/// # Ok::<(), surprisal_estimator::Error>(())
/// ```
#[derive(Debug)]
pub struct TokenStore {
    max_tokens: usize,
    /// Number of tokens of every text.
    lengths: Vec<usize>,
    /// Tokens of the last texts, in memory.
    held: Vec<u32>,
    /// File with the tokens of all earlier texts; `None` if all texts fit in memory.
    file: Option<Mutex<File>>,
    in_file: usize,
}

/// Creates a store that keeps up to 1 GiB of tokens in memory.
impl Default for TokenStore {
    fn default() -> Self {
        Self::new(STORE_MEMORY_BYTES)
    }
}

impl TokenStore {
    /// Creates a store that keeps up to `memory` bytes of tokens in memory, or a single text that is longer.
    pub fn new(memory: usize) -> Self {
        Self { max_tokens: memory / size_of::<u32>(), lengths: Vec::new(), held: Vec::new(), file: None, in_file: 0 }
    }

    /// Adds a text.
    ///
    /// # Errors
    /// [`Error::Spill`] if the temporary file cannot be created or written.
    pub fn push(&mut self, text: &[u32]) -> Result<(), Error> {
        if !self.held.is_empty() && self.held.len() + text.len() > self.max_tokens {
            self.spill().map_err(Error::Spill)?;
        }
        self.held.extend_from_slice(text);
        self.lengths.push(text.len());
        Ok(())
    }

    /// Returns the number of tokens of each text, in order.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn spill(&mut self) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(Mutex::new(tempfile::tempfile()?)),
        };
        let file = file.get_mut().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::End(0))?;
        for piece in self.held.chunks(PIECE_TOKENS) {
            let bytes: Vec<u8> = piece.iter().flat_map(|token| token.to_le_bytes()).collect();
            file.write_all(&bytes)?;
        }
        self.in_file = self.lengths.len();
        self.held.clear();
        Ok(())
    }

    /// Visits the texts in the file, reading several at a time.
    fn for_each_in_file(&self, file: &Mutex<File>, visit: &mut dyn FnMut(&[u32])) -> std::io::Result<()> {
        let (mut tokens, mut bytes) = (Vec::new(), Vec::new());
        let (mut texts, mut at) = (&self.lengths[..self.in_file], 0);
        while !texts.is_empty() {
            let mut length = 0;
            let fitting = texts.iter().take_while(|&&text| {
                let fits = length == 0 || length + text <= PIECE_TOKENS;
                length += if fits { text } else { 0 };
                fits
            });
            let (piece, rest) = texts.split_at(fitting.count());
            bytes.resize(length * size_of::<u32>(), 0);
            {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(&mut bytes)?;
            }
            at += bytes.len() as u64;
            tokens.clear();
            tokens.extend(bytes.as_chunks().0.iter().map(|&token| u32::from_le_bytes(token)));
            for_each_of_lengths(&tokens, piece, visit);
            texts = rest;
        }
        Ok(())
    }
}

impl TokenTexts for TokenStore {
    fn for_each(&self, visit: &mut dyn FnMut(&[u32])) -> Result<(), Error> {
        if let Some(file) = &self.file {
            self.for_each_in_file(file, visit).map_err(Error::Spill)?;
        }
        for_each_of_lengths(&self.held, &self.lengths[self.in_file..], visit);
        Ok(())
    }
}

/// Visits consecutive texts of these lengths.
fn for_each_of_lengths(mut tokens: &[u32], lengths: &[usize], visit: &mut dyn FnMut(&[u32])) {
    for &length in lengths {
        let (text, rest) = tokens.split_at(length);
        visit(text);
        tokens = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_are_visited_in_order_from_memory_and_file(
            lengths in prop::collection::vec(0_usize..30, 0..30), memory in 0_usize..2000,
        ) {
            let mut next = 0;
            let mut token = |_| {
                next += 1;
                u32::wrapping_mul(next, 0x0101_0101)
            };
            let texts: Vec<Vec<u32>> = lengths.iter().map(|&length| (0..length).map(&mut token).collect()).collect();
            let mut store = TokenStore::new(memory);
            texts.iter().for_each(|text| store.push(text).unwrap());
            let total: usize = lengths.iter().sum();
            prop_assert_eq!(store.file.is_some(), store.held.len() < total);
            prop_assert!(store.held.len() <= (memory / 4).max(29));
            prop_assert_eq!(store.lengths(), &lengths[..]);
            for _ in 0..2 {
                let mut found = Vec::new();
                store.for_each(&mut |text| found.push(text.to_vec())).unwrap();
                prop_assert_eq!(&found, &texts);
            }
        }
    }

    #[test]
    fn long_texts_are_read_whole_and_by_several_threads() {
        let texts: Vec<Vec<u32>> =
            [PIECE_TOKENS - 1, 2, PIECE_TOKENS + 3, 0, 5, PIECE_TOKENS, 1].iter().map(|&n| vec![n as u32; n]).collect();
        let mut store = TokenStore::new(0);
        texts.iter().for_each(|text| store.push(text).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut expected = texts.iter();
                    store.for_each(&mut |text| assert!(text == expected.next().unwrap())).unwrap();
                    assert!(expected.next().is_none());
                });
            }
        });
    }
}
