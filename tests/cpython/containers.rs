//! `_TestContainers`: what holds others.

use crate::stage::watched;
use multiproc::{Process, Queue};

#[test]
fn nested_queue() {
    let _watched = watched();
    let outer = Queue::<Queue<String>>::bounded(2).unwrap();
    let inner = Queue::<String>::bounded(2).unwrap();
    outer.put(inner.clone()).unwrap();
    let p = Process::spawn((outer.clone(),), |outer: Queue<Queue<String>>| {
        let inner = outer.get().unwrap();
        inner.put("through two".into()).unwrap();
        // And back again.
        outer.put(inner).unwrap();
    });
    p.unwrap().join().unwrap();
    assert_eq!(inner.get().unwrap(), "through two");
    let again = outer.get().unwrap();
    again.put("the same one".into()).unwrap();
    assert_eq!(inner.try_get().unwrap(), "the same one");
    assert!(outer.is_empty());
}
