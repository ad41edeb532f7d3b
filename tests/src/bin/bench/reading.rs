//! Readings and how they are printed.

/// Latencies in milliseconds.
#[derive(Debug)]
pub struct Latencies(Vec<f64>);

impl Latencies {
    /// Takes values in ascending order.
    pub fn sorted(values: Vec<f64>) -> Self {
        Self(values)
    }

    /// The median.
    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The value that one in a hundred exceeds.
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

/// A value and its floor, from each round.
#[derive(Debug, Default)]
pub struct Pairs(Vec<(f64, f64)>);

impl Pairs {
    /// One round only.
    pub fn of(value: f64, floor: f64) -> Self {
        Self(vec![(value, floor)])
    }

    /// Adds a round.
    pub fn push(&mut self, value: f64, floor: f64) {
        self.0.push((value, floor));
    }

    /// The round whose ratio is the median.
    pub fn median(&self) -> (f64, f64) {
        let mut sorted = self.0.clone();
        sorted.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        sorted.get(sorted.len() / 2).copied().unwrap_or((f64::NAN, f64::NAN))
    }

    /// The smallest and the largest ratio.
    fn range(&self) -> (f64, f64) {
        let ratios = self.0.iter().map(|(value, floor)| value / floor);
        ratios.fold((f64::INFINITY, 0.0), |(low, high), ratio| (low.min(ratio), high.max(ratio)))
    }
}

/// What is printed at the end: ratios first, then the rest.
#[derive(Debug, Default)]
pub struct Report {
    ratios: Vec<String>,
    lines: Vec<String>,
}

impl Report {
    /// A value that should be at least `target` times its floor; `required` is what
    /// the first reading has to show.
    pub fn at_least(&mut self, what: &str, pairs: &Pairs, floor: &str, required: f64, target: f64) {
        let ratio = pairs.median().0 / pairs.median().1;
        let verdict = verdict(ratio >= target, ratio >= required, required > 0.0);
        self.add(what, pairs, floor, &format!(">= {target}: {verdict}"));
    }

    /// A value that should be at most `target` times its floor.
    pub fn at_most(&mut self, what: &str, pairs: &Pairs, floor: &str, required: f64, target: f64) {
        let ratio = pairs.median().0 / pairs.median().1;
        let verdict = verdict(ratio <= target, ratio <= required, true);
        self.add(what, pairs, floor, &format!("<= {target}: {verdict}"));
    }

    fn add(&mut self, what: &str, pairs: &Pairs, floor: &str, verdict: &str) {
        let ((value, floor_value), (low, high)) = (pairs.median(), pairs.range());
        let digits = usize::from(value < 100.0) * 3;
        self.ratios.push(format!(
            "{:6.2} x  ({verdict}; rounds {low:.2} to {high:.2})  {what}: {value:.digits$}  \
             ({floor}: {floor_value:.digits$})",
            value / floor_value
        ));
    }

    /// A reading without a floor.
    pub fn line(&mut self, text: String) {
        self.lines.push(text);
    }

    /// Prints all.
    pub fn print(&self) {
        println!();
        self.ratios.iter().for_each(|line| println!("{line}"));
        println!();
        self.lines.iter().for_each(|line| println!("{line}"));
    }
}

const fn verdict(reached: bool, passed: bool, is_required: bool) -> &'static str {
    match (reached, passed, is_required) {
        (true, ..) => "reached",
        (false, true, true) => "target not reached, first reading ok",
        (false, _, false) => "not reached",
        (false, false, true) => "MISSED",
    }
}
