//! Answers computed elsewhere: the fixture of this repository, and the shared golden cases where they are.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::*;
use crate::base::testing::shared;

#[derive(Deserialize)]
struct Fixture {
    inputs: Vec<Vec<f64>>,
    weight: Vec<Vec<f64>>,
    targets: Vec<Vec<f64>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    width: usize,
    step: usize,
    damping: f64,
    first_order: bool,
    second_order: bool,
    one_shot: bool,
    correlated: bool,
    saliency: Vec<f64>,
    removal_order: Vec<u32>,
    levels: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    removed: usize,
    kept: Vec<u32>,
    weight: Vec<Vec<f64>>,
    loss: f64,
}

fn matrix(rows: &[Vec<f64>]) -> Mat<f64> {
    Mat::from_fn(rows.len(), rows.first().map_or(0, Vec::len), |i, j| rows[i][j])
}

#[test]
fn every_case_of_the_fixture_agrees() {
    let fixture: Fixture =
        serde_json::from_str(include_str!("../../../tests/fixtures/local_pruning.json")).unwrap();
    assert!(fixture.cases.len() >= 20);
    for case in &fixture.cases {
        let targets = case.correlated.then(|| matrix(&fixture.targets));
        agrees(case, &problem(&matrix(&fixture.inputs), matrix(&fixture.weight), targets.as_ref()));
    }
}

fn agrees(case: &Case, problem: &Problem) {
    let ranking = if case.one_shot { Ranking::OneShot } else { Ranking::Progressive };
    let saliency = Saliency { first_order: case.first_order, second_order: case.second_order };
    let units = case.saliency.len();
    let setup = Setup {
        units,
        width: case.width,
        step: case.step,
        saliency,
        ranking,
        damping: arithmetic(case.damping),
    };
    let pruned =
        prune(problem, &setup, &case.levels.iter().map(|level| level.removed).collect::<Vec<_>>()).unwrap();
    assert!(pruned.saliency.iter().zip(&case.saliency).all(|(a, b)| (a - b).abs() < 1e-9 * b));
    assert!(pruned.keep_order.iter().rev().zip(&case.removal_order).all(|(a, b)| a == b));
    for (level, answer) in pruned.levels.iter().zip(&case.levels) {
        let mut kept = pruned.keep_order[..units - level.removed].to_vec();
        kept.sort();
        assert_eq!(kept, answer.kept);
        let full = spread(level, &pruned.keep_order, &setup);
        let channel = |j: usize| answer.kept[j / case.width] as usize * case.width + j % case.width;
        let expected = Mat::from_fn(full.ncols(), kept.len() * case.width, |i, j| answer.weight[i][j]);
        let found = Mat::from_fn(full.ncols(), kept.len() * case.width, |i, j| full[(channel(j), i)]);
        assert!(kept.is_empty() || distance(found.as_ref(), expected.as_ref()) < 1e-6);
        assert!((loss(level) - answer.loss).abs() < 1e-9 * answer.loss.abs().max(1.0));
    }
}

#[derive(Deserialize)]
struct Golden {
    unit_width: usize,
    step: usize,
    levels: Vec<usize>,
    damping: f64,
    first_order: bool,
    second_order: bool,
}

#[test]
fn the_shared_golden_cases_agree() {
    let Some(folder) = shared("golden/local_pruning") else { return };
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    assert!(!files.is_empty());
    files.iter().for_each(|path| golden(path));
}

fn golden(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let case: Golden = serde_json::from_str(&header.metadata().as_ref().unwrap()["case"]).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let x = read(&tensors, "inputs");
    let dense = read(&tensors, "weight").transpose().to_owned();
    let saliency = Saliency { first_order: case.first_order, second_order: case.second_order };
    let units = dense.nrows() / case.unit_width;
    let setup =
        Setup { damping: arithmetic(case.damping), saliency, ..setup(units, case.unit_width, case.step) };
    let pruned = prune(&problem(&x, dense.clone(), None), &setup, &case.levels).unwrap();
    let energy = 0.5 * (&x * &dense).squared_norm_l2();
    for level in &pruned.levels {
        let kept = tensors.tensor(&format!("kept_{}", level.removed)).unwrap();
        assert!(
            pruned.keep_order[..units - level.removed].iter().all(|&unit| kept.data()[unit as usize] == 1),
            "{path:?} {}",
            level.removed
        );
        assert_eq!(kept.data().iter().filter(|&&kept| kept == 1).count(), units - level.removed);
        let expected = read(&tensors, &format!("weight_{}", level.removed));
        let found = spread(level, &pruned.keep_order, &setup);
        assert!(
            level.removed == units || distance(found.transpose(), expected.as_ref()) < 1e-6,
            "{path:?} {}",
            level.removed
        );
        assert!(
            (loss(level) - read(&tensors, &format!("loss_{}", level.removed))[(0, 0)]).abs() < 1e-12 * energy
        );
    }
}

/// A tensor of one or two dimensions as f64.
fn read(tensors: &SafeTensors, name: &str) -> Mat<f64> {
    let view = tensors.tensor(name).unwrap();
    let values: Vec<f64> = match view.dtype() {
        Dtype::F64 => {
            view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        }
        Dtype::F32 => {
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
        }
        other => panic!("{name} is {other:?}"),
    };
    let columns = view.shape()[view.shape().len() - 1];
    Mat::from_fn(values.len() / columns, columns, |i, j| values[i * columns + j])
}
