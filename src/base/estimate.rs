//! One number of a result: a value, its standard error, and what it is a mean over.

use serde::{Deserialize, Serialize};

/// A value with the standard error of its mean.
///
/// As JSON it is `{"value": …, "stderr": …, "n": …}`; a value that is not finite, which JSON has no number
/// for, is one of the strings `"NaN"`, `"inf"` and `"-inf"`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value, in the unit of what was measured; accuracies are fractions in 0..=1.
    #[serde(with = "json")]
    pub value: f64,
    /// Standard error; absent for a number that was counted, for a mean over one, and where it is not known.
    pub stderr: Option<f64>,
    /// Documents or tokens that the value is a mean over; absent for a number that was counted.
    pub n: Option<u64>,
}

impl Estimate {
    /// A number that was counted or computed, not estimated.
    pub fn exact(value: f64) -> Self {
        Self { value, stderr: None, n: None }
    }

    /// A mean over `n` documents or tokens.
    pub fn mean(value: f64, stderr: Option<f64>, n: usize) -> Self {
        Self { value, stderr, n: Some(n as u64) }
    }

    /// exp of the value, its standard error by the delta method: of a mean negative log-likelihood, the
    /// perplexity.
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, stderr: self.stderr.map(|s| s * value), n: self.n }
    }
}

/// An f64 that may be NaN or infinite: those are strings.
mod json {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            serializer.serialize_f64(*value)
        } else {
            serializer.serialize_str(&value.to_string())
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(Number)
    }

    struct Number;

    impl Visitor<'_> for Number {
        type Value = f64;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("a number, \"NaN\", \"inf\" or \"-inf\"")
        }

        fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
            Ok(value)
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
            Ok(value as f64)
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
            Ok(value as f64)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
            match text {
                "NaN" => Ok(f64::NAN),
                "inf" => Ok(f64::INFINITY),
                "-inf" => Ok(f64::NEG_INFINITY),
                other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_survive_json_whatever_they_are(bits: u64) {
            let estimate = Estimate::exact(f64::from_bits(bits));
            let text = serde_json::to_string(&estimate).unwrap();
            let read: Estimate = serde_json::from_str(&text).unwrap();
            prop_assert!(read.value.to_bits() == bits || estimate.value.is_nan() && read.value.is_nan());
        }
    }

    #[test]
    fn the_json_of_an_estimate_is_stable() {
        let text = |e: Estimate| serde_json::to_string(&e).unwrap();
        assert_eq!(text(Estimate::mean(0.5, Some(0.25), 4)), r#"{"value":0.5,"stderr":0.25,"n":4}"#);
        assert_eq!(text(Estimate::exact(f64::INFINITY)), r#"{"value":"inf","stderr":null,"n":null}"#);
        assert!(serde_json::from_str::<Estimate>(r#"{"value":"much"}"#).is_err());
    }

    #[test]
    fn the_error_of_an_exponential_grows_with_it() {
        let e = Estimate::mean(2.0, Some(0.1), 8).exp();
        assert_eq!((e.value, e.stderr, e.n), (2f64.exp(), Some(0.1 * 2f64.exp()), Some(8)));
    }
}
