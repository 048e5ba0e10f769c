//! Adapters beside the weights, such as LoRA: they change the model, and this program does not apply them.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, exists};

/// The file that describes an adapter. transformers applies the adapter if the folder has this file.
pub(crate) const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";

/// The files of an adapter.
const ADAPTER_FILES: [&str; 3] = [ADAPTER_CONFIG_FILE, "adapter_model.safetensors", "adapter_model.bin"];

/// Rejects a folder that contains an adapter.
pub(super) fn reject_adapter(dir: &Path) -> Result<(), Error> {
    let mut found = None;
    for path in ADAPTER_FILES.map(|name| dir.join(name)) {
        if exists(&path)? {
            found = Some(path);
            break;
        }
    }
    let Some(file) = found else { return Ok(()) };
    let base = match base_model(dir) {
        Some(name) => format!("its base model, {name},"),
        None => "its base model".to_owned(),
    };
    Err(Error::malformed(
        &file,
        format!(
            "the folder contains an adapter, and adapters are not supported; load {base} and the adapter with peft, \
             call merge_and_unload and save_pretrained, and use the folder with the merged weights (or remove the \
             adapter's files to use the weights without it)"
        ),
    ))
}

/// Returns the name of the adapter's base model; `None` if the adapter's configuration does not name one.
fn base_model(dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(dir.join(ADAPTER_CONFIG_FILE)).ok()?;
    let config: Value = serde_json::from_str(&text).ok()?;
    Some(config.get("base_model_name_or_path")?.as_str()?.to_owned())
}
