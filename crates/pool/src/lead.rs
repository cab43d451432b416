//! One thread at a time collects what arrives, for all that wait: [`Lead`].
//!
//! Whoever waits for a task leads, if nobody does: it takes what is told, gives each task its outcome, and goes on until its own has one. Then it
//! passes the lead on to one of those who wait meanwhile. So a lone `join` costs one wake, by the worker itself.

use crate::home::lock;
use multiproc_channel::sealed::Within;
use std::sync::Mutex;
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

/// What is collected.
pub(crate) trait Collector {
    /// Takes one thing that was told; false when nothing was.
    fn collect(&self, within: Within) -> bool;

    /// The last one who waited is gone; whether somebody has called meanwhile: see [`Lead::collect_or_call`].
    fn nobody_leads(&self, called: bool);
}

/// Who collects, and who waits to.
#[derive(Debug, Default)]
pub(crate) struct Lead(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    /// By this thread.
    led: Option<ThreadId>,
    waiting: Vec<Waiting>,
    /// Somebody waits to be heard, and whoever led when he said so may leave without having come to it.
    called: bool,
}

#[derive(Debug)]
struct Waiting {
    thread: Thread,
    /// It waits for something that any task may bring about, and looks after each.
    any: bool,
}

/// The lead, passed on when it is dropped.
struct Leading<'a>(&'a Lead, &'a dyn Collector);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).led = None;
        self.0.pass_on(self.1);
    }
}

/// What is left until a deadline; `None` when it has passed, `Some(None)` for ever.
pub(crate) fn left(deadline: Option<Instant>) -> Option<Option<Duration>> {
    let Some(deadline) = deadline else { return Some(None) };
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(Some(left))
}

impl Lead {
    pub(crate) fn is_led(&self) -> bool {
        lock(&self.0).led.is_some()
    }

    pub(crate) fn is_led_by_another(&self) -> bool {
        lock(&self.0).led.is_some_and(|leader| leader != thread::current().id())
    }

    /// Collects, or waits for who does, until `done`; false when the time has come first. Whatever makes `done` true unparks this thread.
    pub(crate) fn drive(&self, collector: &dyn Collector, done: &dyn Fn() -> bool, deadline: Option<Instant>, any: bool) -> bool {
        let mut enlisted = false;
        let answer = loop {
            if done() {
                break true;
            }
            let Some(time) = left(deadline) else { break false };
            let mut places = lock(&self.0);
            if places.led == Some(thread::current().id()) {
                // A task that this thread runs while it waits for another one, further down its stack.
                drop(places);
                collector.collect(time.map_or(Within::Ever, Within::Time));
                continue;
            }
            if places.led.is_some() {
                let me = thread::current();
                if !places.waiting.iter().any(|waiting| waiting.thread.id() == me.id()) {
                    places.waiting.push(Waiting { thread: me, any });
                    enlisted = true;
                    // `done` is to be asked again: what makes it true from now on unparks this thread.
                    continue;
                }
                drop(places);
                match time {
                    Some(time) => thread::park_timeout(time),
                    None => thread::park(),
                }
                continue;
            }
            places.led = Some(thread::current().id());
            drop(places);
            let _leading = Leading(self, collector);
            while !done() {
                let Some(time) = left(deadline) else { break };
                collector.collect(time.map_or(Within::Ever, Within::Time));
            }
        };
        if enlisted {
            let me = thread::current().id();
            lock(&self.0).waiting.retain(|waiting| waiting.thread.id() != me);
            // It may have been chosen to lead.
            self.pass_on(collector);
        }
        answer
    }

    /// Takes the lead if nobody has it, and collects what is there.
    pub(crate) fn collect_if_alone(&self, collector: &dyn Collector) {
        self.collect_all(collector, false);
    }

    /// As [`collect_if_alone`](Lead::collect_if_alone); if somebody has the lead, [`Collector::nobody_leads`] is told when nobody has.
    pub(crate) fn collect_or_call(&self, collector: &dyn Collector) {
        self.collect_all(collector, true);
    }

    fn collect_all(&self, collector: &dyn Collector, call: bool) {
        {
            let mut places = lock(&self.0);
            if places.led.is_some() {
                places.called |= call;
                return;
            }
            places.led = Some(thread::current().id());
            places.called = false;
        }
        let _leading = Leading(self, collector);
        while collector.collect(Within::Now) {}
    }

    fn pass_on(&self, collector: &dyn Collector) {
        let mut places = lock(&self.0);
        if places.led.is_some() {
            return;
        }
        match places.waiting.first() {
            Some(waiting) => waiting.thread.unpark(),
            None => {
                let called = std::mem::take(&mut places.called);
                drop(places);
                collector.nobody_leads(called);
            }
        }
    }

    /// Wakes those who wait for what any task may bring about.
    pub(crate) fn look_around(&self) {
        lock(&self.0).waiting.iter().filter(|waiting| waiting.any).for_each(|waiting| waiting.thread.unpark());
    }
}
