//! Shape checks that kernels share.

use crate::device::Address;
use crate::error::Error;

/// Returns an error that names the field, its value and its limit, unless `fits`.
pub(crate) fn check(
    fits: bool,
    kernel: &'static str,
    field: &'static str,
    value: u32,
    limit: &'static str,
) -> Result<(), Error> {
    if fits { Ok(()) } else { Err(Error::Shape { kernel, field, value: value.into(), limit }) }
}

/// Head sizes that the kernels support.
pub const HEAD_SIZES: [u32; 4] = [64, 96, 128, 256];

/// Returns the kernel for a head size.
pub(crate) fn by_head_size(names: [&'static str; 4], head_size: u32) -> Result<&'static str, Error> {
    let at = HEAD_SIZES.iter().position(|&size| size == head_size);
    at.and_then(|at| names.get(at).copied()).ok_or(Error::Shape {
        kernel: names[0].trim_end_matches("_d64"),
        field: "head_size",
        value: head_size.into(),
        limit: "64, 96, 128 or 256",
    })
}

/// Checks a count of rows against CUDA's limit on the grid's first dimension.
pub(crate) fn check_rows(kernel: &'static str, field: &'static str, rows: u32) -> Result<(), Error> {
    check(rows > 0 && rows <= i32::MAX as u32, kernel, field, rows, "from 1 to 2147483647")
}

/// Checks that keys and values are either both in FP8 or both in bf16.
pub(crate) fn check_scales(kernel: &'static str, fp8: bool, value_scales: Address) -> Result<(), Error> {
    let given = value_scales != Address::NULL;
    check(given == fp8, kernel, "value_scales", given.into(), "null exactly when key_scales is null")
}
