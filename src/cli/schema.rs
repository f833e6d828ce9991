//! `tyr schema`: the JSON schema of an experiment.

use crate::base::Result;

pub fn run() -> Result<()> {
    super::show(&crate::spec::schema_json())
}
