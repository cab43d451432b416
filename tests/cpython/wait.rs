//! `TestWait`: waiting for any of several things.

use crate::stage::{SHORT, soon, waits, watched};
use multiproc::{Event, PipeReceiver, PipeSender, Process, Queue, WaitOn, one_way, wait, wait_deadline, wait_timeout};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Sends ten numbers with a pause before each, and its own after them.
fn send_ten(tx: PipeSender<(u32, u32)>, who: u32, pause: Duration) {
    for n in 0..10 {
        std::thread::sleep(pause);
        tx.send((who, n)).unwrap();
    }
}

/// Receives from four processes until each has ended.
fn receive_from_four(pause: Duration) {
    let (mut readers, mut processes) = (Vec::new(), Vec::new());
    for who in 0..4 {
        let (tx, rx) = one_way::<(u32, u32)>().unwrap();
        processes.push(Process::spawn((tx, who, pause), send_ten).unwrap());
        readers.push(rx);
    }
    let mut got = Vec::new();
    while !readers.is_empty() {
        let items: Vec<&dyn WaitOn> = readers.iter().map(|rx| rx as &dyn WaitOn).collect();
        let ready = wait(&items).unwrap();
        assert!(!ready.is_empty() && ready.is_sorted());
        for i in ready.into_iter().rev() {
            match readers[i].try_recv() {
                Ok(message) => got.push(message),
                Err(e) => {
                    assert!(e.is_end(), "{e}");
                    readers.swap_remove(i);
                }
            }
        }
    }
    got.sort_unstable();
    assert_eq!(got, (0..4).flat_map(|who| (0..10).map(move |n| (who, n))).collect::<Vec<_>>());
    processes.into_iter().for_each(|p| p.join().unwrap());
}

#[test]
fn pipes() {
    let _watched = watched();
    receive_from_four(Duration::ZERO);
}

#[test]
fn slow_pipes() {
    let _watched = watched();
    receive_from_four(Duration::from_millis(3));
}

fn write_ten(port: u16, pause: Duration) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    for n in 0..10 {
        std::thread::sleep(pause);
        writeln!(stream, "{n}").unwrap();
    }
}

/// Reads from four sockets until each has ended.
fn read_from_four(pause: Duration) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let processes: Vec<_> = (0..4).map(|_| Process::spawn((port, pause), write_ten).unwrap()).collect();
    let mut streams: Vec<(TcpStream, String)> = Vec::new();
    for _ in 0..4 {
        // The listener is a descriptor as well.
        assert_eq!(wait(&[&listener]).unwrap(), [0]);
        streams.push((listener.accept().unwrap().0, String::new()));
    }
    let mut texts = Vec::new();
    while !streams.is_empty() {
        let items: Vec<&dyn WaitOn> = streams.iter().map(|(stream, _)| stream as &dyn WaitOn).collect();
        for i in wait(&items).unwrap().into_iter().rev() {
            let mut bytes = [0; 32];
            let n = streams[i].0.read(&mut bytes).unwrap();
            streams[i].1.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
            if n == 0 {
                texts.push(streams.swap_remove(i).1);
            }
        }
    }
    assert_eq!(texts, vec!["0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"; 4]);
    processes.into_iter().for_each(|p| p.join().unwrap());
}

#[test]
fn sockets() {
    let _watched = watched();
    read_from_four(Duration::ZERO);
}

#[test]
fn slow_sockets() {
    let _watched = watched();
    read_from_four(Duration::from_millis(3));
}

#[test]
fn timeout() {
    let _watched = watched();
    let (queue, event) = (Queue::<u32>::bounded(1).unwrap(), Event::new().unwrap());
    assert!(waits(|| wait_timeout(&[&queue, &event], SHORT)).unwrap().is_empty());
    assert!(waits(|| wait_deadline(&[&queue, &event], soon())).unwrap().is_empty());
    let p = Process::spawn((queue.clone(),), |queue: Queue<u32>| {
        std::thread::sleep(SHORT);
        queue.put(1).unwrap();
    });
    assert_eq!(wait_timeout(&[&event, &queue], Duration::from_secs(60)).unwrap(), [1]);
    assert_eq!(queue.try_get().unwrap(), 1);
    p.unwrap().join().unwrap();
}

/// Processes among pipes and descriptors: all that are ready are told, and nothing is taken.
#[test]
fn sentinels() {
    let _watched = watched();
    let (tx, rx): (PipeSender<u32>, PipeReceiver<u32>) = one_way().unwrap();
    let (mut near, far) = UnixStream::pair().unwrap();
    let go = Event::new().unwrap();
    let p = Process::spawn((go.clone(),), |go: Event| go.wait().unwrap()).unwrap();
    assert!(waits(|| wait_timeout(&[&p, &rx, &far], SHORT)).unwrap().is_empty());
    go.set().unwrap();
    assert_eq!(wait(&[&p, &rx, &far]).unwrap(), [0]);
    tx.send(1).unwrap();
    assert_eq!(wait(&[&p, &rx, &far]).unwrap(), [0, 1]);
    near.write_all(b"x").unwrap();
    assert_eq!(wait(&[&p, &rx, &far, &go]).unwrap(), [0, 1, 2, 3]);
    assert_eq!(wait(&[&far, &rx, &p]).unwrap(), [0, 1, 2], "asking has taken nothing");
    assert_eq!(rx.recv().unwrap(), 1);
    p.join().unwrap();
    assert_eq!(wait(&[&rx, &far]).unwrap(), [1]);
}

/// A time cannot be negative; one that is over is none.
#[test]
fn no_time_left() {
    let _watched = watched();
    let (tx, rx) = one_way::<u32>().unwrap();
    let past = std::time::Instant::now();
    assert!(wait_timeout(&[&rx], Duration::ZERO).unwrap().is_empty());
    assert!(wait_deadline(&[&rx], past).unwrap().is_empty());
    tx.send(1).unwrap();
    assert_eq!(wait_timeout(&[&rx], Duration::ZERO).unwrap(), [0]);
    assert_eq!(wait_deadline(&[&rx], past).unwrap(), [0]);
    assert!(wait(&[]).unwrap().is_empty());
}
