//! Axes, which map values to positions in a chart.

/// The part of a step by which a range may exceed the ticks of a linear axis.
const SLACK: f64 = 1e-3;

/// An axis, which maps values to positions in a chart.
pub(crate) struct Axis {
    pub(crate) low: f64,
    high: f64,
    /// The positions of `low` and `high`.
    span: [f64; 2],
    logarithmic: bool,
    pub(crate) ticks: Vec<f64>,
}

impl Axis {
    /// Returns a linear axis from 0 to a round number that is at least `most`.
    pub(crate) fn linear(most: f64, span: [f64; 2]) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = round_step(most);
        let steps = (most / step).ceil();
        let ticks = (0..=steps as u32).map(|i| f64::from(i) * step).collect();
        Self { low: 0.0, high: steps * step, span, logarithmic: false, ticks }
    }

    /// Returns a linear axis between round numbers that contain the range from `low` to `high`.
    pub(crate) fn linear_range([low, high]: [f64; 2], span: [f64; 2]) -> Self {
        let [low, high] = if high > low { [low, high] } else { [low - 0.5, high + 0.5] };
        let step = round_step(high - low);
        // A value just outside a tick, by rounding, takes no further step.
        let (first, last) = ((low / step + SLACK).floor() as i64, (high / step - SLACK).ceil() as i64);
        let ticks: Vec<f64> = (first..=last).map(|multiple| multiple as f64 * step).collect();
        let (low, high) = (low.min(first as f64 * step), high.max(last as f64 * step));
        Self { low, high, span, logarithmic: false, ticks }
    }

    /// Returns a logarithmic axis from `low / margin` to `high * margin`. Its ticks are 1, 2 and 5 times the powers of
    /// ten. If that would be more than `max_ticks`, they are some of the powers of ten; if it would be fewer than three,
    /// they are multiples of a round number.
    pub(crate) fn logarithmic([low, high]: [f64; 2], margin: f64, span: [f64; 2], max_ticks: usize) -> Self {
        let mut axis = Self { low: low / margin, high: high * margin, span, logarithmic: true, ticks: Vec::new() };
        axis.ticks = axis.ticks_at(&[1.0, 2.0, 5.0]);
        if axis.ticks.len() < 3 {
            axis.ticks = axis.multiples();
        } else if axis.ticks.len() > max_ticks {
            let powers = axis.ticks_at(&[1.0]);
            let every = powers.len().div_ceil(max_ticks);
            axis.ticks = powers.into_iter().step_by(every).collect();
        }
        axis
    }

    /// Returns the values on the axis that are one of `factors` times a power of ten.
    fn ticks_at(&self, factors: &[f64]) -> Vec<f64> {
        let mut ticks = Vec::new();
        for power in self.low.log10().floor() as i32..=self.high.log10().ceil() as i32 {
            ticks.extend(factors.iter().map(|factor| factor * 10f64.powi(power)).filter(|tick| self.contains(*tick)));
        }
        ticks
    }

    /// Returns the multiples of a round number on the axis, at most six.
    fn multiples(&self) -> Vec<f64> {
        let step = round_step(self.high - self.low);
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        (first..=last).map(|multiple| multiple as f64 * step).collect()
    }

    /// Returns the position of a value. A value off the axis is clamped to the axis's nearer end.
    pub(crate) fn position(&self, value: f64) -> f64 {
        let part = match self.logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        let [from, to] = self.span;
        from + part.clamp(0.0, 1.0) * (to - from)
    }

    /// Returns `true` if the axis's scale can show a value, on the axis or clamped to its end.
    pub(crate) fn can_show(&self, value: f64) -> bool {
        value.is_finite() && (value > 0.0 || !self.logarithmic)
    }

    /// Returns `true` if a value is on the axis.
    pub(crate) fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// Returns the smallest of 1, 2 and 5 times the powers of ten that divides a range into at most five steps.
fn round_step(range: f64) -> f64 {
    let power = 10f64.powf((range / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| range / step <= 5.0);
    step.unwrap_or(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_contain_every_value_and_have_round_ticks() {
        let axis = Axis::linear(47.0, [0.0, 100.0]);
        assert_eq!(axis.ticks, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!((axis.position(0.0), axis.position(25.0)), (0.0, 50.0));
        let axis = Axis::linear_range([-0.3, 2.1], [100.0, 0.0]);
        assert_eq!(axis.ticks, [-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        assert_eq!(Axis::linear_range([-1e-9, 1.0], [100.0, 0.0]).ticks[0], 0.0);
        assert!(axis.position(-0.3) < 100.0 && axis.position(2.1) > 0.0);
        assert!((Axis::linear_range([3.0, 3.0], [100.0, 0.0]).position(3.0) - 50.0).abs() < 1e-9);
        let axis = Axis::logarithmic([3.0, 150.0], 1.2, [100.0, 0.0], 12);
        assert_eq!(axis.ticks, [5.0, 10.0, 20.0, 50.0, 100.0]);
        assert!(axis.position(150.0) > 0.0 && axis.position(3.0) < 100.0);
        let axis = Axis::logarithmic([1.0, 1e5], 1.2, [0.0, 1.0], 12);
        assert_eq!(axis.ticks, [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]);
        let axis = Axis::logarithmic([1e-10, 1e10], 1.2, [0.0, 1.0], 12);
        assert_eq!((axis.ticks.len(), axis.ticks[1] / axis.ticks[0]), (11, 100.0));
        let axis = Axis::logarithmic([3.1, 4.4], 1.0, [0.0, 1.0], 12);
        assert_eq!(axis.ticks, [3.5, 4.0]);
    }
}
