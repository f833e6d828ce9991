//! `tyr generate MODEL --prompt …`.

use std::io::{ErrorKind, Write};

use clap::Args;

use super::serve::parse_device;
use crate::base::{Kind, Result, ResultExt, Watch};
use crate::data::tokenizer::Tokenizer;
use crate::generate::{Sampling, Settings, write};
use crate::model::Model;
use crate::spec::DeviceChoice;
use crate::tensor::device;

/// Continue a text with a model, printing it as it comes.
#[derive(Debug, Clone, Args)]
pub(crate) struct GenerateArgs {
    /// Model folder, hf:OWNER/NAME, or builtin:quickstart.
    pub model: String,
    /// The text to continue.
    #[arg(long)]
    pub prompt: String,
    /// The largest number of tokens.
    #[arg(long, default_value_t = 128)]
    pub max_tokens: usize,
    /// 0 takes the likeliest token each time; up to 2 draws ever more freely.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f64,
    /// Draw from the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f64,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A text that ends the output and is not printed; may be given several times.
    #[arg(long)]
    pub stop: Vec<String>,
    /// Device: auto, cpu, cuda or metal.
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    pub device: DeviceChoice,
}

/// Prints the continuation on standard output; a reader that has gone away ends it.
pub(super) fn run(args: &GenerateArgs, watch: &dyn Watch) -> Result<()> {
    print_to(args, &mut std::io::stdout().lock(), watch)
}

fn print_to(args: &GenerateArgs, out: &mut dyn Write, watch: &dyn Watch) -> Result<()> {
    let source = super::model_source(&args.model)?;
    let tokenizer = Tokenizer::open(&source)?;
    let sampling = Sampling { temperature: args.temperature, top_p: args.top_p, seed: args.seed }.check()?;
    let settings =
        Settings { sampling, max_tokens: args.max_tokens, stop: args.stop.as_slice().into(), logprobs: None };
    let prompt = tokenizer.encode(&args.prompt)?;
    let model = Model::open(&source, &device(args.device)?)?;
    model.tell(watch);
    let mut left = false;
    let mut show = |text: &str| {
        let shown = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        left = shown.as_ref().is_err_and(|e| e.kind() == ErrorKind::BrokenPipe);
        shown.or_error(Kind::Disk, "cannot print")
    };
    let written = write(&model, &tokenizer, &prompt, &settings, watch, &mut show).and_then(|_| show("\n"));
    if left { Ok(()) } else { written }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::base::Silent;
    use crate::model::pico::Pico;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: GenerateArgs,
    }

    fn printed(line: &[&str]) -> Result<String> {
        let args = Line::try_parse_from([&["generate"], line].concat()).unwrap().args;
        let mut out = Vec::new();
        print_to(&args, &mut out, &Silent)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn text_is_printed_up_to_the_stop_and_repeats_by_its_seed() {
        let dir = tempfile::tempdir().unwrap();
        Pico::of_bytes(256).write(dir.path(), 3).unwrap();
        let folder = dir.path().to_str().unwrap();
        let drawn = |more: &[&str]| {
            printed(
                &[&[folder, "--prompt", "once", "--max-tokens", "40", "--temperature", "1"], more].concat(),
            )
            .unwrap()
        };
        let whole = drawn(&["--seed", "5"]);
        assert!(whole.len() > 5 && whole.ends_with('\n'));
        assert_eq!(drawn(&["--seed", "5"]), whole);
        assert_ne!(drawn(&["--seed", "6"]), whole);
        let stop = whole.chars().find(|c| c.is_ascii_alphanumeric()).unwrap().to_string();
        let cut = format!("{}\n", &whole[..whole.find(stop.as_str()).unwrap()]);
        assert_eq!(drawn(&["--seed", "5", "--stop", stop.as_str()]), cut);
    }

    /// A place that takes no text.
    struct Closed(ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_ends_the_text_and_a_full_disk_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        Pico::of_bytes(256).write(dir.path(), 3).unwrap();
        let line = ["generate", dir.path().to_str().unwrap(), "--prompt", "once"];
        let args = Line::try_parse_from(line).unwrap().args;
        print_to(&args, &mut Closed(ErrorKind::BrokenPipe), &Silent).unwrap();
        let full = print_to(&args, &mut Closed(ErrorKind::StorageFull), &Silent).unwrap_err();
        assert_eq!(full.kind, Kind::Disk);
    }

    #[test]
    fn wrong_values_and_an_empty_prompt_are_usage_errors() {
        let dir = tempfile::tempdir().unwrap();
        Pico::of_bytes(256).write(dir.path(), 3).unwrap();
        let folder = dir.path().to_str().unwrap();
        for line in [
            &["--prompt", "a", "--temperature", "3"][..],
            &["--prompt", "a", "--top-p", "2"],
            &["--prompt", ""],
        ] {
            assert_eq!(printed(&[&[folder], line].concat()).unwrap_err().kind, Kind::Usage, "{line:?}");
        }
    }
}
