//! Victims: processes that play a part until they die, in one of five ways, at any instruction.
//!
//! Most are made by a plain fork, which takes a quarter of the time; some by `Process::spawn`, as a program would.
#![allow(unsafe_code)]

use super::page::{Page, ROWS, Row, STARTING};
use super::scene::Scene;
use multiproc::Process;
use serde::{Deserialize, Serialize};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Values of a row's `panic`: it shall panic; it is about to become another program, which is its end, though its pid lives on.
pub const PANICS: u32 = 1;
pub const DOOMED: u32 = 2;

/// What a panic says that was asked for.
const TOLD: &str = "as it was told";

/// What a victim is told.
#[derive(Clone, Copy, Debug)]
pub struct Me {
    pub page: &'static Page,
    pub row: usize,
    pub seat: usize,
    pub life: u64,
}

impl Me {
    /// Does an operation; who dies meanwhile has died inside it.
    #[inline]
    pub fn op<R>(&self, number: u32, f: impl FnOnce() -> R) -> R {
        let result = self.op_quietly(number, f);
        self.count();
        result
    }

    /// The same where it does not say that anything goes on.
    #[inline]
    pub fn op_quietly<R>(&self, number: u32, f: impl FnOnce() -> R) -> R {
        let row = self.mine();
        if self.is_aimed_at(number) {
            self.arm();
        }
        // Relaxed: a death is seen by who has waited for it, and loses no store.
        row.inside.store(number, Ordering::Relaxed);
        let result = f();
        row.inside.store(0, Ordering::Relaxed);
        result
    }

    /// It is to die in the operation that it begins now: a signal comes in so many nanoseconds.
    #[cold]
    fn arm(&self) {
        let aim = self.mine().aim.swap(0, Ordering::Relaxed);
        ARMED.store(true, Ordering::Relaxed);
        // SAFETY: all zero is a valid value.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = (aim >> 8 & 0xff) as i32;
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: the pointers are valid for the call.
        unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let when = libc::itimerspec { it_interval: never, it_value: libc::timespec { tv_sec: 0, tv_nsec: (aim >> 16) as i64 } };
        // SAFETY: a timer of this process, and the pointer is valid for the call.
        unsafe { libc::timer_settime(timer, 0, &raw const when, std::ptr::null_mut()) };
    }

    /// Whether it is to die in that operation when it comes to it.
    pub fn is_aimed_at(&self, op: u32) -> bool {
        self.mine().aim.load(Ordering::Relaxed) & 0xff == u64::from(op)
    }

    /// Stays where it is if it is to die there: what takes some nanoseconds takes long enough.
    #[inline]
    pub fn linger(&self, mut again: impl FnMut()) {
        if ARMED.load(Ordering::Relaxed) {
            let until = Instant::now() + LINGER;
            while Instant::now() < until {
                again();
            }
        }
    }

    /// Something goes on.
    #[inline]
    pub fn count(&self) {
        let count = &self.mine().count;
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Counts what the scene counts for each life.
    #[inline]
    pub fn did(&self, n: u64) {
        let done = &self.mine().done;
        done.store(done.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    pub fn mine(&self) -> &'static Row {
        &self.page.rows[self.row % ROWS]
    }

    /// Panics if it is to.
    #[inline]
    pub fn may_panic(&self) {
        if self.mine().panic.load(Ordering::Relaxed) == PANICS {
            panic!("{TOLD}");
        }
    }

    /// A panic that nobody has asked for.
    fn mind(&self, panic: &PanicHookInfo<'_>) {
        if panic.payload_as_str() != Some(TOLD) {
            self.complain(&format!("{panic}"));
        }
    }

    /// A promise is broken: says so, and ends.
    pub fn complain(&self, what: &str) -> ! {
        self.page.complain(&format!("seat {}: {what}", self.seat));
        // SAFETY: ends the process.
        unsafe { libc::_exit(70) }
    }

    /// Waits until it is killed: there is nothing to do.
    pub fn rest(&self) {
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// A signal that ends this process is on its way.
static ARMED: AtomicBool = AtomicBool::new(false);
/// Longer than a timer needs.
const LINGER: Duration = Duration::from_micros(60);

/// Who this process is, for what has no other way to know: a message that is being decoded.
static ME: OnceLock<Me> = OnceLock::new();

/// The victim that this process is; none in the coordinator.
pub fn me() -> Option<&'static Me> {
    ME.get()
}

/// How a victim dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Kill,
    Abort,
    Exit,
    Exec,
    Panic,
}

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Way::Kill => "SIGKILL",
            Way::Abort => "SIGABRT",
            Way::Exit => "exit",
            Way::Exec => "exec",
            Way::Panic => "panic",
        }
    }

    /// SIGKILL for the most part; the others too may come at any instruction, but for a panic, which comes in the middle of an operation.
    pub fn draw(random: &mut fastrand::Rng) -> Way {
        match random.u32(..10) {
            0 => Way::Abort,
            1 => Way::Exit,
            2 => Way::Exec,
            3 => Way::Panic,
            _ => Way::Kill,
        }
    }

    fn signal(self) -> i32 {
        match self {
            Way::Kill | Way::Panic => libc::SIGKILL,
            Way::Abort => libc::SIGABRT,
            Way::Exit => libc::SIGUSR1,
            Way::Exec => libc::SIGUSR2,
        }
    }

    /// Whether who was told to die so may have ended so: any other signal, and any other status, is a fault in what it played. A handler is not there at once.
    fn explains(self, status: ExitStatus) -> bool {
        match (status.signal(), status.code()) {
            (Some(signal), _) => signal == self.signal() || signal == libc::SIGKILL,
            (_, Some(code)) => match self {
                Way::Exit => code == EXITED,
                Way::Exec => matches!(code, 0 | NO_EXEC),
                Way::Panic => matches!(code, PANICKED | PANICKED_SPAWNED),
                Way::Kill | Way::Abort => false,
            },
            _ => false,
        }
    }
}

/// With what victims leave: by a handler of signals, by a panic in one that was forked and in one that `Process::spawn` has made.
const EXITED: i32 = 9;
const NO_EXEC: i32 = 8;
const PANICKED: i32 = 10;
const PANICKED_SPAWNED: i32 = 101;

extern "C" fn leave(_: i32) {
    // SAFETY: may be called by a signal handler.
    unsafe { libc::_exit(EXITED) }
}

extern "C" fn become_another(_: i32) {
    let arguments = [c"true".as_ptr(), std::ptr::null()];
    // SAFETY: may be called by a signal handler; the lists have an end.
    unsafe { libc::execve(c"/bin/true".as_ptr(), arguments.as_ptr(), arguments[1..].as_ptr()) };
    // SAFETY: may be called by a signal handler.
    unsafe { libc::_exit(NO_EXEC) }
}

fn handle(signal: i32, handler: extern "C" fn(i32)) {
    // SAFETY: the handler calls only what a handler may.
    unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
}

/// How its processes are scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Every other seat has idle priority, on the first core, where a hog runs.
    pub idle: bool,
}

/// Binds the calling process to one core.
pub fn bind(core: usize) {
    bind_thread(0, core);
}

/// The same with a thread; 0: the calling one.
fn bind_thread(tid: i32, core: usize) {
    // SAFETY: a set of bits, all zero.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the core's number is below the size of the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::sched_setaffinity(tid, size_of_val(&set), &raw const set) };
}

/// A thread gets what others leave of the first core; 0: the calling one.
fn idle_thread(tid: i32) {
    bind_thread(tid, 0);
    // SAFETY: all zero is a valid value.
    let none: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::sched_setscheduler(tid, libc::SCHED_IDLE, &raw const none) };
}

/// Every other seat's, where it is to be idle.
pub fn take_place(place: Place, seat: usize) {
    if place.idle && seat % 2 == 1 {
        idle_thread(0);
    }
}

/// The keeper of this process, its only other thread, is late with all that it does, in the middle as well.
pub fn slow_down_keeper() {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let tids = tasks.filter_map(|task| task.file_name().to_str()?.parse::<u32>().ok());
    tids.filter(|tid| *tid != std::process::id()).for_each(|tid| idle_thread(tid as i32));
}

/// Deaths by signal leave no files.
pub fn no_core_dumps() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads the struct.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

fn play(scene: &Scene, me: Me, place: Place) {
    let _ = ME.set(me);
    std::panic::set_hook(Box::new(move |panic| me.mind(panic)));
    handle(libc::SIGUSR1, leave);
    handle(libc::SIGUSR2, become_another);
    take_place(place, me.seat);
    me.mine().inside.store(0, Ordering::Relaxed);
    scene.play(&me);
}

/// The part of a victim that `Process::spawn` has started.
fn spawned(scene: Scene, path: String, row: usize, seat: usize, life: u64, place: Place) {
    super::losses_heard::listen(&path);
    let Some(page) = super::losses_heard::page() else { return };
    // Not dropped: a drop is an operation of its own, which its coordinator does.
    let scene: &'static Scene = Box::leak(Box::new(scene));
    play(scene, Me { page, row, seat, life }, place);
}

/// A victim, from outside.
#[derive(Debug)]
pub struct Victim {
    pub row: usize,
    pub seat: usize,
    pub pid: u32,
    pub way: Option<Way>,
    /// How it has ended, as far as that is known.
    pub status: Option<ExitStatus>,
    pub stopped: bool,
    /// It dies when it comes to a certain place.
    pub later: bool,
    process: Option<Process<()>>,
}

/// How victims are made.
#[derive(Debug)]
pub struct Stable {
    pub page: &'static Page,
    pub path: String,
    pub place: Place,
    pub lives: u64,
    free: Vec<usize>,
}

impl Stable {
    pub fn new(page: &'static Page, path: String, place: Place) -> Stable {
        Stable { page, path, place, lives: 0, free: (0..ROWS).collect() }
    }

    /// Starts one; `by_spawn` in a fresh process.
    pub fn start(&mut self, scene: &Scene, seat: usize, by_spawn: bool) -> Result<Victim, String> {
        self.lives += 1;
        let row = self.free.remove(0);
        let words = &self.page.rows[row];
        words.inside.store(STARTING, Ordering::Relaxed);
        words.panic.store(0, Ordering::Relaxed);
        for word in [&words.count, &words.note, &words.done, &words.aim] {
            word.store(0, Ordering::Relaxed);
        }
        words.pid.store(0, Ordering::Relaxed);
        words.life.store(self.lives, Ordering::Release);
        let me = Me { page: self.page, row, seat, life: self.lives };
        let (pid, process) = if by_spawn {
            let args = (scene.clone(), self.path.clone(), row, seat, self.lives, self.place);
            let process = Process::builder().daemon(true).spawn(args, spawned).map_err(|e| format!("a start failed: {e}"))?;
            (process.pid(), Some(process))
        } else {
            (self.fork(scene, me)?, None)
        };
        words.pid.store(pid, Ordering::Release);
        Ok(Victim { row, seat, pid, way: None, status: None, stopped: false, later: false, process })
    }

    fn fork(&self, scene: &Scene, me: Me) -> Result<u32, String> {
        // SAFETY: the child calls nothing before `after_fork_child`, and leaves by `_exit`.
        let pid = unsafe { libc::fork() };
        if pid < 0 {
            return Err(format!("fork: {}", std::io::Error::last_os_error()));
        }
        if pid == 0 {
            me.mine().pid.store(std::process::id(), Ordering::Release);
            // SAFETY: made by fork() right above.
            let joined = unsafe { multiproc::after_fork_child() };
            if let Err(e) = joined {
                me.complain(&format!("after_fork_child: {e}"));
            }
            let place = self.place;
            let _ = catch_unwind(AssertUnwindSafe(|| play(scene, me, place)));
            // SAFETY: ends the process.
            unsafe { libc::_exit(PANICKED) };
        }
        Ok(pid as u32)
    }

    /// Its life is over and was waited for: its row may be another's.
    pub fn bury(&mut self, victim: Victim) {
        self.page.rows[victim.row].life.store(0, Ordering::Release);
        self.free.push(victim.row);
    }
}

impl Victim {
    fn send(&self, signal: i32) {
        // SAFETY: a process that has not been waited for.
        unsafe { libc::kill(self.pid as i32, signal) };
    }

    /// Has it die.
    pub fn die(&mut self, way: Way, page: &Page) {
        self.way = Some(way);
        self.later = way == Way::Panic;
        match way {
            Way::Panic => page.rows[self.row].panic.store(PANICS, Ordering::Relaxed),
            way => {
                page.rows[self.row].panic.store(DOOMED, Ordering::Relaxed);
                self.send(way.signal());
            }
        }
        self.go_on();
    }

    /// Has it die so many nanoseconds after it has begun that operation, when it comes to do so.
    pub fn die_in(&mut self, op: u32, nanos: u64, way: Way, page: &Page) {
        self.way = Some(way);
        self.later = true;
        let row = &page.rows[self.row];
        if way == Way::Exec {
            row.panic.store(DOOMED, Ordering::Relaxed);
        }
        row.aim.store(nanos << 16 | (way.signal() as u64) << 8 | u64::from(op), Ordering::Relaxed);
        self.go_on();
    }

    /// Stops it for a while.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.send(libc::SIGSTOP);
    }

    pub fn go_on(&mut self) {
        if std::mem::take(&mut self.stopped) {
            self.send(libc::SIGCONT);
        }
    }

    /// It came to no place where it was to die.
    pub fn finish(&mut self) {
        self.send(libc::SIGKILL);
    }

    /// Whether it has ended, and was waited for.
    pub fn is_over(&mut self) -> bool {
        match &self.process {
            Some(process) => {
                let over = !process.is_alive();
                self.status = process.exit_status();
                over
            }
            None => {
                let mut status = 0;
                // SAFETY: the pointer is valid for the call.
                let over = unsafe { libc::waitpid(self.pid as i32, &raw mut status, libc::WNOHANG) == self.pid as i32 };
                self.status = over.then(|| ExitStatus::from_raw(status));
                over
            }
        }
    }

    /// How it died; what happened instead if it was told something else, or nothing.
    pub fn died(&self) -> Result<Way, String> {
        let told = self.way.unwrap_or(Way::Kill);
        match self.status {
            Some(status) if !told.explains(status) => {
                Err(format!("seat {} pid {} was to die by {}, and ended with {status}", self.seat, self.pid, told.name()))
            }
            Some(status) if status.signal() == Some(libc::SIGKILL) => Ok(Way::Kill),
            _ => Ok(told),
        }
    }
}

/// A program that uses the first core all the time, but for a fifth of it.
#[derive(Debug)]
pub struct Hog(i32);

impl Hog {
    pub fn start() -> Hog {
        // SAFETY: the child uses no lock and allocates nothing.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: takes no pointers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            bind(0);
            let spins = AtomicU32::new(0);
            loop {
                let mut begin = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                loop {
                    let mut now = begin;
                    // SAFETY: the pointer is valid for the call.
                    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
                    if begin.tv_sec == 0 {
                        begin = now;
                    }
                    spins.fetch_add(1, Ordering::Relaxed);
                    if (now.tv_sec - begin.tv_sec) * 1_000_000_000 + now.tv_nsec - begin.tv_nsec > 20_000_000 {
                        break;
                    }
                }
                // SAFETY: takes no pointers.
                unsafe { libc::usleep(5000) };
            }
        }
        Hog(pid)
    }

    pub fn pid(&self) -> i32 {
        self.0
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // SAFETY: our child.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}
