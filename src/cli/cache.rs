//! `tyr cache RUN`: what a run's store holds, and making room.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::show;
use crate::base::Result;
use crate::report::columns::{Side, columns};
use crate::report::number::{age, bytes};
use crate::runner::cache::{self, Condition, Item, Listing, Selection};
use crate::trial::StepKind;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The run's folder, as in runs/NAME
    run: PathBuf,
    /// Remove entries that no trial uses, and files that killed processes left
    #[arg(long)]
    prune: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Also remove what is unfinished or damaged, even if a trial would continue it
    #[arg(long, conflicts_with_all = ["step", "older_than"])]
    unfinished: bool,
    /// Remove entries of this kind instead, used or not
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    step: Option<StepKind>,
    /// Remove entries that are as old as this instead, used or not: 30d, 12h or 45min
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<Duration>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let selection = arguments.selection();
    if arguments.prune && !arguments.dry_run {
        return show(&removed(&cache::prune(&arguments.run, &selection)?, "removed"));
    }
    let listing = cache::list(&arguments.run)?;
    if arguments.dry_run {
        return show(&removed(&selected(listing, &selection), "would remove"));
    }
    let more = selected(listing.clone(), &selection);
    show(&format!("{}{}", listed(&listing), advice(&more)))
}

impl Arguments {
    fn selection(&self) -> Selection {
        match (&self.step, self.older_than) {
            (None, None) if self.unfinished => Selection::Unfinished,
            (None, None) => Selection::Unused,
            (kind, older_than) => Selection::Matching { kind: *kind, older_than },
        }
    }
}

/// The kinds of steps by name.
fn kinds() -> impl TypedValueParser<Value = StepKind> {
    PossibleValuesParser::new(StepKind::ALL.map(StepKind::name)).try_map(|name| name.parse::<StepKind>())
}

/// `30d`, `12h`, `45min`
fn parse_age(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3600,
        "min" => 60,
        _ => return Err("write a whole number and d, h or min, as in 30d".into()),
    };
    let count: u64 = digits.parse().map_err(|_| format!("`{digits}` is not a whole number"))?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "this age is too large".into())
}

fn selected(listing: Listing, selection: &Selection) -> Listing {
    Listing { items: listing.items.into_iter().filter(|item| item.selected(selection)).collect(), ..listing }
}

fn listed(listing: &Listing) -> String {
    let heads = [
        ("entry", Side::Left),
        ("step", Side::Left),
        ("size", Side::Right),
        ("age", Side::Right),
        ("state", Side::Left),
        ("used by", Side::Left),
    ];
    let row = |item: &Item| {
        let step = item.step.clone().unwrap_or_default();
        let old = age(item.age.as_secs_f64());
        [item.address.clone(), step, bytes(item.bytes as f64), old, word(&item.condition).into(), users(item)]
    };
    let rows: Vec<_> = listing.items.iter().map(row).collect();
    let table = if rows.is_empty() { String::new() } else { columns(heads, &rows) };
    let count = |condition| listing.items.iter().filter(|i| i.condition == condition).count();
    let states = [Condition::Finished, Condition::Begun, Condition::Damaged]
        .map(|c| (count(c.clone()), c))
        .into_iter();
    let states: Vec<String> =
        states.filter(|(n, _)| *n > 0).map(|(n, c)| format!("{n} {}", word(&c))).collect();
    let total = bytes(listing.items.iter().map(|i| i.bytes).sum::<u64>() as f64);
    format!(
        "{table}{}, {total}{}\n{}",
        entries(listing.items.len()),
        states.iter().map(|s| format!(", {s}")).collect::<String>(),
        doubt(&listing.unclear)
    )
}

fn word(condition: &Condition) -> &'static str {
    match condition {
        Condition::Finished => "finished",
        Condition::Begun => "begun",
        Condition::Damaged => "damaged",
    }
}

/// Why entries that no trial is known to use are kept.
fn doubt(unclear: &[String]) -> String {
    let [first, more @ ..] = unclear else { return String::new() };
    let others = if more.is_empty() { String::new() } else { format!(" and of {} more", more.len()) };
    format!(
        "note: the event log of {first}{others} lacks lines, or the newest run did not come to it, so it is not \
         known what it uses: unused entries are kept\n  hint: run the experiment again, which completes the log, and prune then\n"
    )
}

fn users(item: &Item) -> String {
    match item.used_by.as_slice() {
        [] if item.unclear => "not known".into(),
        [] => "no trial".into(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

fn entries(count: usize) -> String {
    format!("{count} {}", if count == 1 { "entry" } else { "entries" })
}

/// What pruning would do, if anything.
fn advice(listing: &Listing) -> String {
    if listing.items.is_empty() && listing.partial.is_empty() {
        return String::new();
    }
    format!("the same command with --prune frees {}: {}\n", bytes(freed(listing) as f64), what(listing))
}

fn freed(listing: &Listing) -> u64 {
    listing.items.iter().map(|i| i.own_bytes).chain(listing.partial.iter().map(|(_, bytes)| *bytes)).sum()
}

/// "2 entries and 1 partial file"
fn what(listing: &Listing) -> String {
    match listing.partial.len() {
        0 => entries(listing.items.len()),
        n => {
            format!("{} and {n} partial file{}", entries(listing.items.len()), if n == 1 { "" } else { "s" })
        }
    }
}

/// Every entry and file that is removed, then the sum.
fn removed(listing: &Listing, verb: &str) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    for item in &listing.items {
        let _ = writeln!(
            out,
            "{verb} {} ({}, {})",
            item.address,
            bytes(item.bytes as f64),
            word(&item.condition)
        );
    }
    for (path, size) in &listing.partial {
        let _ = writeln!(out, "{verb} {} ({})", path.display(), bytes(*size as f64));
    }
    let _ = writeln!(out, "{verb} {}; that frees {}", what(listing), bytes(freed(listing) as f64));
    out.push_str(&doubt(&listing.unclear));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        let ages = ["30d", "12h", "45min", "0h"].map(|text| parse_age(text).unwrap().as_secs());
        assert_eq!(ages, [2_592_000, 43_200, 2700, 0]);
        for wrong in ["", "d", "3", "3 d", "-3d", "3weeks", "99999999999999999999d", "999999999999999999d"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_store_is_listed_in_one_line() {
        assert_eq!(listed(&Listing { items: vec![], partial: vec![], unclear: vec![] }), "0 entries, 0 B\n");
    }
}
