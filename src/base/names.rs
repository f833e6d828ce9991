//! Names of models: paths, those of the hub, those of what is built in.

/// The last part of what names a model: of a folder its name, of a hub model (`hf:OWNER/NAME@REVISION`) the
/// model's, of a built-in one what follows the colon.
pub fn last_part(name: &str) -> &str {
    let on_hub = name.starts_with("hf:");
    let whole = name.trim_end_matches('/');
    let last = whole.rsplit(['/', ':']).next().unwrap_or(whole);
    if on_hub { last.split('@').next().unwrap_or(last) } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_last_part() {
        for (name, last) in [
            ("hf:owner/name", "name"),
            ("hf:owner/name@main", "name"),
            ("owner/name", "name"),
            ("runs/x/half/", "half"),
            ("runs/a@b", "a@b"),
            ("builtin:quickstart", "quickstart"),
            ("model", "model"),
        ] {
            assert_eq!(last_part(name), last, "{name}");
        }
    }
}
