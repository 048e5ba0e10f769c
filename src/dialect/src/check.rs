//! Checks of the values that a server returned.

/// The highest log-probability that rounding explains, in nats. A log-probability is at most 0, but a server computes
/// it as the difference of two rounded numbers.
const MAX_LOGPROB: f64 = 1e-3;

/// Checks the log-probabilities of a target's tokens; tokens without one are not checked.
///
/// # Errors
/// A description of the first log-probability that is not finite, or is above 0 by more than rounding explains.
pub fn check_logprobs<F: Copy + Into<f64>>(logprobs: impl IntoIterator<Item = Option<F>>) -> Result<(), String> {
    for (position, logprob) in logprobs.into_iter().enumerate() {
        let Some(value) = logprob.map(Into::into) else { continue };
        if !value.is_finite() || value > MAX_LOGPROB {
            let limit = if value.is_finite() { "at most 0" } else { "finite" };
            return Err(format!("target token {position} has log-probability {value}; it must be {limit}"));
        }
    }
    Ok(())
}

/// Checks the ids that a response repeats for a target's tokens.
///
/// # Errors
/// A description of the first difference.
pub fn check_token_ids(sent: &[u32], echoed: &[u32]) -> Result<(), String> {
    if sent.len() != echoed.len() {
        return Err(format!("expected {} token ids for the target, got {}", sent.len(), echoed.len()));
    }
    match sent.iter().zip(echoed).position(|(sent, echoed)| sent != echoed) {
        Some(at) => Err(format!("target token {at} was sent as {}, but the response has {}", sent[at], echoed[at])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_are_at_most_zero_and_finite() {
        let check = |logprob: f64| check_logprobs([None, Some(-1.0), Some(logprob)]);
        for fine in [0.0, -0.0, 1e-6, 5e-4, -9999.0] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        for (wrong, limit) in
            [(5.0, "5; it must be at most 0"), (0.01, "at most 0"), (f64::NAN, "NaN; it must be finite")]
        {
            let error = check(wrong).unwrap_err();
            assert!(error.starts_with("target token 2 has log-probability") && error.contains(limit), "{error}");
        }
        assert!(check(f64::NEG_INFINITY).is_err() && check_logprobs([Some(f32::INFINITY)]).is_err());
    }

    #[test]
    fn echoed_token_ids_must_be_those_sent() {
        assert_eq!(check_token_ids(&[1, 2], &[1, 2]), Ok(()));
        assert_eq!(check_token_ids(&[1, 2], &[1]).unwrap_err(), "expected 2 token ids for the target, got 1");
        let other = check_token_ids(&[1, 2], &[1, 3]).unwrap_err();
        assert_eq!(other, "target token 1 was sent as 2, but the response has 3");
    }
}
