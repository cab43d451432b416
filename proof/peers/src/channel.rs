//! ipc-channel. Messages are text, which is encoded in one piece: of a large one, most of the time goes into sending.

use crate::{end, kill, sleep, start};
use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiverSet, IpcSelectionResult, IpcSender};
use std::thread;
use std::time::Duration;

/// The receiver is killed within a large message: the sender is told.
pub fn receiver_killed() {
    let (server, name) = IpcOneShotServer::<IpcSender<String>>::new().expect("a server");
    let victim = start(&["receive", &name]);
    let (_, sender) = server.accept().expect("the receiver connects");
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(40));
        kill(victim);
    });
    let message = "7".repeat(32 << 20);
    while sender.send(message.clone()).is_ok() {}
    end("progress");
}

/// Receives until it is killed.
pub fn receive(name: &str) {
    let (sender, receiver) = ipc::channel::<String>().expect("a channel");
    let server = IpcSender::connect(name.to_owned()).expect("the server is there");
    server.send(sender).expect("the server listens");
    while receiver.recv().is_ok() {}
}

/// One of two senders is killed within a large message: the messages of the other one still come.
pub fn sender_killed() {
    let (sender, receiver) = ipc::channel::<String>().expect("a channel");
    let other = connected(1, &sender);
    let victim = connected(8 << 20, &sender);
    drop(sender);
    let mut set = IpcReceiverSet::new().expect("a set");
    set.add(receiver).expect("room in the set");
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        kill(victim);
        // Time for what was in flight.
        thread::sleep(Duration::from_millis(100));
        KILLED.store(true, std::sync::atomic::Ordering::Release);
    });
    loop {
        for result in set.select().expect("the set is fit for use") {
            match result {
                IpcSelectionResult::MessageReceived(_, message) => {
                    let is_small = message.to::<String>().is_ok_and(|text| text.len() == 1);
                    if is_small && KILLED.load(std::sync::atomic::Ordering::Acquire) {
                        drop(other);
                        end("progress");
                    }
                }
                IpcSelectionResult::ChannelClosed(_) => end("the channel is closed for the other sender, too"),
            }
        }
    }
}

static KILLED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// A process that sends messages of this size by a clone of `sender`.
fn connected(bytes: usize, sender: &IpcSender<String>) -> std::process::Child {
    let (server, name) = IpcOneShotServer::<IpcSender<IpcSender<String>>>::new().expect("a server");
    let child = start(&["send", &name, &bytes.to_string()]);
    let (_, hand) = server.accept().expect("the sender connects");
    hand.send(sender.clone()).expect("the sender listens");
    child
}

/// Sends until it is killed.
pub fn send(name: &str, bytes: usize) {
    let (hand, given) = ipc::channel::<IpcSender<String>>().expect("a channel");
    let server = IpcSender::connect(name.to_owned()).expect("the server is there");
    server.send(hand).expect("the server listens");
    let sender = given.recv().expect("a sender is handed over");
    while sender.send("7".repeat(bytes)).is_ok() {
        if bytes == 1 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    sleep()
}

/// The child ends before it has connected: whoever waits for it is told.
pub fn child_without_connection() {
    let (server, _name) = IpcOneShotServer::<u8>::new().expect("a server");
    start(&["exit"]).wait().expect("it is this process's child");
    let _ = server.accept();
    end("progress");
}
