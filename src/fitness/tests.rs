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
            .measure(&candidates, &set, &[4, 1, 2], 24, &wanted, &Silent)
            .unwrap();
        assert_eq!(measured[0], measured[4]);
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
    let short = population.measure(&[vec![0; 6]], &set, &[2], 10, &wanted, &Silent).unwrap();
    population.measure(&[vec![0; 6]], &set, &[2], 24, &wanted, &Silent).unwrap();
    assert_eq!(population.measure(&[vec![0; 6]], &set, &[2], 10, &wanted, &Silent).unwrap(), short);
    let cut = SearchSet(Sequences { tokens: set.0.get(2)[..10].to_vec(), length: 10 });
    let alone = Population::new(&f.model, &supernet, DenseStates::default())
        .measure(&[vec![0; 6]], &cut, &[0], 10, &wanted, &Silent)
        .unwrap();
    assert!((short[0].kl[0] - alone[0].kl[0]).abs() < 1e-9);
}

#[test]
fn draws_are_named_distinct_and_refuse_more_than_there_is() {
    let set = SearchSet(sequences(8));
    let sampler = Sampler::new(&set, 1, 1);
    let draw = |generation, stage, tokens| sampler.sequences(&Draw { generation, stage, tokens });
    let (a, length) = draw(1, 1, 96).unwrap();
    assert_eq!((a.len(), length), (4, 24));
    assert_eq!(draw(1, 1, 96).unwrap().0, a);
    assert_ne!(draw(2, 1, 96).unwrap().0, a);
    assert_eq!(a.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    assert_eq!(draw(1, 2, 10).unwrap().1, 10);
    assert!(draw(1, 1, 24 * 9).unwrap_err().to_string().contains("search.tokens"));
}
