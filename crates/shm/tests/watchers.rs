//! Several watchers of one word, under loom: the shipping code of `src/raw/wait_word.rs`, and the loop of `src/watching.rs` around it. Whatever they may see of each other's
//! words, and whoever dies at whichever crash point, no watcher stays asleep. Each rule that this relies on is left out once, and missed.
//!
//! Loom ends a model in which all threads wait: that is how a lost wake shows.

use loom as checker;

mod world;
pub(crate) use world as beneath;

#[allow(dead_code, unreachable_pub)]
#[path = "../src/raw/wait_word.rs"]
mod wait_word;

use loom::thread;
use wait_word::WaitWord;
use world::check::{BOTH, ONE_ORDER, Orders, holds, holds_at_each_step};
use world::shared::shared;
use world::{AtomicU32, Ordering, Thread, Without, Word, crash, wait_any};

/// An object that is watched: `news` rises.
#[derive(Debug, Default)]
struct Watched {
    word: WaitWord,
    seconds: AtomicU32,
    news: AtomicU32,
}

/// What a watcher does, or leaves out.
#[derive(Clone, Copy, Debug)]
struct Habits {
    /// Has the look come after the announcement.
    fence: bool,
    /// Compares the count of wakes where there are several watchers.
    count: bool,
    /// Compares the word in which second watchers are announced.
    seconds: bool,
    /// Wakes the others if the bit is still set when it has woken.
    passes_on: bool,
}

const GOOD: Habits = Habits { fence: true, count: true, seconds: true, passes_on: true };

impl Watched {
    /// As a wait does it that sleeps on one object.
    fn watch(&'static self, me: u32, until: u32, habits: Habits) {
        // Acquire pairs with the store in `put`.
        let ready = || self.news.load(Ordering::Acquire) >= until;
        loop {
            let seconds = self.seconds.load(Ordering::SeqCst);
            let watch = self.word.announce(me, &self.seconds);
            crash::point("watching.announced");
            if habits.fence {
                beneath::fence(Ordering::SeqCst);
            }
            if ready() {
                return;
            }
            let as_word = |(word, expected)| Word { word, expected };
            let mut words = vec![as_word(watch.word)];
            words.extend(watch.count.filter(|_| habits.count).map(as_word));
            words.extend(habits.seconds.then_some(Word { word: &self.seconds, expected: seconds }));
            let pending = Thread.set_baton(watch.word.0);
            crash::point("watching.before_sleep");
            let _ = wait_any(&words, None, false);
            crash::point("watching.after_sleep");
            let ready = ready();
            if ready && habits.passes_on {
                self.word.pass_on_if_owed();
            }
            crash::point("watching.told");
            Thread.restore_pending(pending);
            if ready {
                return;
            }
        }
    }

    fn watcher(&'static self, me: u32, until: u32, habits: Habits) -> thread::JoinHandle<()> {
        thread::spawn(move || self.watch(me, until, habits))
    }

    /// As the one that waits does it, beside watchers.
    fn wait(&'static self, until: u32) {
        let ready = || self.news.load(Ordering::Acquire) >= until;
        loop {
            self.word.prepare();
            if ready() {
                break;
            }
            let _ = self.word.sleep(None, false);
            if ready() {
                self.word.pass_on_if_owed();
                break;
            }
        }
        self.word.finish();
    }

    fn put(&'static self, news: u32) {
        self.word.commit_and_kick_lightly(Thread, || self.news.store(news, Ordering::Release));
    }
}

/// Where all are woken together, if at all.
fn always(scene: impl Fn() + Sync + Send + Copy + 'static) {
    assert!(holds(ONE_ORDER, Without::Nothing, true, scene));
}

/// Whoever dies in it, at each of its crash points in turn; in both orders where a death wakes one of two.
fn at_each_step(orders: Orders, scene: impl Fn(u32) -> bool + Sync + Send + Copy + 'static) {
    assert!(holds_at_each_step(2, orders, Without::Nothing, true, scene).is_ok());
}

fn missed(what: &str, without: Without, scene: impl Fn() + Sync + Send + Copy + 'static) {
    assert!(!holds(BOTH, without, false, scene), "{what}: not missed");
}

/// Two watch, and something comes.
fn both_are_told(habits: Habits) {
    let watched: &Watched = shared();
    let watchers = [watched.watcher(1, 1, habits), watched.watcher(2, 1, habits)];
    watched.put(1);
    watchers.into_iter().for_each(|w| w.join().unwrap());
}

/// While this watcher is about to sleep, something comes, and another announces itself who has nothing of it and waits for the next.
fn comes_back(watched: &'static Watched, habits: Habits) {
    let other = thread::spawn(move || {
        watched.put(1);
        watched.watch(2, 2, habits);
    });
    watched.watch(1, 1, habits);
    watched.put(2);
    other.join().unwrap();
}

/// Each may be the first that ever watched.
fn one_comes_back(habits: Habits) {
    comes_back(shared(), habits);
}

/// It has been known for long that there are several.
fn one_comes_back_to_several(habits: Habits) {
    comes_back(of_several(), habits);
}

/// While this watcher is about to sleep and somebody tells of something, another announces itself, who has nothing of it.
fn another_comes_meanwhile(habits: Habits) {
    let watched = of_several();
    let watcher = watched.watcher(1, 1, habits);
    let putter = thread::spawn(move || watched.put(1));
    let other = thread::spawn(move || _ = watched.word.announce(2, &watched.seconds));
    watcher.join().unwrap();
    putter.join().unwrap();
    other.join().unwrap();
}

/// Watched by others before, so that each compares the count from the first time on.
fn of_several() -> &'static Watched {
    let watched: &Watched = shared();
    for me in [3, 4] {
        let _ = watched.word.announce(me, &watched.seconds);
    }
    watched
}

/// A watcher dies at each step, and with it the wake that it may have.
fn watcher_dies(k: u32, habits: Habits) -> bool {
    let watched: &Watched = shared();
    let mortal = thread::spawn(move || crash::dies_at(k, || watched.watch(1, 1, habits)));
    let other = watched.watcher(2, 1, habits);
    watched.put(1);
    other.join().unwrap();
    mortal.join().unwrap()
}

/// Who puts dies at each step, with both asleep or about to be; the cleaner wakes who was about to sleep.
fn putter_dies(k: u32, habits: Habits) -> bool {
    let watched: &Watched = shared();
    let watchers = [watched.watcher(1, 1, habits), watched.watcher(2, 1, habits)];
    let died = crash::dies_at(k, || watched.put(1));
    if died {
        if watched.news.load(Ordering::Acquire) == 0 {
            watched.put(1);
        } else {
            watched.word.commit_and_kick_all(Thread, || {});
            watched.word.pass_on_to_all();
        }
    }
    watchers.into_iter().for_each(|w| w.join().unwrap());
    died
}

/// The same with both asleep: the kernel wakes one, who wakes the other.
fn putter_dies_over_sleepers(k: u32, habits: Habits) -> bool {
    let watched = of_several();
    let watchers = [watched.watcher(1, 1, habits), watched.watcher(2, 1, habits)];
    watched.word.watch().0.await_asleep(2);
    let died = crash::dies_at(k, || watched.put(1));
    if died && watched.news.load(Ordering::Acquire) == 0 {
        watched.put(1);
    }
    watchers.into_iter().for_each(|w| w.join().unwrap());
    died
}

/// And one of the two dies at each step after its sleep, with the wake in hand or without it.
fn both_die(k: u32, habits: Habits) -> bool {
    let watched = of_several();
    let mortal = thread::spawn(move || crash::dies_at(ASLEEP + k, || watched.watch(1, 1, habits)));
    let other = watched.watcher(2, 1, habits);
    watched.word.watch().0.await_asleep(2);
    // Between the commit and the wake.
    assert!(crash::dies_at(2, || watched.put(1)));
    let died = mortal.join().unwrap();
    other.join().unwrap();
    died
}

/// The one that waits beside a watcher gives up.
fn waiter_leaves() {
    let watched: &Watched = shared();
    let watcher = watched.watcher(1, 1, GOOD);
    watched.word.prepare();
    watched.word.finish();
    watched.put(1);
    watcher.join().unwrap();
}

/// A watcher that waits for more comes while the one that waits is woken.
fn waiter_is_woken() {
    let watched: &Watched = shared();
    let waiter = thread::spawn(move || watched.wait(1));
    watched.word.watch().0.await_asleep(1);
    let watcher = watched.watcher(1, 2, GOOD);
    watched.put(1);
    watched.put(2);
    waiter.join().unwrap();
    watcher.join().unwrap();
}

/// Nobody watches, one waits, and the change is a plain store: only the fences on both sides keep it from being missed.
fn one_waits(put: fn(&'static Watched)) {
    let watched: &Watched = shared();
    let waiter = thread::spawn(move || watched.wait(1));
    put(watched);
    waiter.join().unwrap();
}

/// Steps of a watcher until it sleeps.
const ASLEEP: u32 = 2;

#[test]
fn all_watchers_are_told() {
    always(|| both_are_told(GOOD));
}

#[test]
fn who_waits_alone_is_told() {
    always(|| one_waits(|it| it.word.commit_and_kick(Thread, || it.news.store(1, Ordering::Release))));
    always(|| one_waits(|it| it.word.commit_and_kick_all(Thread, || it.news.store(1, Ordering::Release))));
}

#[test]
fn nobody_hides_a_wake_from_another() {
    always(|| one_comes_back(GOOD));
    always(|| one_comes_back_to_several(GOOD));
    always(|| another_comes_meanwhile(GOOD));
}

#[test]
fn who_waits_beside_a_watcher_leaves_it_its_wake() {
    always(waiter_leaves);
    always(waiter_is_woken);
}

#[test]
fn a_watcher_that_dies_swallows_no_wake() {
    at_each_step(ONE_ORDER, |k| watcher_dies(k, GOOD));
    at_each_step(BOTH, |k| both_die(k, GOOD));
}

#[test]
fn a_putter_that_dies_strands_no_watcher() {
    at_each_step(ONE_ORDER, |k| putter_dies(k, GOOD));
    at_each_step(BOTH, |k| putter_dies_over_sleepers(k, GOOD));
}

#[test]
fn each_rule_is_needed() {
    missed("the fence", Without::Order, || both_are_told(Habits { fence: false, ..GOOD }));
    missed("both comparisons", Without::OtherWord, || one_comes_back(GOOD));
    missed("the comparison of the announcements", Without::Nothing, || one_comes_back(Habits { seconds: false, ..GOOD }));
    missed("the comparison of the count", Without::Nothing, || one_comes_back_to_several(Habits { count: false, ..GOOD }));
    missed("the count", Without::Count, || one_comes_back_to_several(GOOD));
    missed("the announcement", Without::Announcement, || one_comes_back(GOOD));
    // The second step of a put is its commit.
    missed("the kernel", Without::Baton, || _ = putter_dies_over_sleepers(2, GOOD));
    missed("passing on", Without::Nothing, || _ = putter_dies_over_sleepers(2, Habits { passes_on: false, ..GOOD }));
    assert!(holds_at_each_step(2, BOTH, Without::Baton, false, |k| both_die(k, GOOD)).is_err());
}
