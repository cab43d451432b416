//! multiproc in a bench target without a harness.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _watched = multiproc_tests::watch(60);
    assert_eq!(multiproc::Process::spawn((20,), |x: u64| x * 2 + 2)?.join()?, 42);
    Ok(())
}
