//! A parser in C that crashes, hangs and devours memory: see `fragile.c`, which says on what.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_long};

unsafe extern "C" {
    fn fragile_sum(text: *const c_char) -> c_long;
}

/// The sum of the numbers in `text`, or the byte at which it makes no sense. Whatever `fragile.c` calls a bug ends the process, or does not end.
///
/// # Errors
/// The text makes no sense.
pub fn sum(text: &CStr) -> Result<u64, u64> {
    // SAFETY: the text ends with a NUL, and is only read. On a text with a bug it touches no memory but its own, NULL and the stack's guard page.
    let sum = unsafe { fragile_sum(text.as_ptr()) };
    u64::try_from(sum).map_err(|_| -1 - sum).map_err(|at| at as u64)
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn texts_without_a_bug() {
        assert_eq!(sum(c""), Ok(0));
        assert_eq!(sum(c"1 (2 3)\n 3x4 # five\n ^(6 7)"), Ok(25));
        assert_eq!(sum(c"2x(1 1) ^(1 (2 3) 4)"), Ok(9));
        assert_eq!(sum(c"12 ?"), Err(3));
        assert_eq!(sum(c"(1"), Err(2));
    }
}
