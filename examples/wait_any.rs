//! One loop serves whatever comes first: results from each worker's own queue, the workers' ends, and a foreign program's output.
//!
//! `wait` names all that are ready, so a busy worker does not keep the others waiting; nothing polls, and no thread sits on each.
//! Python: `multiprocessing.connection.wait([...])`, without the queues, whose readers it has no public name for.
//! Run: `cargo run --example wait_any -- [RESULTS] [VICTIM]`; each of three workers has so many results, and number VICTIM is killed after half of them.

use multiproc::{Process, Receiver, Sender, WaitOn, channel, wait};
use std::io::Read;
use std::process::{Command, Stdio};

fn work(results: Sender<u64>, count: u64, dies_at: Option<u64>) {
    for n in 1..=count {
        results.put(n).expect("the coordinator is there");
        if dies_at == Some(n) {
            std::process::abort();
        }
    }
}

/// What the coordinator knows of a worker; what is over is not waited for any more.
struct Worker {
    results: Option<Receiver<u64>>,
    process: Option<Process<()>>,
    sum: u64,
}

/// Which thing of whom an item is.
#[derive(Clone, Copy)]
enum Which {
    Results(usize),
    End(usize),
    Output,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let count = args.next().unwrap_or(Ok(1000))?;
    let victim = args.next().unwrap_or(Ok(1))?;
    let mut workers = Vec::new();
    for n in 0..3 {
        let (tx, rx) = channel(4)?;
        let process = Process::spawn((tx, count, (n == victim).then_some(count / 2)), work)?;
        workers.push(Worker { results: Some(rx), process: Some(process), sum: 0 });
    }
    let mut program = Command::new("echo").arg("hello").stdout(Stdio::piped()).spawn()?;
    let mut output = program.stdout.take();

    loop {
        let (mut items, mut which): (Vec<&dyn WaitOn>, Vec<Which>) = (Vec::new(), Vec::new());
        let mut add = |item, what| (items.push(item), which.push(what));
        for (n, worker) in workers.iter().enumerate() {
            worker.results.iter().for_each(|rx| _ = add(rx, Which::Results(n)));
            worker.process.iter().for_each(|p| _ = add(p, Which::End(n)));
        }
        output.iter().for_each(|out| _ = add(out, Which::Output));
        if items.is_empty() {
            break;
        }
        for what in wait(&items)?.into_iter().map(|i| which[i]).collect::<Vec<_>>() {
            match what {
                Which::Results(n) => match workers[n].results.as_ref().map(Receiver::try_get) {
                    Some(Ok(result)) => workers[n].sum += result,
                    Some(Err(e)) if e.is_end() => workers[n].results = None,
                    _ => {}
                },
                Which::End(n) => match workers[n].process.take().map(Process::join) {
                    Some(Err(death)) => println!("worker {n}: {death}"),
                    _ => println!("worker {n} has ended"),
                },
                Which::Output => {
                    let mut text = String::new();
                    output.take().map(|mut out| out.read_to_string(&mut text)).transpose()?;
                    println!("the program says {}", text.trim());
                }
            }
        }
    }
    program.wait()?;
    println!("sums: {:?}", workers.iter().map(|w| w.sum).collect::<Vec<_>>());
    Ok(())
}
