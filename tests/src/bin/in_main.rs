//! A program whose workers run from `main`.

static mut BEFORE: bool = false;

fn name() -> Option<String> {
    std::thread::current().name().map(str::to_owned)
}

fn before() -> bool {
    // SAFETY: there is one thread, and the reference does not outlive the read.
    unsafe { BEFORE }
}

fn main() {
    // SAFETY: as above.
    unsafe { BEFORE = true };
    multiproc::init();
    let p = multiproc::Process::spawn((), || (name(), before())).unwrap();
    println!("{:?}", p.join().unwrap());
    let nested = multiproc::Process::spawn((), || multiproc::Process::spawn((), before).unwrap().join().unwrap()).unwrap();
    println!("{}", nested.join().unwrap());
}
