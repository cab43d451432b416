//! A value in shared memory, opened by other processes through a path.
//!
//! The memory is a memfd (memfd_create(2)). Its path is `/proc/PID/fd/N` of the process that made
//! it, a plain string that any kind of child can be told; it is valid as long as that process keeps
//! the [`Segment`].
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    marker::PhantomData,
    mem::size_of,
    ops::Deref,
    os::fd::{AsRawFd, FromRawFd},
    process, ptr,
};

/// A type that may live in a segment.
///
/// # Safety
/// All bytes zero is a valid value, the type has no pointers and no destructor, and it may be used
/// through `&self` by several processes at once.
pub unsafe trait Shared: Sync {}

/// A shared `T`, all zero at first.
#[derive(Debug)]
pub struct Segment<T: Shared> {
    at: *mut T,
    file: File,
    _value: PhantomData<T>,
}

impl<T: Shared> Segment<T> {
    /// A new segment.
    pub fn new() -> io::Result<Segment<T>> {
        // SAFETY: the name is a C string; the call has no other demands.
        let fd = unsafe { libc::memfd_create(c"multiproc-bench".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(size_of::<T>() as u64)?;
        Segment::map(file)
    }

    /// The segment that another process made, by its [`path`](Segment::path) there.
    pub fn open(path: &str) -> io::Result<Segment<T>> {
        let file = File::options().read(true).write(true).open(path)?;
        if file.metadata()?.len() != size_of::<T>() as u64 {
            return Err(io::Error::other("not a segment of this type"));
        }
        Segment::map(file)
    }

    fn map(file: File) -> io::Result<Segment<T>> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Segment { at: at.cast(), file, _value: PhantomData })
    }

    /// The path by which another process opens this segment.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd())
    }
}

impl<T: Shared> Deref for Segment<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `map` made a page-aligned mapping of this size that lives until drop, and
        // `Shared` says that what it holds is a T.
        unsafe { &*self.at }
    }
}

impl<T: Shared> Drop for Segment<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made by `map`; references to it borrow `self`.
        unsafe { libc::munmap(self.at.cast(), size_of::<T>()) };
    }
}
