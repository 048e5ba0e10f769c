//! Minimization of a function of few variables within bounds.

/// The number of grid points per variable.
const GRID: usize = 21;

/// The number of golden-section steps.
const STEPS: usize = 32;

/// Finds the minimum of a function of bounded variables. The search is nested: for each value of the first variable that
/// it tries, it minimizes over the others. It searches each variable on a grid, and then by golden-section search
/// between the neighbors of the best grid point. The function may be infinite where it is undefined.
pub(crate) fn minimize(bounds: &[[f64; 2]], function: &dyn Fn(&[f64]) -> f64) -> Vec<f64> {
    least(bounds, &mut Vec::new(), function).1
}

/// Returns the minimum over the variables after those in `fixed`, and all variables there.
fn least(bounds: &[[f64; 2]], fixed: &mut Vec<f64>, function: &dyn Fn(&[f64]) -> f64) -> (f64, Vec<f64>) {
    let Some(&[low, high]) = bounds.get(fixed.len()) else { return (function(fixed), fixed.clone()) };
    let mut best = (f64::INFINITY, fixed.clone());
    let mut at = |variable: f64| {
        fixed.push(variable);
        let found = least(bounds, fixed, function);
        fixed.pop();
        let value = found.0;
        if value < best.0 || best.1.len() <= fixed.len() {
            best = found;
        }
        value
    };
    let step = (high - low) / (GRID - 1) as f64;
    let grid = |index: usize| low + step * index as f64;
    let mut nearest = (f64::INFINITY, 0);
    for index in 0..GRID {
        let value = at(grid(index));
        if value < nearest.0 {
            nearest = (value, index);
        }
    }
    golden_section(&mut at, grid(nearest.1.saturating_sub(1)), grid((nearest.1 + 1).min(GRID - 1)), STEPS);
    best
}

/// Finds the minimum of a function between two bounds, if it has only one there. Each of the steps shortens the range to
/// 62 %.
pub(crate) fn golden_section(mut function: impl FnMut(f64) -> f64, mut low: f64, mut high: f64, steps: usize) -> f64 {
    let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (high - golden * (high - low), low + golden * (high - low));
    let (mut of_left, mut of_right) = (function(left), function(right));
    for _ in 0..steps {
        if of_left < of_right {
            (high, right, of_right) = (right, left, of_left);
            left = high - golden * (high - low);
            of_left = function(left);
        } else {
            (low, left, of_left) = (left, right, of_right);
            right = low + golden * (high - low);
            of_right = function(right);
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_inside_or_on_a_bound_is_found() {
        assert_eq!(minimize(&[], &|_| 1.0), [0.0; 0]);
        let found = minimize(&[[-4.0, 4.0]], &|x| (x[0] - 0.123_456).powi(2));
        assert!((found[0] - 0.123_456).abs() < 1e-6, "{found:?}");
        assert_eq!(minimize(&[[-4.0, 4.0]], &|x| -x[0]), [4.0]);
        // Rosenbrock's valley, with its minimum at (1, 1).
        let valley = |x: &[f64]| (1.0 - x[0]).powi(2) + 100.0 * (x[1] - x[0] * x[0]).powi(2);
        let found = minimize(&[[-2.0, 2.0], [-1.0, 3.0]], &valley);
        assert!(found.iter().all(|x| (x - 1.0).abs() < 1e-6), "{found:?}");
    }
}
