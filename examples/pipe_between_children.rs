//! Two processes talk over a pipe whose ends both went to children; the parent, who made it, keeps none and only waits.
//!
//! Python: `Pipe()`, whose ends the parent must close after it has passed them on, or nobody ever sees the end of the data. Here it drops nothing by hand: what
//! counts is who uses an end.
//! Run: `cargo run --example pipe_between_children -- [LIMIT] [DIE_AT]`; the thinker is killed at its DIE_AT-th answer.

use multiproc::{Connection, Process, ProcessError, RecvError, pipe};
use serde::{Deserialize, Serialize};

/// What the guesser says.
#[derive(Debug, Serialize, Deserialize)]
struct Guess(u32);

/// What the thinker answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Higher,
    Lower,
    Right,
}

/// Halves the range until the answer is right. How it went, and after how many guesses.
fn guess(thinker: Connection<Guess, Answer>, limit: u32) -> (String, u32) {
    let (mut low, mut high) = (1, limit);
    for guesses in 1.. {
        let number = low + (high - low) / 2;
        // A pipe that breaks here tells the same as one that ends there.
        let sent = thinker.send(Guess(number)).is_ok();
        match thinker.recv() {
            Ok(Answer::Higher) => low = number + 1,
            Ok(Answer::Lower) => high = number - 1,
            Ok(Answer::Right) => return (format!("it is {number}"), guesses),
            Err(RecvError::Eof) => return ("the thinker has left".into(), guesses),
            Err(RecvError::PeerDied { .. }) => return (format!("the thinker has died (the guess went out: {sent})"), guesses),
            Err(e) => return (e.to_string(), guesses),
        }
    }
    unreachable!("the range comes to an end")
}

/// Answers until the guesser leaves; how many answers that took.
fn think(guesser: Connection<Answer, Guess>, number: u32, die_at: Option<u32>) -> u32 {
    let mut answers = 0;
    for guess in &guesser {
        let Guess(guess) = guess.expect("the guesser sends guesses");
        answers += 1;
        if die_at == Some(answers) {
            std::process::abort();
        }
        let answer = match number.cmp(&guess) {
            std::cmp::Ordering::Greater => Answer::Higher,
            std::cmp::Ordering::Less => Answer::Lower,
            std::cmp::Ordering::Equal => Answer::Right,
        };
        guesser.send(answer).expect("the guesser waits for it");
    }
    answers
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u32>());
    let limit = args.next().unwrap_or(Ok(1000))?.max(1);
    let die_at = args.next().transpose()?;

    let (to_thinker, to_guesser) = pipe::<Guess, Answer>()?;
    let guesser = Process::builder().name("guesser").spawn((to_thinker, limit), guess)?;
    let thinker = Process::builder().name("thinker").spawn((to_guesser, limit * 2 / 3 + 1, die_at), think)?;

    let (how, guesses) = guesser.join()?;
    println!("guesser: {how} after {guesses} guesses");
    match thinker.join() {
        Ok(answers) => println!("thinker: saw the end after {answers} answers"),
        Err(ProcessError::Signaled { signal, .. }) => println!("thinker: ended by {signal}"),
        Err(e) => return Err(e.into()),
    }
    Ok(())
}
