//! One description of a trial: its steps in their order, what they and the models are called, what each
//! result depends on, and what a model is evaluated on.
//!
//! [`walk`] goes through a trial and calls [`Steps`], of which there are two: the runner executes a step, the
//! plan estimates it. So what a plan lists is what a run does.
//!
//! ```text
//! evaluate dense ─┬─ supernet ─ (first: uniform model) ─ sensitivities ─ search ─ model ─┐  (once per interval)
//!                 │      ▲                                                               │
//!                 │      └───────────────────────────────────────────────────────────────┘
//!                 └─ refit: supernet of one level ─ model
//! ```
//!
//! Before all of it, modules of several sizes are timed where sparsity is a share of time.
//!
//! [`keys`] has the addresses under which results are stored, and a version for each kind of step.

mod evaluations;
pub mod keys;
mod names;
mod sparsity;
mod stored;
mod walk;

pub use evaluations::{Evaluation, evaluations, kl_sequences};
pub use keys::{InputHashes, Key};
pub use names::{ModelName, StepKind, StepName, SupernetName};
pub use sparsity::{Sizing, bounds};
pub use stored::{COST, FOUND, Found, KEY, LATENCIES, MANIFEST, Manifest, SENSITIVITIES};
pub use walk::{Build, Outcome, Searched, Steps, sensitivities, walk};
