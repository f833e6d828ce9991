//! `tyr schema`: the JSON schema of an experiment.

use crate::base::Result;

pub fn run() -> Result<()> {
    print!("{}", crate::spec::schema_json());
    Ok(())
}
