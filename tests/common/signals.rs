//! Children that listen to interrupts, whatever the shell that runs the tests does.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Lets a child listen to interrupts again: a shell that runs the tests in the background has them ignore
/// these.
pub fn heed_interrupts(command: &mut Command) {
    let heed = || {
        // SAFETY: setting a signal's default action is allowed between fork and exec.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: the closure calls nothing else.
    unsafe { command.pre_exec(heed) };
}
