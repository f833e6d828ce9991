//! What is timed: workloads that are listed twice, and those that are longer than the model's context.

use super::*;

#[test]
fn a_workload_is_timed_once() {
    let said = |text: &str| {
        let found = inspect_with(&format!("[evaluate.bench]\n{text}\n"), |_| {}).findings;
        found.into_iter().map(|f| format!("{} {}", f.key, f.message)).collect::<Vec<_>>()
    };
    for (text, expected) in [
        ("prompt = [8, 16, 8]", "evaluate.bench.prompt[2] 8 is listed twice"),
        ("output = [4, 4]", "evaluate.bench.output[1] 4 is listed twice"),
        ("batch = [1, 2, 3, 2]", "evaluate.bench.batch[3] 2 is listed twice"),
    ] {
        assert_eq!(said(text), [expected]);
    }
    assert_eq!(said("prompt = [8, 16]\noutput = [8, 16]\nbatch = [8, 16]"), [""; 0]);
}

#[test]
fn what_is_written_after_a_prompt_fits_the_context() {
    let inputs = |_: &Spec| Inputs { model: Some(ModelSizes { context: 512, layers: 4 }), faults: vec![] };
    let known = Known { inputs, ..KNOWN };
    let said = |text: &str| {
        let source = Source { path: "x.toml".into(), ..Source::default() };
        let found = inspect_text(&source, text, &known).unwrap().findings;
        let ours = found.into_iter().filter(|f| f.key.to_string().starts_with("evaluate.bench"));
        ours.map(|f| format!("{} {}", f.key, f.message)).collect::<Vec<_>>()
    };
    let longer = |prompt: usize, output: usize| {
        let words = "written after it is longer than the model's context of 512";
        vec![format!("evaluate.bench.prompt a prompt of {prompt} tokens with {output} {words}")]
    };
    let bench = |text: &str| said(&format!("[evaluate.bench]\n{text}\n"));
    assert_eq!(bench("prompt = [8, 448]\noutput = [64, 2]"), [""; 0]);
    assert_eq!(bench("prompt = [8, 449]\noutput = [64, 2]"), longer(449, 64));
    assert_eq!(bench("output = [2]"), longer(512, 2));
    assert_eq!(bench(""), longer(512, 64));
    assert_eq!(said(""), [""; 0]);
}

#[test]
fn a_pass_that_sparsity_counts_fits_the_context() {
    let inputs = |_: &Spec| Inputs { model: Some(ModelSizes { context: 512, layers: 4 }), faults: vec![] };
    let known = Known { inputs, ..KNOWN };
    let said = |sparsity: &str| {
        let source = Source { path: "x.toml".into(), ..Source::default() };
        let text = format!("[sparsity]\n{sparsity}\n");
        let found = inspect_text(&source, &text, &known).unwrap().findings;
        let ours = found.into_iter().filter(|f| f.key.to_string().starts_with("sparsity"));
        ours.map(|f| format!("{} {}", f.key, f.hint.unwrap_or_default())).collect::<Vec<_>>()
    };
    let with = |pass: &str| said(&format!("basis = 'latency'\nlatency = {{ {pass} }}"));
    assert_eq!(with("context = 511"), [""; 0]);
    assert_eq!(
        with("context = 512"),
        ["sparsity.latency.context set `sparsity.latency.context` to at most 511"]
    );
    assert_eq!(
        with("tokens = 513"),
        ["sparsity.latency.tokens set `sparsity.latency.tokens` to at most 512"]
    );
    assert_eq!(said("basis = 'flops'"), [""; 0], "nothing is timed");
}
