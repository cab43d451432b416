//! Plays scenes of workers' `tracing` events for `tests/tracing.rs`.

use multiproc::{Pool, Process, tracing_bridge, worker_init};
use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, debug, error, info, info_span, trace, warn};

fn main() {
    multiproc_tests::no_core_dumps();
    match std::env::args().nth(1).expect("a scene").as_str() {
        "events" => events(),
        "full" => full(),
        "own subscriber" => own_subscriber(),
        "killed" => killed(),
        "orphan" => orphan(),
        "exit" => at_exit(),
        "nobody asks" => nobody_asks(),
        "pool" => pool(),
        other => panic!("no scene {other}"),
    }
}

fn say(line: impl fmt::Display) {
    let text = format!("{line}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).unwrap();
    out.flush().unwrap();
}

fn for_ever() {
    loop {
        std::thread::park();
    }
}

/// Prints events, and those of target `counted` it counts. While it is shut, nothing gets through.
struct Printer {
    tag: &'static str,
}

static SHUT: Mutex<bool> = Mutex::new(false);
static OPENED: Condvar = Condvar::new();
static COUNTED: AtomicU64 = AtomicU64::new(0);
static REPORTED: AtomicU64 = AtomicU64::new(0);
static QUIET: AtomicBool = AtomicBool::new(false);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "dropped" {
            REPORTED.fetch_add(value, Ordering::Relaxed);
        }
        let value = if field.name() == "worker.pid" { u64::from(value != 0) } else { value };
        let _ = write!(self.0, " {field}={value}u");
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let _ = write!(self.0, " {field}={value}i");
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let _ = write!(self.0, " {field}={value}f");
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let _ = write!(self.0, " {field}={value}b");
    }
}

impl Subscriber for Printer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() != "hidden" && *metadata.level() <= Level::DEBUG
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut shut = SHUT.lock().unwrap();
        while *shut {
            shut = OPENED.wait(shut).unwrap();
        }
        drop(shut);
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let m = event.metadata();
        if m.target() == "counted" {
            COUNTED.fetch_add(1, Ordering::Relaxed);
        } else if !QUIET.load(Ordering::Relaxed) {
            let file = m.file().map_or("no file", |f| f.rsplit('/').next().unwrap_or_default());
            say(format!("{}{} {} {file} {}{}", self.tag, m.level(), m.target(), m.line().is_some(), fields.0));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn print_as(tag: &'static str) {
    tracing::subscriber::set_global_default(Printer { tag }).unwrap();
}

/// Emits another event while it is written.
struct Chatty;

impl fmt::Debug for Chatty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        info!("from inside");
        f.write_str("chatty")
    }
}

/// Knows spans, and prints of each event in which it is.
#[derive(Default)]
struct Spans(Mutex<Vec<&'static Metadata<'static>>>);

thread_local! {
    static ENTERED: std::cell::RefCell<Vec<u64>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "traced"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut spans = self.0.lock().unwrap();
        spans.push(span.metadata());
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let parent = event.parent().map(|id| self.0.lock().unwrap()[id.into_u64() as usize - 1].name());
        say(format!("{parent:?}{}", fields.0));
    }

    fn enter(&self, span: &Id) {
        ENTERED.with(|entered| entered.borrow_mut().push(span.into_u64()));
    }

    fn exit(&self, _: &Id) {
        ENTERED.with(|entered| entered.borrow_mut().pop());
    }

    fn current_span(&self) -> tracing_core::span::Current {
        let id = ENTERED.with(|entered| entered.borrow().last().copied());
        id.map_or(tracing_core::span::Current::none(), |id| {
            tracing_core::span::Current::new(Id::from_u64(id), self.0.lock().unwrap()[id as usize - 1])
        })
    }
}

/// What a task says belongs to the span in which it was submitted, also when another task submits it.
fn pool() {
    tracing::subscriber::set_global_default(Spans::default()).unwrap();
    let bridge = tracing_bridge().unwrap();
    let pool = Pool::builder().workers(1).name("p").build().unwrap();
    let say_it = |word: String| info!("{word}");
    let first = info_span!("first").in_scope(|| pool.submit(("one".to_owned(),), say_it).unwrap());
    first.join().unwrap();
    pool.apply(("two".to_owned(),), say_it).unwrap();
    let nested = info_span!("second").in_scope(|| {
        pool.submit((pool.clone(),), |pool: Pool| {
            pool.apply((), || info!("three")).unwrap();
            info!("four");
        })
    });
    nested.unwrap().join().unwrap();
    bridge.flush();
}

fn talk() {
    info!(target: "mine", n = -1, m = 1u64, x = 1.5, ok = true, text = "a text", "hello {}", 3);
    trace!("not sent");
    debug!(target: "hidden", "filtered in the coordinator");
    let outer = info_span!("outer", of = "no use").entered();
    info_span!("inner").in_scope(|| warn!("within"));
    warn!(parent: None, "without");
    warn!("outer only");
    drop(outer);
    error!(chatty = ?Chatty, long = "x".repeat(10_000).as_str().len(), "last");
}

fn events() {
    print_as("");
    let bridge = tracing_bridge().unwrap();
    tracing_bridge().unwrap();
    Process::builder().name("w").spawn((), talk).unwrap().join().unwrap();
    let nested = Process::builder().name("upper").spawn((), || {
        assert!(tracing_bridge().is_err());
        let lower = Process::builder().name("lower").spawn((), || info!("from below"));
        lower.unwrap().join().unwrap();
        info!("from the middle");
    });
    nested.unwrap().join().unwrap();
    let died = Process::builder().name("dead").spawn((), || {
        info!("last words");
        // SAFETY: ends the process.
        unsafe { libc::raise(libc::SIGKILL) };
    });
    assert!(died.unwrap().join().is_err());
    bridge.flush();
    say(format!("dropped {}", bridge.dropped()));
}

/// The subscriber takes nothing, and workers do not wait for it.
fn full() {
    print_as("");
    QUIET.store(true, Ordering::Relaxed);
    let bridge = tracing_bridge().unwrap();
    *SHUT.lock().unwrap() = true;
    let start = || {
        Process::spawn((), || {
            for n in 0..5000 {
                info!(target: "counted", n);
            }
        })
    };
    let workers = [(); 2].map(|()| start().unwrap());
    for p in workers {
        p.join().unwrap();
    }
    assert!(bridge.dropped() > 0);
    *SHUT.lock().unwrap() = false;
    OPENED.notify_all();
    bridge.flush();
    let counted = COUNTED.load(Ordering::Relaxed);
    say(format!("{} {}", counted + bridge.dropped(), bridge.dropped() == REPORTED.load(Ordering::Relaxed)));
}

fn own_subscriber() {
    print_as("coordinator: ");
    let bridge = tracing_bridge().unwrap();
    worker_init(|| print_as("worker: ")).unwrap();
    Process::spawn((), || info!("mine")).unwrap().join().unwrap();
    bridge.flush();
    info!("after");
}

/// Workers are killed while they send.
fn killed() {
    print_as("");
    let bridge = tracing_bridge().unwrap();
    for round in 0..20u64 {
        let talkers = [(); 3].map(|()| {
            Process::spawn((), || -> () {
                loop {
                    info!(target: "counted", "again");
                }
            })
            .unwrap()
        });
        let before = COUNTED.load(Ordering::Relaxed);
        multiproc_tests::eventually(|| COUNTED.load(Ordering::Relaxed) > before + round * 10);
        for p in talkers {
            p.kill().unwrap();
            assert!(p.join().is_err());
        }
    }
    QUIET.store(true, Ordering::Relaxed);
    bridge.flush();
    QUIET.store(false, Ordering::Relaxed);
    Process::builder().name("w").spawn((), || info!("still there")).unwrap().join().unwrap();
    bridge.flush();
}

/// Its coordinator is killed; nobody reads.
fn orphan() {
    print_as("");
    tracing_bridge().unwrap();
    let p = Process::builder().stdin(multiproc::Stdio::Inherit).spawn((), || {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        for n in 0..20_000 {
            info!(n, "to nobody");
        }
        say("done");
    });
    p.unwrap().detach().unwrap();
    say("detached");
    for_ever();
}

fn at_exit() {
    print_as("");
    tracing_bridge().unwrap();
    drop(Process::builder().name("w").spawn((), || {
        for n in 0..100 {
            info!(n);
        }
    }));
}

/// Without a subscriber nothing is sent, and without the bridge nothing arrives.
fn nobody_asks() {
    let bridge = tracing_bridge().unwrap();
    Process::spawn((), || (0..10_000).for_each(|n| info!(n))).unwrap().join().unwrap();
    bridge.flush();
    say(bridge.dropped());
}
