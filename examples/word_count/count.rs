//! Counting the words of one chunk: what a worker does.
//!
//! A word is a longest run of ASCII letters, lower-cased; every other byte separates. For the bytes of one file that
//! is `LC_ALL=C tr -cs 'A-Za-z' '\n' | tr A-Z a-z | grep . | sort | uniq -c`. A chunk that cannot be read whole
//! counts nothing and says why. Stands on [`chunk`](crate::chunk).

use std::fs::File;
use std::io;
use std::path::Path;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::chunk::{self, Chunk, Source};

/// Words, lower-cased, and how often each occurs.
pub(crate) type Counts = HashMap<Vec<u8>, u64>;

/// The result of one chunk. It may arrive twice, when a worker dies between sending it and acknowledging its lease.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// The chunk's id.
    pub(crate) chunk: u64,
    /// The chunk's file.
    pub(crate) file: u32,
    pub(crate) bytes: u64,
    /// The sum over `counts`.
    pub(crate) words: u64,
    /// Each word once, in no order.
    pub(crate) counts: Vec<(String, u64)>,
    /// Why nothing was counted.
    pub(crate) error: Option<String>,
}

impl Counted {
    /// The result of a chunk that was not counted.
    pub(crate) fn nothing(chunk: &Chunk, why: String) -> Counted {
        let Chunk { id, file, .. } = *chunk;
        Counted { chunk: id, file, bytes: 0, words: 0, counts: Vec::new(), error: Some(why) }
    }
}

/// Adds the words of `bytes` to `into`.
pub(crate) fn count(bytes: &[u8], into: &mut Counts) {
    let letters: Vec<u8> = bytes.iter().map(|b| LETTER[usize::from(*b)]).collect();
    for word in letters.split(|b| *b == 0).filter(|word| !word.is_empty()) {
        *into.entry_ref(word).or_insert(0) += 1;
    }
}

/// For each byte the letter it counts as, or 0.
const LETTER: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        if (byte as u8).is_ascii_alphabetic() {
            table[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// Reads `len` bytes of a file from `offset` on.
///
/// # Errors
/// When the file cannot be opened or read; `UnexpectedEof` when it has become too short.
pub(crate) fn read_range(path: &Path, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let file = File::open(path)?;
    let mut bytes = vec![0; len];
    chunk::read_exact_at(&file, &mut bytes, offset)?;
    Ok(bytes)
}

/// Reads and counts `chunk`.
pub(crate) fn count_chunk(chunk: &Chunk) -> Counted {
    let mut counts = Counts::new();
    match &chunk.source {
        Source::Bytes(bytes) => count(bytes, &mut counts),
        Source::Range { path, offset, len } => match read_range(path, *offset, *len) {
            Ok(bytes) => count(&bytes, &mut counts),
            Err(e) => return Counted::nothing(chunk, e.to_string()),
        },
    }
    Counted {
        chunk: chunk.id,
        file: chunk.file,
        bytes: chunk.expected,
        words: counts.values().sum(),
        counts: counts.into_iter().map(|(word, n)| (text(word), n)).collect(),
        error: None,
    }
}

fn text(word: Vec<u8>) -> String {
    String::from_utf8(word).expect("words are ASCII letters")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::chunk::tests::{random_text, temp_file};
    use crate::chunk::{Planner, Sizing};
    use crate::walk::Input;
    use std::collections::BTreeMap;
    use std::process::{Command, Stdio};

    type Sorted = BTreeMap<String, u64>;

    fn counted(bytes: &[u8]) -> Sorted {
        let mut counts = Counts::new();
        count(bytes, &mut counts);
        counts.into_iter().map(|(word, n)| (text(word), n)).collect()
    }

    fn sorted(words: &[(&str, u64)]) -> Sorted {
        words.iter().map(|(word, n)| (word.to_string(), *n)).collect()
    }

    /// The definition once more, slowly.
    fn by_definition(bytes: &[u8]) -> Sorted {
        let mut counts = Sorted::new();
        for word in bytes.split(|b| !b.is_ascii_alphabetic()).filter(|w| !w.is_empty()) {
            let word = str::from_utf8(word).unwrap().to_ascii_lowercase();
            *counts.entry(word).or_default() += 1;
        }
        counts
    }

    fn chunk_by_chunk(bytes: &[u8], size: u64) -> Sorted {
        let file = temp_file(bytes);
        let input = Input::File { path: file.path().into(), size: bytes.len() as u64 };
        let mut planner = Planner::new(Sizing::fixed(size));
        let mut all = Sorted::new();
        let mut total = 0;
        for chunk in planner.input(0, &input).unwrap() {
            let result = count_chunk(&chunk.unwrap());
            assert_eq!(result.error, None);
            assert_eq!(result.words, result.counts.iter().map(|(_, n)| n).sum::<u64>());
            total += result.bytes;
            for (word, n) in result.counts {
                *all.entry(word).or_default() += n;
            }
        }
        assert_eq!(total, bytes.len() as u64);
        all
    }

    #[test]
    fn words_are_runs_of_ascii_letters() {
        let text = "The cat's the_THE end\u{e9}e 4ever\0x\u{17f}";
        let expected = [("the", 3), ("cat", 1), ("s", 1), ("end", 1), ("e", 1), ("ever", 1), ("x", 1)];
        assert_eq!(counted(text.as_bytes()), sorted(&expected));
        assert_eq!(counted(b""), sorted(&[]));
        assert_eq!(counted(b"@[`{ 123"), sorted(&[]));
        assert_eq!(counted(b"AzaZ"), sorted(&[("azaz", 1)]));
    }

    #[test]
    fn chunk_by_chunk_is_the_same_as_whole() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let len = rng.usize(..600);
            let text = random_text(&mut rng, len);
            let whole = counted(&text);
            assert_eq!(whole, by_definition(&text));
            for size in [1, 2, rng.u64(3..100)] {
                assert_eq!(chunk_by_chunk(&text, size), whole, "chunks of {size}: {text:?}");
            }
        }
    }

    #[test]
    fn the_same_as_coreutils() {
        const PIPELINE: &str = r"tr -cs 'A-Za-z' '\n' | tr A-Z a-z | grep . | sort | uniq -c";
        let has = |tool: &str| Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
        if !["tr", "grep", "sort", "uniq"].into_iter().all(has) {
            eprintln!("skipped: no coreutils here");
            return;
        }
        let mut rng = fastrand::Rng::with_seed(4);
        let mut texts: Vec<Vec<u8>> = (0..6).map(|i| random_text(&mut rng, i * 5000)).collect();
        texts.push((0..100_000).map(|_| rng.u8(..)).collect());
        for text in texts {
            let file = temp_file(&text);
            let output =
                Command::new("sh").args(["-c", PIPELINE]).env("LC_ALL", "C").stdin(file.reopen().unwrap()).output().unwrap();
            let mut expected = Sorted::new();
            for line in str::from_utf8(&output.stdout).unwrap().lines() {
                let (n, word) = line.trim_start().split_once(' ').unwrap();
                expected.insert(word.to_owned(), n.parse().unwrap());
            }
            assert_eq!(expected.is_empty(), text.is_empty());
            assert_eq!(chunk_by_chunk(&text, 97), expected);
        }
    }

    fn range(path: &Path, offset: u64, len: u64) -> Chunk {
        Chunk { id: 9, file: 2, source: Source::Range { path: path.into(), offset, len }, expected: len }
    }

    #[test]
    fn ranges_and_bytes_are_counted_alike() {
        let file = temp_file(b"one two two three");
        let of_range = count_chunk(&range(file.path(), 4, 7));
        let bytes = Source::Bytes(b"two two".to_vec());
        assert_eq!(of_range, count_chunk(&Chunk { id: 9, file: 2, source: bytes, expected: 7 }));
        let counts = vec![("two".to_string(), 2)];
        assert_eq!(of_range, Counted { chunk: 9, file: 2, bytes: 7, words: 2, counts, error: None });
    }

    #[test]
    fn a_file_that_shrank_counts_nothing_and_says_so() {
        let file = temp_file(b"one two");
        for (offset, len) in [(0, 8), (4, 4), (7, 1), (100, 1)] {
            let e = read_range(file.path(), offset, len).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
            let result = count_chunk(&range(file.path(), offset, len));
            assert!(result.error.unwrap().contains("shrank"));
            assert_eq!((result.bytes, result.words, result.counts.len()), (0, 0, 0));
        }
        let missing = count_chunk(&range(Path::new("/missing"), 0, 1));
        assert!(missing.error.unwrap().contains("No such file"));
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -- --ignored --nocapture throughput"]
    fn throughput() {
        let mut rng = fastrand::Rng::with_seed(5);
        let words: Vec<String> = (0..20_000).map(|_| (0..rng.usize(2..10)).map(|_| rng.lowercase()).collect()).collect();
        let mut text = String::new();
        while text.len() < 4 << 20 {
            let at = (20_000.0 * rng.f64().powi(4)) as usize;
            text += &words[at];
            text += " ";
        }
        let started = std::time::Instant::now();
        for _ in 0..20 {
            let mut counts = Counts::new();
            count(std::hint::black_box(text.as_bytes()), &mut counts);
            std::hint::black_box(&counts);
        }
        let rate = 20.0 * text.len() as f64 / started.elapsed().as_secs_f64() / 1e6;
        eprintln!("{rate:.0} MB/s");
    }
}
