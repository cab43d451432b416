//! `MULTIPROC_WAIT`: a worker that waits for its debugger before it runs a line of the user's code.

use multiproc_shm::Arena;
use multiproc_sys::{debugger, signal};

/// Names of workers, separated by commas; `*` is all of them.
const VARIABLE: &str = "MULTIPROC_WAIT";

fn is_meant(list: &str, name: &str) -> bool {
    // A name may have a comma or a blank in it.
    list == name || list.split(',').map(str::trim).any(|wanted| wanted == "*" || wanted == name.trim())
}

/// Waits if the environment names this worker. The process takes part in the tree all the while: it can be joined, signalled and killed, and ends
/// with its parent.
pub(crate) fn before_user_code(arena: &'static Arena, name: &str) {
    let Some(list) = std::env::var_os(VARIABLE) else { return };
    if !is_meant(&list.to_string_lossy(), name) {
        return;
    }
    let note = arena.note_stop();
    debugger::wait_for_continue(|| {
        let pid = std::process::id();
        let text = format!(
            "multiproc: {} (pid {pid}) waits before its first line, as {VARIABLE} asks: `kill -CONT {pid}` lets it go on, \
             or `gdb -p {pid}` and `continue`\n",
            crate::dump::printable(name)
        );
        signal::stderr_write(text.as_bytes());
    });
    drop(note);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_or_all() {
        for (list, meant) in [("w", true), ("a, w ,b", true), ("*", true), ("w1", false), ("", false), ("W", false)] {
            assert_eq!(is_meant(list, "w"), meant, "{list}");
        }
        for name in ["b,c", " b", ""] {
            assert!(is_meant(name, name) && !is_meant("b ,c", "b,c"), "{name:?}");
        }
    }
}
