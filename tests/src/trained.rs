//! Tokenizers trained on a small text, one of each kind that published models have.

use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// The text on which the tokenizers are trained, line by line.
const TEXT: &str = "\
It was an unbelievable night, and nobody believed that it was over.
The believers were able to believe; the others were not unable to.
How probable is the target, given the context? That depends on the context.
Words, numbers (1, 23, 456, 7890), and names: Anna, Bob, Zoë, François, Œdipe.
fn main() { let x = [1, 2, 3]; println!(\"{x:?}\"); }
東京は今日も晴れです。私は東京に住んでいます。今日は寒いです。
我们今天去看电影，明天去学校。今天天气很好。
Привет, как дела? Это был тёмный вечер, и всё было тихо.
I 😀 東京 now. 👍🏽 😀😀 🎉
naïve café, déjà vu, crème brûlée, señor, Ångström
";

/// The number of tokens of each vocabulary.
pub const VOCABULARY: usize = 700;

/// A trained tokenizer.
#[derive(Debug)]
pub struct Trained {
    /// The kind.
    pub name: &'static str,
    /// The contents of tokenizer.json.
    pub json: Value,
    /// `true` if encoding loses no character, so that the tokens' bytes are the text.
    pub is_lossless: bool,
}

/// Trains a tokenizer of each kind.
///
/// # Panics
///
/// If training fails.
pub fn all() -> Vec<Trained> {
    let (bos, eos) = ("<s>", "</s>");
    let lossless = |name, json| Trained { name, json, is_lossless: true };
    let nfc = json!({"type": "NFC"});
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let prepend = json!({"type": "Prepend", "prepend": "\u{2581}"});
    let llama_2 = json!({"type": "Sequence", "normalizers": [prepend, replace]});
    let metaspace = |scheme| Metaspace::new('\u{2581}', scheme, false);
    let sentencepiece = |scheme| byte_fallback(Some(metaspace(scheme).into()), None);
    vec![
        lossless("byte-level", byte_level(None, false)),
        lossless("byte-level with BOS", with_template(byte_level(None, false), &[bos], &[])),
        lossless("byte-level with a space before texts", byte_level(None, true)),
        lossless("Metaspace always, EOS after texts", with_template(sentencepiece(PrependScheme::Always), &[], &[eos])),
        lossless("Metaspace first, BOS", with_template(sentencepiece(PrependScheme::First), &[bos], &[])),
        lossless("Metaspace never", sentencepiece(PrependScheme::Never)),
        lossless("Prepend, BOS and EOS", with_template(byte_fallback(None, Some(&llama_2)), &[bos], &[eos])),
        Trained { name: "NFC byte-level", json: byte_level(Some(&nfc), false), is_lossless: false },
        Trained {
            name: "NFC byte-level, two tokens before texts",
            json: with_template(byte_level(Some(&nfc), false), &[eos, bos], &[]),
            is_lossless: false,
        },
        Trained { name: "unigram Metaspace, BOS", json: with_template(unigram(), &[bos], &[]), is_lossless: false },
    ]
}

fn byte_level(normalizer: Option<&Value>, adds_space: bool) -> Value {
    let mut tokenizer = Tokenizer::new(BPE::default());
    let split = ByteLevel::new(adds_space, true, true);
    tokenizer.with_pre_tokenizer(Some(split)).with_decoder(Some(ByteLevel::default()));
    tokenizer.with_normalizer(normalizer.map(normalizer_of));
    let alphabet = ByteLevel::alphabet().into_iter().collect();
    train(tokenizer, BpeTrainer::builder().initial_alphabet(alphabet).vocab_size(VOCABULARY))
}

/// Trains BPE on characters. A character that is not in the vocabulary becomes tokens of its bytes.
fn byte_fallback(pre_tokenizer: Option<PreTokenizerWrapper>, normalizer: Option<&Value>) -> Value {
    let bytes: Vec<String> = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")).collect();
    let model = BPE::builder().byte_fallback(true).unk_token("<unk>".to_owned()).fuse_unk(true);
    let mut tokenizer = Tokenizer::new(model.build().expect("the settings are valid"));
    tokenizer.with_pre_tokenizer(pre_tokenizer).with_normalizer(normalizer.map(normalizer_of));
    let special: Vec<AddedToken> = bytes.iter().map(|byte| AddedToken::from(byte.as_str(), true)).collect();
    let mut json = train(tokenizer, BpeTrainer::builder().vocab_size(VOCABULARY).special_tokens(special));
    // The bytes are ordinary tokens: a text that contains the name of one does not contain the token.
    let added = json["added_tokens"].as_array_mut().expect("a list");
    added.retain(|token| !bytes.iter().any(|byte| token["content"] == byte.as_str()));
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    let replace = json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "});
    let mut steps = vec![replace, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if json["pre_tokenizer"]["prepend_scheme"] != "never" {
        steps.push(strip);
    }
    json["decoder"] = json!({"type": "Sequence", "decoders": steps});
    json
}

/// Trains a unigram model, in which a character that is not in the vocabulary is unknown.
fn unigram() -> Value {
    let mut tokenizer = Tokenizer::new(Unigram::default());
    let metaspace = Metaspace::new('\u{2581}', PrependScheme::Always, true);
    tokenizer.with_pre_tokenizer(Some(metaspace.clone())).with_decoder(Some(metaspace));
    let special = ["<s>", "</s>", "<unk>"].map(|token| AddedToken::from(token, true)).to_vec();
    let mut trainer = UnigramTrainer::builder();
    trainer
        .show_progress(false)
        .vocab_size(VOCABULARY as u32)
        .special_tokens(special)
        .unk_token(Some("<unk>".to_owned()));
    let mut trainer = TrainerWrapper::from(trainer.build().expect("the settings are valid"));
    tokenizer.train(&mut trainer, TEXT.lines()).expect("the text is long enough");
    to_json(&tokenizer)
}

fn train(mut tokenizer: Tokenizer, trainer: tokenizers::models::bpe::BpeTrainerBuilder) -> Value {
    let mut trainer = TrainerWrapper::from(trainer.show_progress(false).build());
    tokenizer.train(&mut trainer, TEXT.lines()).expect("the text is long enough");
    let special = ["<s>", "</s>", "<unk>"].map(|token| AddedToken::from(token, true));
    tokenizer.add_special_tokens(&special);
    to_json(&tokenizer)
}

fn to_json(tokenizer: &Tokenizer) -> Value {
    let text = tokenizer.to_string(false).expect("a tokenizer is serializable");
    serde_json::from_str(&text).expect("a tokenizer is JSON")
}

fn normalizer_of(json: &Value) -> NormalizerWrapper {
    serde_json::from_value(json.clone()).expect("the normalizer is valid")
}

/// Adds a post-processor that puts special tokens before and after a text.
fn with_template(mut json: Value, before: &[&str], after: &[&str]) -> Value {
    let id = |token: &str| {
        let added = json["added_tokens"].as_array().expect("a list");
        added.iter().find(|entry| entry["content"] == token).expect("the token exists")["id"].clone()
    };
    let special = |token: &&str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = [json!({"Sequence": {"id": "A", "type_id": 0}})];
    let single: Vec<Value> = before.iter().map(special).chain(text).chain(after.iter().map(special)).collect();
    let tokens = before.iter().chain(after);
    let entries =
        tokens.map(|token| ((*token).to_owned(), json!({"id": token, "ids": [id(token)], "tokens": [token]})));
    let special_tokens: serde_json::Map<String, Value> = entries.collect();
    json["post_processor"] = json!({
        "type": "TemplateProcessing", "single": single, "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": special_tokens,
    });
    json
}
