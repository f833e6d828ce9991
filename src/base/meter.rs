//! What a step cost this process: wall seconds and peak resident memory.

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
    const MILLISECONDS: std::ffi::c_long = 10_000;
    // SAFETY: takes no pointer and may be called at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) }
}

/// Peak resident set of this process in bytes, from the kernel's accounting.
pub fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
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
}
