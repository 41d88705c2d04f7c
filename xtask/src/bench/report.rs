//! Rows of the table of measurements.

/// The table.
#[derive(Default)]
pub(crate) struct Report(Vec<Row>);

/// One row: what, our figure, the limit, the ratio, the goal, and whether it is met.
pub(crate) struct Row {
    what: String,
    ours: String,
    limit: String,
    ratio: String,
    goal: String,
    met: bool,
}

impl Report {
    /// Adds a row, and shows it at once: a run takes minutes.
    pub(crate) fn add(&mut self, row: Row) {
        eprintln!("{}: {} {}", row.what, row.ours, row.ratio);
        self.0.push(row);
    }

    /// Prints the table, ready for a document.
    pub(crate) fn print(&self) {
        println!("| what | ours | limit or peer | ratio (min to max) | goal | met |");
        println!("|---|---|---|---|---|---|");
        for row in &self.0 {
            let met = if row.met { "yes" } else { "NO" };
            let Row { what, ours, limit, ratio, goal, .. } = row;
            println!("| {what} | {ours} | {limit} | {ratio} | {goal} | {met} |");
        }
    }
}

impl Row {
    /// A rate that should reach a goal.
    pub(crate) fn rate(what: impl Into<String>, figure: f64, unit: &str, goal: f64) -> Self {
        Self {
            what: what.into(),
            ours: format!("{figure:.0}{unit}"),
            limit: String::new(),
            ratio: format!("{:.2}", figure / goal),
            goal: format!("at least {goal:.0}{unit}"),
            met: figure >= goal,
        }
    }

    /// A figure that should stay under a goal.
    pub(crate) fn at_most(what: impl Into<String>, figure: f64, unit: &str, goal: f64) -> Self {
        Self {
            what: what.into(),
            ours: format!("{figure:.1} {unit}"),
            limit: String::new(),
            ratio: format!("{:.2}", figure / goal),
            goal: format!("at most {goal:.0} {unit}"),
            met: figure <= goal,
        }
    }

    /// A ratio, as `median (min to max)`, that should stay under a goal.
    pub(crate) fn ratio_at_most(
        what: impl Into<String>,
        ratio: &str,
        limit: &str,
        goal: f64,
    ) -> Self {
        let median = ratio.split_whitespace().next().and_then(|text| text.parse().ok());
        Self {
            what: what.into(),
            ours: String::new(),
            limit: limit.to_owned(),
            ratio: ratio.to_owned(),
            goal: format!("at most {goal:.2}"),
            met: median.is_some_and(|median: f64| median <= goal),
        }
    }

    /// A ratio, as `median (min to max)`, that should reach a goal.
    pub(crate) fn ratio_at_least(
        what: impl Into<String>,
        ratio: &str,
        limit: &str,
        goal: f64,
    ) -> Self {
        let median = ratio.split_whitespace().next().and_then(|text| text.parse().ok());
        Self {
            what: what.into(),
            ours: String::new(),
            limit: limit.to_owned(),
            ratio: ratio.to_owned(),
            goal: format!("at least {goal:.2}"),
            met: median.is_some_and(|median: f64| median >= goal),
        }
    }

    /// Pairs of our seconds and a peer's: how many times as long it takes. Shown in a unit of
    /// which a second has `scale`.
    pub(crate) fn faster(
        what: impl Into<String>,
        pairs: &[(f64, f64)],
        scale: f64,
        unit: &str,
        peer: &str,
        goal: f64,
    ) -> Self {
        let ratios: Vec<f64> = pairs.iter().map(|(ours, peer)| peer / ours).collect();
        let least = ratios.iter().copied().fold(f64::MAX, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let times = median(ratios);
        let shown = |times: Vec<f64>| format!("{:.2} {unit}", median(times) * scale);
        Self {
            what: what.into(),
            ours: shown(pairs.iter().map(|pair| pair.0).collect()),
            limit: format!("{peer} {}", shown(pairs.iter().map(|pair| pair.1).collect())),
            ratio: format!("{times:.1} times ({least:.1} to {most:.1})"),
            goal: format!("at least {goal:.1} times"),
            met: times >= goal,
        }
    }

    /// Pairs of our figure and the limit's, whose median ratio should reach a goal.
    pub(crate) fn against(
        what: impl Into<String>,
        pairs: &[(f64, f64)],
        unit: &str,
        peer: &str,
        goal: f64,
    ) -> Self {
        let ratios: Vec<f64> = pairs.iter().map(|(ours, limit)| ours / limit).collect();
        let least = ratios.iter().copied().fold(f64::MAX, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let ratio = median(ratios);
        Self {
            what: what.into(),
            ours: format!("{:.0} {unit}", median(pairs.iter().map(|pair| pair.0).collect())),
            limit: format!("{peer} {:.0}", median(pairs.iter().map(|pair| pair.1).collect())),
            ratio: format!("{ratio:.2} ({least:.2} to {most:.2})"),
            goal: format!("at least {goal:.2}"),
            met: ratio >= goal,
        }
    }
}

/// The median; 0 of nothing.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_by_the_median_ratio() {
        let pairs = [(80.0, 100.0), (90.0, 100.0), (10.0, 100.0)];
        assert!(Row::against("x", &pairs, "/s", "peer", 0.80).met);
        assert!(!Row::against("x", &pairs, "/s", "peer", 0.81).met);
        assert!(Row::ratio_at_most("x", "1.20 (1.1 to 2.0)", "copy", 1.35).met);
        assert!(!Row::ratio_at_most("x", "1.40 (1.1 to 2.0)", "copy", 1.35).met);
        assert!(!Row::ratio_at_most("x", "none", "copy", 1.35).met);
        assert!(Row::ratio_at_least("x", "0.95 (0.9 to 1.0)", "bare", 0.90).met);
        assert!(!Row::ratio_at_least("x", "0.85 (0.8 to 0.9)", "bare", 0.90).met);
        let pairs = [(1.0, 3.0), (1.0, 4.0), (2.0, 10.0)];
        assert!(Row::faster("x", &pairs, 1.0, "s", "peer", 4.0).met);
        assert!(!Row::faster("x", &pairs, 1.0, "s", "peer", 4.1).met);
    }
}
