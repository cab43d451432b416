//! The full memory fence between a store and a later load, on which every Dekker pattern here rests.
//!
//! On x86-64 a locked read-modify-write of the stack orders as `mfence` does and costs a third of it (Intel SDM vol. 3, 9.2.3; it is
//! what the Linux kernel's `smp_mb` is made of). Elsewhere it is the language's own fence.
#![allow(unsafe_code)]

/// As `std::sync::atomic::fence(Ordering::SeqCst)`.
#[inline(always)]
pub fn full() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        // SAFETY: ors 0 into the word at the stack pointer, which is mapped: nothing changes. Not `nomem`: the compiler moves no access across it.
        unsafe { std::arch::asm!("lock or dword ptr [rsp], 0", options(nostack)) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}
