//! `CublasLt`: matrix products in which the bits of a row's result do not depend on other rows. For each kind of
//! product, it chooses, once, an algorithm that splits no sum.

// The interface to C: cuBLASLt's handles and attributes.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use surprisal_kernels::Address;

use super::gemm::{Gemm, GemmScales, ROW_TILE};
use super::memory::DeviceRegion;
use crate::backend::BackendError;

/// Number of rows for which algorithms are chosen: enough to fill a large GPU.
const TYPICAL_ROWS: usize = 2048;

/// The largest number of rows that an algorithm must support, in addition to every smaller multiple of [`ROW_TILE`].
/// The limit is the same for all token budgets, because the bits of results depend on the chosen algorithm.
const MAX_ROWS: usize = 16_384;

/// Number of candidate algorithms to consider.
const CANDIDATES: usize = 32;

/// Alignment in bytes of every matrix.
static ALIGNMENT: u32 = 16;

/// `CUBLAS_OP_T` of cublas_api.h.
static TRANSPOSED: i32 = 1;

static BF16: sys::cudaDataType = sys::cudaDataType_t::CUDA_R_16BF;

/// The properties of a product that determine its algorithm, and thus the bits of its result for given values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct GemmKind {
    n: usize,
    k: usize,
    out_f32: bool,
    bias: bool,
    values: OperandType,
}

/// The type of the matrices that are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum OperandType {
    Bf16,
    /// e4m3; cuBLASLt applies a scale per row and per column, which it supports on Hopper since version 12.9.
    ScaledFp8,
    /// e4m3; the caller applies the scales and the bias.
    UnscaledFp8,
}

impl OperandType {
    /// Returns the type's name for errors.
    fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::ScaledFp8 | Self::UnscaledFp8 => "FP8, which needs compute capability 8.9 or later",
        }
    }
}

/// The addresses in a product's descriptor; 0 if there is no such array. The choice of an algorithm does not depend on
/// them.
#[derive(Clone, Copy, Debug)]
struct EpiloguePointers {
    bias: u64,
    rows: u64,
    columns: u64,
}

/// A cuBLASLt handle, and the algorithms chosen so far.
#[derive(Debug)]
pub(super) struct CublasLt {
    handle: sys::cublasLtHandle_t,
    /// For each requested kind of product, the kind to run and its algorithm.
    algorithms: HashMap<GemmKind, (GemmKind, sys::cublasLtMatmulAlgo_t)>,
}

// SAFETY: a handle belongs to the process, not to a thread; `&mut` excludes concurrent use.
unsafe impl Send for CublasLt {}

fn failed(what: &str, error: CublasError) -> BackendError {
    BackendError(format!("cuBLASLt failed {what}: {error}"))
}

impl CublasLt {
    /// Opens the library in the context that is bound to this thread.
    ///
    /// # Errors
    ///
    /// Fails if libcublasLt is missing or cannot be initialized.
    pub(super) fn new() -> Result<Self, BackendError> {
        // SAFETY: the function looks for the library and runs its initializers, and libcublasLt's are sound.
        if !unsafe { sys::is_culib_present() } {
            let reason = "libcublasLt is not on the loader's path; install it with the CUDA toolkit";
            return Err(BackendError(reason.to_owned()));
        }
        let handle = result::create_handle().map_err(|error| failed("to create a handle", error))?;
        Ok(Self { handle, algorithms: HashMap::new() })
    }

    /// Returns the library's version, on which the bits of results depend.
    pub(super) fn version() -> usize {
        // SAFETY: the library is loaded, because a handle exists; the function returns a number.
        unsafe { sys::cublasLtGetVersion() }
    }

    /// Queues a product that [`Gemm::check`] accepted. If the function returns scales, the caller must apply them and
    /// then add the bias.
    ///
    /// # Errors
    ///
    /// Fails if cuBLASLt has no algorithm for the product.
    pub(super) fn multiply(
        &mut self,
        gemm: &Gemm,
        stream: sys::cudaStream_t,
    ) -> Result<Option<GemmScales>, BackendError> {
        let &Gemm { out, x, weights, bias, rows, n, k, out_f32, scales } = gemm;
        if out_f32 && bias.is_some() {
            return Err(BackendError("cuBLASLt cannot add a bf16 bias to f32 sums".to_owned()));
        }
        let rows = rows.next_multiple_of(ROW_TILE);
        let values = if scales.is_some() { OperandType::ScaledFp8 } else { OperandType::Bf16 };
        let (kind, algorithm) = self.algorithm(GemmKind { n, k, out_f32, bias: bias.is_some(), values })?;
        let address =
            |region: Option<DeviceRegion>| region.map_or(Ok(0), |region| region.checked_address(0).map(Address::get));
        let pointers = EpiloguePointers {
            bias: address(bias)?,
            rows: address(scales.map(|scales| scales.rows))?,
            columns: address(scales.map(|scales| scales.columns))?,
        };
        let what = || format!("to multiply matrices with {rows} rows, n = {n}, k = {k}");
        let descriptors = MatmulDescriptors::new(kind, rows, pointers).map_err(|error| failed(&what(), error))?;
        let pointer = |at: Address| at.get() as usize as *mut c_void;
        let size = if scales.is_some() { 1 } else { 2 };
        let out = pointer(out.checked_address(rows * n * if out_f32 { 4 } else { 2 })?);
        let (x, weights) =
            (pointer(x.checked_address(rows * k * size)?), pointer(weights.checked_address(n * k * size)?));
        let (one, zero) = (1f32, 0f32);
        // SAFETY: the handle and the descriptors are live, the scalars are of the descriptor's scale type and read
        // before this returns, and the regions hold whole matrices of these shapes. `out` is also passed as C, which is
        // not read because its factor is zero.
        let queued = unsafe {
            result::matmul(
                self.handle,
                descriptors.product,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                weights,
                descriptors.weights,
                x,
                descriptors.x,
                out,
                descriptors.out,
                out,
                descriptors.out,
                &raw const algorithm,
                std::ptr::null_mut(),
                0,
                stream,
            )
        };
        queued.map_err(|error| failed(&what(), error))?;
        Ok(scales.filter(|_| kind.values == OperandType::UnscaledFp8))
    }

    /// Returns the kind of product to run for a requested kind, and its algorithm, which is chosen at the first
    /// request.
    fn algorithm(&mut self, requested: GemmKind) -> Result<(GemmKind, sys::cublasLtMatmulAlgo_t), BackendError> {
        if let Some(&chosen) = self.algorithms.get(&requested) {
            return Ok(chosen);
        }
        let chosen = match choose_algorithm(self.handle, requested) {
            // The library is older than 12.9, or the GPU is not a Hopper GPU.
            Err(_) if requested.values == OperandType::ScaledFp8 => {
                let unscaled = GemmKind { bias: false, values: OperandType::UnscaledFp8, ..requested };
                (unscaled, choose_algorithm(self.handle, unscaled)?)
            }
            algorithm => (requested, algorithm?),
        };
        self.algorithms.insert(requested, chosen);
        Ok(chosen)
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: the handle is live until here. If this fails, what remains is freed when the process exits.
        _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// Returns the first algorithm in cuBLASLt's order that needs no workspace and does not split sums over k. With such an
/// algorithm, the same instructions compute every tile of `out`, whatever its position and the number of tiles.
fn choose_algorithm(handle: sys::cublasLtHandle_t, kind: GemmKind) -> Result<sys::cublasLtMatmulAlgo_t, BackendError> {
    let what = format!("to find an algorithm for n = {}, k = {} in {}", kind.n, kind.k, kind.values.name());
    let aligned = u64::from(ALIGNMENT);
    let pointers = EpiloguePointers { bias: aligned, rows: aligned, columns: aligned };
    let typical = MatmulDescriptors::new(kind, TYPICAL_ROWS, pointers).map_err(|error| failed(&what, error))?;
    let all = (ROW_TILE..=MAX_ROWS).step_by(ROW_TILE).map(|rows| MatmulDescriptors::new(kind, rows, pointers));
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| failed(&what, error))?;
    let found = candidates(handle, &typical).map_err(|error| failed(&what, error))?;
    let fits = |algorithm: &sys::cublasLtMatmulAlgo_t| {
        is_unsplit(algorithm) && all.iter().all(|descriptors| supports(handle, descriptors, algorithm))
    };
    found
        .into_iter()
        .find(fits)
        .ok_or_else(|| failed(&what, CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)))
}

fn candidates(
    handle: sys::cublasLtHandle_t,
    descriptors: &MatmulDescriptors,
) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, CublasError> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let preference = result::create_matmul_pref()?;
    let set = |attribute, value: *const c_void, size| {
        // SAFETY: the preference is live, and `value` points to `size` bytes.
        unsafe { result::set_matmul_pref_attribute(preference, attribute, value, size) }
    };
    let (workspace, schemes) = (0u64, sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32);
    let attributes = set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast(), 8)
        .and_then(|()| set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (&raw const schemes).cast(), 4))
        .and_then(|()| {
            let matrices = [
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ];
            matrices.into_iter().try_for_each(|matrix| set(matrix, (&raw const ALIGNMENT).cast(), 4))
        });
    let mut results = Vec::<sys::cublasLtMatmulHeuristicResult_t>::with_capacity(CANDIDATES);
    let mut count = 0;
    // SAFETY: everything is live; there is room for CANDIDATES results, and the call writes `count` of them.
    let found = attributes.and_then(|()| unsafe {
        sys::cublasLtMatmulAlgoGetHeuristic(
            handle,
            descriptors.product,
            descriptors.weights,
            descriptors.x,
            descriptors.out,
            descriptors.out,
            preference,
            CANDIDATES as i32,
            results.as_mut_ptr(),
            &raw mut count,
        )
        .result()?;
        results.set_len((count.max(0) as usize).min(CANDIDATES));
        Ok(())
    });
    // SAFETY: the preference was created above and is not used again.
    unsafe { result::destroy_matmul_pref(preference) }?;
    found?;
    let good =
        |found: &&sys::cublasLtMatmulHeuristicResult_t| found.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS;
    Ok(results.iter().filter(good).map(|found| found.algo).collect())
}

/// Returns whether an algorithm does not split sums over k.
fn is_unsplit(algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
    use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
    let get = |attribute| {
        let (mut value, mut written) = (u32::MAX, 0);
        // SAFETY: the algorithm came from cuBLASLt, and both attributes have 4 bytes.
        let status = unsafe {
            let value = (&raw mut value).cast();
            sys::cublasLtMatmulAlgoConfigGetAttribute(algorithm, attribute, value, 4, &raw mut written)
        };
        status.result().is_ok().then_some(value)
    };
    let splits = get(Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    let scheme = get(Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
    // Both 0 and 1 mean that nothing is split.
    splits.is_some_and(|splits| splits <= 1) && scheme == Some(0)
}

/// Returns whether an algorithm supports the given matrices without a workspace.
fn supports(
    handle: sys::cublasLtHandle_t,
    descriptors: &MatmulDescriptors,
    algorithm: &sys::cublasLtMatmulAlgo_t,
) -> bool {
    let mut result = std::mem::MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit();
    // SAFETY: everything is live; the result is read only if it was written.
    unsafe {
        let &MatmulDescriptors { product, weights, x, out } = descriptors;
        let result = result.as_mut_ptr();
        let status = sys::cublasLtMatmulAlgoCheck(handle, product, weights, x, out, out, algorithm, result);
        status.result().is_ok() && (*result).workspaceSize == 0
    }
}

/// The descriptors of a product. cuBLASLt is column-major, so it sees each matrix as its transpose, and computes
/// `out = weights^T x`.
#[derive(Debug)]
struct MatmulDescriptors {
    product: sys::cublasLtMatmulDesc_t,
    weights: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
}

impl MatmulDescriptors {
    fn new(kind: GemmKind, rows: usize, pointers: EpiloguePointers) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        const F32: sys::cudaDataType = sys::cudaDataType_t::CUDA_R_32F;
        let GemmKind { n, k, out_f32, values, .. } = kind;
        let value = if values == OperandType::Bf16 { BF16 } else { sys::cudaDataType_t::CUDA_R_8F_E4M3 };
        let layout = |dtype, columns: usize, rows: usize| {
            result::create_matrix_layout(dtype, columns as u64, rows as u64, columns as i64)
        };
        // Create the descriptors one by one, so that `drop` destroys them if a later one fails.
        let mut descriptors = Self {
            product: result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, F32)?,
            weights: std::ptr::null_mut(),
            x: std::ptr::null_mut(),
            out: std::ptr::null_mut(),
        };
        descriptors.weights = layout(value, k, n)?;
        descriptors.x = layout(value, k, rows)?;
        descriptors.out = layout(if out_f32 { F32 } else { BF16 }, n, rows)?;
        let set = |attribute, value: *const c_void, size| {
            // SAFETY: the descriptor is live, and `value` points to `size` bytes.
            unsafe { result::set_matmul_desc_attribute(descriptors.product, attribute, value, size) }
        };
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, (&raw const TRANSPOSED).cast(), 4)?;
        if kind.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, (&raw const epilogue).cast(), size_of_val(&epilogue))?;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, (&raw const BF16).cast(), size_of_val(&BF16))?;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, (&raw const pointers.bias).cast(), 8)?;
        }
        if values == OperandType::ScaledFp8 {
            let mode = sys::cublasLtMatmulMatrixScale_t::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
            // In cuBLASLt's terms, A is the weights and B is x.
            set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_MODE, (&raw const mode).cast(), size_of_val(&mode))?;
            set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_MODE, (&raw const mode).cast(), size_of_val(&mode))?;
            set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, (&raw const pointers.columns).cast(), 8)?;
            set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, (&raw const pointers.rows).cast(), 8)?;
        }
        Ok(descriptors)
    }
}

impl Drop for MatmulDescriptors {
    fn drop(&mut self) {
        let layouts = [self.weights, self.x, self.out].into_iter().filter(|layout| !layout.is_null());
        // SAFETY: `new` created each of them, and each is destroyed once.
        unsafe {
            layouts.for_each(|layout| _ = result::destroy_matrix_layout(layout));
            _ = result::destroy_matmul_desc(self.product);
        }
    }
}
