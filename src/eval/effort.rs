//! What an evaluation took: requests, tokens, seconds.

use std::fmt;

/// Requests answered and tokens run, with the time from the first look at the task files to the last score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// Requests: one per choice of a document, one per sequence of a page.
    pub requests: u64,
    /// Tokens; not known of requests that came in over HTTP.
    pub tokens: Option<Tokens>,
    /// Seconds, of a clock on the wall.
    pub seconds: f64,
}

/// Tokens of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// Inputs of all requests, each by itself.
    pub asked: u64,
    /// Those that were run: what several requests begin with is run once.
    pub computed: u64,
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { requests, tokens, seconds } = self;
        write!(
            f,
            "{requests} requests in {seconds:.1} s ({:.1} a second)",
            *requests as f64 / seconds.max(1e-9)
        )?;
        let Some(Tokens { asked, computed }) = tokens else { return Ok(()) };
        let percent = 100.0 * *computed as f64 / (*asked).max(1) as f64;
        write!(f, ", {asked} tokens asked, {computed} computed ({percent:.1}%)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effort_reads_as_a_sentence() {
        let effort =
            Effort { requests: 50, tokens: Some(Tokens { asked: 400, computed: 100 }), seconds: 4.0 };
        assert_eq!(
            effort.to_string(),
            "50 requests in 4.0 s (12.5 a second), 400 tokens asked, 100 computed (25.0%)"
        );
        assert_eq!(Effort { tokens: None, ..effort }.to_string(), "50 requests in 4.0 s (12.5 a second)");
    }

    #[test]
    fn nothing_done_in_no_time_is_no_infinity() {
        let nothing = Effort { requests: 0, tokens: Some(Tokens { asked: 0, computed: 0 }), seconds: 0.0 };
        assert_eq!(
            nothing.to_string(),
            "0 requests in 0.0 s (0.0 a second), 0 tokens asked, 0 computed (0.0%)"
        );
    }
}
