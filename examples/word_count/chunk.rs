//! Cutting inputs into chunks, on word borders, without reading files whole.
//!
//! The chunks of an input, joined in order, are the input, and no cut lies between two ASCII letters: so words are
//! neither split nor joined, and chunks can be counted one by one in any order. Of a file only the bytes around each
//! cut are read. Its cuts are looked for from each multiple of the chunk size, not from the last cut, so that it does
//! not fall into fewer chunks than its size promises, unless words are longer than a chunk.
//! Stands on [`walk`](crate::walk).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::walk::Input;

/// Chunks smaller than this cost more to send than to count.
const SMALLEST: u64 = 4 << 10;
/// With kills to fit in, smaller ones are worth it.
const SMALLEST_WITH_CHAOS: u64 = 256;
/// Larger ones gain nothing, and lose more when their worker is killed.
const LARGEST: u64 = 4 << 20;
/// How much of a file is read at a time to find a border; words are shorter, as a rule.
const WINDOW: usize = 4 << 10;

/// A part of one input: the unit that workers lease.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Counted from 0 over all inputs, without gaps; a result carries it, so that it counts once.
    pub(crate) id: u64,
    /// The input's place in [`Walk::inputs`](crate::walk::Walk::inputs).
    pub(crate) file: u32,
    pub(crate) source: Source,
    /// How many bytes it must turn out to have.
    pub(crate) expected: u64,
}

/// Where the bytes of a chunk are.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In a file that the worker opens.
    Range {
        #[serde(with = "path_as_bytes")]
        path: PathBuf,
        offset: u64,
        len: u64,
    },
    /// Here: of an input that only the coordinator can read.
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// How large chunks shall be, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizing {
    /// Of files.
    file: u64,
    /// Of streams, at their beginning.
    stream: u64,
    /// After how many chunks those of a stream double.
    doubling: u64,
}

impl Sizing {
    /// About `bytes` each.
    pub(crate) fn fixed(bytes: u64) -> Sizing {
        let bytes = bytes.max(1);
        Sizing { file: bytes, stream: bytes, doubling: u64::MAX }
    }

    /// About how many chunks these inputs fall into.
    pub(crate) fn estimate(&self, inputs: &[Input]) -> u64 {
        let chunks = |input: &Input| match input.size() {
            Some(size) => size.div_ceil(self.file),
            None => self.doubling.min(100),
        };
        inputs.iter().map(chunks).sum()
    }

    /// Eight chunks for each worker, so that they end at about the same time, and four for each kill.
    ///
    /// `total` is the size of all files. The size of a stream is not known, so its chunks begin small and grow: what
    /// it promises for kills and workers holds for short ones, and long ones do not fall into millions.
    pub(crate) fn choose(total: u64, workers: usize, chaos: u32) -> Sizing {
        let parts = (workers as u64).saturating_mul(8).max(u64::from(chaos) * 4).max(1);
        let smallest = if chaos > 0 { SMALLEST_WITH_CHAOS } else { SMALLEST };
        Sizing { file: (total / parts).clamp(smallest, LARGEST), stream: smallest, doubling: parts }
    }
}

/// Numbers the chunks of one input after the other.
#[derive(Debug)]
pub(crate) struct Planner {
    sizing: Sizing,
    planned: u64,
}

/// The chunks of one input, planned while they are asked for.
pub(crate) type Chunks<'a> = Box<dyn Iterator<Item = io::Result<Chunk>> + 'a>;

impl Planner {
    pub(crate) fn new(sizing: Sizing) -> Planner {
        Planner { sizing, planned: 0 }
    }

    /// How many chunks there are so far; their ids are those below.
    pub(crate) fn planned(&self) -> u64 {
        self.planned
    }

    /// The chunks of `input`, the one at `file` in the list.
    ///
    /// After an error the iterator ends.
    ///
    /// # Errors
    /// When the input cannot be opened; while iterating, when it cannot be read or a file has become shorter.
    pub(crate) fn input(&mut self, file: u32, input: &Input) -> io::Result<Chunks<'_>> {
        Ok(match input {
            Input::File { path, size } => Box::new(self.file(file, path, *size)?),
            Input::Stream { path } => Box::new(self.stream(file, File::open(path)?)),
            Input::Stdin => Box::new(self.stream(file, io::stdin().lock())),
        })
    }

    fn file(&mut self, file: u32, path: &Path, size: u64) -> io::Result<FileChunks<'_>> {
        let opened = File::open(path)?;
        Ok(FileChunks { planner: self, file, path: path.into(), opened, size, offset: 0 })
    }

    fn stream<R: Read>(&mut self, file: u32, reader: R) -> StreamChunks<'_, R> {
        let size = usize::try_from(self.sizing.stream).unwrap_or(usize::MAX);
        StreamChunks { planner: self, file, reader: Some(reader), size, at_this_size: 0, rest: Vec::new() }
    }

    fn chunk(&mut self, file: u32, source: Source, expected: u64) -> Chunk {
        let id = self.planned;
        self.planned += 1;
        Chunk { id, file, source, expected }
    }
}

struct FileChunks<'a> {
    planner: &'a mut Planner,
    file: u32,
    path: PathBuf,
    opened: File,
    size: u64,
    offset: u64,
}

impl Iterator for FileChunks<'_> {
    type Item = io::Result<Chunk>;

    fn next(&mut self) -> Option<io::Result<Chunk>> {
        let offset = self.offset;
        if offset >= self.size {
            return None;
        }
        let step = self.planner.sizing.file;
        let wanted = (offset / step + 1).saturating_mul(step);
        let end = match border_in_file(&self.opened, wanted, self.size) {
            Ok(end) => end,
            Err(e) => {
                self.offset = self.size;
                return Some(Err(e));
            }
        };
        self.offset = end;
        let len = end - offset;
        let source = Source::Range { path: self.path.clone(), offset, len };
        Some(Ok(self.planner.chunk(self.file, source, len)))
    }
}

struct StreamChunks<'a, R> {
    planner: &'a mut Planner,
    file: u32,
    /// None after the end or an error.
    reader: Option<R>,
    size: usize,
    at_this_size: u64,
    /// What has been read and not handed out.
    rest: Vec<u8>,
}

impl<R: Read> StreamChunks<'_, R> {
    /// Where to cut `rest`, reading what it takes; `None` when it holds all that is left.
    fn cut(&mut self) -> io::Result<Option<usize>> {
        let mut from = self.size;
        while let Some(reader) = &mut self.reader {
            if let Some(border) = self.rest.get(from - 1..).and_then(border) {
                return Ok(Some(from - 1 + border));
            }
            from = from.max(self.rest.len());
            let missing = (self.size + 1).saturating_sub(self.rest.len()).max(WINDOW);
            if reader.take(missing as u64).read_to_end(&mut self.rest)? == 0 {
                self.reader = None;
            }
        }
        Ok(None)
    }

    fn grow(&mut self) {
        self.at_this_size += 1;
        if self.at_this_size == self.planner.sizing.doubling && self.size < LARGEST as usize {
            self.at_this_size = 0;
            self.size *= 2;
        }
    }
}

impl<R: Read> Iterator for StreamChunks<'_, R> {
    type Item = io::Result<Chunk>;

    fn next(&mut self) -> Option<io::Result<Chunk>> {
        let rest = match self.cut() {
            Ok(Some(cut)) => self.rest.split_off(cut),
            Ok(None) => Vec::new(),
            Err(e) => {
                self.reader = None;
                self.rest.clear();
                return Some(Err(e));
            }
        };
        let bytes = std::mem::replace(&mut self.rest, rest);
        if bytes.is_empty() {
            return None;
        }
        self.grow();
        let expected = bytes.len() as u64;
        Some(Ok(self.planner.chunk(self.file, Source::Bytes(bytes), expected)))
    }
}

/// The first place in `bytes`, after its first byte, that is not inside of a word.
fn border(bytes: &[u8]) -> Option<usize> {
    let inside = |pair: &[u8]| pair.iter().all(u8::is_ascii_alphabetic);
    bytes.windows(2).position(|pair| !inside(pair)).map(|at| at + 1)
}

/// The first place at `from` or after, and `end` at the latest, that is not inside of a word.
fn border_in_file(file: &File, from: u64, end: u64) -> io::Result<u64> {
    let mut window = [0; WINDOW];
    let mut start = from - 1;
    while start + 1 < end {
        let window = &mut window[..(end - start).min(WINDOW as u64) as usize];
        read_exact_at(file, window, start)?;
        if let Some(at) = border(window) {
            return Ok(start + at as u64);
        }
        // The last byte is looked at again, together with the one after it.
        start += window.len() as u64 - 1;
    }
    Ok(end)
}

/// Fills `bytes` from `offset` on.
///
/// # Errors
/// Those of pread(2); `UnexpectedEof` when the file ends before, so it has shrunk since it was listed.
pub(crate) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(bytes, offset).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => {
            let end = offset + bytes.len() as u64;
            io::Error::new(e.kind(), format!("shrank while being counted, it had {end} bytes or more"))
        }
        _ => e,
    })
}

/// Names of files are bytes, not always UTF-8, which is what serde would insist on.
mod path_as_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(path.as_os_str().as_bytes(), to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let bytes: Vec<u8> = serde_bytes::deserialize(from)?;
        Ok(OsString::from_vec(bytes).into())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;

    /// Words of very different lengths, among letters that ASCII does not know and single bytes of all kinds.
    pub(crate) fn random_text(rng: &mut fastrand::Rng, len: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(len + 64);
        while text.len() < len {
            let letters = if rng.u8(..50) == 0 { rng.usize(..60) } else { rng.usize(..7) };
            let few = rng.bool();
            for _ in 0..letters {
                text.push(if few { b"abAB"[rng.usize(..4)] } else { rng.alphabetic() as u8 });
            }
            match rng.u8(..4) {
                0 => text.push(rng.u8(..)),
                1 => text.extend("\u{e9}\u{17f}".as_bytes()),
                2 => text.push(b"@[`{"[rng.usize(..4)]),
                _ => text.extend(&b" \n\n"[..rng.usize(1..4)]),
            }
        }
        text.truncate(len);
        text
    }

    pub(crate) fn temp_file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn of_file(planner: &mut Planner, bytes: &[u8]) -> Vec<Chunk> {
        let file = temp_file(bytes);
        let input = Input::File { path: file.path().into(), size: bytes.len() as u64 };
        planner.input(0, &input).unwrap().collect::<io::Result<_>>().unwrap()
    }

    fn of_stream(planner: &mut Planner, bytes: &[u8]) -> Vec<Chunk> {
        planner.stream(0, bytes).collect::<io::Result<_>>().unwrap()
    }

    fn parts(whole: &[u8], chunks: &[Chunk]) -> Vec<Vec<u8>> {
        let part = |chunk: &Chunk| match &chunk.source {
            Source::Range { offset, len, .. } => {
                assert_eq!(chunk.expected, *len);
                whole[*offset as usize..][..*len as usize].to_vec()
            }
            Source::Bytes(bytes) => {
                assert_eq!(chunk.expected, bytes.len() as u64);
                bytes.clone()
            }
        };
        chunks.iter().map(part).collect()
    }

    fn assert_well_cut(whole: &[u8], chunks: &[Chunk]) {
        let ids: Vec<u64> = chunks.iter().map(|c| c.id).collect();
        assert!(ids.iter().copied().eq(0..ids.len() as u64), "{ids:?}");
        let parts = parts(whole, chunks);
        assert_eq!(parts.concat(), whole);
        assert!(parts.iter().all(|p| !p.is_empty()));
        for pair in parts.windows(2) {
            let around = [*pair[0].last().unwrap(), pair[1][0]];
            assert!(!around.iter().all(u8::is_ascii_alphabetic), "cut inside of {around:?}");
        }
    }

    #[test]
    fn cuts_lie_on_the_first_border_from_each_multiple() {
        let text = b"aaa bbbbbb cc, d";
        let chunks = of_file(&mut Planner::new(Sizing::fixed(4)), text);
        assert_well_cut(text, &chunks);
        assert_eq!(parts(text, &chunks), [&b"aaa "[..], b"bbbbbb", b" cc", b", d"]);
    }

    #[test]
    fn cuts_in_streams_lie_on_the_first_border_from_a_chunk_size_on() {
        let text = b"aaa bbbbbb cc, d";
        let chunks = of_stream(&mut Planner::new(Sizing::fixed(4)), text);
        assert_well_cut(text, &chunks);
        assert_eq!(parts(text, &chunks), [&b"aaa "[..], b"bbbbbb", b" cc,", b" d"]);
    }

    #[test]
    fn every_text_is_cut_well_at_every_size() {
        let mut rng = fastrand::Rng::with_seed(1);
        for round in 0..300 {
            let len = rng.usize(..400);
            let text = random_text(&mut rng, len);
            let size = if round % 3 == 0 { 1 } else { rng.u64(1..80) };
            let sizing = Sizing { doubling: rng.u64(1..9), ..Sizing::fixed(size) };
            assert_well_cut(&text, &of_file(&mut Planner::new(sizing), &text));
            assert_well_cut(&text, &of_stream(&mut Planner::new(sizing), &text));
        }
    }

    #[test]
    fn a_gigantic_word_is_one_chunk() {
        let mut text = vec![b'x'; 3 * WINDOW + 17];
        text.splice(..0, *b"so ");
        text.extend(b" it ends");
        for size in [1, 2, 3, 4, 100, WINDOW as u64, 2 * WINDOW as u64 - 1] {
            for chunks in
                [of_file(&mut Planner::new(Sizing::fixed(size)), &text), of_stream(&mut Planner::new(Sizing::fixed(size)), &text)]
            {
                assert_well_cut(&text, &chunks);
                assert!(chunks.iter().any(|c| c.expected > 3 * WINDOW as u64));
            }
        }
    }

    #[test]
    fn borders_on_the_edges_of_windows_are_found() {
        for len in WINDOW - 3..WINDOW + 4 {
            let mut text = vec![b'x'; len];
            text.extend(b".yy");
            let chunks = of_file(&mut Planner::new(Sizing::fixed(1)), &text);
            assert_well_cut(&text, &chunks);
            assert_eq!(chunks.iter().map(|c| c.expected).collect::<Vec<_>>(), [len as u64, 1, 2]);
        }
    }

    #[test]
    fn nothing_makes_no_chunk() {
        assert!(of_file(&mut Planner::new(Sizing::fixed(1)), b"").is_empty());
        assert!(of_stream(&mut Planner::new(Sizing::fixed(1)), b"").is_empty());
    }

    #[test]
    fn ids_go_on_over_inputs() {
        let mut planner = Planner::new(Sizing::fixed(1));
        assert_eq!(of_file(&mut planner, b"a b").len(), 3);
        let chunks = of_stream(&mut planner, b". c");
        assert_eq!(chunks.iter().map(|c| c.id).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(planner.planned(), 6);
    }

    #[test]
    fn kills_fit_and_chunks_stay_in_bounds() {
        assert_eq!(Sizing::choose(0, 4, 0).file, SMALLEST);
        assert_eq!(Sizing::choose(1 << 40, 4, 0).file, LARGEST);
        assert_eq!(Sizing::choose(32 << 20, 4, 0).file, 1 << 20);
        assert_eq!(Sizing::choose(100, 4, 30).file, SMALLEST_WITH_CHAOS);
        assert_eq!(Sizing::choose(1 << 20, usize::MAX, u32::MAX).file, SMALLEST_WITH_CHAOS);

        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..20 {
            let len = rng.usize(40_000..200_000);
            let text = random_text(&mut rng, len);
            let sizing = Sizing::choose(text.len() as u64, 2, 30);
            assert!(of_file(&mut Planner::new(sizing), &text).len() >= 4 * 30);
        }
    }

    #[test]
    fn the_chunks_of_a_stream_grow() {
        let text = b"a ".repeat(1 << 20);
        let chunks = of_stream(&mut Planner::new(Sizing::choose(0, 1, 5)), &text);
        assert_well_cut(&text, &chunks);
        let sizes: Vec<u64> = chunks.iter().map(|c| c.expected).collect();
        assert_eq!(sizes[..20], [256; 20]);
        assert_eq!(sizes[20..40], [512; 20]);
        assert!(chunks.len() < 300, "{}", chunks.len());
    }

    #[test]
    fn a_file_that_shrank_is_an_error_and_the_end() {
        let file = temp_file(b"word word word");
        let input = Input::File { path: file.path().into(), size: 1000 };
        let mut planner = Planner::new(Sizing::fixed(100));
        let mut chunks = planner.input(0, &input).unwrap();
        let e = chunks.next().unwrap().unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
        assert!(e.to_string().contains("shrank"), "{e}");
        assert!(chunks.next().is_none());
    }

    #[test]
    fn an_error_ends_a_stream() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let mut planner = Planner::new(Sizing::fixed(4));
        let mut chunks = planner.stream(0, (&b"some words"[..]).chain(Broken));
        let results: Vec<_> = chunks.by_ref().take(10).map(|c| c.is_ok()).collect();
        assert_eq!(results.last(), Some(&false));
        assert_eq!(results.iter().filter(|ok| !**ok).count(), 1);
        assert!(chunks.next().is_none());
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let mut planner = Planner::new(Sizing::fixed(1));
        for input in [Input::File { path: "/missing".into(), size: 1 }, Input::Stream { path: "/missing".into() }] {
            assert_eq!(planner.input(0, &input).err().unwrap().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn chunks_travel_without_loss() {
        let path = PathBuf::from(OsStr::from_bytes(b"/tmp/\xff\xfe name"));
        for source in [Source::Range { path, offset: 1, len: u64::MAX }, Source::Bytes((0..=255).collect())] {
            let chunk = Chunk { id: 7, file: 3, source, expected: 256 };
            let sent = bincode::serialize(&chunk).unwrap();
            assert_eq!(bincode::deserialize::<Chunk>(&sent).unwrap(), chunk);
        }
    }
}
