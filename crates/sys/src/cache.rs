//! Hints to the processor: a cache line that is asked for before it is needed comes while something else is done.
//!
//! They change nothing but the time. An address that is not mapped, or not backed yet, is passed over without a fault. On processors for which
//! nothing is written here they do nothing.
#![allow(unsafe_code)]

/// A byte there will be written soon: its line is taken from the processor that has it.
#[inline(always)]
pub fn will_write(at: *const u8) {
    // SAFETY: a hint that neither reads nor writes nor faults, whatever the address. Processors of this architecture that do not know it pass over it.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags));
    }
    // SAFETY: as above.
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) at, options(nostack, preserves_flags));
    }
    let _ = at;
}

/// A byte there will be read soon, as it then is: a line that is asked for before it is written is asked for again.
#[inline(always)]
pub fn will_read(at: *const u8) {
    // SAFETY: a hint that neither reads nor writes nor faults, whatever the address.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        std::arch::asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags));
    }
    // SAFETY: as above.
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags));
    }
    let _ = at;
}
