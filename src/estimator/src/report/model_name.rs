//! Short names of models, for headings and tables.

/// Returns a model's name without the folders around it: the last part of a path, and the id on the Hugging Face hub of
/// a snapshot in its cache. An id (`owner/name`) remains as it is.
pub(crate) fn short_model_name(name: &str) -> String {
    let parts: Vec<&str> = name.split(['/', '\\']).filter(|part| !part.is_empty()).collect();
    if let Some(cached) = parts.iter().find_map(|part| part.strip_prefix("models--")) {
        return cached.replacen("--", "/", 1);
    }
    let is_id = parts.len() == 2 && !name.starts_with(['/', '.', '~']) && !name.contains('\\');
    match parts.last() {
        Some(last) if !is_id => (*last).to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_left_out_and_ids_stay() {
        for (name, short) in [
            ("/data/models/books-llama", "books-llama"),
            ("../models/books-llama/", "books-llama"),
            ("./books-llama", "books-llama"),
            ("models/tiny/model.gguf", "model.gguf"),
            ("C:\\models\\tiny", "tiny"),
            ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M"),
            ("/root/.cache/huggingface/hub/models--Qwen--Qwen3-0.6B/snapshots/c1899de2", "Qwen/Qwen3-0.6B"),
            ("oracle", "oracle"),
            ("/", "/"),
        ] {
            assert_eq!(short_model_name(name), short);
        }
    }
}
