//! multiproc in an example, and in an example's tests.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", multiproc::Process::spawn((20,), |x: u64| x * 2 + 2)?.join()?);
    Ok(())
}

#[test]
fn an_example_starts_processes() {
    let _watched = multiproc_tests::watch(60);
    main().unwrap();
}
