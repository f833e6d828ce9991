//! The population against each candidate alone, through its compacted model.

use super::*;
use crate::base::Silent;
use crate::data::{EvaluationSet, SearchSet, Sequences};
use crate::eval::perplexity::{divergence, perplexity};
use crate::model::pico::Pico;
use crate::search::Draw;
use crate::spec::{AttentionUnit, Target};
use crate::supernet::tests::{fixture, options, tokens};
use crate::tensor::attention::Segments;

mod kinds;
mod scripts;

fn sequences(count: usize) -> Sequences {
    Sequences { tokens: tokens(count * 24, "search"), length: 24 }
}

#[test]
fn the_population_agrees_with_each_candidate_alone() {
    for (unit, target) in [(AttentionUnit::Head, Target::Residual), (AttentionUnit::KvGroup, Target::Layer)] {
        let f = fixture(Pico { bias: unit == AttentionUnit::Head, ..Pico::default() });
        let supernet = f.build("net", f.space(unit, 0.5), &options(|p, _| p.target = target));
        let candidates = vec![
            vec![0; 6],
            vec![0, 1, 1, -1, -1, 0],
            vec![0, 1, 1, -1, 0, 0],
            vec![1, 2, -1, 0, 0, -2],
            vec![0; 6],
        ];
        let set = SearchSet(sequences(5));
        let wanted = Wanted { kl: vec![0], nll: true, layers: vec![0, 2] };
        let measured = Population::new(&f.model, &supernet, DenseStates::default())
            .measure(&candidates, &set, &whole(&[4, 1, 2]), &wanted, &Silent)
            .unwrap();
        assert_eq!(measured[0], measured[4]);
        assert!(measured.iter().all(|of| of.sequences.len() == 3));
        let measured: Vec<&Measured> = measured.iter().map(|of| &of.all).collect();
        let alone = EvaluationSet(set.0.pick(&[4, 1, 2]));
        for (i, candidate) in candidates.iter().enumerate() {
            let small = f.compacted(&supernet, candidate, &format!("small-{i}"));
            let kl = divergence(&small, &f.model, &alone, &Silent).unwrap().value;
            let nll = perplexity(&small, &alone, &Silent).unwrap().value.ln();
            assert!(
                (measured[i].kl[0] - kl).abs() < 1e-5 * (1.0 + kl),
                "kl {} alone {kl}",
                measured[i].kl[0]
            );
            assert!(
                (measured[i].nll - nll).abs() < 1e-5 * (1.0 + nll),
                "nll {} alone {nll}",
                measured[i].nll
            );
            let segments = Segments::sequences(3, 24);
            let last = |m: &crate::model::Model| m.hidden(&alone.0.tokens, &segments).unwrap();
            let distance =
                crate::tensor::loss::squared_distance(&last(&f.model), &last(&small)).unwrap() / 72.0;
            assert!(
                (measured[i].distances[1] - distance).abs() < 1e-3 * distance,
                "{} alone {distance}",
                measured[i].distances[1]
            );
        }
    }
}

#[test]
fn a_shorter_draw_measures_the_start_of_a_window() {
    let f = fixture(Pico::default());
    let supernet = f.build("net", f.space(AttentionUnit::Head, 0.5), &options(|_, _| {}));
    let set = SearchSet(sequences(4));
    let wanted = Wanted { kl: vec![0], nll: true, layers: vec![] };
    let mut population = Population::new(&f.model, &supernet, DenseStates::default());
    let mut measured =
        |drawn: &Drawn| population.measure(&[vec![0; 6]], &set, drawn, &wanted, &Silent).unwrap();
    let start = Drawn { whole: vec![], start: Some((2, 10)) };
    let short = measured(&start);
    measured(&whole(&[2]));
    assert_eq!(measured(&start), short);
    let cut = SearchSet(Sequences { tokens: set.0.get(2)[..10].to_vec(), length: 10 });
    let alone = Population::new(&f.model, &supernet, DenseStates::default())
        .measure(&[vec![0; 6]], &cut, &whole(&[0]), &wanted, &Silent)
        .unwrap();
    assert!((short[0].all.kl[0] - alone[0].all.kl[0]).abs() < 1e-9);
    assert_eq!((short[0].sequences.len(), &alone[0].sequences), (0, &vec![alone[0].all.clone()]));
}

#[test]
fn a_draw_of_no_whole_number_of_sequences_is_scored_on_the_tokens_asked() {
    let f = fixture(Pico::default());
    let supernet = f.build("net", f.space(AttentionUnit::Head, 0.5), &options(|_, _| {}));
    let set = SearchSet(sequences(4));
    let wanted = Wanted { kl: vec![0], nll: true, layers: vec![1] };
    let candidates = [vec![1, 1, -1, 0, 0, -1], vec![0; 6]];
    let measured = |drawn: &Drawn| {
        Population::new(&f.model, &supernet, DenseStates::default())
            .measure(&candidates, &set, drawn, &wanted, &Silent)
            .unwrap()
    };
    let drawn = Sampler::new(&set, 1, 1).sequences(&Draw::whole(1, 1, 58)).unwrap();
    assert_eq!((drawn.whole.len(), drawn.start.unwrap().1, drawn.counts(24)), (2, 10, (58, 55)));
    let all = measured(&drawn);
    let two = measured(&Drawn { start: None, ..drawn.clone() });
    let rest = measured(&Drawn { whole: vec![], ..drawn });
    for i in 0..2 {
        let mean = |of: fn(&Measured) -> f64| all[i].sequences.iter().map(of).sum::<f64>() / 2.0;
        assert_eq!(all[i].sequences, two[i].sequences);
        for (got, want) in [
            (mean(|m| m.kl[0]), two[i].all.kl[0]),
            (mean(|m| m.nll), two[i].all.nll),
            (mean(|m| m.distances[0]), two[i].all.distances[0]),
        ] {
            assert!((got - want).abs() < 1e-9 * (1.0 + want), "{got} {want}");
        }
        let (all, two, rest) = (&all[i].all, &two[i].all, &rest[i].all);
        let kl = (48.0 * two.kl[0] + 10.0 * rest.kl[0]) / 58.0;
        let nll = (46.0 * two.nll + 9.0 * rest.nll) / 55.0;
        let distance = (48.0 * two.distances[0] + 10.0 * rest.distances[0]) / 58.0;
        for (got, want) in [(all.kl[0], kl), (all.nll, nll), (all.distances[0], distance)] {
            assert!((got - want).abs() < 1e-9 * (1.0 + want), "{got} {want}");
        }
    }
}

/// Some sequences, whole.
fn whole(sequences: &[usize]) -> Drawn {
    Drawn { whole: sequences.to_vec(), start: None }
}

#[test]
fn draws_are_named_distinct_and_refuse_more_than_there_is() {
    let set = SearchSet(sequences(8));
    let sampler = Sampler::new(&set, 1, 1);
    let draw = |generation, stage, tokens| sampler.sequences(&Draw::whole(generation, stage, tokens));
    let a = draw(1, 1, 96).unwrap();
    assert_eq!((a.whole.len(), a.start), (4, None));
    assert_eq!(draw(1, 1, 96).unwrap(), a);
    assert_ne!(draw(2, 1, 96).unwrap(), a);
    assert_eq!(a.whole.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    let short = draw(1, 2, 10).unwrap();
    assert_eq!((short.whole.len(), short.start.unwrap().1), (0, 10));
    let more = draw(1, 1, 97).unwrap();
    assert_eq!((&more.whole, more.start.unwrap().1), (&a.whole, 1));
    assert!(!a.whole.contains(&more.start.unwrap().0) && draw(1, 1, 24 * 8).unwrap().start.is_none());
    let skipped = |skipped| sampler.sequences(&Draw { skipped, ..Draw::whole(1, 1, 96) }).unwrap();
    assert_eq!(skipped(24).whole, a.whole[1..]);
    assert_eq!(skipped(30).whole, a.whole[2..]);
    assert!(draw(1, 1, 24 * 9).unwrap_err().to_string().contains("search.tokens"));
}
