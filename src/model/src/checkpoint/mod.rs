//! A checkpoint's weights: safetensors, read tensor by tensor and checked against config.json.
//!
//! Start with [`Checkpoint::open`], which finds the weight files through `index.rs` and opens each as a `Shard`.
//! `read.rs` reads tensors or slices of them as f32, bf16 or FP8 values. `scales.rs` dequantizes FP8 values.
//! `fingerprint.rs` hashes the weights and the files in `companions.rs`, and verifies their checksums. `source_file.rs`
//! reads files, and notices if one changes in the meantime. `tied_head.rs` decides whether the embedding is also the
//! head. `adapter.rs` rejects adapters.

pub(crate) mod adapter;
mod checksums;
pub(crate) mod companions;
mod fingerprint;
pub(crate) mod index;
mod read;
mod scales;
mod shard;
mod source_file;
mod tensor_slice;
mod tied_head;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use self::adapter::reject_adapter;
use self::index::weight_files;
use self::shard::Shard;
use crate::config::LlamaConfig;
use crate::config::generation_fields::check_generation_config;
use crate::config::quantization::Quantization;
use crate::config::tensors::{EMBEDDING, HEAD, TensorSpec, expected_tensors, is_known_extra};
use crate::error::Error;

pub use self::fingerprint::fingerprint_files;

/// A checkpoint's configuration and weights.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config: LlamaConfig,
    shards: Vec<Shard>,
    /// Index of each tensor's shard.
    shard_of_tensor: HashMap<String, usize>,
    /// `true` if the embedding is also the head and is stored under the head's name.
    embedding_is_stored_as_head: bool,
    observer: Option<Observer>,
    /// The fingerprint; `None` until it is first computed, because that requires reading every file.
    fingerprint: Mutex<Option<String>>,
}

/// The purpose of reading a checkpoint's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPurpose {
    /// Computing checksums and the fingerprint.
    Checksums,
    /// Loading weights.
    Weights,
}

/// A callback that receives the purpose of each read and the number of bytes read.
#[derive(Clone)]
struct Observer(Arc<dyn Fn(ReadPurpose, u64) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl Checkpoint {
    /// Opens a folder: reads config.json and the headers of `model.safetensors`, or of the shards that
    /// `model.safetensors.index.json` names. If the embedding is also the head but a head is stored, reads both.
    ///
    /// # Errors
    ///
    /// Fails if a file is missing, truncated or malformed, if the configuration is not supported, if two shards contain
    /// the same tensor, or if the folder contains an adapter.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        reject_adapter(dir)?;
        let path = dir.join("config.json");
        let config = LlamaConfig::parse(&std::fs::read_to_string(&path).map_err(Error::io(&path))?)?;
        check_generation_config(dir)?;
        let shards = weight_files(dir)?.iter().map(|path| Shard::open(path)).collect::<Result<Vec<_>, _>>()?;
        let mut checkpoint = Self {
            dir: dir.to_owned(),
            config,
            shard_of_tensor: index_tensors(&shards)?,
            shards,
            embedding_is_stored_as_head: false,
            observer: None,
            fingerprint: Mutex::default(),
        };
        checkpoint.resolve_tied_head()?;
        Ok(checkpoint)
    }

    /// Calls `observer` after every read, from any thread, with the purpose and the number of bytes read. Files are
    /// read whole for checksums; weights are read as slices of tensors.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(ReadPurpose, u64) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer(Arc::new(observer)));
        self
    }

    fn observe(&self, purpose: ReadPurpose, bytes: usize) {
        if let Some(Observer(observer)) = &self.observer {
            observer(purpose, bytes as u64);
        }
    }

    /// Returns the number of weight files, each of which is open as long as the checkpoint.
    pub fn weight_files(&self) -> usize {
        self.shards.len()
    }

    /// Returns the total size of all tensors, in bytes.
    pub fn tensor_bytes(&self) -> u64 {
        self.shards.iter().map(Shard::tensor_bytes).sum()
    }

    /// Returns the checkpoint's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the configuration in config.json. `tie_word_embeddings` is false if the checkpoint has a head that
    /// differs from the embedding.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Returns the number of values in all tensors, including the scales of FP8 weights.
    pub fn parameters(&self) -> u64 {
        let tensors = self.shards.iter().flat_map(|shard| shard.metadata().tensors().into_values());
        tensors.map(|info| info.shape.iter().map(|&size| size as u64).product::<u64>()).sum()
    }

    /// Returns whether every matrix is stored in bf16.
    pub fn is_bf16(&self) -> bool {
        let mut matrices = expected_tensors(&self.config).filter(|tensor| tensor.shape.len() == 2);
        matrices.all(|tensor| self.find(&tensor.name).is_ok_and(|(info, _)| info.dtype == Dtype::BF16))
    }

    /// Returns whether a tensor is stored in FP8.
    pub fn is_fp8(&self, name: &str) -> bool {
        self.find(name).is_ok_and(|(info, _)| info.dtype == Dtype::F8_E4M3)
    }

    /// Checks that the files have the tensors that config.json implies, each with the right shape and a supported type,
    /// and no others except known harmless ones.
    ///
    /// # Errors
    ///
    /// Returns the error for the first tensor that is missing, extra, or of the wrong shape or type.
    pub fn check(&self) -> Result<(), Error> {
        self.check_prefix()?;
        let mut expected = HashSet::new();
        for TensorSpec { name, shape, .. } in expected_tensors(&self.config) {
            self.check_tensor(&name, &shape)?;
            expected.insert(name);
        }
        let is_extra = |name: &&String| {
            !expected.contains(*name) && !is_known_extra(name, &self.config) && !self.is_weight_scale(name)
        };
        match self.shard_of_tensor.keys().filter(is_extra).min() {
            Some(name) => Err(Error::ExtraTensor { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// Returns whether a tensor holds the scales of an FP8 weight.
    fn is_weight_scale(&self, name: &str) -> bool {
        let suffix = self.config.quantization.map(Quantization::scale_suffix);
        suffix.and_then(|suffix| name.strip_suffix(suffix)).is_some_and(|weight| self.is_fp8(weight))
    }

    /// Checks that the embedding, if it is stored, is stored under the expected name, without another prefix.
    fn check_prefix(&self) -> Result<(), Error> {
        if self.embedding_is_stored_as_head || self.shard_of_tensor.contains_key(EMBEDDING) {
            return Ok(());
        }
        match self.shard_of_tensor.keys().filter(|name| name.ends_with("embed_tokens.weight")).min() {
            Some(found) => Err(Error::TensorPrefix { expected: EMBEDDING.to_owned(), found: found.clone() }),
            None => Ok(()),
        }
    }

    /// Checks a tensor's shape and type, and the shape of its scale if it is FP8.
    fn check_tensor(&self, name: &str, shape: &[usize]) -> Result<(), Error> {
        let info = self.find(name)?.0;
        if info.shape != shape {
            return Err(Error::tensor(name, format!("shape {shape:?}"), format!("{:?}", info.shape)));
        }
        match (info.dtype, self.config.quantization, shape) {
            (Dtype::F32 | Dtype::F16 | Dtype::BF16, ..) => Ok(()),
            (Dtype::F8_E4M3, Some(quantization), &[rows, columns]) => {
                let scale = format!("{name}{}", quantization.scale_suffix());
                let (found, allowed) = (&self.find(&scale)?.0.shape, quantization.scale_shapes(rows, columns));
                match allowed.contains(found) {
                    true => Ok(()),
                    false => Err(Error::tensor(&scale, format!("one of the shapes {allowed:?}"), format!("{found:?}"))),
                }
            }
            (other, ..) => {
                let expected = "f32, f16 or bf16, or FP8 with a quantization_config";
                Err(Error::tensor(name, expected, format!("{other:?}")))
            }
        }
    }

    /// Finds a tensor's header, and the shard that contains the tensor.
    fn find(&self, name: &str) -> Result<(&TensorInfo, &Shard), Error> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let name = if self.embedding_is_stored_as_head && name == EMBEDDING { HEAD } else { name };
        let shard = &self.shards[*self.shard_of_tensor.get(name).ok_or_else(missing)?];
        Ok((shard.metadata().info(name).ok_or_else(missing)?, shard))
    }
}

/// Returns the index of each tensor's shard, and rejects a tensor that is in two shards.
fn index_tensors(shards: &[Shard]) -> Result<HashMap<String, usize>, Error> {
    let mut shard_of_tensor = HashMap::new();
    for (index, shard) in shards.iter().enumerate() {
        for name in shard.metadata().tensors().into_keys() {
            if let Some(&other) = shard_of_tensor.get(&name) {
                let other: &Shard = &shards[other];
                let reason = format!("tensor {name} is also in {}", other.path().display());
                return Err(Error::malformed(shard.path(), reason));
            }
            shard_of_tensor.insert(name, index);
        }
    }
    Ok(shard_of_tensor)
}

#[cfg(test)]
mod tests;
