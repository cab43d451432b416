//! Adding up the results, each chunk's once, and saying them.
//!
//! The sum does not depend on the order or the repetition of results: the first one of a chunk counts, later ones
//! are dropped, so what a killed worker had already sent does no harm. Stands on [`count`](crate::count).

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use hashbrown::HashMap;
use serde::Serialize;

use crate::count::Counted;

/// The sum over all chunks.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Inputs that were counted whole; set by the coordinator, which knows.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) words: u64,
    pub(crate) counts: HashMap<String, u64>,
    /// One bit for each chunk id whose result has come. Ids have no gaps, so it is as small as it can be.
    seen: Vec<u64>,
    chunks: u64,
}

impl Totals {
    /// Adds a result, unless one of the same chunk has been added: then false.
    pub(crate) fn add(&mut self, counted: Counted) -> bool {
        if !self.first(counted.chunk) {
            return false;
        }
        self.bytes += counted.bytes;
        self.words += counted.words;
        for (word, n) in counted.counts {
            *self.counts.entry(word).or_insert(0) += n;
        }
        true
    }

    fn first(&mut self, chunk: u64) -> bool {
        let (at, bit) = ((chunk / 64) as usize, 1 << (chunk % 64));
        if at >= self.seen.len() {
            self.seen.resize(at + 1, 0);
        }
        let first = self.seen[at] & bit == 0;
        self.seen[at] |= bit;
        self.chunks += u64::from(first);
        first
    }

    /// How many chunks have been added.
    pub(crate) fn chunks(&self) -> u64 {
        self.chunks
    }

    /// How many different words there are.
    pub(crate) fn distinct(&self) -> u64 {
        self.counts.len() as u64
    }

    /// The `top` most frequent words, all of them for 0; equally frequent ones in the order of the alphabet.
    pub(crate) fn top(&self, top: usize) -> Vec<(&str, u64)> {
        let mut words: Vec<(&str, u64)> = self.counts.iter().map(|(word, n)| (&**word, *n)).collect();
        words.sort_unstable_by(|(a, n), (b, m)| m.cmp(n).then_with(|| a.cmp(b)));
        if top > 0 {
            words.truncate(top);
        }
        words
    }
}

/// What was done to the workers, and what came of it.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chaos {
    /// Workers killed.
    pub(crate) killed: u64,
    /// Those of them that certainly held a lease. One killed inside of `lease` or `ack` may have held one too.
    pub(crate) with_a_lease: u64,
    /// Chunks that were leased again.
    pub(crate) redelivered: u64,
    /// Results of chunks that had been counted.
    pub(crate) duplicates_dropped: u64,
    /// Chunks without a result.
    pub(crate) lost: u64,
}

impl Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Chaos { killed, with_a_lease, redelivered, duplicates_dropped, lost } = self;
        write!(f, "killed {killed}, with a lease {with_a_lease}, redelivered {redelivered}, ")?;
        write!(f, "duplicates dropped {duplicates_dropped}, lost {lost}")
    }
}

/// The files that were not counted, each of which is named once.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    files: BTreeSet<u32>,
    any: bool,
}

impl Problems {
    /// The message about `path`, for stderr; `None` when that file has been named before.
    ///
    /// `file` is its place in the list of inputs, if it made it there.
    pub(crate) fn name(&mut self, file: Option<u32>, path: &Path, why: impl Display) -> Option<String> {
        self.any = true;
        let first = file.is_none_or(|file| self.files.insert(file));
        first.then(|| format!("word_count: {}: {why}", path.display()))
    }

    /// How many of the inputs are among them.
    pub(crate) fn inputs(&self) -> u64 {
        self.files.len() as u64
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any
    }
}

#[derive(Serialize)]
struct Json<'a> {
    files: u64,
    bytes: u64,
    words: u64,
    distinct: u64,
    top: Vec<(&'a str, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chaos: Option<&'a Chaos>,
}

/// Writes a line for each of the `top` words, as `uniq -c` does.
pub(crate) fn write_text(to: &mut impl Write, totals: &Totals, top: usize) -> io::Result<()> {
    for (word, n) in totals.top(top) {
        writeln!(to, "{n:>7} {word}")?;
    }
    to.flush()
}

/// Writes everything as one JSON object on one line.
pub(crate) fn write_json(to: &mut impl Write, totals: &Totals, top: usize, chaos: Option<&Chaos>) -> io::Result<()> {
    let json = Json {
        files: totals.files,
        bytes: totals.bytes,
        words: totals.words,
        distinct: totals.distinct(),
        top: totals.top(top),
        chaos,
    };
    serde_json::to_writer(&mut *to, &json)?;
    writeln!(to)?;
    to.flush()
}

/// Lets `write` write to stdout. That its reader has had enough is not an error.
///
/// # Errors
/// Those of write(2), but EPIPE.
pub(crate) fn to_stdout<F>(write: F) -> io::Result<()>
where
    F: FnOnce(&mut BufWriter<io::StdoutLock<'static>>) -> io::Result<()>,
{
    unless_closed(write(&mut BufWriter::with_capacity(64 << 10, io::stdout().lock())))
}

fn unless_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(chunk: u64, words: &[(&str, u64)]) -> Counted {
        Counted {
            chunk,
            file: 0,
            bytes: 10,
            words: words.iter().map(|(_, n)| n).sum(),
            counts: words.iter().map(|(word, n)| (word.to_string(), *n)).collect(),
            error: None,
        }
    }

    fn totals() -> Totals {
        let mut totals = Totals { files: 2, ..Totals::default() };
        assert!(totals.add(result(1, &[("b", 2), ("the", 100), ("c", 3)])));
        assert!(totals.add(result(0, &[("the", 23), ("a", 3)])));
        totals
    }

    fn text(top: usize) -> String {
        let mut out = Vec::new();
        write_text(&mut out, &totals(), top).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn json(top: usize, chaos: Option<&Chaos>) -> String {
        let mut out = Vec::new();
        write_json(&mut out, &totals(), top, chaos).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_chunk_counts_once_in_any_order() {
        let mut rng = fastrand::Rng::with_seed(6);
        let mut ids: Vec<u64> = (0..1000).chain((0..1000).filter(|id| id % 3 == 0)).collect();
        rng.shuffle(&mut ids);
        let mut totals = Totals::default();
        let dropped = ids.iter().filter(|id| !totals.add(result(**id, &[("w", **id)]))).count();
        assert_eq!(dropped, 334);
        assert_eq!((totals.chunks(), totals.bytes), (1000, 10_000));
        assert_eq!((totals.words, totals.counts["w"], totals.distinct()), (499_500, 499_500, 1));
    }

    #[test]
    fn lines_look_like_those_of_uniq() {
        assert_eq!(text(2), "    123 the\n      3 a\n");
        assert_eq!(text(0), "    123 the\n      3 a\n      3 c\n      2 b\n");
        assert_eq!(text(100), text(0));
    }

    #[test]
    fn json_is_one_object() {
        let start = r#"{"files":2,"bytes":20,"words":131,"distinct":4,"top":"#;
        assert_eq!(json(2, None), format!("{start}{}", "[[\"the\",123],[\"a\",3]]}\n"));
        let chaos = Chaos { killed: 30, with_a_lease: 19, redelivered: 18, duplicates_dropped: 3, lost: 0 };
        let end = r#""killed":30,"with_a_lease":19,"redelivered":18,"duplicates_dropped":3,"lost":0"#;
        assert_eq!(json(1, Some(&chaos)), format!("{start}[[\"the\",123]],\"chaos\":{{{end}}}}}\n"));
        assert_eq!(chaos.to_string(), "killed 30, with a lease 19, redelivered 18, duplicates dropped 3, lost 0");
    }

    #[test]
    fn a_file_is_named_once() {
        let mut problems = Problems::default();
        assert!(problems.is_empty());
        let gone = Path::new("gone");
        assert_eq!(problems.name(None, gone, "why").unwrap(), "word_count: gone: why");
        assert!(problems.name(None, gone, "why").is_some());
        assert_eq!((problems.is_empty(), problems.inputs()), (false, 0));
        assert!(problems.name(Some(3), gone, "shrank").is_some());
        assert!(problems.name(Some(3), gone, "shrank").is_none());
        assert_eq!(problems.inputs(), 1);
    }

    /// Takes `room` bytes, then fails.
    struct Closing {
        room: usize,
        with: io::ErrorKind,
    }

    impl Write for Closing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(self.with.into());
            }
            let n = bytes.len().min(self.room);
            self.room -= n;
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is() {
        for room in [0, 1, 30] {
            let closed = || BufWriter::new(Closing { room, with: io::ErrorKind::BrokenPipe });
            unless_closed(write_text(&mut closed(), &totals(), 0)).unwrap();
            unless_closed(write_json(&mut closed(), &totals(), 0, None)).unwrap();
            let full = || BufWriter::new(Closing { room, with: io::ErrorKind::StorageFull });
            unless_closed(write_text(&mut full(), &totals(), 0)).unwrap_err();
            unless_closed(write_json(&mut full(), &totals(), 0, None)).unwrap_err();
        }
    }
}
