//! What the admitted requests may hold together: every position of a request costs bytes until its answer
//! has been taken, and a request that would hold too much is refused before it holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;

use super::error::ApiError;

/// Bytes of a position: its token in the request, in its work and in its sequence, and its text.
const POSITION: usize = 32;

/// Bytes of a position whose log-probability is requested: its entry, and its part of the answer as JSON.
const ENTRY: usize = 320;

/// Bytes of each likeliest token of such a position.
const LIKELIEST: usize = 96;

/// Bytes that a byte of a body may become while the body is read.
const READING: usize = 8;

/// Bytes that this many positions cost: with this many likeliest tokens each, or without log-probabilities.
pub(super) fn cost(positions: usize, logprobs: Option<usize>) -> usize {
    let each = POSITION + logprobs.map_or(0, |k| ENTRY + k * LIKELIEST);
    positions.saturating_mul(each)
}

/// Bytes that a body costs while it is read.
pub(super) fn reading(body: usize) -> usize {
    body.saturating_mul(READING)
}

/// Bytes for all requests together.
pub(super) struct Budget {
    held: AtomicUsize,
    /// Of one request.
    each: usize,
    all: usize,
}

impl Budget {
    /// Of this many bytes for one request and for all.
    pub(super) fn new(each: usize, all: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), each, all })
    }

    /// A request's reservation, which holds nothing yet.
    pub(super) fn reservation(self: &Arc<Self>) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }

    /// Bytes that are held now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// What a request holds, until dropped.
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Holds this many bytes more.
    ///
    /// # Errors
    /// 400 when this request alone would hold more than one may, 429 when all of them together would.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let own = self.bytes.saturating_add(bytes);
        if own > self.budget.each {
            return Err(too_much(own, self.budget.each));
        }
        let all = self.budget.all;
        let fits = |held: usize| held.checked_add(bytes).filter(|&sum| sum <= all);
        self.budget.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| full())?;
        self.bytes = own;
        Ok(())
    }

    /// Gives back this many of its bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

fn too_much(bytes: usize, most: usize) -> ApiError {
    let mebibytes = |b: usize| b.div_ceil(1 << 20);
    let what = format!(
        "the tokens and log-probabilities that are requested take {} MiB or more, and a request may take \
         {}: send fewer or shorter prompts at once, ask for fewer log-probabilities or a smaller max_tokens, \
         or serve with a larger --request-memory",
        mebibytes(bytes),
        mebibytes(most)
    );
    ApiError::bad("prompt", what).code("token_budget_exceeded")
}

fn full() -> ApiError {
    let what =
        "the tokens of the running and waiting requests take all the memory that is allowed; try again later";
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, what).code("token_budget_full")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_bounded_alone_and_with_others_and_comes_back() {
        let budget = Budget::new(100, 150);
        let mut one = budget.reservation();
        let mut two = budget.reservation();
        one.grow(60).unwrap();
        let refused = one.grow(41).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (400, Some("token_budget_exceeded")));
        two.grow(90).unwrap();
        let refused = one.grow(1).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (429, Some("token_budget_full")));
        two.shrink(30);
        one.grow(30).unwrap();
        assert_eq!(budget.held(), 150);
        drop(one);
        assert_eq!(budget.held(), 60);
        assert_eq!(two.grow(usize::MAX).unwrap_err().status.as_u16(), 400);
        drop(two);
        assert_eq!(budget.held(), 0);
    }
}
