//! Our locks, many of them at a time; and what one would cost that has a descriptor and a mapping of its own.
#![allow(unsafe_code)]

use multiproc::Lock;
use multiproc_benches::row::Measured;
use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

fn each(took: Duration, count: usize) -> Measured {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    Ok(took.as_nanos() as f64 / count as f64)
}

fn made(count: usize) -> Result<(Vec<Lock>, Duration), Box<dyn std::error::Error>> {
    let mut locks = Vec::with_capacity(count);
    let start = Instant::now();
    for _ in 0..count {
        locks.push(Lock::new()?);
    }
    Ok((locks, start.elapsed()))
}

/// Nanoseconds for making each of `count` locks that all live at the end.
pub(crate) fn make(count: usize) -> Measured {
    each(made(count)?.1, count)
}

/// Nanoseconds for dropping each of them.
pub(crate) fn drop_all(count: usize) -> Measured {
    let (locks, _) = made(count)?;
    let start = Instant::now();
    drop(locks);
    each(start.elapsed(), count)
}

/// Nanoseconds for making one and dropping it, again and again.
pub(crate) fn make_and_drop(count: usize) -> Measured {
    let start = Instant::now();
    for _ in 0..count {
        drop(black_box(Lock::new()?));
    }
    each(start.elapsed(), count)
}

/// Nanoseconds for a page that is shared by a descriptor of its own.
pub(crate) fn memfd(count: usize) -> Measured {
    let start = Instant::now();
    for _ in 0..count {
        // SAFETY: a constant name.
        let fd = unsafe { libc::memfd_create(c"lock".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: the descriptor that was just made.
        unsafe { libc::ftruncate(fd, 4096) };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, fd, 0) };
        if page != libc::MAP_FAILED {
            // SAFETY: the page was mapped writable and nobody else knows of it.
            unsafe { page.cast::<u32>().write_volatile(1) };
            // SAFETY: the mapping made above, which nothing refers to.
            unsafe { libc::munmap(page, 4096) };
        }
        // SAFETY: ours.
        unsafe { libc::close(fd) };
    }
    each(start.elapsed(), count)
}
