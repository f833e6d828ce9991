//! The card of a model folder (README.md): where the model comes from, what its layers keep, how good it is, how it
//! is loaded, and the experiment that made it. Pure: facts in, text out.

use super::beside;
use super::figure::ResultRow;
use super::grid::{Column, Grid, Role};
use super::number::capitalised;
use super::{layers, number, speed};
use crate::model::provenance::Provenance;
use crate::model::{Config, LayerShape, plain};
use crate::spec::Form;

/// What a card tells; what is not known is left out.
#[derive(Debug, Clone)]
pub struct Card<'a> {
    /// Its heading.
    pub title: String,
    /// The dense model, as a spec names it.
    pub source: &'a str,
    /// Where that comes from.
    pub provenance: &'a Provenance,
    /// The form in which the model lies beside the card.
    pub form: Form,
    /// What is not as in the model that was exported.
    pub notes: &'a [String],
    /// The model in the sizes that lie beside the card.
    pub config: &'a Config,
    /// The files that lie there.
    pub files: &'a [String],
    /// The dense model.
    pub dense: Option<&'a Config>,
    /// Figures of the dense model and of this one, and of exports.
    pub rows: Vec<ResultRow>,
    /// What exports were compared on.
    pub compared_on: Option<String>,
    /// The experiment, every key written.
    pub spec: Option<&'a str>,
}

impl Card<'_> {
    /// The card as Markdown with the front matter that the hub reads.
    pub fn text(&self) -> String {
        let scores = beside::scores(self.rows.iter()).map(|grid| section("Scores", &grid.markdown()));
        let spec = self.spec.map(|spec| {
            let fenced = format!("```toml\n{}\n```\n", spec.trim_end());
            section("Experiment", &format!("The spec of the run, every key written:\n\n{fenced}"))
        });
        let parts = [
            Some(self.front_matter()),
            Some(format!("# {}\n\n{}", self.title, self.summary())),
            Some(section("Layers", &self.layers())),
            (!self.notes.is_empty()).then(|| section("Not as in the model", &bullets(self.notes))),
            scores,
            self.compared(),
            self.speed(),
            Some(section("Loading", &self.loading())),
            Some(section("Licence", &self.licence())),
            spec,
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    /// How far the files are from the model that was exported, where that was measured.
    fn compared(&self) -> Option<String> {
        let own = self.rows.iter().filter(|row| row.metric().form() == Some(self.form));
        let grid = beside::exports(own)?;
        let on = self.compared_on.as_ref().map(|text| format!(" on {text}")).unwrap_or_default();
        let text = format!(
            "Read back by tyr and compared with the model that was exported{on}.\n\n{}",
            grid.markdown()
        );
        Some(section("Against the model", &text))
    }

    fn front_matter(&self) -> String {
        let licence =
            self.provenance.licence.iter().map(|(key, value)| format!("{key}: {}\n", quoted(value)));
        let base =
            self.provenance.base.iter().map(|name| format!("- {}\n", quoted(name))).collect::<String>();
        let base = if base.is_empty() { base } else { format!("base_model:\n{base}") };
        let library = match self.form {
            Form::Hf | Form::Stock => "transformers",
            Form::Mlx => "mlx",
            Form::Gguf => "gguf",
        };
        let licence: String = licence.collect();
        let tags = if self.is_pruned() { "- tyr\n- pruning" } else { "- tyr" };
        format!(
            "---\n{licence}{base}library_name: {library}\npipeline_tag: text-generation\ntags:\n{tags}\n---\n"
        )
    }

    fn is_pruned(&self) -> bool {
        self.dense.is_some() || self.spec.is_some() || !self.config.is_dense()
    }

    fn summary(&self) -> String {
        let base = self.provenance.title(self.source);
        let own = number::count(self.config.parameters().total() as f64);
        let sizes = match self.dense.map(|dense| number::count(dense.parameters().total() as f64)) {
            Some(dense) => format!("{own} parameters of {dense}"),
            None => format!("{own} parameters"),
        };
        if !self.is_pruned() {
            return format!("`{base}` in the form `{}`, written by tyr: {sizes}.\n", self.form);
        }
        format!("`{base}` pruned by tyr, which removes whole attention heads and MLP neurons: {sizes}.\n")
    }

    /// What the layers keep: a row for each, or one where all are alike.
    fn layers(&self) -> String {
        let dense = self.dense.map(Config::dense_layer);
        let all = &self.config.layers;
        let rows: Vec<Vec<String>> = match plain::alike(all) {
            Some(layer) => vec![row(format!("all {}", all.len()), layer, dense.as_ref())],
            None => all.iter().enumerate().map(|(i, l)| row(i.to_string(), l, dense.as_ref())).collect(),
        };
        let heads = ["layer", "query heads", "", "key/value heads", "neurons", ""];
        let role = |name: &str| if name.is_empty() { Role::Bar } else { Role::Summary };
        let shown = |name: &&str| dense.is_some() || !name.is_empty();
        let columns =
            heads.into_iter().filter(shown).map(|name| Column { name: name.into(), role: role(name) });
        Grid { columns: columns.collect(), rows }.markdown()
    }

    /// What a bench of the trial timed; nothing without one.
    fn speed(&self) -> Option<String> {
        let tables = speed::of_figures(self.rows.iter());
        let each =
            tables.iter().map(|table| format!("{}:\n\n{}", capitalised(&table.title), table.grid.markdown()));
        (!tables.is_empty()).then(|| {
            section("Speed", &std::iter::once(TIMED.into()).chain(each).collect::<Vec<_>>().join("\n"))
        })
    }

    fn loading(&self) -> String {
        match self.form {
            Form::Hf if self.config.family.per_layer => {
                let code = ["trust_remote_code=True"];
                [transformers(&code, TESTED), harness(&code), TYR.into()].concat()
            }
            Form::Hf => [transformers(&[], self.plain_versions()), harness(&[]), TYR.into()].concat(),
            Form::Stock => [transformers(&[], self.plain_versions()), harness(&[])].concat(),
            Form::Gguf => {
                let file = self.files.iter().find(|file| file.ends_with(".gguf"));
                LLAMA_CPP.replace("FILE.gguf", file.map_or("FILE.gguf", String::as_str))
            }
            Form::Mlx => MLX.into(),
        }
    }

    /// The versions of transformers that run the plain family as it is meant.
    fn plain_versions(&self) -> &'static str {
        let config = self.config;
        let is_full = config.heads * config.head_width == config.hidden;
        let scaled = config.rope_scaling.is_some() && config.family.model_type == "mistral";
        match (is_full, scaled) {
            (true, false) => PLAIN,
            (false, false) => PLAIN_NARROW,
            (_, true) => PLAIN_SCALED,
        }
    }

    fn licence(&self) -> String {
        let base = self.provenance.title(self.source);
        match &self.provenance.licence[..] {
            [] => format!("That of `{base}`, which does not come with a card that names it.\n"),
            known => {
                let known: Vec<&str> = known.iter().map(|(_, value)| value.as_str()).collect();
                format!("That of `{base}`: {}.\n", known.join(", "))
            }
        }
    }
}

/// A list.
fn bullets(items: &[String]) -> String {
    items.iter().map(|item| format!("- {item}\n")).collect()
}

const TIMED: &str = "Of tyr, on the machine of the run, in turn with the dense model: medians of the rounds, after ± the larger \
                     distance of a quartile.\n";
const TESTED: &str = "The layers have sizes of their own, which `modeling_pruned_llama.py` in this folder builds: \
                      transformers 4.44 to 5.24 were tested.";
const PLAIN: &str =
    "All layers are alike: a class that every runtime has, vLLM and TGI included, and no code of ours.";
const PLAIN_NARROW: &str = "All layers are alike: a class that every runtime has, and no code of ours. The width of a head \
     is given by `head_dim`, which needs transformers 4.48 or later; earlier ones refuse the shapes.";
const PLAIN_SCALED: &str = "All layers are alike: a class that every runtime has, and no code of ours. The rotary embedding \
     is scaled, which this class needs transformers 4.48 or later for: **earlier ones leave the scaling out without a word**.";
const TYR: &str = "tyr:\n\n```sh\ntyr generate FOLDER --prompt \"Once\"\ntyr eval FOLDER --tasks rte\ntyr serve FOLDER\n```\n\n\
                   Other runtimes: `tyr export FOLDER --to gguf` (llama.cpp, Ollama), `--to mlx` (MLX-LM), \
                   `--to stock` (any, zeros where something was removed).\n";
const LLAMA_CPP: &str = "llama.cpp:\n\n```sh\nllama-cli -m FILE.gguf -p \"Once\"\n```\n\n\
                         Ollama: a Modelfile with the line `FROM ./FILE.gguf`.\n";
const MLX: &str = "`FOLDER` is the folder of this card.\n\nMLX-LM:\n\n```sh\nmlx_lm.generate --model FOLDER --prompt \"Once\"\n```\n";

fn transformers(more: &[&str], remark: &str) -> String {
    let more: String = more.iter().map(|argument| format!(", {argument}")).collect();
    format!(
        "{remark} `FOLDER` is the folder of this card, or its name on the hub.\n\ntransformers:\n\n```python\n\
         from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
         model = AutoModelForCausalLM.from_pretrained(\"FOLDER\"{more})\n\
         tokenizer = AutoTokenizer.from_pretrained(\"FOLDER\"{more})\n```\n\n"
    )
}

fn harness(more: &[&str]) -> String {
    let more: String = more.iter().map(|argument| format!(",{argument}")).collect();
    let command = format!("lm_eval --model hf --model_args pretrained=FOLDER{more} --tasks rte");
    format!("lm-evaluation-harness:\n\n```sh\n{command}\n```\n\n")
}

fn section(title: &str, text: &str) -> String {
    format!("## {title}\n\n{text}")
}

/// A layer's cells, with bars where the dense sizes are known.
fn row(name: String, layer: &LayerShape, dense: Option<&LayerShape>) -> Vec<String> {
    let groups = &layer.query_heads_per_kv;
    let regular = groups.iter().all(|group| group == &groups[0]);
    let each = groups.iter().map(usize::to_string).collect::<Vec<_>>().join("+");
    let split = if regular { String::new() } else { format!(" ({each})") };
    let (heads, kv, neurons) = (layer.heads(), layer.kv_heads(), layer.intermediate_size);
    let Some(dense) = dense else {
        return vec![name, format!("{heads}{split}"), kv.to_string(), neurons.to_string()];
    };
    let of = |kept: usize, all: usize| format!("{kept}/{all}");
    let of_heads = of(heads, dense.heads());
    vec![
        name,
        format!("{of_heads}{split}"),
        layers::bar((heads, dense.heads())),
        of(kv, dense.kv_heads()),
        of(neurons, dense.intermediate_size),
        layers::bar((neurons, dense.intermediate_size)),
    ]
}

/// A YAML scalar: plain where nothing in it has a meaning there.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:+".contains(c);
    let plain = value.chars().all(is_plain) && value.starts_with(|c: char| c.is_ascii_alphanumeric());
    if plain { value.into() } else { serde_json::json!(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::figure::tests::{figure, mean};
    use super::*;
    use crate::model::pico::Pico;
    use crate::model::save::with_layers;

    fn layer(groups: &[usize], neurons: usize) -> LayerShape {
        LayerShape { query_heads_per_kv: groups.to_vec(), intermediate_size: neurons }
    }

    fn card(
        config: &Config,
        dense: Option<&Config>,
        provenance: &Provenance,
        form: Form,
        full: bool,
    ) -> String {
        let rows = vec![
            figure("t", "dense", "parameters", 25_000.0),
            figure("t", "refit", "parameters", 18_000.0),
            figure("t", "refit", "sparsity", 0.5),
            mean("t", "dense", "perplexity/wikitext2", 6.1234, 0.05, 1000),
            mean("t", "refit", "perplexity/wikitext2", 7.25, 0.06, 1000),
            mean("t", "refit", "acc/rte", 0.5, 0.03, 277),
            mean("t", "refit", "lm_eval:acc/rte", 0.5, 0.03, 277),
            figure("t", "refit", "export_bytes/gguf", 21_000_000.0),
            figure("t", "refit", "export_perplexity/gguf", 7.251234),
            figure("t", "refit", "export_perplexity/mlx", 7.4),
            figure("t", "refit", "bench_dense_first_token_s/512+64x1", 2.0),
            mean("t", "refit", "bench_first_token_s/512+64x1", 1.0, 0.0, 5),
            figure("t", "refit", "bench_first_token_s_low/512+64x1", 0.9),
            figure("t", "refit", "bench_first_token_s_high/512+64x1", 1.2),
            figure("t", "refit", "bench_peak_bytes/512+64x1", 5e6),
        ];
        let card = Card {
            title: "tiny".into(),
            source: "models/tiny",
            provenance,
            form,
            notes: &[],
            config,
            files: &["README.md".into(), "model-f16.gguf".into()],
            dense,
            rows: if full { rows } else { vec![] },
            compared_on: Some("1024 tokens of generated text".into()),
            spec: full.then_some("name = \"tiny\"\n\n[sparsity]\ntarget = 0.5\n"),
        };
        card.text()
    }

    #[test]
    fn a_card_of_a_run_tells_everything() {
        let dense = Pico::default().config().unwrap();
        let layers = vec![layer(&[2, 1], 24), layer(&[], 48), layer(&[2], 0)];
        let config = with_layers(&dense, layers).unwrap();
        let provenance = Provenance {
            base: vec!["owner/name".into()],
            licence: vec![("license", "other".into()), ("license_name", "a licence: theirs".into())],
        };
        insta::assert_snapshot!(card(&config, Some(&dense), &provenance, Form::Hf, true));
    }

    #[test]
    fn a_card_of_alike_layers_needs_no_code_of_ours() {
        let dense = Pico::default().config().unwrap();
        let config = with_layers(&dense, vec![layer(&[1, 1], 24); 3]).unwrap();
        let text = card(&config, None, &Provenance::default(), Form::Hf, false);
        insta::assert_snapshot!(text);
        let narrow = with_layers(&dense, vec![layer(&[3], 24); 3]).unwrap();
        assert_eq!(narrow.family.model_type, "mistral");
        assert!(card(&narrow, None, &Provenance::default(), Form::Stock, false).contains("4.48 or later"));
    }

    #[test]
    fn figures_of_an_export_have_a_table_of_their_own_in_its_card() {
        let dense = Pico::default().config().unwrap();
        let text = card(&dense, Some(&dense), &Provenance::default(), Form::Gguf, true);
        assert!(!text.contains("export_"), "{text}");
        let own = text.split("## Against the model").nth(1).unwrap().split("##").next().unwrap();
        assert!(own.contains("1024 tokens of generated text") && own.contains("7.25"), "{own}");
        assert!(own.contains("gguf") && !own.contains("mlx"), "{own}");
        assert!(text.contains("-m model-f16.gguf") && text.contains("./model-f16.gguf`"), "{text}");
    }

    #[test]
    fn more_heads_than_the_dense_model_has_fill_the_bar() {
        let dense = LayerShape { query_heads_per_kv: vec![1], intermediate_size: 1 };
        let cells = row("0".into(), &layer(&[2, 2], 32), Some(&dense));
        assert_eq!(cells[2], cells[5]);
        assert!(cells[1].starts_with("4/1") && !cells[2].contains('░'), "{cells:?}");
    }

    #[test]
    fn every_form_says_how_it_is_loaded() {
        let dense = Pico::default().config().unwrap();
        let loaded = |form| card(&dense, None, &Provenance::default(), form, false);
        for (form, words) in [(Form::Gguf, "llama-cli"), (Form::Mlx, "mlx_lm"), (Form::Stock, "lm_eval")] {
            assert!(loaded(form).contains(words), "{form:?}");
        }
    }
}
