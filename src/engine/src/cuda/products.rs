//! Products by cuBLASLt whose bits are each row's own: one algorithm a matrix, chosen once, that never splits a sum.

// The boundary to C: cuBLASLt's handles and attributes.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;

use surprisal_kernels::Address;

use super::accelerator::{Product, ROW_TILE, Region, Scales};
use crate::backend::BackendError;

/// Rows that algorithms are chosen for: enough to fill a large GPU.
const TYPICAL_ROWS: usize = 2048;

/// Rows up to which an algorithm is known to take every number of tiles: the same for all budgets, as bits depend on the choice.
const MOST_ROWS: usize = 16_384;

/// Candidates that are looked at.
const CANDIDATES: usize = 32;

/// What every region's parts are aligned to, in bytes.
static ALIGNMENT: u32 = 16;

/// `CUBLAS_OP_T` of cublas_api.h.
static TRANSPOSED: i32 = 1;

static BF16: sys::cudaDataType = sys::cudaDataType_t::CUDA_R_16BF;

/// What an algorithm is chosen by: all that a product's bits may depend on beside its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    n: usize,
    k: usize,
    wide: bool,
    bias: bool,
    values: Values,
}

/// What the matrices are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Values {
    Bf16,
    /// e4m3, and cuBLASLt multiplies with a scale of each row and each column: on Hopper, from 12.9 on.
    ScaledFp8,
    /// e4m3, and that is left to us, as is the bias.
    BareFp8,
}

impl Values {
    /// For people to read, where there is no such product.
    fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::ScaledFp8 | Self::BareFp8 => "FP8, which GPUs have from compute capability 8.9 on",
        }
    }
}

/// Addresses that a product's descriptor has; 0 where there is none. The choice of an algorithm does not depend on them.
#[derive(Clone, Copy, Debug)]
struct Attached {
    bias: u64,
    rows: u64,
    columns: u64,
}

/// A handle of cuBLASLt and the algorithms chosen so far.
#[derive(Debug)]
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    /// By what was asked for: what is computed, and how.
    algorithms: HashMap<Kind, (Kind, sys::cublasLtMatmulAlgo_t)>,
}

// SAFETY: a handle is of the process, not of a thread, and is used by one thread at a time through `&mut`.
unsafe impl Send for Products {}

fn failed(what: &str, error: CublasError) -> BackendError {
    BackendError(format!("cuBLASLt: {what}: {error}"))
}

impl Products {
    /// In the context that is bound to this thread.
    ///
    /// # Errors
    ///
    /// There is no libcublasLt, or it does not start.
    pub(super) fn new() -> Result<Self, BackendError> {
        // SAFETY: it looks for a library and runs its initialisers, which libcublasLt's survive.
        if !unsafe { sys::is_culib_present() } {
            let reason = "there is no libcublasLt on the loader's path; it is part of CUDA's toolkit";
            return Err(BackendError(reason.to_owned()));
        }
        let handle = result::create_handle().map_err(|error| failed("its handle", error))?;
        Ok(Self { handle, algorithms: HashMap::new() })
    }

    /// The library's version, which bits depend on.
    pub(super) fn version() -> usize {
        // SAFETY: the library is there, since a handle is; it returns a number.
        unsafe { sys::cublasLtGetVersion() }
    }

    /// Queues a product whose regions were checked. The scales that come back are yet to be applied, and the bias after them.
    ///
    /// # Errors
    ///
    /// cuBLASLt has no algorithm for it.
    pub(super) fn multiply(
        &mut self,
        product: &Product,
        stream: sys::cudaStream_t,
    ) -> Result<Option<Scales>, BackendError> {
        let &Product { out, x, weights, bias, rows, n, k, wide, scales } = product;
        if wide && bias.is_some() {
            return Err(BackendError("cuBLASLt adds no bf16 bias to f32 sums".to_owned()));
        }
        let rows = rows.next_multiple_of(ROW_TILE);
        let values = if scales.is_some() { Values::ScaledFp8 } else { Values::Bf16 };
        let (kind, algorithm) = self.algorithm(Kind { n, k, wide, bias: bias.is_some(), values })?;
        let address = |region: Option<Region>| region.map_or(Ok(0), |region| region.holding(0).map(Address::get));
        let attached = Attached {
            bias: address(bias)?,
            rows: address(scales.map(|scales| scales.rows))?,
            columns: address(scales.map(|scales| scales.columns))?,
        };
        let what = || format!("a product of {rows} rows, n {n}, k {k}");
        let shapes = Shapes::new(kind, rows, attached).map_err(|error| failed(&what(), error))?;
        let pointer = |at: Address| at.get() as usize as *mut c_void;
        let size = if scales.is_some() { 1 } else { 2 };
        let out = pointer(out.holding(rows * n * if wide { 4 } else { 2 })?);
        let (x, weights) = (pointer(x.holding(rows * k * size)?), pointer(weights.holding(n * k * size)?));
        let (one, zero) = (1f32, 0f32);
        // SAFETY: the handle and the descriptors are live, the scalars are of the descriptor's scale type and read before
        // this returns, and the regions hold whole matrices of these shapes. `out` is its own, unread, C.
        let queued = unsafe {
            result::matmul(
                self.handle,
                shapes.product,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                weights,
                shapes.weights,
                x,
                shapes.x,
                out,
                shapes.out,
                out,
                shapes.out,
                &raw const algorithm,
                std::ptr::null_mut(),
                0,
                stream,
            )
        };
        queued.map_err(|error| failed(&what(), error))?;
        Ok(scales.filter(|_| kind.values == Values::BareFp8))
    }

    /// What is computed where a kind is asked for, and the algorithm for it, chosen when it is first asked for.
    fn algorithm(&mut self, asked: Kind) -> Result<(Kind, sys::cublasLtMatmulAlgo_t), BackendError> {
        if let Some(&chosen) = self.algorithms.get(&asked) {
            return Ok(chosen);
        }
        let chosen = match choose(self.handle, asked) {
            // An older library, or another GPU.
            Err(_) if asked.values == Values::ScaledFp8 => {
                let bare = Kind { bias: false, values: Values::BareFp8, ..asked };
                (bare, choose(self.handle, bare)?)
            }
            algorithm => (asked, algorithm?),
        };
        self.algorithms.insert(asked, chosen);
        Ok(chosen)
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        // SAFETY: the handle is live until here. What remains if it fails goes with the process.
        _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// The best algorithm in cuBLASLt's own order that needs no workspace and sums all of k in one place: then a tile of `out`
/// is made by the same instructions wherever it lies and however many there are.
fn choose(handle: sys::cublasLtHandle_t, kind: Kind) -> Result<sys::cublasLtMatmulAlgo_t, BackendError> {
    let what = format!("an algorithm for n {}, k {} in {}", kind.n, kind.k, kind.values.name());
    let anywhere = u64::from(ALIGNMENT);
    let attached = Attached { bias: anywhere, rows: anywhere, columns: anywhere };
    let typical = Shapes::new(kind, TYPICAL_ROWS, attached).map_err(|error| failed(&what, error))?;
    let all = (ROW_TILE..=MOST_ROWS).step_by(ROW_TILE).map(|rows| Shapes::new(kind, rows, attached));
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| failed(&what, error))?;
    let found = candidates(handle, &typical).map_err(|error| failed(&what, error))?;
    let fits = |algorithm: &sys::cublasLtMatmulAlgo_t| {
        is_whole(algorithm) && all.iter().all(|shapes| takes(handle, shapes, algorithm))
    };
    found
        .into_iter()
        .find(fits)
        .ok_or_else(|| failed(&what, CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)))
}

fn candidates(handle: sys::cublasLtHandle_t, shapes: &Shapes) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, CublasError> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let preference = result::create_matmul_pref()?;
    let set = |attribute, value: *const c_void, size| {
        // SAFETY: the preference is live, and `value` points to so many bytes.
        unsafe { result::set_matmul_pref_attribute(preference, attribute, value, size) }
    };
    let (workspace, schemes) = (0u64, sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32);
    let asked = set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast(), 8)
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
    // SAFETY: everything is live; the results hold CANDIDATES, of which `count` are written.
    let found = asked.and_then(|()| unsafe {
        sys::cublasLtMatmulAlgoGetHeuristic(
            handle,
            shapes.product,
            shapes.weights,
            shapes.x,
            shapes.out,
            shapes.out,
            preference,
            CANDIDATES as i32,
            results.as_mut_ptr(),
            &raw mut count,
        )
        .result()?;
        results.set_len((count.max(0) as usize).min(CANDIDATES));
        Ok(())
    });
    // SAFETY: it was made above and is not used again.
    unsafe { result::destroy_matmul_pref(preference) }?;
    found?;
    let good =
        |found: &&sys::cublasLtMatmulHeuristicResult_t| found.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS;
    Ok(results.iter().filter(good).map(|found| found.algo).collect())
}

/// Whether an algorithm sums all of k in one place.
fn is_whole(algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
    use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
    let get = |attribute| {
        let (mut value, mut written) = (u32::MAX, 0);
        // SAFETY: the algorithm came from cuBLASLt, and both attributes are of 4 bytes.
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

/// Whether an algorithm takes these shapes, without a workspace.
fn takes(handle: sys::cublasLtHandle_t, shapes: &Shapes, algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
    let mut result = std::mem::MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit();
    // SAFETY: everything is live; the result is read only if it was written.
    unsafe {
        let &Shapes { product, weights, x, out } = shapes;
        let result = result.as_mut_ptr();
        let status = sys::cublasLtMatmulAlgoCheck(handle, product, weights, x, out, out, algorithm, result);
        status.result().is_ok() && (*result).workspaceSize == 0
    }
}

/// Descriptors of a product. cuBLASLt counts columns first: its `out` is `weights^T x`, each of them a matrix transposed.
#[derive(Debug)]
struct Shapes {
    product: sys::cublasLtMatmulDesc_t,
    weights: sys::cublasLtMatrixLayout_t,
    x: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
}

impl Shapes {
    fn new(kind: Kind, rows: usize, attached: Attached) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        const F32: sys::cudaDataType = sys::cudaDataType_t::CUDA_R_32F;
        let Kind { n, k, wide, values, .. } = kind;
        let value = if values == Values::Bf16 { BF16 } else { sys::cudaDataType_t::CUDA_R_8F_E4M3 };
        let layout = |dtype, columns: usize, rows: usize| {
            result::create_matrix_layout(dtype, columns as u64, rows as u64, columns as i64)
        };
        // Made one by one, so that what was made is let go of if the next fails.
        let mut shapes = Self {
            product: result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, F32)?,
            weights: std::ptr::null_mut(),
            x: std::ptr::null_mut(),
            out: std::ptr::null_mut(),
        };
        shapes.weights = layout(value, k, n)?;
        shapes.x = layout(value, k, rows)?;
        shapes.out = layout(if wide { F32 } else { BF16 }, n, rows)?;
        let set = |attribute, value: *const c_void, size| {
            // SAFETY: the descriptor is live, and `value` points to so many bytes.
            unsafe { result::set_matmul_desc_attribute(shapes.product, attribute, value, size) }
        };
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, (&raw const TRANSPOSED).cast(), 4)?;
        if kind.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, (&raw const epilogue).cast(), size_of_val(&epilogue))?;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, (&raw const BF16).cast(), size_of_val(&BF16))?;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, (&raw const attached.bias).cast(), 8)?;
        }
        if values == Values::ScaledFp8 {
            let mode = sys::cublasLtMatmulMatrixScale_t::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
            // cuBLASLt's A is the weights, its B is x.
            set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_MODE, (&raw const mode).cast(), size_of_val(&mode))?;
            set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_MODE, (&raw const mode).cast(), size_of_val(&mode))?;
            set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, (&raw const attached.columns).cast(), 8)?;
            set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, (&raw const attached.rows).cast(), 8)?;
        }
        Ok(shapes)
    }
}

impl Drop for Shapes {
    fn drop(&mut self) {
        let layouts = [self.weights, self.x, self.out].into_iter().filter(|layout| !layout.is_null());
        // SAFETY: each was made by `new` and is let go of once.
        unsafe {
            layouts.for_each(|layout| _ = result::destroy_matrix_layout(layout));
            _ = result::destroy_matmul_desc(self.product);
        }
    }
}
