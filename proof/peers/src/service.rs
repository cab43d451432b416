//! iceoryx2.

use crate::{end, kill, mark, sleep, start};
use iceoryx2::prelude::*;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::thread;
use std::time::Duration;

fn node() -> Result<Node<ipc::Service>, String> {
    let mut config = Config::default();
    config.global.prefix = FileName::new(format!("{}_", mark()).as_bytes()).expect("a name");
    NodeBuilder::new().config(&config).create::<ipc::Service>().map_err(|e| format!("no node: {e:?}"))
}

fn name() -> ServiceName {
    "proof".try_into().expect("a name")
}

/// Offers numbers until it is killed.
pub fn offer() {
    let node = node().expect("a node");
    let service = node.service_builder(&name()).publish_subscribe::<u64>().open_or_create().expect("a service");
    let publisher = service.publisher_builder().create().expect("a publisher");
    publisher.send_copy(7).expect("a message goes out");
    println!("offered");
    sleep()
}

fn told(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("it tells");
}

fn publish_and_receive() -> Result<(), String> {
    let node = node()?;
    let service = node.service_builder(&name()).publish_subscribe::<[u8; 12]>().open_or_create();
    let service = service.map_err(|e| format!("no service of another type: {e:?}"))?;
    let subscriber = service.subscriber_builder().create().map_err(|e| format!("no subscriber: {e:?}"))?;
    let publisher = service.publisher_builder().create().map_err(|e| format!("no publisher: {e:?}"))?;
    publisher.send_copy([7; 12]).map_err(|e| format!("not sent: {e:?}"))?;
    match subscriber.receive() {
        Ok(Some(sample)) if *sample == [7; 12] => Ok(()),
        Ok(_) => Err("no message".into()),
        Err(e) => Err(format!("not received: {e:?}")),
    }
}

/// The only process with a service is killed; the next program with that name has another type of message.
pub fn stale() {
    let mut victim = start(&["offer"]);
    told(&mut victim);
    kill(victim);
    // Another one is killed while it begins.
    let victim = start(&["offer"]);
    thread::sleep(Duration::from_micros(500 + u64::from(std::process::id()) % 40 * 100));
    kill(victim);
    match publish_and_receive() {
        Ok(()) => end("progress"),
        Err(why) => end(&why),
    }
}

/// After some have been killed, eight processes start at once: all of them come to work.
pub fn crowd() {
    for _ in 0..3 {
        let mut victim = start(&["offer"]);
        told(&mut victim);
        kill(victim);
    }
    let crowd: Vec<Child> = (0..8).map(|_| start(&["join"])).collect();
    let ends = crowd.into_iter().map(|mut child| child.wait().expect("it is this process's child"));
    let bad: Vec<String> = ends.filter(|status| !status.success()).map(|status| status.to_string()).collect();
    match bad.first() {
        None => end("progress"),
        Some(first) => end(&format!("of 8 processes some cannot begin: {first}")),
    }
}

/// One of the crowd.
pub fn join() {
    let node = node().unwrap_or_else(|why| end(&why));
    let service = node.service_builder(&name()).publish_subscribe::<u64>().open_or_create();
    let service = service.unwrap_or_else(|e| end(&format!("no service: {e:?}")));
    if let Err(e) = service.subscriber_builder().create() {
        end(&format!("no subscriber: {e:?}"));
    }
}
