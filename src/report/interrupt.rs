//! Ctrl-C: the first one asks to stop after the current unit of work, the second one stops at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::Kind;

static STOP: AtomicBool = AtomicBool::new(false);

const MESSAGE: &[u8] = b"\nstopping after the current unit of work; press Ctrl-C again to stop at once\n";

/// Whether the user asked to stop.
pub fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// From now on the first SIGINT makes [`stopped`] true and says so on stderr, the second one exits with code
/// 130.
pub fn install_interrupt_handler() {
    let handler: extern "C" fn(libc::c_int) = on_interrupt;
    // SAFETY: the handler does only what a signal handler may: an atomic swap, write(2) and _exit(2).
    unsafe { libc::signal(libc::SIGINT, handler as libc::sighandler_t) };
}

extern "C" fn on_interrupt(_signal: libc::c_int) {
    if STOP.swap(true, Ordering::Relaxed) {
        // SAFETY: _exit may be called from a signal handler.
        unsafe { libc::_exit(Kind::Interrupted.exit_code().into()) };
    }
    // SAFETY: write(2) may be called from a signal handler; the buffer is static. Nothing can be done when
    // stderr is gone.
    unsafe { libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Output};

    const CHILD: &str = "TYR_TEST_INTERRUPTS_ITSELF";

    /// In the test's own process, runs the test `name` again in another one; `None` in that other one.
    fn elsewhere(name: &str) -> Option<Output> {
        let test = format!("report::interrupt::tests::{name}");
        let mut again = Command::new(std::env::current_exe().unwrap());
        let again = again.args([&test, "--exact", "--nocapture"]).env(CHILD, "1");
        std::env::var_os(CHILD).is_none().then(|| again.output().unwrap())
    }

    fn interrupt() {
        // SAFETY: the handler is installed before.
        assert_eq!(unsafe { libc::raise(libc::SIGINT) }, 0);
    }

    #[test]
    fn the_first_interrupt_asks_to_stop_and_says_so() {
        let Some(output) = elsewhere("the_first_interrupt_asks_to_stop_and_says_so") else {
            install_interrupt_handler();
            assert!(!stopped());
            interrupt();
            return assert!(stopped());
        };
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("after the current unit of work"));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }

    #[test]
    fn the_second_interrupt_exits_with_its_code() {
        let Some(output) = elsewhere("the_second_interrupt_exits_with_its_code") else {
            install_interrupt_handler();
            interrupt();
            return interrupt();
        };
        assert_eq!(output.status.code(), Some(130));
    }
}
