//! Numbers as text, for tables, pages and charts: with the digits that their errors justify, and powers of ten for
//! very large and very small ones.

/// The digits of a power of ten's exponent.
const SUPERSCRIPTS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];

/// The exponents of ten of the numbers that are written without a power of ten: from 0.0001 to below a million.
const PLAIN: std::ops::Range<i32> = -4..6;

/// The maximum number of decimals of a value with an error. If the error is smaller, it stands alone.
const MAX_DECIMALS: i32 = 6;

/// The number of significant digits of a value whose error is 0 or much smaller than the value.
const PRECISE_DIGITS: i32 = 7;

/// Formats a number with this many significant digits: `0.0123`, `1230`, `1.23·10¹³`.
pub(crate) fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let exponent = exponent(value, digits);
    if PLAIN.contains(&exponent) { fixed(value, exponent + 1 - digits) } else { scientific(value, exponent, digits) }
}

/// Formats a value with its error, both down to the second significant digit of the error: `5.50 ± 0.71`,
/// `1230 ± 150`, `(1.15 ± 0.20)·10¹³`. If the error is 0, the value has five significant digits: `1.0000 ± 0`. A value
/// has at most seven, even if its error is much smaller: `5.000000·10⁸ ± 2.0`.
pub(crate) fn with_error(value: f64, error: f64) -> String {
    if error == 0.0 || !error.is_finite() || !value.is_finite() {
        return format!("{} ± {error}", significant(value, 5));
    }
    let last = exponent(error, 2) - 1;
    let top = if value == 0.0 { last + 1 } else { exponent(value, 1).max(last + 1) };
    if PLAIN.contains(&top) && last >= -MAX_DECIMALS {
        return format!("{} ± {}", fixed(value, last), fixed(error, last));
    }
    if top - last > MAX_DECIMALS {
        return format!("{} ± {}", significant(value, PRECISE_DIGITS), significant(error, 2));
    }
    let [value, error] = [value, error].map(|number| fixed(shifted(number, -top), last - top));
    format!("({value} ± {error})·10{}", superscript(top))
}

/// Formats a value with its interval, with one or two significant digits of the interval's half-width: `10.6 [9.7, 11.5]`.
/// Numbers that are too large or too small for that have three significant digits each.
pub(crate) fn with_interval(value: f64, [low, high]: [f64; 2]) -> String {
    let tenth = (high - low) / 10.0;
    let is_plain = |number: f64| number == 0.0 || PLAIN.contains(&exponent(number, 1));
    let show = |number: f64| {
        if tenth > 0.0 && tenth.is_finite() && is_plain(tenth) && [value, low, high].into_iter().all(|n| n.abs() < 1e6)
        {
            fixed(number, tenth.log10().floor() as i32)
        } else {
            significant(number, 3)
        }
    };
    format!("{} [{}, {}]", show(value), show(low), show(high))
}

/// Formats an exact value with three decimals, or with three significant digits if that is more or if it is very large.
pub(crate) fn exact(value: f64) -> String {
    if (0.1..1e6).contains(&value.abs()) { fixed(value, -3) } else { significant(value, 3) }
}

/// Returns the exponent of ten of a number other than 0, once it is rounded to this many significant digits.
fn exponent(value: f64, digits: i32) -> i32 {
    let decimals = (digits - 1).max(0) as usize;
    let text = format!("{value:.decimals$e}");
    text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

/// Formats a number without a power of ten, rounded at the place of `10^last`.
fn fixed(value: f64, last: i32) -> String {
    let decimals = (-last).max(0) as usize;
    let rounded = if last > 0 { shifted(shifted(value, -last).round(), last) } else { value };
    let text = format!("{rounded:.decimals$}");
    // A negative number that is rounded to 0 has no sign.
    if text.chars().any(|character| ('1'..='9').contains(&character)) {
        text
    } else {
        text.trim_start_matches('-').to_owned()
    }
}

fn scientific(value: f64, exponent: i32, digits: i32) -> String {
    let decimals = (digits - 1).max(0) as usize;
    let text = format!("{value:.decimals$e}");
    let mantissa = text.split_once('e').map_or(text.as_str(), |(mantissa, _)| mantissa);
    format!("{mantissa}·10{}", superscript(exponent))
}

/// Returns `value · 10^places`. Dividing by a power of ten is more exact than multiplying by its inverse.
fn shifted(value: f64, places: i32) -> f64 {
    if places < 0 { value / 10f64.powi(-places) } else { value * 10f64.powi(places) }
}

fn superscript(exponent: i32) -> String {
    let mut text = if exponent < 0 { "⁻".to_owned() } else { String::new() };
    for digit in exponent.unsigned_abs().to_string().chars() {
        text.extend(digit.to_digit(10).map(|digit| SUPERSCRIPTS[digit as usize]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn significant_digits_are_kept_at_every_size() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (2.1812, "2.18"),
            (-0.012_345, "-0.0123"),
            (0.999_9, "1.00"),
            (123_456.0, "123000"),
            (999_999.0, "1.00·10⁶"),
            (1.15e13, "1.15·10¹³"),
            (-2.0e-8, "-2.00·10⁻⁸"),
            (1e-4, "0.000100"),
        ] {
            assert_eq!(significant(value, 3), text);
        }
    }

    #[test]
    fn values_end_at_the_second_digit_of_the_error() {
        for (value, error, text) in [
            (5.4987, 0.7123, "5.50 ± 0.71"),
            (15.23, 10.7, "15 ± 11"),
            (1234.5, 153.3, "1230 ± 150"),
            (9.9996, 0.099_6, "10.00 ± 0.10"),
            (11_508_705_445_992.0, 2_018_462_503_789.0, "(1.15 ± 0.20)·10¹³"),
            (0.000_012, 0.000_003_1, "(1.20 ± 0.31)·10⁻⁵"),
            (0.000_440_181_6, 6.7e-7, "(4.4018 ± 0.0067)·10⁻⁴"),
            (-0.003, 150.0, "0 ± 150"),
            (0.0, 2e7, "(0.0 ± 2.0)·10⁷"),
            (2.0, 3e6, "(0.0 ± 3.0)·10⁶"),
            (5.5, 1.2e-9, "5.500000 ± 1.2·10⁻⁹"),
            (5e8, 2.0, "5.000000·10⁸ ± 2.0"),
            (1.0, 0.0, "1.0000 ± 0"),
            (1.0, f64::NAN, "1.0000 ± NaN"),
        ] {
            assert_eq!(with_error(value, error), text);
        }
    }

    #[test]
    fn values_have_the_digits_of_their_interval() {
        for (value, interval, text) in [
            (10.587, [9.66, 11.52], "10.6 [9.7, 11.5]"),
            (31.2, [22.4, 40.1], "31 [22, 40]"),
            (139.8, [129.2, 150.1], "140 [129, 150]"),
            (-0.01, [-1.4, 1.3], "0.0 [-1.4, 1.3]"),
            (1234.0, [200.0, 2300.0], "1200 [200, 2300]"),
            (0.5, [0.5, 0.5], "0.500 [0.500, 0.500]"),
            (2e9, [1e9, 3e9], "2.00·10⁹ [1.00·10⁹, 3.00·10⁹]"),
            (1.0, [f64::NAN, f64::NAN], "1.00 [NaN, NaN]"),
        ] {
            assert_eq!(with_interval(value, interval), text);
        }
    }

    #[test]
    fn exact_values_have_three_decimals_or_three_digits() {
        let values = [36.1, 507.883_4, 0.2749, 0.0123, 0.0, 2e9, -0.5];
        assert_eq!(values.map(exact), ["36.100", "507.883", "0.275", "0.0123", "0", "2.00·10⁹", "-0.500"]);
    }

    /// Returns the number that a text stands for.
    fn parse(text: &str) -> f64 {
        let (mantissa, power) = text.split_once("·10").unwrap_or((text, ""));
        let power: String = power
            .chars()
            .map(|c| {
                if c == '⁻' { '-' } else { (b'0' + SUPERSCRIPTS.iter().position(|s| *s == c).unwrap() as u8) as char }
            })
            .collect();
        mantissa.parse::<f64>().unwrap() * 10f64.powi(power.parse().unwrap_or(0))
    }

    proptest! {
        /// No number loses more than its last digit, and none is long.
        #[test]
        fn texts_are_short_and_close(mantissa in 1.0..10.0f64, power in -300..300i32, error in -9..9i32) {
            let value = mantissa * 10f64.powi(power);
            let text = significant(value, 3);
            prop_assert!((parse(&text) / value - 1.0).abs() <= 0.005_01, "{value} {text}");
            prop_assert!(text.chars().count() <= 12, "{text}");
            let error = value * 10f64.powi(error);
            let text = with_error(value, error);
            prop_assert!(text.chars().count() <= 30, "{value} {error} {text}");
            if let Some((inner, power)) = text.strip_prefix('(').and_then(|text| text.split_once(')')) {
                let (shown_value, shown_error) = inner.split_once(" ± ").unwrap();
                let [shown_value, shown_error] = [shown_value, shown_error].map(|n| parse(&format!("{n}{power}")));
                prop_assert!((shown_value - value).abs() <= 0.0501 * error, "{value} {error} {text}");
                prop_assert!((shown_error / error - 1.0).abs() <= 0.0501, "{value} {error} {text}");
            }
        }
    }
}
