//! Options of `/logprobs` for texts and tokens: the split between context and target, the texts of tokens, and offsets.

use serde::{Deserialize, Serialize};

/// The split between a context and a target that are both strings: `"separate"` tokenizes each by itself, so that no
/// token contains parts of both; `"joint"` tokenizes the whole text, and the target begins with the first token that
/// contains a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Boundary {
    /// A token boundary between context and target. The target has the tokens of a text that follows other text: `un`
    /// and `believable` make one word. A target at the beginning of a text has the tokens of a whole text.
    #[default]
    Separate,
    /// The tokens of the whole text. If a token contains the end of the context and the beginning of the target, the
    /// target begins with this token, and `overlap` in the result is the length of the context's part.
    Joint,
}

/// The texts of tokens in a result: `"strings"` returns text, `"bytes"` returns bytes, and `"none"` returns token ids
/// only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TokenText {
    /// The text of each token. The texts join to the target. A character of several tokens belongs to the last of them.
    Strings,
    /// Each token's own bytes, which may be a part of a character.
    Bytes,
    /// No texts.
    None,
}

/// The unit of offsets in a text: `"bytes"` of its UTF-8 encoding, or `"chars"`, which are Unicode code points as in
/// Python's strings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OffsetUnit {
    /// Bytes of the UTF-8 encoding.
    #[default]
    Bytes,
    /// Unicode code points.
    Chars,
}
