//! The builder.

use multiproc::{Process, Stdio};
use multiproc_tests::watch;
use std::io::{Read, Write};

#[test]
fn names() {
    let _watched = watch(60);
    fn name() -> String {
        multiproc::current_process().name
    }
    let default = Process::spawn((), name).unwrap();
    let given = default.name().to_owned();
    assert!(given.starts_with("Process-"), "{given}");
    assert_eq!(default.join().unwrap(), given);
    for name_of in ["worker-1", "größer", "a name with spaces", ""] {
        let p = Process::builder().name(name_of).spawn((), name).unwrap();
        assert_eq!(p.name(), name_of);
        assert_eq!(p.join().unwrap(), name_of);
    }
    let long = "ä".repeat(100);
    assert_eq!(Process::builder().name(long.clone()).spawn((), name).unwrap().join().unwrap(), long);
    let nul = Process::builder().name("a\0b").spawn((), name).unwrap();
    assert_eq!(nul.join().unwrap(), "a\0b");
    let nested = Process::spawn((), || {
        let inner = Process::spawn((), name).unwrap();
        (name(), inner.name().to_owned(), inner.join().unwrap())
    });
    let (outer, inner, seen) = nested.unwrap().join().unwrap();
    assert_eq!((format!("{outer}:1"), inner.clone()), (inner, seen));
    let comm = Process::builder().name("0123456789abcdefgh").spawn((), || std::fs::read_to_string("/proc/self/comm").unwrap());
    assert_eq!(comm.unwrap().join().unwrap(), "0123456789abcde\n");
}

#[test]
fn environment() {
    let _watched = watch(60);
    fn see(key: String) -> Option<String> {
        std::env::var(key).ok()
    }
    let p = Process::builder().env("MP_A", "1").env("MP_A", "zwei=ä").spawn(("MP_A".to_owned(),), see).unwrap();
    assert_eq!(p.join().unwrap().as_deref(), Some("zwei=ä"));
    assert!(Process::spawn(("PATH".to_owned(),), see).unwrap().join().unwrap().is_some());
    let p = Process::builder().env_remove("PATH").spawn(("PATH".to_owned(),), see).unwrap();
    assert_eq!(p.join().unwrap(), None);
    let p = Process::builder().env_remove("MP_B").env("MP_B", "").spawn(("MP_B".to_owned(),), see).unwrap();
    assert_eq!(p.join().unwrap().as_deref(), Some(""));
    let p = Process::builder().env("MP_C", "x").env_remove("MP_C").spawn(("MP_C".to_owned(),), see).unwrap();
    assert_eq!(p.join().unwrap(), None);
    // The library's own variable cannot be set from outside.
    let p = Process::builder().env("MULTIPROC_WORKER", "x").spawn(("MULTIPROC_WORKER".to_owned(),), see).unwrap();
    assert_eq!(p.join().unwrap(), None);
    for key in ["A\0B", "A=B", ""] {
        let e = Process::builder().env(key, "x").spawn((), || ()).unwrap_err();
        assert!(e.to_string().contains("environment"), "{e}");
    }
    let e = Process::builder().env("MP_D", "x\0y").spawn((), || ()).unwrap_err();
    assert!(e.to_string().contains("MP_D"), "{e}");
}

#[test]
fn working_directory() {
    let _watched = watch(60);
    let p = Process::builder().cwd("/proc").spawn((), || std::env::current_dir().unwrap()).unwrap();
    assert_eq!(p.join().unwrap(), std::path::Path::new("/proc"));
    let e = Process::builder().cwd("/no/such/dir").spawn((), || ()).unwrap_err();
    assert!(e.to_string().contains("working directory"), "{e}");
    // From the parent's directory otherwise.
    let p = Process::spawn((), || std::env::current_dir().unwrap()).unwrap();
    assert_eq!(p.join().unwrap(), std::env::current_dir().unwrap());
}

#[test]
fn standard_streams() {
    let _watched = watch(60);
    let stdin_is_empty = Process::spawn((), || std::io::stdin().read(&mut [0]).unwrap());
    assert_eq!(stdin_is_empty.unwrap().join().unwrap(), 0);

    let mut p = Process::builder().stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped).spawn((), || {
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            println!("out {line}");
            eprintln!("err {line}");
        }
        // Neither newline nor flush: it is written when the process exits.
        print!("end");
    });
    let p = p.as_mut().unwrap();
    writeln!(p.stdin.take().unwrap(), "a\nb").unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    p.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    p.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("out a\nout b\nend", "err a\nerr b\n"));
    assert!(p.wait().unwrap().success());

    let (mut reader, writer) = std::io::pipe().unwrap();
    let both = || {
        println!("1");
        eprintln!("2");
    };
    let p = Process::builder().stdout(writer.try_clone().unwrap()).stderr(writer).spawn((), both).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "1\n2\n");
    p.join().unwrap();
    let p = Process::builder().stdout(Stdio::Null).spawn((), || std::fs::read_link("/proc/self/fd/1").unwrap()).unwrap();
    assert_eq!(p.join().unwrap(), std::path::Path::new("/dev/null"));
}

#[test]
fn a_closed_pipe_is_an_error_and_not_a_signal() {
    let _watched = watch(60);
    let mut p = Process::builder().stdin(Stdio::Piped).stdout(Stdio::Piped).spawn((), || {
        std::io::stdin().read_to_string(&mut String::new()).unwrap();
        std::io::stdout().write_all(b"x").and_then(|()| std::io::stdout().flush()).unwrap_err().kind()
            == std::io::ErrorKind::BrokenPipe
    });
    let p = p.as_mut().unwrap();
    drop(p.stdout.take());
    drop(p.stdin.take());
    p.wait();
    assert!(p.try_join().unwrap().unwrap());
}
