//! Numbers as text: shortest round-trip floats in CSV, and readable ones in tables.

/// The shortest text that reads back as the same float; empty when it is not a finite number.
pub fn shortest(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => String::new(),
        size if size != 0.0 && !(1e-5..1e16).contains(&size) => format!("{value:e}"),
        _ => value.to_string(),
    }
}

/// A count with three or four digits: `960`, `134.5M`, `8.03B`.
pub fn count(value: f64) -> String {
    match value {
        v if v < 999.5 => format!("{v:.0}"),
        v if v < 999.95e3 => format!("{:.1}K", v / 1e3),
        v if v < 999.995e6 => format!("{:.1}M", v / 1e6),
        v => format!("{:.2}B", v / 1e9),
    }
}

/// A perplexity: hundredths where they mean something.
pub fn perplexity(value: f64) -> String {
    match value {
        v if v < 1e3 => format!("{v:.2}"),
        v if v < 1e6 => format!("{v:.0}"),
        v => format!("{v:.2e}"),
    }
}

/// A divergence in nats: four decimals, or two digits when smaller than those show.
pub fn divergence(value: f64) -> String {
    if value != 0.0 && value.abs() < 5e-4 { format!("{value:.1e}") } else { format!("{value:.4}") }
}

/// A fraction in per cent, with the given number of decimals and without the sign.
pub fn percent(fraction: f64, decimals: usize) -> String {
    format!("{:.decimals$}", fraction * 100.0)
}

/// Three digits and a prefix, powers of a thousand.
pub fn prefixed(value: f64) -> String {
    const PREFIXES: [&str; 8] = ["", "k", "M", "G", "T", "P", "E", "Z"];
    let mut power = 0;
    while value >= 999.5 * 1e3f64.powi(power as i32) && power + 1 < PREFIXES.len() {
        power += 1;
    }
    let scaled = value / 1e3f64.powi(power as i32);
    let decimals = if scaled >= 99.95 || power == 0 {
        0
    } else if scaled >= 9.995 {
        1
    } else {
        2
    };
    format!("{scaled:.decimals$} {}", PREFIXES[power])
}

/// Bytes: `812 MB`, `1.24 GB`.
pub fn bytes(value: f64) -> String {
    format!("{}B", prefixed(value))
}

/// A long time as days, a shorter one as [`duration`].
pub fn age(seconds: f64) -> String {
    const DAY: f64 = 86_400.0;
    if seconds < 2.0 * DAY { duration(seconds) } else { format!("{:.0} days", (seconds / DAY).floor()) }
}

/// Seconds as `45 s`, `3 min 20 s` or `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

/// A title with its first letter large.
pub fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn readable_numbers_have_sensible_digits() {
        assert_eq!(
            [0.0, 960.0, 99_840.0, 134_515_008.0, 8_030_261_248.0].map(count),
            ["0", "960", "99.8K", "134.5M", "8.03B"]
        );
        assert_eq!([999.7, 999_960.0, 999_999_999.0].map(count), ["1.0K", "1.0M", "1.00B"]);
        assert_eq!([6.137, 999.0, 12_345.6, 2.5e8].map(perplexity), ["6.14", "999.00", "12346", "2.50e8"]);
        assert_eq!([0.0, 1.23456, 0.000_012_3].map(divergence), ["0.0000", "1.2346", "1.2e-5"]);
        assert_eq!(
            [0.0, 950.0, 1e6, 1.236e9, 62.14e9, 999.6e9].map(bytes),
            ["0 B", "950 B", "1.00 MB", "1.24 GB", "62.1 GB", "1.00 TB"]
        );
        assert_eq!([60.0, 172_799.0, 200_000.0].map(age), ["1 min 00 s", "47 h 59 min", "2 days"]);
        assert_eq!([0.4, 200.0, 7_500.0].map(duration), ["0 s", "3 min 20 s", "2 h 05 min"]);
    }

    #[test]
    fn csv_numbers_are_short_and_missing_ones_empty() {
        assert_eq!(
            [0.1, 134_515_008.0, 1e-7, 2.5e300, 0.0].map(shortest),
            ["0.1", "134515008", "1e-7", "2.5e300", "0"]
        );
        assert_eq!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(shortest), ["", "", ""]);
    }

    proptest! {
        #[test]
        fn finite_floats_survive_csv(bits: u64) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                prop_assert_eq!(shortest(value).parse::<f64>().unwrap().to_bits(), bits);
            }
        }
    }
}
