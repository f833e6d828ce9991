//! `tyr schema`: the JSON schema of an experiment.

use crate::base::Result;

pub(crate) fn run() -> Result<()> {
    super::show(&crate::spec::schema_json())
}
