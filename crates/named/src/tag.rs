//! What says that a segment is ours, and that nobody uses it any more.
//!
//! A segment is a file in `/dev/shm`, all of whose bytes are the user's. That it is ours is said by a second name of the same file, its *tag*:
//! `.multiproc.INODE.NAME`. A hard link needs no content that could be half written, cannot outlive its file, and the file's number in it keeps it from
//! standing for a later segment of the same name. Who uses a segment holds a shared lock on its file (flock(2)), which the kernel releases at the user's death.
//! So a tagged file that can be locked exclusively has no user, and whoever finds that out removes it: the last user when it drops its handle, or anybody at the next use.
//! What has no tag, a segment of Python's or one that was told to persist, is never removed but by `unlink`.
//!
//! | killed | left behind | who repairs |
//! |---|---|---|
//! | having made the file, before its tag | `.multiproc.new.RANDOM`, which nobody locks | the next use removes it |
//! | having tagged it, before it has its name | the tag, which nobody locks | the same |
//! | as its last user | name and tag, which nobody locks | the same |
//! | while removing it, after its name is gone | the tag, which nobody locks | the same |
//! | in `unlink`, after its name is gone | the tag, which its users lock | the last of them, or the next use |
//! | in `persist` | it persists or does not | nobody need |
//!
//! `unlink` and `persist` change names beside other users, so they take turns, by another lock of the file that the kernel releases as well. A foreign program takes
//! no lock: if it removes a name and makes a segment under the same one between our look at a name and its removal, it loses that.

use multiproc_sys::crash;
use multiproc_sys::named::{self, FileFacts, Use};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// All tags and all files that have no tag yet begin so.
pub const PREFIX: &str = ".multiproc.";
const NEW: &str = ".multiproc.new.";
/// Of a segment, so that its tag is no longer than a name may be: 16 digits and a dot.
pub const LONGEST: usize = named::NAME_MAX - PREFIX.len() - 17;

/// A file's tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    inode: u64,
    name: String,
}

impl Tag {
    /// That of the file with this number, if `name` is the one that it was made under.
    pub fn of(inode: u64, name: &str) -> Tag {
        Tag { inode, name: name.to_owned() }
    }

    fn file(&self) -> String {
        format!("{PREFIX}{:x}.{}", self.inode, self.name)
    }

    fn parse(file: &str) -> Option<Tag> {
        let (inode, name) = file.strip_prefix(PREFIX)?.split_once('.')?;
        Some(Tag { inode: u64::from_str_radix(inode, 16).ok()?, name: name.to_owned() })
    }

    /// Whether the file still has it.
    pub fn is_there(&self) -> io::Result<bool> {
        Ok(self.is_possible() && self.stands_at(&self.file())?)
    }

    /// Whether a file of ours may have it; a foreign one's name may be too long for that.
    fn is_possible(&self) -> bool {
        self.name.len() <= LONGEST
    }

    /// Whether the file still has its name.
    pub fn is_named(&self) -> io::Result<bool> {
        self.stands_at(&self.name)
    }

    fn stands_at(&self, name: &str) -> io::Result<bool> {
        Ok(named::facts_of(name)?.is_some_and(|found| found.inode == self.inode))
    }

    /// Removes the tag: from now on only an `unlink` removes the file.
    pub fn remove(&self) -> io::Result<()> {
        if self.is_possible() {
            named::unlink(&self.file())?;
        }
        crash::point("named.untagged");
        Ok(())
    }

    /// Removes the file's name, and then its tag. Whoever calls has the file alone, or is the one that may change its names. False when it had no name.
    pub fn remove_all(&self) -> io::Result<bool> {
        let was_named = self.is_named()? && named::unlink(&self.name)?;
        crash::point("named.unnamed");
        self.remove()?;
        Ok(was_named)
    }
}

/// A new file of `size` zeroes under `name` with its tag, locked by this user. `AlreadyExists` when the name is taken.
pub fn create(name: &str, size: u64) -> io::Result<(OwnedFd, FileFacts)> {
    let (fd, new) = create_unnamed()?;
    match tag_and_name(fd.as_fd(), &new, name, size) {
        Ok(facts) => Ok((fd, facts)),
        Err(e) => {
            named::unlink(&new)?;
            Err(e)
        }
    }
}

fn create_unnamed() -> io::Result<(OwnedFd, String)> {
    loop {
        let new = format!("{NEW}{:016x}", random());
        let fd = named::create(&new)?;
        crash::point("named.made");
        // Until it is locked, it looks like what somebody has died over: then another one is made.
        if named::try_use(fd.as_fd(), Use::Shared)? && named::facts(fd.as_fd())?.names > 0 {
            crash::point("named.locked");
            return Ok((fd, new));
        }
    }
}

fn tag_and_name(fd: BorrowedFd<'_>, new: &str, name: &str, size: u64) -> io::Result<FileFacts> {
    named::allocate(fd, size)?;
    crash::point("named.allocated");
    let facts = named::facts(fd)?;
    let tag = Tag::of(facts.inode, name);
    named::rename(new, &tag.file())?;
    crash::point("named.tagged");
    if let Err(e) = named::link(&tag.file(), name) {
        tag.remove()?;
        return Err(e);
    }
    crash::point("named.named");
    Ok(facts)
}

/// Whether all that is left of the users of the segment of this name is what copied their descriptors. That is a child which has not called exec yet, and is about
/// to; or one of a plain fork(2), which may live on.
pub fn is_left_by_the_dead(name: &str) -> io::Result<bool> {
    let Some(file) = named::facts_of(name)? else { return Ok(true) };
    Ok(Tag::of(file.inode, name).is_there()? && named::lockers(&file).is_some_and(|living| living.is_empty()))
}

/// A number that nobody else has.
pub fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Removes a file of ours if nobody uses it; `fd` is its user's no longer, whether it is removed or not.
pub fn remove_if_unused(fd: BorrowedFd<'_>, tag: &Tag) -> io::Result<bool> {
    if !tag.is_there()? || !named::try_use(fd, Use::Alone)? {
        return Ok(false);
    }
    crash::point("named.alone");
    // Another user may have had it persist, and gone.
    let ours = tag.is_there()?;
    if ours {
        tag.remove_all()?;
    }
    Ok(ours)
}

/// Removes everything of ours that nobody uses, as far as this user may; how many there were.
pub fn reap() -> io::Result<u32> {
    let mut removed = 0;
    for file in named::names(PREFIX)? {
        // What cannot be removed has gone meanwhile, or is another user's.
        removed += u32::from(reap_one(&file).unwrap_or(false));
    }
    Ok(removed)
}

fn reap_one(file: &str) -> io::Result<bool> {
    let fd = named::open_existing(file)?;
    let facts = named::facts(fd.as_fd())?;
    if file.starts_with(NEW) {
        let unused = named::try_use(fd.as_fd(), Use::Alone)?;
        crash::point("named.reaping");
        return Ok(unused && named::unlink(file)?);
    }
    match Tag::parse(file) {
        Some(tag) if tag.inode == facts.inode && tag.file() == file => remove_if_unused(fd.as_fd(), &tag),
        // Named like a tag by somebody else.
        _ => Ok(false),
    }
}
