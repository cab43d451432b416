//! `TestStartMethod`: how processes start.

use crate::stage::watched;
use multiproc::{Event, Lock, Process, Queue, StartMethod};

/// A start method belongs to a process to be started, not to the program: nothing is set once and for all.
#[test]
fn method_by_builder() {
    let _watched = watched();
    assert_eq!(StartMethod::default(), StartMethod::Exec);
    for method in [StartMethod::default(), StartMethod::Exec] {
        assert_eq!(Process::builder().start_method(method).spawn((3,), |n: u8| n).unwrap().join().unwrap(), 3);
    }
}

/// Whatever is shared is good for every process, however that was started.
#[test]
fn objects_for_every_method() {
    let _watched = watched();
    let (queue, lock, event) = (Queue::<u32>::bounded(4).unwrap(), Lock::new().unwrap(), Event::new().unwrap());
    for method in [StartMethod::default(), StartMethod::Exec] {
        let args = (queue.clone(), lock.clone(), event.clone());
        let p = Process::builder().start_method(method).spawn(args, |queue: Queue<u32>, lock: Lock, event: Event| {
            let _guard = lock.lock().unwrap();
            queue.put(1).unwrap();
            event.set().unwrap();
        });
        event.wait().unwrap();
        assert_eq!(queue.get().unwrap(), 1);
        p.unwrap().join().unwrap();
        event.clear();
        assert!(!lock.is_locked());
    }
}

#[test]
fn nested() {
    let _watched = watched();
    fn ring(queue: Queue<u32>, left: u32) {
        queue.put(left).unwrap();
        if left > 0 {
            Process::spawn((queue, left - 1), ring).unwrap().join().unwrap();
        }
    }
    let queue = Queue::bounded(8).unwrap();
    Process::spawn((queue.clone(), 3), ring).unwrap().join().unwrap();
    queue.close().unwrap();
    assert_eq!(queue.iter().map(Result::unwrap).collect::<Vec<_>>(), [3, 2, 1, 0]);
}
