//! Named random streams: each use of chance draws from a stream of its own, derived from the seed and a name,
//! so that adding a draw in one place changes nothing elsewhere and any stream can be resumed in the middle.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The generator of every stream.
pub type Rng = ChaCha8Rng;

/// The stream `name` (for example `"search/2/17"`) under `seed`.
pub fn stream(seed: u64, name: &str) -> Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng as _;

    #[test]
    fn a_stream_depends_on_seed_and_name_only() {
        let draw = |seed, name| stream(seed, name).next_u64();
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }
}
