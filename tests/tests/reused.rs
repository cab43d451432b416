//! Places and blocks that were another's a moment ago.

use multiproc::{Event, Process, Sender, channel, parent_process};
use multiproc_tests::{eventually, watch};

/// Its parent lets it live on, and is gone.
fn parent(said: Sender<Option<u32>>, go: Event) {
    let child = move |said: Sender<Option<u32>>, go: Event| {
        said.put(parent_process().map(|parent| parent.pid)).unwrap();
        go.wait().unwrap();
        said.put(parent_process().map(|parent| parent.pid)).unwrap();
    };
    Process::spawn((said, go), child).unwrap().detach().unwrap();
}

#[test]
fn who_has_the_place_of_a_parent_is_not_taken_for_it() {
    let _watched = watch(60);
    let (tx, rx) = channel(4).unwrap();
    let (go, stay) = (Event::new().unwrap(), Event::new().unwrap());
    let process = Process::spawn((tx, go.clone()), parent).unwrap();
    let pid = process.pid();
    process.join().unwrap();
    let first: Option<u32> = rx.get().unwrap();
    assert!(first.is_none_or(|first| first == pid), "{first:?}");
    // The lowest place that is free is given first.
    let stranger = Process::spawn((stay.clone(),), |stay: Event| stay.wait().unwrap()).unwrap();
    let stranger_pid = stranger.pid();
    eventually(|| multiproc::dump().processes.iter().any(|process| process.pid == stranger_pid));
    go.set().unwrap();
    let last = rx.get().unwrap();
    stay.set().unwrap();
    stranger.join().unwrap();
    // Nobody, where the stranger has that place already.
    assert!(last.is_none_or(|last| last == pid), "{last:?} is {}", stranger_pid);
}

/// A putter dies when it has named the block that it has just filled. The cleaner frees the block, which becomes the queue's lease table; the next putter, who looks after what the
/// dead one has named, leaves it alone.
#[cfg(feature = "crash-points")]
#[test]
fn a_lease_table_in_the_block_of_a_dead_putter_stays() {
    use multiproc::{Queue, testing};
    // As large as the table.
    const LARGE: usize = 300 << 10;
    let _watched = watch(60);
    let q = Queue::<Vec<u8>>::bounded(8).unwrap();
    q.put(vec![1; 10]).unwrap();
    let putter = |q: Queue<Vec<u8>>| {
        testing::arm_at("put.named", 1);
        q.put(vec![2; LARGE]).unwrap();
    };
    Process::spawn((q.clone(),), putter).unwrap().join().unwrap_err();
    let lease = q.lease().unwrap();
    assert_eq!(*lease, [1; 10]);
    q.put(vec![3; 10]).unwrap();
    q.put(vec![4; LARGE]).unwrap();
    lease.ack();
    assert_eq!(q.get().unwrap(), [3; 10]);
    assert!(q.get().unwrap() == [4; LARGE]);
    q.put(vec![5; 10]).unwrap();
    assert_eq!(q.lease().unwrap().ack(), [5; 10]);
}
