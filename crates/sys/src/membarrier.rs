//! Fences of which one side is free: membarrier(2).
//!
//! Who changes something and then looks whether somebody sleeps, and who announces a sleep and then looks whether there is a change, need a fence
//! each (Dekker). The first does so for each message, the second before it sleeps. So the first leaves its fence to the second: [`light`] keeps
//! the compiler from reordering, and [`heavy`] has the kernel run a full barrier on every processor that runs a process registered for it; one that
//! does not run passes a barrier before it does. After Desnoyers, membarrier(2), and the asymmetric fences of McKenney, "Is Parallel
//! Programming Hard" (2023), section 15.5.
//!
//! A process that could not register makes a whole fence of [`light`]; one whose [`heavy`] is refused must not rely on it.
#![allow(unsafe_code)]

use crate::probe::{self, Feature};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering, compiler_fence, fence};

const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// Registered for barriers that any process asks for.
const GLOBAL: u32 = 1;
/// Registered for barriers that this process asks for.
const PRIVATE: u32 = 2;

/// Private memory; set once, before there is a second thread. A process made by fork(2) is registered as its parent is.
static REGISTERED: AtomicU32 = AtomicU32::new(0);

fn membarrier(command: libc::c_int) -> bool {
    // Nobody is registered there, so each fence is a whole one.
    if cfg!(miri) {
        return true;
    }
    // SAFETY: takes integers, touches no memory.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Registers the process. In one that has a second thread already it takes milliseconds, so it is called before that.
pub fn register() {
    if probe::is_denied(Feature::Membarrier) {
        return;
    }
    let global = if membarrier(REGISTER_GLOBAL_EXPEDITED) { GLOBAL } else { 0 };
    let private = if membarrier(REGISTER_PRIVATE_EXPEDITED) { PRIVATE } else { 0 };
    // Relaxed: the threads that read it are started later.
    REGISTERED.store(global | private, Ordering::Relaxed);
}

/// The fence of the frequent side, against a [`heavy`] of any process.
#[inline]
pub fn light() {
    if REGISTERED.load(Ordering::Relaxed) & GLOBAL != 0 {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The fence of the rare side, against [`light`] in any process. False: refused, others may not have passed a fence.
#[cold]
pub fn heavy() -> bool {
    fence(Ordering::SeqCst);
    membarrier(GLOBAL_EXPEDITED)
}

/// Whether threads of this process may leave their fences to [`heavy_here`].
#[inline]
pub fn is_private() -> bool {
    REGISTERED.load(Ordering::Relaxed) & PRIVATE != 0
}

/// The fence of the rare side, against compiler fences in this process; for who has asked [`is_private`].
#[cold]
pub fn heavy_here() {
    fence(Ordering::SeqCst);
    if !membarrier(PRIVATE_EXPEDITED) {
        // A filter of system calls that came after `register`.
        interrupt_all();
    }
}

/// Takes the right to write to a page away that this processor may have cached: the kernel interrupts all that run a thread of this process, to
/// have them forget it.
fn interrupt_all() {
    // SAFETY: a new page of its own; null lets the kernel choose where.
    let page = unsafe {
        libc::mmap(ptr::null_mut(), 1, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    if page == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the page is mapped and writable.
    unsafe { page.cast::<u8>().write_volatile(1) };
    // SAFETY: the page is this function's.
    unsafe { libc::mprotect(page, 1, libc::PROT_READ) };
    // SAFETY: nobody else knows of it.
    unsafe { libc::munmap(page, 1) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn one_of_the_two_sides_sees_the_other() {
        register();
        if REGISTERED.load(Ordering::Relaxed) != GLOBAL | PRIVATE {
            eprintln!("skipped: membarrier(2) is refused");
            return;
        }
        let (announced, changed) = (AtomicBool::new(false), AtomicBool::new(false));
        let barrier = std::sync::Barrier::new(2);
        let missed = std::thread::scope(|s| {
            let seen = s.spawn(|| {
                (0..3_000)
                    .map(|_| {
                        barrier.wait();
                        changed.store(true, Ordering::Relaxed);
                        light();
                        let seen = announced.load(Ordering::Relaxed);
                        barrier.wait();
                        barrier.wait();
                        seen
                    })
                    .collect::<Vec<_>>()
            });
            let found: Vec<_> = (0..3_000)
                .map(|_| {
                    barrier.wait();
                    announced.store(true, Ordering::Relaxed);
                    assert!(heavy());
                    let found = changed.load(Ordering::Relaxed);
                    barrier.wait();
                    announced.store(false, Ordering::Relaxed);
                    changed.store(false, Ordering::Relaxed);
                    barrier.wait();
                    found
                })
                .collect();
            seen.join().unwrap().iter().zip(found).filter(|(seen, found)| !**seen && !found).count()
        });
        assert_eq!(missed, 0);
    }
}
