//! e4m3, the number format of FP8 weights: conversion to and from f32, and quantization of rows.

use rayon::prelude::*;

/// The largest value of e4m3.
const MAX_E4M3: f32 = 448.0;

/// Quantizes each row of `columns` values to e4m3, rounded to nearest, and returns the e4m3 bytes and one scale per
/// row. A value is its e4m3 value times its row's scale. The scale maps e4m3's largest value to the row's largest
/// magnitude. A row of zeros has scale 0.
pub fn quantize_rows(values: &[f32], columns: usize) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = vec![0; values.len()];
    let rows = values.par_chunks(columns.max(1)).zip(bytes.par_chunks_mut(columns.max(1)));
    let scales = rows.map(|(row, bytes)| {
        let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let inverse = if largest > 0.0 { MAX_E4M3 / largest } else { 0.0 };
        bytes.iter_mut().zip(row).for_each(|(byte, value)| *byte = to_e4m3(value * inverse));
        largest / MAX_E4M3
    });
    let scales = scales.collect();
    (bytes, scales)
}

/// Rounds a value to e4m3, ties to even. Values beyond e4m3's range saturate, and NaN stays NaN.
fn to_e4m3(value: f32) -> u8 {
    let sign = (value.to_bits() >> 24 & 0x80) as u8;
    let magnitude = value.abs();
    if value.is_nan() {
        return 0x7f;
    }
    if magnitude < 2f32.powi(-6) {
        // Subnormals are multiples of 2^-9, the spacing of f32 at 2^14, so the addition rounds.
        return sign | ((magnitude + 16384.0).to_bits() - 16384f32.to_bits()) as u8;
    }
    let bits = magnitude.min(MAX_E4M3).to_bits();
    // Keep 3 of the mantissa's 23 bits, and change the exponent's bias from 127 to 7.
    let rounded = bits + 0x7_ffff + (bits >> 20 & 1);
    sign | ((rounded >> 20) - (120 << 3)) as u8
}

/// Returns the value of an e4m3 byte (the "fn" variant: no infinities, NaN at 0x7f and 0xff).
pub(crate) fn from_e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_decode_to_the_values_of_the_standard() {
        for (byte, value) in
            [(0x00, 0.0), (0x01, 2f32.powi(-9)), (0x08, 2f32.powi(-6)), (0x38, 1.0), (0xb9, -1.125), (0x7e, 448.0)]
        {
            assert_eq!(from_e4m3(byte), value);
        }
        assert!(from_e4m3(0x7f).is_nan() && from_e4m3(0xff).is_nan());
    }

    #[test]
    fn a_row_of_zeros_has_scale_zero() {
        assert_eq!(quantize_rows(&[0.0, 0.0, 1.0, -2.0], 2), (vec![0, 0, 0x76, 0xfe], vec![0.0, 2.0 / 448.0]));
    }

    proptest! {
        /// Checks that each byte is the e4m3 value nearest to the original value divided by the scale.
        #[test]
        fn values_round_to_the_nearest_byte(values in proptest::collection::vec(-500f32..500.0, 1..40), shrink in 0i32..18) {
            let values: Vec<f32> = values.iter().enumerate().map(|(i, x)| if i % 2 == 1 { x * 2f32.powi(-shrink) } else { *x }).collect();
            let (bytes, scales) = quantize_rows(&values, values.len());
            let all: Vec<f32> = (0..=255).map(from_e4m3).filter(|value| !value.is_nan()).collect();
            for (value, &byte) in values.iter().zip(&bytes) {
                let want = if scales[0] > 0.0 { value / scales[0] } else { 0.0 };
                let nearest = all.iter().map(|x| (x - want).abs()).fold(f32::MAX, f32::min);
                prop_assert!((from_e4m3(byte) - want).abs() <= nearest + 1e-5 * want.abs(), "{} as {}", want, from_e4m3(byte));
            }
        }

        /// Checks that decoding a byte and encoding the result returns the same byte.
        #[test]
        fn bytes_survive_a_round_trip(byte in any::<u8>().prop_filter("NaN", |byte| byte & 0x7f != 0x7f)) {
            prop_assert_eq!(to_e4m3(from_e4m3(byte)), byte);
        }
    }
}
