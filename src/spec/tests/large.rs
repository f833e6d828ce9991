//! Long experiments: checked in time that grows with their length, and told about in bounded space.

use super::*;

/// Entries of a list: what compares or copies all with all does not come to an end with as many.
const MANY: usize = 100_000;

fn list(item: impl Fn(usize) -> String) -> String {
    (0..MANY).map(item).collect::<Vec<_>>().join(", ")
}

/// The same for what takes longer to check.
fn fewer(item: impl Fn(usize) -> String) -> String {
    (0..MANY / 4).map(item).collect::<Vec<_>>().join(", ")
}

/// What is said, which must be short, and all findings.
fn said(text: &str) -> (String, Vec<Finding>) {
    let checked = inspect_with(text, |_| {});
    let printed = checked.render(Style::Plain);
    assert!(printed.len() < 300_000 && printed.lines().count() < 2_000, "{} bytes", printed.len());
    (printed, checked.findings)
}

#[test]
fn many_values_of_a_sweep() {
    let sweep = |key: &str, values: String| format!("[[sweep]]\nkey = '{key}'\nvalues = [{values}]\n");
    let (printed, found) = said(&sweep("calibration.sink_tokens", list(|i| i.to_string())));
    assert_eq!(found.len(), 1);
    assert!(printed.contains("more than 10000 trials"), "{printed}");
    let (printed, found) = said(&sweep("supernet.levels", list(|_| "9".into())));
    assert_eq!(found.len(), MANY);
    assert!(printed.contains("9 appears twice") && printed.contains("… and 99900 more errors"), "{printed}");
    let (_, found) = said(&sweep("model.source", list(|i| format!("'a/{i}'"))));
    assert_eq!(found.len(), 1);
    let cases = list(|_| "{ label = 'x' }".into());
    let (printed, found) = said(&format!("[[sweep]]\ncases = [{cases}]\n"));
    assert_eq!(found.len(), MANY);
    assert!(printed.contains("two cases are called \"x\""));
}

#[test]
fn many_axes_and_many_exclusions() {
    let axes = (0..MANY / 4).map(|i| format!("[[sweep]]\nname = 'a{i}'\nseeds = 1\n")).collect::<String>();
    let (printed, found) = said(&axes);
    assert_eq!(found.len(), 1);
    assert!(printed.contains("a sweep of 25000 axes"), "{printed}");
    let rules = list(|i| format!("{{ seed = {} }}", i + 10));
    let (printed, found) = said(&format!("exclude = [{rules}]\n[[sweep]]\nseeds = 3\n"));
    assert_eq!(found.len(), MANY);
    assert!(printed.contains("this excludes no trial"));
}

#[test]
fn many_unknown_keys() {
    let keys = (0..MANY).map(|i| format!("key_{i} = 1\n")).collect::<String>();
    let (printed, found) = said(&format!("[prune]\n{keys}"));
    assert_eq!(found.len(), MANY);
    assert!(printed.starts_with("100000 errors in x.toml\n"));
}

#[test]
fn many_elements_that_break_a_rule() {
    let (printed, found) = said(&format!("[supernet]\nintervals = [{}]\n", list(|_| "0.5".into())));
    assert_eq!(found.len(), MANY - 1);
    assert!(printed.contains("is not finer than the one before"));
    let layers = fewer(|_| "{ layer = 0, weight = 1.0 }".into());
    let (_, found) = said(&format!("[fitness]\nkind = 'similarity'\nlayers = [{layers}]\n"));
    assert_eq!(found.len(), MANY / 4 - 1);
    let corpora = fewer(|_| "'quickstart'".into());
    let (_, found) = said(&format!("[fitness]\nkind = 'perplexity'\ncorpora = [{corpora}]\n"));
    assert_eq!(found.len(), MANY / 4 - 1);
    let (_, found) = said(&format!("[evaluate]\nperplexity = [{}]\n", fewer(|_| "'x'".into())));
    assert_eq!(found.len(), MANY / 4);
}

#[test]
fn many_trials_with_findings_of_their_own() {
    let tokens = (1..=2_000).map(|i| (i * 256 + 1).to_string()).collect::<Vec<_>>().join(", ");
    let text =
        format!("search.tokens = 131072\n[[sweep]]\nkey = 'calibration.tokens'\nvalues = [{tokens}]\n");
    let (_, found) = said(&text);
    assert_eq!(found.len(), 2_000);
}

#[test]
fn long_names_and_long_lines() {
    let long = "x".repeat(1_000_000);
    let (printed, _) = said(&format!("{long} = 1\n"));
    assert!(printed.contains("xxx"));
    said(&format!("name = '{long}'\n"));
    said(&format!("model.source = '{long}'\n"));
    said(&format!("[calibration]\ncorpus = '{long}'\n"));
    // A finding far to the right of its line: no width of 16 bits can be asked for.
    let (printed, _) = said(&format!("[evaluate]\ntasks = [{}'far']\n", " ".repeat(70_000)));
    assert!(printed.contains("x.toml:2:70010") && printed.contains("'far'"), "{printed}");
    let (printed, _) = said(&format!("[evaluate]\ntasks = ['far', {}]\n", list(|_| "'arc_easy'".into())));
    assert!(printed.contains("unknown task \"far\""));
}
