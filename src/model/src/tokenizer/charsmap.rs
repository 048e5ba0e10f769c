//! A check of `precompiled_charsmap`, the table of replacements in a SentencePiece normalizer.
//!
//! The tokenizers library trusts the table. If it is damaged, the library panics, at load or with some texts only, or
//! allocates gigabytes. So the whole table is checked before the library reads it.
//!
//! The table consists of the size of a trie in bytes, the trie, and replacement texts, each of which a zero byte ends.
//! The trie is a double array (Aoe, "An efficient digital search algorithm by using a double-array structure", 1989) in
//! the layout of Darts-clone. Its values are offsets into the texts. All numbers are u32 in little-endian order.

use std::collections::HashSet;

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine};
use serde::Deserialize;
use serde_json::Value;

/// The name of a table's field.
const FIELD: &str = "precompiled_charsmap";

/// The decoder of tables. Like the library's, it accepts missing padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The part of tokenizer.json that may contain tables.
#[derive(Deserialize)]
struct Normalizers {
    #[serde(default)]
    normalizer: Value,
}

/// Checks every table in tokenizer.json. Malformed JSON is not an error here: the tokenizers library reports it.
///
/// # Errors
///
/// Returns the defect of the first damaged table.
pub(super) fn check_charsmaps(json: &[u8]) -> Result<(), String> {
    let Ok(Normalizers { normalizer }) = serde_json::from_slice(json) else { return Ok(()) };
    let mut values = vec![&normalizer];
    while let Some(value) = values.pop() {
        match value {
            Value::Array(list) => values.extend(list),
            Value::Object(fields) => {
                if let Some(text) = fields.get(FIELD).and_then(Value::as_str) {
                    check_text(text).map_err(|reason| format!("{FIELD} {reason}; download the file again"))?;
                }
                values.extend(fields.values());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Decodes and checks a table in base64.
fn check_text(text: &str) -> Result<(), String> {
    let table = BASE64.decode(text).map_err(|error| format!("is not base64: {error}"))?;
    let (size, rest) = table.split_first_chunk().ok_or_else(|| format!("has only {} bytes", table.len()))?;
    let size = u32::from_le_bytes(*size) as usize;
    let Some((trie, texts)) = rest.split_at_checked(size / 4 * 4) else {
        return Err(format!("claims a trie of {size} bytes, but only {} bytes follow", rest.len()));
    };
    let texts = std::str::from_utf8(texts).map_err(|error| format!("has a replacement that is not UTF-8: {error}"))?;
    let units = trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]) as usize);
    check_trie(&units.collect::<Vec<_>>(), texts)
}

/// Walks through the whole trie, and checks that it refers only to its own units, and its values only to whole texts.
fn check_trie(units: &[usize], texts: &str) -> Result<(), String> {
    let unit = |index: usize| {
        let missing = || format!("has a trie of {} units that refers to unit {index}", units.len());
        units.get(index).copied().ok_or_else(missing)
    };
    let root = offset(unit(0)?);
    let (mut nodes, mut seen) = (vec![root], HashSet::from([root]));
    while let Some(node) = nodes.pop() {
        // The library stops at a zero byte.
        for byte in 1..=usize::from(u8::MAX) {
            let index = node ^ byte;
            let child = unit(index)?;
            if label(child) != byte {
                continue;
            }
            let next = index ^ offset(child);
            if has_value(child) {
                let value = unit(next)? & ((1 << 31) - 1);
                if !texts.is_char_boundary(value) {
                    let length = texts.len();
                    return Err(format!("refers to byte {value} of its replacements, which have {length} bytes"));
                }
            }
            if seen.insert(next) {
                nodes.push(next);
            }
        }
    }
    Ok(())
}

/// Returns the difference, by exclusive or, between the index of a unit and the node to which the unit leads.
fn offset(unit: usize) -> usize {
    (unit >> 10) << ((unit & (1 << 9)) >> 6)
}

/// Returns the byte that leads to a unit. A unit with a value has none, but its highest bit instead.
fn label(unit: usize) -> usize {
    unit & ((1 << 31) | 0xff)
}

/// Returns whether the node to which a unit leads has a value.
fn has_value(unit: usize) -> bool {
    (unit >> 8) & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use proptest::prelude::*;
    use serde_json::json;
    use tokenizers::Tokenizer;

    use super::*;

    /// Returns a table that replaces `A` with `é` and `B` with nothing.
    fn table() -> Vec<u8> {
        let texts = "\u{e9}\0\0";
        let mut units = vec![0u32; 256];
        // The root's children are at index `1 ^ byte`; `A` leads to node 128, `B` to node 130, whose values are there.
        units[0] = 1 << 10;
        for (byte, node, value) in [(b'A', 128, 0), (b'B', 130, 3)] {
            let index = 1 ^ u32::from(byte);
            units[index as usize] = (index ^ node) << 10 | 1 << 8 | u32::from(byte);
            units[node as usize] = 1 << 31 | value;
        }
        let mut table = (4 * units.len() as u32).to_le_bytes().to_vec();
        table.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        table.extend(texts.as_bytes());
        table
    }

    fn tokenizer_json(table: &[u8]) -> String {
        let precompiled = json!({"type": "Precompiled", FIELD: BASE64.encode(table)});
        let vocab = json!({"a": 0, "\u{e9}": 1, "?": 2});
        json!({
            "version": "1.0", "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, precompiled]},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "?"},
        })
        .to_string()
    }

    #[test]
    fn a_table_that_the_library_reads_is_accepted() {
        let json = tokenizer_json(&table());
        assert_eq!(check_charsmaps(json.as_bytes()), Ok(()));
        let tokenizer = Tokenizer::from_bytes(json).unwrap();
        assert_eq!(tokenizer.encode_fast("AB", false).unwrap().get_ids(), [1]);
    }

    #[test]
    fn a_damaged_table_is_rejected() {
        let changed = |index: usize, bytes: &[u8]| {
            let mut table = table();
            table.splice(index..index + bytes.len(), bytes.iter().copied());
            table
        };
        let leaf = 4 + 4 * 128;
        for (table, reason) in [
            (vec![0, 0, 0], "has only 3 bytes"),
            (vec![0; 4], "has a trie of 0 units that refers to unit 0"),
            (changed(0, &u32::MAX.to_le_bytes()), "claims a trie of 4294967295 bytes, but only 1028 bytes follow"),
            (changed(4, &(300u32 << 10).to_le_bytes()), "has a trie of 256 units that refers to unit"),
            (
                changed(leaf, &(1u32 << 31 | 1).to_le_bytes()),
                "refers to byte 1 of its replacements, which have 4 bytes",
            ),
            (changed(leaf, &(1u32 << 31 | 5).to_le_bytes()), "refers to byte 5 of its replacements"),
            (changed(4 + 1024, b"\xff"), "has a replacement that is not UTF-8"),
        ] {
            let error = check_charsmaps(tokenizer_json(&table).as_bytes()).unwrap_err();
            assert!(error.starts_with(&format!("{FIELD} {reason}")), "{error}");
        }
        let no_base64 = json!({"normalizer": {"type": "Precompiled", FIELD: "AA=A"}}).to_string();
        assert!(check_charsmaps(no_base64.as_bytes()).unwrap_err().contains("is not base64"));
    }

    proptest! {
        /// Checks that the library panics with no text if the table is accepted.
        #[test]
        fn no_accepted_table_causes_a_panic(
            at in 0usize..1032, byte in any::<u8>(), text in "[ABa\u{e9}\u{1}-\u{ff}]{0,8}",
        ) {
            let mut table = table();
            table[at] = byte;
            let json = tokenizer_json(&table);
            if check_charsmaps(json.as_bytes()).is_ok() {
                let encode = || {
                    let tokenizer = Tokenizer::from_bytes(&json).unwrap();
                    tokenizer.encode_fast(text.as_str(), false).is_ok()
                };
                prop_assert!(catch_unwind(encode).is_ok());
            }
        }
    }
}
