//! [`SharedMemory`]: bytes under a name, for programs that know nothing of each other.
//!
//! Peers are not trusted, so bytes are copied in and out through the descriptor: what another program cuts off is then a short read, and no SIGBUS. A mapping is made
//! only for who asks for it and vouches for the others. [`tag`] says how a segment ends.
#![allow(unsafe_code)]

use crate::error::{Kind, SharedMemoryError};
use crate::tag::{self, LONGEST, PREFIX, Tag};
use multiproc_sys::named::{self, FileFacts, FileMap, NAME_MAX, Use};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// How often an open begins anew because the name has been given to another segment meanwhile.
const TRIES: u32 = 100;
/// Changing names takes some microseconds, and so does a child from fork to exec: who finds another one at it looks again this often, and for so long.
const STEP: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(1);

/// Memory under a name, which unrelated programs share: those that use this crate, Python's `multiprocessing.shared_memory`, or anything that calls `shm_open(3)`.
///
/// It is a file in `/dev/shm` that holds the user's bytes and nothing else. Bytes are copied by [`read_at`](SharedMemory::read_at) and
/// [`write_at`](SharedMemory::write_at), without a lock: who writes while another reads takes care of that themselves. Between processes of one tree a
/// `SharedVec` or an `Array` is what you want: no name, and views instead of copies.
///
/// **When it ends.** Opening never destroys, and dropping one handle of several does not either. A segment that was [created](SharedMemory::create) here goes with its last user: the last handle of any process
/// that uses this crate. [`persist`](SharedMemory::persist) has it stay until [`unlink`](SharedMemory::unlink), which takes its name away at once. Segments that other programs have made stay until somebody unlinks them.
/// Other programs are no users that could be seen: what Python shall still find needs a handle here, or `persist`. Who has it open keeps the memory in any case.
///
/// It travels as its name, as in Python: whoever receives it opens it, so somebody must keep it until then.
///
/// # Crash safety
/// The kernel knows who uses a segment, by a lock that it releases when they die. A crash of the last user leaves the name until the next time that anybody of the same user calls
/// [`create`](SharedMemory::create), [`open`](SharedMemory::open) or [`reap`](SharedMemory::reap); so does a death in the middle of any of these. A writer that is killed has written some of its bytes.
///
/// # Python
/// `multiprocessing.shared_memory.SharedMemory`; `shm.buf` is [`read_at`](SharedMemory::read_at) and [`write_at`](SharedMemory::write_at), `shm.close()` is dropping it. Before 3.13
/// Python's resource tracker unlinks at its end also what Python has only opened, ours included; since 3.13 `track=False` forbids it, before that
/// `resource_tracker.unregister(shm._name, "shared_memory")` does.
///
/// # Examples
/// ```
/// use multiproc::SharedMemory;
///
/// let ours = SharedMemory::create(None, 1000)?;
/// ours.write_at(10, b"hello")?;
/// // In another program, which has been told the name:
/// let theirs = SharedMemory::open(ours.name())?;
/// assert_eq!(theirs.read_to_vec()?[10..15], *b"hello");
/// drop(ours);
/// assert_eq!(theirs.size(), 1000);
/// let name = theirs.name().to_owned();
/// drop(theirs);
/// assert!(SharedMemory::open(&name).unwrap_err().is_not_found());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "buf")]
#[doc(alias = "close")]
#[doc(alias = "shm_open")]
pub struct SharedMemory {
    file: ManuallyDrop<File>,
    /// What `file` is, and its size when it was opened.
    facts: FileFacts,
    name: String,
    /// What removes it when nobody uses it, if it was made here.
    tag: Tag,
    map: OnceLock<FileMap>,
    /// Held while its names are changed.
    changing: Mutex<()>,
    /// In the child of a plain fork it is the parent's.
    pid: u32,
}

impl SharedMemory {
    /// A new segment of `size` zeroes; without a name it gets one of its own. The memory is taken now. Only this user's programs can open it.
    ///
    /// Waits for nobody, but where the last user of a segment of that name was killed while it started a process: for that process to exec, at most a second.
    ///
    /// # Errors
    /// There is one of that name; `name` is empty, has a slash or a NUL, begins with `.multiproc.`, or is longer than 227 bytes; `size` is 0, or
    /// more than the machine can spare.
    pub fn create(name: Option<&str>, size: u64) -> Result<SharedMemory, SharedMemoryError> {
        name.map_or(Ok(()), |name| check(name, LONGEST, "a name has at most 227 bytes"))?;
        if size == 0 {
            return Err(SharedMemoryError::new(name.unwrap_or_default(), Kind::Invalid("its size must be at least 1")));
        }
        let mut waited = Duration::ZERO;
        loop {
            reap_for(name.unwrap_or_default())?;
            let chosen = name.map_or_else(|| format!("mp_{:010x}", tag::random() >> 24), str::to_owned);
            match tag::create(&chosen, size) {
                Ok((fd, facts)) => return Ok(SharedMemory::new(fd.into(), facts, chosen)),
                Err(e) if name.is_none() && e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e)
                    if e.kind() == io::ErrorKind::AlreadyExists
                        && waited < PATIENCE
                        && tag::is_left_by_the_dead(&chosen).unwrap_or(false) =>
                {
                    thread::sleep(STEP);
                    waited += STEP;
                }
                Err(source) if source.kind() == io::ErrorKind::NotFound => {
                    return Err(SharedMemoryError::new(chosen, Kind::System { call: "open in /dev/shm", source }));
                }
                Err(e) => return Err(SharedMemoryError::system(&chosen, "creating it", e)),
            }
        }
    }

    /// The segment of that name, whoever made it.
    ///
    /// Waits for nobody.
    ///
    /// # Errors
    /// There is none; it is another user's; it is empty, since its creator is about to give it a size, or another program has cut it to nothing; the name is no
    /// possible one.
    pub fn open(name: &str) -> Result<SharedMemory, SharedMemoryError> {
        // Those of other programs have no tag, and may be longer.
        check(name, NAME_MAX, "a name has at most 255 bytes")?;
        reap_for(name)?;
        let failed = |e| SharedMemoryError::system(name, "open", e);
        for _ in 0..TRIES {
            let fd = named::open_existing(name).map_err(failed)?;
            let facts = named::facts(fd.as_fd()).map_err(failed)?;
            if !facts.regular {
                return Err(SharedMemoryError::new(name, Kind::Corrupted("what has that name in /dev/shm is no memory")));
            }
            if facts.size == 0 {
                let why = "it is empty: its creator has not given it a size yet, or another program has cut it to nothing";
                return Err(SharedMemoryError::new(name, Kind::Corrupted(why)));
            }
            let tag = Tag::of(facts.inode, name);
            // Who has it alone is about to remove it, or has just found that it may not: that one has no tag.
            if !named::try_use(fd.as_fd(), Use::Shared).map_err(failed)? && tag.is_there().map_err(failed)? {
                return Err(SharedMemoryError::new(name, Kind::NotFound));
            }
            if tag.is_named().map_err(failed)? {
                return Ok(SharedMemory::new(fd.into(), facts, name.to_owned()));
            }
        }
        Err(SharedMemoryError::new(name, Kind::NotFound))
    }

    fn new(file: File, facts: FileFacts, name: String) -> SharedMemory {
        let tag = Tag::of(facts.inode, &name);
        SharedMemory {
            file: ManuallyDrop::new(file),
            facts,
            name,
            tag,
            map: OnceLock::new(),
            changing: Mutex::new(()),
            pid: std::process::id(),
        }
    }

    /// Removes the segments made here that nobody uses any more, as [`create`](SharedMemory::create) and [`open`](SharedMemory::open) do before anything else; how many there were.
    ///
    /// Each of the machine's that does not persist is looked at, which takes some microseconds: where thousands of them are open, making one takes milliseconds.
    ///
    /// # Errors
    /// `/dev/shm` cannot be read.
    pub fn reap() -> Result<u32, SharedMemoryError> {
        tag::reap().map_err(|e| SharedMemoryError::system("", "reading /dev/shm", e))
    }

    /// Its name, without a slash.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes, when it was opened.
    pub fn size(&self) -> u64 {
        self.facts.size
    }

    /// Whether it stays when nobody uses it: it was made by another program, or told to [`persist`](SharedMemory::persist), or has been unlinked.
    ///
    /// # Errors
    /// `/dev/shm` cannot be read.
    pub fn persists(&self) -> Result<bool, SharedMemoryError> {
        self.tag.is_there().map(|tagged| !tagged).map_err(|e| SharedMemoryError::system(&self.name, "stat", e))
    }

    /// Copies the bytes from `at` on into `into`.
    ///
    /// # Errors
    /// They are not all within [`size`](SharedMemory::size); another program has cut them off.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> Result<(), SharedMemoryError> {
        self.check_range(at, into.len() as u64)?;
        self.file.read_exact_at(into, at).map_err(|e| self.refused("pread", e))
    }

    /// Copies `bytes` to `at`.
    ///
    /// # Errors
    /// As [`read_at`](SharedMemory::read_at).
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> Result<(), SharedMemoryError> {
        // A write beyond the end would make the file longer.
        self.check_range(at, bytes.len() as u64)?;
        self.file.write_all_at(bytes, at).map_err(|e| self.refused("pwrite", e))
    }

    /// A copy of all bytes.
    ///
    /// # Errors
    /// As [`read_at`](SharedMemory::read_at); there is no memory for the copy.
    pub fn read_to_vec(&self) -> Result<Vec<u8>, SharedMemoryError> {
        self.check_range(0, self.size())?;
        let mut bytes = Vec::new();
        let room = usize::try_from(self.size()).ok().filter(|size| bytes.try_reserve_exact(*size).is_ok());
        let size = room.ok_or_else(|| self.refused("taking memory for a copy", io::ErrorKind::OutOfMemory.into()))?;
        bytes.resize(size, 0);
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    fn check_range(&self, at: u64, len: u64) -> Result<(), SharedMemoryError> {
        let size = self.size();
        let Some(end) = at.checked_add(len).filter(|end| *end <= size) else {
            return Err(SharedMemoryError::new(&self.name, Kind::Beyond { at, len, size }));
        };
        let now = self.facts_now()?.size;
        if end > now {
            return Err(SharedMemoryError::new(&self.name, Kind::Truncated { size, now }));
        }
        Ok(())
    }

    /// The file's, if the descriptor is still its: the program may have closed it, and opened another under its number.
    fn facts_now(&self) -> Result<FileFacts, SharedMemoryError> {
        let now = named::facts(self.file.as_fd()).map_err(|e| self.refused("fstat", e))?;
        if (now.device, now.inode) != (self.facts.device, self.facts.inode) {
            return Err(SharedMemoryError::new(&self.name, Kind::Closed));
        }
        Ok(now)
    }

    fn refused(&self, call: &'static str, e: io::Error) -> SharedMemoryError {
        if e.kind() == io::ErrorKind::UnexpectedEof
            && let Ok(FileFacts { size: now, .. }) = self.facts_now()
        {
            return SharedMemoryError::new(&self.name, Kind::Truncated { size: self.size(), now });
        }
        SharedMemoryError::system(&self.name, call, e)
    }

    /// The first of its [`size`](SharedMemory::size) bytes, mapped into this process until the handle is dropped; aligned to a page.
    ///
    /// Others may change the bytes at any time, and may cut the file: to touch what they have cut off is SIGBUS. Who uses the pointer vouches that they do not.
    ///
    /// # Errors
    /// Another program has cut the file; the system has no room for a mapping.
    pub fn as_ptr(&self) -> Result<NonNull<u8>, SharedMemoryError> {
        if let Some(map) = self.map.get() {
            return Ok(map.base());
        }
        self.check_range(0, self.size())?;
        let made = usize::try_from(self.size()).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory));
        let made = made.and_then(|len| FileMap::new(self.file.as_fd(), len)).map_err(|e| self.refused("mmap", e))?;
        // Where another thread was quicker, its mapping is taken and this one goes.
        Ok(self.map.get_or_init(|| made).base())
    }

    /// Its bytes, in place.
    ///
    /// # Errors
    /// As [`as_ptr`](SharedMemory::as_ptr).
    ///
    /// # Safety
    /// As long as the slice lives, no program writes these bytes or makes the file smaller.
    pub unsafe fn as_slice(&self) -> Result<&[u8], SharedMemoryError> {
        let first = self.as_ptr()?;
        // SAFETY: mapped as long as this handle lives; the caller vouches that nobody changes it.
        Ok(unsafe { slice::from_raw_parts(first.as_ptr(), self.facts.size as usize) })
    }

    /// Its bytes, in place, to be changed.
    ///
    /// # Errors
    /// As [`as_ptr`](SharedMemory::as_ptr).
    ///
    /// # Safety
    /// As long as the slice lives, nobody else reads or writes these bytes, through this handle's copies, another handle or another program, or makes the file smaller.
    pub unsafe fn as_mut_slice(&mut self) -> Result<&mut [u8], SharedMemoryError> {
        let first = self.as_ptr()?;
        // SAFETY: mapped as long as this handle lives; the caller vouches that nobody else touches it.
        Ok(unsafe { slice::from_raw_parts_mut(first.as_ptr(), self.facts.size as usize) })
    }

    /// Has it stay when nobody uses it, as segments of other programs do, until somebody calls [`unlink`](SharedMemory::unlink), or the machine ends.
    ///
    /// # Errors
    /// It has been unlinked ([`is_not_found`](SharedMemoryError::is_not_found)); another process is in the middle of `persist` or `unlink`, and is not done within a second.
    pub fn persist(&self) -> Result<(), SharedMemoryError> {
        self.change_names("persist", |tag| {
            let named = tag.is_named()?;
            if named {
                tag.remove()?;
            }
            Ok(named)
        })
    }

    /// Takes its name away. Who has it open goes on using it; the memory goes with the last of them. A new segment may have the name at once.
    ///
    /// # Errors
    /// It has been unlinked already ([`is_not_found`](SharedMemoryError::is_not_found)); it is another user's; another process is in the middle of `persist` or `unlink`, and is
    /// not done within a second.
    #[doc(alias = "shm_unlink")]
    pub fn unlink(&self) -> Result<(), SharedMemoryError> {
        self.change_names("unlink", Tag::remove_all)
    }

    /// While nobody else of ours changes its names. `change` says whether it had one.
    fn change_names(&self, call: &'static str, change: impl FnOnce(&Tag) -> io::Result<bool>) -> Result<(), SharedMemoryError> {
        self.facts_now()?;
        let failed = |e| SharedMemoryError::system(&self.name, call, e);
        if std::process::id() != self.pid {
            // The locks of a descriptor are those of its copies as well.
            let why = "the handle is that of the process that fork() has made this one of: open it by name";
            return Err(SharedMemoryError::new(&self.name, Kind::Invalid(why)));
        }
        // The lock is the descriptor's, and threads share that.
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waited = Duration::ZERO;
        while !named::try_claim_names(self.file.as_fd(), true).map_err(failed)? {
            if waited >= PATIENCE {
                return Err(SharedMemoryError::new(&self.name, Kind::Busy));
            }
            thread::sleep(STEP);
            waited += STEP;
        }
        let had_one = change(&self.tag);
        named::try_claim_names(self.file.as_fd(), false).map_err(failed)?;
        match had_one {
            Ok(true) => Ok(()),
            Ok(false) => Err(SharedMemoryError::new(&self.name, Kind::NotFound)),
            Err(e) => Err(failed(e)),
        }
    }
}

/// Removes what nobody uses, before a segment is looked for.
fn reap_for(name: &str) -> Result<(), SharedMemoryError> {
    match tag::reap() {
        Ok(_) => Ok(()),
        Err(source) => Err(SharedMemoryError::new(name, Kind::System { call: "reading /dev/shm", source })),
    }
}

/// Whether a segment may have this name, of at most `longest` bytes.
fn check(name: &str, longest: usize, too_long: &'static str) -> Result<(), SharedMemoryError> {
    let why = if name.is_empty() {
        "a name must not be empty"
    } else if name.contains('/') {
        "a name has no slash: it is that of a file in /dev/shm, and Python's leading slash is left out"
    } else if name.contains('\0') {
        "a name has no NUL, which would end it for the system"
    } else if name == "." || name == ".." || name.starts_with(PREFIX) {
        "a name of that kind is kept for other things in /dev/shm"
    } else if name.len() > longest {
        too_long
    } else {
        return Ok(());
    };
    Err(SharedMemoryError::new(name, Kind::Invalid(why)))
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        if self.facts_now().is_err() {
            // The program has closed the descriptor; what has its number now is not ours to close.
            return;
        }
        if std::process::id() == self.pid {
            // Where it fails, the next use removes what is left.
            let _ = tag::remove_if_unused(self.file.as_fd(), &self.tag);
        }
        // SAFETY: not used after this.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("name", &self.name).field("size", &self.facts.size).finish_non_exhaustive()
    }
}

impl Serialize for SharedMemory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SharedMemory, D::Error> {
        SharedMemory::open(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

const _: () = assert!(LONGEST == 227 && NAME_MAX == 255);
