//! `Checkpoint`: memory-mapped safetensors, read tensor by tensor and checked against what is expected.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;

use crate::fp8::{e4m3, quantise_rows};
use crate::shard::Shard;
use crate::sums;
use crate::tensors::{TensorSpec, is_companion, tensors};
use crate::{Error, LlamaConfig, Quantization};

/// Values that are converted to f32 at a time, in whole rows.
const SLAB_VALUES: usize = 1 << 22;

/// A checkpoint's configuration and weights.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config: LlamaConfig,
    shards: Vec<Shard>,
    /// Which shard has a tensor.
    places: HashMap<String, usize>,
    observer: Option<Observer>,
    /// Known once all files were read for it.
    fingerprint: Mutex<Option<String>>,
}

/// What a checkpoint's files are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Their checksums and the fingerprint.
    Checks,
    /// The weights.
    Weights,
}

/// Who is told of what was read.
#[derive(Clone)]
struct Observer(Arc<dyn Fn(Reading, u64) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Checkpoint {
    /// Opens a folder: reads config.json and the headers of `model.safetensors`, or of the shards that
    /// `model.safetensors.index.json` names.
    ///
    /// # Errors
    ///
    /// A file that is missing, truncated or malformed; a configuration that is not supported.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("config.json");
        let config = LlamaConfig::parse(&std::fs::read_to_string(&path).map_err(Error::io(&path))?)?;
        let shards = shard_files(dir)?.iter().map(|path| Shard::open(path)).collect::<Result<Vec<_>, _>>()?;
        let mut places = HashMap::new();
        for (index, shard) in shards.iter().enumerate() {
            places.extend(shard.metadata().tensors().into_keys().map(|name| (name, index)));
        }
        let (dir, fingerprint) = (dir.to_owned(), Mutex::default());
        Ok(Self { dir, config, shards, places, observer: None, fingerprint })
    }

    /// Has `observer` told, by any thread, how many more bytes were read for what: of whole files for their checksums, and of the
    /// tensors those that were asked for.
    #[must_use]
    pub fn observed(mut self, observer: impl Fn(Reading, u64) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer(Arc::new(observer)));
        self
    }

    fn observe(&self, reading: Reading, bytes: usize) {
        if let Some(Observer(observer)) = &self.observer {
            observer(reading, bytes as u64);
        }
    }

    /// Bytes of all tensors.
    pub fn size(&self) -> u64 {
        self.shards.iter().map(Shard::size).sum()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What config.json says.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Number of weights in the files.
    pub fn parameters(&self) -> u64 {
        let tensors = self.shards.iter().flat_map(|shard| shard.metadata().tensors().into_values());
        tensors.map(|info| info.shape.iter().map(|&size| size as u64).product::<u64>()).sum()
    }

    /// Whether every matrix is stored in bf16.
    pub fn is_bf16(&self) -> bool {
        let mut matrices = tensors(&self.config).filter(|tensor| tensor.shape.len() == 2);
        matrices.all(|tensor| self.find(&tensor.name).is_ok_and(|(info, _)| info.dtype == Dtype::BF16))
    }

    /// Whether the files have the tensors that config.json implies, each of its shape and of a known type, and no others.
    ///
    /// # Errors
    ///
    /// The first tensor that is missing, misshapen or extra.
    pub fn check(&self) -> Result<(), Error> {
        let mut expected = HashSet::new();
        for TensorSpec { name, shape, .. } in tensors(&self.config) {
            self.check_tensor(&name, &shape)?;
            expected.insert(name);
        }
        let extra = |name: &&String| !expected.contains(*name) && !is_companion(name, &self.config);
        match self.places.keys().filter(extra).min() {
            Some(name) => Err(Error::ExtraTensor { name: name.clone() }),
            None => Ok(()),
        }
    }

    fn check_tensor(&self, name: &str, shape: &[usize]) -> Result<(), Error> {
        let info = self.find(name)?.0;
        let wrong =
            |name: &str, expected: String, found: String| Err(Error::Tensor { name: name.to_owned(), expected, found });
        if info.shape != shape {
            return wrong(name, format!("shape {shape:?}"), format!("{:?}", info.shape));
        }
        match (info.dtype, self.config.quantization, shape) {
            (Dtype::F32 | Dtype::F16 | Dtype::BF16, ..) => Ok(()),
            (Dtype::F8_E4M3, Some(quantization), &[rows, columns]) => {
                let scale = format!("{name}{}", quantization.suffix());
                let (found, allowed) = (&self.find(&scale)?.0.shape, quantization.shapes(rows, columns));
                match allowed.contains(found) {
                    true => Ok(()),
                    false => wrong(&scale, format!("one of the shapes {allowed:?}"), format!("{found:?}")),
                }
            }
            (other, ..) => {
                wrong(name, "f32, f16 or bf16, or FP8 with a quantization_config".to_owned(), format!("{other:?}"))
            }
        }
    }

    /// A tensor's values in row-major order, converted from f32, f16, bf16 or, with its scales, FP8.
    ///
    /// # Errors
    ///
    /// It is missing, has another shape or type, or holds a value that is not finite.
    pub fn tensor_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let mut values = Vec::new();
        self.read_slabs(name, shape, |_, slab| values.extend_from_slice(slab))?;
        Ok(values)
    }

    /// As [`tensor_f32`](Self::tensor_f32), a few rows at a time: `each` gets the first one's index, and their values. What was
    /// read leaves the memory again, so that a tensor need not fit in it twice.
    ///
    /// # Errors
    ///
    /// As [`tensor_f32`](Self::tensor_f32).
    pub fn read_slabs(&self, name: &str, shape: &[usize], each: impl FnMut(usize, &[f32])) -> Result<(), Error> {
        self.check_tensor(name, shape)?;
        let all = whole(shape);
        self.read(name, all[1].end, all, each)
    }

    /// As [`read_slabs`](Self::read_slabs), but only these rows and columns of a matrix; the first row of them has index 0.
    /// Nothing else of it is read.
    ///
    /// # Errors
    ///
    /// As [`tensor_f32`](Self::tensor_f32), but for values that are not read.
    ///
    /// # Panics
    ///
    /// Rows or columns beyond the matrix.
    pub fn read_part(
        &self,
        name: &str,
        shape: [usize; 2],
        own: [Range<usize>; 2],
        each: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        assert!(own[0].end <= shape[0] && own[1].end <= shape[1], "{own:?} is no part of {shape:?}");
        self.check_tensor(name, &shape)?;
        self.read(name, shape[1], own, each)
    }

    fn read(
        &self,
        name: &str,
        columns: usize,
        [rows, own]: [Range<usize>; 2],
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        if own.is_empty() {
            return Ok(());
        }
        let (info, shard) = self.find(name)?;
        let scales = match self.config.quantization {
            Some(quantization) if info.dtype == Dtype::F8_E4M3 => {
                let scale = format!("{name}{}", quantization.suffix());
                let found = &self.find(&scale)?.0.shape;
                Some((quantization, self.tensor_f32(&scale, found)?))
            }
            _ => None,
        };
        let bytes_of = |values: usize| values.saturating_mul(info.dtype.bitsize()) / 8;
        let bytes = shard.bytes(info);
        let step = (SLAB_VALUES / own.len().max(1)).max(1);
        for first in rows.clone().step_by(step) {
            let slab = first..rows.end.min(first + step);
            let span = &bytes[bytes_of(slab.start * columns)..bytes_of(slab.end * columns)];
            let mut values = if own.len() == columns {
                converted(info.dtype, span)
            } else {
                let part = |row: &[u8]| row[bytes_of(own.start)..bytes_of(own.end)].to_vec();
                converted(info.dtype, &span.chunks_exact(bytes_of(columns)).flat_map(part).collect::<Vec<_>>())
            };
            if let Some((quantization, scales)) = &scales {
                quantization.scale(&mut values, columns, first, &own, scales);
            }
            if let Some(at) = values.par_iter().position_any(|value| !value.is_finite()) {
                let index = (first + at / own.len()) * columns + own.start + at % own.len();
                return Err(Error::Tensor {
                    name: name.to_owned(),
                    expected: "finite values".to_owned(),
                    found: format!("{} at index {index}", values[at]),
                });
            }
            each(first - rows.start, &values);
            shard.release(span);
            self.observe(Reading::Weights, bytes_of(values.len()));
        }
        Ok(())
    }

    /// A tensor's values as little-endian bf16 in row-major order: as stored where they are bf16, else rounded to nearest.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::tensor_f32`].
    pub fn tensor_bf16(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [u8]>, Error> {
        self.part_bf16(name, shape, whole(shape))
    }

    /// As [`tensor_bf16`](Self::tensor_bf16), but only these rows and columns, where a column is an index of the last dimension
    /// and a row one of all others. Nothing else of it is read.
    ///
    /// # Errors
    ///
    /// As [`tensor_f32`](Self::tensor_f32), but for values that are not read.
    ///
    /// # Panics
    ///
    /// Rows or columns beyond the tensor.
    pub fn part_bf16(&self, name: &str, shape: &[usize], own: [Range<usize>; 2]) -> Result<Cow<'_, [u8]>, Error> {
        let [rows, columns] = whole(shape);
        assert!(own[0].end <= rows.end && own[1].end <= columns.end, "{own:?} is no part of {shape:?}");
        self.check_tensor(name, shape)?;
        let (info, shard) = self.find(name)?;
        if info.dtype != Dtype::BF16 {
            let mut bytes = Vec::new();
            self.read(name, columns.end, own, |_, slab| {
                bytes.par_extend(slab.par_iter().flat_map_iter(|&value| bf16::from_f32(value).to_le_bytes()));
            })?;
            return Ok(Cow::Owned(bytes));
        }
        let [rows, own] = own;
        let row = columns.end * 2;
        let span = &shard.bytes(info)[rows.start * row..rows.end * row];
        let bytes = if own.len() == columns.end {
            Cow::Borrowed(span)
        } else {
            let part = span.par_chunks_exact(row.max(1)).flat_map_iter(|row| row[own.start * 2..own.end * 2].to_vec());
            Cow::Owned(part.collect())
        };
        let value = |pair: &[u8]| bf16::from_le_bytes([pair[0], pair[1]]);
        match bytes.par_chunks_exact(2).position_any(|pair| !value(pair).is_finite()) {
            None => {
                self.observe(Reading::Weights, bytes.len());
                Ok(bytes)
            }
            Some(at) => {
                let index = (rows.start + at / own.len()) * columns.end + own.start + at % own.len();
                Err(Error::Tensor {
                    name: name.to_owned(),
                    expected: "finite values".to_owned(),
                    found: format!("{} at index {index}", value(&bytes[2 * at..])),
                })
            }
        }
    }

    /// Whether a tensor is stored in FP8.
    pub fn is_fp8(&self, name: &str) -> bool {
        self.find(name).is_ok_and(|(info, _)| info.dtype == Dtype::F8_E4M3)
    }

    /// A matrix as bytes of e4m3 in row-major order, and a scale for each row: as stored where it has a scale a row or one for
    /// all; else, in blocks or of other types, quantised by [`quantise_rows`].
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::tensor_f32`].
    pub fn tensor_fp8(&self, name: &str, [rows, columns]: [usize; 2]) -> Result<(Cow<'_, [u8]>, Vec<f32>), Error> {
        self.part_fp8(name, [rows, columns], [0..rows, 0..columns])
    }

    /// As [`tensor_fp8`](Self::tensor_fp8), but only these rows and columns; nothing else of it is read, nor quantised with it.
    ///
    /// # Errors
    ///
    /// As [`tensor_f32`](Self::tensor_f32), but for values that are not read.
    ///
    /// # Panics
    ///
    /// Rows or columns beyond the matrix.
    pub fn part_fp8(
        &self,
        name: &str,
        shape: [usize; 2],
        own: [Range<usize>; 2],
    ) -> Result<(Cow<'_, [u8]>, Vec<f32>), Error> {
        let (info, shard) = self.find(name)?;
        let quantization = match self.config.quantization {
            Some(quantization @ Quantization::Rows { .. }) if info.dtype == Dtype::F8_E4M3 => quantization,
            _ => {
                let (columns, mut values) = (own[1].len(), Vec::new());
                self.read_part(name, shape, own, |_, slab| values.extend_from_slice(slab))?;
                let (bytes, scales) = quantise_rows(&values, columns);
                return Ok((Cow::Owned(bytes), scales));
            }
        };
        assert!(own[0].end <= shape[0] && own[1].end <= shape[1], "{own:?} is no part of {shape:?}");
        self.check_tensor(name, &shape)?;
        let scale = format!("{name}{}", quantization.suffix());
        let scales = self.tensor_f32(&scale, &self.find(&scale)?.0.shape)?;
        let ([rows, own], columns) = (own, shape[1]);
        let span = &shard.bytes(info)[rows.start * columns..rows.end * columns];
        let bytes = if own.len() == columns {
            Cow::Borrowed(span)
        } else {
            let part = span.par_chunks_exact(columns.max(1)).flat_map_iter(|row| row[own.clone()].to_vec());
            Cow::Owned(part.collect())
        };
        if let Some(at) = bytes.par_iter().position_any(|byte| byte & 0x7f == 0x7f) {
            let index = (rows.start + at / own.len()) * columns + own.start + at % own.len();
            let (expected, found) = ("finite values".to_owned(), format!("NaN at index {index}"));
            return Err(Error::Tensor { name: name.to_owned(), expected, found });
        }
        let scales = if scales.len() == 1 { vec![scales[0]; rows.len()] } else { scales[rows].to_vec() };
        Ok((bytes, scales))
    }

    /// A tensor's header, and the file that has it.
    fn find(&self, name: &str) -> Result<(&TensorInfo, &Shard), Error> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        let shard = &self.shards[*self.places.get(name).ok_or_else(missing)?];
        Ok((shard.metadata().info(name).ok_or_else(missing)?, shard))
    }

    /// 16 hex digits that change whenever a weight, a tensor's name or shape, or a relevant field of config.json does. All files are
    /// read for it, several at a time, and held to the checksums that are known of them: in `SHA256SUMS` beside them, or the
    /// names of the hub's blobs that they link to.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] for a file that has another checksum; a malformed `SHA256SUMS`.
    pub fn fingerprint(&self) -> Result<String, Error> {
        let mut known = self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fingerprint) = &*known {
            return Ok(fingerprint.clone());
        }
        let paths: Vec<PathBuf> = self.shards.iter().map(|shard| shard.path().to_owned()).collect();
        let sums = sums::known(&self.dir, &paths)?;
        let digest =
            |shard: &Shard| shard.digest(sums.get(shard.path()), |bytes| self.observe(Reading::Checks, bytes as usize));
        let digests = self.shards.par_iter().map(digest).collect::<Result<Vec<_>, _>>()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{:?}", self.config).as_bytes());
        for digest in digests {
            hasher.update(digest.as_bytes());
        }
        Ok(known.insert(hasher.finalize().to_hex()[..16].to_owned()).clone())
    }
}

/// All rows and columns of a tensor.
fn whole(shape: &[usize]) -> [Range<usize>; 2] {
    let columns = shape.last().copied().unwrap_or(1);
    [0..shape.iter().rev().skip(1).product(), 0..columns]
}

/// Values of a type in f32, little endian.
fn converted(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.par_chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => bytes.par_chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F8_E4M3 => bytes.par_iter().map(|&byte| e4m3(byte)).collect(),
        _ => bytes.par_chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
    }
}

/// The weight files, sorted.
fn shard_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let single = dir.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    if !index.exists() {
        return Err(Error::malformed(
            &single,
            "there is no such file, nor an index of several; weights have to be in safetensors, as transformers' \
             save_pretrained writes those of a pytorch_model.bin",
        ));
    }
    Ok(shard_names(&index)?.into_iter().map(|name| dir.join(name)).collect())
}

/// The files that an index names, each beside it: whoever wrote it may not point elsewhere.
pub(crate) fn shard_names(index: &Path) -> Result<BTreeSet<String>, Error> {
    let text = std::fs::read_to_string(index).map_err(Error::io(index))?;
    let parsed: Index = serde_json::from_str(&text).map_err(|error| Error::malformed(index, error))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(OsStr::new(name))) {
        return Err(Error::malformed(index, format!("{name:?} is not the name of a file beside it")));
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
