//! `TextTokenizer`: tokenizer.json, and whether the model's texts begin with BOS.

use std::path::Path;

use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, Tokenizer};

use crate::{Error, LlamaConfig};

/// A checkpoint's tokenizer. It never truncates and never pads.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    bos: Option<u32>,
    eos: Option<u32>,
    ends: Vec<u32>,
    adds_bos: bool,
    adds_space: bool,
    class: Option<String>,
}

/// What a tokenizer must know of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// Token ids are below it.
    pub size: usize,
    /// The beginning-of-sequence token, unless tokenizer_config.json says another.
    pub bos: Option<u32>,
    /// The end-of-sequence token, unless tokenizer_config.json says another.
    pub eos: Option<u32>,
}

impl Vocabulary {
    /// Of a model of any architecture: `size` is its own; BOS and EOS are config.json's, if there is one and it says.
    ///
    /// # Errors
    ///
    /// A config.json that cannot be read, or is not JSON.
    pub fn read(dir: &Path, size: usize) -> Result<Self, Error> {
        let config = settings(&dir.join("config.json"))?;
        let id = |name: &str| {
            let value = config.get(name)?;
            value.as_u64().or_else(|| value.get(0)?.as_u64()).and_then(|id| u32::try_from(id).ok())
        };
        Ok(Self { size, bos: id("bos_token_id"), eos: id("eos_token_id") })
    }
}

impl From<&LlamaConfig> for Vocabulary {
    fn from(config: &LlamaConfig) -> Self {
        Self { size: config.vocab_size, bos: config.bos_token_id, eos: config.eos_token_id }
    }
}

impl TextTokenizer {
    /// Reads tokenizer.json, and tokenizer_config.json if there is one.
    ///
    /// # Errors
    ///
    /// A file that is missing, cannot be read or cannot be parsed, or a token id outside the model's vocabulary.
    pub fn open(dir: &Path, vocabulary: impl Into<Vocabulary>) -> Result<Self, Error> {
        let vocabulary = vocabulary.into();
        let path = dir.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|error| unread(&path, error))?;
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| Error::malformed(&path, error))?;
        tokenizer.with_truncation(None).map_err(|error| Error::malformed(&path, error))?;
        tokenizer.with_padding(None);
        let settings = settings(&dir.join("tokenizer_config.json"))?;
        let special = |name: &str| special_token(&settings, name).and_then(|token| tokenizer.token_to_id(&token));
        let bos = special("bos_token").or(vocabulary.bos);
        let eos = special("eos_token").or(vocabulary.eos);
        if let Some(id) = bos.filter(|&id| id as usize >= vocabulary.size) {
            return Err(Error::malformed(&path, format!("BOS has id {id}, but the model has {} ids", vocabulary.size)));
        }
        let (adds_bos, adds_space) = (adds_bos(&tokenizer, &settings, bos), adds_space(&tokenizer));
        let ends = ends(dir, eos, vocabulary.size)?;
        let class = settings.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { tokenizer, bos, eos, ends, adds_bos, adds_space, class })
    }

    /// Token ids of a text, without special tokens added.
    ///
    /// # Errors
    ///
    /// The tokenizer has no token for some word and no "unknown" token either; the first such word is named.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|error| self.refused(text, &error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`encode`](Self::encode), and each token's bytes in the text, `[from, to)`.
    ///
    /// Tokens that share a character (byte-level BPE cuts some) share its bytes.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), Error> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| self.refused(text, &error))?;
        let offsets = encoding.get_offsets().iter().map(|&(from, to)| [from, to]).collect();
        Ok((encoding.get_ids().to_vec(), offsets))
    }

    fn refused(&self, text: &str, error: &tokenizers::Error) -> Error {
        let refused = text.split_whitespace().find(|word| self.tokenizer.encode_fast(*word, false).is_err());
        Error::Tokenizer(match refused {
            Some(word) => format!("the word {word:?} is not in this model's vocabulary: {error}"),
            None => format!("the text cannot be encoded: {error}"),
        })
    }

    /// The text of token ids, special tokens included.
    ///
    /// # Errors
    ///
    /// The tokenizer's decoder refuses them.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(tokens, false).map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// The text of token ids, special tokens left out.
    ///
    /// # Errors
    ///
    /// The tokenizer's decoder refuses them.
    pub fn text(&self, tokens: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(tokens, true).map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// The token that the model's own rule puts before every text, if it puts one.
    pub fn bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.adds_bos)
    }

    /// True if a space is put before every text, also before one that begins with a space, as Llama 2's tokenizer.json has it.
    pub fn adds_space(&self) -> bool {
        self.adds_space
    }

    /// The beginning-of-sequence token, whether or not the rule adds it.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The end-of-sequence token.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// Every token that ends a text: the tokenizer's end of sequence, and those that config.json and generation_config.json name.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// How tokenizer.json writes a token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// The class that tokenizer_config.json names.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }
}

/// Why a tokenizer.json could not be read, and how one is had where there is none.
fn unread(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::malformed(
            path,
            "there is no such file, and a model needs one; transformers makes it of a tokenizer.model: load it with \
             AutoTokenizer.from_pretrained, and save it with save_pretrained",
        ),
        _ => Error::io(path)(error),
    }
}

fn settings(path: &Path) -> Result<Value, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| Error::malformed(path, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// The end of sequence and each `eos_token_id`, one or a list, that the model has.
fn ends(dir: &Path, eos: Option<u32>, size: usize) -> Result<Vec<u32>, Error> {
    let mut ends = Vec::from_iter(eos);
    for file in ["config.json", "generation_config.json"] {
        let settings = settings(&dir.join(file))?;
        let Some(said) = settings.get("eos_token_id") else { continue };
        let listed = said.as_array().map_or(std::slice::from_ref(said), Vec::as_slice);
        ends.extend(listed.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()));
    }
    ends.sort_unstable();
    ends.dedup();
    ends.retain(|&id| (id as usize) < size);
    Ok(ends)
}

/// A special token's text: a string, or an object with `content`.
fn special_token(settings: &Value, name: &str) -> Option<String> {
    let value = settings.get(name)?;
    Some(value.as_str().or_else(|| value.get("content")?.as_str())?.to_owned())
}

/// `add_bos_token` if it is said; else what the tokenizer's own post-processor does; else what the class is known to do.
fn adds_bos(tokenizer: &Tokenizer, settings: &Value, bos: Option<u32>) -> bool {
    if let Some(said) = settings.get("add_bos_token").and_then(Value::as_bool) {
        return said;
    }
    let Some(bos) = bos else { return false };
    if tokenizer.get_post_processor().is_some() {
        return tokenizer.encode_fast("", true).is_ok_and(|encoding| encoding.get_ids().first() == Some(&bos));
    }
    let class = settings.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    class.starts_with("LlamaTokenizer")
}

fn adds_space(tokenizer: &Tokenizer) -> bool {
    let mut text = NormalizedString::from(" a");
    let normalised = tokenizer.get_normalizer().is_some_and(|normalizer| normalizer.normalize(&mut text).is_ok());
    normalised && text.get().starts_with("\u{2581}\u{2581}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn open(post_processor: &Value, settings: &Value) -> TextTokenizer {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = json!({
            "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
            "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": post_processor, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"<s>": 0, "a": 1, "b": 2}, "unk_token": "?"},
        });
        std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
        let config = r#"{"model_type":"llama","vocab_size":3,"hidden_size":8,"intermediate_size":8,
            "num_hidden_layers":1,"num_attention_heads":2,"bos_token_id":0}"#;
        TextTokenizer::open(dir.path(), &LlamaConfig::parse(config).unwrap()).unwrap()
    }

    fn template() -> Value {
        json!({
            "type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
        })
    }

    #[test]
    fn the_rule_for_bos_is_the_models_own() {
        for (post_processor, settings, bos) in [
            (Value::Null, json!({}), None),
            (Value::Null, json!({"tokenizer_class": "LlamaTokenizerFast"}), Some(0)),
            (Value::Null, json!({"add_bos_token": true, "bos_token": {"content": "a"}}), Some(1)),
            (template(), json!({}), Some(0)),
            (template(), json!({"add_bos_token": false}), None),
        ] {
            assert_eq!(open(&post_processor, &settings).bos(), bos, "{settings}");
        }
    }

    #[test]
    fn a_space_before_every_text_is_told_from_one_before_those_without() {
        let dir = tempfile::tempdir().unwrap();
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let llama_2 = json!({"type": "Sequence", "normalizers": [prepend, replace]});
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false});
        for (normalizer, pre_tokenizer, adds) in
            [(llama_2, Value::Null, true), (replace, Value::Null, false), (Value::Null, metaspace, false)]
        {
            let model = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
            let tokenizer = json!({"version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model});
            std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
            let vocabulary = Vocabulary { size: 1, bos: None, eos: None };
            assert_eq!(TextTokenizer::open(dir.path(), vocabulary).unwrap().adds_space(), adds, "{tokenizer}");
        }
    }

    #[test]
    fn ids_of_special_tokens_are_read_from_any_config() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Vocabulary::read(dir.path(), 9).unwrap(), Vocabulary { size: 9, bos: None, eos: None });
        let config = json!({"model_type": "phi3", "bos_token_id": 1, "eos_token_id": [2, 7]});
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        assert_eq!(Vocabulary::read(dir.path(), 9).unwrap(), Vocabulary { size: 9, bos: Some(1), eos: Some(2) });
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        assert!(Vocabulary::read(dir.path(), 9).unwrap_err().to_string().contains("config.json"));
    }

    #[test]
    fn every_end_that_a_model_names_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, json: &Value| std::fs::write(dir.path().join(file), json.to_string()).unwrap();
        let vocab = json!({"a": 0, "b": 1, "c": 2, "d": 3, "</s>": 4});
        write(
            "tokenizer.json",
            &json!({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}}),
        );
        let ends =
            || TextTokenizer::open(dir.path(), Vocabulary { size: 5, bos: None, eos: None }).unwrap().ends().to_vec();
        assert_eq!(ends(), [0u32; 0]);
        write("tokenizer_config.json", &json!({"eos_token": "</s>"}));
        assert_eq!(ends(), [4]);
        write("config.json", &json!({"eos_token_id": 1}));
        write("generation_config.json", &json!({"eos_token_id": [3, 1, 99]}));
        assert_eq!(ends(), [1, 3, 4]);
    }

    #[test]
    fn texts_are_never_truncated_and_unknown_words_are_named() {
        let tokenizer = open(&template(), &json!({}));
        assert_eq!(tokenizer.encode("a b a b a").unwrap(), [1, 2, 1, 2, 1]);
        assert_eq!(tokenizer.encode_with_offsets(" a  b").unwrap(), (vec![1, 2], vec![[1, 2], [4, 5]]));
        assert_eq!(tokenizer.decode(&[1, 2]).unwrap(), "a b");
        assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
        let error = tokenizer.encode("a b zebra").unwrap_err().to_string();
        assert!(error.contains("the word \"zebra\" is not in this model's vocabulary"), "{error}");
    }

    #[test]
    fn a_tokenizer_that_is_not_there_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let vocabulary = Vocabulary { size: 1, bos: None, eos: None };
        let error = TextTokenizer::open(dir.path(), vocabulary).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: there is no such file"), "{error}");
        assert!(error.contains("transformers makes it of a tokenizer.model"), "{error}");
    }
}
