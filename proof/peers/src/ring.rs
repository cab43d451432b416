//! shaq.

use crate::{end, kill, mark, sleep, start};
use shaq::mpmc::{Consumer, Producer};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};

/// A producer is killed between reserving and publishing: the next one's message still comes.
pub fn reserved() {
    let path = format!("/dev/shm/{}-ring", mark());
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).expect("a file");
    // SAFETY: made here, once; the processes agree on `u64`.
    let producer = unsafe { Producer::<u64>::create(&file, 1 << 16) }.expect("a ring");
    let mut victim = start(&["reserve", &path]);
    let mut told = String::new();
    BufReader::new(victim.stdout.take().expect("stdout is piped")).read_line(&mut told).expect("it tells");
    kill(victim);
    // SAFETY: made above; the processes agree on `u64`.
    let consumer = unsafe { Consumer::<u64>::join(&file) }.expect("the ring is there");
    fs::remove_file(&path).expect("the file is there");
    producer.try_write(7).expect("there is room");
    while consumer.try_read() != Some(7) {}
    end("progress");
}

/// Reserves, and is killed.
pub fn reserve(path: &str) {
    let file = File::options().read(true).write(true).open(path).expect("the file is there");
    // SAFETY: made by the other process; both agree on `u64`.
    let producer = unsafe { Producer::<u64>::join(&file) }.expect("the ring is there");
    // SAFETY: the guard is never dropped.
    let _guard = unsafe { producer.try_reserve_write() }.expect("there is room");
    println!("reserved");
    sleep()
}
