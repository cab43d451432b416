//! `_TestSubclassingProcess`: workers as structs, and what the end of a worker leaves behind.

use crate::stage::watched;
use multiproc::{Connection, Process, ProcessError, Run, Stdio, pipe};
use serde::{Deserialize, Serialize};
use std::io::Read;

#[derive(Serialize, Deserialize)]
struct Upper {
    talk: Connection<String, String>,
    said: u32,
}

impl Run for Upper {
    type Output = u32;

    fn run(mut self) -> u32 {
        for text in &self.talk {
            self.talk.send(text.unwrap().to_uppercase()).unwrap();
            self.said += 1;
        }
        self.said
    }
}

#[test]
fn subclassing() {
    let _watched = watched();
    let (here, there) = pipe::<String, String>().unwrap();
    let p = Process::start(Upper { talk: there, said: 10 }).unwrap();
    for text in ["abc", "größer"] {
        here.send(text.to_owned()).unwrap();
        assert_eq!(here.recv().unwrap(), text.to_uppercase());
    }
    drop(here);
    assert_eq!(p.join().unwrap(), 12);
}

#[test]
fn stderr_flush() {
    let _watched = watched();
    let mut p =
        Process::builder().name("loud").stderr(Stdio::Piped).spawn((), || -> () { panic!("first line\nlast line") }).unwrap();
    let mut text = String::new();
    p.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("first line\nlast line") && text.contains("loud") && text.contains("subclassing.rs:"), "{text}");
    match p.join().unwrap_err() {
        ProcessError::Panicked { message, .. } => assert_eq!(message, "first line\nlast line"),
        other => panic!("{other}"),
    }
}

#[test]
fn sys_exit() {
    let _watched = watched();
    for code in [0, 1, 8, 255] {
        let p = Process::spawn((code,), |code: i32| -> () { std::process::exit(code) }).unwrap();
        assert_eq!(p.wait().and_then(|status| status.code()), Some(code));
        match p.join().unwrap_err() {
            ProcessError::Exited { code: told, .. } => assert_eq!(told, code),
            other => panic!("{other}"),
        }
    }
    let p = Process::spawn((), || -> () { panic!("no code") }).unwrap();
    assert_eq!(p.wait().and_then(|status| status.code()), Some(101));
    assert_eq!(Process::spawn((), || ()).unwrap().wait().and_then(|status| status.code()), Some(0));
}
