//! The kernel's robust list: what it does to shared words when a thread dies.
//!
//! Each thread has a list head that libc registered (get_robust_list(2)). When the thread ends in whatever way, or
//! calls exec, the kernel walks the list: a word that still holds the thread's TID gets `OWNER_DIED` and one
//! sleeper is woken. The head also has one slot, `list_op_pending`: its word is treated likewise, and if its TID
//! bits are 0 the kernel wakes one sleeper of it. So a thread that sets the slot before it commits a change
//! and clears it after FUTEX_WAKE cannot die in between without the wake being done for it.
//!
//! # How our words get into libc's list
//! Two private sentinels F and S stand in it for ever: `head -> .. -> F -> [words we hold] -> S -> ..`. libc sees
//! only private neighbours. The order of our words is a private array, so user space never follows a
//! pointer read from shared memory, and any order of unlocking works. See set_robust_list(2) and
//! Documentation/locking/robust-futexes.rst of the kernel.
//!
//! # Fork
//! A plain fork copies all of this into a process whose TIDs differ. A word in a page that the kernel wipes in
//! the child tells: [`current`] is then [`Unusable::Forked`], until the process has called [`rejoin`]. The word counts these lives, so that
//! what a guard of an earlier one holds is left alone in the next.
#![allow(unsafe_code)]

use crate::crash;
use crate::memfd;
use crate::probe::{self, Feature};
use crate::task;
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, compiler_fence};

/// A word is free when its TID bits are 0.
pub const TID_MASK: u32 = 0x3fff_ffff;
/// Somebody may sleep on the word.
pub const WAITERS: u32 = 0x8000_0000;
/// The kernel found the owner dead.
pub const OWNER_DIED: u32 = 0x4000_0000;

/// The kernel's link of a robust word lies this many bytes behind it (glibc's layout on x86-64; checked at run time).
pub const NODE_OFFSET: usize = 32;

/// More words than this cannot be held by one thread: the kernel stops walking at 2,048.
pub const MAX_HELD: usize = 1_900;

const INLINE_HELD: usize = 16;

const _: () = assert!(std::mem::offset_of!(Sentinel, next) == NODE_OFFSET);

/// struct robust_list_head of linux/futex.h.
#[repr(C)]
struct Head {
    next: *mut u8,
    futex_offset: isize,
    pending: *mut u8,
}

/// A private list entry in the layout that the kernel and libc expect: a word of 0, libc's `prev`, and the link.
#[repr(C, align(8))]
struct Sentinel {
    // Never written: as a word like any other it would be free.
    word: u32,
    _pad: [u32; 5],
    prev: *mut u8,
    next: *mut u8,
}

impl Sentinel {
    const fn new() -> Sentinel {
        Sentinel { word: 0, _pad: [0; 5], prev: ptr::null_mut(), next: ptr::null_mut() }
    }
}

struct Local {
    tid: Cell<u32>,
    /// Words held.
    count: Cell<usize>,
    /// How many fit into `held`.
    room: Cell<usize>,
    /// The words held, oldest first, behind the sentinel S: `inline`, or a box from [`Thread::reserve_more`].
    held: Cell<*const Place>,
    head: Cell<*mut Head>,
    first: UnsafeCell<Sentinel>,
    last: UnsafeCell<Sentinel>,
    inline: [Place; INLINE_HELD + 1],
}

type Place = Cell<*const AtomicU32>;

thread_local! {
    // Const and without Drop: usable at every moment of a thread's life, in exit handlers too.
    static LOCAL: Local = const {
        Local {
            tid: Cell::new(0),
            count: Cell::new(0),
            room: Cell::new(INLINE_HELD),
            held: Cell::new(ptr::null()),
            head: Cell::new(ptr::null_mut()),
            first: UnsafeCell::new(Sentinel::new()),
            last: UnsafeCell::new(Sentinel::new()),
            inline: [const { Cell::new(ptr::null()) }; INLINE_HELD + 1],
        }
    };
}

/// See [`life`].
static ATTACHED: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
/// The life of the process that this one was forked from, or is.
static LIVES: AtomicU32 = AtomicU32::new(FIRST_LIFE);
const FIRST_LIFE: u32 = 1;
/// How far libc's head lies behind what pthread_self(3) returns, in all threads alike; 0 as long as nobody has asked.
static HEAD_DISTANCE: AtomicUsize = AtomicUsize::new(0);

/// Why this thread cannot touch shared words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The process was made by a plain fork of one that used them.
    Forked,
    /// libc's robust list has an unknown layout, or there is none.
    NoRobustList,
    /// The thread holds as many words as the kernel would walk.
    TooManyHeld,
}

/// The calling thread's place in the kernel's robust list: one word, so that it is passed in a register. Neither `Send` nor `Sync`.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    local: NonNull<Local>,
}

/// Which life this is: 1, one more after each [`rejoin`], and 0 in between: in a process that a plain fork made after its parent had used
/// shared words. What was taken in another life is another process's.
#[inline]
pub fn life() -> u32 {
    // Acquire pairs with the Release in `attach` and `rejoin`.
    let word = ATTACHED.load(Ordering::Acquire);
    // SAFETY: the pointer is null or names a page that is never unmapped.
    // Relaxed: only fork changes the word, and a child sees its own memory.
    unsafe { word.as_ref() }.map_or(FIRST_LIFE, |w| w.load(Ordering::Relaxed))
}

/// Whether a plain fork made this process after its parent had used shared words, and it has not rejoined.
#[inline]
pub fn forked() -> bool {
    life() == 0
}

/// The calling thread; registers it at first use.
#[inline]
pub fn current() -> Result<Thread, Unusable> {
    LOCAL.with(|local| {
        if local.tid.get() == 0 || forked() {
            return attach(local);
        }
        Ok(Thread { local: NonNull::from(local) })
    })
}

#[cold]
fn attach(local: &Local) -> Result<Thread, Unusable> {
    if forked() {
        return Err(Unusable::Forked);
    }
    if ATTACHED.load(Ordering::Acquire).is_null() {
        let page = memfd::map_wipe_on_fork().map_err(|_| Unusable::NoRobustList)?.cast::<AtomicU32>();
        // SAFETY: the page is mapped, zeroed, aligned and never unmapped.
        unsafe { page.as_ref() }.store(LIVES.load(Ordering::Relaxed), Ordering::Relaxed);
        // AcqRel pairs with the Acquire loads above; a page that lost the race stays, once.
        let _ = ATTACHED.compare_exchange(ptr::null_mut(), page.as_ptr(), Ordering::AcqRel, Ordering::Acquire);
    }
    let head = match registered_head() {
        Some(head) => head,
        // The main thread of a process that a bare system call forked before it used shared words.
        None => NonNull::new(remembered_head()).filter(|_| named_anew()).ok_or(Unusable::NoRobustList)?,
    };
    remember(head);
    let (first, last) = (local.first.get(), local.last.get());
    // SAFETY: the head is libc's own for this thread.
    let old = unsafe { (*head.as_ptr()).next };
    let node = |sentinel: *mut Sentinel| -> *mut u8 {
        // SAFETY: the link lies inside the sentinel.
        unsafe { &raw mut (*sentinel).next }.cast()
    };
    // SAFETY: the sentinels belong to this thread alone and live as long as it.
    unsafe { (*last).next = old };
    // SAFETY: as above.
    unsafe { (*last).prev = node(first) };
    // SAFETY: as above.
    unsafe { (*first).next = node(last) };
    // SAFETY: as above.
    unsafe { (*first).prev = head.as_ptr().cast() };
    // libc keeps the previous entry's link in the pointer in front of each link, in the head's too.
    // The lowest bit of a pointer says that the entry is a mutex with priority inheritance.
    let in_front = old.map_addr(|a| a & !1).cast::<*mut u8>().wrapping_sub(1);
    // SAFETY: `old` is an entry of libc's list for this thread or the head itself, both with that pointer in front.
    unsafe { in_front.write(node(last)) };
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the head is libc's own for this thread.
    let head_next = unsafe { &raw mut (*head.as_ptr()).next };
    // SAFETY: as above; volatile, since the kernel reads it at any moment.
    unsafe { head_next.write_volatile(node(first)) };
    local.head.set(head.as_ptr());
    local.inline[0].set(sentinel_word(local));
    local.held.set(local.inline.as_ptr());
    local.tid.set(gettid());
    Ok(Thread { local: NonNull::from(local) })
}

/// The id that the calling thread had when it last used shared words, 0 if it never did: after a fork, that of the thread that forked.
pub fn last_tid() -> u32 {
    LOCAL.with(|local| local.tid.get())
}

/// What [`rejoin`] can be taken back by.
#[derive(Debug)]
pub struct Rejoined(NonNull<AtomicU32>);

impl Rejoined {
    /// Shared words are out of reach again.
    pub fn take_back(self) {
        // SAFETY: the page is never unmapped.
        unsafe { self.0.as_ref() }.store(0, Ordering::Relaxed);
    }
}

/// Begins a new life in a process that a plain fork made: the calling thread and those that it will start may use shared words. It holds none:
/// what it held is its parent's.
///
/// # Errors
/// [`Unusable::Forked`] when the calling thread is not the one that came out of the fork, the main one; otherwise those of [`current`].
pub fn rejoin() -> Result<Rejoined, Unusable> {
    if gettid() != std::process::id() {
        return Err(Unusable::Forked);
    }
    let page = memfd::map_wipe_on_fork().map_err(|_| Unusable::NoRobustList)?.cast::<AtomicU32>();
    LOCAL.with(|local| {
        // The list of the parent's thread, which libc has emptied unless the fork went past it. The kernel has forgotten it in any case.
        let head = registered_head().map_or_else(remembered_head, NonNull::as_ptr);
        if !head.is_null() {
            empty_list(head)?;
        }
        local.count.set(0);
        local.room.set(INLINE_HELD);
        local.tid.set(0);
        Ok(())
    })?;
    let life = LIVES.fetch_add(1, Ordering::Relaxed) + 1;
    // SAFETY: the page is mapped, zeroed, aligned and never unmapped.
    unsafe { page.as_ref() }.store(life, Ordering::Relaxed);
    // Release pairs with the Acquire in `life`.
    ATTACHED.store(page.as_ptr(), Ordering::Release);
    match current() {
        Ok(_) => Ok(Rejoined(page)),
        Err(why) => {
            Rejoined(page).take_back();
            Err(why)
        }
    }
}

/// Names an empty list to the kernel as this thread's.
fn empty_list(head: *mut Head) -> Result<(), Unusable> {
    // SAFETY: libc's own head for this thread, which nothing else looks at while the process has one thread.
    let list = unsafe { &mut *head };
    list.next = head.cast();
    list.pending = ptr::null_mut();
    // SAFETY: the head lives as long as its thread.
    let set = unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<Head>()) };
    if set == 0 { Ok(()) } else { Err(Unusable::NoRobustList) }
}

/// S as a word like any other: its link lies as far behind it.
fn sentinel_word(local: &Local) -> *const AtomicU32 {
    local.last.get().cast_const().cast()
}

/// Whether no thread with this id runs: none exists, or it is dead and not yet reaped. An id that a peer made up may name any thread; nothing is sent to it.
pub fn is_gone(tid: u32) -> bool {
    if cfg!(miri) {
        return false;
    }
    // SAFETY: signal 0 only asks.
    let r = unsafe { libc::syscall(libc::SYS_tkill, tid, 0) };
    match r {
        0 => matches!(task::state(tid), Some('Z' | 'X')),
        _ => std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH),
    }
}

fn pthread_self() -> usize {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::pthread_self() as usize }
}

fn remember(head: NonNull<Head>) {
    // Relaxed: a constant.
    HEAD_DISTANCE.store((head.as_ptr() as usize).wrapping_sub(pthread_self()), Ordering::Relaxed);
}

/// Where libc has this thread's head, whether the kernel knows it or not; null if no thread can tell.
fn remembered_head() -> *mut Head {
    if HEAD_DISTANCE.load(Ordering::Relaxed) == 0 {
        // libc registers the list of each thread that it starts.
        let asked = std::thread::Builder::new().spawn(|| registered_head().into_iter().for_each(remember));
        let _ = asked.map(std::thread::JoinHandle::join);
    }
    match HEAD_DISTANCE.load(Ordering::Relaxed) {
        0 => ptr::null_mut(),
        distance => ptr::with_exposed_provenance_mut(pthread_self().wrapping_add(distance)),
    }
}

fn gettid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() as u32 }
}

/// Whether the kernel knew no list of this thread, and knows libc's now.
fn named_anew() -> bool {
    let (mut head, mut len) = (ptr::null_mut::<Head>(), 0usize);
    // SAFETY: both out-pointers are valid; 0 names the calling thread.
    let r = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    r == 0 && head.is_null() && empty_list(remembered_head()).is_ok()
}

/// The head that libc registered for this thread, if its layout is the one this module writes.
fn registered_head() -> Option<NonNull<Head>> {
    #[cfg(miri)]
    return Some(interpreted_head());
    let mut head: *mut Head = ptr::null_mut();
    let mut len = 0usize;
    // SAFETY: both out-pointers are valid; 0 names the calling thread.
    let r = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    let head = NonNull::new(head).filter(|_| r == 0 && len == size_of::<Head>())?;
    // SAFETY: the kernel returned the head that libc registered for this thread.
    let offset = unsafe { (*head.as_ptr()).futex_offset };
    (offset == -(NODE_OFFSET as isize)).then_some(head)
}

/// A head of nobody's, as libc would have it.
#[cfg(miri)]
fn interpreted_head() -> NonNull<Head> {
    #[repr(C)]
    struct InFront(*mut u8, Head);
    thread_local! {
        static HEAD: UnsafeCell<InFront> = const {
            UnsafeCell::new(InFront(ptr::null_mut(), Head { next: ptr::null_mut(), futex_offset: 0, pending: ptr::null_mut() }))
        };
    }
    HEAD.with(|head| {
        // SAFETY: this thread's own.
        let head = unsafe { &raw mut (*head.get()).1 };
        // SAFETY: as above.
        let next = unsafe { &raw mut (*head).next };
        // SAFETY: as above.
        unsafe { next.write(head.cast()) };
        NonNull::new(head).expect("a thread's own")
    })
}

#[inline]
fn node_of(word: *const AtomicU32) -> *mut u8 {
    word.cast::<u8>().wrapping_add(NODE_OFFSET).cast_mut()
}

/// What [`Thread::set_pending`] found, to be put back.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Pending(*mut u8);

impl Thread {
    /// The kernel's id of this thread.
    #[inline]
    pub fn tid(self) -> u32 {
        self.local().tid.get()
    }

    #[inline]
    fn local(&self) -> &Local {
        // SAFETY: a `Thread` does not leave its thread, whose locals live as long as it.
        unsafe { self.local.as_ref() }
    }

    #[inline]
    fn pending_slot(self) -> *mut *mut u8 {
        // SAFETY: `attach` stored the head, which is libc's own for this thread and lives as long as it.
        unsafe { &raw mut (*self.local().head.get()).pending }
    }

    /// Names the word whose sleepers the kernel must look after if this thread dies from here on.
    ///
    /// The slot is one: the caller puts the old content back with [`restore_pending`](Thread::restore_pending), so
    /// that operations may begin inside others and in signal handlers. `word` has the layout of a robust word,
    /// or its TID bits are always 0.
    #[inline]
    pub fn set_pending(self, word: &AtomicU32) -> Pending {
        let slot = self.pending_slot();
        // SAFETY: the slot is valid; volatile, since the kernel reads it at any moment.
        let old = unsafe { slot.read_volatile() };
        compiler_fence(Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { slot.write_volatile(node_of(word)) };
        compiler_fence(Ordering::SeqCst);
        Pending(old)
    }

    /// As [`set_pending`](Thread::set_pending), for a word whose TID bits the caller does not set: if this thread dies, the kernel wakes a sleeper
    /// ([`wakes_for_the_dead`]).
    #[inline]
    pub fn set_baton(self, word: &AtomicU32) -> Pending {
        // Tests of other kernels see what is left when this one does not wake either.
        if crash::ENABLED && probe::is_denied(Feature::DeathWakes) {
            // SAFETY: the slot is valid; volatile, since the kernel reads it at any moment.
            return Pending(unsafe { self.pending_slot().read_volatile() });
        }
        self.set_pending(word)
    }

    /// Puts back what [`set_pending`](Thread::set_pending) found.
    #[inline]
    pub fn restore_pending(self, old: Pending) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the slot is valid; volatile, since the kernel reads it at any moment.
        unsafe { self.pending_slot().write_volatile(old.0) };
        compiler_fence(Ordering::SeqCst);
    }

    /// Whether one more word can be held without [`reserve`](Thread::reserve).
    #[inline]
    pub fn has_room(self) -> bool {
        self.local().count.get() < self.local().room.get()
    }

    /// How many words this thread holds.
    pub fn holds(self) -> usize {
        self.local().count.get()
    }

    /// Whether `word` is one of those that this thread has entered, whatever stands in it.
    #[inline]
    pub fn has(self, word: &AtomicU32) -> bool {
        let count = self.local().count.get();
        count > 0 && (1..=count).any(|i| ptr::eq(self.place(i).get(), word))
    }

    /// Makes room for one more held word; to be called before the word is taken, since it may allocate.
    #[inline]
    pub fn reserve(self) -> Result<(), Unusable> {
        if self.has_room() { Ok(()) } else { self.reserve_more() }
    }

    #[cold]
    fn reserve_more(self) -> Result<(), Unusable> {
        let local = self.local();
        if local.room.get() == MAX_HELD {
            return Err(Unusable::TooManyHeld);
        }
        let boxed: Box<[Place]> = (0..=MAX_HELD).map(|_| Cell::new(ptr::null())).collect();
        for (to, from) in boxed.iter().zip(&local.inline) {
            to.set(from.get());
        }
        local.held.set(Box::into_raw(boxed).cast_const().cast());
        local.room.set(MAX_HELD);
        Ok(())
    }

    /// The place of the `i`-th word held; the 0th is the sentinel.
    #[inline]
    fn place(&self, i: usize) -> &Place {
        let local = self.local();
        debug_assert!(i <= local.room.get());
        // SAFETY: callers stay below `room` + 1, the length of what `held` points to since `attach`.
        let place = unsafe { local.held.get().add(i) };
        // SAFETY: it lies in `inline` or in the box that only `drop_box` frees, when no word is held and no reference is out.
        unsafe { &*place }
    }

    /// Enters `word`, which holds this thread's TID, into the list. Room was made by [`reserve`](Thread::reserve).
    ///
    /// The private array is ahead of the kernel's list, here and in [`unlink`](Thread::unlink), so that a signal handler that locks and unlocks in between
    /// leaves the list as it must become.
    ///
    /// # Safety
    /// The word has a link of a pointer's size at [`NODE_OFFSET`] that nothing else uses, and stays mapped until [`unlink`](Thread::unlink).
    #[inline]
    pub unsafe fn link(self, word: &AtomicU32) {
        let count = self.local().count.get();
        let below = node_of(self.place(count).get());
        // SAFETY: the caller vouches for the link.
        let link = unsafe { &*node_of(word).cast::<AtomicUsize>() };
        // Relaxed: only this thread writes it, and the kernel reads it after the thread's last instruction.
        link.store(below as usize, Ordering::Relaxed);
        self.place(count + 1).set(word);
        compiler_fence(Ordering::SeqCst);
        self.local().count.set(count + 1);
        compiler_fence(Ordering::SeqCst);
        self.set_first(node_of(word));
    }

    /// Takes `word` out of the list; false when this thread does not hold it.
    #[inline]
    pub fn unlink(self, word: &AtomicU32) -> bool {
        let count = self.local().count.get();
        if count == 0 || !ptr::eq(self.place(count).get(), word) || count == 1 && self.local().room.get() != INLINE_HELD {
            return self.unlink_slow(word);
        }
        let below = node_of(self.place(count - 1).get());
        self.local().count.set(count - 1);
        compiler_fence(Ordering::SeqCst);
        self.set_first(below);
        true
    }

    /// Takes out a word that is not the newest, or the last of many.
    #[cold]
    fn unlink_slow(self, word: &AtomicU32) -> bool {
        let count = self.local().count.get();
        let Some(at) = (1..=count).rev().find(|&i| ptr::eq(self.place(i).get(), word)) else { return false };
        let below = node_of(self.place(at - 1).get());
        if at == count {
            self.local().count.set(count - 1);
            compiler_fence(Ordering::SeqCst);
            self.set_first(below);
        } else {
            // SAFETY: the word above is held by this thread, so its link is in use for nothing else.
            let link = unsafe { &*node_of(self.place(at + 1).get()).cast::<AtomicUsize>() };
            // Relaxed: as in `link`.
            link.store(below as usize, Ordering::Relaxed);
            for i in at..count {
                self.place(i).set(self.place(i + 1).get());
            }
            compiler_fence(Ordering::SeqCst);
            self.local().count.set(count - 1);
        }
        if count == 1 {
            self.drop_box();
        }
        true
    }

    fn drop_box(self) {
        let local = self.local();
        if local.room.get() == INLINE_HELD {
            return;
        }
        let places = ptr::slice_from_raw_parts_mut(local.held.get().cast_mut(), MAX_HELD + 1);
        local.held.set(local.inline.as_ptr());
        local.room.set(INLINE_HELD);
        // SAFETY: it came from Box::into_raw with this length, and nothing refers to it: no word is held.
        drop(unsafe { Box::from_raw(places) });
    }

    #[inline]
    fn set_first(self, node: *mut u8) {
        let first = self.local().first.get();
        // SAFETY: the link lies inside the sentinel.
        let next = unsafe { &raw mut (*first).next };
        // SAFETY: it belongs to this thread; volatile, since the kernel reads it at any moment.
        unsafe { next.write_volatile(node) };
        compiler_fence(Ordering::SeqCst);
    }
}

/// Whether this kernel wakes a sleeper of a free word that a dying thread had as pending. Takes well under a millisecond.
///
/// Kernels before 6.1 (commit 90d758896787) look at the whole word instead of its TID bits, gVisor does neither.
pub fn wakes_for_the_dead() -> bool {
    use crate::clock::Deadline;
    use crate::futex;
    use std::thread::Builder;
    use std::time::Duration;
    const PATIENCE: Duration = Duration::from_millis(200);
    if cfg!(miri) {
        return true;
    }
    if probe::is_denied(Feature::DeathWakes) {
        return false;
    }
    #[repr(C, align(64))]
    struct Cell64(AtomicU32, [u32; 15]);
    let cell = Cell64(AtomicU32::new(WAITERS), [0; 15]);
    let asleep = || futex::wait(&cell.0, WAITERS, Deadline::after(PATIENCE)) == futex::Wait::LookAgain;
    // The word keeps its top bit: kernels that look at the whole word do not wake for it.
    let die = || {
        current().is_ok_and(|thread| {
            let _stays_pending = thread.set_pending(&cell.0);
            true
        })
    };
    std::thread::scope(|scope| {
        // Without room for two threads nobody knows: slices are always right.
        let Ok(sleeper) = Builder::new().spawn_scoped(scope, asleep) else { return false };
        // Who dies before the other sleeps wakes nobody, so they go on dying until it has woken, or has lost patience.
        while !sleeper.is_finished() {
            let died = Builder::new().spawn_scoped(scope, die).is_ok_and(|thread| thread.join().unwrap_or(false));
            if !died {
                futex::wake_all(&cell.0);
                return false;
            }
        }
        sleeper.join().unwrap_or(false)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C, align(64))]
    struct Word {
        word: AtomicU32,
        rest: [AtomicU32; 15],
    }

    fn words<const N: usize>() -> &'static [Word; N] {
        Box::leak(Box::new([const { Word { word: AtomicU32::new(0), rest: [const { AtomicU32::new(0) }; 15] } }; N]))
    }

    #[test]
    fn a_thread_that_ends_marks_what_it_holds_in_any_order_of_unlocking() {
        let words = words::<6>();
        std::thread::spawn(move || {
            let me = current().unwrap();
            for w in words {
                me.reserve().unwrap();
                w.word.store(me.tid(), Ordering::Relaxed);
                // SAFETY: the words are leaked and have room for the link.
                unsafe { me.link(&w.word) };
            }
            for i in [0, 3, 5] {
                assert!(me.unlink(&words[i].word));
                words[i].word.store(0, Ordering::Relaxed);
            }
            assert!(!me.unlink(&words[3].word));
        })
        .join()
        .unwrap();
        let marked: Vec<bool> = words.iter().map(|w| w.word.load(Ordering::Acquire) & OWNER_DIED != 0).collect();
        assert_eq!(marked, [false, true, true, false, true, false]);
        assert!(words.iter().all(|w| w.rest[0].load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn more_than_the_kernel_walks_is_refused() {
        let words = words::<2000>();
        std::thread::spawn(move || {
            let me = current().unwrap();
            let mut held = 0;
            for w in words {
                if me.reserve().is_err() {
                    break;
                }
                w.word.store(me.tid(), Ordering::Relaxed);
                // SAFETY: the words are leaked and have room for the link.
                unsafe { me.link(&w.word) };
                held += 1;
            }
            assert_eq!(held, MAX_HELD);
        })
        .join()
        .unwrap();
        let marked = words.iter().filter(|w| w.word.load(Ordering::Acquire) & OWNER_DIED != 0).count();
        assert_eq!(marked, MAX_HELD);
    }

    #[test]
    fn who_is_dead_and_not_reaped_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while !is_gone(child.id()) {
            std::thread::yield_now();
        }
        assert_eq!(task::state(child.id()), Some('Z'));
        child.wait().unwrap();
        assert!(is_gone(child.id()) && !is_gone(gettid()));
    }

    #[test]
    fn this_kernel_wakes_for_the_dead() {
        assert!(wakes_for_the_dead());
    }
}
