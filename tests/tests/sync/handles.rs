//! What they all are: handles, of one arena, of which no memory is left.

use crate::helpers::*;
use multiproc::{AcquireError, Atomic, Event, Lock, LockError, OwnedPermit, Process, Queue, Semaphore, Value};
use multiproc_shm::{Arena, Error, Options};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

mod auto_traits {
    use super::*;
    use multiproc::{LockGuard, Permit, Recovery, ValueGuard};

    fn shared<T: Send + Sync + Clone + Debug>() {}
    fn sendable<T: Send + Sync>() {}

    /// Compiles only if `T` is not `Send`: otherwise the method is ambiguous.
    trait NotSendIfUnambiguous<A> {
        fn here() {}
    }
    impl<T: ?Sized> NotSendIfUnambiguous<()> for T {}
    impl<T: ?Sized + Send> NotSendIfUnambiguous<u8> for T {}

    #[test]
    fn handles_are_send_and_sync_and_guards_stay_on_their_thread() {
        shared::<Lock>();
        shared::<Value<u64>>();
        shared::<Atomic<u64>>();
        shared::<Event>();
        shared::<Semaphore>();
        sendable::<OwnedPermit>();
        sendable::<Permit>();
        sendable::<LockError>();
        sendable::<AcquireError>();
        <LockGuard<'static> as NotSendIfUnambiguous<_>>::here();
        <Recovery<'static> as NotSendIfUnambiguous<_>>::here();
        <ValueGuard<'static, u64> as NotSendIfUnambiguous<_>>::here();
    }
}

#[test]
fn handles_travel_only_with_multiproc_and_only_as_what_they_are() {
    let _watch = watch();
    let (lock, value, atomic) = (Lock::new().unwrap(), Value::new(1u8).unwrap(), Atomic::new(1u8).unwrap());
    let (event, semaphore) = (Event::new().unwrap(), Semaphore::new(1).unwrap());
    let permit = semaphore.acquire_owned().unwrap();
    let outside = [
        serde_json::to_string(&lock).unwrap_err(),
        serde_json::to_string(&value).unwrap_err(),
        serde_json::to_string(&atomic).unwrap_err(),
        serde_json::to_string(&event).unwrap_err(),
        serde_json::to_string(&semaphore).unwrap_err(),
        serde_json::to_string(&permit).unwrap_err(),
        serde_json::from_str::<Lock>("0").unwrap_err(),
        serde_json::from_str::<OwnedPermit>("0").unwrap_err(),
    ];
    for error in outside {
        assert!(error.to_string().contains("only be sent through multiproc's own"), "{error}");
    }
    drop(permit);
    assert_eq!(semaphore.available(), 1, "a failed encoding has sent nothing");

    /// Says that it is an `A` and is read as a `B`, as a program does that casts a queue.
    enum Liar<A, B> {
        Sent(A),
        Got(B),
    }
    impl<A: Serialize, B> Serialize for Liar<A, B> {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            match self {
                Liar::Sent(a) => a.serialize(s),
                Liar::Got(_) => unreachable!(),
            }
        }
    }
    impl<'de, A, B: Deserialize<'de>> Deserialize<'de> for Liar<A, B> {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            B::deserialize(d).map(Liar::Got)
        }
    }
    fn lie<A, B>(sent: A) -> String
    where
        A: Serialize + for<'de> Deserialize<'de> + 'static,
        B: Serialize + for<'de> Deserialize<'de> + 'static,
    {
        let queue = Queue::<Liar<A, B>>::bounded(2).unwrap();
        queue.put(Liar::Sent(sent)).unwrap();
        let error = queue.get().err().expect("a handle of another type").to_string();
        assert!(queue.is_empty());
        error
    }
    let told = [
        lie::<_, Value<u64>>(value.clone()),
        lie::<_, Value<bool>>(value.clone()),
        lie::<_, Atomic<i8>>(atomic.clone()),
        lie::<_, Event>(lock.clone()),
        lie::<_, OwnedPermit>(semaphore.clone()),
        lie::<_, Semaphore>(event.clone()),
    ];
    for text in told {
        assert!(text.contains("is not a") || text.contains("decode"), "{text}");
    }
    assert!(lock.lock().is_ok());
}

fn other_arena(limit: Option<u64>) -> &'static Arena {
    Arena::create(&Options { size: 64 << 20, limit, ..Options::new(1, multiproc_sync::KINDS) }).unwrap()
}

#[test]
fn a_handle_of_another_arena_is_refused() {
    let _watch = watch();
    let arena = other_arena(None);
    let stranger = Lock::new_in(arena).unwrap();
    let queue = Queue::<Lock>::bounded(1).unwrap();
    let refused = queue.put(stranger.clone()).unwrap_err();
    assert!(refused.is_codec() && refused.to_string().contains("another process tree"), "{refused}");
    assert!(Process::spawn((stranger.clone(),), |lock| lock.is_locked()).is_err());
    // It works where it belongs, beside that of the tree.
    let ours = Lock::new().unwrap();
    let (_a, _b) = (stranger.lock().unwrap(), ours.lock().unwrap());
}

#[test]
fn a_full_arena_is_an_error_and_passes() {
    let _watch = watch();
    let arena = other_arena(Some(2 << 20));
    let fill = || {
        let mut all = Vec::new();
        let error = loop {
            match Semaphore::new_in(arena, 1) {
                Ok(s) => all.push(s),
                Err(e) => break e,
            }
        };
        assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
        all
    };
    let (first, used) = (fill(), arena.usage().0);
    assert!(first.len() > 50, "{}", first.len());
    // What exists goes on working.
    let permit = first[0].acquire().unwrap();
    assert!(matches!(first[1].acquire_owned().map(drop), Ok(()) | Err(AcquireError::Shared(Error::OutOfMemory(_)))));
    assert_eq!(first[1].available(), 1);
    drop(permit);
    let many = first.len();
    drop(first);
    for _ in 0..3 {
        let again = fill().len();
        assert!(again >= many, "{again} of {many}");
    }
    assert!(arena.usage().0 <= used.max(2 << 20));
    // What one kind has used another kind can have.
    let large = Value::new_in(arena, [1u64; 4096]).unwrap();
    assert_eq!(large.get().unwrap()[4095], 1);
}
