//! A plot of the percentiles of each latency: how bad it gets, for how few.

use hdrhistogram::Histogram;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 40.0;
const PLOT_WIDTH: f64 = 480.0;
const PLOT_HEIGHT: f64 = 320.0;
/// Distinct also for most who see colours differently (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// Nines of the last percentile shown: 99.999.
const NINES: f64 = 5.0;

/// The plot: percentiles to the right, each nine as far as the one before; microseconds upwards, logarithmic.
pub(super) fn plot(title: &str, latencies: &[(&str, Histogram<u64>)]) -> String {
    let some: Vec<_> = latencies.iter().filter(|(_, latency)| !latency.is_empty()).collect();
    let least = some.iter().map(|(_, latency)| latency.min()).min().unwrap_or(1);
    let most = some.iter().map(|(_, latency)| latency.max()).max().unwrap_or(1);
    let low = (least.max(1) as f64).log10().floor();
    let high = (most.max(1) as f64).log10().ceil().max(low + 1.0);
    let x = |quantile: f64| LEFT + PLOT_WIDTH * (-(1.0 - quantile).log10() / NINES).clamp(0.0, 1.0);
    let y = |ns: f64| TOP + PLOT_HEIGHT * (1.0 - (ns.log10() - low) / (high - low)).clamp(0.0, 1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    for decade in low as i32..=high as i32 {
        let ns = 10f64.powi(decade);
        svg += &grid(LEFT, y(ns), LEFT + PLOT_WIDTH, y(ns));
        svg += &format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{} µs</text>\n",
            LEFT - 6.0,
            y(ns) + 4.0,
            ns / 1e3
        );
    }
    for (percentile, quantile) in [
        ("0", 0.0),
        ("90", 0.9),
        ("99", 0.99),
        ("99.9", 0.999),
        ("99.99", 0.9999),
        ("99.999", 0.99999),
    ] {
        svg += &grid(x(quantile), TOP, x(quantile), TOP + PLOT_HEIGHT);
        let under = TOP + PLOT_HEIGHT + 18.0;
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{under}\" text-anchor=\"middle\">{percentile} %</text>\n",
            x(quantile)
        );
    }
    for (number, (name, latency)) in some.into_iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: Vec<String> = latency
            .iter_quantiles(10)
            .map(|step| {
                let (x, y) = (x(step.quantile_iterated_to()), y(step.value_iterated_to() as f64));
                format!("{x:.1},{y:.1}")
            })
            .collect();
        svg += &format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n\
             <text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}</text>\n",
            points.join(" "),
            LEFT + PLOT_WIDTH + 12.0,
            TOP + 12.0 + 18.0 * number as f64,
            escaped(name)
        );
    }
    svg + "</svg>\n"
}

fn grid(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{histogram, record};
    use std::time::Duration;

    fn points(svg: &str) -> Vec<Vec<(f64, f64)>> {
        svg.split("points=\"")
            .skip(1)
            .map(|rest| {
                let pair = |pair: &str| {
                    let (x, y) = pair.split_once(',').expect("a pair");
                    (x.parse().expect("x"), y.parse().expect("y"))
                };
                rest.split('"').next().expect("points").split(' ').map(pair).collect()
            })
            .collect()
    }

    #[test]
    fn a_curve_rises_to_the_right_within_the_plot() {
        let (mut fast, mut slow) = (histogram(), histogram());
        for us in 1..=10_000 {
            record(&mut fast, Duration::from_micros(us));
            record(&mut slow, Duration::from_micros(10 * us));
        }
        let svg = plot("a < b", &[("fast", fast), ("slow", slow), ("none", histogram())]);
        let curves = points(&svg);
        assert_eq!(curves.len(), 2, "nothing is drawn of nothing");
        for curve in &curves {
            assert!(curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 >= b.1), "{curve:?}");
            let inside = |p: &(f64, f64)| {
                (LEFT..=LEFT + PLOT_WIDTH).contains(&p.0)
                    && (TOP..=TOP + PLOT_HEIGHT).contains(&p.1)
            };
            assert!(curve.iter().all(inside), "{curve:?}");
        }
        let last = |curve: usize| curves[curve].last().expect("points").1;
        assert!(last(1) < last(0), "slower is higher");
        assert!(svg.contains("a &lt; b") && svg.contains(">fast<") && svg.contains("99.999 %"));
    }

    #[test]
    fn nothing_at_all_is_an_empty_plot() {
        assert!(plot("", &[]).ends_with("</svg>\n"));
    }
}
