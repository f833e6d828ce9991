//! Scripts: what they read, how they fail, what they are stopped from doing, and the examples.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::reads::Part;
use super::super::script::{Metrics, Script};
use super::super::scripted::{Scripted, check};
use super::super::{Metric, flops};
use crate::base::Result;
use crate::model::pico::Pico;

fn corpora() -> Vec<String> {
    vec!["wikitext2".into(), "code".into()]
}

fn scripted(text: &str) -> Result<Scripted> {
    Scripted::new(Script::compile("f.rhai", text)?, &corpora(), 5, &Pico::default().config().unwrap(), 24)
}

#[track_caller]
fn breaks(text: &str, messages: &[&str]) {
    let error = scripted(text).map(drop).unwrap_err().to_string();
    for message in messages {
        assert!(error.contains(message), "`{message}` is not in:\n{error}");
    }
}

fn reads(text: &str) -> (Vec<&'static str>, Part<String>, Part<i64>) {
    let reads = Script::compile("f.rhai", text).unwrap().reads().clone();
    (reads.metrics.iter().map(|m| m.name()).collect(), reads.corpora, reads.layers)
}

fn named<T: Ord, const N: usize>(elements: [T; N]) -> Part<T> {
    Part::Named(elements.into())
}

#[test]
fn only_what_a_script_names_is_read() {
    assert_eq!(reads("fn fitness(m) { m.kl }"), (vec!["kl"], named([]), named([])));
    assert_eq!(reads("fn fitness(x) { x[\"kv_bytes\"] / x?.parameters }").0, ["parameters", "kv_bytes"]);
    assert_eq!(reads("fn fitness(m) { m[`kl`] }").0, ["kl"]);
    assert_eq!(reads("fn fitness(m) { 1 } // m.kl").0.len(), 0);
    assert_eq!(reads("fn fitness(m) { let t = \"m.kl\"; 1 }").0.len(), 0);
    assert_eq!(reads("fn fitness(m) { let t = `${m.kl}`; 1 }").0, ["kl"]);
    assert_eq!(reads("fn fitness(m) { [1, 2].map(|x| x * m.flops)[0] }").0, ["flops"]);
    let (names, corpora, layers) = reads(
        "fn fitness(m) { m.perplexity[\"a\"] + m[\"perplexity\"][\"b\"] + m.distance[0] + m.distance[-1] }",
    );
    assert_eq!(names, ["perplexity", "distance"]);
    assert_eq!((corpora, layers), (named(["a".to_owned(), "b".to_owned()]), named([0, -1])));
    assert_eq!(reads("fn fitness(m) { let c = \"a\"; m.perplexity[c] + m.distance[0] }").1, Part::All);
    assert_eq!(reads("fn fitness(m) { m.distance[0] + m.distance.len() }").2, Part::All);
}

#[test]
fn what_hands_the_metrics_on_reads_everything() {
    for text in [
        "fn fitness(m) { let k = \"kl\"; m[k] }",
        "fn fitness(m) { let n = m; n.kl }",
        "fn help(x) { x.kl } fn fitness(m) { help(m) }",
        "fn help() { this.kl } fn fitness(m) { m.help() }",
        "fn fitness(m) { let all = [m]; all[0].kl }",
    ] {
        let (names, corpora, layers) = reads(text);
        assert_eq!((names.len(), corpora, layers), (Metric::all().count(), Part::All, Part::All), "{text}");
        scripted(text).unwrap();
    }
}

#[test]
fn measurements_follow_from_what_is_read() {
    let wanted = |text: &str| scripted(text).unwrap().wanted().clone();
    assert_eq!(wanted("fn fitness(m) { m.kl }").kl, [0]);
    assert_eq!(wanted("fn fitness(m) { m.kl_top_k }").kl, [5]);
    assert_eq!(wanted("fn fitness(m) { m.kl_top_k - m.kl }").kl, [0, 5]);
    assert_eq!(wanted("fn fitness(m) { m.distance[-1] + m.distance[1] }").layers, [1, 2]);
    let plain = scripted("fn fitness(m) { m.sparsity + m.sparsity_variance + m.dense_flops * 0 + m.layers }")
        .unwrap();
    assert_eq!(
        (plain.wanted(), plain.counts_wanted(), plain.corpora().len()),
        (&Default::default(), false, 0)
    );
    assert_eq!(scripted("fn fitness(m) { m.perplexity.code }").unwrap().corpora(), corpora());
    let one = scripted("fn fitness(m) { m.perplexity[\"code\"] }").unwrap();
    assert_eq!(one.corpora(), ["code"]);
    assert!(scripted("fn fitness(m) { m.heads[0] }").unwrap().counts_wanted());
}

#[test]
fn broken_scripts_say_what_and_where() {
    breaks("fn fitness(m) {\n  m.kl +\n}", &["f.rhai:3:1"]);
    breaks(
        "fn fitness(m) {\n  m.parametres\n}",
        &["there is no metric `parametres`", "f.rhai:2:5", "did you mean `m.parameters`?"],
    );
    breaks("fn fitness(m) { m[\"klx\"] }", &["there is no metric `klx`", "f.rhai:1:19", "`m.kl`"]);
    breaks("fn fitness(m) { let k = \"head\"; m[k] }", &["there is no metric `head`", "`m.heads`"]);
    breaks("fn fitness(m) { m.zzzzzzzz }", &["the metrics are kl, kl_top_k"]);
    breaks("fn fitnes(m) { m.kl }", &["no function `fitness`", "f.rhai", "fn fitness(m)"]);
    breaks("", &["no function `fitness`"]);
    breaks("\nfn fitness(a, b) { 1 }", &["takes 2 parameters instead of one", "f.rhai:2:1"]);
    breaks("fn fitness() { 1 }", &["takes 0 parameters"]);
    breaks("fn fitness(m) {\n  undefined + 1\n}", &["undefined", "f.rhai:2:3"]);
    breaks("fn help(x) {\n  x.foo()\n}\nfn fitness(m) { help(1) }", &["foo", "f.rhai:2:5"]);
    breaks("fn fitness(m) { m.distance[7] }", &["f.rhai:1:", "7"]);
    breaks(
        "fn fitness(m) { m.perplexity[\"wikitext\"] }",
        &["perplexity[\"wikitext\"]", "fitness.corpora", "did you mean \"wikitext2\"?"],
    );
    breaks("fn fitness(m) { let c = \"none\"; m.perplexity[c] }", &["none"]);
    breaks("fn fitness(m) { m.kl = 1.0; 1 }", &["f.rhai:1:"]);
    breaks("fn fitness(m) { throw \"too bad\" }", &["too bad", "f.rhai:1:17"]);
}

#[test]
fn results_that_are_no_number_are_refused() {
    breaks(
        "fn fitness(m) { \"good\" }",
        &["returned a value of type string", "f.rhai:1:1", "return a number", "made-up"],
    );
    breaks("fn fitness(m) { let x = m.kl; }", &["returned nothing", "end the function with the value"]);
    breaks("fn fitness(m) { m.distance }", &["type array"]);
    breaks("fn fitness(m) { true }", &["type bool"]);
    breaks("fn fitness(m) { let z = m.kl - m.kl; z / z }", &["returned NaN", "0 by 0"]);
    scripted("fn fitness(m) { 3 }").unwrap();
    scripted("fn fitness(m) { 1.0 / (m.kl - m.kl) }").unwrap();
}

#[test]
fn limits_end_what_would_not_end() {
    breaks("\nfn fitness(m) {\n  loop { }\n}", &["f.rhai:2:1", "1000000 operations"]);
    breaks("fn fitness(m) { let x = 0; while true { x += 1; } x }", &["1000000 operations"]);
    breaks("fn down(n) { down(n + 1) } fn fitness(m) { down(0) }", &["32 deep"]);
    breaks("fn fitness(m) { let s = \"a\"; loop { s += s; } }", &["4096 bytes"]);
    breaks("fn fitness(m) { let a = [1]; loop { a += a; } }", &["10000 elements"]);
    breaks("fn fitness(m) { let a = []; a.pad(1000000, 0); 1 }", &["f.rhai:1:"]);
    let deep = format!("fn fitness(m) {{ {}1{} }}", "(1 + ".repeat(200), ")".repeat(200));
    breaks(&deep, &["f.rhai:1:"]);
    breaks("loop { } fn fitness(m) { 1 }", &["1000000 operations"]);
}

#[test]
fn a_deadline_ends_what_the_count_of_operations_does_not() {
    let slow = "let a = []; a.pad(10000, 1); loop { ";
    for body in [
        "a.index_of(2); }",
        "a.reduce(|sum, x| sum + x, 0); }",
        "a.sort(|x, y| 0); }",
        "a.all(|x| x == 1); }",
    ] {
        let mut script = Script::compile("f.rhai", &format!("fn fitness(m) {{ {slow}{body} }}")).unwrap();
        script.patience = std::time::Duration::from_millis(50);
        let error = script.call(Metrics::new(BTreeMap::new())).unwrap_err();
        assert!(error.to_string().contains("a call may take 10 seconds"), "{body}: {error}");
    }
}

#[test]
fn long_scripts_and_many_functions_are_refused_before_they_are_compiled() {
    let functions = |n: usize| (0..n).map(|i| format!("fn f{i}() {{}} ")).collect::<String>();
    scripted(&format!("{}fn fitness(m) {{ 1 }}", functions(255))).unwrap();
    breaks(&format!("{}fn fitness(m) {{ 1 }}", functions(256)), &["f.rhai:1:"]);
    breaks(&format!("{}fn fitness(m) {{ 1 }}", functions(200_000)), &["bytes", "65536"]);
}

#[test]
fn nesting_without_an_end_is_an_error_and_no_crash() {
    for (open, middle, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("#{a:", "1", "}"),
        ("{", "1", "}"),
        ("-", "1", ""),
        ("!", "true", ""),
        ("if true {", "1", "}"),
        ("|x| ", "1", ""),
        ("1 ** ", "1", ""),
        ("x[", "0", "]"),
        ("`${", "1", "}`"),
    ] {
        breaks(
            &format!("fn fitness(m) {{ let x = [0]; {}{middle}{} }}", open.repeat(3000), close.repeat(3000)),
            &["f.rhai:1:"],
        );
    }
}

#[test]
fn a_script_reaches_nothing_outside() {
    for text in [
        "fn fitness(m) { eval(\"1\") }",
        "import \"other\" as o; fn fitness(m) { 1 }",
        "fn fitness(m) { sleep(1); 1 }",
        "fn fitness(m) { timestamp(); 1 }",
        "fn fitness(m) { open_file(\"x\"); 1 }",
    ] {
        assert!(scripted(text).is_err(), "{text}");
    }
    scripted("fn fitness(m) { print(m.kl); debug(m.kl); 1 }").unwrap();
}

#[test]
fn constants_and_helpers_work() {
    scripted("const PRICE = 2.0; fn square(x) { x * x } fn fitness(m) { m.kl + global::PRICE * square(m.flops / m.dense_flops) }").unwrap();
}

#[test]
fn a_model_of_one_layer_and_head_is_tried_too() {
    let config = Pico { layers: 1, heads: 1, kv_heads: 1, ..Pico::default() }.config().unwrap();
    let script =
        Script::compile("f.rhai", "fn fitness(m) { m.kl / m.heads[0] + m.neurons[-1] / m.dense_neurons[0] }")
            .unwrap();
    Scripted::new(script, &[], 0, &config, 1).unwrap();
    assert!(flops(&config, 0).is_finite());
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_examples_compile_and_run() {
    let files: Vec<PathBuf> =
        std::fs::read_dir(root("experiments/fitness")).unwrap().map(|e| e.unwrap().path()).collect();
    let scripts: Vec<&PathBuf> =
        files.iter().filter(|f| f.extension().is_some_and(|e| e == "rhai")).collect();
    assert!(scripts.len() >= 3);
    for file in scripts {
        check(file, &[]).unwrap();
    }
}

#[test]
fn checking_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.rhai");
    assert!(check(&file, &[]).unwrap_err().to_string().contains("mine.rhai"));
    std::fs::write(&file, "fn fitness(m) {\n m.kll }").unwrap();
    assert!(check(&file, &[]).unwrap_err().to_string().contains("mine.rhai:2:4"));
    std::fs::write(&file, "fn fitness(m) { m.heads[79] + m.perplexity[\"code\"].ln() }").unwrap();
    check(&file, &corpora()).unwrap();
    assert!(check(&file, &[]).unwrap_err().to_string().contains("fitness.corpora"));
}

#[test]
fn the_manual_has_the_table_and_the_limits() {
    use super::super::script::{
        CALL_DEPTH, ELEMENTS, EXPRESSION_DEPTH, FUNCTIONS, OPERATIONS, SECONDS, STRING, TEXT, VARIABLES,
    };
    let manual = std::fs::read_to_string(root("docs/fitness.md")).unwrap();
    assert!(manual.contains(&Metric::table()), "docs/fitness.md should have:\n{}", Metric::table());
    let plain = manual.replace(' ', "");
    let counts = [OPERATIONS as usize, SECONDS as usize, FUNCTIONS, TEXT];
    for limit in [CALL_DEPTH, ELEMENTS, EXPRESSION_DEPTH, STRING, VARIABLES].into_iter().chain(counts) {
        assert!(plain.contains(&format!("|{limit}|")), "{limit}");
    }
    for metric in Metric::all() {
        assert_eq!(Metric::from_name(metric.name()), Some(metric));
    }
}
