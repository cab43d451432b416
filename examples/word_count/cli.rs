//! The command line, as clap reads it.
//!
//! What can be refused is refused here, as a usage error with exit code 2; the files behind this one take their
//! arguments as valid. Nothing lies below.

use std::num::NonZero;
use std::path::PathBuf;

use clap::Parser;

/// A kill takes milliseconds, so that more would take hours.
const MOST_KILLS: i64 = 1_000_000;

/// Counts words with worker processes, exactly, also while they are being killed.
///
/// A word is a longest run of ASCII letters within one file, lower-cased. Exit code: 0, or 2 when a file could not
/// be read (the others are counted) or the usage is wrong.
#[derive(Parser, Clone, Debug)]
#[command(name = "word_count", version)]
pub(crate) struct Args {
    /// Files, directories (walked with what their symlinks lead to, once), or `-` for stdin
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// How many processes count at a time [default: one per available processor]
    #[arg(
        short, long, value_name = "N", value_parser = workers, default_value_t = processors(), hide_default_value = true
    )]
    pub(crate) workers: NonZero<usize>,

    /// How many of the most frequent words to print; 0 prints all
    #[arg(short, long, value_name = "K", default_value_t = 20)]
    pub(crate) top: usize,

    /// Print one JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,

    /// Kill N workers (SIGKILL) at random moments, half of them or more while they hold a lease
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=MOST_KILLS))]
    pub(crate) chaos: u32,

    /// Seed of the random moments of --chaos [default: another one each time]
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,

    /// Cut files every so many bytes, at the next word border [default: from the input's size]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) chunk_size: Option<u64>,
}

fn workers(text: &str) -> Result<NonZero<usize>, String> {
    let n: usize = text.parse().map_err(|e| format!("{e}"))?;
    NonZero::new(n).ok_or_else(|| "nobody would count; at least 1 worker is needed".into())
}

fn processors() -> NonZero<usize> {
    std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["word_count"], args].concat())
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let args = parse(&["a"]).unwrap();
        assert_eq!(args.paths, [PathBuf::from("a")]);
        assert_eq!(args.workers, processors());
        assert_eq!((args.top, args.json, args.chaos), (20, false, 0));
        assert_eq!((args.seed, args.chunk_size), (None, None));
    }

    #[test]
    fn options_may_follow_paths_and_a_dash_is_a_path() {
        let args =
            parse(&["a", "-", "--workers", "3", "--top", "0", "--json", "--chaos", "30", "--seed", "7", "--chunk-size", "512"])
                .unwrap();
        assert_eq!(args.paths, [PathBuf::from("a"), PathBuf::from("-")]);
        assert_eq!((args.workers.get(), args.top, args.json), (3, 0, true));
        assert_eq!((args.chaos, args.seed, args.chunk_size), (30, Some(7), Some(512)));
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for (args, kind) in [
            (&[][..], ErrorKind::MissingRequiredArgument),
            (&["a", "--workers", "0"], ErrorKind::ValueValidation),
            (&["a", "--workers", "-1"], ErrorKind::UnknownArgument),
            (&["a", "--chunk-size", "0"], ErrorKind::ValueValidation),
            (&["a", "--top", "many"], ErrorKind::ValueValidation),
            (&["a", "--chaso", "1"], ErrorKind::UnknownArgument),
        ] {
            let e = parse(args).unwrap_err();
            assert_eq!(e.kind(), kind, "{args:?}: {e}");
            assert_eq!(e.exit_code(), 2);
        }
        let e = parse(&["a", "--workers", "0"]).unwrap_err().to_string();
        assert!(e.contains("--workers") && e.contains("at least 1 worker"), "{e}");
    }
}
