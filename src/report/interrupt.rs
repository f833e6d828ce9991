//! Signals that ask to stop: the first one asks to stop after the current unit of work, the second one stops
//! at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::Kind;

static STOP: AtomicBool = AtomicBool::new(false);

const MESSAGE: &[u8] = b"\nstopping after the current unit of work; press Ctrl-C again to stop at once\n";

/// Ctrl-C, what service managers and schedulers send, and the end of the terminal.
const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Whether the user asked to stop.
pub fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// From now on the first SIGINT, SIGTERM or SIGHUP makes [`stopped`] true and reports it on stderr, the
/// second one exits with code 130. One that was ignored before, as `nohup` has it, stays ignored.
pub fn install_interrupt_handler() {
    let handler: extern "C" fn(libc::c_int) = on_interrupt;
    for signal in SIGNALS {
        // SAFETY: the handler does only what a signal handler may: an atomic swap, write(2) and _exit(2).
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        if before == libc::SIG_IGN {
            // SAFETY: puts back what the signal had.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

extern "C" fn on_interrupt(_signal: libc::c_int) {
    if STOP.swap(true, Ordering::Relaxed) {
        // SAFETY: _exit may be called from a signal handler.
        unsafe { libc::_exit(Kind::Interrupted.exit_code().into()) };
    }
    // SAFETY: write(2) may be called from a signal handler; the buffer is static. Nothing can be done when
    // stderr is closed.
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

    /// A shell that runs the tests in the background, or `nohup`, has them ignore signals.
    fn heed(signal: libc::c_int) {
        // SAFETY: nothing else runs in this process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }

    fn raise(signal: libc::c_int) {
        // SAFETY: the handler is installed before.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    #[test]
    fn the_first_interrupt_asks_to_stop_and_says_so() {
        let Some(output) = elsewhere("the_first_interrupt_asks_to_stop_and_says_so") else {
            heed(libc::SIGINT);
            install_interrupt_handler();
            assert!(!stopped());
            raise(libc::SIGINT);
            return assert!(stopped());
        };
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("after the current unit of work"));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }

    #[test]
    fn sigterm_asks_to_stop() {
        let Some(output) = elsewhere("sigterm_asks_to_stop") else {
            heed(libc::SIGTERM);
            install_interrupt_handler();
            raise(libc::SIGTERM);
            return assert!(stopped());
        };
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    }

    #[test]
    fn sighup_asks_to_stop() {
        let Some(output) = elsewhere("sighup_asks_to_stop") else {
            heed(libc::SIGHUP);
            install_interrupt_handler();
            raise(libc::SIGHUP);
            return assert!(stopped());
        };
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    }

    #[test]
    fn a_signal_that_was_ignored_stays_ignored() {
        let Some(output) = elsewhere("a_signal_that_was_ignored_stays_ignored") else {
            // SAFETY: nothing else runs in this process.
            unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
            install_interrupt_handler();
            raise(libc::SIGHUP);
            return assert!(!stopped());
        };
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    }

    #[test]
    fn the_second_signal_exits_with_its_code() {
        let Some(output) = elsewhere("the_second_signal_exits_with_its_code") else {
            heed(libc::SIGINT);
            heed(libc::SIGTERM);
            install_interrupt_handler();
            raise(libc::SIGTERM);
            return raise(libc::SIGINT);
        };
        assert_eq!(output.status.code(), Some(130));
    }
}
