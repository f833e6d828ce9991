//! What a step cost this process: wall seconds and peak resident memory; by how much memory grew.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What one step took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall time, seconds.
    pub seconds: f64,
    /// Peak resident memory during the step, bytes; absent where the system does not report it.
    pub peak_bytes: Option<u64>,
}

/// Measures from its start to [`Meter::stop`].
pub struct Meter {
    started: Instant,
}

impl Meter {
    /// Starts the clock and forgets the process's earlier memory peak (Linux; elsewhere the peak is the
    /// process's).
    pub fn start() -> Self {
        give_back();
        // Without the permission to reset, the peak stays the process's own: larger, never smaller, than the
        // step's.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { started: Instant::now() }
    }

    /// What was used since the start.
    pub fn stop(self) -> Cost {
        self.so_far()
    }

    /// What was used until now, the clock going on.
    pub fn so_far(&self) -> Cost {
        Cost { seconds: self.started.elapsed().as_secs_f64(), peak_bytes: peak_resident() }
    }
}

/// Measures by how much the process's memory grows beyond what it holds at the start.
pub struct Growth {
    /// Resident then, bytes; absent where the system does not tell, or does not let earlier peaks be forgotten.
    before: Option<u64>,
}

impl Growth {
    /// Forgets the process's earlier peak, as [`Meter::start`] does: a meter that runs then tells the peak from now on.
    pub fn start() -> Self {
        give_back();
        let forgotten = std::fs::write("/proc/self/clear_refs", "5").ok();
        Self { before: forgotten.and_then(|()| of_status("VmRSS:")) }
    }

    /// The most by which resident memory was larger than at the start, bytes.
    pub fn stop(self) -> Option<u64> {
        Some(peak_resident()?.saturating_sub(self.before?))
    }
}

/// Lets the allocator give back what was freed before, so that a peak is the step's own.
fn give_back() {
    // SAFETY: takes no pointer and may be called at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Lets the allocator hold what was freed for a while instead of 10 ms: loops that take and free the same memory
/// would else find it gone, and the system clears every page that it gives again.
pub fn keep_pages() {
    /// `mi_option_purge_delay`, which the crate has no name for.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const MILLISECONDS: std::ffi::c_long = 1_000;
    // SAFETY: takes no pointer and may be called at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) }
}

/// Peak resident set of this process in bytes, from the kernel's accounting.
pub fn peak_resident() -> Option<u64> {
    of_status("VmHWM:")
}

/// A line of the kernel's accounting, in bytes.
fn of_status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with(name))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_allocates_shows_in_its_peak() {
        let meter = Meter::start();
        let block = vec![1u8; 64 << 20];
        assert_eq!(block.iter().map(|&b| b as u64).sum::<u64>(), 64 << 20);
        let cost = meter.stop();
        assert!(cost.seconds >= 0.0, "{} s", cost.seconds);
        if let Some(peak) = cost.peak_bytes {
            assert!(peak >= 64 << 20, "peak {peak}");
        }
    }

    #[test]
    fn memory_that_was_held_before_is_no_growth() {
        // Other tests of this process come and go meanwhile, so that what was held before is made up.
        let Some(peak) = peak_resident() else { return };
        let grown = |before| Growth { before }.stop();
        assert_eq!((grown(None), grown(Some(u64::MAX))), (None, Some(0)));
        assert!(grown(Some(peak / 2)).is_some_and(|grown| grown > 0 && grown < peak * 100));
        let begun = Growth::start().before;
        assert!(begun.is_none_or(|resident| resident > 1 << 20), "{begun:?}");
    }
}
