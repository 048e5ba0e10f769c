//! The loading of a model's files into a mistralrs pipeline.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use mistralrs::core::{GGUFLoaderBuilder, GGUFSpecificConfig, MistralRsBuilder};
use mistralrs::{
    AutoDeviceMapParams, DefaultSchedulerMethod, Device, DeviceMapSetting, Model, ModelDType, SchedulerConfig,
    TextModelBuilder, TokenSource, parse_isq_value,
};
use serde_json::Value;
use surprisal_model::fingerprint_files;

/// A model to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A folder in the Hugging Face layout, or a GGUF file with tokenizer.json in the same folder.
    pub path: PathBuf,
    /// In-situ quantization of a folder's weights, as mistralrs names it (`q8_0`, `q4k`, ...); `None` to keep the
    /// weights as they are.
    pub isq: Option<String>,
}

/// The reason a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or folder that could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A quantization that is unknown, or that was requested for a model that is already quantized.
    #[error("isq is {0:?}; {1}")]
    Isq(String, String),
    /// A file of the model that could not be read, or does not match its checksum.
    #[error(transparent)]
    Files(#[from] surprisal_model::Error),
    /// A model that mistralrs rejected.
    #[error("mistralrs cannot load {path}: {reason}")]
    Rejected {
        /// The folder or file.
        path: PathBuf,
        /// The first line of mistralrs' error.
        reason: String,
    },
}

impl Source {
    /// Returns whether the source is a GGUF file.
    pub fn is_gguf(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
    }

    /// Returns the folder that contains tokenizer.json.
    pub fn dir(&self) -> &Path {
        if self.is_gguf() { self.path.parent().unwrap_or(Path::new("")) } else { &self.path }
    }

    /// Returns an error with the first line of a reason. The other lines are a backtrace, if the environment enables
    /// backtraces.
    pub(crate) fn rejected(&self, reason: impl Display) -> LoadError {
        let reason = reason.to_string().lines().next().unwrap_or_default().to_owned();
        LoadError::Rejected { path: self.path.clone(), reason }
    }

    /// Returns the sliding window in config.json, in tokens; `None` if there is none or the source is a GGUF file.
    ///
    /// No sequence may be longer: beyond the window, mistralrs' log-probabilities on the CPU are wrong by whole nats.
    pub(crate) fn window(&self) -> Result<Option<usize>, LoadError> {
        if self.is_gguf() {
            return Ok(None);
        }
        let path = self.path.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|source| LoadError::Io { path, source })?;
        let config: Value = serde_json::from_str(&text).map_err(|error| self.rejected(error))?;
        let off = config.get("use_sliding_window") == Some(&Value::Bool(false));
        let window = config.get("sliding_window").and_then(Value::as_u64).filter(|_| !off);
        Ok(window.and_then(|window| usize::try_from(window).ok()))
    }

    /// Loads a pipeline that computes on the CPU in f32.
    pub(crate) async fn load(&self) -> Result<Model, LoadError> {
        match (self.is_gguf(), &self.isq) {
            (true, Some(isq)) => Err(LoadError::Isq(isq.clone(), "a GGUF file is already quantized".to_owned())),
            (true, None) => self.load_gguf().await,
            (false, _) => self.builder()?.build().await.map_err(|error| self.rejected(error)),
        }
    }

    /// Returns a builder with the prefix cache disabled: if it is enabled, mistralrs omits rows of logits.
    fn builder(&self) -> Result<TextModelBuilder, LoadError> {
        let builder = TextModelBuilder::new(self.path.display())
            .with_force_cpu()
            .with_dtype(ModelDType::F32)
            .with_prefix_cache_n(None);
        let Some(isq) = &self.isq else { return Ok(builder) };
        let parsed = parse_isq_value(isq, None).map_err(|error| LoadError::Isq(isq.clone(), error))?;
        Ok(builder.with_isq(parsed))
    }

    /// Loads a GGUF file as mistralrs' own builder does, but computes in f32, which that builder does not support.
    async fn load_gguf(&self) -> Result<Model, LoadError> {
        let dir = self.dir().display().to_string();
        let file = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let config = GGUFSpecificConfig::default();
        let loader = GGUFLoaderBuilder::new(None, Some(dir.clone()), dir, vec![file], config, false, None).build();
        let pipeline = loader
            .load_model_from_hf(
                None,
                TokenSource::None,
                &ModelDType::F32,
                &Device::Cpu,
                true,
                DeviceMapSetting::Auto(AutoDeviceMapParams::default_text()),
                None,
                None,
            )
            .map_err(|error| self.rejected(error))?;
        let scheduler = SchedulerConfig::DefaultScheduler { method: DefaultSchedulerMethod::Fixed(NonZeroUsize::MIN) };
        let engine = MistralRsBuilder::new(pipeline, scheduler, false, None).with_no_prefix_cache(true).build().await;
        Ok(Model::new(engine))
    }

    /// Returns 16 hex digits that change whenever a weight, the configuration or the tokenizer changes. Verifies known
    /// checksums.
    pub(crate) fn hash(&self) -> Result<String, LoadError> {
        Ok(fingerprint_files(self.dir(), &self.weights()?)?)
    }

    /// Lists the files that mistralrs may read weights from: the GGUF file; or the safetensors files, or else the
    /// PyTorch files, in the folder.
    fn weights(&self) -> Result<Vec<PathBuf>, LoadError> {
        if self.is_gguf() {
            return Ok(vec![self.path.clone()]);
        }
        let failed = |source| LoadError::Io { path: self.path.clone(), source };
        let (mut safetensors, mut pickles) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".safetensors") {
                safetensors.push(path);
            } else if name.starts_with("pytorch_model") {
                pickles.push(path);
            }
        }
        Ok(if safetensors.is_empty() { pickles } else { safetensors })
    }
}
