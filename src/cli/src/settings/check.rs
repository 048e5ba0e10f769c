//! Checks of the settings against each other, the device, the model and the engine.

use super::{ActivationDtype, DeviceChoice, EngineChoice, KvCacheDtype, Settings, WeightDtype};
use crate::error::Error;

/// The error message for settings that require a GPU, when no GPU is used.
pub(crate) const GPU_REQUIRED: &str =
    "dtype = fp8 and kv_cache_dtype need a GPU; on a CPU, omit both, or set dtype to bf16 or int8";

impl Settings {
    /// Rejects settings that contradict each other, and zeros for settings that must be at least 1.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.engine == EngineChoice::Native && self.isq.is_some() {
            return Err(Error::Usage(
                "isq is set, but only mistralrs supports it; for the native engine, set dtype instead".to_owned(),
            ));
        }
        self.check_device()?;
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(Error::Usage("only one of tls_cert and tls_key is set; set both or neither".to_owned()));
        }
        if let Some(origin) = self.server.invalid_origin() {
            return Err(Error::Usage(format!(
                "server.cors_origins contains {origin:?}; an origin must be * or a scheme and host, as in \
                 https://example.org"
            )));
        }
        if self.admin_port == Some(self.port) && self.port != 0 {
            return Err(Error::Usage(format!("port and admin_port are both {}; set different ports", self.port)));
        }
        self.check_positive()
    }

    /// Rejects data types that the chosen device does not support.
    fn check_device(&self) -> Result<(), Error> {
        if self.device == DeviceChoice::Cpu && self.requires_gpu() {
            return Err(Error::Usage(GPU_REQUIRED.to_owned()));
        }
        if !matches!(self.device, DeviceChoice::Cuda(_)) || self.is_gpu_compatible() {
            return Ok(());
        }
        Err(Error::Usage(
            "activations = bf16, dtype = f32 and dtype = int8 work only on CPUs; a GPU computes in bf16 or FP8: omit \
             activations, and omit dtype or set it to bf16 or fp8"
                .to_owned(),
        ))
    }

    /// Rejects zeros for settings that must be at least 1.
    fn check_positive(&self) -> Result<(), Error> {
        let server = &self.server;
        let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        for (name, value) in [
            ("cache_mib", self.cache_mib.unwrap_or(1)),
            ("tensor_parallel_size", self.tensor_parallel_size),
            ("token_budget", self.token_budget),
            ("max_running", self.max_running),
            ("server.max_request_seconds", count(server.max_request_seconds)),
            ("server.max_connections", count(server.max_connections.into())),
            ("server.head_seconds", count(server.head_seconds)),
            ("server.idle_seconds", count(server.idle_seconds)),
            ("server.stall_seconds", count(server.stall_seconds)),
            ("max_length", self.max_length.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Error::Usage(format!("{name} is 0; it must be at least 1")));
            }
        }
        Ok(())
    }

    /// Rejects a maximum length above the model's, in tokens.
    pub(crate) fn check_max_length(&self, model_max_length: usize) -> Result<(), Error> {
        match self.max_length {
            Some(max_length) if max_length > model_max_length => Err(Error::Usage(format!(
                "max_length is {max_length}, but the model supports at most {model_max_length} tokens; lower or omit it"
            ))),
            _ => Ok(()),
        }
    }

    /// Rejects settings that only the native engine supports, for a model that mistralrs serves.
    pub(crate) fn check_for_mistralrs(&self) -> Result<(), Error> {
        let native_only = |settings: &Self| {
            (settings.dtype, settings.activations, settings.kv_cache_dtype, settings.tensor_parallel_size)
        };
        if native_only(self) == native_only(&Self::default()) {
            return Ok(());
        }
        Err(Error::Usage(
            "dtype, activations, kv_cache_dtype and tensor_parallel_size need the native engine, but mistralrs serves \
             this model; omit them, or set isq to quantize"
                .to_owned(),
        ))
    }

    /// Returns `true` if a GPU supports the data types.
    pub(crate) fn is_gpu_compatible(&self) -> bool {
        matches!(self.dtype, WeightDtype::Auto | WeightDtype::Bf16 | WeightDtype::Fp8)
            && self.activations == ActivationDtype::F32
    }

    /// Returns `true` if only a GPU supports the data types.
    pub(crate) fn requires_gpu(&self) -> bool {
        self.dtype == WeightDtype::Fp8 || self.kv_cache_dtype != KvCacheDtype::Auto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_types_must_suit_the_device() {
        let settings = Settings { device: DeviceChoice::Cuda(0), ..Settings::default() };
        assert!(settings.check().is_ok());
        let error = Settings { dtype: WeightDtype::Int8, ..settings }.check().unwrap_err();
        assert!(error.to_string().contains("a GPU computes in bf16"), "{error}");
        let on_gpu = Settings { dtype: WeightDtype::Fp8, kv_cache_dtype: KvCacheDtype::Fp8, ..Settings::default() };
        assert!(on_gpu.is_gpu_compatible() && on_gpu.requires_gpu() && on_gpu.check().is_ok());
        let error = Settings { device: DeviceChoice::Cpu, ..on_gpu }.check().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (GPU_REQUIRED, 2));
    }

    #[test]
    fn a_max_length_above_the_models_is_rejected() {
        let settings = Settings { max_length: Some(4096), ..Settings::default() };
        assert!(settings.check_max_length(4096).is_ok() && Settings::default().check_max_length(1).is_ok());
        let error = settings.check_max_length(4095).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("max_length is 4096, but the model supports at most 4095 tokens"), "{said}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn the_ports_must_differ_unless_both_are_free_ones() {
        let settings = Settings { port: 8000, admin_port: Some(8000), ..Settings::default() };
        let error = settings.check().unwrap_err().to_string();
        assert_eq!(error, "port and admin_port are both 8000; set different ports");
        assert!(Settings { port: 0, admin_port: Some(0), ..settings }.check().is_ok());
    }

    #[test]
    fn zero_is_rejected() {
        let error = Settings { cache_mib: Some(0), ..Settings::default() }.check().unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), ("cache_mib is 0; it must be at least 1", 2));
    }
}
